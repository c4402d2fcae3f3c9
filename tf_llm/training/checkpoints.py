"""Checkpoints that a run continues from: weights, optimiser, random state and step, with the proof that they are whole.

A checkpoint is a folder:

    ckpt-<step>/
        state.index, state.data-…   a tf.train.Checkpoint
        manifest.json               sizes and sha256 of these files and of itself, and what wrote them

It is written as `ckpt-<step>.partial`, goes on to the disk file by file, and takes its name in one move; older ones are
removed behind that. So whatever stops the writing, a signal or a power cut, a folder of that name is a whole one. What
time does to it on the disk, the sha256 shows before anything is loaded: TensorFlow has a checksum of each tensor, but
it looks at it in the midst of loading, and knows no checkpoint to go back to.

Keras keeps the seeds of its dropout layers out of `save_weights` and out of `tf.train.Checkpoint(model=model)`; a run
resumed without them draws other masks than the run that was never interrupted. `model.variables`, which is saved here
one by one, has them.

Where the optimiser keeps running means of the weights, these are saved beside them, and are what is read by those who
want the weights alone: they are what validation scored.
"""

import concurrent.futures
import contextlib
import importlib.metadata
import json
import logging
import math
import platform
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tf_llm.contracts import UserError
from tf_llm.training.manifests import DamageError, check, read_manifest, sync_folder, write_manifest
from tf_llm.training.optimizers import unwrap

logger = logging.getLogger(__name__)

STATE = "state"  # what the names of TensorFlow's files begin with
# While a checkpoint is saved again at the step that it has, the old one waits as `.replaced` for the new one to stand.
NAME = re.compile(r"ckpt-(\d+)(\.replaced)?")


