"""Pages to shards: the whole of a preparation, whoever carries it out.

    "read"     pages      -> documents, and keys by which repetitions are found      steps 1, and the rules of cleaning
    join       keys       -> which pages and lines repeat earlier ones of the corpus
    "count"    documents  -> the counts of their words                               steps 4, 5 and 2 of the article
    join       counts     -> the vocabulary                                          step 3
    "encode"   documents  -> token ids in shards, and the price of what the steps removed

The corpus is divided into parts, of which each goes through the stages by itself (shard.py); only the joins know of
all. Low-frequency words can only be told once the whole corpus was counted, hence the documents on disk in between.
What is counted, and how the vocabulary follows, is up to the builder of the tokens (text/builders.py).

Everything is made in a folder beside the one that is asked for, `data.partial`, and the finished shards are renamed at
the end: a folder of shards is whole or is not there. A run that was stopped, however hard, goes on from there. This
module and what it imports keep clear of TensorFlow, because every worker process imports it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_llm.contracts import Source, UserError
from tf_llm.data.shards import Shards, load_shards, split_of
from tf_llm.files import lock_folder, write_atomically
from tf_llm.prepare.assemble import SHARDS, Gathered, finish
from tf_llm.prepare.count import load_kept
from tf_llm.prepare.encode import PRICED_BYTES, TOKENIZER
from tf_llm.prepare.local import Driver, Local
from tf_llm.prepare.statistics import merge_statistics
from tf_llm.prepare.task import Preparation, Task, load_statistics, place_of
from tf_llm.text.builders import make_builder
from tf_llm.text.filters import Filters
from tf_llm.text.html import require_extractor

if TYPE_CHECKING:
    from tf_llm.config import RunConfig

logger = logging.getLogger(__name__)

SETTINGS, REPEATED = "settings.json", "repeated.json"
LEAST_PARTS = 2  # of a source that is one file: so many workers can share it, and each has to read all of it


def prepare(
    source: Source,
    run: RunConfig,
    folder: str | Path,
    wait: bool = False,
    driver: Driver | None = None,
    tokenizer: str | Path | None = None,
) -> Shards:
    """Turns the pages of a source into a folder of token shards, or returns the shards that are there already.

    Args:
        source: pages, as from `crawl.CommonCrawl`, `crawl.SelfCrawl`, `crawl.Warc` or `crawl.JsonLines`.
        run: its `html`, `filters`, `duplicates`, `words`, `tokens`, `shards`, `workers` and, where it has them,
            `sentinels` say how.
        folder: where to; made whole or not at all. What a run that was stopped has done lies beside it, and is used.
        wait: whether another process prepares them, in a folder that both see: this one waits until they are there.
        driver: who does the work: `prepare.local.Local` on this machine, the default, or `prepare.spark.Spark`.
        tokenizer: the file of a tokenizer to use instead of one that is made of these pages: a corpus can be prepared
            piece by piece, and a model can train on the first piece meanwhile.

    Raises:
        UserError: the folder holds something else, or another process is at it; no page of the source has text; there
            is no room on the disk; the vocabulary has no room for pieces.

    >>> shards = prepare(Warc("crawl/*.warc.gz"), tf_llm.recipes.article(), "runs/first/data")  # doctest: +SKIP
    >>> shards.train.tokens, shards.about["rejections"]                                         # doctest: +SKIP
    (1148261, {'http status 404': 31, 'no text': 2})
    """
    folder = Path(folder)
    settings = describe(source, run, tokenizer)
    if wait and not folder.exists():
        logger.info("waiting for the shards in %s, which another process prepares", folder)
        while not folder.exists():
            time.sleep(1)
    partial = folder.with_name(f"{folder.name}.partial")
    if folder.exists():
        shards = reuse(folder, settings)
        shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed with its last step behind it
        return shards
    require_extractor(run.html)
    builder = make_builder(run.tokens, run.words, count_sentinels(run))
    stages = {name: getattr(run, name) for name in ("html", "filters", "duplicates", "shards")}
    preparation = Preparation(builder=builder, **stages)
    try:
        with open_partial(partial, settings), driver or Local(run.workers) as driver:
            write_shards(source, preparation, partial, driver, settings, tokenizer)
            (partial / SHARDS).rename(folder)
        shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"expected a folder that can be written at {folder}. Received: {error}. Make room, or choose another one; "
            f"what is done already lies in {partial}, and is used when you come back"
        ) from error
    return load_shards(folder)


def describe(source: Source, run: RunConfig, tokenizer: str | Path | None = None) -> dict[str, Any]:
    """All that decides what the shards hold, as JSON knows it."""
    settings = {"source": repr(source), "tokens": run.tokens, "sentinels": count_sentinels(run)}
    settings |= {
        name: dataclasses.asdict(getattr(run, name)) for name in ("html", "filters", "duplicates", "words", "shards")
    }
    if lists := Filters(run.filters).list_digests():  # files that the settings only name
        settings["lists"] = lists
    if tokenizer is not None:
        settings["tokenizer"] = hashlib.sha256(Path(tokenizer).read_bytes()).hexdigest()
    return json.loads(json.dumps(settings))


def count_sentinels(run: RunConfig) -> int:
    """How many sentinels the objective of a run needs; none where it says nothing of them."""
    return getattr(run, "sentinels", 0)


def reuse(folder: Path, settings: dict[str, Any]) -> Shards:
    """The shards that lie in a folder, if they were made of the same source in the same way."""
    shards = load_shards(folder)
    made = shards.about.get("settings", {})
    if differing := [name for name in settings | made if settings.get(name) != made.get(name)]:
        name = differing[0]
        raise UserError(
            f"expected shards of the same settings in {folder}. Received: {name} {made.get(name, 'none')}, where this "
            f"run has {settings.get(name, 'none')}. Choose another folder, or remove that one"
        )
    logger.info("using the shards in %s: %s tokens", folder, f"{shards.train.tokens:,}")
    return shards


@contextlib.contextmanager
def open_partial(partial: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Keeps the folder of what is half done to this process. What was done with other settings is removed first."""
    partial.mkdir(parents=True, exist_ok=True)
    try:
        with lock_folder(partial, wait=False):
            text = json.dumps(settings, indent=1).encode()
            if not (partial / SETTINGS).exists() or (partial / SETTINGS).read_bytes() != text:
                (partial / SETTINGS).unlink(missing_ok=True)  # first: they vouch for all the rest
                for left in partial.iterdir():
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
                write_atomically(partial / SETTINGS, text)
            else:
                logger.info("going on with what is done already in %s", partial)
            yield
    except BlockingIOError as error:
        raise UserError(
            f"expected to be the only one who prepares {partial.with_suffix('')}. Received: another process is at it. "
            "Let it finish, or choose another folder"
        ) from error


