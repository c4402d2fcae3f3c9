"""Traps of Keras on several devices: each is shown in stock Keras, so that the day it is mended is noticed, and here.

BUILD_NOTES.md has them as a page. Other tests show these pairs:

    clipping, uneven padding, accumulation, running means    test_training_distribution.py: two devices train as one
    dropout masks that are equal on every replica            test_model_dropout.py

The devices are logical CPUs, and the workers are processes: this file is run as a script for them.
"""

import json
import socket
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import make_two_devices, read, start
from test_training_trainer import build_tiny_model, make_tiny_batches, take_step

from tf_llm.training.distribution import strategy
from tf_llm.training.optimizers import TrainingConfig
from tf_llm.training.trainer import Trainer

pytestmark = pytest.mark.thorough  # it watches Keras; what is done here instead has tests of its own

FEATURES = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
TARGETS = FEATURES @ np.array([[3.0], [-2.0], [0.5]], "float32")
FAILING = {  # arguments of an optimiser, arguments of `compile`
    "jit_compile": ({}, {"jit_compile": True}),
    "gradient_accumulation_steps": ({"gradient_accumulation_steps": 2}, {}),
    "ema_overwrite_frequency": ({"use_ema": True, "ema_overwrite_frequency": 2}, {}),
}


def _fit(chosen, optimizer, policy="float32", features=FEATURES, **compiled):
    """The model behind stock `fit`: a layer of three weights, which begin as 1, and four rows a batch."""
    with chosen.scope():
        inputs = keras.Input((3,))
        outputs = keras.layers.Dense(1, kernel_initializer="ones", dtype=policy)(inputs)
        model = keras.Model(inputs, outputs)
        wrapped = keras.optimizers.LossScaleOptimizer(optimizer()) if policy == "mixed_float16" else optimizer()
        model.compile(wrapped, "mse", **compiled)
    model.fit(features, TARGETS[: len(features)], batch_size=4, shuffle=False, verbose=0)
    return model


def _kernel(model):
    return model.trainable_variables[0].numpy().ravel()


def _clip(chosen):
    """One step of rate 1 on equal rows: the norm of what it moved, where gradients are to be cut to .5."""
    model = _fit(chosen, lambda: keras.optimizers.SGD(1.0, global_clipnorm=0.5), features=np.full((4, 3), 9.0))
    return float(np.sqrt(np.sum((_kernel(model) - 1.0) ** 2) + model.trainable_variables[1].numpy()[0] ** 2))


def _score_padding(chosen, reduction):
    """Weights behind one step of rate 1; two rows have one target, two rows have four."""
    with chosen.scope():
        table = keras.layers.Embedding(5, 5, embeddings_initializer="zeros")
        model = keras.Sequential([keras.Input((4,), dtype="int32"), table])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
        model.compile(keras.optimizers.SGD(1.0), loss)
    ids = np.tile([[1, 2, 3, 4]], (4, 1))
    weights = np.array([[1, 0, 0, 0]] * 2 + [[1, 1, 1, 1]] * 2, "float32")
    model.fit(ids, ids, sample_weight=weights, batch_size=4, shuffle=False, verbose=0)
    return model.trainable_variables[0].numpy()


def _overflow(chosen, row):
    """(largest weight, loss scale) behind a float16 step in which one row of four has gradients that overflow."""
    features = FEATURES[:4].copy()
    features[row] = 6e4
    model = _fit(chosen, lambda: keras.optimizers.SGD(1e-3), "mixed_float16", features)
    return str(np.abs(_kernel(model)).max()), float(model.optimizer.dynamic_scale.numpy())


def _overflow_here(chosen):
    """The same of the second device, with this package's step: (applied, weights stayed, loss scale)."""
    keras.config.set_dtype_policy("mixed_float16")
    config = TrainingConfig(optimizer="gradient_descent", learning_rate=0.1)
    with chosen.scope():
        model = build_tiny_model(config, dropout=0.0)
    keras.config.set_dtype_policy("float32")
    trainer = Trainer(model, chosen, config)
    features, targets, weights = next(iter(make_tiny_batches()))
    last = tf.range(len(weights)) == len(weights) - 1
    weights = tf.where(last[:, None], 1.0, weights * 1e-6)
    trainer.step.scaler.dynamic_scale.assign(2.0**20)
    before = [variable.numpy() for variable in model.trainable_variables]
    (batch,) = chosen.experimental_distribute_dataset(tf.data.Dataset.from_tensors((features, targets, weights)))
    applied = float(take_step(trainer, batch)[5])
    copies = [[copy.numpy() for copy in variable.value.values] for variable in model.trainable_variables]
    stayed = all((copy == old).all() for old, devices in zip(before, copies, strict=True) for copy in devices)
    return applied, stayed, float(trainer.step.scaler.dynamic_scale.numpy())


