"""Does a run learn the same on one device and on many?

    python examples/benchmarks/strategies_agree.py            four settings of devices, four ways: 2 minutes
    python examples/benchmarks/strategies_agree.py --quick    one and two devices, 5 steps: 40 seconds

One seed and one model (the recipe `best`, smaller, without dropout, in float32, with L2, clipping and label smoothing)
take 20 steps on one device; on MirroredStrategy over two and over four, which are logical CPUs; and on two real worker
processes that sum over the network (MultiWorkerMirroredStrategy). Each does so with the batch whole, in 2 and in 4
parts (gradient accumulation), and with five steps in a call of the graph. Padding is uneven: the first row has 2
targets, the last has 30. Compared are the losses of all steps; the goal is that none differs by more than a
hundred-thousandth from that of one device.

With dropout on, replicas must differ: each is asked for the mask that it draws for the same ones.

You should see a table of differences of some 1e-7, and "replicas draw different masks: yes".
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from absl import app, flags

GOAL = 1e-5
LEARN, BATCH, SOURCE, TARGET, VOCABULARY = 20, 16, 24, 32, 101
WAYS = {
    "whole": {},
    "in 2 parts": {"parts": 2},
    "in 4 parts": {"parts": 4},
    "5 a call": {"steps_per_call": 5},
}  # how batches are taken
_QUICK = flags.DEFINE_bool("quick", False, "One device against two, 5 steps, and no workers.")
_DEVICES = flags.DEFINE_integer("devices", 0, "Train on so many logical CPUs, and print the losses as JSON.")
_STRATEGY = flags.DEFINE_string("strategy", "mirrored", "The strategy that trains on them.")
_STEPS = flags.DEFINE_integer("steps", LEARN, "Steps of a run.")


def make_batches(first=0):
    """Endless batches with more and more targets from the first row to the last, batch n a function of n alone."""
    import tensorflow as tf

    from tf_llm.contracts import DECODER_IDS, SOURCE_IDS

    def make_batch(number):
        ids = tf.random.stateless_uniform([BATCH, SOURCE + TARGET], [7, number], 3, VOCABULARY, tf.int32)
        lengths = tf.linspace(2.0, TARGET - 2.0, BATCH)
        weights = tf.sequence_mask(tf.cast(lengths, tf.int32), TARGET, tf.float32)  # [B, T]
        targets = ids[:, SOURCE:] * tf.cast(weights, tf.int32)  # [B, T]
        decoder_ids = tf.pad(targets[:, :-1], [[0, 0], [1, 0]])  # [B, T]
        return {SOURCE_IDS: ids[:, :SOURCE], DECODER_IDS: decoder_ids}, targets, weights

    return tf.data.Dataset.range(first, tf.int64.max).map(make_batch)


def train(strategy, steps, parts=1, steps_per_call=1):
    """The losses of a run whose batches are divided into so many parts on each device."""
    import dataclasses

    import keras
    import tensorflow as tf

    import tf_llm
    from tf_llm.training.step import Sums, TrainingStep

    run = tf_llm.recipes.best()
    shape = {"source_length": SOURCE, "target_length": TARGET, "vocabulary_size": VOCABULARY, "d_model": 32, "d_ff": 64}
    model_config = dataclasses.replace(run.model, output_l2=0.01, **shape)
    config = dataclasses.replace(
        run.training, accumulation=parts, steps_per_call=steps_per_call, batch_size=BATCH, label_smoothing=0.1
    )
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = tf_llm.build_model(model_config)
        model.compile(tf_llm.build_optimizer(config), tf_llm.build_loss(config))
    step, results, limit = TrainingStep(model, strategy, config), [], tf.constant(float("inf"))
    batches = iter(strategy.experimental_distribute_dataset(make_batches()))
    while len(results) < steps:
        if steps_per_call > 1:
            results += step.train_several(batches, [config.learning_rate] * steps_per_call, limit).numpy().tolist()
        else:
            results.append(step.train(next(batches), limit).numpy().tolist())
    return [Sums(*result).loss for result in results]


def draw_masks(strategy):
    """A digest of the mask that each replica of this process draws in one step of a model's dropout."""
    import hashlib

    import numpy as np
    import tensorflow as tf

    from tf_llm.contracts import on_replica
    from tf_llm.model.dropout import Dropout

    with strategy.scope():
        dropout = Dropout(0.5, seed=1)
        dropout.build((1, 100))

    @tf.function
    def draw():
        with on_replica(tf.distribute.get_replica_context().replica_id_in_sync_group):
            return dropout(tf.ones([1, 100]), training=True)

    masks = strategy.experimental_local_results(strategy.run(draw))
    return [hashlib.sha256(np.asarray(mask).tobytes()).hexdigest() for mask in masks]


