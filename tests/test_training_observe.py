"""What is written of a run: metrics.jsonl, TensorBoard, and what becomes of both when a run resumes."""

import json
import math
import re
import types

import pytest
import tensorflow as tf
from tensorflow.core.util import event_pb2

from tf_llm.contracts import UserError
from tf_llm.training import observe
from tf_llm.training.clock import Clock
from tf_llm.training.observe import Observer
from tf_llm.training.step import Sums

tf.config.list_logical_devices()  # TensorFlow's remarks on what it finds belong in no test


def build_observer(folder, log_seconds=0.0):
    return Observer(folder, lambda nats: nats / math.log(2) / 4, log_seconds)  # four bytes a token


def build_clock(*seconds):
    clock = Clock()
    clock.latest, clock.total = list(seconds), sum(seconds)
    return clock


def read_metrics(folder):
    refuse = lambda constant: pytest.fail(f"{constant} is not JSON")  # noqa: E731
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def read_board(folder):
    """{(tag, step): value} of all TensorBoard files."""
    files = sorted(str(path) for path in (folder / "tensorboard").iterdir())
    events = [event_pb2.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(files)]
    values = [(event.step, value) for event in events for value in event.summary.value]
    assert all(value.metadata.plugin_data.plugin_name == "scalars" for _, value in values)
    return {(value.tag, step): float(tf.make_ndarray(value.tensor)) for step, value in values}


def observe_steps(folder, steps, total=0, first=0):
    observer = build_observer(folder)
    observer.start(first, total)
    for step in steps:
        observer.step(step, Sums(10.0 * step, 1.0, 10.0), 0.1, build_clock(1.0))
    observer.close()


def test_records_say_what_was_measured(tmp_path, capfd):
    observer = build_observer(tmp_path, log_seconds=1e9)
    observer.start(0, 4)
    clock = build_clock(9.0, 0.5, 1.0, 1.5, 1.0)  # an earlier step and four that are new
    for step, sums in enumerate(
        [
            Sums(20.0, 1.0, 10.0, 5.0, gradient_norm=2.0),
            Sums(60.0, 2.0, 20.0, 5.0, gradient_norm=4.0),
            Sums(10.0, 5.0, 10.0, 7.0, gradient_norm=3.0),
            Sums(math.inf, 5.0, 10.0, 7.0, gradient_norm=math.nan, applied=0.0),  # passed over
        ],
        1,
    ):
        observer.step(step, sums, 0.25, clock)
    observer.validation(4, Sums(30.0, 3.0, 10.0))
    observer.close()

    training, validation = read_metrics(tmp_path)
    loss = 90 / 40
    assert training == pytest.approx(
        {
            "split": "train",
            "step": 4,
            "loss": loss,
            "perplexity": math.exp(loss),
            "accuracy": 8 / 40,
            "bits_per_byte": loss / math.log(2) / 4,
            "learning_rate": 0.25,
            "gradient_norm": 3.0,
            "skipped_steps": 1,
            "tokens_per_second": (50 + 24) / 4.0,
        }
    )
    assert validation == pytest.approx(
        {
            "split": "validation",
            "step": 4,
            "loss": 3.0,
            "perplexity": math.exp(3.0),
            "accuracy": 0.3,
            "bits_per_byte": 3.0 / math.log(2) / 4,
        }
    )
    assert capfd.readouterr().err.splitlines() == [
        "step 00004/00004 | train      | loss 2.250 | perplexity 9 | accuracy 20.0% | 0.812 bits/byte | 18 tokens/s | "
        "0 s left",
        "step 00004/00004 | validation | loss 3.000 | perplexity 20 | accuracy 30.0% | 1.082 bits/byte",
    ]


def test_tensorboard_holds_the_same_figures(tmp_path):
    observe_steps(tmp_path, [1, 2], total=2)
    observer = build_observer(tmp_path)
    observer.start(2, 3)
    observer.validation(2, Sums(30.0, 3.0, 10.0))
    observer.close()
    records = read_metrics(tmp_path)
    assert len(records) == 3
    expected = {
        (f"{record['split']}/{name}", record["step"]): value
        for record in records
        for name, value in record.items()
        if name not in ("split", "step")
    }
    assert read_board(tmp_path) == pytest.approx(expected, rel=1e-6)


