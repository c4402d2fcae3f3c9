"""What arrives from a Common Crawl that misbehaves, and how politely it was asked.

    python examples/benchmarks/flaky_network.py            50 seeds, about 3 minutes, which are mostly waits
    python examples/benchmarks/flaky_network.py --quick    2 seeds, about 20 seconds

A server on this machine serves a small Common Crawl in its real layout: lists, archives, index. For each seed and each
kind of fault it runs through a plan drawn from the seed, while three threads download a file each (for 503 × 20 a
single one, so that all twenty hit the same file; for single pages, a source reads nine of them by way of the index).
What is checked is what the server saw and what lies on the disk in the end:

    not whole     files, or pages, that are not byte for byte the server's
    too fast      seconds in which there were more requests than one per interval
    no rest       requests that came while the server had refused, or had said when to come back

Times are scaled down: one request per 0.05 seconds in place of 0.55, a rest of 1 second in place of 90; Retry-After
stays in whole seconds, as in HTTP. The goal is that none of the three ever happens.
"""

import bisect
import email.utils
import json
import logging
import math
import os
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ |= {"TQDM_DISABLE": "1", "no_proxy": "127.0.0.1"}

from absl import app, flags

from tf_llm.contracts import UserError
from tf_llm.crawl import CommonCrawl, CommonCrawlPages
from tf_llm.crawl.manners import DownloadConfig
from tf_llm.crawl.warc import read_pages

FLAGS = flags.FLAGS
flags.DEFINE_bool("quick", False, "2 seeds instead of 50")
flags.DEFINE_integer("seeds", 50, "How many plans of each kind of fault.", lower_bound=1)
flags.DEFINE_string("data", None, "Not needed: the pages are made.")

INTERVAL = 0.05  # seconds between two requests
COOL_DOWN = 1.0  # seconds that a server is left alone after it refused
CONFIG = DownloadConfig(timeout=0.5, first_wait=0.02, longest_wait=0.2, cool_down=COOL_DOWN)
ON_THE_WAY = 0.3  # seconds: a request that was sent before the refusal had arrived at the client
FILE = 60_000  # bytes; the archives are a little larger
PAGES = 9


def say_seconds():
    return {"Retry-After": "1"}


def say_date():
    return {"Retry-After": email.utils.formatdate(math.ceil(time.time()) + 1, usegmt=True)}


def draw_mixture(draw):
    """Seven faults of seven kinds. Nothing tells of a wrong byte here, so that there is none; and two refusals at most,
    since the third in a row is the last one, as it is meant to be."""
    refusals = ("403", "429, Retry-After in seconds", "429, Retry-After as a date")
    left_out = (draw.choice(refusals), "503 x 20", "a wrong byte, digest known", "a mixture", "single pages")
    kinds = [kind for kind in PLANS if kind not in left_out]
    faults = [fault for kind in draw.sample(kinds, len(kinds)) for fault in PLANS[kind](draw)[:1]]
    return faults[:7]


# Kind of fault -> what the next requests for data run into.
PLANS = {
    "503 x 20": lambda draw: [("status", 503)] * 20,
    "403": lambda draw: [("status", 403)],
    "429, Retry-After in seconds": lambda draw: [("status", (429, say_seconds))],
    "429, Retry-After as a date": lambda draw: [("status", (429, say_date))],
    "stalls": lambda draw: [("stall", draw.randrange(FILE)) for _ in range(3)],
    "resets mid-body": lambda draw: [("reset", draw.randrange(FILE)) for _ in range(6)],
    "a length that is too long": lambda draw: [("lie", draw.randrange(1, FILE)), ("extra", draw.randrange(1, FILE))],
    "a length that is too short": lambda draw: [("short", draw.randrange(1, FILE)) for _ in range(3)],
    "a wrong Content-Range": lambda draw: [
        fault for _ in range(2) for fault in (("cut", draw.randrange(1, FILE)), ("wrong range", draw.randrange(1, 999)))
    ],
    "ranges ignored": lambda draw: [("cut", draw.randrange(1, FILE)), *[("no ranges", draw.randrange(FILE))] * 3],
    "another file at first": lambda draw: [("older", draw.randrange(1, FILE)) for _ in range(3)],
    "a wrong byte, digest known": lambda draw: [("wrong byte", draw.randrange(FILE)) for _ in range(3)],
    "a mixture": draw_mixture,
    "single pages": lambda draw: draw.sample(
        [("status", 503), ("stall", 9), ("reset", 900), ("lie", 99), ("wrong range", 7), ("status", 403)] * 2, k=8
    ),
}


