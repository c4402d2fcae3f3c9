r"""Gopher's rules for pages of prose: quality and repetition.

Source: Rae et al. 2021, https://arxiv.org/abs/2112.11446, appendix A.1.1 and its table A1. A page is rejected as
"gopher_quality: …" where

    "few words", "many words"     it has not 50 to 100,000 words
    "word length"                 its words have not 3 to 10 characters on average
    "symbols"                     there is more than one # or one ellipsis to ten words
    "bullet lines"                more than 90 % of its lines begin with a bullet point
    "ellipsis lines"              more than 30 % of its lines end with an ellipsis
    "words without letters"       more than 20 % of its words have no letter
    "stop words"                  fewer than 2 of the language's 8 most faithful words occur in it

and as "gopher_repetition: …" where more than such a share of it stood earlier in the same page:

    "lines" .30        "2-grams" .20     "5-grams" .15     "8-grams" .12
    "line text" .20    "3-grams" .18     "6-grams" .14     "9-grams" .11
    "paragraphs" .30   "4-grams" .16     "7-grams" .13     "10-grams" .10
    "paragraph text" .20

Of 2- to 4-grams it is the share of characters in the most frequent one, of 5- to 10-grams in all those that stood
earlier, each character counted once. What is said for the first time counts as said once, not as repeated.

What is a word the paper leaves open. Here it is what stands between blanks; of scripts without blanks it is two
characters for the number of words, and 2n characters for an n-gram. The average length says nothing of those.

    >>> prose = "The cat that sat on the mat was of the opinion that dogs are to be met with tea. "
    >>> GopherQuality()(Document("http://a.example/", prose), Counter()).reason
    'gopher_quality: few words'
    >>> reject_repetition(Document("http://a.example/", prose * 3), Counter()).reason
    'gopher_repetition: 3-grams'
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import numpy as np

from tf_llm.contracts import Document, Rejected
from tf_llm.languages import name_language
from tf_llm.text.scripts import CHARACTERS_PER_WORD, LETTER, LETTERS, count_words, is_unspaced, split_words

LEAST_WORDS, MOST_WORDS = 50, 100_000
SHORTEST_MEAN, LONGEST_MEAN = 3, 10
MAX_SYMBOLS = 0.1  # to a word
MAX_BULLETS, MAX_ELLIPSES = 0.9, 0.3  # of lines
LEAST_LETTERS = 0.8  # of words
LEAST_STOP_WORDS = 2
BULLETS = tuple("•‣⁃◦●○▪■–*-·・")
ELLIPSES = ("...", "…")

# English ones are the paper's. The others are words as frequent, and as hard to leave out, of languages whose words
# stand between blanks. A page in a language that has no list here is not asked for any.
STOP_WORDS = {
    code: frozenset(words.split())
    for code, words in {
        "en": "the be to of and that have with",
        "ar": "في من على أن إلى التي عن ما",
        "cs": "a se na je že to v s",
        "da": "og i at det er en til af",
        "de": "der die und in den von zu das",
        "el": "και το να του η της με που",
        "es": "de la que el en y los se",
        "fa": "و در به از که این را با",
        "fi": "ja on ei että se hän oli mutta",
        "fr": "de la le et les des en que",
        "hi": "के में है की और से का को",
        "hu": "a az és hogy nem is egy van",
        "id": "yang dan di ini dengan untuk dari dalam",
        "it": "di e che la il un in per",
        "nl": "de van het een en in dat te",
        "pl": "i w na z się nie do to",
        "pt": "de a que o e do da em",
        "ro": "de și în a la cu pe care",
        "ru": "и в не на что с он как",
        "sv": "och i att det som en är på",
        "tr": "ve bir bu da için de ile çok",
        "uk": "і в не на що з у та",
        "vi": "và của là có các được trong một",
    }.items()
}
WHOSE_STOP_WORDS = ("by_language", "english", "none")

MAX_REPEATED, MAX_REPEATED_TEXT = 0.30, 0.20  # lines or paragraphs, and the characters in them
MAX_TOP = {2: 0.20, 3: 0.18, 4: 0.16}  # n: characters in the most frequent n-gram
MAX_AGAIN = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}  # n: characters in n-grams that stood before
PARAGRAPH_END, LINE_END = re.compile(r"\n{2,}"), re.compile(r"\n+")
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # an odd number with no pattern: products of 64 bits rarely meet


@dataclasses.dataclass(frozen=True)
class GopherQuality:
    """The rule "gopher_quality".

    stop_words: whose a page must have: those of its own language ("by_language": as labelled, and where it is not, of
    any that has a list), the paper's of every page ("english"), or none.
    """

    stop_words: str = "by_language"

    def __call__(self, document: Document, edits: Counter[str]) -> Document | Rejected:
        """The document as it is, or the first rule that it breaks."""
        del edits  # rules that change nothing have none
        language = name_language(document.languages[0]) if document.languages else None
        reason = self._find_fault(document.text, language)
        return Rejected(document.url, f"gopher_quality: {reason}") if reason else document

    def _find_fault(self, text: str, language: str | None) -> str | None:
        number = count_words(text)
        if number < LEAST_WORDS:
            return "few words"
        if number > MOST_WORDS:
            return "many words"
        words = split_words(text)
        unspaced = is_unspaced(text)
        if not unspaced and not SHORTEST_MEAN <= sum(map(len, words)) / len(words) <= LONGEST_MEAN:
            return "word length"
        if text.count("#") > MAX_SYMBOLS * number or sum(map(text.count, ELLIPSES)) > MAX_SYMBOLS * number:
            return "symbols"
        lines = [line for line in map(str.strip, text.splitlines()) if line]
        if sum(line.startswith(BULLETS) for line in lines) > MAX_BULLETS * len(lines):
            return "bullet lines"
        if sum(line.endswith(ELLIPSES) for line in lines) > MAX_ELLIPSES * len(lines):
            return "ellipsis lines"
        if sum(map(bool, map(LETTER.search, words))) < LEAST_LETTERS * len(words):
            return "words without letters"
        if not unspaced and not self._has_stop_words(text, language):
            return "stop words"
        return None

    def _has_stop_words(self, text: str, language: str | None) -> bool:
        if self.stop_words == "english":
            lists = [STOP_WORDS["en"]]
        elif self.stop_words == "by_language" and language is None:
            lists = STOP_WORDS.values()
        else:
            lists = [STOP_WORDS[language]] if language in STOP_WORDS and self.stop_words != "none" else []
        # Words that stand between blanks mostly do, and splitting is the quicker of the two.
        for split in (str.split, LETTERS.findall):
            found = set(split(text.lower())) if lists else set()
            if not lists or any(len(found & words) >= LEAST_STOP_WORDS for words in lists):
                return True
        return False


def reject_repetition(document: Document, edits: Counter[str]) -> Document | Rejected:
    """The rule "gopher_repetition": the document as it is, or what of it is said too often."""
    del edits
    reason = find_repetition(document.text)
    return Rejected(document.url, f"gopher_repetition: {reason}") if reason else document


def find_repetition(text: str) -> str | None:
    """What a text repeats too often, or None.

    >>> find_repetition("Tea! Tea! Tea!"), find_repetition("Tea is hot.\\nCats are not.")
    ('2-grams', None)
    """
    for name, end in (("paragraph", PARAGRAPH_END), ("line", LINE_END)):
        parts = [part for part in end.split(text) if part]
        again, seen = [], set()
        for part in parts:
            if part in seen:
                again.append(part)
            seen.add(part)
        if len(again) > MAX_REPEATED * len(parts):
            return f"{name}s"
        if sum(map(len, again)) > MAX_REPEATED_TEXT * sum(map(len, parts)):
            return f"{name} text"
    words = split_words(text)
    step = CHARACTERS_PER_WORD if is_unspaced(text) else 1
    numbers: dict[str, int] = {}
    ids = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.uint64, len(words))
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    total = lengths.sum()
    for n, limit in MAX_TOP.items():
        if share_of_top(ids, lengths, n * step) > limit * total:
            return f"{n}-grams"
    for n, limit in MAX_AGAIN.items():
        repeated = count_repeated(ids, lengths, n * step)
        if repeated > limit * total:
            return f"{n}-grams"
        if repeated <= min(MAX_AGAIN.values()) * total:  # longer ones can only be fewer: each begins with one of these
            return None
    return None


def hash_grams(ids: np.ndarray, n: int) -> np.ndarray:
    """A number for every n-gram, [words - n + 1], equal where the n-grams are: a polynomial in 64 bits."""
    keys = np.zeros(max(0, len(ids) - n + 1), np.uint64)
    for place in range(n):
        keys = keys * FACTOR + ids[place : place + len(keys)] + np.uint64(1)
    return keys


def share_of_top(ids: np.ndarray, lengths: np.ndarray, n: int) -> int:
    """Characters in the most frequent n-gram, all its occurrences together; 0 where none occurs twice."""
    _, first, counts = np.unique(hash_grams(ids, n), return_index=True, return_counts=True)
    if not len(counts) or (most := counts.max()) < 2:
        return 0
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return most * max(ends[place + n] - ends[place] for place in first[counts == most])


def count_repeated(ids: np.ndarray, lengths: np.ndarray, n: int) -> int:
    """Characters in n-grams that stood earlier in the text, each character once."""
    keys = hash_grams(ids, n)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse.reshape(-1)] < np.arange(len(keys)))
    if not len(again):
        return 0
    edges = np.zeros(len(ids) + 1, np.int64)
    np.add.at(edges, again, 1)
    np.add.at(edges, again + n, -1)
    return int(lengths[np.cumsum(edges[:-1]) > 0].sum())
