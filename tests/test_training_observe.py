"""What is written of a run: metrics.jsonl, TensorBoard, and what becomes of both when a run resumes."""

import doctest
import itertools
import json
import math
import re
import types

import pytest
import tensorflow as tf

from tf_llm.contracts import UserError
from tf_llm.training import board as board_module
from tf_llm.training import clock as clock_module
from tf_llm.training import observe
from tf_llm.training.board import Board, Event
from tf_llm.training.clock import Clock
from tf_llm.training.observe import UNPROFILED, Observer
from tf_llm.training.step import Sums

tf.config.list_logical_devices()  # TensorFlow's remarks on what it finds belong in no test


def build_observer(folder, log_seconds=0.0, **settings):
    return Observer(folder, lambda nats: nats / math.log(2) / 4, log_seconds, **settings)  # four bytes a token


def build_clock(*seconds, waiting=0.1):
    """A clock that timed these steps, a share of each spent waiting."""
    clock = Clock()
    clock.latest, clock.waits, clock.total = list(seconds), [waiting * one for one in seconds], sum(seconds)
    return clock


def read_metrics(folder):
    refuse = lambda constant: pytest.fail(f"{constant} is not JSON")  # noqa: E731
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def read_events(folder):
    """All events of the TensorBoard files, in the order in which TensorBoard reads them."""
    files = sorted(str(path) for path in (folder / "tensorboard").iterdir() if path.is_file())
    return [Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(files)]


def read_board(folder, plugin="scalars"):
    """[((tag, step), value)] of everything that is in the TensorBoard files."""
    return [
        ((value.tag, event.step), tf.make_ndarray(value.tensor).item())
        for event in read_events(folder)
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == plugin
    ]


def observe_steps(folder, steps, total=0, first=0):
    observer = build_observer(folder)
    observer.start(first, total)
    for step in steps:
        observer.step(step, Sums(10.0 * step, 1.0, 10.0), 0.1, build_clock(1.0))
    observer.close()


class FakeMovement:
    """Says of the first step after it was told to remember that it moved the weights by 3 in a thousand."""

    def __init__(self):
        self.calls, self._answers = [], itertools.chain([0.003], itertools.repeat(0.5))

    def remember(self):
        self.calls.append("remember")

    def measure(self):
        self.calls.append("measure")
        return next(self._answers)


@pytest.mark.parametrize("module", [board_module, clock_module, observe], ids=lambda module: module.__name__)
def test_docstring_examples(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_records_say_what_was_measured(tmp_path, capfd):
    observer = build_observer(tmp_path, log_seconds=1e9, ideal_seconds=0.25, movement=FakeMovement())
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
            "update_ratio": 0.003,
            "skipped_steps": 1,
            "step_seconds": 1.0,
            "data_wait_share": 0.1,
            "tokens_per_second": (50 + 24) / 4.0,
            "mfu": 0.25,
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
        "step 00004/00004 (100.0%) | loss 2.250 | perplexity 9 | accuracy 20.0% | bpb 0.812 | lr 2.50e-01 | dt 1 s | "
        "18 tokens/s | mfu 25.0% | eta 0:00",
        "step 00004/00004 (100.0%) | validation | loss 3.000 | perplexity 20 | accuracy 30.0% | bpb 1.082",
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
    drawn = read_board(tmp_path)
    assert len(drawn) == len(expected) and dict(drawn) == pytest.approx(expected, rel=1e-6)


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
        clock.latest, clock.waits = ([*part, 0.25][-100:] for part in (clock.latest, clock.waits))
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
    assert lines[0].startswith("step 00007/? | loss") and lines[0].endswith("| eta ?")
    assert lines[1].startswith("step 00008/00010 (80.0%) | loss") and lines[1].endswith(
        "| dt 2 s | 0 tokens/s | eta 0:04"
    )


def test_a_line_fits_the_screen(tmp_path, capfd):
    observer = build_observer(tmp_path, ideal_seconds=0.1)
    observer.start(0, 99_999)
    observer.step(12_345, Sums(9.0, 0.2, 1.0, 12_345.0), 1e-4, build_clock(0.142))
    observer.close()
    (line,) = capfd.readouterr().err.splitlines()
    assert len(line) <= 155 and line.endswith("| lr 1.00e-04 | dt 142 ms | 86,944 tokens/s | mfu 70.4% | eta 3:27:27")


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
    observer.start(0, 1)
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
    drawn = [place[1] for place, _ in read_board(tmp_path) if place[0] == "train/loss"]
    assert drawn == [5, 10, 11, 12, 13]
    # A TensorBoard that read the first file before has to forget as much: by its `plugin_event_accumulator` this says
    # that events of this step and of later ones are void.
    assert [event.step for event in read_events(tmp_path) if event.HasField("session_log")] == [1, 11]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["metrics.jsonl"]


def test_fresh_start_in_the_folder_of_a_run_without_checkpoints(tmp_path):
    observe_steps(tmp_path, [1, 2])
    observe_steps(tmp_path, [1])
    assert [record["step"] for record in read_metrics(tmp_path)] == [1]
    assert {place[1] for place, _ in read_board(tmp_path)} == {1}


def test_validation_of_a_finished_run_is_noted_once(tmp_path, capfd):
    """The run ended behind its last validation; the same command validates again, for the report."""
    for _ in range(2):
        observer = build_observer(tmp_path, sample_fn=lambda: "text")
        observer.start(8, 8)
        observer.validation(8, Sums(1.0, 1.0, 1.0))
        observer.close()
    assert len(read_metrics(tmp_path)) == 1
    assert len(read_board(tmp_path, "text")) == 1
    assert capfd.readouterr().err.count("| validation |") == 2


def test_plans_of_a_run_begin_nothing_anew(tmp_path):
    observer = build_observer(tmp_path)
    observer.start(0, 0)
    for step in (1, 2, 3):
        observer.step(step, Sums(1.0, 1.0, 1.0), 0.1, build_clock(1.0))
    observer.start(3, 9)
    observer.close()
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3]
    assert [event.step for event in read_events(tmp_path) if event.HasField("session_log")] == [1]


