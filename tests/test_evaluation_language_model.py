"""The two baselines against their formulas written out, and the units that make recipes comparable."""

import doctest
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.lm import WittenBellInterpolated

from tf_llm.evaluation import language_model
from tf_llm.evaluation.language_model import bigram_nats, bits_per_byte, target_pairs, unigram_nats

VOCABULARY = 9
some_pairs = st.lists(st.tuples(st.integers(1, VOCABULARY - 1), st.integers(1, VOCABULARY - 1)), max_size=40).map(
    lambda pairs: np.array(pairs, "int64").reshape(-1, 2)
)
NO_PAIRS = np.zeros((0, 2), "int64")


def test_docstring_examples():
    result = doctest.testmod(language_model)
    assert result.attempted >= 4 and result.failed == 0


def test_bits_per_byte_has_two_parts():
    # 10 kept words at ln 16 nats are 40 bits; what was thrown away costs 24 bits; the text had 32 bytes.
    kept, removed = bits_per_byte(math.log(16), tokens=10, residual_nats=24 * math.log(2), text_bytes=32)
    assert (kept, removed) == pytest.approx((40 / 32, 24 / 32))
    assert bits_per_byte(0.0, tokens=0, residual_nats=0.0, text_bytes=0) == (0.0, 0.0)


def test_pairs_are_every_word_once_with_the_word_before_it():
    # Two pages, (2 3 4 5) and (6), as data/shards.py lays them down: blocks of 5, the first 2 repeat what came before.
    blocks = np.array([[0, 1, 2, 3, 4], [3, 4, 5, 1, 0], [0, 1, 6, 1, 0]], "uint16")
    pairs = target_pairs(blocks, overlap=2)
    assert pairs.tolist() == [[1, 2], [2, 3], [3, 4], [4, 5], [5, 1], [1, 6], [6, 1]]
    assert pairs.dtype == "int64"
    assert target_pairs(blocks[:0], overlap=2).shape == (0, 2)


def test_unigram_by_hand():
    train = np.array([[1, 5], [5, 5], [5, 5], [5, 1]])  # targets 5 5 5 1, of 7 possible ones besides padding
    probability = {5: 4 / 12, 1: 2 / 12, 2: 1 / 12}
    validation = np.array([[1, 5], [5, 1], [1, 2], [2, 5]])
    expected = -np.mean([math.log(probability[target]) for target in validation[:, 1]])
    assert unigram_nats(train, validation, 9) == pytest.approx(expected, rel=1e-12)


def _witten_bell(train_pairs, vocabulary_size):
    """The probability of each word behind each other one, by the formula: [V, V], rows are the word before."""
    counts = np.zeros((vocabulary_size, vocabulary_size))
    np.add.at(counts, (train_pairs[:, 0], train_pairs[:, 1]), 1)
    unigram = counts.sum(0) / max(counts.sum(), 1)
    seen, kinds = counts.sum(1, keepdims=True), (counts > 0).sum(1, keepdims=True)
    bigram = np.where(seen > 0, (counts + kinds * unigram) / np.maximum(seen + kinds, 1), unigram)
    share = 1 / (counts.sum() + 1)
    return (1 - share) * bigram + share / vocabulary_size


@given(some_pairs, some_pairs.filter(len))
def test_bigram_equals_the_formula(train, validation):
    expected = -np.log(_witten_bell(train, VOCABULARY)[validation[:, 0], validation[:, 1]]).mean()
    assert bigram_nats(train, validation, VOCABULARY) == pytest.approx(expected, rel=1e-12)


@given(some_pairs.filter(len), some_pairs.filter(len))
def test_bigram_equals_nltks_own_counting_and_scoring(train, validation):
    model = WittenBellInterpolated(order=2)
    bigrams = [tuple(pair) for pair in train.astype(str).tolist()]
    unigrams = [(second,) for _, second in bigrams]
    model.fit([bigrams + unigrams], vocabulary_text=[word for pair in bigrams for word in pair])
    share = 1 / (len(train) + 1)
    scores = [model.score(second, [first]) for first, second in validation.astype(str).tolist()]
    expected = -np.mean([math.log((1 - share) * score + share / VOCABULARY) for score in scores])
    assert bigram_nats(train, validation, VOCABULARY) == pytest.approx(expected, rel=1e-12)


@given(some_pairs, st.integers(1, VOCABULARY - 1))
def test_probabilities_add_up_to_one(train, first):
    bigram = [math.exp(-bigram_nats(train, np.array([[first, word]]), VOCABULARY)) for word in range(VOCABULARY)]
    assert sum(bigram) == pytest.approx(1, abs=1e-9)
    unigram = [math.exp(-unigram_nats(train, np.array([[first, word]]), VOCABULARY)) for word in range(1, VOCABULARY)]
    assert sum(unigram) == pytest.approx(1, abs=1e-9)


def test_bigram_beats_unigram_where_order_matters():
    train = np.array([[1, 2], [2, 3], [3, 4], [4, 1]] * 50)
    assert bigram_nats(train, train, VOCABULARY) < 0.2 < unigram_nats(train, train, VOCABULARY)


def test_each_distinct_pair_is_asked_for_once(monkeypatch):
    asked = Counter()
    score = WittenBellInterpolated.score
    monkeypatch.setattr(
        WittenBellInterpolated,
        "score",
        lambda self, word, context: asked.update([(*context, word)]) or score(self, word, context),
    )
    bigram_nats(np.array([[1, 2]] * 5), np.array([[1, 2]] * 50 + [[2, 1]] * 50), VOCABULARY)
    assert asked == {("1", "2"): 1, ("2", "1"): 1}


@pytest.mark.parametrize("score", [unigram_nats, bigram_nats])
def test_nothing_to_predict_and_nothing_to_learn_from(score):
    some = np.array([[1, 2], [2, 1]])
    assert score(some, NO_PAIRS, VOCABULARY) == 0.0
    assert score(NO_PAIRS, NO_PAIRS, VOCABULARY) == 0.0
    assert math.isfinite(score(NO_PAIRS, some, VOCABULARY))
