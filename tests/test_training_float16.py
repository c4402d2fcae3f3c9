"""Training in float16: it follows float32, and gradients that overflow cost a step and half of the loss scale."""

import contextlib
import json
import logging
import math
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_examples import SMALL, command, environment
from test_training_trainer import (
    VOCABULARY,
    assert_equal,
    build_run,
    build_trainer,
    interrupt_after,
    make_tiny_batches,
    messages,
    one_cpu,
    take_step,
    train,
    weights_of,
)

import tf_llm
from tf_llm.model.config import ModelConfig
from tf_llm.training.guard import DivergenceError
from tf_llm.training.losses import build_loss
from tf_llm.training.optimizers import OPTIMIZERS, TrainingConfig, build_optimizer
from tf_llm.training.step import Sums
from tf_llm.training.trainer import Trainer

TOO_HIGH = 2.0**40  # a loss scale at which no gradient of the tiny model fits into float16


@contextlib.contextmanager
def precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.fixture
def float16():
    with precision("mixed_float16"):
        yield


def _scale(trainer):
    return float(trainer.step.scaler.dynamic_scale)


def _learned(trainer):
    """All that learns; the loss scale and its count apart."""
    return [variable.numpy() for variable in [*trainer.model.trainable_variables, *trainer.step.optimizer.variables]]


# === What it learns ===


@pytest.mark.parametrize("parts", [1, 4])
def test_losses_follow_float32(parts):
    losses = {}
    config = TrainingConfig(learning_rate=0.05, clip_norm=0.5, batch_size=8, accumulation=parts)
    for policy in ("float32", "mixed_float16"):
        with precision(policy):
            trainer = build_trainer(config, dropout=0.0)  # the mask of Keras's own depends on the precision
        steps = [Sums(*take_step(trainer, batch).numpy().tolist()) for batch in make_tiny_batches().take(25)]
        assert all(sums.applied for sums in steps)
        losses[policy] = [sums.loss for sums in steps]
    assert losses["float32"] != losses["mixed_float16"]
    np.testing.assert_allclose(losses["mixed_float16"], losses["float32"], rtol=2e-3)


def test_a_transformer_follows_float32():
    """With all that may overflow in it: scores, norms, masks of minus infinity."""
    config = TrainingConfig(learning_rate=3e-3)
    sizes = ModelConfig(vocabulary_size=60, source_length=6, target_length=6, d_model=16, d_ff=32, num_heads=2)
    ids = np.random.default_rng(0).integers(1, 60, (8, 12)).astype("int32")
    ids[:4, 3:6] = ids[:4, 8:] = 0
    features = {"source_ids": ids[:, :6], "decoder_ids": np.pad(ids[:, 6:-1], [(0, 0), (1, 0)])}
    batch = (features, ids[:, 6:], (ids[:, 6:] > 0).astype("float32"))
    losses = {}
    for policy in ("float32", "mixed_float16"):
        keras.utils.set_random_seed(0)
        with one_cpu().scope():
            model = tf_llm.build_model(sizes, policy)
            model.compile(build_optimizer(config), build_loss(config))
            trainer = Trainer(model, one_cpu(), config)
        steps = [Sums(*take_step(trainer, batch).numpy().tolist()) for _ in range(15)]
        assert all(sums.applied for sums in steps)
        losses[policy] = [sums.loss for sums in steps]
    np.testing.assert_allclose(losses["mixed_float16"], losses["float32"], rtol=5e-3)
    assert losses["float32"][-1] < 0.8 * losses["float32"][0]


def test_small_gradients_are_no_zeros(float16):
    """A loss of which a millionth counts: float16 alone would make nothing of its gradients."""

    class Small(keras.losses.SparseCategoricalCrossentropy):
        def call(self, targets, logits):
            return 1e-8 * super().call(targets, logits)

    norms = []
    for scale in (1.0, 2.0**15):
        trainer = build_trainer(TrainingConfig(), output_l2=0.0)
        trainer.model.loss = Small(from_logits=True)
        trainer.step.scaler.dynamic_scale.assign(scale)
        norms.append(Sums(*take_step(trainer).numpy().tolist()).gradient_norm)
    assert norms[0] < 0.01 * norms[1]


# === Overflows ===


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_an_overflow_leaves_everything_as_it_was_and_halves_the_scale(float16, optimizer, parts):
    config = TrainingConfig(
        optimizer=optimizer, learning_rate=0.05, ema_decay=0.9, batch_size=8, accumulation=parts, clip_norm=1.0
    )
    trainer = build_trainer(config)
    take_step(trainer)
    assert _scale(trainer) == 2.0**15 and int(trainer.step.scaler.step_counter) == 1
    before = _learned(trainer)
    trainer.step.scaler.dynamic_scale.assign(TOO_HIGH)
    sums = Sums(*take_step(trainer).numpy().tolist())
    assert sums.applied == 0.0 and math.isfinite(sums.loss) and not math.isfinite(sums.gradient_norm)
    assert trainer.step.overflowed(sums)
    assert_equal(before, _learned(trainer))  # bit for bit
    assert _scale(trainer) == TOO_HIGH / 2 and int(trainer.step.scaler.step_counter) == 0
    trainer.step.scaler.dynamic_scale.assign(2.0**10)
    assert take_step(trainer).numpy()[5] == 1.0  # nothing of the overflow is left in what parts add up


