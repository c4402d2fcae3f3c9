"""What people ask of their phone becomes a call of a tool that is allowed, and is done when they have said yes.

calls.py            a call, its notation, and the utterances that it is learnt from
phrasings.py        makes such utterances, by the grammar in grammar/*.txt
assistant.py        the conversation: asks, does, refuses
tools.py            functions that may be called, and nothing else;  standard.py: those that come with it
slots.py            what the words in a slot mean

understanding.py    text becomes a call;  call_tokens.py: by which ids;  call_grammar.py: and nothing but a call
teaching.py         the run in which that is learnt;  lessons.py: its batches;  corpora.py: requests of others

spoken_numbers.py   calculator.py   durations.py   clock.py   dates.py   units.py     words become values
store.py            calendar.py     home.py                                           what is kept, and where
personal.py         answers.py      house.py                                          the tools themselves

text ─ understanding ─ Call ─ toolbox ─ Task ─ (a yes) ─ tool ─ answer
"""
