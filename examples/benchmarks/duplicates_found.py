r"""Are the near duplicates found, and nothing else? Edited copies of 800 real pages, against their exact similarity.

    python examples/benchmarks/duplicates_found.py            2 to 3 minutes of one core, and 1 GB of disk
    python examples/benchmarks/duplicates_found.py --quick    every eighth page, 10 seconds, tf_llm alone

Every page is copied eleven times, each time with more of its words replaced, deleted, inserted and moved. What page and
copy have in common is counted exactly (Jaccard similarity of their sets of five words in a row), and beside it stands
whether the copy was called a near duplicate at the threshold of .8. At .8 exactly a coin might as well decide; the goal
is that 95 % of the copies at .85 or more are found, and none below .7.

The first table compares tf_llm with datasketch and rensa (`pip install "tf_llm[peers]"`; without them their rows are
left out), which read the same shingles, as strings, with as many minima; what their index proposes is compared by their
estimate. µs a page is processor time from a normalised text to its sketch, shingles included, taken in turns, the
median of three. The second shows tf_llm's outcome by exact similarity. The last one takes the keys of a million pages
of 40 lines, made by chance, from files: processor time, and the largest amount of memory that arrays took.

Needs warc/real-pages.warc.gz in the folder that --data or the environment variable TF_LLM_DATA names.
"""

import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import app, flags

from tf_llm.contracts import Document
from tf_llm.crawl.warc import Warc
from tf_llm.text.duplicate_keys import DuplicatesConfig, Keys, KeyWriter
from tf_llm.text.duplicates import find_repeated_lines, find_repeated_pages
from tf_llm.text.html import strip_html
from tf_llm.text.minhash import UNSPACED, mix, normalize, sketch_text

try:
    import datasketch
except ImportError:
    datasketch = None
try:
    import rensa
except ImportError:
    rensa = None

GOAL, SURE, NEVER = 0.95, 0.85, 0.7
RATES = (0.0005, 0.001, 0.002, 0.004, 0.007, 0.01, 0.014, 0.02, 0.03, 0.05, 0.1)  # of words that are edited
BINS = (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
CONFIG = DuplicatesConfig(names="near")

_DATA = flags.DEFINE_string("data", os.environ.get("TF_LLM_DATA", "../shared/data"), "The folder of test data.")
_QUICK = flags.DEFINE_bool("quick", False, "Every eighth page only, without libraries and without the million.")


def load_texts(path: Path) -> list[str]:
    """Normalised texts of at least 50 words, in scripts with spaces, no two the same."""
    results = (strip_html(page) for page in Warc(path))
    texts = {normalize(result.text): None for result in results if isinstance(result, Document)}
    return [text for text in texts if text.count(" ") >= 49 and not UNSPACED.search(text)]


def list_shingles(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[begin : begin + CONFIG.shingle]) for begin in range(len(words) - CONFIG.shingle + 1)]


def edit(text: str, rate: float, draw: random.Random) -> str:
    words = text.split()
    for _ in range(max(1, round(rate * len(words)))):
        where = draw.randrange(len(words))
        change = draw.choice(("replace", "delete", "insert", "move"))
        if change in ("delete", "move") and len(words) > CONFIG.shingle:
            word = words.pop(where)
            if change == "move":
                words.insert(draw.randrange(len(words)), word)
        elif change == "insert":
            words.insert(where, draw.choice(words))
        else:
            words[where] = f"edited{draw.randrange(1000)}"
    return " ".join(words)


def jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def collect(texts: list[str]) -> Keys:
    writer = KeyWriter(CONFIG)
    for text in texts:
        writer.add("", text)
    return Keys(**writer.close())


def find_tf_llm(originals: list[str], copies: list[str]) -> np.ndarray:
    """Which copies are near duplicates of an original."""
    _, verdicts = find_repeated_pages([collect(originals), collect(copies)], CONFIG)
    return verdicts > 0


def find_in_index(index, sketch: Callable, originals: list[str], copies: list[str]) -> np.ndarray:
    """The same by the index of a library: what it proposes is compared by the estimate of its sketches."""
    minima = [sketch(text) for text in originals]
    for number, one in enumerate(minima):
        index.insert(number, one)
    return np.array(
        [
            any(one.jaccard(minima[number]) >= CONFIG.jaccard for number in index.query(one))
            for one in map(sketch, copies)
        ]
    )


def find_datasketch(originals: list[str], copies: list[str]) -> np.ndarray:
    index = datasketch.MinHashLSH(threshold=CONFIG.jaccard, num_perm=CONFIG.sketch)
    return find_in_index(index, sketch_datasketch, originals, copies)


def find_rensa(originals: list[str], copies: list[str]) -> np.ndarray:
    bands, rows = CONFIG.bands
    index = rensa.RMinHashLSH(threshold=CONFIG.jaccard, num_perm=bands * rows, num_bands=bands)
    return find_in_index(index, sketch_rensa, originals, copies)


def sketch_datasketch(text: str):
    minima = datasketch.MinHash(num_perm=CONFIG.sketch)
    minima.update_batch([shingle.encode() for shingle in list_shingles(text)])
    return minima


def sketch_rensa(text: str):
    minima = rensa.RMinHash(num_perm=CONFIG.sketch, seed=1)
    minima.update(list_shingles(text))
    return minima


FINDERS = {"tf_llm": (find_tf_llm, lambda text: sketch_text(text, CONFIG.sketch))}
LIBRARIES = {
    "datasketch": (datasketch, find_datasketch, sketch_datasketch),
    "rensa": (rensa, find_rensa, sketch_rensa),
}


