"""Strategies by name, and the proof that two devices train as one does.

The devices are logical CPUs, which must be made before TensorFlow starts: this file, run as a script, trains on them
and prints what came out, and the tests ask for that.
"""

import doctest
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import make_two_devices, read, start
from tensorflow.python.distribute import multi_worker_util
from test_training_trainer import (
    VOCABULARY,
    Notes,
    build_tiny_model,
    make_tiny_batches,
    take_step,
    train,
    weights_of,
)

from tf_llm.contracts import DECODER_IDS, SOURCE_IDS, UserError
from tf_llm.model.norms import MaskedBatchNorm
from tf_llm.training import distribution
from tf_llm.training.checkpoints import Checkpoints
from tf_llm.training.distribution import choose_precision, detect, strategy
from tf_llm.training.optimizers import TrainingConfig
from tf_llm.training.trainer import Trainer

DECAY = {"adamw_rms": {"weight_decay": 0.1}, "muon": {"weight_decay": 0.1}}

# === Two devices, in a process of their own ===


def _build(chosen, config, folder, seed=0, **model_settings):
    with chosen.scope():
        model = build_tiny_model(config, seed=seed, **model_settings)
        return Trainer(model, chosen, config), Checkpoints(folder, model, model.optimizer), Notes()


def _difference(left, right):
    return max(float(np.abs(one - other).max()) for one, other in zip(left, right, strict=True))


def _compare_training(folder, devices, **settings):
    """Six steps on each: how far weights and sums are apart in the end, and how far the weights went."""
    config = TrainingConfig(**{"learning_rate": 0.05, "steps": 6, **settings})
    weights, sums, moved, evaluated, averages = [], [], [], [], []
    for name, chosen in devices.items():
        trainer, checkpoints, notes = _build(chosen, config, folder / name, dropout=0.0, output_l2=0.1)
        before = weights_of(trainer)
        train(trainer, checkpoints, notes)
        weights.append(weights_of(trainer)[: len(trainer.model.variables)])
        moved.append(_difference(before[: len(weights[-1])], weights[-1]))
        sums.append(np.array([[step.nats, step.correct, step.tokens, step.source_tokens] for step in notes.sums]))
        total = trainer.evaluate(make_tiny_batches().take(3))
        evaluated.append(np.array([total.nats, total.correct, total.tokens]))
        averages.append([average.numpy() for average in trainer.step.optimizer.averages])
    return {
        "averages": _difference(*averages) if config.ema_decay else 0.0,
        "weights": _difference(*weights),
        "sums": _difference(*sums),
        "evaluated": _difference(*evaluated),
        "moved": min(moved),
    }


def _compare_float16(folder, devices):
    """Ten steps in float16 from a scale that is too high: the scale, what was applied, weights and running means."""
    keras.config.set_dtype_policy("mixed_float16")
    results = []
    for name, chosen in devices.items():
        config = TrainingConfig(learning_rate=0.05, steps=10, ema_decay=0.9, unsound_steps=2)
        trainer, checkpoints, notes = _build(chosen, config, folder / name, dropout=0.0)
        trainer.step.scaler.dynamic_growth_steps = 3
        trainer.step.scaler.dynamic_scale.assign(2.0**22)
        train(trainer, checkpoints, notes)
        learned = [*trainer.model.trainable_variables, *trainer.step.optimizer.averages]
        results.append(
            (
                float(trainer.step.scaler.dynamic_scale.numpy()),
                [sums.applied for sums in notes.sums],
                [sums.loss for sums in notes.sums],
                [variable.numpy() for variable in learned],
            )
        )
    keras.config.set_dtype_policy("float32")
    scales, applied, losses, weights = zip(*results, strict=True)
    return {
        "scales": scales,
        "applied": applied,
        "losses": _difference(*([np.array(loss)] for loss in losses)),
        "weights": _difference(*weights),
    }


