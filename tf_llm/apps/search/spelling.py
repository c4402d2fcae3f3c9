"""What a query may have been meant to say, by the words of the index itself.

    >>> spelling = Spelling({"boundary": 40, "layer": 90, "lawyer": 2})
    >>> spelling.suggest("Boundry layer!"), spelling.suggest("boundary layer"), spelling.suggest("qqqqqqq")
    ('boundary layer!', None, None)

A word is replaced where no entry has it, or one or two, and fifty times as many have another one close to it. Close is
a distance of 1, of long words 2: a letter more, less or other, or two that changed places (Damerau 1964; rapidfuzz
computes it). Of several the closest one is taken, then one with the same first letter, then the most frequent.
"""

from __future__ import annotations

from collections.abc import Mapping

from tf_llm.apps.search.analysis import WORD, fold, is_plain
from tf_llm.contracts import UserError

LONG = 6  # letters, from which on two mistakes are thought of
RARE = 2  # entries; a word that more of them have is right
TIMES = 50  # how much more frequent than a rare word another must be
MAX_WORDS = 12  # of a query that are looked at; each takes a few milliseconds


class Spelling:
    """Suggests by words and the number of documents that have them. Raises UserError where rapidfuzz is missing."""

    def __init__(self, counts: Mapping[str, int]):
        try:
            from rapidfuzz import process
            from rapidfuzz.distance import OSA
        except ImportError as error:
            raise UserError(
                'expected the package rapidfuzz. Received: it is not installed. Run: pip install "tf_llm[search]"'
            ) from error
        self._counts = counts
        self._by_length: dict[int, list[str]] = {}
        for word in counts:
            self._by_length.setdefault(len(word), []).append(word)
        self._extract, self._distance = process.extract, OSA.distance

    def suggest(self, query: str) -> str | None:
        """The query with words replaced, the rest as it was; None where there is nothing to replace."""
        parts, last, changed = [], 0, False
        for number, match in enumerate(WORD.finditer(query[:1_000])):
            word = match.group()
            if number >= MAX_WORDS:
                break
            if is_plain(word) and (better := self.correct(fold(word))):
                parts += [query[last : match.start()], better]
                last, changed = match.end(), True
        return "".join([*parts, query[last:]]) if changed else None

    def correct(self, word: str) -> str | None:
        """The word that a folded one was meant to be; None where it is right, or nothing is close."""
        count = self._counts.get(word, 0)
        if len(word) < 4 or count > RARE:
            return None
        for allowed in (1, 2) if len(word) >= LONG and not count else (1,):
            near = []
            for length in range(len(word) - allowed, len(word) + allowed + 1):
                words = self._by_length.get(length, ())
                near += self._extract(word, words, scorer=self._distance, score_cutoff=allowed, limit=None)
            near = [other for other, _, _ in near if other != word and self._counts[other] > TIMES * count]
            if near:
                return min(near, key=lambda other: (other[0] != word[0], -self._counts[other], other))
        return None
