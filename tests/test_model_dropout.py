"""Dropout: the statistics of its masks, what is the same in every way of running it, and two replicas.

The two devices are logical CPUs, which must be made before TensorFlow starts: this file, run as a script, draws masks
and trains on them and prints what came out, and the tests ask for that.
"""

import doctest
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from keras import ops
from processes import make_two_devices, read, start

from tf_llm import contracts
from tf_llm.contracts import DECODER_IDS, SOURCE_IDS, on_replica
from tf_llm.model import dropout
from tf_llm.model.config import ModelConfig
from tf_llm.model.dropout import SIGNIFICANT_BITS, Dropout, count_dropped, split_scale
from tf_llm.model.encoder_decoder import PRECISIONS, build_model
from tf_llm.training.checkpoints import Checkpoints
from tf_llm.training.distribution import strategy
from tf_llm.training.losses import build_loss
from tf_llm.training.optimizers import TrainingConfig, build_optimizer
from tf_llm.training.trainer import Sums, Trainer

HALF_TYPES = ("bfloat16", "float16")
ROWS, LENGTH, WIDTH, VOCABULARY = 4, 6, 16, 11


def draw(layer, *shape):
    """Which elements a call keeps, as NumPy bools."""
    return ops.convert_to_numpy(layer.draw_mask(shape))


def assert_share(hits, share):
    """That so many of the draws are hits, within four standard errors."""
    assert abs(hits.mean() - share) < 4 * math.sqrt(share * (1 - share) / hits.size)


def assert_independent(one, other, kept):
    """That two masks agree as often as two independent ones that keep such a share; of equal ones, all would agree."""
    assert_share(one == other, kept**2 + (1 - kept) ** 2)


@pytest.mark.parametrize(("module", "examples"), [(dropout, 8), (contracts, 2)])
def test_docstring_examples(module, examples):
    result = doctest.testmod(module)
    assert result.attempted >= examples and result.failed == 0


# === Statistics ===


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1, 0.25, 0.3, 0.5, 0.9, 0.999])
def test_the_share_that_is_dropped(rate):
    layer = Dropout(rate, seed=1)
    assert abs(layer.realised_rate - rate) <= min(rate, 1 - rate) / 50
    assert_share(~draw(layer, 4, 1000, 1000), layer.realised_rate)


@hypothesis_settings(deadline=None)
@given(st.floats(0, 1, exclude_min=True, exclude_max=True), st.sampled_from(["float32", *HALF_TYPES]))
def test_the_expectation_is_kept_for_every_rate(rate, dtype):
    bits, dropped = count_dropped(rate)
    assert 0 < dropped < 2**bits
    kept = 1 - dropped / 2**bits
    assert math.prod(split_scale(1 / kept, SIGNIFICANT_BITS.get(dtype))) * kept == pytest.approx(1, rel=1e-3)


def mean_ratio(layer, dtype):
    """The mean of what a layer makes of 16 million numbers, over theirs, and its standard error."""
    numbers = tf.cast(tf.random.stateless_uniform((16, 1000, 1000), (1, 2), 0.5, 1.5), dtype)
    kept = tf.reduce_sum(tf.cast(layer(numbers, training=True), "float64"))
    total = tf.reduce_sum(tf.cast(numbers, "float64"))
    share, squares = layer.rate, tf.reduce_sum(tf.square(tf.cast(numbers, "float64")))
    return float(kept / total), float(tf.sqrt(squares * share / (1 - share)) / total)


@pytest.mark.parametrize("rate", [0.1, 0.4])
@pytest.mark.parametrize("dtype", ["float32", *HALF_TYPES])
def test_the_mean_is_kept_in_every_precision(dtype, rate):
    ratio, error = mean_ratio(Dropout(rate, seed=1, dtype=dtype), dtype)
    assert abs(ratio - 1) < 4 * error + 1e-4


def test_keras_loses_a_part_of_the_mean_in_bfloat16():
    """The trap: it drops 13 of 128 for a tenth, but scales by 1 / .9, and rounds that to 1.109."""
    ratio, error = mean_ratio(keras.layers.Dropout(0.1, seed=1, dtype="bfloat16"), "bfloat16")
    assert abs(ratio - 1) > 10 * error and ratio == pytest.approx(115 / 128 * 1.109375, abs=4 * error)