def compare(texts: list[str]) -> tuple[float, int]:
    """Prints both tables; returns the share found of what is surely the same, and how many false ones were found."""
    draw = random.Random(0)
    sets = [set(list_shingles(text)) for text in texts]
    exact, found = [], {name: [] for name in FINDERS}
    for rate in RATES:
        copies = [edit(text, rate, draw) for text in texts]
        exact += [jaccard(one, set(list_shingles(copy))) for one, copy in zip(sets, copies, strict=True)]
        for name, (find, _) in FINDERS.items():
            found[name].extend(find(texts, copies))
    exact = np.array(exact)
    seconds = {name: [] for name in FINDERS}
    for _ in range(3):
        for name, (_, make) in FINDERS.items():
            begin = time.process_time()
            for text in texts:
                make(text)
            seconds[name].append(time.process_time() - begin)

    words = statistics.mean(text.count(" ") + 1 for text in texts)
    print(f"{len(texts)} pages of {words:.0f} words, {len(exact)} copies; {CONFIG.sketch} minima of 5-word shingles")
    print(f"{'':14}{f'found, J ≥ {SURE}':>18}{f'found, J < {NEVER}':>18}{'µs a page':>14}")
    for name in FINDERS:
        is_found = np.array(found[name])
        sure, never = np.mean(is_found[exact >= SURE]), np.sum(is_found[exact < NEVER])
        print(f"{name:14}{sure:18.4f}{never:18}{statistics.median(seconds[name]) / len(texts) * 1e6:14.0f}")
    is_found = np.array(found["tf_llm"])
    print("\nexact similarity      copies   called near duplicates (tf_llm)")
    for low, high in itertools.pairwise(BINS):
        mine = (exact >= low) & ((exact < high) | (high == 1.0))
        if mine.any():
            print(f"   {low:.2f} to {high:.2f}{mine.sum():13}{np.mean(is_found[mine]):12.3f}")
    return float(np.mean(is_found[exact >= SURE])), int(np.sum(is_found[exact < NEVER]))


def measure_million(folder: Path, pages: int = 1_000_000, parts: int = 16, lines: int = 40) -> None:
    """Prints seconds and memory for the keys of a million pages, of which a part repeats others."""
    rng = np.random.default_rng(0)
    config = DuplicatesConfig(names="addresses,pages,near,lines")

    def draw(count: int, share: float) -> np.ndarray:
        numbers = np.arange(1, count + 1, dtype=np.uint64)
        repeats = np.flatnonzero(rng.random(count) < share)
        numbers[repeats] = rng.integers(1, count, len(repeats))
        return mix(numbers)

    columns = {"addresses": draw(pages, 0.05), "pages": draw(pages, 0.1), "lines": draw(pages * lines, 0.3)}
    signatures = rng.integers(0, 256, (pages, config.sketch), np.uint8)
    bands = rng.integers(1, 1 << 63, (pages, config.bands[0]), np.uint64)
    near = np.flatnonzero(rng.random(pages) < 0.2)
    of = rng.integers(0, pages, len(near))
    signatures[near] = np.where(rng.random((len(near), config.sketch)) < 0.9, signatures[of], signatures[near])
    is_same = rng.random((len(near), config.bands[0])) < 0.9 ** config.bands[1]
    bands[near] = np.where(is_same, bands[of], bands[near])
    columns |= {"bands": bands, "signatures": signatures}
    for part in range(parts):
        for name, column in columns.items():
            mine = np.array_split(column, parts)[part]
            np.save(folder / f"{name}{part}.npy", np.asfortranarray(mine) if name == "bands" else mine)
        count = len(np.array_split(columns["pages"], parts)[part])
        np.save(folder / f"line_starts{part}.npy", np.arange(count + 1) * lines)
    del columns, signatures, bands, column, mine
    size = sum(path.stat().st_size for path in folder.iterdir())
    keys = [
        Keys(**{name: np.load(folder / f"{name}{part}.npy", "r") for name in Keys.__dataclass_fields__})
        for part in range(parts)
    ]
    print(f"\n{pages:,} pages of {lines} lines in {parts} parts, {size / 1e6:.0f} MB in files")
    print(f"{'':24}{'CPU s':>10}{'MB':>8}{'repeated':>12}")
    tracemalloc.start()
    for names in ("addresses", "pages", "near"):
        tracemalloc.reset_peak()
        begin = time.process_time()
        verdicts = find_repeated_pages(keys, DuplicatesConfig(names=names))
        show(names, begin, sum(np.count_nonzero(verdict) for verdict in verdicts))
    tracemalloc.reset_peak()
    begin = time.process_time()
    show("lines", begin, sum(int(mask.sum()) for mask in find_repeated_lines(keys, verdicts)))
    tracemalloc.stop()


def show(name: str, begin: float, repeated: int) -> None:
    megabytes = tracemalloc.get_traced_memory()[1] / 1e6
    print(f"{name:24}{time.process_time() - begin:10.1f}{megabytes:8.0f}{repeated:12,}")


def main(argv):
    del argv
    path = Path(_DATA.value) / "warc" / "real-pages.warc.gz"
    if not path.is_file():
        print(f"could not run: {path} not found; name the folder of test data with --data")
        sys.exit(2)
    for name, (module, *finder) in ({} if _QUICK.value else LIBRARIES).items():
        if module:
            FINDERS[name] = finder
        else:
            print(f'{name} is not installed, its row is left out: pip install "tf_llm[peers]"')
    value, false = compare(load_texts(path)[:: 8 if _QUICK.value else 1])
    if not _QUICK.value:
        with tempfile.TemporaryDirectory() as folder:
            measure_million(Path(folder))
    holds = value >= GOAL and not false
    unit = f"share found of copies with a similarity of {SURE} or more, where none below {NEVER} is"
    print(
        json.dumps({"name": "duplicates_found", "value": round(value, 4), "goal": GOAL, "unit": unit, "holds": holds})
    )
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
