"""What a recipe is worth: the main job with each recipe, the same wall time, the same words, several seeds.

    python examples/benchmarks/compare_recipes.py            three seeds, about 30 minutes on 2 cores
    python examples/benchmarks/compare_recipes.py --quick    one seed, 20 seconds of training each: 3 minutes

Compared are `article`, `article` with the whole source as context in place of one vector, and `best`, on the
documentation that is installed with this Python (`--source=self_crawl`), each in a process of its own, in turns. The
table shows the validation loss in nats per kept word beside the unigram's and the bigram's, and bits per byte of the
pages' whole text. The goals: `article` at least 0.1 nats per word below the unigram, `best` at least 0.6 below
`article`, in the mean over the seeds.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import app, flags

GOAL, UNIGRAM_GOAL, QUICK_GOAL = 0.6, 0.1, 0.1
SCRIPT = Path(__file__).resolve().parent.parent / "train_common_crawl.py"
VARIANTS = {
    "article": ["--recipe=article"],
    "article, whole sequence": ["--recipe=article", "--model.context=sequence"],
    "best": ["--recipe=best"],
}

_QUICK = flags.DEFINE_bool("quick", False, "One seed and 20 seconds of training, against a sanity bound.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds 0, 1, … of weights, shuffle and dropout.")
_KEEP = flags.DEFINE_string("keep", None, "A folder to keep the runs in; by default they are removed.")


def train(folder, variant, seed):
    """Runs the example; returns its summary.json."""
    workdir = Path(folder) / f"{variant.replace(', ', '-').replace(' ', '-')}-{seed}"
    command = [sys.executable, str(SCRIPT), "--source=self_crawl", f"--workdir={workdir}", f"--training.seed={seed}"]
    command += VARIANTS[variant] + (["--training.seconds=20"] if _QUICK.value else [])
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        print(f"could not run: {variant} ended with\n{result.stderr[-2000:]}")
        sys.exit(2)
    return json.loads((workdir / "summary.json").read_text())


def main(_):
    seeds = 1 if _QUICK.value else _SEEDS.value
    summaries = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for variant in VARIANTS:
                summaries[variant].append(train(_KEEP.value or folder, variant, seed))
                loss = summaries[variant][-1]["validation_nats_per_word"]
                print(f"{variant}, seed {seed}: {loss:.3f}", file=sys.stderr, flush=True)

    first = summaries["article"][0]
    print(f"unigram {first['unigram_nats_per_word']:.3f}, bigram {first['bigram_nats_per_word']:.3f} nats per word")
    print(
        f"{'':26}{'nats per word':>15}{'of each seed':>24}{'bits/byte':>11}{'steps':>7}{'seconds':>9}{'tokens/s':>10}"
    )
    means = {}
    for variant, runs in summaries.items():
        losses = [run["validation_nats_per_word"] for run in runs]
        means[variant] = statistics.mean(losses)
        average = {key: statistics.mean(run[key] for run in runs) for key in ("steps", "seconds", "tokens_per_second")}
        bits = statistics.mean(run["validation_bits_per_byte"] for run in runs)
        print(
            f"{variant:26}{means[variant]:15.3f}{' '.join(f'{loss:.3f}' for loss in losses):>24}{bits:11.3f}"
            f"{average['steps']:7.0f}{average['seconds']:9.0f}{average['tokens_per_second']:10,.0f}"
        )
    gain, below = means["article"] - means["best"], first["unigram_nats_per_word"] - means["article"]
    print(f"\n`article` is {below:.3f} below the unigram, `best` {gain:.3f} below `article`")
    goal = QUICK_GOAL if _QUICK.value else GOAL
    holds = gain >= goal and (_QUICK.value or below >= UNIGRAM_GOAL)
    result = {"name": "compare_recipes", "value": round(gain, 4), "goal": goal, "unit": "nats per word"}
    print(json.dumps(result | {"holds": holds}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
