"""Traps of Keras and TensorFlow on one device: each is shown where it lies, and then what is done about it here.

BUILD_NOTES.md has them as a page; those of several devices are in test_training_traps_devices.py. Other tests show the
other half of these pairs:

    repeated rows of an embedding's gradient   test_training_optimizers.py, both halves
    a flipped byte, a damaged newest one       test_training_checkpoints.py; examples/benchmarks/damaged_checkpoints.py
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_training_trainer import (
    assert_equal,
    build_run,
    build_tiny_model,
    interrupt_after,
    train,
)

from tf_llm.training.checkpoints import Checkpoints
from tf_llm.training.optimizers import TrainingConfig, build_optimizer

ROWS = np.ones((64, 2), "float32")


def _build(dropout=0.0):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8), keras.layers.Dropout(dropout)])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    return model


# === What checkpoints leave out ===


def _save_weights(model, folder):
    model.save_weights(folder / "all.weights.h5")
    loaded = _build(dropout=0.5)
    loaded.load_weights(folder / "all.weights.h5")
    return loaded


def _save_model(model, folder):
    model.save(folder / "all.keras")
    return keras.models.load_model(folder / "all.keras")


def _write_checkpoint(model, folder):
    tf.train.Checkpoint(model=model).write(str(folder / "all"))
    loaded = _build(dropout=0.5)
    tf.train.Checkpoint(model=loaded).read(str(folder / "all")).expect_partial()
    return loaded


def _write_ours(model, folder):
    Checkpoints(folder, model, model.optimizer).save()
    loaded = _build(dropout=0.5)
    assert Checkpoints(folder, loaded, loaded.optimizer).restore()
    return loaded


@pytest.mark.parametrize(
    ("save", "same"), [(_save_weights, False), (_save_model, False), (_write_checkpoint, False), (_write_ours, True)]
)
def test_seeds_of_dropout_are_in_no_stock_checkpoint(tmp_path, save, same):
    """A model that goes on from one has the weights, and draws other masks than the model that was saved."""
    keras.utils.set_random_seed(0)
    saved = _build(dropout=0.5)
    saved(ROWS, training=True)
    keras.utils.set_random_seed(1)
    loaded = save(saved, tmp_path)
    assert_equal(saved(ROWS).numpy(), loaded(ROWS).numpy())
    masks = [np.asarray(model(ROWS, training=True)) == 0 for model in (saved, loaded)]
    assert np.array_equal(*masks) is same


# === Interruptions ===


class _PullThePlug(keras.callbacks.Callback):
    """Ends the process, as it were, behind a batch."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 == self.batch:
            raise KeyboardInterrupt


def test_backup_and_restore_repeats_what_was_trained_on(tmp_path):
    """Sixteen batches, stopped behind the eighth: 24 steps of the optimiser, eight of them on the same rows again."""
    backup = {"backup_dir": str(tmp_path), "save_freq": 1}
    arguments = {"batch_size": 4, "shuffle": False, "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        model = _build()
        model.fit(
            ROWS, np.ones((64, 8)), callbacks=[keras.callbacks.BackupAndRestore(**backup), _PullThePlug(8)], **arguments
        )
    model = _build()
    model.fit(ROWS, np.ones((64, 8)), callbacks=[keras.callbacks.BackupAndRestore(**backup)], **arguments)
    assert int(model.optimizer.iterations) == 24


def test_a_run_here_makes_each_step_once(tmp_path):
    """Of sixteen steps, stopped behind the eighth; test_training_trainer.py has them equal to the last bit."""
    trainer, checkpoints, notes = build_run(tmp_path, steps=16)
    interrupt_after(8, notes)
    with pytest.raises(KeyboardInterrupt):
        train(trainer, checkpoints, notes)
    resumed, checkpoints, notes = build_run(tmp_path, seed=99, steps=16)
    train(resumed, checkpoints, notes)
    assert int(resumed.model.optimizer.iterations) == 16 and notes.steps == list(range(9, 17))


# === Damage ===


def test_a_flipped_byte_in_a_weight_file_loads(tmp_path):
    path = tmp_path / "all.weights.h5"
    saved = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4096)])
    saved.save_weights(path)
    content = bytearray(path.read_bytes())
    kernel = saved.layers[0].kernel.numpy().tobytes()
    place = content.find(kernel[:64]) + 3  # of the exponent of the first weight
    content[place] ^= 0x40
    path.write_bytes(content)
    loaded = keras.Sequential([keras.Input((2,)), keras.layers.Dense(4096)])
    loaded.load_weights(path)
    assert np.count_nonzero(loaded.layers[0].kernel.numpy() != saved.layers[0].kernel.numpy()) == 1


def test_checkpoint_manager_knows_no_older_checkpoint(tmp_path, caplog):
    """Its newest one is damaged and the one before is not; here that one is taken, with a warning."""
    variable = tf.Variable(tf.ones(1000))
    checkpoint = tf.train.Checkpoint(variable=variable)
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path / "stock"), max_to_keep=2)
    model = build_tiny_model(TrainingConfig())
    ours = Checkpoints(tmp_path / "ours", model)
    for step in (1, 2):
        manager.save()
        ours.step.assign(step)
        ours.save()
    for folder in (tmp_path / "stock", tmp_path / "ours" / "ckpt-2"):
        data = sorted(folder.glob("*.data-*"))[-1]
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    with pytest.raises(tf.errors.DataLossError):
        manager.restore_or_initialize()
    assert ours.restore() and int(ours.step) == 1
    assert "trying the one before" in caplog.text


# === What weight decay and running means reach ===


@pytest.mark.parametrize(("stock", "kept"), [(True, 0.9), (False, 1.0)])
def test_stock_weight_decay_pulls_on_norms(stock, kept):
    """A norm's scale, without any gradient."""
    scale, kernel = keras.Variable(np.ones(3), name="gamma"), keras.Variable(np.ones((3, 3)), name="kernel")
    config = TrainingConfig(optimizer="adamw", learning_rate=0.5, weight_decay=0.2)
    optimizer = keras.optimizers.AdamW(0.5, weight_decay=0.2) if stock else build_optimizer(config)
    optimizer.build([scale, kernel])
    optimizer.apply([tf.zeros(3), tf.zeros((3, 3))], [scale, kernel])
    np.testing.assert_allclose(scale.numpy(), kept, rtol=1e-6)
    np.testing.assert_allclose(kernel.numpy(), 0.9, rtol=1e-6)


@pytest.mark.parametrize(("stock", "left"), [(True, 0.999**99), (False, 1e-9)])
def test_stock_running_mean_is_mostly_the_first_weights(stock, left):
    """A weight of 1 behind the first of a hundred updates, and 0 behind all others: what is left of it in the mean."""
    weight = keras.Variable(0.0)
    config = TrainingConfig(optimizer="gradient_descent", learning_rate=1.0, ema_decay=0.999)
    stock_optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.999)
    optimizer = stock_optimizer if stock else build_optimizer(config)
    optimizer.build([weight])
    for gradient in [-1.0, 1.0] + [0.0] * 98:
        optimizer.apply([tf.constant(gradient)], [weight])
    mean = float(optimizer._model_variables_moving_average[0])
    assert mean == pytest.approx(left, rel=1e-3) if stock else mean < left
