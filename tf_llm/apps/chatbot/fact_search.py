"""Which facts a question is about: what a bot looks up where no search engine is at hand.

A name that stands in the question just as it stands in the documentation comes first, then what shares the rarest words
with the question, of its name and of its summary (words.py, BM25): "square root" and "sqrt" find `math.sqrt`, too.
"""

from collections.abc import Sequence

from tf_llm.apps.chatbot.chatbot import Passage
from tf_llm.apps.chatbot.facts import Fact
from tf_llm.apps.chatbot.words import NAME, QUESTION_WORDS, WordIndex

COUNT = 3  # passages at most
LEAST_SHARE = 0.4  # of what a question asks for, weighed by how rare its words are; else it is about something else


def look_up_in(index, count: int = COUNT):
    """A `retrieve` of `Chatbot` that asks a search engine over pages: what it shows of a page is quoted.

    Args:
        index: a `apps.search.SearchIndex`, or anything whose `search(question, count=…)` has such `hits`.
        count: passages at most.
    """

    def retrieve(question):
        hits = index.search(question, count=count).hits
        return [Passage(hit.snippet.text, hit.address) for hit in hits if hit.snippet.text.strip()]

    return retrieve


class FactSearch:
    """Finds facts; a `retrieve` of `Chatbot`.

    Args:
        facts: all that can be found.

    >>> search = FactSearch([Fact("math.sqrt", "function", "Return the square root of x.", "", "math.html#math.sqrt")])
    >>> search("What is sqrt() for?")
    [Passage(text='Return the square root of x.', address='math.html#math.sqrt')]
    >>> search("Who won the cup?")
    []
    """

    def __init__(self, facts: Sequence[Fact]):
        self.facts = list(facts)
        self.by_name = {fact.name: fact for fact in self.facts}
        # A name says more than what is said about it, and counts twice.
        self.index = WordIndex(f"{fact.name} {fact.name} {fact.summary}" for fact in self.facts)

    def __call__(self, question: str) -> list[Passage]:
        return [Passage(fact.summary, fact.address) for fact in self.find(question)]

    def find(self, question: str, count: int = COUNT) -> list[Fact]:
        """The facts that a question is about, the likeliest first; none where it is about something else."""
        names = [word for word in NAME.findall(question) if word in self.by_name]
        # "any" and "help" are names and plain English: they count behind all others.
        names.sort(key=lambda name: ("." not in name, name.lower() in QUESTION_WORDS))
        sure = [self.by_name[name] for name in names if name.lower() not in QUESTION_WORDS]
        ranked = [
            self.facts[number]
            for number, _ in self.index.rank(question, count)
            if self.index.cover(question, number) >= LEAST_SHARE
        ]
        found = sure + ranked or [self.by_name[name] for name in names]
        return list(dict.fromkeys(found))[:count]
