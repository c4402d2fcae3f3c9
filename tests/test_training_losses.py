"""Smoothed targets against the one-hot definition: values, gradients, and what Keras does with a loss."""

import doctest
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_llm.training import losses
from tf_llm.training.losses import SmoothedCrossentropy, build_loss, cross_entropy
from tf_llm.training.optimizers import TrainingConfig

B, T, V = 3, 4, 9


def _draw(scale=3.0):
    random = np.random.default_rng(2)
    return random.integers(0, V, (B, T)), random.normal(scale=scale, size=(B, T, V)).astype("float32")


def _smoothed(targets, logits, label_smoothing):
    """By the definition, with one-hot targets: -Σ share · log p, less the entropy of the shares."""
    other = label_smoothing / (V - 1)
    shares = tf.one_hot(targets, V, on_value=1 - label_smoothing, off_value=other)  # [B, T, V]
    entropy = -(1 - label_smoothing) * math.log(1 - label_smoothing) - label_smoothing * math.log(other)
    return -tf.reduce_sum(shares * tf.nn.log_softmax(logits), axis=-1) - entropy


def test_docstring_examples():
    result = doctest.testmod(losses)
    assert result.attempted >= 6 and result.failed == 0


@pytest.mark.parametrize("label_smoothing", [0.1, 0.5])
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_values_and_gradients_equal_the_one_hot_reference(label_smoothing, mode):
    targets, logits = _draw()
    results = []
    for function in (SmoothedCrossentropy(label_smoothing).call, lambda *case: _smoothed(*case, label_smoothing)):
        function = tf.function(function) if mode == "graph" else function
        given = tf.constant(logits)
        with tf.GradientTape() as tape:
            tape.watch(given)
            values = function(tf.constant(targets), given)
            total = tf.reduce_sum(values * tf.constant([[1.0], [2.0], [0.0]]))
        results.append((values.numpy(), tf.convert_to_tensor(tape.gradient(total, given)).numpy()))
    for ours, reference in zip(*results, strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-6)


def test_without_smoothing_it_is_plain():
    targets, logits = _draw()
    plain = cross_entropy(targets, logits).numpy()
    np.testing.assert_allclose(SmoothedCrossentropy(0.0).call(targets, logits), plain, rtol=1e-6)
    keras_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    np.testing.assert_allclose(keras_loss(targets, logits), plain, rtol=1e-6)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("scale", [0.01, 3.0, 100.0])  # of the last, most probabilities are 0 in float32
def test_cross_entropy_equals_that_of_tensorflow(scale, mode):
    targets, logits = _draw(scale)
    upstream = tf.constant([[1.0], [2.0], [0.0]])

    def differentiate(function):
        def run(given):
            with tf.GradientTape() as tape:
                tape.watch(given)
                values = function(given)
            return values, tape.gradient(values, given, output_gradients=upstream * tf.ones_like(values))

        run = run if mode == "eager" else tf.function(run, jit_compile=mode == "xla")
        return [tensor.numpy() for tensor in run(tf.constant(logits))]

    ours = differentiate(lambda given: cross_entropy(tf.constant(targets), given))
    theirs = differentiate(lambda given: tf.nn.sparse_softmax_cross_entropy_with_logits(targets, given))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_logit_that_is_not_finite_is_not_lost(number):
    """oneDNN's softmax gives 0 beside NaN; the guard has to see it, in the loss and in the gradient."""
    targets, logits = _draw()
    logits[1, 2, 3] = number
    given = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(given)
        values = cross_entropy(targets, given)
    for finite in (np.isfinite(values), np.isfinite(tape.gradient(values, given)).all(axis=-1)):
        assert finite.tolist() == [[True] * T, [True, True, False, True], [True] * T]


def test_nothing_is_lower_than_the_smoothed_targets():
    """At its minimum the loss is 0 and has no slope."""
    shares = np.full((B, T, V), 0.2 / (V - 1), "float32")
    targets = _draw()[0]
    np.put_along_axis(shares, targets[..., None], 0.8, axis=-1)
    logits = tf.constant(np.log(shares) + 5.0)  # a constant changes no softmax
    with tf.GradientTape() as tape:
        tape.watch(logits)
        values = SmoothedCrossentropy(0.2).call(targets, logits)
    np.testing.assert_allclose(values, np.zeros((B, T)), atol=2e-6)
    np.testing.assert_allclose(tf.convert_to_tensor(tape.gradient(values, logits)), np.zeros((B, T, V)), atol=1e-6)
    assert (SmoothedCrossentropy(0.2).call(targets, logits + 0.1 * _draw()[1]).numpy() > 0).all()


def test_bfloat16_logits_are_taken_in_float32():
    targets, logits = _draw(scale=30.0)
    rounded = tf.cast(logits, tf.bfloat16)
    values = SmoothedCrossentropy(0.1).call(targets, rounded)
    assert values.dtype == tf.float32
    np.testing.assert_allclose(values, _smoothed(targets, tf.cast(rounded, tf.float32), 0.1), rtol=1e-5, atol=1e-4)


def test_keras_compiles_weighs_saves_and_loads_it(tmp_path):
    model = keras.Sequential([keras.Input((T,), dtype="int32"), keras.layers.Embedding(V, V)])
    model.compile("sgd", loss=build_loss(TrainingConfig(label_smoothing=0.1)))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.loss, SmoothedCrossentropy) and loaded.loss.label_smoothing == 0.1
    targets = _draw()[0]
    values = _smoothed(targets, loaded(targets), 0.1)
    assert loaded.evaluate(targets, targets, verbose=0) == pytest.approx(float(tf.reduce_mean(values)), rel=1e-5)
    weights = np.array([[1.0] * T, [0.0] * T, [0.0] * T])
    assert float(loaded.loss(targets, loaded(targets), sample_weight=weights)) == pytest.approx(
        float(tf.reduce_sum(values[0])) / (B * T), rel=1e-5
    )


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0, math.nan])
def test_shares_out_of_bounds_are_named(label_smoothing):
    with pytest.raises(ValueError, match=r"^label_smoothing is expected to be in \[0, 1\)\. Received: "):
        SmoothedCrossentropy(label_smoothing)
