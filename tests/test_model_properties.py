"""What holds for every configuration: random ones are built, or refused with a reason, and held to it."""

import dataclasses
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from keras import ops

from tf_llm.model.config import ARCHITECTURES, CONTEXTS, EMBEDDINGS, NORM_PLACES, ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.model.layers import ACTIVATIONS
from tf_llm.model.norms import NORMS
from tf_llm.model.positions import POSITIONS

pytestmark = pytest.mark.thorough  # test_model_encoder_decoder.py holds some configurations to the same

V, S, T = 20, 7, 6
CHOICES = {
    "architecture": sorted(ARCHITECTURES),
    "context": CONTEXTS,
    "positions": sorted(POSITIONS),
    "norm": sorted(NORMS),
    "norm_place": NORM_PLACES,
    "input_norm": [*sorted(NORMS), "none"],
    "activation": sorted(ACTIVATIONS),
    "embeddings": EMBEDDINGS,
    "num_layers": [1, 2],
    "num_decoder_layers": [0, 1, 3],
    "num_key_value_heads": [0, 1, 2, 4],
    "d_head": [0, 2, 3, 6],
    "reach": [2, 3, 4],
    "short_convolution": [0, 2, 3],
    "output_l2": [0.0, 0.01],
    **dict.fromkeys(
        ("feed_forward_bias", "attention_scale", "embedding_scale", "output_scale", "output_bias"), (True, False)
    ),
}
SHAPE = {"vocabulary_size": V, "source_length": S, "target_length": T, "num_heads": 4, "d_model": 8, "d_ff": 12}
few = settings(
    max_examples=6, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
many = settings(few, max_examples=10)


@st.composite
def configs(draw, **fixed):
    """A `ModelConfig` of a small model with drawn choices; those that are refused are passed over."""
    chosen = {name: draw(st.sampled_from(values), label=name) for name, values in CHOICES.items() if name not in fixed}
    try:
        return ModelConfig(**SHAPE, **chosen, **fixed)
    except ValueError as error:
        assert "expected" in str(error) and "Received" in str(error)
        assume(False)


def _build(config, precision="float32"):
    """A model whose weights are all moved away from zero and one, so that none is without effect."""
    keras.utils.set_random_seed(1)
    model, random = build_model(config, precision), np.random.default_rng(1)
    for weight in model.weights:
        if weight.trainable or "moving" in weight.path:
            weight.assign(weight + random.uniform(0, 0.3, weight.shape))
    return model


def _batch(rows=3, seed=2):
    """The first row is full, each further one shorter by two tokens, in source and target."""
    random = np.random.default_rng(seed)
    source_ids, decoder_ids = random.integers(3, V, (rows, S)), random.integers(3, V, (rows, T))
    decoder_ids[:, 0] = 0  # START_ID
    for row in range(1, rows):
        source_ids[row, -2 * row :] = 0
        decoder_ids[row, -2 * row :] = 0
    return {"source_ids": source_ids.astype("int32"), "decoder_ids": decoder_ids.astype("int32")}


def _logits(model, batch):
    return ops.convert_to_numpy(model(batch))


@many
@given(configs())
def test_cached_steps_equal_the_full_pass_and_the_future_never_leaks(config):
    model, batch = _build(config), _batch()
    expected = _logits(model, batch)
    assert np.isfinite(expected).all() and expected.std() > 1e-3

    state = dict(model.build_start()(batch["source_ids"]))
    del state["context"]
    step, cache, steps = model.build_step(), model.empty_cache(3), []
    for position in range(T):
        token_ids = ops.array(batch["decoder_ids"][:, position : position + 1])
        logits, cache = step({"token_ids": token_ids, "position": ops.array(position, "int32"), **state, **cache})
        steps.append(ops.convert_to_numpy(logits))
    kept = (batch["decoder_ids"] != 0) | (np.arange(T) == 0)  # in training a recurrence passes over padding
    np.testing.assert_allclose(np.concatenate(steps, axis=1)[kept], expected[kept], atol=1e-5)

    later = {**batch, "decoder_ids": np.where(np.arange(T) > 2, (batch["decoder_ids"] + 5) % V, batch["decoder_ids"])}
    np.testing.assert_allclose(_logits(model, later)[:, :3], expected[:, :3], atol=1e-6)
    other = {**batch, "source_ids": np.where(batch["source_ids"], 3 + batch["source_ids"] % 17, 0)}
    assert np.abs(_logits(model, other) - expected).max() > 1e-4  # and the source is seen


@many
@given(configs())
def test_padding_and_neighbours_change_nothing(config):
    model = _build(config)
    wide = _build(dataclasses.replace(config, source_length=S + 4, target_length=T + 3))
    for weight, value in zip(model.weights, wide.get_weights(), strict=True):
        weight.assign(value[: weight.shape[0]] if value.shape != weight.shape else value)  # as many positions
    batch = _batch()
    kept = (batch["decoder_ids"] != 0) | (np.arange(T) == 0)
    expected = _logits(model, batch)
    padded = {name: np.pad(ids, ((0, 0), (0, 4 if ids.shape[1] == S else 3))) for name, ids in batch.items()}
    np.testing.assert_allclose(_logits(wide, padded)[:, :T][kept], expected[kept], atol=1e-5)
    for row in range(3):
        alone = _logits(model, {name: ids[row : row + 1] for name, ids in batch.items()})
        np.testing.assert_allclose(alone[0], expected[row], atol=1e-5)


def _pack(examples):
    """Rows of several examples each: [(source ids, decoder ids), …] a row -> the features of a packed batch."""
    names = (
        "source_ids",
        "source_segments",
        "source_positions",
        "decoder_ids",
        "decoder_segments",
        "decoder_positions",
    )
    batch = {name: np.zeros((len(examples), S if name.startswith("source") else T), "int32") for name in names}
    for row, pairs in enumerate(examples):
        for side, part in (("source", 0), ("decoder", 1)):
            begin = 0
            for number, pair in enumerate(pairs, start=1):
                end = begin + len(pair[part])
                batch[f"{side}_ids"][row, begin:end] = pair[part]
                batch[f"{side}_segments"][row, begin:end] = number
                batch[f"{side}_positions"][row, begin:end] = np.arange(end - begin)
                begin = end
    return batch


packable = configs(
    packed=True,
    architecture="transformer",
    context="sequence",
    norm="rms",
    input_norm="layer",
)


@many
@given(packable, st.integers(0, 1000))
def test_packed_equals_unpacked(config, seed):
    random = np.random.default_rng(seed)
    examples = []
    for _ in range(2):
        first, second = random.integers(1, S - 1), random.integers(1, T - 1)
        lengths = [(first, second), (S - first - random.integers(0, 2), T - second - random.integers(0, 2))]
        examples.append(
            [(random.integers(3, V, s), np.append(0, random.integers(3, V, t - 1))) for s, t in lengths if s and t]
        )
    packed = _build(config)
    plain = build_model(dataclasses.replace(config, packed=False))
    plain.set_weights(packed.get_weights())
    logits = _logits(packed, _pack(examples))
    for row, pairs in enumerate(examples):
        begin = 0
        for source, said in pairs:
            alone = _pack([[(source, said)]])
            expected = _logits(plain, {name: alone[name] for name in ("source_ids", "decoder_ids")})
            end = begin + len(said)
            np.testing.assert_allclose(logits[row, begin:end], expected[0, : len(said)], atol=1e-5)
            begin = end


@few
@given(packable)
def test_a_packed_model_decodes_as_the_plain_one(config):
    packed, plain = _build(config), build_model(dataclasses.replace(config, packed=False))
    plain.set_weights(packed.get_weights())
    ids = _batch()["source_ids"]
    for one, other in zip(packed.build_start()(ids).values(), plain.build_start()(ids).values(), strict=True):
        kept = ids != 0 if one.ndim == 3 else np.ones(ids.shape, bool)  # what padding is encoded as may differ
        if one.ndim != 4:
            np.testing.assert_allclose(one[kept], other[kept], atol=1e-5)


@few
@given(configs())
def test_eager_equals_graph_equals_xla(config):
    model, batch = _build(config), _batch()
    expected = _logits(model, batch)
    for jit_compile in (False, True):
        compiled = tf.function(model, jit_compile=jit_compile)
        np.testing.assert_allclose(compiled(batch), expected, atol=1e-5)


@few
@given(configs(), st.sampled_from(["float32", "mixed_bfloat16"]))
def test_a_saved_model_is_the_same(config, precision):
    model, batch = _build(config, precision), _batch()
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        copy = keras.models.load_model(Path(folder) / "model.keras")
        model.save_weights(Path(folder) / "model.weights.h5")
        other = build_model(config, precision)
        other.load_weights(Path(folder) / "model.weights.h5")
    assert copy.config == config
    paths = [weight.path for weight in model.weights]
    assert len(set(paths)) == len(paths)
    for loaded in (copy, other):
        np.testing.assert_array_equal(_logits(loaded, batch), _logits(model, batch))


@few
@given(configs())
def test_every_trained_weight_has_a_gradient_or_a_reason(config):
    model, batch = _build(config), _batch()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(model(batch, training=True)))
    weights = model.trainable_weights
    gradients = tape.gradient(loss, [weight.value for weight in weights])
    for weight, gradient in zip(weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.isfinite(tf.convert_to_tensor(gradient)).all(), weight.path
