"""The main job from the command line, in a process of its own, as a newcomer runs it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from archives import write_warc

from tf_llm.load import Generator

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL = [
    "--training.batch_size=8", "--model.d_model=32", "--model.d_ff=64", "--model.num_layers=1", "--model.num_heads=2",
    "--model.vocabulary_size=203", "--words.vocabulary_size=200", "--shards.validation_fraction=0.2",
    "--workers.processes=1", "--training.log_seconds=0.2", "--training.precision=float32",
]  # fmt: skip


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    return write_warc(tmp_path_factory.mktemp("archive") / "pages.warc.gz", pages=60)


def command(*arguments):
    return [sys.executable, str(REPOSITORY / "examples" / "train_common_crawl.py"), *map(str, arguments)]


def environment():
    return os.environ | {"TF_LLM_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}


def launch(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, env=environment())


def train(archive, workdir, *arguments):
    return launch("--source=warc", f"--warc={archive}", f"--workdir={workdir}", *SMALL, *arguments)


@pytest.fixture(scope="session")
def finished(archive, tmp_path_factory):
    """A finished run of 150 steps: its folder and what the command printed."""
    workdir = tmp_path_factory.mktemp("run")
    result = train(archive, workdir, "--training.steps=150", "--training.learning_rate=0.003")
    assert result.returncode == 0, result.stderr
    return workdir, result


def test_pages_become_a_trained_model_and_a_report(finished):
    workdir, result = finished
    summary = json.loads((workdir / "summary.json").read_text())
    keys = "validation_nats_per_token unigram_nats_per_token bigram_nats_per_token validation_bits_per_byte"
    assert {*keys.split(), "tokens_per_second", "seconds"} <= summary.keys()
    assert summary["steps"] == 150 and summary["train_tokens"] > 5000
    assert summary["validation_nats_per_token"] < summary["unigram_nats_per_token"] - 0.5
    assert summary["validation_bits_per_byte"] < summary["unigram_bits_per_byte"]
    report = (workdir / "report.md").read_text()
    assert "![loss](loss.png)" in report and report.count("this model  ") == 3
    assert (workdir / "loss.png").read_bytes().startswith(b"\x89PNG")
    metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert {record["split"] for record in metrics} == {"train", "validation"}
    assert list((workdir / "tensorboard").iterdir()) and list((workdir / "checkpoints").iterdir())
    parts = ["input_embedding", "position_embedding", "encoder", "decoder", "output_embedding"]
    places = [re.search(rf"│ {part}\b", result.stdout).start() for part in parts]
    assert places == sorted(places)  # as `model.summary()` printed them
    assert "| this model, `article` |" in result.stdout and f"{workdir}/report.md" in result.stdout


def test_a_run_says_what_it_is_about_to_do_and_where_it_stands(finished):
    _, result = finished
    assert re.search(r"^ +model\.d_model +32 +--model\.d_model, in place of 256$", result.stderr, re.MULTILINE)
    assert re.search(
        r"^devices +1 × CPU of \d+ cores .* measured; mfu is the share a step reaches$", result.stderr, re.M
    )
    figures = r"loss [\d.]+ \| perplexity [\d,]+ \| accuracy [\d.]+% \| bpb [\d.]+"
    speed = r"lr 3\.00e-03 \| dt [\d.]+ m?s \| [\d,]+ tokens/s \| mfu [\d.]+% \| eta 0:00"
    for line in (rf"{figures} \| {speed}", rf"validation \| {figures}"):
        assert re.search(rf"^step 00150/00150 \(100\.0%\) \| {line}$", result.stderr, re.MULTILINE)


def test_a_dry_run_says_the_same_and_touches_nothing(finished, tmp_path):
    _, result = finished
    arguments = ["--training.steps=150", "--training.learning_rate=0.003"]
    dry = launch("--dry_run", "--warc=not/there.warc.gz", f"--workdir={tmp_path / 'run'}", *SMALL, *arguments)
    assert dry.returncode == 0, dry.stderr
    assert not list(tmp_path.iterdir())
    costs = r"^(?:recipe|parameters|a step|memory|checkpoint) .*|^ {13}.*"
    assert re.findall(costs, dry.stdout, re.MULTILINE) == re.findall(costs, result.stderr, re.MULTILINE)
    assert re.search(r"^time +150 steps, .* a step if mfu is 30%, as is usual, .* in all$", dry.stdout, re.MULTILINE)


def test_a_finished_run_writes_text_in_another_process(finished):
    workdir, _ = finished
    code = f"import tf_llm; print(tf_llm.Generator.load({str(workdir)!r})('The old kettle finds', max_new_tokens=20))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert result.returncode == 0, result.stderr
    assert re.search("finds|follows|admires|paints|forgets|answers|carries|repairs|watches|borrows", result.stdout)


def test_a_finished_run_is_not_trained_again(finished, archive):
    workdir, _ = finished
    before = json.loads((workdir / "summary.json").read_text())
    result = train(archive, workdir, "--training.steps=150", "--training.learning_rate=0.003")
    assert result.returncode == 0, result.stderr
    assert "using the shards" in result.stderr and "resuming at step 150 of 150" in result.stderr
    after = json.loads((workdir / "summary.json").read_text())
    places = [(record["split"], record["step"]) for record in map(json.loads, (workdir / "metrics.jsonl").open())]
    assert len(places) == len(set(places))  # nothing was noted twice
    assert after["validation_nats_per_token"] == pytest.approx(before["validation_nats_per_token"], abs=1e-6)


def test_other_settings_in_the_same_folder_are_refused(finished, archive):
    workdir, _ = finished
    result = train(archive, workdir, "--training.steps=150", "--training.learning_rate=0.001")
    assert_one_line(result, r"error: expected the settings .*learning_rate: 0\.003 -> 0\.001\. Use another --workdir")


@pytest.mark.thorough
def test_a_killed_run_goes_on(archive, tmp_path):
    """`kill -9` in the middle of training; the same command finishes the run behind its last checkpoint."""
    arguments = ["--training.steps=400", "--training.checkpoint_seconds=0.5"]
    with subprocess.Popen(
        command("--source=warc", f"--warc={archive}", f"--workdir={tmp_path}", *SMALL, *arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    ) as process:
        deadline = time.monotonic() + 120
        while not list((tmp_path / "checkpoints").glob("ckpt-*[0-9]")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "summary.json").exists()
    result = train(archive, tmp_path, *arguments)
    assert result.returncode == 0, result.stderr
    step = int(re.search(r"resuming at step (\d+) of 400", result.stderr)[1])
    assert 0 < step < 400
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 400
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


@pytest.mark.thorough
def test_dropout_speed_ends_with_its_figure():
    script = REPOSITORY / "examples" / "benchmarks" / "dropout_speed.py"
    arguments = [sys.executable, str(script), "--quick", "--steps=3"]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=environment())
    assert result.returncode in (0, 1), result.stderr  # a busy machine may miss the goal
    figure = json.loads(result.stdout.splitlines()[-1])
    assert figure["name"] == "dropout_speed" and figure["holds"] == (figure["value"] >= figure["goal"])
    assert re.search(r"keras .*\ntf_llm .*\nnone ", result.stdout)


def assert_one_line(result, pattern):
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and re.search(pattern, lines[0]), result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_input_is_a_one_line_error_and_leaves_nothing(tmp_path):
    two_pages = write_warc(tmp_path / "two.warc.gz", pages=2)  # the first one is held out for validation
    for archive, pattern in (
        (tmp_path / "missing.warc.gz", "there is no file. Check the path"),
        (two_pages, "expected at least one batch of 8 blocks"),
    ):
        assert_one_line(train(archive, tmp_path / "run", "--training.steps=2"), pattern)
        assert not list((tmp_path / "run").glob("*.partial")) and not (tmp_path / "run" / "config.json").exists()


def test_wrong_flags_are_named():
    result = launch("--modle.num_layers=3")
    assert result.returncode == 1 and "Did you mean: model.num_layers" in result.stderr


def test_help_names_every_setting():
    result = launch("--helpfull")
    for line in ("--model.num_layers: blocks in the encoder", "--training.learning_rate: ", "--words.stop_words: "):
        assert line in result.stdout


@pytest.mark.thorough
@pytest.mark.parametrize("script", ["damaged_checkpoints.py", "strategies_agree.py", "resume_after_kill.py"])
def test_quick_benchmarks_hold(script):
    arguments = [sys.executable, str(REPOSITORY / "examples" / "benchmarks" / script), "--quick"]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=environment())
    assert result.returncode == 0, result.stderr[-2000:]
    last = json.loads(result.stdout.splitlines()[-1])
    assert last["name"] == script.removesuffix(".py") and last["holds"] is True


# === plan_training.py ===


def plan(*arguments):
    script = str(REPOSITORY / "examples" / "plan_training.py")
    return subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, timeout=300, env=environment()
    )


def test_a_plan_says_what_fits_and_what_the_corpus_wants():
    result = plan("--recipe=best", "--size=base", "--device=a100-80gb", "--devices=256", "--corpus_bytes=1e12")
    assert result.returncode == 0, result.stderr
    assert re.search(r"^batch +2,048 rows .* 8 on a device at a time$", result.stdout, re.MULTILINE)
    assert re.search(r"^of 80 GB +it fits ", result.stdout, re.MULTILINE)
    assert "12.5 G  parameters; by 6·N·D, they are trained in 30 days with 78 of these" in result.stdout


@pytest.mark.thorough
def test_a_plan_stands_beside_steps_of_this_machine():
    result = plan("--device=cpu", "--measure", *SMALL)
    assert result.returncode == 0, result.stderr
    assert "float32; measured here" in result.stdout
    assert re.search(
        r"measured here: [\d.]+ m?s for 8 rows, .* tokens/s: .* of the peak \(planned: 30%\)", result.stdout
    )


def test_a_plan_that_cannot_be_is_a_one_line_error():
    assert_one_line(plan("--devices=3", "--training.batch_size=64"), "expected a multiple of 3, .* Choose 66")


# === export_model.py ===


def export(*arguments):
    script = REPOSITORY / "examples" / "export_model.py"
    arguments = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=environment())


def test_a_finished_run_is_exported(finished, tmp_path):
    pytest.importorskip("ai_edge_litert", reason="takes its time, so only with pip install 'tf_llm[litert]'")
    workdir, _ = finished
    given = [f"--workdir={workdir}", f"--folder={tmp_path / 'it' / '1'}"]
    result = export(*given, "--prompt=The old kettle finds", "--max_new_tokens=20", "--seed=3")
    assert result.returncode == 0, result.stderr
    assert re.search(r"^generate_with +max_new_tokens, prompts, seed, temperature -> texts$", result.stdout, re.M)
    said = Generator.load(workdir)("The old kettle finds", max_new_tokens=20, seed=3)
    assert result.stdout.endswith(f"The old kettle finds …\n{said}\n")
    assert_one_line(export(*given), r"expected a new or an empty folder at .*it/1")
    assert_one_line(export(*given, "--num_beams=2", "--top_p=3"), r"top_p is expected to be a number in \[0, 1\]")
