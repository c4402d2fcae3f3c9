"""Texts in pieces: whatever the tokenizer, the pieces are the text, and nothing of a stop string gets out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.contracts import END_ID
from tf_llm.decoding.texts import Text, count_held, find_settled, find_stop
from tf_llm.text.piece_training import build_sentence_piece_tokenizer
from tf_llm.text.tokenizers import CharTokenizer, WordTokenizer
from tf_llm.text.words import WordsConfig

SIGNS = [".", ",", "(", ")", "“", "”", "¿", "?", "a", "b", "don't"]


@pytest.fixture(scope="module")
def tokenizers():
    lines = ["the cat\n sat — naïve café 日本\n\n  on\tthe mat \ue000 \u2581", "the mat"] * 20
    return {
        "words": WordTokenizer(SIGNS, WordsConfig(stop_words="none")),
        "characters": CharTokenizer(list("ab \n\té.\ue000")),
        "pieces": build_sentence_piece_tokenizer(lines, 300, "bpe"),
    }


@pytest.mark.parametrize("kind", ["words", "characters", "pieces"])
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_pieces_are_the_text(kind, tokenizers, data):
    """Any ids, bytes that make no character among them; any stop strings that are in the text or not."""
    tokenizer = tokenizers[kind]
    ids = data.draw(st.lists(st.integers(2, tokenizer.vocabulary_size - 1), min_size=1, max_size=25))
    text = tokenizer.decode(ids)
    cuts = st.tuples(st.integers(0, len(text)), st.integers(1, 4)).map(lambda cut: text[cut[0] : cut[0] + cut[1]])
    stops = tuple(filter(None, data.draw(st.lists(cuts | st.text("ab.\n", max_size=3), max_size=3))))
    steps = data.draw(st.lists(st.integers(1, 7), min_size=25, max_size=25))

    whole = Text(tokenizer.decode, len(ids), stops)
    pieces = [whole.say(ids)]
    assert "".join(pieces) == whole.text and whole.finish_reason
    stream, pieces, place = Text(tokenizer.decode, len(ids), stops), [], 0
    for step in steps:
        if not stream.finish_reason:
            pieces.append(stream.say(ids[place : place + step]))
            place += step
    assert "".join(pieces) == whole.text == stream.text and stream.ids == whole.ids
    assert text.startswith(whole.text) or stops
    if not stops:
        assert whole.text == text and whole.finish_reason == "length"


def test_a_stop_string_is_held_back_and_let_go_when_it_is_none():
    tokenizer = CharTokenizer(list("abcd\n"))
    text = Text(tokenizer.decode, 99, ("abc", "\n\n"))
    said = [text.say([token_id]) for token_id in tokenizer.encode("dabdab\ndab\n\nd")]
    assert said == ["d", "", "", "abd", "", "", "", "ab\nd", "", "", "", "ab", ""]
    assert text.text == "dabdab\ndab" and text.finish_reason == "stop" and len(text.ids) == 12


def test_what_is_held_is_let_go_at_the_end():
    tokenizer = CharTokenizer(list("abcd\n"))
    for ids, finish_reason in ((tokenizer.encode("dab"), "length"), ([*tokenizer.encode("da"), END_ID], "stop")):
        text = Text(tokenizer.decode, 3, ("abc",))
        pieces = [text.say([token_id]) for token_id in ids]
        assert pieces[0] == "d" and "".join(pieces) == text.text
        assert text.finish_reason == finish_reason and text.sent == len(text.text)
    text = Text(tokenizer.decode, 9, ("abc",))
    assert (text.say(tokenizer.encode("da")), text.finish("cancelled"), text.finish("cancelled")) == ("d", "a", "")
    assert text.complete().finish_reason == "cancelled"


def test_sentinels_say_nothing():
    text = Text(CharTokenizer(list("ab"), num_sentinels=2).decode, 4, marks=5)
    assert text.say([6, 3, 5, 4]) == "ab" and text.ids == [6, 3, 5, 4] and text.shown_ids == [3, 4]


def test_the_stop_string_that_is_complete_first_counts():
    assert find_stop("abcdef", ("abcdef", "cd")) == 2  # after the d nobody knew of the f
    assert find_stop("abcd", ("d", "bcd")) == 1
    assert find_stop("abc", ("x",)) is None and find_stop("abc", ()) is None


def test_what_may_change_is_not_settled():
    assert [find_settled(text) for text in ("a", "a ", "a\ufffd\ufffd", "a\ue000", "", " \n")] == [1, 1, 1, 1, 0, 0]
    assert count_held("aab", ("abab",)) == 2 and count_held("", ("a",)) == 0 and count_held("x", ()) == 0
