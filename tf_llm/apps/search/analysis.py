"""From text to terms: what an index is made of, and what a query asks for.

    >>> analyser = Analyser("english")
    >>> analyser.terms("The naïve LayerNormalization of math_ops, 东京塔")
    ['the', 'naiv', 'layernorm', 'layer', 'normal', 'of', 'math_op', 'math', 'op', '东京', '京塔', '东', '京', '塔']
    >>> analyser.query_terms("The boundary layers of 东京"), analyser.query_terms("to be or not to be")
    (['boundari', 'layer', '东京'], ['to', 'be', 'or', 'not'])

Small letters without accents; word endings cut off by Snowball's rules (https://snowballstem.org), in one language for
the whole index, since nobody knows which one a query is in; a name that is made of words counts as a whole and as its
parts. Where writing has no spaces (Chinese, Japanese, Thai) every two neighbours are a term, and every single one,
which is asked for where a query has no more than that. Stop words are kept in the index, where "The Who" and the
keyword `with` need them, and left out of queries that have other words.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import regex

import tf_llm.text
from tf_llm.contracts import UserError

MAX_TERM = 100  # characters; longer ones are cut: nobody types them
MAX_TERMS = 64  # distinct ones of a query
CACHED = 1 << 20  # words whose terms are remembered
# Hangul has spaces, but its words carry so many endings that pairs of syllables find more than whole words.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = regex.compile(rf"(?V1)[{UNSPACED}]+|[[\p{{L}}\p{{M}}\p{{N}}_]--[{UNSPACED}]]+(?:['’]\p{{L}}+)*")
ASCII_WORD = re.compile(r"\w+(?:'[a-zA-Z]+)*", re.ASCII)  # the same for texts in ASCII, in a fourth of the time
IS_UNSPACED = regex.compile(f"[{UNSPACED}]")
# Of LayerNorm, math_ops, HTTPServer2, but not of r2d2 or Conv2D: digits belong to the letters before them.
PART = regex.compile(
    r"\p{Lu}?[\p{Ll}\p{M}\p{N}]+(?:(?<=\p{N})\p{Lu}(?!\p{Ll}))?|\p{Lu}+(?!\p{Ll})\p{N}*|[\p{L}\p{M}\p{N}]+"
)
ACCENT = regex.compile("[\u0300-\u036f]")
PLAIN = regex.compile(r"\p{L}{3,30}")


class Analyser:
    """Makes terms of texts; remembers those of words that it has seen.

    Args:
        language: whose endings are cut off, one of Snowball's, or "none". Stop words are known for English alone.

    Raises:
        UserError: it is another one, or the package PyStemmer is missing.
    """

    def __init__(self, language: str = "english"):
        self._stem = make_stemmer(language)
        self._known: dict[str, tuple[str, ...]] = {}
        self.stop_words = frozenset()
        if language in ("english", "porter"):
            listed = Path(tf_llm.text.__file__).with_name("stop_words.txt").read_text(encoding="utf-8").split()
            self.stop_words = frozenset(listed)

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in its order."""
        known, words = self._known, find_words(text)
        for word in words:
            if word not in known:
                self._learn(word)
        return list(itertools.chain.from_iterable([known[word] for word in words]))

    def spans(self, text: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """(begin, end, its terms) of each word; in writing without spaces, of each run between other signs."""
        for match in (ASCII_WORD if text.isascii() else WORD).finditer(text):
            yield match.start(), match.end(), self._known.get(match.group()) or self._learn(match.group())

    def _learn(self, word: str) -> tuple[str, ...]:
        """Finds the terms of a word and remembers them."""
        if len(self._known) >= CACHED:
            self._known = {}
        self._known[word] = terms = self._find_terms(word)
        return terms

    def query_terms(self, query: str) -> list[str]:
        """The distinct terms that a query asks for: at most `MAX_TERMS`, none where it has no word."""
        terms, others = {}, {}
        for word in find_words(query[: MAX_TERM * MAX_TERMS]):
            if IS_UNSPACED.match(word):
                terms |= dict.fromkeys(_pair(fold(word)) if len(word) > 1 else [fold(word)])
            elif word.lower().replace("’", "'") in self.stop_words:
                others |= dict.fromkeys(self._find_terms(word))
            else:
                terms |= dict.fromkeys(self._find_terms(word))
        return list(terms or others)[:MAX_TERMS]

    def _find_terms(self, word: str) -> tuple[str, ...]:
        """The terms of one word, or of a run of writing without spaces."""
        if IS_UNSPACED.match(word):
            word = fold(word)
            return (*_pair(word), *word)
        word = word[:MAX_TERM]
        parts = PART.findall(word)
        parts = [word, *parts] if len(parts) > 1 and "'" not in word and "’" not in word else [word]
        return tuple(dict.fromkeys(self._stem(fold(part)) or fold(part) for part in parts))


def make_stemmer(language: str) -> Callable[[str], str]:
    """Cuts the ending off a word in small letters. Raises UserError, see `Analyser`."""
    if language == "none":
        return str
    try:
        import Stemmer
    except ImportError as error:
        raise UserError(
            'expected the package PyStemmer. Received: it is not installed. Run: pip install "tf_llm[search]"'
        ) from error
    if language not in Stemmer.algorithms():
        known = ", ".join([*Stemmer.algorithms(), "none"])
        raise UserError(f"language is expected to be one of {known}. Received: {language!r}")
    stemmer = Stemmer.Stemmer(language, 0)  # it need not remember, we do
    return stemmer.stemWord


def find_words(text: str) -> list[str]:
    """The words of a text as they stand there."""
    return (ASCII_WORD if text.isascii() else WORD).findall(text)


def _pair(word: str) -> list[str]:
    return [word[i : i + 2] for i in range(len(word) - 1)]


def fold(word: str) -> str:
    """A word in small letters and without accents. Where those make other letters (Hindi, Japanese), they stay.

    >>> fold("Ｆáçade’s"), fold("ガラス")
    ("facade's", 'ガラス')
    """
    apart = unicodedata.normalize("NFKD", word.lower().replace("’", "'"))
    return unicodedata.normalize("NFC", ACCENT.sub("", apart))


def list_plain_words(text: str) -> set[str]:
    """The distinct words of a text that spelling is checked by: letters alone, folded.

    >>> sorted(list_plain_words("Tea, tea and x_1 on 3rd Façade 东京"))
    ['and', 'facade', 'tea']
    """
    return {fold(word) for word in set(find_words(text)) if is_plain(word)}


def is_plain(word: str) -> bool:
    """Whether a word's spelling can be wrong: 3 to 30 letters, of writing with spaces."""
    return bool(PLAIN.fullmatch(word) and not IS_UNSPACED.match(word))
