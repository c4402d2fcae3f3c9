"""Pages to token shards: tf_llm against the script that everybody writes first, on the same pages and the same cores.

    python examples/benchmarks/preprocessing_speed.py            about 5 minutes on 2 cores
    python examples/benchmarks/preprocessing_speed.py --quick    every eighth page, once: half a minute

The script: FastWARC reads, BeautifulSoup with lxml strips the HTML, NLTK's word_tokenize cuts the lower-cased text,
stop words go, FreqDist counts, words seen once go, the ids are written with numpy. It keeps the documents in memory
and protects itself from nothing. tf_llm checks every record, works in killable worker processes, prices what it
removes, and writes checksummed shards. Both write the ids of the same pages; each runs in a process of its own that is
bound to one core, then to two (the script with a pool of two), in turns. The goal: five times as fast with one core.

Needs `pip install "tf_llm[peers]"` and warc/real-pages.warc.gz in the folder that --data or TF_LLM_DATA names.
"""

import dataclasses
import functools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from absl import app, flags

GOAL, QUICK_GOAL = 5.0, 2.5

_DATA = flags.DEFINE_string("data", os.environ.get("TF_LLM_DATA", "../shared/data"), "The folder of test data.")
_QUICK = flags.DEFINE_bool("quick", False, "Every eighth page, once, against a sanity bound.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of each, in turns; medians are compared.")


def split_page(content, stop_words):
    """The script's work on one page: bytes of HTML -> words."""
    import nltk
    from bs4 import BeautifulSoup

    warnings.simplefilter("ignore")
    text = BeautifulSoup(content, "lxml").get_text(" ").lower()
    return [word for word in nltk.word_tokenize(text, preserve_line=True) if word not in stop_words]


def run_script(path, step, processes, folder):
    """The peer. Returns (pages, words kept)."""
    import nltk
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    from tf_llm.text.words import load_stop_words

    stop_words, _ = load_stop_words("own")
    records = enumerate(ArchiveIterator(str(path), record_types=WarcRecordType.response))
    contents = (record.reader.read() for number, record in records if number % step == 0)
    split = functools.partial(split_page, stop_words=stop_words)
    if processes == 1:
        documents = [split(content) for content in contents]
    else:
        with multiprocessing.Pool(processes) as pool:
            documents = pool.map(split, contents, chunksize=16)
    counts = nltk.FreqDist(word for document in documents for word in document)
    ids = {word: id for id, (word, count) in enumerate(counts.most_common(8_000), start=3) if count > 1}
    rows = [np.array([ids[word] for word in document if word in ids], "uint16") for document in documents]
    np.save(Path(folder) / "ids.npy", np.concatenate(rows))
    return len(documents), sum(map(len, rows))


def run_tf_llm(path, step, processes, folder):
    """Ours. Returns (pages, words kept)."""
    import tf_llm
    from tf_llm.prepare.worker import WorkerConfig

    run = tf_llm.recipes.article()
    run = dataclasses.replace(
        run, words=dataclasses.replace(run.words, stop_words="own"), workers=WorkerConfig(processes=processes)
    )
    begin = time.perf_counter()  # importing the model's settings imports Keras, which no page has to do with
    shards = tf_llm.prepare(tf_llm.crawl.Warc(path).shard(0, step), run, Path(folder) / "data")
    splits = (shards.train, shards.validation)
    return sum(split.pages for split in splits), sum(split.tokens for split in splits), time.perf_counter() - begin


CONTESTANTS = {"tf_llm": run_tf_llm, "script": run_script}


def work(pipe, name, path, step, processes):
    """The life of the process that runs a contestant."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:processes])
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        pages, words, *seconds = CONTESTANTS[name](path, step, processes, folder)
        pipe.send((pages, words, seconds[0] if seconds else time.perf_counter() - begin))


def time_contestant(name, path, step, processes):
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, name, path, step, processes))
    process.start()
    theirs.close()
    try:
        return pipe.recv()
    except EOFError:
        print(f"could not run: {name} ended without a result")
        sys.exit(2)
    finally:
        process.join()


def main(_):
    path = Path(_DATA.value) / "warc" / "real-pages.warc.gz"
    try:
        import bs4  # noqa: F401
        import lxml  # noqa: F401
    except ImportError as error:
        print(f'could not run: {error}; pip install "tf_llm[peers]"')
        sys.exit(2)
    if not path.is_file():
        print(f"could not run: {path} not found; name the folder of test data with --data")
        sys.exit(2)
    step, repeats = (8, 1) if _QUICK.value else (1, _REPEATS.value)
    seconds, ratios = {}, {}
    print(f"every {step}th page of {path.name}; medians of {repeats} runs in turns\n")
    print(f"{'cores':>5} {'':8}{'pages':>7}{'words kept':>12}{'seconds':>9}{'pages/s':>9}")
    for processes in (1, 2):
        results = {name: [] for name in CONTESTANTS}
        for _ in range(repeats):
            for name in CONTESTANTS:
                results[name].append(time_contestant(name, path, step, processes))
        for name, runs in results.items():
            pages, words, _ = runs[0]
            seconds[name] = statistics.median(run[2] for run in runs)
            rate = pages / seconds[name]
            print(f"{processes:5} {name:8}{pages:7}{words:12,}{seconds[name]:9.2f}{rate:9.1f}")
        ratios[processes] = seconds["script"] / seconds["tf_llm"]
        print(f"{processes:5} ratio {ratios[processes]:5.1f}\n")
    goal = QUICK_GOAL if _QUICK.value else GOAL
    result = {"name": "preprocessing_speed", "value": round(ratios[1], 2), "goal": goal, "unit": "times the script"}
    print(json.dumps(result | {"holds": ratios[1] >= goal}))
    sys.exit(0 if ratios[1] >= goal else 1)


if __name__ == "__main__":
    app.run(main)
