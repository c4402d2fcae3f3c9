"""How long training stands still for a checkpoint that is written beside it.

    python examples/benchmarks/checkpoint_stall.py            about 2 minutes on 2 cores
    python examples/benchmarks/checkpoint_stall.py --quick    a narrow model, half a minute, against a sanity bound

The step is that of training_speed.py: 4 + 4 layers, d_model 256, 32 rows of 128 + 128 tokens, Adam; a checkpoint of it
has 114 MB. `save(wait=False)` copies all values, for which training waits, and a thread writes the copy. In turns: some
steps undisturbed, a save, and the steps during which it is written. What the writing takes from those, since it needs
a core, too, is shown beside the stall.

The goal: a stall of at most 5 % of a step.
"""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import tf_llm
from tf_llm.contracts import DECODER_IDS, SOURCE_IDS
from tf_llm.training.checkpoints import Checkpoints
from tf_llm.training.step import TrainingStep

GOAL, QUICK_GOAL = 0.05, 0.5  # of a step
ROWS, LENGTH, VOCABULARY = 32, 128, 8_192
FULL = {"num_layers": 4, "d_model": 256, "num_heads": 4, "d_ff": 1024}
NARROW = FULL | {"num_layers": 2, "d_model": 64, "d_ff": 256}
BETWEEN = 4  # steps between two saves

_QUICK = flags.DEFINE_bool("quick", False, "A narrow model, fewer saves, against a sanity bound.")
_SAVES = flags.DEFINE_integer("saves", 15, "How many checkpoints are timed.")


def build_step(sizes):
    """The trainer's own step of the recipe `transformer` in these sizes: (function without arguments, model)."""
    run = tf_llm.recipes.transformer()
    lengths = {"vocabulary_size": VOCABULARY, "source_length": LENGTH, "target_length": LENGTH}
    training = dataclasses.replace(run.training, optimizer="adam", batch_size=ROWS)
    strategy = tf_llm.strategy("cpu")
    with strategy.scope():
        config = dataclasses.replace(run.model, **sizes, **lengths)
        model = tf_llm.build_model(config, tf_llm.choose_precision("auto"))
        model.compile(tf_llm.build_optimizer(training), tf_llm.build_loss(training))
        step = TrainingStep(model, strategy, training)
    source, target = np.random.default_rng(0).integers(2, VOCABULARY, (2, ROWS, LENGTH)).astype("int32")
    decoder_ids = np.pad(target, ((0, 0), (1, 0)))[:, :-1]
    features = {SOURCE_IDS: tf.constant(source), DECODER_IDS: tf.constant(decoder_ids)}
    batch, limit = (features, tf.constant(target), tf.ones(target.shape)), tf.constant(np.inf, tf.float32)
    return lambda: step.train(batch, limit).numpy(), model


def measure(function):
    """Seconds that a call takes."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def main(_):
    saves = min(_SAVES.value, 4) if _QUICK.value else _SAVES.value
    keras.utils.set_random_seed(0)
    step, model = build_step(NARROW if _QUICK.value else FULL)
    alone, stalls, beside = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder, model, model.optimizer)
        for number in range(saves + 1):  # with the first one, everything is made that later ones find
            alone += [measure(step) for _ in range(BETWEEN)]
            checkpoints.step.assign(number)
            stalls.append(measure(lambda: checkpoints.save(wait=False)))
            beside.append(measure(step))
            checkpoints.wait()
        size = sum(path.stat().st_size for path in Path(checkpoints.newest).iterdir())
    undisturbed, stall, written = (statistics.median(seconds[1:]) for seconds in (alone[BETWEEN - 1 :], stalls, beside))
    print(f"a checkpoint of {size / 1e6:.0f} MB, medians of {saves}")
    print(f"{'a step':36}{1e3 * undisturbed:8.0f} ms")
    print(f"{'a save, for which training waits':36}{1e3 * stall:8.0f} ms{stall / undisturbed:8.1%} of a step")
    print(f"{'a step while it is written':36}{1e3 * written:8.0f} ms{written / undisturbed - 1:+8.1%}")
    goal = QUICK_GOAL if _QUICK.value else GOAL
    result = {"name": "checkpoint_stall", "value": round(stall / undisturbed, 4), "goal": goal, "unit": "of a step"}
    print(json.dumps(result | {"holds": stall <= goal * undisturbed}))
    sys.exit(0 if stall <= goal * undisturbed else 1)


if __name__ == "__main__":
    app.run(main)