class Checkpoints:
    """The checkpoints of one run: the newest, and the best.

    Args:
        folder: where they lie, as `ckpt-<step>/`.
        model: a Keras model, built.
        optimizer: its optimiser, or None to read the weights alone, or their running means where the run kept some.
        keep: how many of the newest are kept. The one with the lowest validation loss is kept besides.
        about: a dictionary of what JSON can hold, noted in every manifest.
        writes: whether `save` writes. Of several workers one does, and all restore what it wrote.

    Attributes:
        step: optimiser steps done, a `Number`.
        total_steps: steps that the run was planned for, a `Number`; 0 before it was.
        latest_losses: what a `Guard` judges the next step by, a list; the manifest keeps it.

    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = Checkpoints(folder, model)
    ...     checkpoints.step.assign(7)
    ...     path = checkpoints.save(validation_loss=2.5)
    ...     restored = Checkpoints(folder, model).restore()
    ...     Path(path).name, restored, check(path)["validation_loss"]
    ('ckpt-7', True, 2.5)
    """

    def __init__(self, folder, model, optimizer=None, *, keep=2, about=None, writes=True):
        if keep < 1:
            raise ValueError(f"keep expected a whole number of at least 1. Received: {keep!r}")
        self.folder, self.keep, self.writes = Path(folder), keep, writes
        self.step, self.total_steps, self.latest_losses = Number(), Number(), []
        self._about = json.loads(json.dumps(about or {}))  # what is no JSON is an error here, not after an hour
        parts = {"model": [variable.value for variable in model.variables]}
        if optimizer is not None:
            if not optimizer.built:  # a LossScaleOptimizer would make a second scale
                optimizer.build(model.trainable_variables)
            averages = getattr(unwrap(optimizer), "averages", [])
            parts["averages"] = [average.value for average in averages]
            parts["optimizer"] = [variable.value for variable in optimizer.variables if not _is_in(variable, averages)]
        self._parts, self._partial = parts, optimizer is None
        self._averages = tf.train.Checkpoint(averages=[variable.value for variable in model.trainable_variables])
        self._checkpoint = tf.train.Checkpoint(step=self.step, total_steps=self.total_steps, **parts)
        # One thread, which the scope of no strategy reaches: a variable that is made there lies in the host's memory.
        self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._copies = self._staged = self._pending = None
        self._damaged = set()

    @property
    def newest(self):
        """The path of the newest checkpoint that is whole, or None."""
        return next((path for path in self._list() if _is_whole(path)), None)

    def save(self, validation_loss=None, wait=True):
        """Writes a checkpoint of this moment and returns its path.

        The values are copied to the host's memory at once, whatever device they are on, and a thread writes the copy.
        With `wait=False` training goes on meanwhile; the next `save`, `wait`, and the end of the process wait for it.

        Args:
            validation_loss: of these weights, if it is known; of all that were told, the lowest is the best.
            wait: whether to return only when the checkpoint is on the disk.

        Raises:
            UserError: it cannot be written, for instance on a full disk. The older ones are as they were. Where it
                is the one before that could not be written, unnoticed until now, a warning says so, and this one is
                waited for.
        """
        try:
            self.wait()
        except UserError as error:
            logger.warning("%s. Saving step %d", error, self.step)
            wait = True
        path = self.folder / f"ckpt-{int(self.step)}"
        if not self.writes:
            return str(path)
        values = self._writer.submit(self._copy_values).result()
        about = {
            "step": int(self.step),
            "total_steps": int(self.total_steps),
            "validation_loss": None if validation_loss is None else _number_or_none(validation_loss),
            "latest_losses": self.latest_losses,
            "about": self._about,
            "versions": list_versions(),
        }
        self._pending = self._writer.submit(self._write, path, values, about)
        if wait:
            self.wait()
        return str(path)

    def wait(self):
        """Returns when what `save` began is on the disk. Raises what `save` would have raised, once."""
        if self._pending is not None:
            concurrent.futures.wait([self._pending])  # Ctrl-C here leaves it to be waited for
            pending, self._pending = self._pending, None
            pending.result()

    def restore(self, which="newest"):
        """Restores the newest checkpoint that is whole, and returns whether there was one.

        A damaged one is passed over with a warning.

        Args:
            which: "newest", or "best": the one with the lowest validation loss; those of which none is known come last.

        Raises:
            UserError: there are some and none can be used: no silent fresh start.
        """
        orders = {"newest": lambda path: 0, "best": lambda path: _read_loss(path, unreadable=-math.inf)}
        if which not in orders:
            raise ValueError(f"which expected one of {sorted(orders)}. Received: {which!r}")
        self.wait()
        paths = sorted(self._list(), key=orders[which])  # the newest first among equals
        for path in paths:
            try:
                manifest = check(path)
                status = self._checkpoint.read(str(path / STATE))
                if self._partial:
                    status.assert_existing_objects_matched().expect_partial()
                    self._averages.read(str(path / STATE)).expect_partial()  # where there are any
                else:
                    status.assert_consumed()
                self.latest_losses = manifest.get("latest_losses", [])
                return True
            except UserError:
                raise
            # TensorFlow has OpError, AssertionError and ValueError for the checkpoint of another model. Whatever it is,
            # this checkpoint is none; but only one that is damaged may be removed.
            except Exception as error:
                if isinstance(error, DamageError):
                    self._damaged.add(path)
                logger.warning("checkpoint %s cannot be read (%s); trying the one before", path, _short(error))
        if paths:
            raise UserError(
                f"expected a checkpoint of this model in {self.folder}. Received: {len(paths)} that cannot be read. "
                "Go back to the settings they were made with, or move the folder away to start afresh"
            )
        if old := sorted(self.folder.glob("ckpt-*.index")):
            raise UserError(
                f"expected checkpoints in folders ckpt-<step>/ in {self.folder}. Received: {old[-1].name}, which an "
                "earlier version wrote. Finish the run with that version, or move the folder away to start afresh"
            )
        return False

    def _list(self):
        """Paths of the checkpoints, whole or damaged, newest first; a replaced one is behind what replaces it."""
        try:
            names = [path.name for path in self.folder.iterdir()]  # `glob` says nothing where it may not look
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(
                f"expected a folder of checkpoints at {self.folder}. Received: {error.strerror}. Choose another folder"
            ) from error
        found = [match for name in names if (match := NAME.fullmatch(name))]
        return [self.folder / match[0] for match in sorted(found, key=lambda match: (-int(match[1]), match[0]))]

    def _copy_values(self):
        """The values of this moment, as arrays that no training step reaches: all that training waits for.

        They are the same arrays at each save, into which NumPy copies from TensorFlow's memory: `numpy()` would copy
        twice, and memory that is new to a process takes longer to fill than to copy.
        """
        values = {name: [variable.read_value() for variable in part] for name, part in self._parts.items()}
        if self._copies is None:
            self._copies = {name: [np.empty(v.shape, v.dtype.as_numpy_dtype) for v in values[name]] for name in values}
        for name, copies in self._copies.items():
            for copy, value in zip(copies, values[name], strict=True):
                np.copyto(copy, value)
        return self._copies

    def _stage(self, values, about):
        """Fills variables in the host's memory, of the same names as those of the run, with what is to be written.

        They are made once: the cycles of references in a tf.train.Checkpoint would keep each save's for a while.
        """
        with tf.device("CPU:0"):
            if self._staged is None:
                parts = {name: [tf.Variable(value) for value in part] for name, part in values.items()}
                self._staged = tf.train.Checkpoint(step=Number(), total_steps=Number(), **parts)
            else:
                for name, part in values.items():
                    for variable, value in zip(getattr(self._staged, name), part, strict=True):
                        variable.assign(value)
        self._staged.step.assign(about["step"])
        self._staged.total_steps.assign(about["total_steps"])

    def _write(self, path, values, about):
        """Writes values as the checkpoint of that path, and removes what it makes superfluous."""
        partial, replaced = (path.with_name(f"{path.name}.{suffix}") for suffix in ("partial", "replaced"))
        try:
            for leftover in self.folder.glob("ckpt-*.partial"):  # of a run that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            partial.mkdir(parents=True)
            self._stage(values, about)
            with tf.device("CPU:0"):
                self._staged.write(str(partial / STATE))
            write_manifest(partial, about)
            if path.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                path.rename(replaced)
            partial.rename(path)
            sync_folder(self.folder)
        except (tf.errors.OpError, OSError) as error:
            raise UserError(
                f"expected to write a checkpoint to {self.folder}. Received: {_short(error)}. Free some space or "
                f"choose another folder; the newest checkpoint: {self.newest or 'none'}"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)  # it is only there if something went wrong
        self._damaged.discard(path)
        self._remove_old(path)

    def _remove_old(self, written):
        """Removes all but the newest and the best; those that `restore` found damaged count for nothing."""
        paths = self._list()
        sound = [path for path in paths if path not in self._damaged and not path.name.endswith(".replaced")]
        kept = {written, *sound[: self.keep], min(sound, key=_read_loss)}  # where no loss is known, that is the newest
        for path in paths:
            if path not in kept:
                gone = path.with_name(f"{path.name}.partial")  # at once: what is half removed is no checkpoint
                with contextlib.suppress(OSError):
                    path.rename(gone)
                shutil.rmtree(gone, ignore_errors=True)


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


def list_versions():
    """{name: version} of what a run's figures depend on; None for this package where it is read from its sources."""
    try:
        own = importlib.metadata.version("tf_llm")
    except importlib.metadata.PackageNotFoundError:
        own = None
    return {
        "tf_llm": own,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
    }


def _is_in(variable, variables):
    return any(variable is other for other in variables)


def _is_whole(path):
    try:
        check(path)
    except (DamageError, UserError):
        return False
    return True


def _read_loss(path, unreadable=math.inf):
    """The validation loss of a checkpoint; infinite if none is known."""
    try:
        loss = read_manifest(path)["validation_loss"]
    except (DamageError, UserError):
        return unreadable
    return math.inf if loss is None else loss


def _number_or_none(loss):
    """JSON has no word for what is no number."""
    return float(loss) if math.isfinite(loss) else None


def _short(error):
    """What went wrong, without the name of the operation that it went wrong in."""
    lines = str(error).splitlines() or [""]
    return lines[0].rpartition("; ")[2].partition(" [Op:")[0] or type(error).__name__