def _overflow_on_one_device(folder, chosen):
    """One row of the second device has a loss whose slope no float16 holds: how far all that learns goes."""
    keras.config.set_dtype_policy("mixed_float16")
    trainer, _, _ = _build(chosen, TrainingConfig(ema_decay=0.9), folder / "overflow", dropout=0.0)
    keras.config.set_dtype_policy("float32")
    features, targets, weights = next(iter(make_tiny_batches()))
    row = tf.range(len(weights)) == len(weights) - 1
    steep = weights * tf.where(row, 1e6, 1.0)[:, None]
    results = []
    for row_weights in (weights, steep):
        before = _learned(trainer)
        (batch,) = chosen.experimental_distribute_dataset(
            tf.data.Dataset.from_tensors((features, targets, row_weights))
        )
        trainer.step.scaler.dynamic_scale.assign(2.0**20 if row_weights is steep else 2.0**10)
        applied = float(take_step(trainer, batch)[5])
        results.append(
            (applied, _difference(before, _learned(trainer)), float(trainer.step.scaler.dynamic_scale.numpy()))
        )
    return results


def _learned(trainer):
    """Every device's copies of all that learns."""
    variables = [*trainer.model.trainable_variables, *trainer.step.optimizer.variables]
    return [copy.numpy() for v in variables for copy in getattr(v.value, "values", [v.value])]


def _compare_fit(devices):
    """Stock `fit` after a `Trainer` took a step with the same optimiser; every row has the same number of targets."""
    weights = []
    config = TrainingConfig(learning_rate=0.05)
    ids = np.random.default_rng(0).integers(1, VOCABULARY, (32, 10)).astype("int32")
    for chosen in devices.values():
        with chosen.scope():
            model = build_tiny_model(config, dropout=0.0, output_l2=0.1)
        trainer = Trainer(model, chosen, config)
        take_step(trainer, next(iter(chosen.experimental_distribute_dataset(make_tiny_batches()))))
        features = {SOURCE_IDS: ids[:, :4], DECODER_IDS: ids[:, 4:]}
        model.fit(features, ids[:, 4:], batch_size=8, shuffle=False, verbose=0)
        weights.append([variable.numpy() for variable in model.trainable_variables])
    return {"weights": _difference(*weights)}


def _pass_over(folder, chosen):
    """How far weights and optimiser go in a step in which one device of two has gradients that are not finite."""
    trainer, _, _ = _build(chosen, TrainingConfig(optimizer="adamw", weight_decay=0.1), folder / "unsound")
    features, targets, weights = next(iter(make_tiny_batches()))
    spoilt = weights * tf.where(tf.range(len(weights)) == 0, float("inf"), 1.0)[:, None]  # a row of the first device
    moved, applied = [], []
    for row_weights in (weights, spoilt, weights):
        batches = tf.data.Dataset.from_tensors((features, targets, row_weights))
        before = weights_of(trainer)
        (batch,) = chosen.experimental_distribute_dataset(batches)
        applied.append(float(take_step(trainer, batch)[5]))
        learned = [variable.trainable for variable in trainer.model.variables] + [True] * 99
        after = weights_of(trainer)
        moved.append(_difference(*([v for v, kept in zip(w, learned, strict=False) if kept] for w in (before, after))))
    return {"applied": applied, "moved": moved}


def _average_statistics(chosen):
    """The running averages of each device, of a batch norm that saw zeros on the first one and ones on the second."""
    with chosen.scope():
        norm = MaskedBatchNorm()
        norm.build((None, 1, 1))

    @tf.function
    def call():
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        return norm(tf.fill([4, 1, 1], tf.cast(number, tf.float32)), tf.ones([4, 1]), training=True)

    chosen.run(call)
    return [float(copy.numpy()[0]) for copy in norm.moving_mean.value.values]