def work():
    """What one process does: all ways to divide, on its devices."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    devices = [tf.config.LogicalDeviceConfiguration()] * _DEVICES.value
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    import tf_llm

    strategy = tf_llm.strategy(_STRATEGY.value)
    # A part has the same number of rows on every device, so four devices have room for four parts of one row.
    losses = {way: train(strategy, _STEPS.value, **settings) for way, settings in WAYS.items()}
    print(json.dumps({"losses": losses, "masks": draw_masks(strategy)}))


def start(strategy, devices, steps, **environment):
    """Starts this script as a process that trains."""
    command = [sys.executable, str(Path(__file__).resolve()), f"--devices={devices}", f"--strategy={strategy}"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""} | environment
    return subprocess.Popen(
        [*command, f"--steps={steps}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def finish(process):
    """What it printed; ends with status 2 where it failed."""
    output, errors = process.communicate(timeout=600)
    if process.returncode:
        print(f"could not run: {errors[-2000:]}")
        sys.exit(2)
    return json.loads(output.splitlines()[-1])


def start_workers(count, steps):
    """Processes that know of each other."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    cluster = {"worker": [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]}
    for each in sockets:
        each.close()
    return [
        start("workers", 1, steps, TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}}))
        for i in range(count)
    ]


def main(_):
    if _DEVICES.value:
        return work()
    steps = 5 if _QUICK.value else LEARN
    results = {"1 device": finish(start("cpu", 1, steps))}
    for devices in (2,) if _QUICK.value else (2, 4):
        results[f"Mirrored, {devices} devices"] = finish(start("mirrored", devices, steps))
    masks = {name: result["masks"] for name, result in results.items()}
    if not _QUICK.value:
        workers = [finish(worker) for worker in start_workers(2, steps)]
        results |= {f"2 processes, worker {i}": worker for i, worker in enumerate(workers)}
        masks["2 processes"] = [mask for worker in workers for mask in worker["masks"]]

    one = results["1 device"]["losses"]["whole"]
    print(f"{'':24}largest relative difference of {steps} losses, with batches")
    print(f"{'':24}" + "".join(f"{way:>14}" for way in WAYS))
    worst = 0.0
    for name, result in results.items():
        differences = [
            max(abs(loss / other - 1) for loss, other in zip(losses, one, strict=True))
            for losses in result["losses"].values()
        ]
        worst = max(worst, *differences)
        print(f"{name:24}" + "".join(f"{value:14.1e}" for value in differences))
    print(f"\nlosses of one device: {one[0]:.4f} at first, {one[-1]:.4f} at last")
    print("masks: " + ", ".join(f"{len(set(own))} of {len(own)} on {name}" for name, own in masks.items()))
    differ = all(len(set(own)) == len(own) for own in masks.values())
    print(f"replicas draw different masks: {'yes' if differ else 'NO'}")
    record = {"name": "strategies_agree", "value": worst, "goal": GOAL, "unit": "relative difference of a loss"}
    print(json.dumps(record | {"holds": worst <= GOAL and differ}))
    sys.exit(0 if worst <= GOAL and differ else 1)


if __name__ == "__main__":
    app.run(main)
