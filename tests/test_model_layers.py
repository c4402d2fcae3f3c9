"""The small layers and the masks: each against NumPy, or against Keras's own layer."""

import doctest
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tf_llm.model import layers, masks
from tf_llm.model.layers import (
    Attend,
    CacheWrite,
    ContextVector,
    FeedForward,
    KeysValues,
    MaskedBatchNorm,
    PositionEmbedding,
    sinusoids,
)
from tf_llm.model.masks import CausalMask, SourceMask, TargetMask

random = np.random.default_rng(0)


def _normal(*shape):
    return random.normal(size=shape).astype("float32")


@pytest.mark.parametrize(("module", "examples"), [(masks, 4), (layers, 1)])
def test_docstring_examples(module, examples):
    result = doctest.testmod(module)
    assert result.attempted >= examples and result.failed == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 5))
def test_causal_mask_shows_each_token_itself_and_what_is_before_it(length, tokens, position):
    mask = ops.convert_to_numpy(CausalMask(length)(np.zeros((2, tokens), "int32"), position=position))
    assert mask.shape == (1, 1, tokens, length)
    for token in range(tokens):
        assert [seen for seen in range(length) if mask[0, 0, token, seen]] == [*range(length)][: position + token + 1]


@pytest.mark.parametrize("width", [4, 6, 64])
def test_sinusoids_equal_the_formula(width):
    expected = np.zeros((50, width))
    for position in range(50):
        for wave in range(width // 2):
            wavelength = 2 * np.pi * 10_000 ** (wave / (width // 2 - 1))
            expected[position, wave] = np.sin(2 * np.pi * position / wavelength)
            expected[position, width // 2 + wave] = np.cos(2 * np.pi * position / wavelength)
    np.testing.assert_allclose(sinusoids(50, width), expected, atol=1e-6)


@pytest.mark.parametrize("width", [2, 7])
def test_sinusoids_need_a_width_to_halve(width):
    message = f"sinusoidal positions expected an even width of at least 4. Received: {width}"
    with pytest.raises(ValueError, match=message):
        sinusoids(3, width)
    with pytest.raises(ValueError, match=message):
        PositionEmbedding(3, "sinusoidal")(_normal(1, 3, width), position=0)


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_positions_are_rows_of_the_table_from_the_given_one_on(kind):
    layer, embedded = PositionEmbedding(8, kind), _normal(2, 3, 4)
    for position in (0, 2, 5, ops.array(5)):
        rows = ops.convert_to_numpy(layer(embedded, position=position)) - embedded
        table = ops.convert_to_numpy(layer.table)[int(position) : int(position) + 3]
        np.testing.assert_allclose(rows, [table, table], atol=1e-6)
    assert len(layer.trainable_weights) == (kind == "learned")
    if kind == "sinusoidal":
        np.testing.assert_array_equal(layer.table, sinusoids(8, 4))


def test_unknown_positions_are_named():
    with pytest.raises(ValueError, match=r"kind expected one of \['learned', 'sinusoidal'\]. Received: 'rotary'"):
        PositionEmbedding(3, "rotary")


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


def _attention(width, heads):
    """The two layers of attention, built, and Keras's one with the same weights."""
    keys_values, attend = KeysValues(heads), Attend()
    keys_values.build((None, None, width))
    attend.build((None, None, width))
    theirs = keras.layers.MultiHeadAttention(heads, width // heads, use_bias=False)
    theirs.build((None, None, width), (None, None, width))
    key, value = np.split(ops.convert_to_numpy(keys_values.projection.kernel), 2, axis=1)
    kernels = [attend.query.kernel, key, value, attend.output_projection.kernel]
    theirs.set_weights(
        [np.reshape(kernel, weight.shape) for kernel, weight in zip(kernels, theirs.weights, strict=True)]
    )
    return keys_values, attend, theirs


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_attention_equals_that_of_keras(heads):
    keys_values, attend, theirs = _attention(8, heads)
    queries, memory = _normal(3, 4, 8), _normal(3, 5, 8)
    mask = random.random((3, 4, 5)) < 0.6
    mask[..., 0] = True
    found = attend(queries, *keys_values(memory), mask[:, None])
    np.testing.assert_allclose(found, theirs(queries, memory, attention_mask=mask), atol=1e-5)


def test_attention_to_nothing_is_the_mean_of_all_and_has_gradients():
    keys_values, attend, _ = _attention(8, 2)
    queries, memory = tf.constant(_normal(2, 3, 8)), tf.constant(_normal(2, 4, 8))
    mask = np.array([[False] * 4, [True, False, False, True]])[:, None, None]  # the first row sees nothing
    with tf.GradientTape() as tape:
        tape.watch([queries, memory])
        keys, values = keys_values(memory)
        found = attend(queries, keys, values, mask)
    mean = np.mean(ops.convert_to_numpy(values)[0], axis=0).reshape(8) @ attend.output_projection.kernel
    np.testing.assert_allclose(found[0], [mean] * 3, atol=1e-5)
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(found, [queries, memory]))


def test_attention_to_one_vector_is_that_vector_without_a_warning():
    keys_values, attend, _ = _attention(8, 2)
    context = _normal(2, 1, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ops.convert_to_numpy(attend(_normal(2, 3, 8), *keys_values(context), np.ones((2, 1, 1, 1), bool)))
    value = np.split(ops.convert_to_numpy(keys_values.projection.kernel), 2, axis=1)[1]
    expected = context @ value @ ops.convert_to_numpy(attend.output_projection.kernel)  # [2, 1, 8]
    np.testing.assert_allclose(found, np.repeat(expected, 3, axis=1), atol=1e-5)


@pytest.mark.parametrize(("position", "tokens"), [(0, 1), (2, 3), (4, 1), (0, 5)])
def test_cache_write_replaces_what_is_at_the_position(position, tokens):
    cache, new = _normal(2, 5, 2, 3), _normal(2, tokens, 2, 3)
    expected = cache.copy()
    expected[:, position : position + tokens] = new
    np.testing.assert_array_equal(CacheWrite()(cache, new, position=position), expected)


def test_feed_forward_equals_numpy():
    layer, hidden = FeedForward(7), _normal(2, 3, 4)
    layer.build(hidden.shape)
    widen, bias, narrow, shift = (_normal(*weight.shape) for weight in layer.weights)
    layer.set_weights([widen, bias, narrow, shift])
    expected = np.maximum(hidden @ widen + bias, 0) @ narrow + shift
    np.testing.assert_allclose(layer(hidden), expected, atol=1e-5)


def test_context_vector_is_the_mean_over_tokens():
    encoded, mask = _normal(3, 4, 5), np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    context = ops.convert_to_numpy(ContextVector()(encoded, mask))
    assert context.shape == (3, 1, 5)
    np.testing.assert_allclose(context[0, 0], encoded[0, :2].mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(context[1], 0)  # a source without a token
    np.testing.assert_allclose(context[2, 0], encoded[2].mean(axis=0), atol=1e-6)


def test_context_vector_of_a_long_source_is_right_in_half_precision():
    encoded = np.full((1, 4096, 1), 1.25)  # in bfloat16, 4096 · 1.25 added up one by one stays below 1000
    context = ContextVector(dtype="mixed_bfloat16")(encoded, np.ones((1, 4096), bool))
    assert context.dtype == "bfloat16" and float(context[0, 0, 0]) == 1.25


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (PositionEmbedding(6, "sinusoidal"), (_normal(2, 3, 4), np.int32(1))),
        (MaskedBatchNorm(momentum=0.5), (_normal(2, 3, 4), np.ones((2, 3), bool))),
        (KeysValues(2), (_normal(2, 3, 4),)),
        (Attend(), (_normal(2, 3, 4), _normal(2, 5, 2, 2), _normal(2, 5, 2, 2), np.ones((2, 1, 1, 5), bool))),
        (CacheWrite(), (_normal(2, 5, 2, 2), _normal(2, 1, 2, 2), np.int32(3))),
        (FeedForward(7), (_normal(2, 3, 4),)),
        (ContextVector(), (_normal(2, 3, 4), np.ones((2, 3), bool))),
        (SourceMask(), (np.array([[5, 0]]),)),
        (TargetMask(), (np.array([[0, 0]]),)),
        (CausalMask(3), (np.array([[5, 6]]), np.int32(1))),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.Layer) else "",
)
def test_layer_from_its_config_does_the_same(layer, inputs):
    expected = keras.tree.flatten(layer(*inputs))
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    copy.set_weights(layer.get_weights())
    for one, other in zip(keras.tree.flatten(copy(*inputs)), expected, strict=True):
        np.testing.assert_array_equal(one, other)
