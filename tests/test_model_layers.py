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
from tf_llm.model.baselines import Convolution, Recurrence
from tf_llm.model.layers import (
    ACTIVATIONS,
    Attend,
    CacheWrite,
    ContextVector,
    FeedForward,
    KeysValues,
    ShortConvolution,
    rotate,
)
from tf_llm.model.masks import CausalMask, SegmentMask, SourceMask, TargetMask
from tf_llm.model.norms import NORMS, MaskedBatchNorm
from tf_llm.model.positions import PositionEmbedding, RelativeBias, Rotation

random = np.random.default_rng(0)


def _normal(*shape):
    return random.normal(size=shape).astype("float32")


@pytest.mark.parametrize(("module", "examples"), [(masks, 5), (layers, 8)])
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


def _attention(width, heads):
    """The two layers of attention, built, and Keras's one with the same weights."""
    keys_values, attend = KeysValues(heads, width // heads), Attend(heads, width // heads)
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


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_queries_equal_those_of_keras(groups):
    keys_values, attend = KeysValues(groups, 2), Attend(4, 2)
    queries, memory = _normal(3, 4, 8), _normal(3, 5, 8)
    found = attend(queries, *keys_values(memory), np.ones((3, 1, 1, 5), bool))
    theirs = keras.layers.GroupQueryAttention(2, 4, groups, use_bias=False)
    theirs.build((3, 4, 8), (3, 5, 8))
    key, value = np.split(ops.convert_to_numpy(keys_values.projection.kernel), 2, axis=1)
    kernels = {"query": attend.query.kernel, "key": key, "value": value, "output": attend.output_projection.kernel}
    for weight in theirs.weights:
        name = next(name for name in kernels if name in weight.path.split("/")[-2])
        weight.assign(np.reshape(kernels[name], weight.shape))
    np.testing.assert_allclose(found, theirs(queries, memory), atol=1e-5)


def test_unscaled_attention_begins_with_scores_of_the_same_size():
    keras.utils.set_random_seed(0)
    queries, memory = _normal(2, 50, 256), _normal(2, 50, 256)
    keys, _ = KeysValues(4, 64)(memory)
    for scale in (True, False):
        attend = Attend(4, 64, scale=scale)
        attend.build(queries.shape)
        projected = np.reshape(attend.query(queries), (2, 50, 4, 64)) / (8 if scale else 1)
        assert np.einsum("bthk,bhsk->bhts", projected, keys).std() == pytest.approx(1, rel=0.2)


def test_a_bias_is_added_to_the_scores():
    keys_values, attend, _ = _attention(8, 2)
    queries, memory = _normal(2, 3, 8), _normal(2, 4, 8)
    bias = np.where(np.arange(4) == 2, 0, -1e9)[None, None, None].astype("float32")  # only the third is left
    found = attend(queries, *keys_values(memory), np.ones((2, 1, 1, 4), bool), bias)
    np.testing.assert_allclose(found, attend(queries, *keys_values(memory[:, 2:3]), np.True_), atol=1e-5)


@pytest.mark.parametrize(("before", "behind"), [(1, 0), (2, 0), (1, 1), (2, 1)])
def test_short_convolution_equals_that_of_keras(before, behind):
    hidden, ours = _normal(2, 7, 4), ShortConvolution(before, behind)
    mixed = ours(hidden)
    theirs = keras.layers.DepthwiseConv1D(before + behind + 1, use_bias=False)
    theirs.build(hidden.shape)
    kernel = np.insert(ops.convert_to_numpy(ours.taps), before, 1.0, axis=0)  # a token keeps itself
    theirs.set_weights([np.reshape(kernel, theirs.weights[0].shape)])
    np.testing.assert_allclose(mixed, theirs(hidden), atol=1e-5)


def test_rotation_turns_pairs_of_coordinates():
    vectors, angles = _normal(2, 3, 4, 6), random.uniform(0, 6, (3, 3)).astype("float32")
    turned = ops.convert_to_numpy(rotate(vectors, np.stack([np.cos(angles), np.sin(angles)])))
    numbers = vectors[..., :3] + 1j * vectors[..., 3:]  # a pair is a complex number
    expected = numbers * np.exp(1j * angles)[:, None]
    np.testing.assert_allclose(turned[..., :3] + 1j * turned[..., 3:], expected, atol=1e-5)
    assert rotate(vectors, None) is vectors


def test_attention_to_nothing_is_the_mean_of_all_and_has_gradients():
    keys_values, attend, _ = _attention(8, 2)
    queries, memory = tf.constant(_normal(2, 3, 8)), tf.constant(_normal(2, 4, 8))
    mask = np.array([[False] * 4, [True, False, False, True]])[:, None, None]  # the first row sees nothing
    with tf.GradientTape() as tape:
        tape.watch([queries, memory])
        keys, values = keys_values(memory)
        found = attend(queries, keys, values, mask)
    mean = np.mean(ops.convert_to_numpy(values)[0], axis=1).reshape(8) @ attend.output_projection.kernel
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
    cache, new = _normal(2, 2, 5, 3), _normal(2, 2, tokens, 3)
    expected = cache.copy()
    expected[:, :, position : position + tokens] = new
    np.testing.assert_array_equal(CacheWrite()(cache, new, position=position), expected)


def _erf_free_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


FUNCTIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": _erf_free_gelu,
    "gated_gelu": _erf_free_gelu,
    "swiglu": lambda x: x / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_feed_forward_equals_numpy(activation, use_bias):
    layer, hidden = FeedForward(7, activation, use_bias), _normal(2, 3, 4)
    layer.build(hidden.shape)
    layer.set_weights([_normal(*weight.shape) for weight in layer.weights])

    def dense(part, hidden):
        return hidden @ ops.convert_to_numpy(part.kernel) + (ops.convert_to_numpy(part.bias) if use_bias else 0)

    gate, widened = layer.gate if layer.is_gated else layer.widen, dense(layer.widen, hidden)
    activated = FUNCTIONS[activation](dense(gate, hidden)) * (widened if layer.is_gated else 1)
    np.testing.assert_allclose(layer(hidden), dense(layer.narrow, activated), atol=1e-5)
    assert layer.is_gated == (activation in ("gated_gelu", "swiglu"))


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
        *[(norm(epsilon=0.1), (_normal(2, 3, 4), np.ones((2, 3), bool))) for norm in NORMS.values()],
        (RelativeBias(2, 5, True, 8, 20), (_normal(2, 3, 4), np.int32(1))),
        (Rotation(6), (_normal(2, 3, 4), np.int32(1))),
        (KeysValues(2, 3), (_normal(2, 3, 4),)),
        (Attend(2, 3, False, 0.1), (_normal(2, 3, 4), *_normal(2, 2, 1, 5, 3), np.ones((2, 1, 1, 5), bool))),
        (CacheWrite(), (_normal(2, 2, 5, 2), _normal(2, 2, 1, 2), np.int32(3))),
        (FeedForward(7, "swiglu", False, 0.1), (_normal(2, 3, 4),)),
        (ContextVector(), (_normal(2, 3, 4), np.ones((2, 3), bool))),
        (SourceMask(), (np.array([[5, 0]]),)),
        (TargetMask(), (np.array([[0, 0]]),)),
        (CausalMask(3), (np.array([[5, 6]]), np.int32(1))),
        (SegmentMask(), (np.array([[1, 0]]), np.array([[1, 1, 2]]))),
        (Recurrence(5, True), (_normal(2, 3, 4), np.ones((2, 3), bool))),
        (Convolution(2), (_normal(2, 3, 4),)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.Layer) else "",
)
def test_layer_from_its_config_does_the_same(layer, inputs):
    expected = keras.tree.flatten(layer(*inputs))
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    copy.set_weights(layer.get_weights())
    for one, other in zip(keras.tree.flatten(copy(*inputs)), expected, strict=True):
        np.testing.assert_array_equal(one, other)
