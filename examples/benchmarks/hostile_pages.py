"""Pages made to break their reader: what do they cost, and do the pages beside them come through?

    python examples/benchmarks/hostile_pages.py            about 1 minute on 2 cores
    python examples/benchmarks/hostile_pages.py --quick    bombs and depths of a tenth, 30 seconds

Each hostile page stands in a WARC file of its own between three sound ones before and three behind. A process of its
own reads the file as `prepare` does: records (`Warc`), text (`strip_html`), rules (`Filters`, all that need no list and
no model). Before that it reads a file of sound pages, so that what is measured is the hostile page: CPU seconds of the
whole file, since others may be busy on the machine, and how much higher the peak of its memory is.

The goal is at most 2 seconds and 300 MB for every page, with all six neighbours kept unchanged; and of 10,000 copies of
one page, which `prepare` reads as two files, one is kept.
"""

import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import types
import zlib
from collections import Counter
from pathlib import Path

from absl import app, flags, logging

import tf_llm
from tf_llm.contracts import Document, Rejected
from tf_llm.crawl.warc import Warc
from tf_llm.data.shards import ShardConfig
from tf_llm.prepare.worker import WorkerConfig
from tf_llm.text.duplicate_keys import DuplicatesConfig
from tf_llm.text.filters import FilterConfig, Filters
from tf_llm.text.html import HtmlConfig, strip_html
from tf_llm.text.words import WordsConfig

MAX_SECONDS, MAX_MEGABYTES = 2.0, 300
NEIGHBOURS = 6
RULES = ("c4", "gopher_quality", "gopher_repetition", "personal_data")

_QUICK = flags.DEFINE_bool("quick", False, "Bombs and depths of a tenth of the size.")
_CHILD = flags.DEFINE_string("child", None, "Measure this file, in this process (used by the script itself).")

STORY = (
    "The cat in house number {n} had a plan for breakfast, and the mouse next door knew of it. Nobody else on "
    "that road was awake, because it was raining and the beds were warm. So they sat down together, shared {n} kinds "
    "of cheese, talked about the winter, and agreed to be honest until lunch. Both of them found this very funny."
)


COPY = f"<html><body><main><p>{STORY.format(n=7)}</p></main></body></html>".encode()


def write_member(url, content, headers="", length=None):
    """A record as a gzip member; `content` is the body of a response or, with `length`, pieces of one."""
    http = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{headers}\r\n".encode()
    head = (
        f"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-11-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:x:{url}>\r\nContent-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http) + (len(content) if length is None else length)}\r\n\r\n"
    )
    pieces = [head.encode(), http, *([content] if length is None else content), b"\r\n\r\n"]
    deflate = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join([*map(deflate.compress, pieces), deflate.flush()])


def write_sound(number):
    return write_member(f"http://cats.example/{number}", f"<html><body><p>{STORY.format(n=number)}</p>".encode())


def zeros(megabytes):
    return (bytes(1 << 20) for _ in range(megabytes))


