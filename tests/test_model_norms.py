"""Normalisation layers: each against NumPy, and padding against none."""

import doctest

import numpy as np
import pytest
from keras import ops

from tf_llm.model import norms
from tf_llm.model.norms import BatchLayerNorm, LayerNorm, MaskedBatchNorm, RMSNorm

random = np.random.default_rng(0)


def _normal(*shape):
    return random.normal(size=shape).astype("float32")


def test_docstring_examples():
    result = doctest.testmod(norms)
    assert result.attempted >= 2 and result.failed == 0


def test_layer_and_rms_norm_equal_numpy():
    hidden, keep = 3 * _normal(2, 4, 5) + 1, np.ones((2, 4), bool)
    centred = hidden - hidden.mean(-1, keepdims=True)
    for layer, expected in (
        (LayerNorm(epsilon=0.1), centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 0.1)),
        (RMSNorm(epsilon=0.1), hidden / np.sqrt((hidden**2).mean(-1, keepdims=True) + 0.1)),
    ):
        layer.build(hidden.shape)
        scale = _normal(5)
        layer.weights[0].assign(scale)
        np.testing.assert_allclose(layer(hidden, keep), expected * scale, atol=1e-5)


def test_batch_norm_knows_kept_positions_alone():
    keep = np.array([[True, True, False, False], [True, True, True, False]])
    hidden = 3 * _normal(2, 4, 5) + 1
    kept = hidden[keep]  # [5 positions, D]
    layer = MaskedBatchNorm(momentum=0.9)
    normed = ops.convert_to_numpy(layer(hidden, keep, training=True))

    expected = (kept - kept.mean(axis=0)) / np.sqrt(kept.var(axis=0) + layer.epsilon)
    np.testing.assert_allclose(normed[keep], expected, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * kept.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * kept.var(axis=0), atol=1e-5)

    running = (hidden - layer.moving_mean) / np.sqrt(layer.moving_variance + layer.epsilon)
    np.testing.assert_allclose(layer(hidden, keep, training=False), running, atol=1e-5)


@pytest.mark.parametrize("padding", [0.0, 1e6, np.nan])
def test_batch_norm_does_not_look_at_padding(padding):
    keep = np.array([[True, True, False], [True, False, False]])
    hidden = _normal(2, 3, 4)
    padded = np.where(keep[..., None], hidden, np.float32(padding))
    one, other = MaskedBatchNorm(), MaskedBatchNorm()
    expected, normed = one(hidden, keep, training=True), other(padded, keep, training=True)
    np.testing.assert_array_equal(ops.convert_to_numpy(normed)[keep], ops.convert_to_numpy(expected)[keep])
    for first, second in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("training", [True, False])
def test_the_articles_pair_is_one_behind_the_other(training):
    hidden, keep = 3 * _normal(2, 4, 5) + 1, random.random((2, 4)) < 0.7
    pair, first, second = BatchLayerNorm(epsilon=1e-6), MaskedBatchNorm(), LayerNorm(epsilon=1e-6)
    expected = second(first(hidden, keep, training=training), keep)
    np.testing.assert_allclose(pair(hidden, keep, training=training), expected, atol=1e-6)
    np.testing.assert_array_equal(pair.batch_norm.moving_mean, ops.convert_to_numpy(first.moving_mean))
