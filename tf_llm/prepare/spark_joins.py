"""What all parts of a corpus know together, found by Spark's shuffles: what repeats, and how often there is each word.

The outcome is that of text/duplicates.py and local.py, to the bit. A page or line of the corpus has one number,
(part << 40) + its position in the part, so that smaller is earlier.

    addresses, pages, lines   key, number  --by key-->  smallest number of each key  --by part-->  what repeats
    near duplicates           band key, number  --by key-->  numbers that share one, with their signatures  -->  pairs
    words                     word, count  --by word-->  sum

Each kind of repetition is looked for among what the kinds before it leave, so what a kind has found is written for each
part, `parts/00017/repeats.pages.npy`, before the next one begins; a run that was stopped goes on behind it. The keys of
one part, and those near duplicates that share one band, have to fit into the memory of one task; 16 bytes for each pair
of near duplicates, and all words with their counts, into that of the driver.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F  # noqa: N812, the name that all of Spark's pages use

from tf_llm.files import write_atomically
from tf_llm.prepare.count import COUNTS
from tf_llm.prepare.local import save_repeats
from tf_llm.prepare.read import KEYS
from tf_llm.prepare.task import place_of
from tf_llm.text.duplicate_keys import NAMES, DuplicatesConfig, Keys
from tf_llm.text.duplicates import candidate_pairs, compare_pages, connect
from tf_llm.text.minhash import count_needed

if TYPE_CHECKING:
    from pyspark.sql import GroupedData

SHIFT = 40  # bits of the position of a page or line in its part
ROWS = 1 << 16  # in a batch on its way to Spark
GROUPS = 4  # so many tasks for each part compare the candidates of near duplicates


def find_repeats(session: SparkSession, folder: Path, parts: int, config: DuplicatesConfig) -> dict[str, int]:
    """As `Driver.find_repeats` says."""
    names = [name for name in NAMES if name in config.kinds]
    for before, name in itertools.pairwise([None, *names]):
        if all(file_of(folder, part, name).exists() for part in range(parts)):
            continue
        if name == "near":
            numbers = find_near(session, folder, parts, before, config)
            tasks = session.sparkContext.parallelize(split_parts(numbers, parts), parts)
            tasks.foreach(functools.partial(mark_near, folder, before))
        else:
            numbers = find_firsts(session, folder, parts, name, before)
            mark = make_group_function(mark_all_but, folder, name, before)
            gather_parts(session, numbers, parts).applyInArrow(mark, "part long").collect()
    tasks = session.sparkContext.parallelize(range(parts), parts)
    return {"lines": tasks.map(functools.partial(save, folder, names)).sum()}


def add_counts(session: SparkSession, folder: Path, parts: int) -> Counter[str]:
    """As `Driver.add_counts` says."""
    # Strings of Spark are UTF-8, in which a lone surrogate has no place: words travel as bytes.
    rows = each_part(session, parts, functools.partial(list_counts, folder), "word binary, count long")
    sums = rows.groupBy("word").agg(F.sum("count").alias("count")).toArrow()
    words = (word.decode("utf-8", "surrogatepass") for word in sums["word"].to_pylist())
    return Counter(dict(zip(words, sums["count"].to_pylist(), strict=True)))


def each_part(session: SparkSession, parts: int, list_rows: Callable, schema: str) -> DataFrame:
    """The rows that `list_rows` lists of each part."""
    return session.range(0, parts, 1, parts).mapInArrow(functools.partial(list_all, list_rows), schema)


def list_all(list_rows: Callable, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """What `list_rows` says of each part that the batches name: {column: values}."""
    for batch in batches:
        for part in batch.column(0).to_pylist():
            for columns in list_rows(part):
                yield from pa.table(columns).to_batches(ROWS)


def make_group_function(function: Callable, *first: Any) -> Callable[[pa.Table], pa.Table]:
    """A function of a group alone. Spark looks at its signature, and takes neither `functools.partial` nor annotations
    that are words."""
    return lambda group: function(*first, group)


def find_firsts(session: SparkSession, folder: Path, parts: int, name: str, before: str | None) -> DataFrame:
    """The number of the first page, or line, that has each key, of those that are left: "number"."""
    rows = each_part(session, parts, functools.partial(list_keys, folder, name, before), "key long, number long")
    return rows.groupBy("key").agg(F.min("number").alias("number")).select("number")


def gather_parts(session: SparkSession, numbers: DataFrame, parts: int) -> GroupedData:
    """The numbers, grouped by their parts: "part", "number". Each part has a group, in which there is a null, too."""
    numbers = numbers.select(F.shiftright("number", SHIFT).alias("part"), "number")
    everyone = session.range(parts).select(F.col("id").alias("part"), F.lit(None).cast("long").alias("number"))
    return numbers.union(everyone).groupBy("part")


def find_near(
    session: SparkSession, folder: Path, parts: int, before: str | None, config: DuplicatesConfig
) -> np.ndarray:
    """The numbers of the pages that are in a group of near duplicates and not its first, in their order: int64 [n]."""
    schema = "band int, key long, number long"
    bands = each_part(session, parts, functools.partial(list_bands, folder, before), schema)
    together = F.count("*").over(Window.partitionBy("band", "key"))
    bands = bands.withColumn("together", together).where("together > 1")
    schema = "number long, signature binary"
    signatures = each_part(session, parts, functools.partial(list_signatures, folder, before), schema)
    group = F.pmod(F.hash("band", "key"), F.lit(GROUPS * parts))
    candidates = bands.join(signatures, "number").select("band", "key", "number", "signature", group.alias("group"))
    find = make_group_function(find_pairs, count_needed(config.jaccard, config.sketch))
    found = candidates.groupBy("group").applyInArrow(find, "one long, other long").distinct().toArrow()
    pairs = np.stack([found["one"].to_numpy(), found["other"].to_numpy()], axis=1)
    pages = np.unique(pairs)
    groups = np.arange(len(pages))
    connect(groups, np.searchsorted(pages, pairs))
    return pages[groups != np.arange(len(pages))]


def split_parts(numbers: np.ndarray, parts: int) -> list[tuple[int, np.ndarray]]:
    """Which of the ordered numbers are of each part."""
    bounds = np.searchsorted(numbers, np.arange(parts + 1) << SHIFT)
    return [(part, numbers[begin:end]) for part, (begin, end) in enumerate(itertools.pairwise(bounds))]


# What follows is done by Spark's machines.


def file_of(folder: Path, part: int, name: str) -> Path:
    """Where it is written what of a part repeats: uint8 [D], the verdicts so far, or of lines bool [L]."""
    return place_of(folder, part, f"repeats.{name}.npy")


def load_keys(folder: Path, part: int, before: str | None, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The keys of a kind, bool [D] or [L] whether each is of a page that is left, and the verdicts on pages so far."""
    with np.load(place_of(folder, part, "read") / KEYS, allow_pickle=False) as keys:
        line_starts, column = keys["line_starts"], keys[name]
    if before is None:
        verdicts = np.zeros(len(line_starts) - 1, np.uint8)
    else:
        verdicts = np.load(file_of(folder, part, before), allow_pickle=False)
    kept = verdicts == 0
    return column, np.repeat(kept, np.diff(line_starts)) if name == "lines" else kept, verdicts


