"""The two engines that find words: over every character, any text and real pages they find the same ones."""

import doctest
import time

import nltk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_llm.contracts import Document
from tf_llm.crawl.warc import Warc
from tf_llm.text import word_pattern
from tf_llm.text.html import strip_html
from tf_llm.text.word_pattern import WORD_PATTERN, Pattern, is_of_first_plane, spell_out

WORDS, GAPS = Pattern(WORD_PATTERN), Pattern(f"({WORD_PATTERN})")
awkward = st.text(st.sampled_from("ab1٣½²Ⅷ-'’.,_ \n\x00\x1c\u00a0\u2028é\u0301ह\u094dß한日!\ud800\udc00"))


def test_docstring_examples():
    result = doctest.testmod(word_pattern)
    assert result.attempted > 3 and result.failed == 0


@pytest.mark.parametrize("neighbours", ["a{0}b", "1{0}2", "-{0}.{0}"])
def test_every_character_of_the_first_plane_is_of_the_same_kind(neighbours):
    text = " ".join(map(neighbours.format, map(chr, range(1 << 16))))
    assert is_of_first_plane(text)
    assert WORDS.fast.findall(text) == WORDS.slow.findall(text)
    assert len(WORDS.fast.findall(text)) > 60_000


@given(st.text() | awkward)
def test_both_engines_find_the_same(text):
    assert WORDS.findall(text) == WORDS.slow.findall(text)
    assert GAPS.split(text) == GAPS.slow.split(text)
    assert "".join(GAPS.split(text)) == text
    assert WORDS.findall(text) == nltk.RegexpTokenizer(WORD_PATTERN).tokenize(text)
    if all(character <= "\uffff" for character in text):
        assert is_of_first_plane(text) and WORDS.fast.findall(text) == WORDS.slow.findall(text)


def test_texts_with_characters_beyond_the_first_plane_go_to_the_slow_engine():
    text = "well-known 𝛼-rays, 𠀋𠀌 𝟛.𝟜 👩\u200d🚀"
    assert not is_of_first_plane(text)
    assert WORDS.fast.findall(text) != WORDS.slow.findall(text) == WORDS.findall(text)
    assert WORDS.findall(text)[:5] == ["well-known", "𝛼-rays", ",", "𠀋𠀌", "𝟛.𝟜"]
    assert is_of_first_plane("plain") and is_of_first_plane("naïve 日本語 \ud83e\udd16 \uffff")


def test_nothing_is_given_back():
    assert spell_out(WORD_PATTERN).count("++") == 5 and spell_out(WORD_PATTERN).count("*+") == 1
    text = "a-" * 200_000 + "1." * 200_000
    begin = time.process_time()
    assert len(WORDS.fast.findall(text)) == 4  # a-…-1  .  1.1.…  .
    assert time.process_time() - begin < 2


def test_real_pages_have_the_words_of_nltk(shared_data):
    pages = list(Warc(shared_data / "warc" / "real-pages.warc.gz"))[::4]
    texts = [document.text for document in map(strip_html, pages) if isinstance(document, Document)]
    assert sum(map(is_of_first_plane, texts)) > 210  # else there is nothing to compare
    tokenizer = nltk.RegexpTokenizer(WORD_PATTERN)
    for text in texts:
        assert WORDS.findall(text) == tokenizer.tokenize(text)