def _fails(chosen, optimizer_arguments, compiled):
    try:
        _fit(chosen, lambda: keras.optimizers.Adam(0.1, **optimizer_arguments), **compiled)
    except (RuntimeError, tf.errors.InvalidArgumentError) as error:
        return type(error).__name__
    return None


def main():
    """Meets the traps on one logical CPU and on two, and prints a line of JSON."""
    make_two_devices()
    devices = {"cpu": strategy("cpu"), "mirrored": strategy("mirrored")}
    reductions = ("mean_with_sample_weight", "sum")
    scored = {name: [_score_padding(chosen, name) for chosen in devices.values()] for name in reductions}
    results = {
        "clip": {name: _clip(chosen) for name, chosen in devices.items()},
        "reductions": {name: float(np.abs(np.subtract(*pair)).max()) for name, pair in scored.items()},
        "overflow": {name: [_overflow(chosen, row) for row in (0, 3)] for name, chosen in devices.items()},
        "overflow here": _overflow_here(devices["mirrored"]),
        "fails": {
            name: {option: _fails(chosen, *arguments) for option, arguments in FAILING.items()}
            for name, chosen in devices.items()
        },
    }
    print(json.dumps(results))


def work():
    """Stock `fit` as one of the workers of TF_CONFIG; prints what became of it."""
    chosen = strategy("workers")
    try:
        _fit(chosen, lambda: keras.optimizers.SGD(0.1))
    except ValueError as error:
        print(json.dumps({"error": str(error)}))
    else:
        print(json.dumps({"error": None}))


@pytest.fixture(scope="module")
def two_devices():
    return read(start(__file__, "devices"))


def test_stock_clipping_is_done_on_each_device(two_devices):
    """Each of two cuts its own gradients to .5, and these are added up behind that."""
    assert two_devices["clip"]["cpu"] == pytest.approx(0.5, rel=1e-5)
    assert two_devices["clip"]["mirrored"] == pytest.approx(1.0, rel=1e-2)


def test_stock_mean_over_weights_is_that_of_each_device(two_devices):
    """A sum, divided once by what it is a sum over, is the same on any number of devices."""
    assert two_devices["reductions"]["mean_with_sample_weight"] > 0.1
    assert two_devices["reductions"]["sum"] < 1e-6


def test_stock_loss_scale_looks_at_the_first_device_alone(two_devices):
    """The overflow of the second one's gradients is applied, to the weights of both."""
    assert two_devices["overflow"]["cpu"] == [["1.0", 2.0**14]] * 2
    assert two_devices["overflow"]["mirrored"] == [["1.0", 2.0**14], ["inf", 2.0**15]]
    assert two_devices["overflow here"] == [0.0, True, 2.0**19]


@pytest.mark.parametrize("option", FAILING)
def test_stock_options_that_several_devices_refuse(two_devices, option):
    assert two_devices["fails"]["cpu"][option] is None
    assert two_devices["fails"]["mirrored"][option] in ("RuntimeError", "InvalidArgumentError")


def test_stock_fit_fails_on_several_workers():
    """keras#20585: rows that are spread over workers are taken for a tensor."""
    with socket.socket() as first, socket.socket() as second:
        for listener in (first, second):
            listener.bind(("127.0.0.1", 0))
        addresses = ["{}:{}".format(*listener.getsockname()) for listener in (first, second)]
    cluster = {"worker": addresses}
    configs = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}) for index in range(2)]
    for process in [start(__file__, "worker", TF_CONFIG=config) for config in configs]:
        assert "unsupported type" in read(process)["error"]


if __name__ == "__main__":
    main() if sys.argv[1] == "devices" else work()
