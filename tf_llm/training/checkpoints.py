"""Checkpoints that a run continues from: weights, optimiser, random state and step, in one tf.train.Checkpoint.

Keras keeps the seeds of its dropout layers out of `save_weights` and out of `tf.train.Checkpoint(model=model)`; a run
resumed without them draws other masks than the run that was never interrupted. `model.variables`, which is saved here
one by one, has them.
"""

import logging
import shutil
from pathlib import Path

import tensorflow as tf

from tf_llm.contracts import UserError

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run, the two newest of them.

    Args:
        folder: where they lie, as `ckpt-<step>.*`.
        model: a Keras model, built.
        optimizer: its optimiser, or None to read the weights alone.

    Attributes:
        step: optimiser steps done, a `Number`.
        total_steps: steps that the run was planned for, a `Number`; 0 before it was.
    """

    def __init__(self, folder, model, optimizer=None):
        self.folder = Path(folder)
        self.step, self.total_steps = Number(), Number()
        parts = {"model": [variable.value for variable in model.variables]}
        if optimizer is not None:
            optimizer.build(model.trainable_variables)
            parts["optimizer"] = [variable.value for variable in optimizer.variables]
        self._partial = optimizer is None
        self._checkpoint = tf.train.Checkpoint(step=self.step, total_steps=self.total_steps, **parts)
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(self.folder), max_to_keep=2)

    @property
    def newest(self):
        """The path of the newest checkpoint, or None."""
        return next(iter(self._paths()), None)

    def save(self):
        """Writes a checkpoint and returns its path.

        Raises:
            UserError: it cannot be written, for instance on a full disk. The older ones are as they were.
        """
        try:
            return self._manager.save(checkpoint_number=int(self.step))
        except (tf.errors.OpError, OSError) as error:
            raise UserError(
                f"expected to write a checkpoint to {self.folder}. Received: {_short(error)}. Free some space or "
                f"choose another folder; the newest checkpoint: {self.newest or 'none'}"
            ) from error
        finally:
            for unfinished in self.folder.glob("ckpt-*_temp"):  # of this attempt, or of one that was killed
                shutil.rmtree(unfinished, ignore_errors=True)

    def restore(self):
        """Restores the newest checkpoint that can be read, and returns whether there was one.

        A damaged one is passed over with a warning.

        Raises:
            UserError: there are some and none can be read: no silent fresh start.
        """
        paths = self._paths()
        for path in paths:
            try:
                status = self._checkpoint.restore(path)
                if self._partial:
                    status.assert_existing_objects_matched().expect_partial()
                else:
                    status.assert_consumed()
                return True
            # OpError, most of the time; but TensorFlow has IndexError for a file that was cut short, AssertionError and
            # ValueError for the checkpoint of another model. Whatever it is, this checkpoint is none.
            except Exception as error:
                logger.warning("checkpoint %s cannot be read (%s); trying the one before", path, _short(error))
        if paths:
            raise UserError(
                f"expected a checkpoint of this model in {self.folder}. Received: {len(paths)} that cannot be read. "
                "Go back to the settings they were made with, or move the folder away to start afresh"
            )
        return False

    def _paths(self):
        """Paths of the checkpoints, newest first: what lies there, and what TensorFlow's own list says should."""
        found = {str(path.with_suffix("")) for path in self.folder.glob("ckpt-[0-9]*.index")}
        return sorted(found.union(self._manager.checkpoints), key=lambda path: -int(path.rpartition("-")[2]))


class Number(tf.train.experimental.PythonState):
    """A whole number that checkpoints keep; unlike a tf.Variable, it is the same inside the scope of a strategy.

    >>> number = Number()
    >>> number.assign(3)
    >>> int(number)
    3
    """

    def __init__(self):
        super().__init__()
        self._value = 0

    def assign(self, value):
        """Sets it."""
        self._value = int(value)

    def __int__(self):
        return self._value

    def serialize(self):
        """What a checkpoint holds of it."""
        return str(self._value)

    def deserialize(self, string_value):
        """Sets it to what a checkpoint holds."""
        self._value = int(string_value)


def _short(error):
    """What went wrong, without the name of the operation that it went wrong in."""
    lines = str(error).splitlines() or [""]
    return lines[0].rpartition("; ")[2].partition(" [Op:")[0] or type(error).__name__
