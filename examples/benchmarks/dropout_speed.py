"""What dropout costs a training step: Keras's own layer, the one of tf_llm, and none.

    python examples/benchmarks/dropout_speed.py                  90 seconds on 2 cores
    python examples/benchmarks/dropout_speed.py --quick          a model of width 64, half a minute
    python examples/benchmarks/dropout_speed.py --xla            compiled by XLA; for Keras's layer have patience

The model has 4 + 4 blocks, d_model 256, d_ff 1024, 8 heads and a vocabulary of 8,000, and drops a tenth of the embedded
words, of attention weights, between feed-forward layers and of what each part adds; a step is the forward and backward
pass of 32 rows of 128 + 128 tokens, and Adam. The three models take turns; medians are compared. The goal: of the time
that Keras's dropout adds to a step, half is saved.
"""

import dataclasses
import json
import statistics
import sys
import time
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from tf_llm.contracts import DECODER_IDS, SOURCE_IDS
from tf_llm.model import encoder_decoder, layers, stacks
from tf_llm.model.config import ModelConfig
from tf_llm.model.dropout import Dropout
from tf_llm.model.encoder_decoder import build_model
from tf_llm.training.distribution import choose_precision

GOAL, QUICK_GOAL = 0.5, 0.1
LENGTH = 128  # of source and target
PLACES = ("embedding", "attention", "feed_forward", "residual")
FULL = ModelConfig(
    vocabulary_size=8_000, source_length=LENGTH, target_length=LENGTH, num_layers=4, num_heads=8, context="sequence",
    input_norm="none", output_l2=0.0, **{f"{place}_dropout": 0.1 for place in PLACES},
)  # fmt: skip
NARROW = {"num_layers": 2, "d_model": 64, "d_ff": 256, "num_heads": 4, "vocabulary_size": 500}

_QUICK = flags.DEFINE_bool("quick", False, "A narrow model, a few steps, against a sanity bound.")
_XLA = flags.DEFINE_bool("xla", False, "Compile the step by XLA.")
_PRECISION = flags.DEFINE_string("precision", "auto", "A Keras dtype policy, or the one that suits this machine.")
_STEPS = flags.DEFINE_integer("steps", 15, "Timed steps of each model.")


def build_step(config, dropout_class):
    """A model with that kind of dropout, and its training step: a function of a batch."""
    keras.utils.set_random_seed(0)
    with (
        mock.patch.object(layers, "Dropout", dropout_class),
        mock.patch.object(stacks, "Dropout", dropout_class),
        mock.patch.object(encoder_decoder, "Dropout", dropout_class),
    ):
        model = build_model(config, choose_precision(_PRECISION.value))
    optimizer = keras.optimizers.Adam(1e-4)
    optimizer.build(model.trainable_variables)

    def step(features, targets):
        with tf.GradientTape() as tape:
            logits = model(features, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        optimizer.apply([tf.convert_to_tensor(gradient) for gradient in gradients], model.trainable_variables)
        return loss

    return tf.function(step, jit_compile=_XLA.value)


def make_batch(config, rows):
    ids = np.random.default_rng(0).integers(1, config.vocabulary_size, (rows, 2 * LENGTH)).astype("int32")
    source_ids, targets = np.split(ids, 2, axis=1)
    decoder_ids = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    return {SOURCE_IDS: tf.constant(source_ids), DECODER_IDS: tf.constant(decoder_ids)}, tf.constant(targets)


def main(_):
    config, rows, steps = FULL, 32, _STEPS.value
    if _QUICK.value:
        config, rows, steps = dataclasses.replace(FULL, **NARROW), 16, min(steps, 9)
    without = dataclasses.replace(config, **{f"{place}_dropout": 0.0 for place in PLACES})
    contestants = {
        "keras": build_step(config, keras.layers.Dropout),
        "tf_llm": build_step(config, Dropout),
        "none": build_step(without, Dropout),
    }
    batch = make_batch(config, rows)
    seconds = {name: [] for name in contestants}
    for _ in range(steps + 1):  # the first step traces the graph
        for name, step in contestants.items():
            begin = time.perf_counter()
            step(*batch).numpy()
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(each[1:]) for name, each in seconds.items()}

    way = choose_precision(_PRECISION.value) + (", XLA" if _XLA.value else "")
    print(f"{way}, {rows} rows of {LENGTH} + {LENGTH} tokens, medians of {steps} steps in turns\n")
    print(f"{'dropout':8}{'ms a step':>10}{'tokens/s':>10}{'added':>8}")
    for name, median in medians.items():
        print(f"{name:8}{1e3 * median:10.0f}{2 * LENGTH * rows / median:10,.0f}{median / medians['none'] - 1:8.0%}")
    saved = (medians["keras"] - medians["tf_llm"]) / (medians["keras"] - medians["none"])
    goal = QUICK_GOAL if _QUICK.value else GOAL
    result = {"name": "dropout_speed", "value": round(saved, 3), "goal": goal, "unit": "share of the cost saved"}
    print("\n" + json.dumps(result | {"holds": saved >= goal}))
    sys.exit(0 if saved >= goal else 1)


if __name__ == "__main__":
    app.run(main)