def _resume(folder, chosen):
    """Dropout on, running means kept: ten steps at once, and five, then five more by objects that know the folder."""
    results = {}
    for name, parts in {"whole": (10,), "halves": (5, 10)}.items():
        for seed, steps in enumerate(parts):
            config = TrainingConfig(learning_rate=0.05, steps=steps, ema_decay=0.9)
            trainer, checkpoints, notes = _build(chosen, config, folder / name, seed=99 * seed)
            train(trainer, checkpoints, notes)
        results[name] = weights_of(trainer)
    trainer.model.optimizer.finalize_variable_values(trainer.model.trainable_variables)
    means = [average.numpy() for average in trainer.step.optimizer.averages for _ in range(2)]
    copies = [copy.numpy() for variable in trainer.model.trainable_variables for copy in variable.value.values]
    return {
        "weights": _difference(*results.values()),
        "steps": notes.steps,
        "copies": _difference(copies, means),
    }


def main(folder):
    """Trains on one logical CPU and on two, and prints a line of JSON."""
    make_two_devices()
    devices = {"cpu": strategy("cpu"), "mirrored": strategy("mirrored")}
    compared = {
        f"{optimizer}, clip_norm={clip_norm}": _compare_training(
            folder / f"{optimizer}{clip_norm}", devices, optimizer=optimizer, clip_norm=clip_norm
        )
        for optimizer in ("adam", "gradient_descent")
        for clip_norm in (0.0, 0.1)
    }
    compared |= {
        optimizer: _compare_training(
            folder / optimizer,
            devices,
            optimizer=optimizer,
            label_smoothing=0.1,
            ema_decay=0.9,
            **DECAY.get(optimizer, {}),
        )
        for optimizer in ("adamw_rms", "adafactor", "muon")
    }
    compared |= {
        f"{parts} parts": _compare_training(
            folder / f"{parts}", devices, accumulation=parts, batch_size=8, clip_norm=0.1, steps_per_call=steps
        )
        for parts, steps in ((2, 1), (4, 3))
    }
    print(
        json.dumps(
            {
                "unsound": _pass_over(folder, devices["mirrored"]),
                "replicas": [chosen.num_replicas_in_sync for chosen in devices.values()],
                "training": compared,
                "fit": _compare_fit(devices),
                "resume": _resume(folder / "resume", devices["mirrored"]),
                "statistics": _average_statistics(devices["mirrored"]),
                "float16": _compare_float16(folder / "float16", devices),
                "overflow": _overflow_on_one_device(folder, devices["mirrored"]),
            }
        )
    )


@pytest.fixture(scope="module")
def two_devices(tmp_path_factory):
    return read(start(__file__, tmp_path_factory.mktemp("two_devices")))


def test_there_are_two_devices(two_devices):
    assert two_devices["replicas"] == [1, 2]


@pytest.mark.parametrize("optimizer", ["adam", "gradient_descent"])
@pytest.mark.parametrize("clip_norm", [0.0, 0.1])
def test_two_devices_train_as_one(two_devices, optimizer, clip_norm):
    """One device has four targets and the other twenty-four; L2 is on."""
    difference = two_devices["training"][f"{optimizer}, clip_norm={clip_norm}"]
    assert difference["weights"] < 1e-5 and difference["moved"] > 0.005
    assert difference["sums"] < 1e-3  # nats of up to 28 targets, in float32
    assert difference["evaluated"] < 1e-3


@pytest.mark.parametrize("optimizer", ["adamw_rms", "adafactor", "muon"])
def test_two_devices_train_as_one_with_decay_smoothing_and_running_means(two_devices, optimizer):
    difference = two_devices["training"][optimizer]
    assert difference["averages"] < 1e-5 and difference["evaluated"] < 1e-3
    assert difference["weights"] < 1e-5 and difference["moved"] > 0.005
    assert difference["sums"] < 1e-3


@pytest.mark.parametrize("parts", [2, 4])
def test_two_devices_train_as_one_in_parts(two_devices, parts):
    """Four parts: in calls of three steps."""
    difference = two_devices["training"][f"{parts} parts"]
    assert difference["weights"] < 1e-5 and difference["moved"] > 0.005
    assert difference["sums"] < 1e-3


