"""Which of many short texts share the rare words of a question: BM25 and cosines of TF-IDF, by inverted lists.

This is what a bot needs to look up one line among thousands. Search over pages is an application of its own
(apps/search); its answers fit in the same place.

Sources: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009; the idf is Lucene's,
which is never negative. Salton and Buckley, "Term-weighting approaches in automatic text retrieval", 1988.
"""

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

from nltk.stem.snowball import SnowballStemmer

# A word is letters, digits and underscores; a dotted name is a word as well, besides its parts.
NAME = re.compile(r"\w+(?:\.\w+)*")
K1, B = 1.2, 0.75  # BM25's: how soon further occurrences stop to count, how much a long text is held against it
# What questions are made of says nothing about what is asked.
QUESTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are about can could do does for from have how i if in into is it its me my of on one or please tell "
        "that the this to use used using was what when where which why will with would you your",
    )
)


@functools.cache
def find_stem(word: str) -> str:
    """A word without its ending: "returned" and "returns" are one."""
    return SnowballStemmer("english").stem(word)


def split_terms(text: str, passed_over: Collection[str] = QUESTION_WORDS) -> list[str]:
    """What a text is searched by: stems, and dotted names as they stand, but for the words that are passed over.

    >>> split_terms("What does math.sqrt() return?")
    ['math.sqrt', 'math', 'sqrt', 'return']
    """
    terms = []
    for name in NAME.findall(text.lower()):
        parts = name.split(".")
        if len(parts) > 1:
            terms.append(name)
        terms += [find_stem(part) for part in parts if part not in passed_over]
    return terms


class WordIndex:
    """Texts that can be ranked by the words of a question.

    Args:
        texts: known by their number from now on.
        passed_over: words that do not count, in texts and in questions.

    >>> index = WordIndex(["Return the square root of x.", "Return the sine of x.", "A cat."])
    >>> index.rank("square roots")[0][0], index.compare("the square root of x, returned")[0]
    (0, (0, 1.0))
    """

    def __init__(self, texts: Iterable[str], passed_over: Collection[str] = QUESTION_WORDS):
        self.passed_over = passed_over
        counts = [Counter(self._split(text)) for text in texts]
        self.lengths = [count.total() for count in counts]
        self.places: dict[str, list[tuple[int, int]]] = defaultdict(list)  # term -> (text, how often)
        for number, count in enumerate(counts):
            for term, often in count.items():
                self.places[term].append((number, often))
        size = len(counts)
        self.weights = {term: math.log(1 + size / len(places)) for term, places in self.places.items()}
        self.unseen = math.log(1 + size)  # of a word that is in no text: it is rarer than any
        self.norms = [math.hypot(*(often * self.weights[term] for term, often in count.items())) for count in counts]

    def rank(self, question: str, count: int = 10) -> list[tuple[int, float]]:
        """The best `count` texts by BM25: (number, score), best first; a text without a word in common is none."""
        mean = sum(self.lengths) / max(len(self.lengths), 1)
        scores: dict[int, float] = defaultdict(float)
        for term in set(self._split(question)):
            places = self.places.get(term, ())
            idf = math.log(1 + (len(self.lengths) - len(places) + 0.5) / (len(places) + 0.5))
            for number, often in places:
                room = K1 * (1 - B + B * self.lengths[number] / mean)
                scores[number] += idf * often * (K1 + 1) / (often + room)
        return _best(scores, count)

    def compare(self, question: str, count: int = 10) -> list[tuple[int, float]]:
        """The best `count` texts by the cosine of their TF-IDF vectors to the question's: (number, cosine in (0, 1]).

        A word that no text has counts against all of them, so that a question of other things is near to nothing.
        """
        terms = Counter(self._split(question))
        norm = math.hypot(*(often * self.weights.get(term, self.unseen) for term, often in terms.items()))
        scores: dict[int, float] = defaultdict(float)
        for term, asked in terms.items():
            for number, often in self.places.get(term, ()):
                scores[number] += asked * often * self.weights[term] ** 2 / (norm * self.norms[number])
        return [(number, min(score, 1.0)) for number, score in _best(scores, count)]

    def cover(self, question: str, number: int) -> float:
        """How much of a question's words a text has, weighed by how rare they are: a share in [0, 1]."""
        weights = {term: self.weights.get(term, self.unseen) for term in self._split(question)}
        shared = sum(
            weight for term, weight in weights.items() if any(n == number for n, _ in self.places.get(term, ()))
        )
        return shared / max(sum(weights.values()), 1e-9)

    def _split(self, text):
        return split_terms(text, self.passed_over)


def _best(scores: dict[int, float], count: int) -> Sequence[tuple[int, float]]:
    """Of equal scores the lower number comes first, so that nothing hangs on the order of a set."""
    return sorted(((number, round(score, 9)) for number, score in scores.items()), key=lambda s: (-s[1], s[0]))[:count]
