"""What is loaded of a damaged checkpoint: tf_llm beside TensorFlow's CheckpointManager and Keras's weight files.

    python examples/benchmarks/damaged_checkpoints.py            about half a minute on 2 cores
    python examples/benchmarks/damaged_checkpoints.py --quick    20 ways of damage in place of 100

A small transformer trains and saves twice, each time in three ways: with `Checkpoints` of tf_llm, with TensorFlow's
CheckpointManager, and with `model.save_weights`. Then what was saved last is damaged in 100 ways, one at a time: one of
its files, each in its turn, has a byte changed at a drawn place, is cut there, or is removed. A model of other weights
is to continue from what is left:

    noticed     there was an error or a warning
    loaded      what was loaded is what was saved last, though damaged
    altered     and its values are not those that were saved
    previous    what was saved first was loaded, to the last bit
    fresh       nothing was loaded, and that was no error: the run would begin again

The goal is that tf_llm notices all, loads none, and uses the previous one. Keras leaves it to the caller to look for
another file.
"""

import json
import logging
import math
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow logs every damaged file

import numpy as np
import tensorflow as tf
from absl import app, flags

import tf_llm
from tf_llm.contracts import DECODER_IDS, SOURCE_IDS
from tf_llm.model.config import ModelConfig
from tf_llm.training.checkpoints import Checkpoints
from tf_llm.training.optimizers import TrainingConfig
from tf_llm.training.step import TrainingStep

KINDS = ("byte", "cut", "removed")
COLUMNS = ("noticed", "loaded", "altered", "previous", "fresh")
MODEL = ModelConfig(vocabulary_size=1_000, source_length=16, target_length=16, d_model=64, d_ff=128, num_layers=1)

_QUICK = flags.DEFINE_bool("quick", False, "20 ways of damage instead of 100.")
_SEED = flags.DEFINE_integer("seed", 1, "Of the places and of the changed bytes.")


def make_batches(first_batch=0):
    """Endless rows of drawn ids, said again in the decoder."""

    def make_batch(number):
        ids = tf.random.stateless_uniform([8, 16], [_SEED.value, number], 3, MODEL.vocabulary_size, tf.int32)
        return {SOURCE_IDS: ids, DECODER_IDS: tf.pad(ids[:, :-1], [[0, 0], [1, 0]])}, ids, tf.ones([8, 16])

    return tf.data.Dataset.range(first_batch, tf.int64.max).map(make_batch)


class Reader:
    """One way to save and to continue. `variables` are what it keeps."""

    def __init__(self, model):
        self.model = model
        self.variables = [*model.variables, *model.optimizer.variables]

    def read_values(self):
        return [variable.numpy() for variable in self.variables]

    def assign_values(self, values):
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)


class Ours(Reader):
    def save(self, folder, step):
        checkpoints = Checkpoints(folder, self.model, self.model.optimizer)
        checkpoints.step.assign(step)
        checkpoints.save()

    def load(self, folder):
        Checkpoints(folder, self.model, self.model.optimizer).restore()

    def list_newest(self, folder):
        return sorted((folder / "ckpt-2").iterdir())


class Manager(Reader):
    def open(self, folder):
        parts = [variable.value for variable in self.variables]
        return tf.train.CheckpointManager(tf.train.Checkpoint(parts=parts), str(folder), max_to_keep=2)

    def save(self, folder, step):
        self.open(folder).save(checkpoint_number=step)

    def load(self, folder):
        self.open(folder).restore_or_initialize()

    def list_newest(self, folder):
        return [folder / "checkpoint", *sorted(folder.glob("ckpt-2.*"))]


class Weights(Reader):
    def __init__(self, model):
        super().__init__(model)
        self.variables = model.trainable_variables

    def save(self, folder, step):
        folder.mkdir(exist_ok=True)
        self.model.save_weights(folder / f"{step}.weights.h5")

    def load(self, folder):
        self.model.load_weights(folder / "2.weights.h5")

    def list_newest(self, folder):
        return [folder / "2.weights.h5"]


READERS = {"tf_llm": Ours, "CheckpointManager": Manager, "save_weights": Weights}


