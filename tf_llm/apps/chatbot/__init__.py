"""A chatbot: turns, answers, and where they come from.

chatbot.py      `Chatbot`: a conversation; ask, retry, stop, clear
prompts.py      messages become one prompt;  packing.py: as many as the model can read
faq.py          answers quoted from a CSV file, or a person
facts.py        what the documentation that is installed here says of each name;  fact_search.py: looking it up
words.py        ranking short texts by the words they share with a question
phrasings.py    questions about facts in many words, some of them held out
dialogues.py    conversations of others: JSON Lines, data sets, YAML
training.py     teaching a model all of these
online.py       `OnlineLearner`: learning on while in use, on a leash
terminal.py     the conversation in a terminal

question ─ chatbot ─┬─ faq        ─ words            answer, or a person
                    ├─ retrieve   ─ fact_search      answer, address
                    └─ generate   ─ packing, model   answer, piece by piece
"""