def test_the_scale_grows_behind_steps_without_overflow(float16):
    trainer = build_trainer(TrainingConfig())
    trainer.step.scaler.dynamic_growth_steps = 3
    scales = []
    for _ in range(7):
        take_step(trainer)
        scales.append(_scale(trainer) / 2.0**15)
    assert scales == [1, 1, 2, 2, 2, 4, 4]


def test_a_loss_that_is_not_finite_is_not_the_scales_fault(float16):
    trainer = build_trainer(TrainingConfig())
    features, targets, weights = next(iter(make_tiny_batches()))
    sums = Sums(*take_step(trainer, (features, targets, weights * math.inf)).numpy().tolist())
    assert (sums.applied, trainer.step.overflowed(sums), _scale(trainer)) == (0.0, False, 2.0**15)


def test_a_run_comes_down_from_a_scale_that_is_too_high(tmp_path, caplog, float16):
    """Many more overflows in a row than a run may have steps that are unsound."""
    trainer, checkpoints, notes = build_run(tmp_path, steps=40, unsound_steps=2)
    trainer.step.scaler.dynamic_scale.assign(TOO_HIGH)
    with caplog.at_level(logging.INFO, logger="tf_llm"):
        train(trainer, checkpoints, notes)
    applied = [sums.applied for sums in notes.sums]
    overflows = applied.count(0.0)
    assert not any(applied[:10]) and overflows < 30 and all(applied[30:])
    assert _scale(trainer) == TOO_HIGH / 2**overflows
    assert (
        messages(caplog)[0] == "step 0: gradients overflowed in float16. Its update is left out, the loss scale halved"
    )
    assert messages(caplog)[-1] == f"{overflows} of 40 steps were passed over"


def test_a_run_whose_gradients_are_never_finite_ends(tmp_path, float16):
    """Three halvings from 4 to ½, then two steps in which the scale is no excuse any more."""
    config = TrainingConfig(steps=40, unsound_steps=2)

    class Steep(keras.losses.SparseCategoricalCrossentropy):
        def call(self, targets, logits):
            return super().call(targets, logits) + tf.sqrt(0.0 * logits[..., 0])  # adds 0, with a slope of no number

    trainer, checkpoints, notes = build_run(tmp_path, steps=config.steps, unsound_steps=2)
    trainer.model.loss = Steep(from_logits=True)
    trainer.step.scaler.dynamic_scale.assign(4.0)
    with pytest.raises(DivergenceError, match="2 times in a row, up to step 3"):
        train(trainer, checkpoints, notes)


def test_weights_that_are_no_numbers_end_a_run(tmp_path, float16):
    trainer, checkpoints, notes = build_run(tmp_path, steps=9, unsound_steps=2)
    trainer.model.get_layer("output").bias.assign([math.nan] * VOCABULARY)
    with pytest.raises(DivergenceError, match="2 times in a row, up to step 1"):
        train(trainer, checkpoints, notes)


# === Whole runs ===


def test_resumed_equals_uninterrupted(tmp_path, float16):
    def build(folder, seed=0):
        trainer, checkpoints, notes = build_run(folder, seed=seed, steps=12)
        trainer.step.scaler.dynamic_growth_steps = 5
        return trainer, checkpoints, notes

    runs = [build(tmp_path / "whole"), build(tmp_path / "half")]
    for trainer, *_ in runs:
        trainer.step.scaler.dynamic_scale.assign(TOO_HIGH)
        take_step(trainer)
        trainer.step.scaler.dynamic_scale.assign(2.0**14)
    train(*runs[0])
    interrupt_after(8, runs[1][2])
    with pytest.raises(KeyboardInterrupt):
        train(*runs[1])
    resumed = build(tmp_path / "half", seed=99)
    train(*resumed)
    assert_equal(weights_of(runs[0][0]), weights_of(resumed[0]))  # the scale and its count among them
    assert _scale(resumed[0]) == 2.0**16 and int(resumed[0].step.scaler.step_counter) == 2


@pytest.mark.thorough
def test_from_the_command_line_to_text(tmp_path):
    """With a running mean of the weights, on pages from JSON Lines."""
    text = "The old kettle finds the river and the quiet teacher paints the slow machine near the town . "
    pages = [{"url": f"http://example.org/{n}", "text": f"Page {n} . " + text * (3 + n % 4)} for n in range(60)]
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
    workdir = tmp_path / "run"
    arguments = ["--source=json_lines", f"--json_lines={tmp_path}/pages.jsonl", f"--workdir={workdir}", *SMALL]
    arguments += ["--training.precision=mixed_float16", "--training.ema_decay=0.9", "--training.steps=40"]
    arguments += ["--training.learning_rate=0.003"]
    result = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, env=environment())
    assert result.returncode == 0, result.stderr[-3000:]
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["steps"] == 40 and summary["validation_nats_per_token"] < 4.5
    model, _ = tf_llm.load_model(workdir)
    assert all(np.isfinite(variable.numpy()).all() for variable in model.variables)
    assert isinstance(tf_llm.Generator.load(workdir)("The old kettle"), str)
