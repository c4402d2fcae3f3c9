r"""The whole way from WARC files to token shards: tf_llm, a datatrove pipeline, and the script everybody writes first.

    python examples/benchmarks/data_engine_speed.py            about 10 minutes on 2 cores
    python examples/benchmarks/data_engine_speed.py --quick    every 24th page and three contestants, once: a minute

Three tables, all of one run. First the words step alone, on the texts that `strip_html` finds: NLTK's word_tokenize,
NLTK's RegexpTokenizer with tf_llm's pattern, what tf_llm makes of that pattern (`split_words`: the same words, which
is checked on every text), and for comparison a plain regular expression of Python's `re`, \w+|[^\w\s].

Then the whole way, each contestant in a process of its own that is bound to one core, in turns, medians:

    tf_llm                      reads and checks records, strips HTML, replaces personal data, finds duplicates, lower-
                                cases, cuts words, removes stop words and rare ones, prices what it removed, writes
                                checksummed shards and a report; in a killable worker, and resumable
    datatrove                   WarcReader, Trafilatura, PIIFormatter, JsonlWriter; a vocabulary of words counted by the
                                package tokenizers; DocumentTokenizer. No duplicates, no stop words, no prices
    datatrove, our extraction   the same with tf_llm's own `extract_text` in place of trafilatura
    script, html.parser         warcio, BeautifulSoup as its documentation begins, word_tokenize, FreqDist, numpy. It
                                keeps the text of the whole page, menus and all, and everything in memory
    script, lxml                the same, with the faster parser

Last, tf_llm on two files with one process on one core, and with two on two. What the contestants call a page's text
differs; the column "text" shows by how much. Goals: three times datatrove, ten times the script (html.parser), and 1.6
times as fast with two processes.

Needs `pip install "tf_llm[peers]"` and warc/real-pages.warc.gz in the folder that --data or TF_LLM_DATA names.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

GOALS = {"datatrove": 3.0, "script, html.parser": 10.0, "two processes": 1.6}
QUICK_GOALS = {"datatrove": 1.5, "script, html.parser": 1.5, "two processes": 0.8}  # starting takes most of the time
PEERS = ("bs4", "cchardet", "datatrove", "lxml", "magic", "orjson", "tokenizers", "trafilatura", "warcio")
CONTESTANTS = ("tf_llm", "datatrove", "script, html.parser", "datatrove, our extraction", "script, lxml")
RUNNER = Path(__file__).with_name("peers") / "page_shards.py"

_DATA = flags.DEFINE_string("data", os.environ.get("TF_LLM_DATA", "../shared/data"), "The folder of test data.")
_QUICK = flags.DEFINE_bool("quick", False, "Every 24th page, once, against sanity bounds.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of each, in turns; medians are compared.")


def split_archive(path, folder, step):
    """Writes every step-th record of a record-gzipped WARC file into two files, half the bytes in each."""
    from fastwarc.warc import ArchiveIterator

    content = path.read_bytes()
    starts = [record.stream_pos for record in ArchiveIterator(str(path), parse_http=False)]
    members = [content[start:end] for start, end in zip(starts, [*starts[1:], len(content)], strict=True)][::step]
    half, done = sum(map(len, members)) / 2, 0
    halves = [folder / "a.warc.gz", folder / "b.warc.gz"]
    with halves[0].open("wb") as first, halves[1].open("wb") as second:
        for member in members:
            (first if done < half else second).write(member)
            done += len(member)
    return halves


def time_contestant(name, paths, cores):
    """What the contestant says of its run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(RUNNER), name, *map(str, paths), f"--folder={folder}", f"--cores={cores}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"could not run: {name}: {done.stderr.strip().splitlines()[-1]}")
        sys.exit(2)
    return json.loads(done.stdout.splitlines()[-1])


