"""Rules and cuts: two rows by hand, and transformers' processors where they are installed."""

import doctest

import numpy as np
import pytest
import tensorflow as tf

from tf_llm.contracts import END_ID, PAD_ID
from tf_llm.decoding import logits as logits_module
from tf_llm.decoding.logits import (
    LeastLength,
    Never,
    NeverInARow,
    NoRepeatedNgram,
    Prefix,
    RepetitionPenalty,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
)

LOGITS = tf.constant([[1.0, 2.0, -1.0, 4.0, 0.5], [0.0, -2.0, 3.0, 1.0, -0.5]])
SAID = tf.constant([[3, 4, 3, 0, 0], [4, 4, 4, 0, 0]])


def hidden(result):
    """Which tokens of each row became impossible; the others are as they were."""
    mask = np.isinf(result.numpy())
    assert (result.numpy()[~mask] == LOGITS.numpy()[~mask]).all()
    return [np.flatnonzero(row).tolist() for row in mask]


def test_docstring_examples():
    result = doctest.testmod(logits_module)
    assert result.attempted >= 10 and result.failed == 0


def test_two_rows_by_hand():
    per_row = lambda *values: tf.constant(values)  # noqa: E731
    for rule, expected in (
        (Never((0, 2)), [[0, 2], [0, 2]]),
        (NeverInARow(((1,), (4, 3, 2), (9, 9, 9, 9, 9, 2))), [[1, 2], [1]]),
        (LeastLength(4), [[END_ID], [END_ID]]),
        (LeastLength(per_row(3, 4)), [[], [END_ID]]),
        (NoRepeatedNgram(1, longest=1), [[3, 4], [4]]),
        (NoRepeatedNgram(2, longest=2), [[4], [4]]),
        (NoRepeatedNgram(per_row(3, 3), longest=3), [[], [4]]),
        (NoRepeatedNgram(per_row(0, 2), longest=3), [[], [4]]),
        (NoRepeatedNgram(9, longest=9), [[], []]),
        (Prefix(tf.constant([[3, 3, 3, 2], [1, 0, 0, 0]])), None),
    ):
        if expected is not None:
            assert hidden(rule(LOGITS, SAID, tf.constant(3))) == expected, rule
    forced = rule(LOGITS, SAID, tf.constant(3)).numpy()
    assert (
        np.isfinite(forced[0]).tolist() == [False, False, True, False, False] and (forced[1] == LOGITS[1].numpy()).all()
    )
    assert (rule(LOGITS, SAID, tf.constant(4)).numpy() == LOGITS.numpy()).all()
    forced = rule(LOGITS, SAID, tf.constant(0)).numpy()
    assert np.isfinite(forced[1]).tolist() == [False, True, False, False, False]


def test_a_penalty_by_hand():
    penalized = RepetitionPenalty(tf.constant([2.0, 4.0]))(LOGITS, SAID, tf.constant(3)).numpy()
    assert penalized.tolist() == [[1.0, 2.0, -1.0, 2.0, 0.25], [0.0, -2.0, 3.0, 1.0, -2.0]]
    assert (RepetitionPenalty(2.0)(LOGITS, SAID, tf.constant(0)).numpy() == LOGITS.numpy()).all()  # nothing was said


def test_rules_see_only_what_was_said():
    """Behind `count` there may be anything: guesses, say."""
    more = tf.constant([[3, 4, 3, 2, 2], [4, 4, 4, 2, 2]])
    for rule in (RepetitionPenalty(2.0), NoRepeatedNgram(2, longest=2), NeverInARow(((3, 2),))):
        assert (rule(LOGITS, SAID, tf.constant(3)).numpy() == rule(LOGITS, more, tf.constant(3)).numpy()).all()


def test_cuts_by_hand():
    shares = tf.math.log([[0.5, 0.2, 0.2, 0.1], [0.4, 0.3, 0.2, 0.1]])
    kept = lambda result: np.isfinite(result.numpy()).sum(axis=1).tolist()  # noqa: E731
    assert kept(keep_top_k(shares, 2, 2)) == [3, 2]  # equals stay together
    assert kept(keep_top_k(shares, tf.constant([0, 1]), 4)) == [4, 1]
    assert kept(keep_top_p(shares, tf.constant([0.3, 0.65]))) == [1, 2]
    assert kept(keep_top_p(shares, tf.constant([1.0, 0.0]))) == [4, 1]
    assert kept(keep_min_p(shares, tf.constant([0.0, 0.6]))) == [4, 2]
    assert kept(keep_typical(shares, tf.constant([1.0, 0.1]))) == [4, 1]


@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p", "typical_p", "repetition_penalty", "no_repeat_ngram_size"])
def test_they_do_what_those_of_transformers_do(name):
    torch = pytest.importorskip("torch")
    peers = pytest.importorskip("transformers.generation.logits_process")
    random = np.random.default_rng(0)
    logits = random.normal(scale=2, size=(20, 30)).astype("float32")
    logits[:, [PAD_ID, 7]] = -np.inf
    said = random.integers(3, 9, (20, 12)).astype("int32")
    rules = {
        "top_k": (5, peers.TopKLogitsWarper, lambda k: keep_top_k(logits, k, 8)),
        "top_p": (0.7, peers.TopPLogitsWarper, lambda p: keep_top_p(logits, p)),
        "min_p": (0.05, peers.MinPLogitsWarper, lambda p: keep_min_p(logits, p)),
        "typical_p": (0.6, peers.TypicalLogitsWarper, lambda p: keep_typical(logits, p)),
        "repetition_penalty": (
            1.7,
            peers.RepetitionPenaltyLogitsProcessor,
            lambda penalty: RepetitionPenalty(penalty)(logits, said, tf.constant(12)),
        ),
        "no_repeat_ngram_size": (
            2,
            peers.NoRepeatNGramLogitsProcessor,
            lambda size: NoRepeatedNgram(size, longest=2)(logits, said, tf.constant(12)),
        ),
    }
    setting, peer, ours = rules[name]
    theirs = peer(setting)(torch.tensor(said).long(), torch.tensor(logits)).numpy()
    np.testing.assert_allclose(ours(setting).numpy(), theirs, rtol=1e-6)
    assert not np.array_equal(theirs, logits)