def test_lines_go_by_the_clock(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(observe, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    observer = build_observer(tmp_path, log_seconds=10.0)
    observer.start(0, 0)
    clock = Clock()
    for step in range(1, 301):
        if step == 200:
            observer.start(step, 300)
        now[0] += 0.25
        clock.latest = [*clock.latest, 0.25][-100:]
        observer.step(step, Sums(10.0, 1.0, 10.0, 30.0), 0.1, clock)
    observer.close()
    records = read_metrics(tmp_path)
    assert [record["step"] for record in records] == [40, 80, 120, 160, 200, 240, 280, 300]
    assert [record["tokens_per_second"] for record in records] == pytest.approx([160.0] * 8)


def test_run_without_a_plan_and_time_that_is_left(tmp_path, capfd):
    observer = build_observer(tmp_path)
    observer.start(0, 0)
    observer.step(7, Sums(1.0, 1.0, 1.0), 0.1, build_clock(2.0))
    observer.start(7, 10)
    observer.step(8, Sums(1.0, 1.0, 1.0), 0.1, build_clock(2.0))
    observer.close()
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("step 00007/? | train") and lines[0].endswith("| 0 s left")
    assert lines[1].startswith("step 00008/00010 | train") and lines[1].endswith("| 4 s left")


@pytest.mark.parametrize("nats", [math.inf, math.nan, 1e6])
def test_figures_that_are_no_numbers_are_null(tmp_path, nats):
    observer = build_observer(tmp_path)
    observer.start(0, 0)
    observer.validation(1, Sums(nats, 0.0, 1.0))
    observer.close()
    (record,) = read_metrics(tmp_path)
    assert record["loss"] == (nats if math.isfinite(nats) else None)
    assert record["accuracy"] == 0.0


def test_metrics_that_cannot_be_written_are_an_error(tmp_path):
    observer = build_observer(tmp_path)
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(
        UserError, match=r"expected to write to .*metrics.jsonl. Received: Is a directory. Free some sp"
    ):
        observer.validation(1, Sums(1.0, 1.0, 1.0))
    observer.close()


# === Resuming ===


def test_steps_that_are_done_again_are_noted_once(tmp_path):
    """Killed behind step 12 with a checkpoint at 10."""
    observe_steps(tmp_path, [5, 10, 11, 12], total=20)
    observe_steps(tmp_path, [11, 12, 13], total=20, first=10)
    assert [record["step"] for record in read_metrics(tmp_path)] == [5, 10, 11, 12, 13]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["metrics.jsonl"]


def test_fresh_start_in_the_folder_of_a_run_without_checkpoints(tmp_path):
    observe_steps(tmp_path, [1, 2])
    observe_steps(tmp_path, [1])
    assert [record["step"] for record in read_metrics(tmp_path)] == [1]


@pytest.mark.parametrize("tail", ['{"split": "train", "st', '{"split": "train", "step": 3}', "\x00\x00\x00\n", "[3]\n"])
def test_line_that_was_cut_short_is_dropped(tmp_path, tail):
    observe_steps(tmp_path, [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(tail)
    observe_steps(tmp_path, [3], first=2)
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3]


def test_nothing_is_rewritten_where_nothing_is_dropped(tmp_path):
    observe_steps(tmp_path, [1, 2])
    before = (tmp_path / "metrics.jsonl").stat()
    observe_steps(tmp_path, [], first=2)
    after = (tmp_path / "metrics.jsonl").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_bar_on_a_terminal_starts_where_the_run_does(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(observe.sys.stderr, "isatty", lambda: True, raising=False)
    observer = build_observer(tmp_path)
    observer.start(5, 0)
    observer.start(5, 8)
    for step in (6, 7, 8):
        observer.step(step, Sums(1.0, 1.0, 1.0), 0.1, build_clock(1.0))
    bar = observer._bar
    observer.close()
    assert (bar.initial, bar.n, bar.total) == (5, 8, 8)
    error = capsys.readouterr().err
    assert re.findall(r"step 0000\d/00008 \| train", error) == [f"step 0000{step}/00008 | train" for step in (6, 7, 8)]