def list_cases(scale):
    """Name -> a record, or the bytes of a page."""
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([*map(bomb.compress, zeros(1024 // scale)), bomb.flush()])
    size = f"{1024 // scale} MB"
    russian = f"<meta charset=utf-8><p>{'Съешь ещё этих мягких французских булок, да выпей чаю. ' * 20_000}"
    return {
        f"gzip bomb, body of {size}": write_member("http://bomb.example/", bomb, "Content-Encoding: gzip\r\n"),
        f"gzip bomb in a gzip, {size}": write_member(
            "http://bomb.example/", gzip.compress(bomb), "Content-Encoding: gzip, gzip\r\n"
        ),
        f"gzip bomb, record of {size}": write_member(
            "http://bomb.example/", zeros(1024 // scale), length=(1024 // scale) << 20
        ),
        "nested <div>": b"<div>" * (1_000_000 // scale),
        "nested <b>": b"<b>" * (1_000_000 // scale),
        "nested <p><table>": b"<p><table><td>" * (330_000 // scale),
        "nested <ul><li>": b"<ul><li>" * (500_000 // scale),
        "nested <x-cat>": b"<x-cat>" * (1_000_000 // scale),
        "60 kB of `<a `": b"<a " * 20_000,
        "20,000 `<!--`": b"<!--" * 20_000,
        "20,000 `<![CDATA[`": b"<svg><![CDATA[" * 20_000,
        "one tag of 5 MB": b"<p " + b"a=1 " * 1_250_000 + b">",
        "one word of 5 MB": b"<p>" + b"miau" * 1_250_000,
        "one word of 5 MB in Latin-1": b"<p>" + b"\xe9\xe8\xea\xeb" * 1_250_000,
        "Russian called UTF-8": russian.encode("cp1251"),
        "UTF-8 called Shift-JIS": russian.replace("utf-8", "shift_jis").encode(),
        "UTF-16 called Latin-1": russian.replace("utf-8", "iso-8859-1").encode("utf-16-le"),
        "every byte": bytes(range(256)) * 8_000,
        "a million zero bytes": bytes(1_000_000),
        "zero bytes between letters": b"<p>" + b"c\0a\0t\0 \0sat. " * 100_000,
        "lone surrogates as references": b"<p>" + b"&#xd800;&#xdfff;&#55296;cat " * 50_000,
        "lone surrogates in UTF-8": b"<p>" + b"\xed\xa0\x80\xed\xbf\xbfcat " * 100_000,
        "a million references": b"<p>" + b"&amp;" * 1_000_000,
        "a million @": b"<p>" + b"a@" * 500_000,
        "a million digits": b"<p>" + b"+1 (2) 3-" * 110_000,
        "a million lines": b"<pre>" + b"a.\n" * 500_000,
    }


def read_file(path, rules):
    """The texts kept, and why other pages were not. Every rule sees every page, whatever the others say."""
    source, reasons, texts = Warc(path), Counter(), {}
    for page in source:
        document = strip_html(page)
        results = [rule(document, Counter()) for rule in rules] if isinstance(document, Document) else [document]
        rejected = [result for result in results if isinstance(result, Rejected)]
        reasons.update(result.reason for result in rejected)
        if not rejected:
            texts[document.url] = document.text
    return texts, source.rejections + reasons


def read_peak():
    """The most memory this process has had, in MB. Unlike getrusage's, it does not begin with its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def measure(path):
    """One file in this process, as a line of JSON."""
    logging.set_verbosity(logging.ERROR)
    rules = [Filters(FilterConfig(names=name)) for name in RULES]
    read_file(path.with_name("sound.warc.gz"), rules)
    before, begin = read_peak(), time.process_time()
    texts, reasons = read_file(path, rules)
    seconds, megabytes = time.process_time() - begin, read_peak() - before
    sound = sum(texts.get(f"http://cats.example/{n}") == STORY.format(n=n) for n in range(NEIGHBOURS))
    fate = ", ".join(reasons) or "kept"
    print(json.dumps({"seconds": seconds, "megabytes": megabytes, "neighbours": sound, "fate": fate}))


def run_case(folder, record):
    """What a process of its own says of one hostile record between sound ones."""
    path = folder / "hostile.warc.gz"
    sound = [write_sound(n) for n in range(NEIGHBOURS)]
    path.write_bytes(b"".join([*sound[: NEIGHBOURS // 2], record, *sound[NEIGHBOURS // 2 :]]))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        child = subprocess.run(
            [sys.executable, __file__, f"--child={path}"], capture_output=True, timeout=120, env=environment, check=True
        )
    except subprocess.TimeoutExpired:
        return {"seconds": 120.0, "megabytes": 0, "neighbours": 0, "fate": "did not end"}
    except subprocess.CalledProcessError as error:
        return {"seconds": 0, "megabytes": 0, "neighbours": 0, "fate": f"crash, exit status {error.returncode}"}
    return json.loads(child.stdout)


def count_kept_copies(folder: Path, copies: int) -> int:
    """How many pages are kept of so many copies of one, under addresses of their own in two files."""
    for part in range(2):
        members = (write_member(f"http://copies.example/{part}/{n}", COPY) for n in range(copies // 2))
        (folder / f"copies-{part}.warc.gz").write_bytes(b"".join(members))
    stages = {"html": HtmlConfig(), "filters": FilterConfig(), "words": WordsConfig(stop_words="own", minimum_count=1)}
    shards = ShardConfig(validation_fraction=1e-9)
    run = types.SimpleNamespace(
        tokens="words", duplicates=DuplicatesConfig(), shards=shards, workers=WorkerConfig(), **stages
    )
    prepared = tf_llm.prepare(Warc(f"{folder}/copies-*.warc.gz"), run, folder / "shards")
    return prepared.train.pages


def main(argv):
    del argv
    if _CHILD.value:
        measure(Path(_CHILD.value))
        return
    if not Path("/proc/self/status").is_file():
        print("could not run: needs /proc/self/status, which Linux has")
        sys.exit(2)
    failures = 0
    print(f"{'page':36}{'seconds':>8}{'MB':>6}{'neighbours':>12}  fate")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "sound.warc.gz").write_bytes(b"".join(map(write_sound, range(NEIGHBOURS))))
        cases = list_cases(10 if _QUICK.value else 1)
        for name, content in cases.items():
            record = content if content.startswith(b"\x1f\x8b") else write_member("http://hostile.example/", content)
            result = run_case(Path(folder), record)
            holds = (
                result["seconds"] <= MAX_SECONDS
                and result["megabytes"] <= MAX_MEGABYTES
                and result["neighbours"] == NEIGHBOURS
            )
            failures += not holds
            print(
                f"{name:36}{result['seconds']:8.2f}{result['megabytes']:6.0f}{result['neighbours']:>10}/{NEIGHBOURS}"
                f"  {result['fate']}{'' if holds else '   <- too much'}"
            )
        begin, copies = time.perf_counter(), 1_000 if _QUICK.value else 10_000
        kept = count_kept_copies(Path(folder), copies)
        print(f"{copies:,} copies of one page: {kept} kept, {time.perf_counter() - begin:.0f} s in all")
        failures += kept != 1
    unit = f"of {len(cases) + 1} cases that cost more than {MAX_SECONDS:.0f} s, {MAX_MEGABYTES} MB or a neighbour"
    print(json.dumps({"name": "hostile_pages", "value": failures, "goal": 0, "unit": unit, "holds": failures == 0}))
    sys.exit(0 if failures == 0 else 1)


if __name__ == "__main__":
    app.run(main)
