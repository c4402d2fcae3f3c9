"""How many batches the input pipeline makes for each that a training step takes, when it has one core to itself.

    python examples/benchmarks/input_pipeline_speed.py            about 2 minutes on 2 cores
    python examples/benchmarks/input_pipeline_speed.py --quick    a narrower model and fewer batches, half a minute

The step is that of training_speed.py, in a process of its own on all cores: 4 + 4 layers, d_model 256, 32 rows of
128 + 128 tokens, mixed_bfloat16. Then this process, on one core and with one thread for operations, reads shards from
the disk, written here of made-up ids, and draws batches as the trainer does: shuffled, cut into source and target,
handed out by `experimental_distribute_dataset`. Once more, the blocks are read from the disk as those of a split that
is too large for a constant. For the recipe `best`, with its shorter rows, its rate is shown, too.

The goal: 20 times as many tokens a second as the step takes, either way.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import app, flags

from tf_llm import recipes
from tf_llm.data import pipeline
from tf_llm.data.objectives import build_objective
from tf_llm.data.shards import ShardWriter, load_shards, write_manifest
from tf_llm.training.distribution import strategy

STEP = Path(__file__).resolve().parent / "peers" / "training_steps.py"
GOAL = 20.0
SIZES = {"layers": 4, "d_model": 256, "heads": 4, "d_ff": 1024, "vocabulary": 8_192, "batch": 32, "length": 128}
PLACES = ("embedding", "attention", "feed_forward", "residual")  # of dropout, as in the recipe
NARROW = {"d_model": 128, "d_ff": 512}
PAGES, PAGE = 2_000, 1_500  # made-up pages, and about how many ids one has

_QUICK = flags.DEFINE_bool("quick", False, "A narrower model, fewer batches; the goal stays.")
_STEPS = flags.DEFINE_integer("steps", 15, "Timed steps of the model.")
_SECONDS = flags.DEFINE_float("seconds", 10.0, "How long batches are drawn of each kind.")


def measure_step(sizes, steps):
    """Seconds of a training step, the median of so many; in a process of its own."""
    command = [sys.executable, str(STEP), "tf_llm", f"--sizes={json.dumps(sizes | {'places': PLACES})}"]
    result = subprocess.run(command, input="step\n" * steps, capture_output=True, text=True)
    if result.returncode:
        print(f"could not run: the training step ended with\n{result.stderr[-2000:]}")
        sys.exit(2)
    return statistics.median(json.loads(line) for line in result.stdout.splitlines()[-steps:])


def write_shards(folder, config, vocabulary_size):
    """Shards of pages of random ids and lengths."""
    draw = np.random.default_rng(0)
    splits = []
    for split, pages in (("train", PAGES), ("validation", 1)):
        writer = ShardWriter(folder, split, config, vocabulary_size)
        for length in draw.geometric(1 / PAGE, pages):
            writer.add(draw.integers(3, vocabulary_size, length).tolist())
        splits.append(writer.close())
    write_manifest(folder, config, vocabulary_size, *splits, {})
    return load_shards(folder)


def measure_pipeline(run, seconds, limit=pipeline.IN_MEMORY):
    """Batches a second that the trainer would be given, and the tokens that each holds."""
    pipeline.IN_MEMORY = limit  # bytes of a split that becomes a constant
    with tempfile.TemporaryDirectory() as folder:
        shards = write_shards(folder, run.shards, run.model.vocabulary_size)
        source_length, target_length = run.model.source_length, run.model.target_length
        sizes = {"vocabulary_size": shards.vocabulary_size, "overlap": shards.config.overlap}
        objective = build_objective(run.objective, source_length, target_length, training=True, **sizes)
        dataset = pipeline.make_training_batches(shards, objective, run.training.batch_size, seed=0)
        batches = iter(strategy("cpu").experimental_distribute_dataset(dataset))
        for _ in range(20):  # what was read ahead
            next(batches)
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            next(batches)
            count += 1
        rate = count / (time.perf_counter() - begin)
        del batches, dataset  # they read ahead, and the folder goes
    return rate, run.training.batch_size * (source_length + target_length)


def main(_):
    if not hasattr(os, "sched_setaffinity"):
        print("could not run: expected an operating system that binds a process to a core, such as Linux")
        sys.exit(2)
    sizes, steps, seconds = SIZES, _STEPS.value, _SECONDS.value
    if _QUICK.value:
        sizes, steps, seconds = sizes | NARROW, min(steps, 5), min(seconds, 3.0)
    step = measure_step(sizes, steps)

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # TensorFlow's threads, which come later, inherit it
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    start, best = recipes.transformer(), recipes.best()
    same = dataclasses.replace(
        start,
        shards=dataclasses.replace(start.shards, block_length=2 * sizes["length"], overlap=sizes["length"]),
        model=dataclasses.replace(
            start.model,
            vocabulary_size=sizes["vocabulary"],
            source_length=sizes["length"],
            target_length=sizes["length"],
        ),
        training=dataclasses.replace(start.training, batch_size=sizes["batch"]),
    )
    tokens_of_step = 2 * sizes["length"] * sizes["batch"] / step
    print(f"{'':28}{'batches/s':>10}{'tokens/s':>12}")
    print(f"{'the step, on all cores':28}{1 / step:10.2f}{tokens_of_step:12,.0f}")
    rates = {}
    for name, run, *limit in (
        ("its input, on one core", same),
        ("the same, from the disk", same, 0),
        ("input of `best`, one core", best),
    ):
        rate, tokens = measure_pipeline(run, seconds, *limit)
        rates[name] = rate * tokens
        print(f"{name:28}{rate:10.1f}{rates[name]:12,.0f}")
    ratio, disk = (rates[name] / tokens_of_step for name in ("its input, on one core", "the same, from the disk"))
    print(f"\nthe pipeline makes {ratio:.0f} times what the step takes, {disk:.0f} times from the disk")
    result = {
        "name": "input_pipeline_speed",
        "value": round(ratio, 1),
        "goal": GOAL,
        "unit": "times the step's tokens/s",
    }
    holds = min(ratio, disk) >= GOAL
    print(json.dumps(result | {"holds": holds}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
