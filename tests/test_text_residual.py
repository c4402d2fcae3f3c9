"""The coder of what a recipe throws away: nothing goes unpaid, and the prices are those of a probability."""

import doctest
import itertools
import json
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.contracts import Document
from tf_llm.crawl.warc import Warc
from tf_llm.text import residual
from tf_llm.text.html import strip_html
from tf_llm.text.piece_training import build_sentence_piece_tokenizer
from tf_llm.text.residual import Tally, UnigramCoder
from tf_llm.text.sentence_pieces import SentencePieceTokenizer
from tf_llm.text.tokenizers import CharTokenizer, WordTokenizer, build_word_tokenizer
from tf_llm.text.words import WordsConfig, find_words

STOP_WORDS = {"the", "is", "on"}
VOCABULARY = ["kettle", "copper", ",", ".", "1,000", "don't", "ß", "ὀδυσσεύς"]
TOKENIZERS = {
    "article": WordTokenizer(VOCABULARY, WordsConfig(), STOP_WORDS),
    "unknown": WordTokenizer(VOCABULARY, WordsConfig(rare_words="unknown"), STOP_WORDS),
    "capitals": WordTokenizer(VOCABULARY, WordsConfig(lower_case=False, stop_words="none")),
    "characters": CharTokenizer([*"kettl. "]),
}
TRAINING = ["The kettle is on the stove.", "The copper kettle, 1,000 l.\n\nDON'T!", "A McDonald is on the iPad."]


def _coder(tokenizer, texts=TRAINING) -> UnigramCoder:
    coder = UnigramCoder(tokenizer)
    for text in texts:
        coder.update(text)
    return coder


def test_docstring_examples():
    result = doctest.testmod(residual)
    assert result.attempted > 5 and result.failed == 0


awkward = st.text(st.sampled_from("kK tTtTheEisSI.,\n\t\u00a0'’-1ßẞİıΣσς日ǅǆ\u0301👩\x00\ud800")) | st.text()
sentences = st.lists(st.sampled_from(["The", "KETTLE", "kettle", "iOS", " ", "  ", "\n", ".", "on", "Don't", "Stove"]))


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@given(text=awkward | sentences.map("".join))
def test_ids_and_residual_hold_the_whole_text(tokenizer, text):
    coder = UnigramCoder(tokenizer)
    assert coder.restore(tokenizer.encode(text), coder.residual(text)) == text


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@given(texts=st.lists(awkward | sentences.map("".join), max_size=3))
def test_counting_kinds_of_words_counts_words(tokenizer, texts):
    coder = UnigramCoder(tokenizer)
    tally, plain = Tally(coder), {}
    for text in texts:
        tally.add(text)
        for stream, symbols in coder.residual(text).items():
            plain.setdefault(stream, Counter()).update(symbols)
    assert {name: symbols for name, symbols in tally.counts().items() if symbols} == {
        name: symbols for name, symbols in plain.items() if symbols
    }


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_all_capitals_and_signs_come_back(tokenizer):
    text = " ".join(f"{c} x{c} {c}x{c}" for c in map(chr, range(0x110000)) if c <= "\u3000" or c.lower() != c.upper())
    coder = UnigramCoder(tokenizer)
    assert coder.restore(tokenizer.encode(text), coder.residual(text)) == text


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_what_the_ids_say_is_not_paid_twice(tokenizer):
    coder = UnigramCoder(tokenizer)
    one, other = ("kettle", "tekelt") if isinstance(tokenizer, CharTokenizer) else ("kettle", "copper")
    assert tokenizer.encode(one) != tokenizer.encode(other)
    assert coder.residual(f"A {one} is on.") == coder.residual(f"A {other} is on.")


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("texts", [TRAINING, []], ids=["trained", "untrained"])
def test_probabilities_of_a_stream_sum_to_at_most_one(tokenizer, texts):
    coder = _coder(tokenizer, texts)
    streams = coder.residual("")
    assert streams
    for stream in streams:
        known = coder.counts.get(stream, {})
        short = ["", *map(chr, range(256)), *map("".join, itertools.product(map(chr, range(32, 127)), repeat=2))]
        symbols = {*known, *short}
        total = math.fsum(math.exp(coder.log_probability(stream, symbol)) for symbol in symbols)
        assert total <= 1 + 1e-9
        # What is left over is what the escape keeps for all longer spellings; known symbols alone leave just that.
        seen = math.fsum(math.exp(coder.log_probability(stream, symbol)) for symbol in known)
        escape = (len(known) + 1) / (coder.totals[stream] + len(known) + 1)
        assert seen + escape == pytest.approx(1)


