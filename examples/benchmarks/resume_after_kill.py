"""Does a run that is killed end as if nothing had been?

    python examples/benchmarks/resume_after_kill.py            50 kills of the real process: 12 minutes on 2 cores
    python examples/benchmarks/resume_after_kill.py --quick    2 kills: a minute
    python examples/benchmarks/resume_after_kill.py --workers=2 --kills=10    of one of two processes: 6 minutes
    python examples/benchmarks/resume_after_kill.py --signal=SIGTERM --kills=30    asked to stop: 12 minutes

examples/train_common_crawl.py trains a small model on made-up pages, with dropout, a schedule and a checkpoint after
every step. Once it may run to its end. Then it is killed with SIGKILL, each time in a run of its own: as soon as it has
noted a step that was drawn, after a delay that was drawn; and every fourth time at the moment at which a checkpoint is
being written. The same command goes on. In the end the weights, the optimiser's state, the seeds and the losses of all
steps must be those of the run that was left alone: the same SHA-256.

Of several workers (MultiWorkerMirroredStrategy) one is killed, drawn as well. The others cannot go on without it: they
are given a while to find out, then killed, as a cluster would; all start again.

SIGTERM is what a cluster sends that wants its machine back. Then no checkpoint is written by the clock: all that there
is was written because of the signal. A run has to end within 10 seconds and to lose no more than one step.

You should see "50 of 50 runs ended bit for bit as the one that was left alone".
"""

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import app, flags

SCRIPT = Path(__file__).resolve().parent.parent / "train_common_crawl.py"
STEPS, EVERY_IN_A_SAVE = 30, 4  # of each run; every so many-th kill is aimed at a checkpoint that is being written
TIMES = ("step_seconds", "data_wait_share", "tokens_per_second", "mfu")  # no two runs have the same
SETTINGS = (
    "--recipe=article --words.vocabulary_size=200 --model.vocabulary_size=203 --model.d_model=32 --model.d_ff=64 "
    f"--model.num_layers=1 --training.steps={STEPS} --training.schedule=cosine --training.learning_rate=1e-2 "
    "--training.log_seconds=0 --training.evaluate_seconds=inf"
)
GRACE = 20  # seconds in which the other workers may end by themselves
SECONDS_TO_END, STEPS_TO_LOSE = 10, 1  # at most, after SIGTERM

_QUICK = flags.DEFINE_bool("quick", False, "2 kills.")
_KILLS = flags.DEFINE_integer("kills", 50, "How many runs are killed.")
_SIGNAL = flags.DEFINE_enum("signal", "SIGKILL", ["SIGKILL", "SIGTERM"], "What is sent.")
_WORKERS = flags.DEFINE_integer("workers", 1, "How many processes a run consists of.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")


def write_pages(path):
    """Pages of words that follow each other in a pattern, with what a run needs to learn."""
    draw = random.Random(0)
    words = [f"word{i}" for i in range(300)]
    with path.open("w", encoding="utf-8") as file:
        for number in range(200):
            text = " ".join(words[min(int(draw.expovariate(0.02)), 299)] for _ in range(300))
            file.write(json.dumps({"text": text, "url": f"page-{number}"}) + "\n")


def start(folder, workdir):
    """Starts the training script, or starts it again: its processes, each in a group of its own."""
    command = [sys.executable, str(SCRIPT), *SETTINGS.split(), f"--json_lines={folder / 'pages.jsonl'}"]
    command += [f"--data={folder / 'data'}", f"--workdir={workdir}"]
    command += [f"--strategy={'cpu' if _WORKERS.value == 1 else 'workers'}"]
    command += [f"--training.checkpoint_seconds={'0' if _SIGNAL.value == 'SIGKILL' else 'inf'}"]
    log = (workdir.parent / f"{workdir.name}.log").open("ab")
    workers, processes = find_addresses(_WORKERS.value), []
    for index in range(_WORKERS.value):
        cluster = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = {"TF_DETERMINISTIC_OPS": "1", "CUDA_VISIBLE_DEVICES": "", "TF_CONFIG": json.dumps(cluster)}
        environment = os.environ | environment
        processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True))
    return processes