def write_shards(
    source: Source,
    preparation: Preparation,
    folder: Path,
    driver: Driver,
    settings: dict[str, Any],
    tokenizer: str | Path | None,
) -> None:
    """All stages and joins, and the manifest. What is done already is not done again."""
    parts = preparation.shards.parts or max(source.parts, LEAST_PARTS)
    begin = time.perf_counter()
    seconds = {}

    def process(stage: str, title: str, pages: int = 0, sources: list[Source] | None = None, **more: Any):
        tasks = [
            Task(stage=stage, number=part, folder=str(folder), preparation=preparation, **more) for part in range(parts)
        ]
        if sources:
            tasks = [dataclasses.replace(task, source=sources[task.number]) for task in tasks]
        driver.process(tasks, title, pages)
        seconds[stage] = round(time.perf_counter() - begin - sum(seconds.values()), 2)
        return [load_statistics(place_of(folder, part, stage)) for part in range(parts)]

    read = process("read", "reading pages", sources=[source.shard(part, parts) for part in range(parts)])
    if not (folder / REPEATED).exists():
        repeated = driver.find_repeats(folder, parts, preparation.duplicates)
        write_atomically(folder / REPEATED, json.dumps(repeated).encode())
    in_logs = merge_statistics(read)
    counted = process("count", "counting words", in_logs["pages"] - sum(in_logs["rejected"].values()))
    statistics = merge_statistics([*read, *counted])
    require_documents(statistics, source)
    counts = driver.add_counts(folder, parts)
    if not (folder / TOKENIZER).exists():
        write_tokenizer(folder, parts, preparation, counts, tokenizer)
    fraction = PRICED_BYTES / max(statistics["text_bytes"], 1)
    encoded = process("encode", "encoding documents", statistics["documents"], priced_fraction=fraction)

    repeated_lines = json.loads((folder / REPEATED).read_bytes())["lines"]
    finish(folder, preparation, settings, Gathered(statistics, encoded, counts, repeated_lines, seconds))


def require_documents(statistics: dict[str, Any], source: Source) -> None:
    """Raises UserError where nothing is left to train on."""
    if not statistics["documents"]:
        rejected = Counter(statistics["rejected"]).most_common(3)
        received = ", ".join(f"{count} × {reason}" for reason, count in rejected) or "no page"
        raise UserError(f"expected pages with text in {source!r}. Received: {received}. Take more pages, or others")
    if not statistics["training"]:
        raise UserError(
            f"expected training pages in {source!r}. Received: {statistics['documents']} in all, every one of the "
            "validation split. Take more pages"
        )


def write_tokenizer(
    folder: Path, parts: int, preparation: Preparation, counts: Counter[str], tokenizer: str | Path | None
) -> None:
    """The tokenizer of the corpus, or a copy of the one that was given."""
    if tokenizer is not None:
        write_atomically(folder / TOKENIZER, Path(tokenizer).read_bytes())
        return
    texts = (
        document.text
        for part in range(parts)
        for document in load_kept(folder, part, preparation)
        if split_of(document.url, preparation.shards.validation_fraction) == "train"
    )
    preparation.builder.build(counts, texts).save(str(folder / TOKENIZER))
