"""Keras on JAX trains as TensorFlow does, on one device and divided among eight, and both read the same checkpoints."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax_training
import numpy as np
import pytest

import tf_llm
from tf_llm.training.checkpoints import Checkpoints
from tf_llm.training.optimizers import OPTIMIZERS
from tf_llm.training.step import TrainingStep
from tf_llm.training.trainer import Trainer

REPOSITORY = Path(__file__).resolve().parent.parent
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax: pip install 'tf_llm[jax]'")


def launch(*arguments, **environment):
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""} | environment
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=600, env=environment)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder, what jax_training.py found there)."""
    folder = tmp_path_factory.mktemp("jax")
    for name, config in jax_training.MODELS.items():
        model = jax_training.build(config, jax_training.PLAIN)
        np.savez(folder / f"{name}.npz", *[variable.numpy() for variable in model.trainable_variables])
    train_on_tensorflow(folder / "from_tensorflow", jax_training.STEPS // 2)
    process = launch(
        str(REPOSITORY / "tests" / "jax_training.py"),
        str(folder),
        KERAS_BACKEND="jax",
        JAX_PLATFORMS="cpu",
        XLA_FLAGS="--xla_force_host_platform_device_count=8",
        JAX_COMPILATION_CACHE_DIR=str(folder / "compiled"),  # what is trained twice is compiled once
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return folder, json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def updated():
    return jax_training.update_weights()


def train_on_tensorflow(folder, steps):
    """Trains with `Trainer` in a folder to so many steps; the sums of those that were done here."""
    config = jax_training.TRAINING
    strategy = tf_llm.strategy("cpu")
    with strategy.scope():
        model = jax_training.build(jax_training.MODELS["best"], config)
    trainer = Trainer(model, strategy, dataclasses.replace(config, steps=steps))
    sums, train = [], trainer.step.train
    trainer.step.train = lambda batch, limit: sums.append(train(batch, limit)) or sums[-1]
    checkpoints = Checkpoints(folder, model, model.optimizer)
    trainer.train(jax_training.make_batches, checkpoints, mock.MagicMock(), mock.MagicMock())
    return [each.numpy().tolist() for each in sums]


def assert_same(received, expected):
    """Sums of steps, but for those that count whole tokens, to 1e-5; what is counted, to one token."""
    received, expected = np.array(received), np.array(expected)
    np.testing.assert_allclose(received[:, [0, 4]], expected[:, [0, 4]], rtol=1e-5)  # nats, and the gradient's norm
    np.testing.assert_array_equal(received[:, [2, 3, 5]], expected[:, [2, 3, 5]])
    assert np.abs(received[:, 1] - expected[:, 1]).max() <= 1


@needs_jax
@pytest.mark.parametrize("case", jax_training.CASES)
def test_steps_are_those_of_tensorflow(trained, case):
    folder, results = trained
    name, config = jax_training.CASES[case]
    strategy = tf_llm.strategy("cpu")
    with strategy.scope():
        model = jax_training.build(jax_training.MODELS[name], config, folder / f"{name}.npz")
    step = TrainingStep(model, strategy, config)
    expected = jax_training.take_steps(step, strategy, jax_training.STEPS)
    assert_same(results["compare_with_tensorflow"][case], expected)
    assert expected[0][0] != expected[-1][0]


@needs_jax
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_update_as_on_tensorflow(trained, updated, name):
    for received, expected in zip(trained[1]["update_weights"][name], updated[name], strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)


@needs_jax
@pytest.mark.parametrize("layout", jax_training.LAYOUTS)
def test_eight_devices_do_what_one_does(trained, layout):
    results = trained[1]
    assert_same(results["compare_layouts"][layout]["sums"], results["compare_with_tensorflow"][layout.split()[1]])


@needs_jax
def test_model_parallel_layouts_divide_the_state_and_others_do_not(trained):
    divided = {name.split()[0]: result["divided"] for name, result in trained[1]["compare_layouts"].items()}
    assert divided["data"] == divided["keras_data"] == 0
    assert divided["model"] > divided["keras_model"] > 0


@needs_jax
@pytest.mark.parametrize("case", jax_training.CASES)
def test_an_unsound_step_leaves_everything_as_it_was_but_the_seeds(trained, case):
    changed = {"trainable": 0, "non_trainable": 0, "optimizer": 0}
    assert trained[1]["compare_with_tensorflow"][f"{case} passed over"] == [0.0, changed]


@needs_jax
def test_several_steps_in_a_call_equal_as_many_calls(trained):
    results = trained[1]["compare_with_tensorflow"]
    assert results["several"] == results["best"]


@needs_jax
def test_a_run_in_two_halves_is_the_same_to_the_last_bit(trained):
    results = trained[1]["save_and_go_on"]
    assert results["halves"] == results["whole"]


@needs_jax
def test_a_checkpoint_opens_on_tensorflow_and_says_the_same(trained):
    folder = trained[0]
    model = jax_training.build(jax_training.DROPPING, jax_training.TRAINING)
    checkpoints = Checkpoints(folder / "whole", model)
    assert checkpoints.restore() and int(checkpoints.step) == jax_training.STEPS
    logits = np.load(folder / "logits.npy")
    np.testing.assert_allclose(jax_training.compute_logits(model), logits, atol=1e-5 * np.abs(logits).max())


@needs_jax
def test_jax_goes_on_where_tensorflow_stopped(trained):
    folder, results = trained
    expected = train_on_tensorflow(folder / "never_stopped", jax_training.STEPS)
    assert_same(results["go_on_from_tensorflow"], expected[jax_training.STEPS // 2 :])


@needs_jax
def test_tensorflow_goes_on_where_jax_stopped(trained, tmp_path):
    """From the state of JAX's own last step, of a run that TensorFlow had begun."""
    folder, _ = trained
    steps = jax_training.STEPS
    expected = train_on_tensorflow(tmp_path, steps + 2)
    assert_same(train_on_tensorflow(folder / "from_tensorflow", steps + 2), expected[steps:])


def test_without_jax_the_extra_is_named():
    process = launch("-c", "import sys; sys.modules['jax'] = None; import tf_llm.training.jax_trainer")
    assert "UserError: training on JAX expected the package jax." in process.stderr
    assert "pip install 'tf_llm[jax]'" in process.stderr


@needs_jax
def test_another_backend_is_refused():
    process = launch("-c", "import tf_llm.training.jax_trainer", KERAS_BACKEND="tensorflow")
    assert "Received: Keras on tensorflow. Set KERAS_BACKEND=jax" in process.stderr


@needs_jax
@pytest.mark.parametrize(
    "code, message",
    [
        ("Layout(model=3)", "model expected a divisor of 8, the number of devices. Received: 3"),
        ("JaxStep(model, dataclasses.replace(config, batch_size=12))", "a multiple of 8, .* Received: 12"),
    ],
    ids=["model", "batch"],
)
def test_what_cannot_be_divided_is_refused(code, message):
    setup = (
        "import dataclasses, jax_training; from tf_llm.training.jax_layouts import Layout, jax; "
        "from tf_llm.training import jax_step; config = jax_training.PLAIN; "
        "JaxStep = lambda *given: jax_step.JaxStep(*given, Layout()); "
        "model = jax_training.build(jax_training.MODELS['best'], config); "
    )
    process = launch(
        "-c",
        setup + code,
        KERAS_BACKEND="jax",
        JAX_PLATFORMS="cpu",
        XLA_FLAGS="--xla_force_host_platform_device_count=8",
        PYTHONPATH=os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]),
    )
    assert re.search(f"UserError: .*{message}", process.stderr), process.stderr[-2000:]


def test_tpu_compiles_names_the_environments_it_needs(tmp_path):
    script = REPOSITORY / "examples" / "benchmarks" / "tpu_compiles.py"
    process = launch(str(script), "--quick", f"--tpu_python={tmp_path}/python")
    assert process.returncode == 2
    assert re.search(r"could not run: .*/python does not run .*TF_LLM_TPU_PYTHON", process.stdout)
    assert "pip install tensorflow-tpu==2.20.0 libtpu" in process.stdout
