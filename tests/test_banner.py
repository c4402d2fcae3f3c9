"""The banner of a run: which settings it names and where they come from, what it says of costs, time and devices."""

import dataclasses
import doctest

import pytest
import tensorflow as tf

from tf_llm import banner
from tf_llm.banner import describe_run
from tf_llm.recipes import RECIPES
from tf_llm.training import devices
from tf_llm.training.costs import count_flops, count_parameters
from tf_llm.training.devices import measure_peak


def vary(run, stage, **changes):
    return dataclasses.replace(run, **{stage: dataclasses.replace(getattr(run, stage), **changes)})


def describe(run, peak=1e12, **settings):
    """{what: text} of a banner, and the lines of its settings under ""."""
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    said = {"": []}
    for line in describe_run(run, strategy, "runs/a", "runs/a/data", peak=peak, **settings).splitlines():
        assert len(line) <= 150, line
        what, text = line[:13].strip(), line[13:]
        if what:
            said[what] = text
        else:
            said[""].append(text.split())
    return said


def test_docstring_examples():
    result = doctest.testmod(banner)
    assert result.attempted >= 6 and result.failed == 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_as_it_is_fits_a_screen(recipe):
    said = describe(RECIPES[recipe](), precision="mixed_bfloat16")
    assert said[""] == [] and said["recipe"].startswith(f"{recipe}, all of its ")
    texts = ["recipe", "versions", "devices", "parameters", "a step", "memory", "checkpoint", "time", "pages", "folder"]
    assert list(said) == ["", *texts]


def test_settings_that_are_not_the_recipes_are_named_with_what_set_them():
    run = vary(vary(RECIPES["best"](), "training", steps=300, clip_norm=0.5), "html", main_content=False)
    said = describe(run, origins={"training.steps": "--training.steps"})
    assert said["recipe"].endswith(" settings, but for")
    assert said[""] == [
        ["html.main_content", "False", "set", "in", "Python,", "in", "place", "of", "True"],
        ["training.clip_norm", "0.5", "set", "in", "Python,", "in", "place", "of", "1.0"],
        ["training.steps", "300", "--training.steps,", "in", "place", "of", "0"],
    ]


def test_a_run_of_no_recipe_is_told_from_the_defaults():
    said = describe(dataclasses.replace(RECIPES["article"](), recipe="mine", tokens="bpe"))
    assert ["tokens", "bpe", "set", "in", "Python,", "in", "place", "of", "words"] in said[""]


def test_costs_are_those_of_the_formulas():
    run = RECIPES["article"]()
    said = describe(run, precision="float32")
    parameters, flops = sum(count_parameters(run.model).values()), sum(count_flops(run.model).values())
    assert said["parameters"].startswith(f"{parameters / 1e6:.3g} M: decoder ")
    assert (
        said["a step"] == f"16 rows of 64 + 64 tokens, {16 * flops / 1e9:.3g} GFLOP, {flops / 128e6:.3g} MFLOP a token"
    )
    assert said["checkpoint"].startswith(f"{12 * parameters / 1e6:.3g} MB")  # Adam
    assert said["devices"].endswith("float32; matrix products at 1 TFLOP/s, measured; mfu is the share a step reaches")


@pytest.mark.parametrize(
    ("training", "peak", "expected"),
    [
        ({"steps": 1_000}, 1e12, "1,000 steps, 115 ms a step if mfu is 30%, as is usual, 1.91 min in all"),
        (
            {"seconds": 60.0},
            1e12,
            "1 min of training, 115 ms a step if mfu is 30%, as is usual, 523 steps; planned when the first steps were "
            "timed",
        ),
        ({"steps": 7}, 0.0, "7 steps, of an unknown speed"),
    ],
    ids=["steps", "seconds", "unknown"],
)
def test_time(training, peak, expected):
    assert describe(vary(RECIPES["article"](), "training", **training), peak=peak)["time"] == expected


def test_precisions_that_cost_nothing_known_have_no_estimate():
    assert "memory" not in describe(RECIPES["article"](), precision="bfloat16")


# === What devices reach ===


@pytest.fixture
def rates(monkeypatch):
    """What was asked of a machine whose every device does 1e12 FLOP/s, whatever the size."""
    asked = []

    def measure(dtype, seconds, size, device):
        asked.append((device, dtype, size))
        return 1e12

    monkeypatch.setattr(devices, "measure_matmul_peak", measure)
    devices._measure_device.cache_clear()
    yield asked
    devices._measure_device.cache_clear()


class FakeStrategy:
    """Some devices of this process, and all of the run's."""

    def __init__(self, devices, replicas):
        self.extended, self.num_replicas_in_sync = self, replicas
        self.worker_devices = devices


@pytest.mark.parametrize(
    ("names", "replicas", "expected"),
    [
        (["/device:CPU:0"], 1, 1e12),
        (["/device:CPU:0", "/device:CPU:1"], 2, 1e12),  # the cores are the same
        (["/device:CPU:0"], 3, 3e12),  # machines
        (["/device:GPU:0", "/device:GPU:1"], 2, 2e12),
        (["/device:GPU:0", "/device:GPU:1"], 8, 8e12),
        (["/device:TPU:0"], 1, 0.0),
    ],
    ids=["cpu", "logical cpus", "cpu workers", "gpus", "gpu workers", "tpu"],
)
def test_the_peak_of_all_devices_together(rates, names, replicas, expected):
    for _ in range(2):
        assert measure_peak(FakeStrategy(names, replicas), "mixed_bfloat16") == expected
    sizes = [512, 1_024, 2_048, 4_096] * (expected > 0)  # a product of 8,192 would take more than .2 s
    assert rates == [(names[0], "bfloat16", size) for size in sizes]  # and once only


def test_the_peak_is_measured_without_a_draw_from_the_random_state():
    devices._measure_device.cache_clear()
    draws = []
    for measures in (False, True):
        tf.random.set_seed(3)
        if measures:
            assert measure_peak(tf.distribute.OneDeviceStrategy("/cpu:0"), "float32") > 1e8
        draws.append(tf.random.uniform([4]).numpy().tolist())
    assert draws[0] == draws[1]