def list_keys(folder: Path, name: str, before: str | None, part: int) -> Iterator[dict[str, np.ndarray]]:
    """The keys of a kind that count, and the numbers of what they stand for."""
    column, kept, _ = load_keys(folder, part, before, name)
    positions = np.flatnonzero(kept & (column != 0))
    yield {"key": column[positions].view(np.int64), "number": positions + (part << SHIFT)}


def list_bands(folder: Path, before: str | None, part: int) -> Iterator[dict[str, np.ndarray]]:
    """The keys of all bands that count."""
    columns, kept, _ = load_keys(folder, part, before, "bands")
    for band in range(columns.shape[1]):
        column = columns[:, band]
        positions = np.flatnonzero(kept & (column != 0))
        yield {
            "band": np.full(len(positions), band, np.int32),
            "key": column[positions].view(np.int64),
            "number": positions + (part << SHIFT),
        }


def list_signatures(folder: Path, before: str | None, part: int) -> Iterator[dict[str, Any]]:
    """The signatures of the pages that are left."""
    signatures, kept, _ = load_keys(folder, part, before, "signatures")
    kept = np.flatnonzero(kept)
    for positions in np.split(kept, range(ROWS, len(kept), ROWS)):
        yield {"number": positions + (part << SHIFT), "signature": [row.tobytes() for row in signatures[positions]]}