def compare_words(texts, repeats):
    """Prints the first table."""
    import nltk

    from tf_llm.text.word_pattern import WORD_PATTERN
    from tf_llm.text.words import split_words

    regexp_tokenizer = nltk.RegexpTokenizer(WORD_PATTERN)
    ways = {
        "nltk.word_tokenize": lambda text: nltk.word_tokenize(text, preserve_line=True),
        "nltk.RegexpTokenizer": regexp_tokenizer.tokenize,
        "tf_llm split_words": split_words,
        r"re, \w+|[^\w\s]": re.compile(r"\w+|[^\w\s]").findall,
    }
    seconds = {name: [] for name in ways}
    for _ in range(repeats):
        for name, cut in ways.items():
            begin = time.perf_counter()
            for text in texts:
                cut(text)
            seconds[name].append(time.perf_counter() - begin)
    megabytes = sum(len(text.encode("utf-8")) for text in texts) / 1e6
    differing = sum(split_words(text) != regexp_tokenizer.tokenize(text) for text in texts)
    print(f"the words step alone, {megabytes:.1f} MB of text")
    for name, runs in seconds.items():
        print(f"{name:28}{megabytes / statistics.median(runs):8.1f} MB/s")
    print(f"split_words and RegexpTokenizer find other words in {differing} of {len(texts)} texts\n")
    return differing


def compare_engines(paths, contestants, repeats):
    """Prints the second table; returns the median seconds of each contestant."""
    results = {name: [] for name in contestants}
    for _ in range(repeats):
        for name in contestants:
            results[name].append(time_contestant(name, paths, cores=1))
    seconds = {name: statistics.median(run["seconds"] for run in runs) for name, runs in results.items()}
    heads = f"{'pages':>6}{'text, MB':>9}{'tokens':>10}{'seconds':>9}{'(CPU)':>8}{'pages/s':>9}{'ratio':>7}"
    print(f"{'on one core':26}{heads}")
    for name, runs in results.items():
        pages, size, tokens = (runs[0][key] for key in ("pages", "text_bytes", "tokens"))
        busy = statistics.median(run["processor_seconds"] for run in runs)
        print(
            f"{name:26}{pages:6}{size / 1e6:9.1f}{tokens:10,}{seconds[name]:9.2f}{busy:8.2f}"
            f"{pages / seconds[name]:9.1f}{seconds[name] / seconds['tf_llm']:7.2f}"
        )
    return seconds


def compare_processes(paths, repeats):
    """Prints the third table; returns how many times as fast two processes are."""
    runs = {cores: [] for cores in (1, 2)}
    for _ in range(repeats):
        for cores in runs:
            runs[cores].append(time_contestant("tf_llm", paths, cores)["seconds"])
    one, two = (statistics.median(seconds) for seconds in runs.values())
    print(f"\ntf_llm on two files: one process {one:.2f} s, two {two:.2f} s, {one / two:.2f} times as fast")
    return one / two


def main(_):
    path = Path(_DATA.value) / "warc" / "real-pages.warc.gz"
    for name in PEERS:
        try:
            __import__(name)
        except ImportError as error:
            print(f'could not run: {error}; pip install "tf_llm[peers]"')
            sys.exit(2)
    if not path.is_file():
        print(f"could not run: {path} not found; name the folder of test data with --data")
        sys.exit(2)
    from tf_llm.contracts import Document
    from tf_llm.crawl.warc import Warc
    from tf_llm.text.html import strip_html

    step, repeats = (24, 1) if _QUICK.value else (1, _REPEATS.value)
    print(f"every {step}th page of {path.name}; medians of {repeats} runs in turns\n")
    with tempfile.TemporaryDirectory() as folder:
        paths = split_archive(path, Path(folder), step)
        texts = [document.text for document in map(strip_html, Warc(paths)) if isinstance(document, Document)]
        differing = compare_words(texts, repeats)
        seconds = compare_engines(paths, CONTESTANTS[:3] if _QUICK.value else CONTESTANTS, repeats)
        times = {name: round(each / seconds["tf_llm"], 2) for name, each in seconds.items()}
        times["two processes"] = round(compare_processes(paths, repeats), 2)

    goals = QUICK_GOALS if _QUICK.value else GOALS
    holds = not differing and all(times[name] >= goal for name, goal in goals.items())
    result = {"name": "data_engine_speed", "value": times["datatrove"], "goal": goals["datatrove"]}
    print(json.dumps(result | {"unit": "times datatrove", "holds": holds, "times": times, "goals": goals}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
