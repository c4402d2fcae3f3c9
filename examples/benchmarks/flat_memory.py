"""How much memory does a gigabyte of WARC take on its way to shards? The most that any process of the run ever had.

    python examples/benchmarks/flat_memory.py            about 4 minutes on 2 cores, 3 GB of disk
    python examples/benchmarks/flat_memory.py --quick    20 MB, 20 seconds

The archive repeats real pages under new addresses until it has a gigabyte, gzipped record by record: some 45,000
pages, 5 GB of HTML. All of them are kept, since nothing but equal addresses counts as a repetition here; `--keys` has
more kinds looked for. The run is `tf_llm.prepare` in a process of its own with two workers; the peak of each process's
resident memory is what Linux says of it (VmHWM), read twice a second. The goal is 600 MB. A script that trains
afterwards has TensorFlow in the process that calls `prepare`: 840 MB before the first page. This one does without.

Needs warc/real-pages.warc.gz in the folder that --data or the environment variable TF_LLM_DATA names, and Linux.
"""

import contextlib
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

from tf_llm.crawl.records import read_records

GOAL = 600  # MB

_DATA = flags.DEFINE_string("data", os.environ.get("TF_LLM_DATA", "../shared/data"), "The folder of test data.")
_QUICK = flags.DEFINE_bool("quick", False, "20 MB in place of a gigabyte.")
_KEYS = flags.DEFINE_string("keys", "addresses", "Which repetitions are looked for, as --duplicates.names has them.")

RUN = """
import logging, sys, types
import tf_llm
from tf_llm.data.shards import ShardConfig
from tf_llm.prepare.worker import WorkerConfig
from tf_llm.text.duplicate_keys import DuplicatesConfig
from tf_llm.text.filters import FilterConfig
from tf_llm.text.html import HtmlConfig
from tf_llm.text.words import WordsConfig

logging.basicConfig(level=logging.INFO, format="%(message)s")
run = types.SimpleNamespace(
    tokens="words",
    html=HtmlConfig(),
    filters=FilterConfig(),
    duplicates=DuplicatesConfig(names=sys.argv[3]),
    words=WordsConfig(stop_words="own"),
    shards=ShardConfig(),
    workers=WorkerConfig(processes=2),
)
shards = tf_llm.prepare(tf_llm.crawl.Warc(sys.argv[1]), run, sys.argv[2])
print(shards.train.pages + shards.validation.pages, shards.train.tokens + shards.validation.tokens)
"""


def repeat_pages(source: Path, archive: Path, size: int) -> int:
    """Writes the records of one archive again and again, with new addresses, until there are so many bytes."""
    with source.open("rb") as file:
        records = [record for record in read_records(file, source.name, 1 << 26) if isinstance(record, bytes)]
    pages, number = 0, 0
    with archive.open("wb") as file:
        while file.tell() < size:
            for record in records:
                named = re.sub(rb"(WARC-Target-URI: [^\r\n]+)", rb"\g<1>?copy=%d" % number, record, count=1)
                file.write(gzip.compress(named, 6, mtime=0))
                pages += b"WARC-Type: response" in record
            number += 1
    return pages


def list_processes(root: int) -> set[int]:
    """A process and all that descend from it."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    family, before = {root}, 0
    while len(family) > before:
        before = len(family)
        family |= {process for process, parent in parents.items() if parent in family}
    return family


def watch(process: subprocess.Popen) -> dict[int, int]:
    """The peak of resident memory of every process of a run, in bytes, until it ends."""
    peaks = {}
    while process.poll() is None:
        for member in list_processes(process.pid):
            with contextlib.suppress(OSError, TypeError):
                status = Path(f"/proc/{member}/status").read_text()
                peaks[member] = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
        time.sleep(0.5)
    return peaks


def main(argv):
    del argv
    source = Path(_DATA.value) / "warc" / "real-pages.warc.gz"
    if not source.is_file() or not Path("/proc/self/status").is_file():
        print(f"could not run: expected {source} (--data) and Linux's /proc")
        sys.exit(2)
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "pages.warc.gz")
        pages = repeat_pages(source, archive, 20_000_000 if _QUICK.value else 1_000_000_000)
        size = archive.stat().st_size / 1e6
        print(f"{pages:,} pages in {size:,.0f} MB of gzipped WARC; two workers")
        begin = time.perf_counter()
        command = [sys.executable, "-c", RUN, str(archive), f"{folder}/data", _KEYS.value]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        )
        peaks = watch(process)
        if process.returncode:
            sys.exit(1)
        kept, tokens = map(int, process.stdout.read().split()[-2:])
        seconds = time.perf_counter() - begin
    print(f"{kept:,} pages kept, {tokens:,} tokens, {seconds:.0f} s, {size / seconds:.1f} MB/s of gzipped WARC")
    for member, peak in sorted(peaks.items(), key=lambda item: -item[1])[:5]:
        print(f"{'the run itself' if member == process.pid else 'a process of it':20}{peak / 1e6:8,.0f} MB")
    value = round(max(peaks.values()) / 1e6)
    holds = value <= GOAL and kept > 0.9 * pages
    result = {"name": "flat_memory", "value": value, "goal": GOAL, "unit": "MB", "holds": holds}
    print(json.dumps(result))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