def list_counts(folder: Path, part: int) -> Iterator[dict[str, Any]]:
    """The words of a part, and how often there is each."""
    counts = json.loads((place_of(folder, part, "count") / COUNTS).read_bytes())
    words = pa.array([word.encode("utf-8", "surrogatepass") for word in counts], pa.binary())
    yield {"word": words, "count": pa.array(counts.values(), pa.int64())}


def find_pairs(needed: int, candidates: pa.Table) -> pa.Table:
    """Which candidates are alike: "one", "other". All that share the key of a band are here."""
    pages, rows, ids = np.unique(candidates["number"].to_numpy(), return_index=True, return_inverse=True)
    rows = candidates["signature"].take(pa.array(rows)).to_pylist()
    signatures = np.frombuffer(b"".join(rows), np.uint8).reshape(len(pages), -1)
    nothing = np.empty(0, np.uint64)
    keys = Keys(nothing, nothing, nothing, signatures, nothing, nothing)
    compare = functools.partial(compare_pages, [keys], needed=needed)
    bands, column = candidates["band"].to_numpy(), candidates["key"].to_numpy()
    pairs = [np.empty((0, 2), np.int64)]
    for band in np.unique(bands):
        mine = bands == band
        pairs.append(pages[candidate_pairs(column[mine], ids[mine], compare)])
    pairs = np.concatenate(pairs)
    return pa.table({"one": pairs[:, 0], "other": pairs[:, 1]})


def mark_all_but(folder: Path, name: str, before: str | None, firsts: pa.Table) -> pa.Table:
    """Writes of a part that what has a key repeats an earlier one, but for the first ones of their keys."""
    part = firsts["part"][0].as_py()
    column, kept, verdicts = load_keys(folder, part, before, name)
    repeated = kept & (column != 0)
    repeated[firsts["number"].drop_null().to_numpy() - (part << SHIFT)] = False
    if name != "lines":
        verdicts[repeated] = 1 + NAMES.index(name)
    write_array(file_of(folder, part, name), repeated if name == "lines" else verdicts)
    return pa.table({"part": [part]})


def mark_near(folder: Path, before: str | None, repeated: tuple[int, np.ndarray]) -> None:
    """Writes of a part which of its pages are near duplicates."""
    part, numbers = repeated
    _, _, verdicts = load_keys(folder, part, before, "line_starts")
    verdicts[numbers - (part << SHIFT)] = 1 + NAMES.index("near")
    write_array(file_of(folder, part, "near"), verdicts)


def save(folder: Path, names: list[str], part: int) -> int:
    """Writes what was found of a part as `Local` does. Returns how many lines repeat others."""
    of_pages = [name for name in names if name != "lines"]
    _, _, verdicts = load_keys(folder, part, of_pages[-1] if of_pages else None, "line_starts")
    lines = np.load(file_of(folder, part, "lines"), allow_pickle=False) if "lines" in names else None
    save_repeats(folder, part, verdicts, lines, f".{uuid.uuid4().hex}")
    return 0 if lines is None else int(lines.sum())


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes an array, whole or not at all."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    write_atomically(path, file.getvalue())
