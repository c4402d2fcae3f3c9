"""A chatbot in the terminal: of this Python's documentation, of a list of questions and answers, or of conversations.

    python examples/chatbot.py                    what the documentation says, from memory
    python examples/chatbot.py --pages            the same looked up, with the address of the page
    python examples/chatbot.py --pages --learn    and what was looked up is learned
    python examples/chatbot.py --faq=support.csv  answers of the file (columns question, answer), or a person
    python examples/chatbot.py --dialogues=talks.jsonl --workdir=runs/talks    taught conversations of others
    python examples/chatbot.py --dialogues=talks.jsonl --model=google/flan-t5-small --workdir=runs/tuned

The first start teaches a model some 2,200 names of the standard library, in about 10 minutes on 2 cores; it is kept in
--workdir. Then

    > What does math.sqrt do?
    Return the square root of x.
    > And textwrap.dedent?
    Remove any common leading whitespace from every line in text.

Asked in other words than it was taught in, it says 96 of 100 summaries to the letter
(benchmarks/chatbot_quality.py). Of names that it was not taught it says something all the same, and that is wrong:
--pages or /pages looks them up. With --learn, what was looked up is learned, at the expense of what was known before;
/undo takes it back.

Commands: /retry /clear /seed 7 /temperature 0.7 /pages /undo /help /quit. Ctrl-C stops an answer. In a notebook, such
as Colab's, --gradio opens a page in its place (pip install "tf_llm[gradio]").
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets at length when it is imported
from absl import flags

import tf_llm.flags

WORKDIR = flags.DEFINE_string("workdir", "runs/chatbot", "The folder of the bot: its run, and the facts it was taught.")
PAGES = flags.DEFINE_bool("pages", False, "Look answers up, and name the page.")
LEARN = flags.DEFINE_bool("learn", False, "Go on learning from what was looked up, within bounds.")
FAQ = flags.DEFINE_string("faq", None, "A CSV file with the columns question and answer: nothing else is said.")
DIALOGUES = flags.DEFINE_string("dialogues", None, "Conversations to teach: JSON Lines, ChatterBot's YAML, a data set.")
MODEL = flags.DEFINE_string(
    "model", None, "With --dialogues, to start from: the folder of a run, or a T5 on disk or the hub."
)
STEPS = flags.DEFINE_integer("steps", 1_200, "Optimiser steps of the teaching.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Of what is drawn.", lower_bound=0)
TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "How freely it is drawn; 0 is the likeliest.", lower_bound=0.0)
GRADIO = flags.DEFINE_bool("gradio", False, "A page by Gradio in place of the terminal.")


def build_bots():
    """(function that begins a conversation, `OnlineLearner` or None)."""
    from tf_llm.apps.chatbot.chatbot import Chatbot
    from tf_llm.apps.chatbot.dialogues import read_dialogues
    from tf_llm.apps.chatbot.fact_search import FactSearch
    from tf_llm.apps.chatbot.faq import Faq

    if FAQ.value:
        faq = Faq.open(FAQ.value)
        faq.choose_threshold()
        return lambda: Chatbot(faq=faq), None
    from tf_llm.apps.chatbot.online import OnlineLearner
    from tf_llm.apps.chatbot.training import MEMORY, load_start, teach_dialogues, teach_documentation

    drawn = {"seed": SEED.value, "temperature": TEMPERATURE.value}
    if DIALOGUES.value:
        start = load_start(MODEL.value) if MODEL.value else None
        generate = teach_dialogues(read_dialogues(DIALOGUES.value), WORKDIR.value, start, STEPS.value)
        return lambda: Chatbot(generate, **drawn), None
    generate, taught, others = teach_documentation(WORKDIR.value, steps=STEPS.value)
    learner = OnlineLearner(generate) if LEARN.value else None
    pages = {"retrieve": FactSearch([*taught, *others]), "looks_up": PAGES.value}
    return lambda: Chatbot(generate, memory=MEMORY, learn=learner and learner.read_pair, **pages, **drawn), learner


def main():
    from tf_llm.apps.chatbot.notebook import launch
    from tf_llm.apps.chatbot.terminal import HELP, chat

    begin, learner = build_bots()
    if GRADIO.value:
        launch(begin)
    else:
        print(HELP)
        chat(begin(), learner)


if __name__ == "__main__":
    tf_llm.flags.launch(main)
