"""What the tests of training with Keras on JAX share: models and batches, on TensorFlow as on JAX.

    KERAS_BACKEND=jax XLA_FLAGS=--xla_force_host_platform_device_count=8 python tests/jax_training.py FOLDER

trains from the weights that the tests left in FOLDER, in all ways that they ask about, and prints what came of it as
JSON. A backend is chosen when Keras is imported, so this has to be a process of its own.
"""

import dataclasses
import json
import sys
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

import tf_llm
from tf_llm.contracts import DECODER_IDS, SOURCE_IDS
from tf_llm.training.optimizers import DECAYING, OPTIMIZERS, TrainingConfig

BATCH, SOURCE, TARGET, VOCABULARY, STEPS = 16, 12, 16, 104, 6
SHAPE = {
    "source_length": SOURCE, "target_length": TARGET, "vocabulary_size": VOCABULARY, "num_layers": 1, "num_heads": 4,
    "d_model": 16, "d_ff": 32, "output_l2": 0.01, "embedding_dropout": 0.0, "output_bias": True,
}  # fmt: skip
MODELS = {  # without dropout
    "article": dataclasses.replace(tf_llm.recipes.article().model, **SHAPE),  # with batch statistics
    "best": dataclasses.replace(tf_llm.recipes.best().model, **SHAPE),
}
TRAINING = dataclasses.replace(
    tf_llm.recipes.best().training, steps=STEPS, batch_size=BATCH, clip_norm=0.5, label_smoothing=0.1, z_loss=1e-3,
    learning_rate=3e-3, warmup_steps=3, schedule="constant", precision="float32",
)  # fmt: skip
# One layer of dropout: XLA for CPUs takes long over each.
DROPPING = dataclasses.replace(MODELS["best"], embedding_dropout=0.2)
PLAIN = dataclasses.replace(TRAINING, label_smoothing=0.0, z_loss=0.0, clip_norm=0.0)
# name -> (model, settings): what both backends train
CASES = {
    "article": ("article", PLAIN),
    "best": ("best", TRAINING),
    "best_in_parts": ("best", dataclasses.replace(TRAINING, accumulation=2)),
}
# What is divided among eight devices.
LAYOUTS = ("data best", "data article", "model best", "model best_in_parts", "keras_data best", "keras_model best")


def make_batches(first=0):
    """Endless batches with more and more targets from the first row to the last, batch n a function of n alone."""

    def make_batch(number):
        ids = tf.random.stateless_uniform([BATCH, SOURCE + TARGET], [7, number], 3, VOCABULARY, tf.int32)
        lengths = tf.cast(tf.linspace(2.0, TARGET - 2.0, BATCH), tf.int32)
        weights = tf.sequence_mask(lengths, TARGET, tf.float32)  # [B, T]
        targets = ids[:, SOURCE:] * tf.cast(weights, tf.int32)  # [B, T]
        decoder_ids = tf.pad(targets[:, :-1], [[0, 0], [1, 0]])  # [B, T]
        return {SOURCE_IDS: ids[:, :SOURCE], DECODER_IDS: decoder_ids}, targets, weights

    return tf.data.Dataset.range(first, tf.int64.max).map(make_batch)


def build(model, config, weights=None):
    """A compiled model; with the weights of a file, where there is one."""
    keras.utils.set_random_seed(1)
    model = tf_llm.build_model(model)
    model.compile(tf_llm.build_optimizer(config), tf_llm.build_loss(config))
    if weights:
        with np.load(weights) as arrays:
            for variable, array in zip(model.trainable_variables, arrays.values(), strict=True):
                variable.assign(array)
    return model


def take_steps(step, strategy, count, first=0):
    """[sums of a step], so many."""
    batches = strategy.experimental_distribute_dataset(make_batches(first))
    limit = tf.constant(float("inf"))
    return [step.train(batch, limit).numpy().tolist() for batch, _ in zip(batches, range(count), strict=False)]


def compute_logits(model):
    features, _, _ = next(iter(make_batches(100).as_numpy_iterator()))
    return np.asarray(keras.ops.convert_to_numpy(model(features, training=False)))


# === On JAX alone ===


def compare_with_tensorflow(folder):
    from tf_llm.training.jax_layouts import Layout
    from tf_llm.training.jax_step import JaxStep, jax

    results, one = {}, Layout(jax.devices()[:1])
    for name, (model, config) in CASES.items():
        step = JaxStep(build(MODELS[model], config, folder / f"{model}.npz"), config, one)
        results[name] = take_steps(step, one, STEPS)
        results[f"{name} passed over"] = pass_over(step)
    model, config = CASES["best"]
    step = JaxStep(build(MODELS[model], config, folder / f"{model}.npz"), config, one)
    batches, rates = one.experimental_distribute_dataset(make_batches()), [config.learning_rate] * STEPS
    results["several"] = step.train_several(batches, rates, float("inf")).numpy().tolist()
    return results