def test_step_that_is_unsound_on_one_device_is_passed_over_on_both(two_devices):
    assert two_devices["unsound"]["applied"] == [1.0, 0.0, 1.0]
    first, second, third = two_devices["unsound"]["moved"]
    assert second == 0.0 and min(first, third) > 1e-5


def test_stock_fit_is_right_behind_a_trainer(two_devices):
    assert two_devices["fit"]["weights"] < 1e-5


def test_two_devices_resume_bit_for_bit(two_devices):
    """At the end every device has the running means for weights."""
    assert two_devices["resume"] == {"weights": 0.0, "steps": [6, 7, 8, 9, 10], "copies": 0.0}


def test_two_devices_keep_one_running_average(two_devices):
    """A checkpoint holds that of the first: were they two, a resumed run would score another validation loss."""
    assert two_devices["statistics"] == pytest.approx([0.01 * 0.5] * 2)


def test_two_devices_train_in_float16_as_one(two_devices):
    """The loss scale comes down and grows in the same steps."""
    results = two_devices["float16"]
    assert results["scales"][0] == results["scales"][1] and results["applied"][0] == results["applied"][1]
    assert 0.0 in results["applied"][0] and 1.0 in results["applied"][0]
    assert results["losses"] < 5e-3 and results["weights"] < 5e-3


def test_overflow_on_one_device_is_passed_over_on_both(two_devices):
    (first, moved, _), (second, stayed, scale) = two_devices["overflow"]
    assert (first, second) == (1.0, 0.0) and moved > 1e-5 and stayed == 0.0 and scale == 2.0**19


# === Names ===


def test_docstring_examples():
    result = doctest.testmod(distribution)
    assert result.attempted >= 1 and result.failed == 0


def _list_devices(**counts):
    """Stands in for tf.config.list_logical_devices."""
    return lambda kind: [types.SimpleNamespace(name=f"/{kind}:{n}") for n in range(counts.get(kind, 0))]


def test_unknown_strategy():
    text = "strategy expected one of ['auto', 'cpu', 'gpu', 'mirrored', 'tpu', 'workers']. Received: 'gpus'. Choose one"
    with pytest.raises(UserError, match=f"^{re.escape(text)}"):
        strategy("gpus")


def test_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", _list_devices(CPU=1))
    text = r"^strategy expected a GPU. Received: none that TensorFlow sees. Install its driver, or choose 'auto'$"
    with pytest.raises(UserError, match=text):
        strategy("gpu")


def test_tpu_that_is_not_there():
    """In a process of its own: looking for a TPU starts TensorFlow's devices afresh."""
    command = "from tf_llm.training.distribution import strategy; strategy('tpu')"
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=120)
    *_, last = run.stderr.strip().splitlines()
    assert re.match(r"tf_llm.contracts.UserError: strategy expected a TPU on this machine. Received: .+", last)
    assert last.endswith("Install tensorflow-tpu where there is one, or choose 'auto'")


@pytest.mark.parametrize(
    ("devices", "name"),
    [
        ({"CPU": 1}, "cpu"),
        ({"CPU": 1, "GPU": 1}, "gpu"),
        ({"CPU": 1, "GPU": 4}, "mirrored"),
        ({"CPU": 1, "TPU": 8}, "tpu"),
    ],
)
def test_auto_is_the_best_there_is(monkeypatch, caplog, devices, name):
    monkeypatch.setattr(tf.config, "list_logical_devices", _list_devices(**devices))
    monkeypatch.setitem(distribution.STRATEGIES, name, lambda: f"strategy of {name}")
    caplog.set_level("INFO", logger="tf_llm")
    assert detect() == name
    assert strategy("auto") == f"strategy of {name}"
    assert caplog.messages == [f"training on {name}"]


