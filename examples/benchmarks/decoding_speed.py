"""How many tokens a second are said here, by `generate` of transformers and by that of KerasHub, on this CPU.

    python examples/benchmarks/decoding_speed.py                        25 minutes on 2 cores, 20 of them KerasHub's
    python examples/benchmarks/decoding_speed.py --peers=hugging_face   about 5 minutes
    python examples/benchmarks/decoding_speed.py --quick                a narrow model, a minute, against a sanity bound
    python examples/benchmarks/decoding_speed.py --precision=bfloat16   all contestants in bfloat16

Each contestant is a process of its own that stays alive, loads the same T5 of random weights (4 + 4 layers, d_model
256, d_ff 1024, 4 heads, 8,192 words) from the same folder and is asked in turn for the same: 128 tokens to sources of
128, greedily to 1 and to 16 of them, and by the best of 4 beams to 1 and to 8. No text may end sooner. The time is that
from the sources to the tokens, the encoder's part among it; medians are compared. 2 threads.

The vectors of padding, end and unknown are zeros, so that nobody wants to say what only some may say. The table shows
which share of the tokens is the same as ours: rounding alone can turn a text of random weights elsewhere, and KerasHub
searches without a length penalty.

Ours is there twice: with the loop over tokens compiled by XLA, which is compared, and without, "plain".

The goal: 3 times the tokens per second of the faster peer in each cell (BUILD_NOTES.md has what was seen).

Needs `pip install "tf_llm[hugging_face,peers]"`.
"""

import importlib.util
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from peers.contestant import Contestant

PEER = Path(__file__).resolve().parent / "peers" / "generations.py"
GOAL, QUICK_GOAL = 3.0, 1.0
CELLS = ((1, 1), (16, 1), (1, 4), (8, 4))  # rows, beams
NEW, SPECIAL = 128, (0, 1, 2)  # tokens to be said; ids of padding, end and unknown
SHAPE = {"num_layers": 4, "d_model": 256, "num_heads": 4, "d_ff": 1024, "vocabulary_size": 8_192, "source_length": 128}
NARROW = SHAPE | {"num_layers": 2, "d_model": 64, "d_ff": 256, "vocabulary_size": 1_024}
OURS = ("tf_llm", "tf_llm_plain")  # with XLA and without
PEERS = {"hugging_face": "transformers", "keras_hub": "keras_hub"}
PAUSE = 0.3  # seconds before a turn: threads that wait for work go on spinning for a while

_QUICK = flags.DEFINE_bool("quick", False, "A narrow model and two cells, against a sanity bound.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Times that each contestant is asked for each cell.")
_PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Of weights and computation.")
_CELLS = flags.DEFINE_list("cells", [], "Only these, such as 16x1 for 16 rows and one beam.")
_NAMES = flags.DEFINE_list("peers", list(PEERS), "With whom to compare; keras_hub_xla, too, is known.")


def save_model(folder, shape):
    """Writes a T5 of random weights, and sources for it."""
    import keras

    import tf_llm
    from tf_llm.model.sizes import build_size

    keras.utils.set_random_seed(0)
    dropouts = {f"{place}_dropout": 0.0 for place in ("embedding", "attention", "feed_forward", "residual", "output")}
    model = tf_llm.build_model(build_size("t5_small", target_length=NEW, **shape, **dropouts))
    table = model.get_layer("input_embedding").get_layer("table").embeddings
    table.assign(np.where(np.isin(np.arange(shape["vocabulary_size"]), SPECIAL)[:, None], 0, table.numpy()))
    tf_llm.save_pretrained(model, None, folder)
    sources = np.random.default_rng(0).integers(3, shape["vocabulary_size"], (16, shape["source_length"]))
    sources[:, -1] = 1  # where a source ends
    np.save(folder / "sources.npy", sources.astype("int32"))
    (folder / "lengths.json").write_text(json.dumps({"source": shape["source_length"]}))


def run_cell(contestants, cell, rounds):
    """{name: (median seconds, ids)}: each contestant in turn, after one turn to warm up."""
    seconds, ids = {each.name: [] for each in contestants}, {}
    for _ in range(rounds + 1):
        for each in contestants:
            time.sleep(PAUSE)
            answer = each.ask(json.dumps(dict(zip(("rows", "beams"), cell, strict=True))))
            seconds[each.name].append(answer["seconds"])
            ids[each.name] = answer["ids"]
    return {name: (statistics.median(values[1:]), ids[name]) for name, values in seconds.items()}


def print_cell(cell, found):
    """A table of one cell; returns how many times as many tokens a second are said here as by the fastest peer."""
    rows, beams = cell
    ours, our_ids = found["tf_llm"]
    print(f"\n{rows} at a time, {'greedily' if beams == 1 else f'best of {beams} beams'}")
    for name, (median, ids) in found.items():
        same = np.mean(np.array(ids) == np.array(our_ids))
        ratio = f"{median / ours:6.2f}×" if name != "tf_llm" else ""
        print(f"    {name:16}{rows * NEW / median:8,.0f} tokens/s{same:8.0%} the same{ratio:>10}", flush=True)
    return min(median for name, (median, _) in found.items() if name not in OURS) / ours


def main(_):
    peers = _NAMES.value
    missing = sorted({package for package in PEERS.values() if not importlib.util.find_spec(package)})
    if missing:
        print(f'could not run: expected {", ".join(missing)}; pip install "tf_llm[hugging_face,peers]"')
        sys.exit(2)
    shape, cells = (NARROW, CELLS[:1] + CELLS[2:3]) if _QUICK.value else (SHAPE, CELLS)
    if _CELLS.value:
        cells = [tuple(map(int, cell.split("x"))) for cell in _CELLS.value]
    rounds = min(_ROUNDS.value, 2) if _QUICK.value else _ROUNDS.value
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), shape)
        precision = f"--precision={_PRECISION.value}"
        contestants = [Contestant(name, [PEER, name, folder, precision]) for name in (*OURS, *peers)]
        shown = ", ".join(f"{name} {size:,}" for name, size in shape.items())
        print(f"{shown}; {NEW} new tokens; {_PRECISION.value}, 2 threads, medians of {rounds} in turns")
        for each in contestants:
            print(f"    {each.name:16}{each.about['settings']}")
        ratios = [print_cell(cell, run_cell(contestants, cell, rounds)) for cell in cells]
        for each in contestants:
            each.end()
    ratio, goal = min(ratios), QUICK_GOAL if _QUICK.value else GOAL
    print(f"\nat least {ratio:.2f} times the tokens per second of the fastest peer in each cell")
    result = {"name": "decoding_speed", "value": round(ratio, 2), "goal": goal, "unit": "times the fastest peer"}
    print(json.dumps(result | {"cells": [round(each, 2) for each in ratios], "holds": ratio >= goal}))
    sys.exit(0 if ratio >= goal else 1)


if __name__ == "__main__":
    app.run(main)