@pytest.mark.parametrize("tail", ['{"split": "train", "st', '{"split": "train", "step": 3}', "\x00\x00\x00\n", "[3]\n"])
def test_line_that_was_cut_short_is_dropped(tmp_path, tail):
    observe_steps(tmp_path, [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(tail)
    observe_steps(tmp_path, [3], first=2)
    assert [record["step"] for record in read_metrics(tmp_path)] == [1, 2, 3]


def test_nothing_is_rewritten_where_nothing_is_dropped(tmp_path):
    observe_steps(tmp_path, [1, 2])
    paths = [tmp_path / "metrics.jsonl", *(tmp_path / "tensorboard").iterdir()]
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]
    observe_steps(tmp_path, [], first=2)
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths] == before


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
    assert re.findall(r"step 0000(\d)/00008 \([\d.]+%\) \| loss", error) == ["6", "7", "8"]


# === What is told besides ===


def test_weights_are_looked_at_once_a_line(tmp_path, monkeypatch):
    now, movement = [0.0], FakeMovement()
    monkeypatch.setattr(observe, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    observer = build_observer(tmp_path, log_seconds=10.0, movement=movement)
    observer.start(0, 40)
    for step in range(1, 41):
        now[0] += 1.0
        observer.step(step, Sums(1.0, 1.0, 1.0), 0.1, build_clock(*[1.0] * 10))
    observer.close()
    assert movement.calls == ["remember", "measure"] * 4 + ["remember"]
    assert [record["update_ratio"] for record in read_metrics(tmp_path)] == [0.003, 0.5, 0.5, 0.5]


def test_samples_are_shown_at_each_validation(tmp_path):
    texts = iter(["the kettle", "the kettle sings"])
    observer = build_observer(tmp_path, sample_fn=lambda: next(texts))
    observer.start(0, 9)
    for step in (3, 6):
        observer.validation(step, Sums(1.0, 1.0, 1.0))
    observer.close()
    shown = [(("samples", 3), b"the kettle"), (("samples", 6), b"the kettle sings")]
    assert read_board(tmp_path, "text") == shown


@pytest.mark.parametrize("steps", [UNPROFILED + 1, UNPROFILED + 5])
def test_some_steps_are_profiled_if_asked_for(tmp_path, steps):
    observer = build_observer(tmp_path, log_seconds=1e9, profile_steps=2)
    observer.start(0, 0)
    for step in range(1, steps):
        observer.step(step, Sums(1.0, 1.0, 1.0), 0.1, build_clock(1.0))
    assert observer._is_profiling == (steps == UNPROFILED + 1)
    observer.close()
    assert len(list((tmp_path / "tensorboard").glob("plugins/profile/*/*.xplane.pb"))) == 1


def test_only_the_chief_speaks(tmp_path, capfd):
    folder = tmp_path / "run"
    settings = {"movement": FakeMovement(), "sample_fn": lambda: pytest.fail("not asked for"), "profile_steps": 1}
    observer = build_observer(folder, is_chief=False, **settings)
    observer.say("hello")
    observer.start(0, 20)
    for step in range(1, 21):
        observer.step(step, Sums(1.0, 1.0, 1.0), 0.1, build_clock(1.0))
    observer.validation(20, Sums(1.0, 1.0, 1.0))
    observer.close()
    assert not folder.exists() and capfd.readouterr().err == "" and settings["movement"].calls == []


def test_files_of_one_folder_are_read_in_the_order_in_which_they_were_begun(tmp_path):
    for step in range(5):
        board = Board(tmp_path / "tensorboard")
        board.draw(step, {"loss": float(step)})
        board.close()
    assert [place[1] for place, _ in read_board(tmp_path)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("cut", [1, 11, 30])
def test_event_that_was_cut_short_is_dropped(tmp_path, cut):
    observe_steps(tmp_path, [1, 2])
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    observe_steps(tmp_path, [3], first=2)
    drawn = {place[1] for place, _ in read_board(tmp_path)}
    assert drawn == {1, 3}
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_the_time_of_a_step_that_was_spent_waiting(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(clock_module, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    clock = Clock()
    for waited in range(150):
        clock.start()
        now[0] += waited
        clock.receive()
        now[0] += 3.0
        clock.add(clock.elapsed())
    assert clock.waits == list(range(50, 150)) and clock.latest == [3.0 + waited for waited in range(50, 150)]
