"""The same question in many words: what the documentation bot is trained on, and what it is tried with.

A template is a sentence with a place for a name. A question is a template, the name with or without the brackets of a
call, and the little that people add or leave out: a greeting, a capital, the sign at the end. The templates in HELD_OUT
are never trained on. Asked in their words, a bot answers right if it looks for the name, and not if it knows sentences.
So that it looks for the name, some questions are no sentences: a name among words by chance.

Some questions stand behind another one and its answer, and name what they are about, or mean what was named before.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tf_llm.apps.chatbot.facts import Fact
from tf_llm.apps.chatbot.prompts import build_prompt

TRAINED = (
    "What does {name} do?",
    "What is {name}?",
    "What is {name} for?",
    "What's {name}?",
    "Explain {name}.",
    "Explain to me what {name} does.",
    "Tell me about {name}.",
    "What can I do with {name}?",
    "How would you describe {name}?",
    "Give me a summary of {name}.",
    "I would like to know what {name} does.",
    "Can you say what {name} is good for?",
    "Do you know {name}?",
    "{name}",
    "{name}, what is that?",
    "What happens when I use {name}?",
    "Why would anyone need {name}?",
    "Summarise {name} for me.",
    "Show me the documentation of {name}.",
    "I came across {name}. What is it?",
    "Someone told me to take {name}, what does it do?",
    "help {name}",
)
HELD_OUT = (
    "What is the purpose of {name}?",
    "Describe {name} in one sentence.",
    "Could you remind me what {name} is used for?",
    "When should I reach for {name}?",
    "I keep seeing {name} in code, so what is its job?",
    "Say in a few words what {name} is about.",
    "Please look up {name}.",
    "{name}: how does it help me?",
)
# Behind an earlier question and its answer: about another name, or about the same.
FOLLOWING = ("And {name}?", "What about {name}?", "And what does {name} do?", "Now {name}.")
FOLLOWING_HELD_OUT = ("Then what of {name}?", "OK, how about {name}?")
KIND = ("Is it a function or a class?", "What kind of thing is it?", "What is it, a class or a function?")
AGAIN = ("Say that again.", "What was that?", "Once more, please.")

OPENINGS = ("Hi, ", "Hello. ", "Please: ", "In Python, ", "One question: ")
OPENED, SMALL, UNSIGNED, CALLED = 0.2, 0.3, 0.3, 0.15  # shares: an opening, no capital, no sign at the end, brackets


def phrase(template: str, name: str, random: np.random.Generator) -> str:
    """A question about a name.

    Args:
        template: with `{name}` in it.
        name: what is asked about.
        random: decides on an opening, the capital, the sign and the brackets.

    >>> phrase("What does {name} do?", "math.sqrt", np.random.default_rng(0))
    'what does math.sqrt() do'
    """
    opened, small, unsigned, called = random.random(4) < (OPENED, SMALL, UNSIGNED, CALLED)
    if unsigned:
        template = template.rstrip("?.")
    if small and not template.startswith(("{name}", "I ")):
        template = template[0].lower() + template[1:]
    text = template.format(name=f"{name}()" if called else name)
    return OPENINGS[random.integers(len(OPENINGS))] + text if opened else text


def phrase_often(name: str, count: int, random: np.random.Generator, templates: Sequence[str] = TRAINED) -> list[str]:
    """`count` questions about a name, in each of the templates once before any comes again."""
    order = np.concatenate([random.permutation(len(templates)) for _ in range(-(-count // len(templates)))])
    return [phrase(templates[number], name, random) for number in order[:count]]


def scatter(name: str, words: Sequence[str], random: np.random.Generator) -> str:
    """A name among words by chance.

    >>> scatter("math.sqrt", ["cat", "mat"], np.random.default_rng(1))
    'mat mat mat cat math.sqrt cat!'
    """
    chosen = [words[number] for number in random.integers(len(words), size=random.integers(1, 10))]
    chosen.insert(random.integers(len(chosen) + 1), "{name}")
    return phrase(" ".join(chosen) + "?.!"[random.integers(3)], name, random)


def make_lessons(facts: Sequence[Fact], count: int = 16, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Yields the (prompt, answer) pairs that a bot learns facts from, in the form in which `Chatbot` will ask.

    Of each fact: `count` questions, half as many among words by chance, a quarter as many behind the question for
    another fact, one in which "it" is what was asked before, and one for the same answer again.
    """
    random = np.random.default_rng(seed)
    words = sorted({word for fact in facts for word in fact.summary.lower().split() if word.isalpha()})
    for fact in facts:
        asked = [
            *phrase_often(fact.name, count, random),
            *(scatter(fact.name, words, random) for _ in range(count // 2)),
        ]
        for question in asked:
            yield build_prompt([("user", question)])[0], fact.summary
        for _ in range(count // 4):
            before = facts[random.integers(len(facts))]
            templates = FOLLOWING if random.random() < 0.7 else TRAINED
            yield follow(before, phrase(choose(templates, random), fact.name, random), random), fact.summary
        yield follow(fact, choose(KIND, random), random), say_kind(fact)
        yield follow(fact, choose(AGAIN, random), random), fact.summary


def follow(before: Fact, question: str, random: np.random.Generator, templates: Sequence[str] = TRAINED) -> str:
    """The prompt of a question behind that for the fact `before`, which was answered."""
    asked = phrase(choose(templates, random), before.name, random)
    return build_prompt([("user", asked), ("assistant", before.summary), ("user", question)])[0]


def choose(templates: Sequence[str], random: np.random.Generator) -> str:
    """One of the templates."""
    return templates[random.integers(len(templates))]


def say_kind(fact: Fact) -> str:
    """The answer to "Is it a function or a class?".

    >>> say_kind(Fact("math.sqrt", "function", "", "", ""))
    'It is a function.'
    """
    return f"It is a {fact.kind}."