@pytest.mark.parametrize(("bits", "rate"), [(8, 0.1), (8, 0.5), (16, 0.3)])
def test_the_decisions_of_one_word_are_independent(bits, rate):
    """All patterns of four neighbours come as often as they should, and no two of sixteen places are correlated."""
    layer = Dropout(rate, seed=2)
    layer.bits, layer.dropped = bits, round(rate * 2**bits)
    mask, share = draw(layer, 250_000, 16), layer.dropped / 2**bits
    patterns = mask.reshape(-1, 4) @ [1, 2, 4, 8]
    kept = np.array([bin(pattern).count("1") for pattern in range(16)])
    expected = len(patterns) * (1 - share) ** kept * share ** (4 - kept)
    statistic = np.sum((np.bincount(patterns, minlength=16) - expected) ** 2 / expected)
    assert statistic < 15 + 4 * math.sqrt(2 * 15)  # chi-square with 15 degrees of freedom
    correlations = np.corrcoef(mask.T) - np.eye(16)
    assert np.abs(correlations).max() < 4.5 / math.sqrt(len(mask))  # of 120 pairs


def test_calls_layers_seeds_and_replicas_draw_independent_masks():
    shape = (1000, 1000)
    keras.utils.set_random_seed(0)
    layers = {
        "one": Dropout(0.3),
        "other": Dropout(0.3),
        "seed 7": Dropout(0.3, seed=7),
        "seed 8": Dropout(0.3, seed=8),
    }
    masks = {(name, call): draw(layer, *shape) for name, layer in layers.items() for call in (1, 2)}
    for replica in (1, 2):
        with on_replica(replica):
            masks["seed 7", f"replica {replica}"] = draw(Dropout(0.3, seed=7), *shape)
    kept = 1 - layers["one"].realised_rate
    names = list(masks)
    for i, name in enumerate(names):
        for other in names[:i]:
            assert_independent(masks[name], masks[other], kept)


# === The same mask, however it is drawn ===


def test_the_same_seed_draws_the_same_masks():
    one, other = Dropout(0.5, seed=3), Dropout(0.5, seed=3)
    for _ in range(2):
        np.testing.assert_array_equal(draw(one, 5, 7), draw(other, 5, 7))
    masks = []
    for _ in range(2):
        keras.utils.set_random_seed(4)
        masks.append(draw(Dropout(0.5), 5, 7))
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("rate", [0.1, 0.01])
def test_eager_graph_and_xla_agree(rate, precision):
    """Also where the number of rows is unknown, and where D is no multiple of what a word decides."""

    def call(layer):
        return lambda hidden: layer(hidden, training=True)

    ways = [
        call,
        lambda layer: tf.function(call(layer)),
        lambda layer: tf.function(call(layer), input_signature=[tf.TensorSpec((None, None, 13))]),
        lambda layer: tf.function(call(layer), jit_compile=True),
    ]
    hidden, results = tf.random.stateless_normal((3, 5, 13), (1, 2)), []
    for way in ways:
        run = way(Dropout(rate, seed=5, dtype=precision))
        results.append([ops.convert_to_numpy(ops.cast(run(hidden), "float32")) for _ in range(2)])
    assert np.any(results[0][0] != results[0][1])
    for other in results[1:]:
        # XLA keeps float32 between the two factors and rounds once, where the others round twice: two units in the last
        # place at most, of 24, 8 or 11 significant bits.
        bits = {"float32": 24, "mixed_bfloat16": 8, "mixed_float16": 11}[precision]
        np.testing.assert_allclose(other, results[0], rtol=2 * 2.0 ** (1 - bits))
        np.testing.assert_array_equal(np.equal(other, 0), np.equal(results[0], 0))


@pytest.mark.parametrize("number", [int, np.int32, tf.constant], ids=["int", "numpy", "tensor"])
def test_the_first_replica_draws_what_a_single_device_draws(number):
    expected = draw(Dropout(0.5, seed=6), 5, 7)
    with on_replica(number(0)):
        np.testing.assert_array_equal(draw(Dropout(0.5, seed=6), 5, 7), expected)


# === What a layer does with its mask ===


@pytest.mark.parametrize("dtype", ["float32", *HALF_TYPES])
def test_gradients_pass_where_elements_stay(dtype):
    layer, hidden = Dropout(0.1, seed=7, dtype=dtype), tf.ones((20, 30), dtype)
    with tf.GradientTape() as tape:
        tape.watch(hidden)
        dropped = layer(hidden, training=True)
    mask = draw(Dropout(0.1, seed=7), 20, 30)
    gradient = ops.convert_to_numpy(ops.cast(tape.gradient(dropped, hidden), "float32"))
    np.testing.assert_allclose(gradient, mask / (1 - layer.realised_rate), rtol=1e-6 if dtype == "float32" else 0.01)
    np.testing.assert_array_equal(gradient, ops.cast(dropped, "float32"))


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.5, False), (0.5, None)])
def test_nothing_is_drawn_where_nothing_is_dropped(rate, training):
    layer = Dropout(rate)
    graph = tf.function(lambda hidden: layer(hidden, training=training)).get_concrete_function(tf.zeros((2, 3))).graph
    assert graph.outputs[0].op.type == "Identity" and not [op for op in graph.get_operations() if "Random" in op.type]
    assert len(layer.variables) == (1 if rate else 0)  # as many as Keras's own