def test_spellings_are_a_code_that_ends():
    """257 outcomes after every byte: together they are certain, so no spelling takes from another."""
    coder = _coder(TOKENIZERS["article"])
    outcomes = coder.bytes.total() + coder.spellings + 257
    assert sum(coder.bytes[byte] + 1 for byte in range(256)) + coder.spellings + 1 == outcomes
    assert set(coder.bytes) <= set(range(256))
    spelled = {symbol for counts in coder.counts.values() for symbol in counts}
    assert coder.bytes.total() >= sum(len(symbol.encode()) for symbol in spelled)


def test_the_price_by_hand():
    coder = UnigramCoder(CharTokenizer([*"abc"]))
    coder.update("abc?a?!")  # the residual: ? ? !
    assert coder.counts == {"unknown": Counter({"?": 2, "!": 1})}
    # Counted 3, different 2, plus one: ? has 2/6, ! has 1/6, the escape 3/6.
    assert coder.nats("a?b!") == pytest.approx(-math.log(2 / 6) - math.log(1 / 6))
    # Spelled so far: two bytes and two ends, each of 257 outcomes counted once more than seen.
    assert coder.nats("z") == pytest.approx(-math.log(3 / 6) - math.log(1 / 261) - math.log(3 / 261))
    assert coder.nats("abcabc") == 0


def test_nats_are_the_sum_over_the_symbols():
    coder = _coder(TOKENIZERS["article"])
    text = "The Kettle, the COPPER iPad & zebras."
    one_by_one = sum(coder.log_probability(s, symbol) for s, list_ in coder.residual(text).items() for symbol in list_)
    assert coder.nats(text) == pytest.approx(-one_by_one)
    assert coder.nats(text) == pytest.approx(sum(coder.price(coder.count(text)).values()))


def test_pieces_leave_nothing_out():
    tokenizer = build_sentence_piece_tokenizer(TRAINING, 400)
    coder = _coder(tokenizer)
    text = "The  Kettle\n\tis ẞ\u2581 gone."
    assert (coder.residual(text), coder.nats(text)) == ({}, 0)
    assert coder.restore(tokenizer.encode(text), {}) == text
    with pytest.raises(ValueError, match=r"expected to be .* lossless\. Received: pieces of a model from elsewhere"):
        UnigramCoder(SentencePieceTokenizer.from_model(tokenizer.model))


def test_what_was_seen_often_is_cheap():
    coder = _coder(TOKENIZERS["article"], TRAINING * 20)
    assert coder.nats("The kettle.") < coder.nats("The stove kettle.") < coder.nats("The zeppelin kettle.")
    assert coder.nats("The kettle.") < coder.nats("ThE kettle.")
    assert coder.nats("The kettle.") < coder.nats("The \v kettle.")


@settings(max_examples=30)
@given(st.lists(sentences.map("".join)), st.integers(0, 5))
def test_counts_merge_as_if_counted_in_one_place(texts, cut):
    tokenizer = TOKENIZERS["article"]
    whole = _coder(tokenizer, texts)
    merged = _coder(tokenizer, texts[:cut])
    merged.merge(json.loads(json.dumps(_coder(tokenizer, texts[cut:]).counts)))
    again = UnigramCoder(tokenizer)
    again.merge(whole.counts)
    for coder in (merged, again):
        assert coder.counts == whole.counts and coder.totals == whole.totals
        assert coder.bytes == whole.bytes and coder.spellings == whole.spellings
        assert coder.nats("The copper zebra\n") == pytest.approx(whole.nats("The copper zebra\n"))


def test_real_pages_come_back_and_cost_less_than_their_bytes(shared_data):
    pages = itertools.islice(Warc(shared_data / "warc" / "real-pages.warc.gz"), 250)
    texts = [document.text for document in map(strip_html, pages) if isinstance(document, Document)]
    counts = Counter(word for text in texts[::2] for word in find_words(text, WordsConfig(), STOP_WORDS))
    tokenizer = build_word_tokenizer(counts, WordsConfig(), STOP_WORDS)
    coder = _coder(tokenizer, texts[::2])
    for text in texts[1::2]:
        assert coder.restore(tokenizer.encode(text), coder.residual(text)) == text
    bits = sum(map(coder.nats, texts[1::2])) / math.log(2)
    assert 1 < bits / sum(len(text.encode()) for text in texts[1::2]) < 4
