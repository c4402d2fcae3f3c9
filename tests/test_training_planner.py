"""Plans by hand, kinds of devices, and the errors of both."""

import dataclasses
import doctest
import math

import pytest

from tf_llm.contracts import UserError
from tf_llm.model.config import ModelConfig
from tf_llm.model.sizes import build_size
from tf_llm.training import devices, planner
from tf_llm.training.costs import count_flops, count_memory
from tf_llm.training.devices import DEVICES, DeviceKind, find_device, measure_matmul_peak
from tf_llm.training.optimizers import TrainingConfig
from tf_llm.training.planner import plan_training

MODEL = build_size("tiny")
TRAINING = TrainingConfig(batch_size=64, precision="float32")
SLOW = DeviceKind(name="slow", float32_flops=1e12, bfloat16_flops=4e12, memory=8e9, source="made up")


def plan(model=MODEL, training=TRAINING, device=SLOW, count=2, **settings):
    return plan_training(model, training, device, count, **({"corpus_bytes": 1e9} | settings))


@pytest.mark.parametrize("module", [devices, planner], ids=["devices", "planner"])
def test_examples_in_docstrings(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_a_plan_by_hand():
    made = plan(mfu=0.25, bytes_per_token=5.0)
    row = sum(count_flops(MODEL).values())
    assert made.rows == 32 and made.step_flops == 64 * row
    assert made.step_seconds == pytest.approx(64 * row / (2 * 1e12 * 0.25))
    assert made.tokens_per_second == pytest.approx(64 * (128 + 128) / made.step_seconds)
    assert made.steps == math.ceil(1e9 / 5 / (64 * 128)) and made.pass_seconds == made.steps * made.step_seconds
    assert made.memory == count_memory(MODEL, "adam", "float32", 32)
    assert made.checkpoint_bytes == 3 * 4 * made.num_parameters
    assert made.wanted_tokens == 20 * made.num_parameters and made.supported_parameters == 1e9 / 5 / 20
    assert made.flops_by_rule == 6 * made.num_parameters * 64 * 256


def test_a_corpus_may_be_told_in_tokens():
    assert plan(corpus_bytes=None, corpus_tokens=250e6) == plan(corpus_bytes=1e9, bytes_per_token=4.0)
    assert plan(tokens_per_row=64).steps == pytest.approx(2 * plan().steps, abs=1)


def test_twice_the_devices_with_twice_the_batch_take_half_the_time():
    once, twice = plan(), plan(training=dataclasses.replace(TRAINING, batch_size=128), count=4)
    assert once.memory == twice.memory and once.step_seconds == pytest.approx(twice.step_seconds)
    assert twice.pass_seconds == pytest.approx(once.pass_seconds / 2, rel=0.01)


def test_bfloat16_is_faster_where_there_is_some_and_auto_takes_it():
    half = plan(training=dataclasses.replace(TRAINING, precision="auto"))
    assert half.precision == "mixed_bfloat16" and half.step_seconds == pytest.approx(plan().step_seconds / 4)


def test_an_update_takes_as_long_as_memory_needs_to_move_it():
    narrow = dataclasses.replace(SLOW, bandwidth=1e6)
    moved = 4 * plan().num_parameters * (2 * (1 + 2) + 1)  # weights and Adam's two read and written, gradients read
    assert plan(device=narrow).step_seconds == pytest.approx(moved / 1e6)
    assert plan(device=dataclasses.replace(SLOW, bandwidth=1e15)).step_seconds == plan().step_seconds


@pytest.mark.parametrize("memory", [1e9, 8e9], ids=["1 GB", "8 GB"])
def test_most_rows_have_room_and_one_more_has_not(memory):
    device = dataclasses.replace(SLOW, memory=memory)
    most = plan(device=device).most_rows
    assert most >= 1
    for rows, has_room in ((most, True), (most + 1, False)):
        made = plan(training=dataclasses.replace(TRAINING, batch_size=rows), device=device, count=1)
        assert (sum(made.memory.values()) <= planner.ROOM * memory) is has_room
        assert made.most_rows == most and (("it fits" in made.describe()) is has_room)


def test_accumulation_takes_fewer_rows_at_a_time_and_no_less_time():
    parts = plan(training=dataclasses.replace(TRAINING, accumulation=4))
    assert parts.rows == 8 and parts.memory["activations"] * 4 == plan().memory["activations"]
    assert parts.step_seconds == plan().step_seconds and parts.memory["gradients"] > plan().memory["gradients"]


def test_a_model_too_large_is_told_so():
    text = plan(build_size("t5_3b"), TrainingConfig(batch_size=2)).describe()
    assert "DOES NOT FIT  not even one row would" in text
    tight = plan(training=dataclasses.replace(TRAINING, batch_size=10_000)).describe()
    assert "DOES NOT FIT" in tight and "take a smaller batch, or accumulate" in tight


def test_the_table_says_what_the_article_asks():
    """How much data, and how many devices: terabytes, and hundreds."""
    training = dataclasses.replace(TRAINING, precision="auto")
    made = plan(training=training, device=DEVICES["a100-80gb"], corpus_bytes=3e12)
    text = made.describe()
    assert "750 G tokens: what 4 crawls leave, 1.6 PB of HTML" in text
    assert "37.5 G  parameters; by 6·N·D, they are trained in 30 days with 696 of these" in text
    assert len(text.splitlines()) == len(made.tabulate()) == 15


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"count": 0}, "devices expected a whole number of at least 1. Received: 0"),
        ({"tokens_per_row": 0}, "tokens_per_row expected a whole number of at least 1. Received: 0"),
        ({"bytes_per_token": 0}, "bytes_per_token expected a number above 0. Received: 0"),
        ({"corpus_bytes": -1}, "the corpus expected a number above 0. Received: -1"),
        ({"corpus_bytes": 0.0}, "the corpus expected a number above 0. Received: 0.0"),
        ({"corpus_bytes": math.nan}, "the corpus expected a number above 0. Received: nan"),
        ({"mfu": 0}, r"mfu expected a share in \(0, 1\]. Received: 0; 0.3 is usual"),
        ({"corpus_tokens": 5}, "corpus_bytes or corpus_tokens, one of the two. Received: 1000000000.0 and 5"),
        ({"corpus_bytes": None}, "corpus_bytes or corpus_tokens, one of the two. Received: None and None"),
        (
            {"training": TrainingConfig(precision="float8")},
            r"precision expected one of \['float32', .*Received: 'float8'",
        ),
        ({"count": 48}, "training.batch_size expected a multiple of 48, .* Received: 64. Choose 96"),
        (
            {"count": 8, "training": dataclasses.replace(TRAINING, accumulation=16)},
            "expected a multiple of 128, .* Received: 64. Choose 128",
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_wrong_figures_are_one_line_errors(settings, message):
    with pytest.raises(UserError, match=message):
        plan(**settings)


# === Devices ===


@pytest.mark.parametrize("name", DEVICES)
def test_published_figures_are_of_the_right_size(name):
    kind = DEVICES[name]
    assert kind.name == name and kind.source
    assert 8e12 <= kind.float32_flops <= max(kind.bfloat16_flops, kind.float16_flops) < 1e15
    assert 8e9 <= kind.memory < 1e11 and 3e11 <= kind.bandwidth < 4e12
    expected = "float32" if name in ("t4", "v100-16gb", "v100-32gb") else "mixed_bfloat16"
    assert kind.choose_precision("auto") == expected and kind.choose_precision("float32") == "float32"


def test_a_precision_that_is_emulated_is_no_faster_than_float32():
    assert DEVICES["v100-16gb"].peak("mixed_bfloat16") == DEVICES["v100-16gb"].peak("float32")
    assert DEVICES["v100-16gb"].peak("mixed_float16") == 125e12
    assert DEVICES["tpu-v4"].peak("mixed_bfloat16") == 275e12


def test_an_unknown_device_lists_the_known():
    with pytest.raises(UserError, match=r"one of \['a100-40gb', .*'cpu', .*'v100-32gb'\]. Received: 'abacus'"):
        find_device("abacus")


def test_the_cpu_at_hand_is_measured():
    rate = measure_matmul_peak("float32", seconds=0.05, size=256)
    assert 1e8 < rate < 1e14
    kind = find_device("cpu", seconds=0.2)
    assert kind.source == "measured here" and kind.float32_flops > rate / 20 and kind.memory > 1e8
    made = plan(ModelConfig(), dataclasses.replace(TRAINING, precision="auto"), kind, 1)
    assert made.precision == kind.choose_precision("auto") and made.step_seconds > 0