@pytest.mark.parametrize("rate", [-0.1, 1.0, math.nan])
def test_a_rate_that_is_none(rate):
    with pytest.raises(ValueError, match=rf"^dropout.rate expected a share in \[0, 1\). Received: {rate}$"):
        Dropout(rate)


def test_an_axis_of_unknown_size():
    with pytest.raises(ValueError, match=r"^dropout expected a known size of the last axis. Received: shape"):
        Dropout(0.5)(keras.Input((None,)))


def test_a_layer_comes_back_from_its_config_and_from_a_file(tmp_path):
    layer = Dropout(0.1, seed=8, name="drop", dtype="mixed_bfloat16")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert copy.get_config() == layer.get_config() and copy.factors == layer.factors
    inputs = keras.Input((13,))
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").get_layer("drop")
    np.testing.assert_array_equal(draw(loaded, 5, 13), draw(layer, 5, 13))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_models_have_no_other_dropout(precision):
    places = ("embedding", "attention", "feed_forward", "residual", "output")
    sizes = {"vocabulary_size": 20, "source_length": 7, "target_length": 6, "d_model": 8, "d_ff": 12, "num_layers": 1}
    model = build_model(ModelConfig(**sizes, num_heads=2, **{f"{place}_dropout": 0.1 for place in places}), precision)
    drops = [layer for layer in model._flatten_layers() if "dropout" in layer.name]
    assert len(drops) == 13 and {type(layer) for layer in drops} == {Dropout}
    assert {layer.compute_dtype for layer in drops} == {model.compute_dtype}
    seeds = [variable for variable in model.variables if "seed_generator_state" in variable.path]
    assert len(seeds) == 13  # so a checkpoint, which holds `model.variables`, holds them


# === Training ===


def make_batches(first_batch=0, copies=1):
    """Endless batches, number n a function of n alone: a few rows, so many times over."""

    def make_batch(number):
        ids = tf.random.stateless_uniform([ROWS, 2 * LENGTH], [9, number], 1, VOCABULARY, tf.int32)
        ids = tf.tile(ids, [copies, 1])
        targets = ids[:, LENGTH:]
        decoder_ids = tf.pad(targets[:, :-1], [[0, 0], [1, 0]])
        return {SOURCE_IDS: ids[:, :LENGTH], DECODER_IDS: decoder_ids}, targets, tf.ones_like(targets, tf.float32)

    return tf.data.Dataset.range(first_batch, tf.int64.max).map(make_batch)


class Notes:
    """An observer that keeps the losses it is told."""

    def __init__(self):
        self.nats = []

    def start(self, step, total):
        pass

    def step(self, step, sums, *_):
        self.nats.append(sums.nats)


def train(folder, chosen, dropout_class, steps, copies=1, seed=0):
    """Nats of each step of a tiny model, and all its variables in the end."""
    config, notes = TrainingConfig(steps=steps, learning_rate=0.05, batch_size=ROWS * copies), Notes()
    keras.utils.set_random_seed(seed)
    with chosen.scope():
        source_ids = keras.Input((LENGTH,), dtype="int32", name=SOURCE_IDS)
        decoder_ids = keras.Input((LENGTH,), dtype="int32", name=DECODER_IDS)
        table = keras.layers.Embedding(VOCABULARY, WIDTH, embeddings_initializer="normal")
        hidden = dropout_class(0.5)(table(source_ids) + table(decoder_ids))  # [B, T, D]
        model = keras.Model({SOURCE_IDS: source_ids, DECODER_IDS: decoder_ids}, keras.layers.Dense(VOCABULARY)(hidden))
        model.compile(build_optimizer(config), build_loss(config))
        trainer = Trainer(model, chosen, config)
        checkpoints = Checkpoints(folder, model, model.optimizer)
    trainer.train(lambda first: make_batches(first, copies), checkpoints, notes, lambda: Sums(1.0, 1.0, 1.0))
    return notes.nats, [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]


