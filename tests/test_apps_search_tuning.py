"""Encoders of the search: their start from topics, their windows, what tuning may see, and how much they may count."""

import dataclasses
import doctest
import itertools
import random

import numpy as np
import pytest

pytest.importorskip("tantivy", reason="needs the extra: pip install 'tf_llm[search]'")
pytest.importorskip("rapidfuzz", reason="needs the extra: pip install 'tf_llm[search]'")
pytest.importorskip("Stemmer", reason="needs the extra: pip install 'tf_llm[search]'")

from tf_llm.apps.search import topics, tuning
from tf_llm.apps.search.encoder import Encoder
from tf_llm.apps.search.entries import Entry
from tf_llm.apps.search.topics import find_word_vectors, start_from_topics
from tf_llm.apps.search.tuning import build_encoder, choose_weight, is_held_out, make_pairs, plan_encoder, tune_encoder
from tf_llm.contracts import UserError
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.training.contrastive import ContrastiveConfig

LETTERS, KINDS = "abcdefghijkl", map("".join, itertools.product("bcdfg", "tvwxz"))
SUBJECTS = [[f"{kind}{letter}" for letter in LETTERS] for kind in KINDS]


def make_entries(count=250):
    """Texts of 25 subjects. A title has words that its own text has not, but others of the subject have."""
    rng = random.Random(0)
    entries = []
    for number in range(count):
        words = rng.sample(SUBJECTS[number % len(SUBJECTS)], 9)
        entries.append(Entry(f"https://a.example/{number}", " ".join(words[:2]), " ".join(words[2:] * 2)))
    return entries


@pytest.fixture(scope="module")
def entries():
    return make_entries()


@pytest.fixture(scope="module")
def run():
    """About as many topics as there are subjects."""
    planned = plan_encoder()
    return dataclasses.replace(planned, model=dataclasses.replace(planned.model, d_model=28, d_ff=8, num_heads=2))


@pytest.fixture(scope="module")
def encoder(entries, run):
    return build_encoder(entries, run)


@pytest.mark.parametrize("module", [topics, tuning])
def test_docstring_examples(module):
    result = doctest.testmod(module)
    assert result.attempted >= 1 and result.failed == 0


def test_word_vectors_are_singular_vectors():
    rng = np.random.default_rng(0)
    texts = [rng.integers(3, 40, 12).tolist() for _ in range(60)]
    found = find_word_vectors(texts, 45, topics=5)
    matrix = np.zeros([60, 45])
    for row, text in enumerate(texts):
        for word in set(text):
            matrix[row, word] = 1 + np.log(text.count(word))
    rarity = np.log(60 / np.maximum((matrix > 0).sum(axis=0), 1))
    matrix *= rarity
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    expected = np.linalg.svd(matrix)[2][:5].T * rarity[:, None]
    expected[(matrix > 0).sum(axis=0) == 0] = 0
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=0.02)


def test_an_encoder_begins_as_the_sum_of_its_words_vectors(encoder):
    table = encoder.model.get_layer("input_embedding").get_layer("table").embeddings.numpy()
    ids = encoder.tokenizer.encode("bta btb gza")
    assert len(ids) == 3
    expected = table[ids, :-1].sum(axis=0)
    (vector,) = encoder(["bta btb gza"])
    assert vector[-1] == 0 and vector[:-1] @ expected / np.linalg.norm(expected) == pytest.approx(1, abs=1e-3)


def test_words_that_keep_company_are_near(encoder):
    tea, other, wing, nothing = encoder(["bta btb", "btc btd", "gza gzb", ""])
    assert tea @ other > 0.7 > 0.3 > abs(tea @ wing) and not nothing.any()


def test_a_text_is_read_in_windows_and_only_so_far(encoder):
    length = encoder.model.config.source_length
    assert [len(window) for window in encoder.cut("bta " * 1000, 4)] == [length] * 4
    assert [len(window) for window in encoder.cut("bta " * (length + 1), 4)] == [length]  # one word says nothing
    assert encoder.cut("", 4) == [] and encoder([]).shape == (0, encoder.model.config.d_model)
    many = encoder([f"bt{letter}" for letter in "abcdefgh"] * 20)
    one = np.concatenate([encoder([f"bt{letter}"]) for letter in "abcdefgh"])
    np.testing.assert_allclose(many[-8:], one, atol=1e-5)


def test_it_is_the_same_after_it_was_saved(encoder, tmp_path):
    encoder.save(tmp_path)
    np.testing.assert_allclose(Encoder.load(tmp_path)(["bta gzb"]), encoder(["bta gzb"]), atol=1e-6)


def test_titles_of_held_out_texts_are_never_seen(entries, run, monkeypatch):
    seen = []
    monkeypatch.setattr(tuning, "tune_context", lambda model, kept, held_out, config: seen.append((kept, held_out)))
    monkeypatch.setattr(tuning, "start_from_topics", lambda model, texts: seen.append(list(texts)))
    encoder = build_encoder(entries, run)
    tune_encoder(encoder, entries)
    texts, (kept, held_out) = seen
    held = [entry for entry in entries if is_held_out(entry.address)]
    assert 10 < len(held) < 50 and len(held_out) == len(held) and len(kept) == len(entries) - len(held)
    lengths = [len(text) for text in texts]
    assert sorted(set(lengths)) == [14, 16] and lengths.count(14) == len(held)


def test_the_title_is_taken_off_the_text(encoder):
    pairs = make_pairs(encoder, [Entry("a", "bta btb", "bta btb\nbtc btd bte btf"), Entry("b", "bta", "")])
    assert (pairs.left > 0).sum() == 2 and (pairs.right > 0).sum() == 4 and len(pairs) == 1


def test_the_dense_ranking_counts_where_it_finds_more(entries, encoder):
    weight, scores = choose_weight(entries, encoder)
    assert weight > 0 and scores[weight] > scores[0.0]  # few titles have a word in common with their texts
    same = [
        Entry(entry.address, entry.title, f"{entry.text} unique{i} {entry.title}") for i, entry in enumerate(entries)
    ]
    same = [Entry(entry.address, f"only{i}", f"{entry.text} only{i}") for i, entry in enumerate(entries)]
    assert choose_weight(same, encoder)[0] == 0.0  # and here each has one that nobody else has
    assert choose_weight([], encoder) == (0.0, {})


def test_too_few_texts_are_refused(entries, encoder):
    with pytest.raises(UserError, match=r"expected at least 128 titles with texts .* Received: \d+ and \d+\. Search "):
        tune_encoder(encoder, entries[:20], ContrastiveConfig())


def test_a_model_that_would_not_keep_the_vectors_is_refused():
    model = build_model(ModelConfig(vocabulary_size=10, d_model=8, d_ff=8, num_heads=2, num_layers=1))
    with pytest.raises(ValueError, match=r"a transformer with .*'norm': 'rms'.* is expected\. Received: .*'layer'"):
        start_from_topics(model, [[3, 4]])
