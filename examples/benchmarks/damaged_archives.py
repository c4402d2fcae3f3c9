"""What three readers make of damaged WARC files: tf_llm, plain FastWARC, and the standard library's gzip.

    python examples/benchmarks/damaged_archives.py --data ../shared/data            # about 20 seconds on 2 cores
    python examples/benchmarks/damaged_archives.py --data ../shared/data --quick    # about 6 seconds

The first records of a genuine archive, a gzip member per record and uncompressed, are damaged in hundreds of places,
one at a time: cut there, or one byte changed there. A table shows for each reader, summed over all trials: the
undamaged pages that it lost, the pages that it gave out altered, and the trials in which pages were missing or altered
and it said nothing. The goal is that tf_llm does none of the three. A second table shows what that costs in time on the
whole, undamaged archive.
"""

import gzip
import io
import itertools
import json
import os
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

from absl import app, flags, logging
from fastwarc.warc import ArchiveIterator, WarcRecordType

from tf_llm.contracts import Rejected
from tf_llm.crawl.members import inflate_members, read_chunks
from tf_llm.crawl.records import read_records
from tf_llm.crawl.warc import MAX_BYTES, read_pages

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "data", os.environ.get("TF_LLM_DATA", "../shared/data"), "folder that holds warc/real-pages.warc.gz"
)
flags.DEFINE_bool("quick", False, "30 places of each kind of damage instead of 300")
flags.DEFINE_integer("records", 16, "records of the archive to damage")
flags.DEFINE_integer("seed", 1, "of the places and the changed bytes")


def read_with_tf_llm(content):
    rejections = Counter()
    pages = [page.content for page in read_pages(io.BytesIO(content), rejections, "damaged")]
    return pages, bool(rejections)


def read_with_fastwarc(content):
    pages = []
    try:
        for record in ArchiveIterator(io.BytesIO(content), record_types=WarcRecordType.response):
            pages.append(record.reader.read())
    except OSError:
        return pages, True
    return pages, False


def read_with_gzip(content):
    """gzip inflates, FastWARC cuts what came out into records."""
    inflated, noticed = bytearray(), False
    try:
        with gzip.open(io.BytesIO(content)) as file:
            while piece := file.read(1 << 16):
                inflated += piece
    except (OSError, EOFError, gzip.zlib.error):
        noticed = True
    pages, failed = read_with_fastwarc(bytes(inflated))
    return pages, noticed or failed


def find_ends(parts):
    return list(itertools.accumulate(map(len, parts)))


def damage(content, kind, place, rng):
    if kind == "cut":
        return content[:place]
    changed = bytearray(content)
    changed[place] ^= rng.randrange(1, 256)
    return bytes(changed)


def judge(read, parts, pages, kind, places, rng):
    """Counter of what a reader lost over all the places; `pages[i]` is the page in `parts[i]`."""
    content, ends, result = b"".join(parts), find_ends(parts), Counter()
    for place in places:
        hit = sum(end <= place for end in ends)
        undamaged = pages[:hit] if kind == "cut" else pages[:hit] + pages[hit + 1 :]
        found, noticed = read(damage(content, kind, place, rng))
        result["recovered"] += len(set(found) & set(pages))
        result["undamaged lost"] += len(set(undamaged) - set(found))
        result["altered"] += len(set(found) - set(pages))
        result["silent"] += not noticed and set(found) != set(pages)
    return result


def load_parts(path, count):
    """The first `count` response records, each as its own gzip member, and uncompressed."""
    with path.open("rb") as file:
        records = read_records(file, path.name, MAX_BYTES)
        records = list(itertools.islice((record for record in records if not isinstance(record, Rejected)), count))
    records = [record + b"\r\n\r\n" for record in records]
    return {"gzip": [gzip.compress(record, mtime=0) for record in records], "uncompressed": records}


def time_readers(path, repeats=5):
    """Median seconds of a pass over the archive, the readers taking turns."""

    def fastwarc(verify):
        for record in ArchiveIterator(str(path), record_types=WarcRecordType.response, verify_digests=verify):
            record.reader.read()

    def zlib_only():
        with path.open("rb") as file:
            for _ in inflate_members(read_chunks(file, path.name), path.name):
                pass

    readers = {
        "tf_llm": lambda: Counter(page.url for page in read_pages(path, Counter())),
        "FastWARC": lambda: fastwarc(False),
        "FastWARC, checking digests": lambda: fastwarc(True),
        "zlib, inflating only": zlib_only,
    }
    seconds = {name: [] for name in readers}
    for _ in range(repeats):
        for name, read in readers.items():
            begin = time.perf_counter()
            read()
            seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main(_):
    path = Path(FLAGS.data) / "warc" / "real-pages.warc.gz"
    if not path.is_file():
        print(f"expected the archive {path}, which is not there. Name the folder of real pages with --data")
        sys.exit(2)
    logging.set_verbosity(logging.ERROR)  # every trial would be logged
    trials = 30 if FLAGS.quick else 300
    readers = {"tf_llm": read_with_tf_llm, "FastWARC": read_with_fastwarc, "gzip": read_with_gzip}
    failures = 0
    print(f"{FLAGS.records} records, {trials} places of each kind of damage, seed {FLAGS.seed}\n")
    columns = ("recovered", "undamaged lost", "altered", "silent")
    print(f"{'archive':13} {'damage':7} {'reader':9} " + " ".join(f"{column:>14}" for column in columns))
    for container, parts in load_parts(path, FLAGS.records).items():
        pages, noticed = read_with_tf_llm(b"".join(parts))
        if len(set(pages)) != FLAGS.records or noticed:
            print(f"expected {FLAGS.records} different sound pages. Received: {len(set(pages))}. Is {path} complete?")
            sys.exit(2)
        size, boundaries = sum(map(len, parts)), set(find_ends(parts))
        # A cut between two records leaves a shorter, sound archive: no reader can notice it.
        inside = [place for place in range(1, size) if place not in boundaries]
        for kind in ("cut", "change"):
            places = random.Random(FLAGS.seed).sample(inside, trials)
            for name, read in readers.items():
                if name == "gzip" and container != "gzip":
                    continue
                result = judge(read, parts, pages, kind, places, random.Random(FLAGS.seed))
                if name == "tf_llm":
                    failures += result["undamaged lost"] + result["altered"] + result["silent"]
                cells = [f"{result['recovered']}/{trials * len(pages)}", *(result[column] for column in columns[1:])]
                print(f"{container:13} {kind:7} {name:9} " + " ".join(f"{cell:>14}" for cell in cells))
    print(f"\n{'reading the whole archive':28} {'seconds':>8} {'relative':>9}")
    seconds = time_readers(path)
    for name, value in seconds.items():
        print(f"{name:28} {value:8.3f} {value / seconds['FastWARC']:9.2f}")
    holds = failures == 0
    goal = {"name": "damaged_archives", "value": failures, "goal": 0, "unit": "faults", "holds": holds}
    print(json.dumps(goal))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