def find_addresses(count):
    """Addresses on which nobody listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def finish(folder, workdir):
    """Runs the script to its end; ends with status 2 where it fails."""
    codes = [process.wait() for process in start(folder, workdir)]
    if any(codes):
        print(f"could not run: {(workdir.parent / f'{workdir.name}.log').read_text()[-2000:]}")
        os._exit(2)


def steps_noted(workdir):
    """How many steps the run has noted so far."""
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b'"train"') if path.exists() else 0


def is_saving(workdir):
    """Whether a checkpoint is being written."""
    folder = workdir / "checkpoints"
    paths = folder.iterdir() if folder.exists() else []
    return any(path.name.endswith(".partial") for path in paths)


def steps_saved(workdir):
    """The step of the newest checkpoint, 0 where there is none."""
    names = [path.name for path in (workdir / "checkpoints").glob("ckpt-*") if path.name[5:].isdigit()]
    return max((int(name[5:]) for name in names), default=0)


def stop(folder, workdir, step, delay, in_a_save, victim):
    """Sends the signal `delay` seconds after a run noted a step, or while it saves behind it.

    Returns:
        (whether that ended the run, whether it was saving, the seconds until it had ended)
    """
    processes = start(folder, workdir)
    process = processes[victim]
    while process.poll() is None and steps_noted(workdir) < step:
        time.sleep(0.002)
    if in_a_save:
        while process.poll() is None and not is_saving(workdir):
            pass
    else:
        time.sleep(delay)
    saving, begin = is_saving(workdir), time.monotonic()
    if process.poll() is None:
        os.killpg(process.pid, signal.Signals[_SIGNAL.value])
    # While Python starts, and behind the last step, SIGTERM ends it as it ends any program.
    statuses = {-signal.Signals[_SIGNAL.value]} | ({os.EX_TEMPFAIL} if _SIGNAL.value == "SIGTERM" else set())
    stopped = process.wait() in statuses
    seconds = time.monotonic() - begin
    for other in processes:
        try:
            other.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(other.pid, signal.SIGKILL)
            other.wait()
    return stopped, saving, seconds


def digest(workdir):
    """SHA-256 of every tensor of the newest checkpoint, and of the losses of all steps."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / f"ckpt-{STEPS}" / "state"))
    digests = hashlib.sha256()
    for name in sorted(reader.get_variable_to_shape_map()):
        value = reader.get_tensor(name)
        digests.update(name.encode() + (value if isinstance(value, bytes) else value.tobytes()))
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        record = {name: value for name, value in record.items() if name not in TIMES}
        digests.update(json.dumps(record, sort_keys=True).encode())
    return digests.hexdigest()


def main(_):
    kills = 2 if _QUICK.value else _KILLS.value
    draw = random.Random(_SEED.value)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_pages(folder / "pages.jsonl")
        finish(folder, folder / "whole")
        expected = digest(folder / "whole")
        by_clock = _SIGNAL.value == "SIGKILL"  # else there is no save to aim at
        moments = [
            (draw.randrange(STEPS), draw.uniform(0, 0.1), by_clock and i % EVERY_IN_A_SAVE == 0) for i in range(kills)
        ]
        victims = [draw.randrange(_WORKERS.value) for _ in moments]

        def attempt(number):
            workdir = folder / f"run-{number}"
            stopped, saving, seconds = stop(folder, workdir, *moments[number], victims[number])
            steps, lost = steps_noted(workdir), steps_noted(workdir) - steps_saved(workdir)
            finish(folder, workdir)
            return number, stopped, saving, steps, lost, seconds, digest(workdir) == expected

        equal = in_saves = most_lost = 0
        longest = 0.0
        print(f"{'run':>4}{'ended after step':>18}{'while saving':>14}{'within s':>10}{'steps lost':>12}{'equal':>8}")
        with ThreadPoolExecutor(2 if _WORKERS.value == 1 and by_clock else 1) as pool:  # or one, whose end is timed
            for number, stopped, saving, steps, lost, seconds, same in pool.map(attempt, range(kills)):
                equal, in_saves = equal + (same and stopped), in_saves + (saving and stopped)
                most_lost, longest = max(most_lost, lost), max(longest, seconds)
                ended = f"{number:4}{steps if stopped else 'not':>18}{'yes' if saving else '':>14}{seconds:10.2f}"
                print(f"{ended}{lost:12}{same!s:>8}", flush=True)
    print(f"\n{equal} of {kills} runs ended bit for bit as the one that was left alone; ", end="")
    if by_clock:
        print(f"{in_saves} were killed in a save")
        holds = equal == kills and in_saves >= kills // 5
    else:
        print(f"they ended within {longest:.1f} s and lost {most_lost} steps at most")
        holds = equal == kills and longest < SECONDS_TO_END and most_lost <= STEPS_TO_LOSE
    print(json.dumps({"name": "resume_after_kill", "value": equal, "goal": kills, "unit": "runs", "holds": holds}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