@pytest.mark.thorough
def test_a_resumed_run_draws_the_masks_of_one_that_went_on(tmp_path):
    chosen = tf.distribute.OneDeviceStrategy("/cpu:0")
    whole, expected = train(tmp_path / "whole", chosen, Dropout, steps=6)
    train(tmp_path / "halves", chosen, Dropout, steps=3)
    second, found = train(tmp_path / "halves", chosen, Dropout, steps=6, seed=1)
    assert second == whole[3:]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def draw_on_replicas(chosen, layer, compile):
    """The masks of two calls on each replica: [2, replicas, 100, 100]."""
    call = compile(lambda: layer(tf.ones((100, 100)), training=True) != 0)

    def run_replica():
        with on_replica(tf.distribute.get_replica_context().replica_id_in_sync_group):
            return call()

    step = tf.function(lambda: chosen.run(run_replica))
    return np.array([[mask.numpy() for mask in chosen.experimental_local_results(step())] for _ in range(2)])


def main(folder):
    """Draws masks on two logical CPUs, trains on one and on two, and prints a line of JSON."""
    make_two_devices()
    one, two = strategy("cpu"), strategy("mirrored")
    results = {"replicas": two.num_replicas_in_sync}
    ways = {"plain": lambda call: call, "xla": lambda call: tf.function(call, jit_compile=True)}
    for name, dropout_class in {"keras": keras.layers.Dropout, "tf_llm": Dropout}.items():
        for way, compile in ways.items():
            with two.scope():
                layer = dropout_class(0.5, seed=1)
            masks = draw_on_replicas(two, layer, compile)
            alone = ops.convert_to_numpy(dropout_class(0.5, seed=1)(tf.ones((100, 100)), training=True)) != 0
            results[f"{name}, {way}"] = {
                "as alone": bool(np.array_equal(masks[0, 0], alone)),
                "replicas agree": float(np.mean(masks[:, 0] == masks[:, 1])),
                "calls agree": float(np.mean(masks[0] == masks[1])),
            }
        # Each of two replicas is given the rows of the single device.
        nats = [train(folder / f"{name}{n}", chosen, dropout_class, 1, n)[0][0] for n, chosen in ((1, one), (2, two))]
        results[f"{name}, trained"] = nats[1] / nats[0]
    print(json.dumps(results))


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory):
    return read(start(__file__, tmp_path_factory.mktemp("two_devices")))


@pytest.mark.parametrize("way", ["plain", "xla"])
def test_each_replica_draws_masks_of_its_own(two_devices, way):
    """The trap: those of Keras's dropout are equal."""
    assert two_devices["replicas"] == 2
    theirs, ours = two_devices[f"keras, {way}"], two_devices[f"tf_llm, {way}"]
    assert theirs["replicas agree"] == 1.0
    for share in (theirs["calls agree"], ours["calls agree"], ours["replicas agree"]):
        assert share == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(20_000))
    assert ours["as alone"]


def test_the_step_of_the_trainer_says_which_replica_it_is_on(two_devices):
    """Two devices with the same rows have twice the loss of one, but for their masks."""
    assert two_devices["keras, trained"] == pytest.approx(2, rel=1e-6)
    assert abs(two_devices["tf_llm, trained"] - 2) > 1e-4


# === Keras on JAX ===

ON_JAX = """
import jax, keras, numpy as np
from tf_llm.model.dropout import Dropout

layer, hidden = Dropout(0.1, seed=1), np.ones((1000, 1000), "float32")
layer.build(hidden.shape)
step = jax.jit(lambda state, hidden: layer.stateless_call([], state, hidden, training=True))
state, masks = [variable.value for variable in layer.non_trainable_variables], []
for _ in range(2):
    dropped, state = step(state, hidden)
    masks.append(np.asarray(dropped) != 0)
eager = [np.asarray(layer(hidden, training=True)) != 0 for _ in range(2)]
assert np.array_equal(masks, eager), "compiled masks are others"
print(keras.backend.backend(), 1 - np.mean(masks), np.mean(masks[0] == masks[1]))
"""


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="needs jax: pip install 'tf_llm[jax]'")
def test_the_same_layer_on_jax():
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(Path(contracts.__file__).parent.parent)}
    run = subprocess.run([sys.executable, "-c", ON_JAX], capture_output=True, text=True, timeout=300, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    backend, dropped, agree = run.stdout.split()
    share = Dropout(0.1).realised_rate
    assert backend == "jax" and float(dropped) == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 2e6))
    assert float(agree) == pytest.approx(share**2 + (1 - share) ** 2, abs=0.002)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
