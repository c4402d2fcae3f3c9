r"""What a word is, as a pattern, and two engines that find the same words by it.

NLTK's RegexpTokenizer matches with the package `regex`, which knows classes such as \p{L}, all letters, and takes its
time. Python's own `re` has no such classes, but it is several times as fast where a set of characters is spelled out
and none of them is beyond the first plane of Unicode, U+0000 to U+FFFF, for which it has a table. So `Pattern` asks
`regex` once which characters of the first plane are in each class, and spells the classes out for `re`. Of 881 real
pages, 3 have a character beyond (emoji, rare ideographs, 𝛼): such a text goes to `regex`, at its pace.

    >>> numbers = Pattern(r"\p{N}+")
    >>> numbers.findall("3½ ② ٣ 𝟛") == numbers.slow.findall("3½ ② ٣ 𝟛") == ["3½", "②", "٣", "𝟛"]
    True

The tests compare the two, and NLTK, over every character of the first plane, any text, and real pages, and
examples/benchmarks/data_engine_speed.py their speed. To remember the words of each piece of text between spaces was
tried, too: the memory is larger than a processor's cache, and to look a piece up takes as long as to cut it.
"""

from __future__ import annotations

import functools
import re

import regex

# A number with its inner points and commas; or letters, marks, digits and low lines, joined by apostrophes and hyphens;
# or any one character that is neither a separator nor a control character.
WORD_PATTERN = r"\p{N}+(?:[.,]\p{N}+)+|[\p{L}\p{M}\p{N}_]+(?:['’\-][\p{L}\p{M}\p{N}_]+)*|[^\p{Z}\p{Cc}]"
FIRST_PLANE = "".join(map(chr, range(1 << 16)))


class Pattern:
    """A pattern that never has to give back what it took, and therefore needs no more time than in proportion.

    `slow` is the engine of RegexpTokenizer without NLTK's layer over it: that keeps asking the clock, and takes three
    times as long; and to import NLTK takes two seconds where SciPy is installed.
    """

    def __init__(self, pattern: str):
        self.slow = regex.compile(pattern)
        self.fast = re.compile(spell_out(pattern))

    def findall(self, text: str) -> list[str]:
        """What RegexpTokenizer finds in a text with this pattern."""
        return self.fast.findall(text) if is_of_first_plane(text) else self.slow.findall(text)

    def split(self, text: str) -> list[str]:
        """What stands between the matches; with the matches, where the pattern is in parentheses."""
        return self.fast.split(text) if is_of_first_plane(text) else self.slow.split(text)


def is_of_first_plane(text: str) -> bool:
    """Whether no character is beyond U+FFFF: those take four bytes in UTF-16, all others two."""
    return text.isascii() or len(text.encode("utf-16-le", "surrogatepass")) == 2 * len(text)


def spell_out(pattern: str) -> str:
    r"""A pattern for `re`: classes as ranges of characters of the first plane, repetitions that give nothing back.

    >>> spell_out(r"\p{Zs}+|[^\p{Zl}\p{Zp}]")
    '[\\u0020\\u00a0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u3000]++|[^\\u2028\\u2029]'
    """
    pattern = re.sub(r"(\[[^]]+\])|(\\p\{\w+\})", lambda match: match[1] or f"[{match[2]}]", pattern)
    pattern = re.sub(r"(?<=[\])])[+*]", r"\g<0>+", pattern)
    return re.sub(r"\\p\{\w+\}", lambda match: list_ranges(match[0]), pattern)


@functools.cache  # a pattern names the same class several times, and each costs 65,536 looks
def list_ranges(kind: str) -> str:
    r"""The characters of the first plane that `regex` counts to a class, as they stand between brackets.

    >>> list_ranges(r"\p{Zs}")
    '\\u0020\\u00a0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u3000'
    """
    runs = (run.span() for run in regex.finditer(f"{kind}+", FIRST_PLANE))
    return "".join(f"\\u{a:04x}" + (f"-\\u{b - 1:04x}" if b - a > 1 else "") for a, b in runs)