def pass_over(step):
    """How many arrays of each part of the state, seeds aside, another step changes whose loss is above its limit."""
    before = {name: [np.array(value) for value in part] for name, part in step.state.items()}
    (batch,) = make_batches().take(1).as_numpy_iterator()
    applied = step.train(batch, tf.constant(0.5)).numpy().tolist()[-1]
    changed = {
        name: sum(
            old.dtype.kind == "f" and not np.array_equal(old, new) for old, new in zip(before[name], part, strict=True)
        )
        for name, part in step.state.items()
    }
    return [applied, changed]


def compare_layouts(folder):
    from tf_llm.training.jax_layouts import Layout
    from tf_llm.training.jax_step import JaxStep

    devices = keras.distribution.list_devices()
    rules = keras.distribution.LayoutMap(keras.distribution.DeviceMesh((4, 2), ["batch", "model"], devices))
    rules[".*query/kernel"], rules[".*narrow/kernel"] = (None, "model"), ("model", None)
    own = {"data": Layout(), "model": Layout(model=4)}
    of_keras = {
        "keras_data": keras.distribution.DataParallel(devices=devices),
        "keras_model": keras.distribution.ModelParallel(layout_map=rules, batch_dim_name="batch"),
    }
    results = {}
    for name in LAYOUTS:
        layout, case = name.split()
        keras.distribution.set_distribution(of_keras.get(layout))
        model, config = CASES[case]
        step = JaxStep(build(MODELS[model], config, folder / f"{model}.npz"), config, own.get(layout))
        sums = take_steps(step, step.layout, STEPS)
        divided = sum(not value.sharding.is_fully_replicated for value in step.state["optimizer"])
        results[name] = {"sums": sums, "divided": divided}
    keras.distribution.set_distribution(None)
    return results


def update_weights():
    """{name of an optimiser: what some weights are after three updates by gradients of many sizes}."""
    results = {}
    for name in OPTIMIZERS:
        draw = np.random.default_rng(3)
        paths = {"table": (6, 4), "kernel": (4, 8), "scale_of_norm": (8,)}
        weights = [
            keras.Variable(draw.normal(size=shape).astype("float32"), name=path) for path, shape in paths.items()
        ]
        decay = 0.1 if name in DECAYING else 0.0
        optimizer = tf_llm.build_optimizer(TrainingConfig(optimizer=name, learning_rate=0.01, weight_decay=decay))
        optimizer.build(weights)
        state, values = [v.value for v in optimizer.variables], [v.value for v in weights]
        for size in (1.0, 1e-3, 30.0):
            gradients = [keras.ops.convert_to_tensor(size * draw.normal(size=v.shape), "float32") for v in weights]
            if keras.backend.backend() == "jax":
                values, state = optimizer.stateless_apply(state, gradients, values)
            else:
                optimizer.apply(gradients, weights)
        results[name] = [np.asarray(value).tolist() for value in values]
    return results


def save_and_go_on(folder):
    """Losses of a run at one go, and of one in two halves, in a model with dropout; and what its checkpoint says."""
    results = {}
    for name, halves in (("whole", (STEPS,)), ("halves", (STEPS // 2, STEPS))):
        results[name] = []
        for steps in halves:
            trained, losses = train_with(folder / name, DROPPING, dataclasses.replace(TRAINING, steps=steps))
            results[name] += losses
    np.save(folder / "logits.npy", compute_logits(trained))
    return results


def go_on_from_tensorflow(folder):
    """Losses of the second half of a run whose first half TensorFlow trained."""
    return train_with(folder / "from_tensorflow", MODELS["best"], TRAINING)[1]


def train_with(folder, model, config):
    """The model of a run in a folder, and the losses of the steps that were done here."""
    from tf_llm.training.jax_layouts import Layout
    from tf_llm.training.jax_trainer import JaxCheckpoints, JaxTrainer

    model = build(model, config)
    trainer = JaxTrainer(model, config, Layout(model=2))
    losses, train = [], trainer.step.train

    def note(batch, limit):
        sums = train(batch, limit)
        losses.append(sums.numpy().tolist())
        return sums

    trainer.step.train = note
    checkpoints = JaxCheckpoints(folder, trainer.step, about={"steps": config.steps})
    trainer.train(make_batches, checkpoints, mock.MagicMock(), lambda: trainer.evaluate(make_batches().take(1)))
    return model, losses


def main(folder):
    parts = (compare_with_tensorflow, compare_layouts, save_and_go_on, go_on_from_tensorflow)
    print(json.dumps({part.__name__: part(folder) for part in parts} | {"update_weights": update_weights()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
