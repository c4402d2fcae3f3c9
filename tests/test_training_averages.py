"""Running means of the weights: by hand, through steps that are passed over, and in everything that reads a run."""

import math

import numpy as np
import pytest
import tensorflow as tf
from test_training_trainer import (
    assert_equal,
    build_run,
    build_tiny_model,
    build_trainer,
    interrupt_after,
    make_tiny_batches,
    one_cpu,
    take_step,
    train,
    weights_of,
)

from tf_llm.contracts import UserError
from tf_llm.training.checkpoints import Checkpoints
from tf_llm.training.optimizers import OPTIMIZERS, TrainingConfig, build_optimizer
from tf_llm.training.trainer import Trainer


def _learned(trainer):
    return [variable.numpy() for variable in trainer.model.trainable_variables]


def _averages(trainer):
    return [average.numpy() for average in trainer.step.optimizer.averages]


def _mean_by_hand(history, decay):
    """history: [weights after update 1, 2, …]. The decay climbs from 0, as the (1 + t) / (10 + t) of TensorFlow."""
    mean = history[0].astype("float64")
    for done, weights in enumerate(history[1:], start=1):
        keep = min(decay, done / (done + 9))
        mean = keep * mean + (1 - keep) * weights
    return mean


@pytest.mark.parametrize("decay", [0.3, 0.999])
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_running_mean_by_hand(optimizer, decay):
    trainer = build_trainer(TrainingConfig(optimizer=optimizer, learning_rate=0.05, ema_decay=decay))
    history = []
    for batch in make_tiny_batches().take(12):
        take_step(trainer, batch)
        history.append(_learned(trainer))
    for average, *weights in zip(_averages(trainer), *history, strict=True):
        np.testing.assert_allclose(average, _mean_by_hand(weights, decay), rtol=1e-5, atol=1e-6)
        assert np.abs(average - weights[-1]).max() > 1e-3


def test_weights_go_their_way_as_without_a_mean():
    ends = []
    for ema_decay in (0.0, 0.9):
        trainer = build_trainer(TrainingConfig(learning_rate=0.05, ema_decay=ema_decay))
        for batch in make_tiny_batches().take(4):
            take_step(trainer, batch)
            trainer.evaluate(make_tiny_batches().take(1))
        ends.append(_learned(trainer))
    assert_equal(*ends)


def test_stock_fit_keeps_the_same_mean_and_ends_with_it():
    config = TrainingConfig(learning_rate=0.05, ema_decay=0.9)
    batches = make_tiny_batches().take(5)
    with one_cpu().scope():
        model = build_tiny_model(config, dropout=0.0, output_l2=0.0)
    model.fit(batches, verbose=0)
    by_hand = build_tiny_model(TrainingConfig(learning_rate=0.05), dropout=0.0, output_l2=0.0)
    history = []
    for batch in batches:
        by_hand.train_on_batch(*batch)
        history.append([variable.numpy() for variable in by_hand.trainable_variables])
    for variable, *weights in zip(model.trainable_variables, *history, strict=True):
        np.testing.assert_allclose(variable.numpy(), _mean_by_hand(weights, 0.9), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("taken", [0, 2])
def test_a_step_that_is_passed_over_leaves_the_mean_as_it_was(optimizer, taken):
    trainer = build_trainer(TrainingConfig(optimizer=optimizer, ema_decay=0.9, learning_rate=0.05))
    for batch in make_tiny_batches().take(taken):
        take_step(trainer, batch)
    before = _averages(trainer)
    features, targets, weights = next(iter(make_tiny_batches()))
    assert take_step(trainer, (features, targets, weights * math.inf)).numpy()[5] == 0.0
    assert_equal(before, _averages(trainer))


def test_validation_scores_the_mean_and_gives_the_weights_back():
    trainer = build_trainer(TrainingConfig(learning_rate=0.2, ema_decay=0.99))
    for batch in make_tiny_batches().take(9):
        take_step(trainer, batch)
    weights, averages = _learned(trainer), _averages(trainer)
    plain = build_trainer(TrainingConfig(), seed=99)
    scored = trainer.evaluate(make_tiny_batches().take(2))
    expected = []
    for values in (averages, weights):
        for variable, value in zip(plain.model.trainable_variables, values, strict=True):
            variable.assign(value)
        expected.append(plain.evaluate(make_tiny_batches().take(2)))
    assert scored == expected[0] and abs(scored.nats - expected[1].nats) > 0.01
    assert_equal([*weights, *averages], [*_learned(trainer), *_averages(trainer)])


def test_an_error_while_scoring_gives_the_weights_back():
    trainer = build_trainer(TrainingConfig(learning_rate=0.2, ema_decay=0.99))
    for batch in make_tiny_batches().take(3):
        take_step(trainer, batch)
    before = weights_of(trainer)

    def fail(features, targets, weights):
        return features, targets, tf.debugging.check_numerics(weights / 0.0, "weights")

    with pytest.raises(tf.errors.InvalidArgumentError):
        trainer.evaluate(make_tiny_batches().take(1).map(fail))
    assert_equal(before, weights_of(trainer))


def test_resumed_equals_uninterrupted(tmp_path):
    settings = {"steps": 8, "ema_decay": 0.9}
    whole, checkpoints, notes = build_run(tmp_path / "whole", **settings)
    train(whole, checkpoints, notes)
    half, checkpoints, notes = build_run(tmp_path / "half", **settings)
    interrupt_after(4, notes)
    with pytest.raises(KeyboardInterrupt):
        train(half, checkpoints, notes)
    resumed, checkpoints, notes = build_run(tmp_path / "half", seed=99, **settings)
    train(resumed, checkpoints, notes)
    assert_equal([*weights_of(whole), *_averages(whole)], [*weights_of(resumed), *_averages(resumed)])


def test_who_wants_the_weights_alone_gets_the_mean(tmp_path):
    trainer, checkpoints, notes = build_run(tmp_path, steps=6, ema_decay=0.9)
    train(trainer, checkpoints, notes)
    model = build_tiny_model(TrainingConfig(), seed=99)
    assert Checkpoints(tmp_path, model).restore()
    assert_equal([variable.numpy() for variable in model.trainable_variables], _averages(trainer))
    assert np.abs(_averages(trainer)[0] - _learned(trainer)[0]).max() > 1e-3
    trainer.model.optimizer.finalize_variable_values(trainer.model.trainable_variables)  # as a finished run does
    assert_equal(_learned(trainer), _averages(trainer))


def test_a_mean_that_was_not_compiled_is_refused():
    text = r"compiled with ema_decay=0\.9\. Received: 0\.0\. Call model\.compile\(optimizer=build_opt"
    with pytest.raises(UserError, match=text):
        Trainer(build_tiny_model(TrainingConfig()), one_cpu(), TrainingConfig(ema_decay=0.9))


def test_the_mean_is_no_part_of_an_optimizer_without_one():
    optimizer = build_optimizer(TrainingConfig())
    assert optimizer.averages == [] and not optimizer.use_ema
