"""Sentence ends and words in every script. Rules written for English ask these in place of looking for ASCII.

    >>> count_words("A cat sat."), count_words("一只猫坐在垫子上。")    # two characters without blanks count as a word
    (3, 4)
    >>> ends_sentence("The cat sat."), ends_sentence("猫坐在垫子上。"), ends_sentence("हैलो।"), ends_sentence("and so")
    (True, True, True, False)

Chinese, Japanese, Thai, Lao, Khmer and Burmese put no blanks between words. To find their words takes a dictionary for
each; what the rules need is how many there are, and for that two characters count as one word: a Chinese word has 1.6
on average, a Japanese one somewhat more.
"""

from __future__ import annotations

import re

# The letters of scripts that leave no blanks between words.
UNSPACED_LETTERS = (
    "\u0e01-\u0eff\u1000-\u109f\u1780-\u17d3\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003134f"
)
UNSPACED = re.compile(f"[{UNSPACED_LETTERS}]")
WORD = re.compile(f"[{UNSPACED_LETTERS}]|[^\\s{UNSPACED_LETTERS}]+")
LETTER = re.compile(r"[^\W\d_]")
# Signs over, under and beside letters, which are no letters to `re`: accents, Hebrew and Arabic vowels, and those of
# the scripts from Devanagari to Sinhala.
MARKS = "\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u064b-\u065f\u0670\u0900-\u0963\u0971-\u0de5\u0df2\u0df3"
LETTERS = re.compile(rf"[^\W\d_]+(?:[{MARKS}]+[^\W\d_]*)*")  # a word without what is around it
CHARACTERS_PER_WORD = 2

# Marks at the end of a sentence that no blank has to follow: Chinese and Japanese.
WIDE_MARKS = "。？！．｡"
# Arabic, Urdu, Hindi and its neighbours, Armenian, Amharic, Burmese, Khmer, Tibetan, and signs that join two marks.
OTHER_MARKS = "؟۔।॥։።፧፨။។៕།‼⁇⁈⁉‽"
ENGLISH_ENDS = (".", "?", "!", '"')
# Quotation marks end a line as the straight one does. Thai and Lao have no mark, so every line may be the end.
ALL_ENDS = (*ENGLISH_ENDS, *WIDE_MARKS, *OTHER_MARKS, *"”“»」』﹂﹄")
UNMARKED = re.compile("[\u0e01-\u0eff]$")


def ends_sentence(line: str, ends: tuple[str, ...] = ALL_ENDS) -> bool:
    """Whether a line ends as sentences do. With `ENGLISH_ENDS` only ASCII counts."""
    return line.endswith(ends) or (ends is ALL_ENDS and UNMARKED.search(line[-1:]) is not None)


def split_words(text: str) -> list[str]:
    """What stands between blanks; of a script that has none between words, every character.

    >>> split_words("Well, 猫 sat.")
    ['Well,', '猫', 'sat.']
    """
    return WORD.findall(text) if has_unspaced(text) else text.split()


def count_words(text: str) -> int:
    """How many words a text has, about."""
    if not has_unspaced(text):
        return len(text.split())
    unspaced = len(UNSPACED.findall(text))
    spaced = sum(any(map(str.isalnum, word)) for word in UNSPACED.sub(" ", text).split())
    return spaced + unspaced // CHARACTERS_PER_WORD


def has_unspaced(text: str) -> bool:
    """Whether any character is of a script that leaves no blanks between words."""
    return not text.isascii() and UNSPACED.search(text) is not None


def is_unspaced(text: str) -> bool:
    """Whether most of what `split_words` finds are single characters of such a script.

    >>> is_unspaced("猫坐在垫子上"), is_unspaced("The 猫 sat")
    (True, False)
    """
    return has_unspaced(text) and 2 * len(UNSPACED.findall(text)) > len(WORD.findall(text))