@pytest.mark.parametrize(
    ("chief", "kind", "index"),
    [(False, "worker", 0), (False, "worker", 1), (True, "chief", 0), (True, "worker", 0), (True, "worker", 1)],
)
def test_one_process_speaks_for_all(monkeypatch, chief, kind, index):
    """The one that TensorFlow takes for it."""
    cluster = {"worker": ["10.0.0.1:1", "10.0.0.2:1"]} | ({"chief": ["10.0.0.3:1"]} if chief else {})
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    expected = multi_worker_util.is_chief(resolver.cluster_spec(), resolver.task_type, resolver.task_id)
    assert distribution.is_chief("workers") == expected
    assert distribution.is_chief("cpu")


def test_cpu_strategy():
    with strategy("cpu").scope():
        weight = tf.Variable(0.0)
    assert strategy("cpu").num_replicas_in_sync == 1 and "CPU:0" in weight.device


# === Precision ===


@pytest.mark.parametrize(
    ("flags", "precision"),
    [
        ("fpu avx512f avx512_bf16 amx_tile", "mixed_bfloat16"),
        ("fpu avx512f amx_bf16", "mixed_bfloat16"),
        ("fpu avx2 avx512f", "float32"),
        (None, "float32"),  # no /proc/cpuinfo
    ],
)
def test_precision_of_a_cpu(monkeypatch, tmp_path, flags, precision):
    if flags:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\nbugs : none\n")
    monkeypatch.setattr(distribution, "CPU_INFORMATION", Path(tmp_path / "cpuinfo"))
    monkeypatch.setattr(tf.config, "list_logical_devices", _list_devices(CPU=1))
    monkeypatch.setattr(tf.config, "list_physical_devices", _list_devices(CPU=1))
    assert choose_precision("auto") == precision
    assert keras.dtype_policies.get(precision).variable_dtype == "float32"


@pytest.mark.parametrize(
    ("details", "precision"),
    [
        ({"compute_capability": (8, 0)}, "mixed_bfloat16"),
        ({"compute_capability": (9, 0)}, "mixed_bfloat16"),
        ({"compute_capability": (7, 5)}, "float32"),
        ({}, "float32"),
    ],
)
def test_precision_of_a_gpu(monkeypatch, details, precision):
    monkeypatch.setattr(tf.config, "list_logical_devices", _list_devices(CPU=1, GPU=1))
    monkeypatch.setattr(tf.config, "list_physical_devices", _list_devices(CPU=1, GPU=1))
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: details)
    assert choose_precision("auto") == precision


def test_precision_of_a_tpu_and_by_name(monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", _list_devices(CPU=1, TPU=8))
    assert choose_precision("auto") == "mixed_bfloat16"
    assert choose_precision("mixed_float16") == "mixed_float16"


if __name__ == "__main__":
    main(Path(sys.argv[1]))


def test_each_worker_makes_its_own_rows():
    """Two workers of two devices: what each is asked for, and the rows that each device gets of batches of 8."""

    class Workers:
        extended = types.SimpleNamespace(_in_multi_worker_mode=lambda: True)

        def distribute_datasets_from_function(self, make):
            contexts = [tf.distribute.InputContext(2, number, num_replicas_in_sync=4) for number in range(2)]
            return [make(context) for context in contexts]

    def make_batches(first, host=0, hosts=1):
        asked.append((first, host, hosts))
        return tf.data.Dataset.range(8 * first, 8 * first + 16).shard(hosts, host).batch(8 // hosts, True)

    asked = []
    shares = distribution.distribute(Workers(), make_batches, 3)
    assert asked == [(3, 0, 2), (3, 1, 2)]
    assert [list(map(list, share.as_numpy_iterator()))[:2] for share in shares] == [
        [[24, 26], [28, 30]],
        [[25, 27], [29, 31]],
    ]
    (batch, *_) = distribution.distribute(strategy("cpu"), make_batches, 3)
    assert batch.numpy().tolist() == list(range(24, 32)) and asked[2:] == [(3, 0, 1)]
