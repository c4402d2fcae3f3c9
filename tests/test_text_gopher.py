"""Gopher's rules: a page for each and each outcome."""

import doctest
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_llm.contracts import Document, Rejected
from tf_llm.text import gopher
from tf_llm.text.gopher import GopherQuality, count_repeated, find_repetition, reject_repetition, share_of_top

URL = "http://cats.example/"
# 60 words, no two sentences alike.
STORY = (
    "The cat with the hat had a plan for breakfast, and the mouse knew of it. Nobody else in that old house was awake, "
    "because it was raining and the beds were warm. So they sat down together, shared some cheese, talked of winter, "
    "and agreed to be honest with each other until lunch, which both of them found rather funny indeed."
)


def judge(text, languages=("en",), **switches):
    return GopherQuality(**switches)(Document(URL, text, languages), Counter())


def test_docstring_examples():
    result = doctest.testmod(gopher)
    assert result.attempted > 3 and result.failed == 0


def test_prose_passes():
    document = Document(URL, STORY, ("en",))
    assert judge(STORY) == document == reject_repetition(document, Counter())
    assert len(STORY.split()) > 50


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The cat that sat on the mat was of the opinion that dogs are to be met with tea.", "few words"),
        ("", "few words"),
        ("The cat sat and that was that with tea. " * 12_000, "many words"),
        ("a be to of I am it is at on " * 6, "word length"),
        ("that have with Katzenschnurrbartpflegemittelhersteller " * 15, "word length"),
        (STORY.replace(",", " #cat #hat"), "symbols"),
        (STORY.replace(",", "... and then…"), "symbols"),
        ("\n".join(f"• {part} of the cat and the hat" for part in STORY.split(",") * 2), "bullet lines"),
        ("\n".join(f"- {part} of the cat and the hat" for part in STORY.split(",") * 2), "bullet lines"),
        (STORY.replace(". ", "...\n"), "ellipsis lines"),
        (f"{STORY} {'1,000 2,000 3.50 ' * 8}", "words without letters"),
        ("Cats, hats, mice: buy cheap, buy fast! " * 8, "stop words"),
    ],
)
def test_pages_that_are_rejected(text, reason):
    assert judge(text) == Rejected(URL, f"gopher_quality: {reason}")


@pytest.mark.parametrize(
    "text",
    [
        STORY.replace(",", ", #cat", 4),
        "\n".join([STORY, *(f"• {part} of the cat" for part in STORY.split(","))]),
        f"{STORY}\nAnd so on...\n{STORY}\n{STORY}",
        f"{STORY} 1 2 3 4",
        "BE TO cats, hats, mice, dogs, trees, cheese, winter, " + "breakfast, lunch, dinner, tea, milk " * 9,
    ],
)
def test_pages_that_are_not_quite_bad_enough(text):
    assert isinstance(judge(text), Document)


GERMAN = (
    "Die Katze mit dem Hut hatte einen Plan zum Frühstück, und der Maus war das bekannt. Sonst war niemand im Haus "
    "wach, denn es regnete, und in den Betten war es warm. So setzten sie sich zusammen, teilten den Käse, sprachen "
    "von dem Winter und nahmen sich vor, bis zum Mittag ehrlich zu sein, was beide sehr komisch fanden, wie man sagt."
)


@pytest.mark.parametrize(
    ("languages", "whose", "kept"),
    [
        (("deu",), "by_language", True),
        ((), "by_language", True),  # of any language
        (("en",), "by_language", False),
        (("eu",), "by_language", True),  # no list
        (("de",), "english", False),
        (("en",), "none", True),
    ],
)
def test_whose_stop_words(languages, whose, kept):
    result = judge(GERMAN, languages, stop_words=whose)
    assert result == (Document(URL, GERMAN, languages) if kept else Rejected(URL, "gopher_quality: stop words"))


def test_writing_without_blanks_is_counted_by_characters():
    chinese = "猫戴着帽子坐在厨房里，想着邻居家的鱼。老鼠问它为什么不睡觉，它说今天的茶太浓了。" * 3
    assert isinstance(judge(chinese, ("zh",)), Document)
    assert judge(chinese[:80], ("zh",)).reason == "gopher_quality: few words"


LINES = [f"The cat number {n} sat on a hat of size {n * n} near the {'sea' * n}." for n in range(1, 11)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n\n".join([*LINES[:6], *LINES[:3]]), "paragraphs"),
        ("\n\n".join([*LINES[:9], LINES[8], LINES[8]]), "paragraph text"),
        ("\n".join([*LINES[:6], *LINES[:3]]), "lines"),
        ("\n".join([*LINES[:9], LINES[8], LINES[8]]), "line text"),
        (" ".join(f"green tea {n}" for n in range(30)), "2-grams"),
        (" ".join(f"tea of cats {n} {n + 50:x}" for n in range(30)), "2-grams"),
        (" ".join(f"of hot tea {n:04} longcat{n:04} longmouse{n:04}" for n in range(16)), "3-grams"),
        (" ".join([*(f"{n:b}" for n in range(60)), *[f"{n:b}" for n in range(60)][:30]]), "5-grams"),
        (" ".join([*(f"word{n}" for n in range(100)), *(f"word{n} word{n + 1} word{n + 2} word{n + 3} word{n + 4} x{n}"
            for n in range(0, 25, 5))]), "5-grams"),
    ],
)  # fmt: skip
def test_what_is_said_too_often(text, reason):
    assert find_repetition(text) == reason
    assert reject_repetition(Document(URL, text), Counter()) == Rejected(URL, f"gopher_repetition: {reason}")


@pytest.mark.parametrize(
    "text", ["", "tea", "The cat sat.", "\n".join([STORY, "Miau.", "Miau.", STORY.upper()]), STORY]
)
def test_what_may_be_said(text):
    assert find_repetition(text) is None


def count_slowly(words, n):
    """Characters in n-grams that stood earlier, by sets."""
    seen, covered = set(), set()
    for begin in range(len(words) - n + 1):
        gram = tuple(words[begin : begin + n])
        if gram in seen:
            covered |= set(range(begin, begin + n))
        seen.add(gram)
    return sum(len(words[place]) for place in covered)


def top_slowly(words, n):
    counts = Counter(tuple(words[begin : begin + n]) for begin in range(len(words) - n + 1))
    most = max(counts.values(), default=0)
    return most * max(sum(map(len, gram)) for gram in counts if counts[gram] == most) if most > 1 else 0


@given(st.lists(st.sampled_from(["cat", "hat", "a", "mouse"]), max_size=60), st.integers(2, 10))
def test_ngrams_are_counted_as_a_plain_loop_counts_them(words, n):
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    ids = np.array([numbers[word] for word in words], np.uint64)
    lengths = np.array([len(word) for word in words], np.int64)
    assert count_repeated(ids, lengths, n) == count_slowly(words, n)
    assert share_of_top(ids, lengths, n) == top_slowly(words, n)
