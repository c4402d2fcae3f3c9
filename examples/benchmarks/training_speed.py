"""How fast a training step is beside those of T5 in transformers and of KerasHub, on this CPU, at the same work.

    python examples/benchmarks/training_speed.py            about 6 minutes on 2 cores
    python examples/benchmarks/training_speed.py --quick    a narrow model, a minute, against a sanity bound

Each contestant is a process of its own that stays alive: one step of each in turn, so that one alone computes at a time
and all see the same machine; medians are compared. The work is the same for all: 4 + 4 layers, d_model 256, d_ff 1024,
4 heads, a vocabulary of 8,192 that is input and output, dropout of .1, Adam; 32 rows of 128 + 128 tokens without any
padding; bfloat16; 2 threads. Ours is the trainer's own step (training/step.py), with its guard, norm and accuracy. It
takes part twice: T5 drops elements wherever a model here can, KerasHub's layers neither those of embeddings nor those
within the feed-forward layers, and each of them is compared with the one that drops as many.

The product of two matrices in bfloat16 is measured in the same turns, by each framework, and the best is the peak. A
step's matrix products (training/costs.py counts them) at the peak would take a part of its time; the second table says
where the time goes, by operations: what is more than the products is memory that is moved.

The goal: 1.5 times the tokens per second of every peer. On 2026-11-25 it was 1.31
(BUILD_NOTES.md).

Needs `pip install "tf_llm[peers]"`.
"""

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

PEER = Path(__file__).resolve().parent / "peers" / "training_steps.py"
GOAL, QUICK_GOAL = 1.5, 0.8
FULL = {"layers": 4, "d_model": 256, "heads": 4, "d_ff": 1024, "vocabulary": 8_192, "batch": 32, "length": 128}
NARROW = FULL | {"layers": 2, "d_model": 64, "d_ff": 256, "vocabulary": 8_192, "batch": 8}
PAUSE = 0.3  # seconds before a turn: threads that wait for work go on spinning for a while
# Ours -> where it drops elements; the peers -> the package, and which of ours does as much.
OURS = {
    "tf_llm": ("attention", "residual"),
    "tf_llm_t5": ("embedding", "attention", "feed_forward", "residual", "output"),
}
PEERS = {
    "keras_hub": ("keras_hub", "tf_llm"),
    "keras_hub_t5": ("keras_hub", "tf_llm_t5"),
    "hugging_face": ("transformers", "tf_llm_t5"),
}

_QUICK = flags.DEFINE_bool("quick", False, "A narrow model, against a sanity bound.")
_STEPS = flags.DEFINE_integer("steps", 25, "Timed steps of each contestant.")


class Contestant:
    """A process that trains a model by the step, see peers/training_steps.py."""

    def __init__(self, name, sizes):
        self.name, self.seconds, self.peaks = name, [], []
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process lives)
        function = "tf_llm" if name in OURS else name
        command = [sys.executable, str(PEER), function, f"--sizes={json.dumps(sizes | {'places': OURS.get(name)})}"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.log, "text": True}
        self.process = subprocess.Popen(command, **pipes)
        self.about = self.hear()

    @property
    def median(self):
        """Seconds of a step."""
        return statistics.median(self.seconds)

    def hear(self):
        """What it answers; ends with status 2 where it has died."""
        for line in self.process.stdout:
            try:
                return json.loads(line)
            except ValueError:  # a framework's own chatter
                continue
        self.log.seek(0)
        print(f"could not run: {self.name} ended with\n{self.log.read()[-2000:]}")
        sys.exit(2)

    def ask(self, what):
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.hear()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def print_table(contestants, sizes, flops, peak):
    tokens = 2 * sizes["length"] * sizes["batch"]
    print(f"{'':14}{'parameters':>12}{'ms a step':>11}{'fastest':>9}{'tokens/s':>10}{'of the peak':>13}{'ours':>8}")
    for each in contestants.values():
        numbers = f"{each.about['parameters']:12,}{1e3 * each.median:11.0f}{1e3 * min(each.seconds):9.0f}"
        ratio = f"{compare(each, contestants):7.2f}×" if each.name in PEERS else ""
        print(f"{each.name:14}{numbers}{tokens / each.median:10,.0f}{flops / each.median / peak:13.0%}{ratio}")


def compare(peer, contestants):
    """How many times as many tokens a second ours makes as a peer, with dropout in as many places."""
    return peer.median / contestants[PEERS[peer.name][1]].median


def main(_):
    missing = sorted({package for package, _ in PEERS.values() if not importlib.util.find_spec(package)})
    if missing:
        print(f'could not run: expected {", ".join(missing)}; pip install "tf_llm[peers]"')
        sys.exit(2)
    sizes, steps = (NARROW, min(_STEPS.value, 5)) if _QUICK.value else (FULL, _STEPS.value)
    contestants = {name: Contestant(name, sizes) for name in (*OURS, *PEERS)}
    for _ in range(steps):
        for each in contestants.values():
            time.sleep(PAUSE)
            each.seconds.append(each.ask("step"))
            each.peaks.append(each.ask("peak"))
    ours = contestants["tf_llm"]
    flops, breakdown = ours.ask("flops"), ours.ask("breakdown")
    for each in contestants.values():
        each.end()

    peaks = {each.name: statistics.median(each.peaks) for each in contestants.values()}
    best = max(peaks, key=peaks.get)
    shown = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    print(f"{shown}; 2 threads, medians of {steps} steps in turns")
    for each in contestants.values():
        print(f"{each.name:14}{each.about['settings']}")
    print(f"\n{flops / 1e9:.0f} GFLOP of products a step; the peak, {peaks[best] / 1e9:.0f} GFLOP/s, is by {best}\n")
    print_table(contestants, sizes, flops, peaks[best])
    print(f"\nA step of tf_llm takes {1e3 * ours.median:.0f} ms; its products, at the peak, would take ", end="")
    print(
        f"{1e3 * flops / peaks[best]:.0f}.\nShares of the time of all its operations, several of which run at a time:"
    )
    for kind, share in breakdown.items():
        print(f"{share:7.1%}  {kind}")

    ratio, goal = min(compare(contestants[name], contestants) for name in PEERS), QUICK_GOAL if _QUICK.value else GOAL
    print(f"\nat least {ratio:.2f} times the tokens per second of every peer")
    result = {"name": "training_speed", "value": round(ratio, 3), "goal": goal, "unit": "times the fastest peer"}
    print(json.dumps(result | {"holds": ratio >= goal}))
    sys.exit(0 if ratio >= goal else 1)


if __name__ == "__main__":
    app.run(main)