def try_plan(kind, seed):
    """Counter of what went wrong, of requests, and of seconds."""
    draw = random.Random(f"{kind} {seed}")
    server = crawl_server.start()
    server.faults = PLANS[kind](draw)
    if kind == "a wrong byte, digest known":
        server.digests = draw.choice(["md5", "s3"])
    begin = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            settings = {"cache_dir": folder, "index_address": server.address, "data_address": server.address}
            settings |= {"index_interval": INTERVAL, "data_interval": INTERVAL, "config": CONFIG}
            lost = count_lost(server, settings, kind)
        return Counter(
            {
                "not whole": lost,
                "too fast": count_too_fast(server.times),
                "no rest": count_restless(server),
                "requests": len(server.times),
                "faults": len(PLANS[kind](random.Random(f"{kind} {seed}"))) - len(server.faults),
                "seconds": time.monotonic() - begin,
            }
        )
    finally:
        crawl_server.stop(server)


def count_lost(server, settings, kind):
    if kind == "single pages":
        return count_lost_pages(server, settings)
    count = 1 if kind == "503 x 20" else len(crawl_server.FILES)
    source = CommonCrawl(crawl_server.CRAWL, files=count, **settings)
    source.list_paths()

    def download(index):
        try:
            [path] = source.shard(index, count).download()
            return path.read_bytes() == server.files[crawl_server.FILES[index]]
        except UserError as error:
            print(f"{kind}: {error}")
            return False

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(download, range(count))).count(False)


def count_lost_pages(server, settings):
    source = CommonCrawlPages("*.example", crawl_server.CRAWL, limit=PAGES, **settings)
    try:
        found = [(page.url, page.content) for page in source]
    except UserError as error:
        print(f"single pages: {error}")
        found = []
    path = Path(settings["cache_dir"], "whole.warc.gz")
    path.write_bytes(server.files[crawl_server.FILES[0]])
    expected = [(page.url, page.content) for page in read_pages(path, Counter())][:PAGES]
    return len(set(expected) - set(found)) + len(set(found) - set(expected))


def count_too_fast(times):
    """Requests after which more came within a second than one per interval, the first one and a late one included."""
    return sum(bisect.bisect_right(times, begin + 1) - place > 1 / INTERVAL + 2 for place, begin in enumerate(times))


def count_restless(server):
    """Requests between a refusal and the end of the rest that follows from it."""
    restless = 0
    for sent, seconds in server.refusals:
        rest = max(COOL_DOWN, seconds)
        restless += sum(sent + ON_THE_WAY < asked < sent + rest for asked in server.times)
    return restless


def main(_):
    global crawl_server
    tests = Path(__file__).resolve().parents[2] / "tests"
    sys.path.insert(0, str(tests))
    try:
        import crawl_server
    except ImportError:
        print(f"could not run: {tests / 'crawl_server.py'} not found; run it in a copy of the repository")
        sys.exit(2)
    logging.getLogger("tf_llm").setLevel(logging.ERROR)
    seeds = 2 if FLAGS.quick else FLAGS.seeds
    columns = ("faults", "requests", "not whole", "too fast", "no rest", "seconds")
    print(f"{seeds} seeds, one request per {INTERVAL} s, after a refusal none for {COOL_DOWN} s\n")
    print(f"{'':28}" + "".join(f"{column:>11}" for column in columns))
    failures = 0
    with ThreadPoolExecutor(6) as threads:
        results = {kind: threads.map(lambda seed, kind=kind: try_plan(kind, seed), range(seeds)) for kind in PLANS}
        for kind, outcomes in results.items():
            total = sum(outcomes, Counter())
            print(f"{kind:28}" + "".join(f"{total[column]:11.0f}" for column in columns), flush=True)
            failures += total["not whole"] + total["too fast"] + total["no rest"]
    result = {"name": "flaky_network", "value": failures, "goal": 0, "unit": "files not whole, or impolite requests"}
    print(json.dumps(result | {"holds": failures == 0}))
    sys.exit(0 if failures == 0 else 1)


if __name__ == "__main__":
    app.run(main)