class Listener(logging.Handler):
    """Keeps the warnings about checkpoints, of this package and of TensorFlow's manager."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []
        for name in ("tf_llm", "tensorflow"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [self], False  # 300 of them are not for the screen

    def emit(self, record):
        if record.module in ("checkpoints", "checkpoint_management"):
            self.messages.append(record.getMessage())


def train_and_save(folder):
    """Two checkpoints of each reader; returns the readers and, for each, the values of (no, first, second) save."""
    training = TrainingConfig(steps=4, precision="float32")
    strategy = tf.distribute.get_strategy()
    model = tf_llm.build_model(MODEL)
    model.compile(tf_llm.build_optimizer(training), tf_llm.build_loss(training))
    train = TrainingStep(model, strategy, training).train
    batches = iter(make_batches())
    readers = {name: reader(model) for name, reader in READERS.items()}
    values = {name: [reader.read_values()] for name, reader in readers.items()}
    for step in (1, 2):
        for _ in range(2):
            train(next(batches), tf.constant(math.inf))
        for name, reader in readers.items():
            reader.save(folder / name, step)
            values[name].append(reader.read_values())
    return readers, values


def damage(path, kind, rng):
    """Damages a file in place."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    if kind == "byte":
        content[place] ^= rng.randrange(1, 256)
        path.write_bytes(content)
    elif kind == "cut":
        path.write_bytes(content[:place])
    else:
        path.unlink()


def is_same(left, right):
    return all(np.array_equal(one, other) for one, other in zip(left, right, strict=True))


def judge(reader, folder, values, listener):
    """Lets a reader continue from a folder: what `COLUMNS` count."""
    fresh, previous, newest = values
    reader.assign_values(fresh)
    listener.messages.clear()
    try:
        reader.load(folder)
    except Exception:  # whatever is raised is an answer
        return Counter(noticed=1)
    found, noticed = reader.read_values(), bool(listener.messages)
    if is_same(found, previous):
        return Counter(noticed=noticed, previous=1, passed_over=noticed)
    if is_same(found, fresh):
        return Counter(noticed=noticed, fresh=1)
    return Counter(noticed=noticed, loaded=1, altered=not is_same(found, newest))


def main(_):
    trials = 20 if _QUICK.value else 100
    listener, totals, seconds = Listener(), {}, {}
    print(f"{trials} damaged checkpoints for each, seed {_SEED.value}, TensorFlow {tf.__version__}\n")
    print(f"{'reader':18} {'damage':8} {'trials':>7} " + " ".join(f"{column:>9}" for column in COLUMNS))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        readers, values = train_and_save(folder)
        for name, reader in readers.items():
            begin = time.perf_counter()
            if judge(reader, folder / name, values[name], listener) != Counter(loaded=1):
                print(f"could not run: {name} does not load what it saved")
                sys.exit(2)
            seconds[name] = time.perf_counter() - begin
            rng, files = random.Random(_SEED.value), reader.list_newest(folder / name)
            counts = {kind: Counter() for kind in KINDS}
            for trial in range(trials):
                kind = KINDS[trial // len(files) % len(KINDS)]
                copy = Path(shutil.copytree(folder / name, folder / "copy"))
                damage(copy / files[trial % len(files)].relative_to(folder / name), kind, rng)
                counts[kind].update(judge(reader, copy, values[name], listener), trials=1)
                shutil.rmtree(copy)
            for kind in KINDS:
                cells = " ".join(f"{counts[kind][column]:9}" for column in COLUMNS)
                print(f"{name:18} {kind:8} {counts[kind]['trials']:7} {cells}")
            totals[name] = sum(counts.values(), Counter())
    print("\nloading the undamaged one: " + ", ".join(f"{name} {1e3 * each:.0f} ms" for name, each in seconds.items()))
    value = totals["tf_llm"]["passed_over"]
    holds = value == trials
    result = {
        "name": "damaged_checkpoints",
        "value": value,
        "goal": trials,
        "unit": "damaged ones noticed and passed over",
    }
    print(json.dumps(result | {"holds": holds}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
