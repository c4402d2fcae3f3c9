"""What a training run would take, before it is started: memory, time, devices, data. Nothing is read or trained.

    python examples/plan_training.py --recipe=best --size=base --device=a100-80gb --devices=256 --corpus_bytes=1e12
    python examples/plan_training.py --recipe=best --device=cpu --measure  # this machine: real steps beside it

The first takes the ten seconds in which TensorFlow is imported, the second half a minute more. You see a table: the
model and what a step of it costs, whether it fits, how fast it would be; and at its end how long one pass over the
corpus takes, how much data this model wants, and how large a model, on how many devices, this corpus wants.
"""

import dataclasses
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets at length when it is imported
import numpy as np
import tensorflow as tf
from absl import flags

import tf_llm
import tf_llm.flags
from tf_llm.training.devices import DEVICES, find_device
from tf_llm.training.planner import USUAL_MFU, abbreviate, plan_training, say_time
from tf_llm.training.step import TrainingStep

BYTES_PER_TOKEN = {"characters": 1.0, "words": 5.6, "unigram": 4.0, "bpe": 4.0}  # words: with the stop words removed
DEVICE = flags.DEFINE_enum(
    "device", "a100-80gb", sorted([*DEVICES, "cpu"]), "The kind of device; cpu is measured here."
)
COUNT = flags.DEFINE_integer("devices", 1, "How many of them.", lower_bound=1)
CORPUS = flags.DEFINE_float("corpus_bytes", 1e9, "UTF-8 text of the corpus, to be read once.")
DENSITY = flags.DEFINE_float("bytes_per_token", None, f"Of that text; by default by --tokens: {BYTES_PER_TOKEN}.")
MFU = flags.DEFINE_float("mfu", USUAL_MFU, "The share of their peak that the devices are assumed to reach.")
MEASURE = flags.DEFINE_boolean("measure", False, "Time some steps of the rows of one device here.")
tf_llm.flags.define_flags()


def main():
    run = tf_llm.flags.build_run()
    training, shards = run.training, run.shards
    if flags.FLAGS["training.batch_size"].value is None:  # each device gets as many rows as the recipe gives one
        training = dataclasses.replace(training, batch_size=training.batch_size * COUNT.value * training.accumulation)
    plan = plan_training(
        run.model,
        training,
        find_device(DEVICE.value),
        COUNT.value,
        corpus_bytes=CORPUS.value,
        bytes_per_token=BYTES_PER_TOKEN[run.tokens] if DENSITY.value is None else DENSITY.value,
        tokens_per_row=shards.block_length - (0 if shards.joined else shards.overlap),
        mfu=MFU.value,
    )
    print(plan.describe())
    if MEASURE.value:
        seconds = measure_step(run, plan)
        reached = plan.rows * sum(plan.flops.values()) / seconds  # FLOP/s
        print(
            f"\nmeasured here: {say_time(seconds)} for {plan.rows} rows, "
            f"{abbreviate(plan.rows * sum(plan.lengths) / seconds)} tokens/s: {abbreviate(reached, 'FLOP/s')} by the "
            f"formula, {reached / plan.device.peak(plan.precision):.1%} of the peak (planned: {plan.mfu:.0%})"
        )


def measure_step(run, plan, steps=10):
    """Seconds of one step of the trainer on random words: the median of some, once the first has traced the graph."""
    strategy = tf_llm.strategy("gpu" if tf.config.list_physical_devices("GPU") else "cpu")
    training = dataclasses.replace(run.training, batch_size=plan.rows, accumulation=1)
    with strategy.scope():
        model = tf_llm.build_model(run.model, plan.precision)
        model.compile(optimizer=tf_llm.build_optimizer(training), loss=tf_llm.build_loss(training))
        step = TrainingStep(model, strategy, training)
    draw = np.random.default_rng(run.training.seed)

    def draw_ids(length, below=run.model.vocabulary_size):
        return tf.constant(draw.integers(1, below, (plan.rows, length), "int32"))

    features = {  # packed rows have columns that hold no ids: one segment, and any position
        column.name: draw_ids(column.shape[1], *[] if column.name.endswith("_ids") else [2]) for column in model.inputs
    }
    targets = draw_ids(run.model.target_length)
    batch, limit = (features, targets, tf.ones(targets.shape)), tf.constant(np.inf, tf.float32)
    seconds = []
    for _ in range(1 + steps):
        started = time.perf_counter()
        step.train(batch, limit).numpy()  # which waits for it
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


if __name__ == "__main__":
    tf_llm.flags.launch(main)
