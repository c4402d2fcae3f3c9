"""Pages to shards on one machine: two passes over the corpus, in parallel, and a count of everything that is lost.

    pass 1   pages      -> documents, and the counts of their words        step 1, then 4, 5 and 2 of the article
             counts     -> the vocabulary                                  step 3
    pass 2   documents  -> token ids in shards, and the price of what the steps removed

Low-frequency words can only be told once the whole corpus was counted: hence two passes, with the documents on disk
in between. What is counted, and how the vocabulary follows, is up to the builder of the tokens (text/builders.py):
pieces are not counted, but found in the documents between the passes. Only pages of the training split have a say in
the vocabulary, so that nothing of the validation split leaks into it. Everything is written beside its place and
renamed at the end: a folder of shards is whole or is not there. This module and what it imports keep clear of
TensorFlow, because every worker process imports it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import platform
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from tf_llm.contracts import Document, Page, Rejected, Source, UserError
from tf_llm.data.shards import Shards, ShardWriter, load_shards, split_of, write_manifest
from tf_llm.prepare.worker import WorkerPool
from tf_llm.text.builders import CharBuilder, PieceBuilder, WordBuilder, make_builder
from tf_llm.text.html import HtmlConfig, strip_html
from tf_llm.text.residual import Counts, UnigramCoder
from tf_llm.text.tokenizers import load_tokenizer
from tf_llm.text.words import count_rare_words

if TYPE_CHECKING:
    from tf_llm.config import RunConfig

logger = logging.getLogger(__name__)

Builder = WordBuilder | CharBuilder | PieceBuilder

DOCUMENTS, TOKENIZER = "documents.jsonl", "tokenizer.json"
# The price of what was removed is learned from so much training text: it converges early, and counting takes longer
# than all the rest of the second pass.
PRICED_BYTES = 1_000_000


@dataclasses.dataclass
class Read:
    """What pass 1 makes of a page."""

    document: Document
    html_bytes: int
    counts: dict[str, int]  # kept word or character -> occurrences
    removed: dict[str, int]  # what steps 4 and 2 removed, see `words.find_words`


@dataclasses.dataclass
class Encoded:
    """What pass 2 makes of a document."""

    url: str
    ids: np.ndarray  # int32 [tokens kept]
    text_bytes: int
    residual: Counts | None  # what the ids leave out of the text, where that is to be priced


@dataclasses.dataclass
class Counted:
    """A document that pass 1 has counted, on its way through pass 2."""

    url: str
    text: str
    is_priced: bool  # whether what the ids leave out of it is to be counted, too


def work(item: Page | Counted, html: HtmlConfig, builder: Builder, path: str):
    """What a worker does with an item of either pass. One pool serves both, since starting workers takes time."""
    if isinstance(item, Page):
        return read_page(item, html, builder)
    return encode_document(item, load_coder(path))


def read_page(page: Page, html: HtmlConfig, builder: Builder):
    """Pass 1 of one page: a `Read`, or a `Rejected` where the page has no text or no words."""
    document = strip_html(page, html)
    if isinstance(document, Rejected):
        return document
    removed = Counter()
    counts = builder.count(document.text, removed)
    if counts is None:
        return Rejected(page.url, "no words left")
    return Read(document, len(page.content), dict(counts), dict(removed))


def encode_document(document: Counted, coder: UnigramCoder) -> Encoded:
    """Pass 2 of one document."""
    return Encoded(
        document.url,
        np.asarray(coder.tokenizer.encode(document.text), "int32"),
        len(document.text.encode("utf-8", "surrogatepass")),
        coder.count(document.text) if document.is_priced else None,
    )


@functools.cache
def load_coder(path: str) -> UnigramCoder:
    """The coder of the tokenizer that stands between the passes; read once by each worker."""
    return UnigramCoder(load_tokenizer(path))


def prepare(source: Source, run: RunConfig, folder: str | Path, wait: bool = False) -> Shards:
    """Turns the pages of a source into a folder of token shards, or returns the shards that are there already.

    Args:
        source: pages, as from `crawl.CommonCrawl`, `crawl.SelfCrawl`, `crawl.Warc` or `crawl.JsonLines`.
        run: its `html`, `words`, `tokens`, `shards`, `workers` and, where it has them, `sentinels` say how.
        folder: where to; made whole or not at all.
        wait: whether another process prepares them, in a folder that both see: this one waits until they are there.

    Raises:
        UserError: the folder holds something else; no page of the source has text; there is no room on the disk;
            the vocabulary has no room for pieces.

    >>> shards = prepare(Warc("crawl/*.warc.gz"), tf_llm.recipes.article(), "runs/first/data")  # doctest: +SKIP
    >>> shards.train.tokens, shards.about["rejections"]                                         # doctest: +SKIP
    (1148261, {'http status 404': 31, 'no text': 2})
    """
    folder = Path(folder)
    settings = describe(source, run)
    if wait and not folder.exists():
        logger.info("waiting for the shards in %s, which another process prepares", folder)
        while not folder.exists():
            time.sleep(1)
    if folder.exists():
        return reuse(folder, settings)
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir(parents=True)
        write_shards(source, run, partial, settings)
        partial.rename(folder)
    except OSError as error:
        raise UserError(
            f"expected a folder that can be written at {folder}. Received: {error}. Make room, or choose another one"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load_shards(folder)


def describe(source: Source, run: RunConfig) -> dict[str, Any]:
    """All that decides what the shards hold, as JSON knows it."""
    settings = {"source": repr(source), "tokens": run.tokens, "sentinels": count_sentinels(run)}
    settings |= {name: dataclasses.asdict(getattr(run, name)) for name in ("html", "words", "shards")}
    return json.loads(json.dumps(settings))


def count_sentinels(run: RunConfig) -> int:
    """How many sentinels the objective of a run needs; none where it says nothing of them."""
    return getattr(run, "sentinels", 0)


def reuse(folder: Path, settings: dict[str, Any]) -> Shards:
    """The shards that lie in a folder, if they were made of the same source in the same way."""
    shards = load_shards(folder)
    made = shards.about.get("settings", {})
    if differing := [name for name in settings if settings[name] != made.get(name)]:
        name = differing[0]
        raise UserError(
            f"expected shards of the same settings in {folder}. Received: {name} {made.get(name)}, where this run has "
            f"{settings[name]}. Choose another folder, or remove that one"
        )
    logger.info("using the shards in %s: %s tokens", folder, f"{shards.train.tokens:,}")
    return shards


def write_shards(source: Source, run: RunConfig, folder: Path, settings: dict[str, Any]) -> None:
    """Both passes, and the manifest."""
    begin = time.perf_counter()
    builder = make_builder(run.tokens, run.words, count_sentinels(run))
    path = str(folder / TOKENIZER)
    with WorkerPool(functools.partial(work, html=run.html, builder=builder, path=path), run.workers) as pool:
        counts, steps, rejections = read_documents(source, run, builder, pool, folder / DOCUMENTS)
        tokenizer = builder.build(counts, load_training_texts(folder / DOCUMENTS, run.shards.validation_fraction))
        tokenizer.save(path)
        middle = time.perf_counter()
        train, validation = encode_documents(run, pool, UnigramCoder(tokenizer), folder, steps, rejections)
    (folder / DOCUMENTS).unlink()
    steps[f"kinds of {builder.noun} kept"] = len(tokenizer.vocabulary)
    if counts:
        steps[f"kinds of {builder.noun} removed as rare"] = len(counts) - len(tokenizer.vocabulary)
        steps[f"rare {builder.noun} in training pages"] = count_rare_words(counts, tokenizer.vocabulary)
    end = time.perf_counter()
    about = {
        "settings": settings,
        "stop_words": builder.origin,
        "steps": dict(steps),
        "rejections": dict(rejections.most_common()),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in ("nltk", "sentencepiece")},
        "seconds": {"pass 1": round(middle - begin, 2), "pass 2": round(end - middle, 2)},
    }
    write_manifest(folder, run.shards, tokenizer.vocabulary_size, train, validation, about)
    logger.info("prepared %s tokens of %s pages in %.1f s", f"{train.tokens:,}", f"{train.pages:,}", end - begin)


def read_documents(source: Source, run: RunConfig, builder: Builder, pool: WorkerPool, path: Path):
    """Pass 1: writes the documents, a line of JSON each, and returns the counts of the training pages, what each step
    removed, and the rejections by reason, the source's own included."""
    counts, steps, rejections = Counter(), Counter(), Counter()
    training_pages = 0
    with path.open("w", encoding="utf-8") as file:
        for result in show(pool.map(source), "reading pages"):
            if isinstance(result, Rejected):
                reject(result, rejections)
                continue
            document = result.document
            file.write(json.dumps([document.url, document.text]) + "\n")
            steps["pages"] += 1
            steps["bytes of HTML"] += result.html_bytes
            steps["bytes of text"] += len(document.text.encode("utf-8", "surrogatepass"))
            if result.counts:
                steps[f"{builder.noun} kept"] += sum(result.counts.values())
            steps.update(result.removed)
            if split_of(document.url, run.shards.validation_fraction) == "train":
                training_pages += 1
                counts.update(result.counts)
    rejections.update(source.rejections)
    if not steps["pages"]:
        received = ", ".join(f"{count} × {reason}" for reason, count in rejections.most_common(3)) or "no page"
        raise UserError(f"expected pages with text in {source!r}. Received: {received}. Take more pages, or others")
    if not training_pages:
        raise UserError(
            f"expected training pages in {source!r}. Received: {steps['pages']} in all, every one of the validation "
            "split. Take more pages"
        )
    return counts, steps, rejections


def encode_documents(
    run: RunConfig,
    pool: WorkerPool,
    coder: UnigramCoder,
    folder: Path,
    steps: Counter[str],
    rejections: Counter[str],
):
    """Pass 2: writes the shards of both splits and returns what each adds up to. Adds to the rejections."""
    size, fraction = coder.tokenizer.vocabulary_size, run.shards.validation_fraction
    writers = {split: ShardWriter(folder, split, run.shards, size) for split in ("train", "validation")}
    residual: dict[str, Counter[str]] = {}
    documents = load_documents(folder / DOCUMENTS, fraction, PRICED_BYTES / max(steps["bytes of text"], 1))
    for result in show(pool.map(documents), "encoding documents"):
        if isinstance(result, Rejected):
            reject(result, rejections)
            continue
        split = split_of(result.url, fraction)
        writers[split].add(result.ids.tolist(), result.text_bytes)
        if split == "train":
            coder.merge(result.residual or {})
        else:
            for stream, symbols in result.residual.items():
                residual.setdefault(stream, Counter()).update(symbols)
    train, validation = writers["train"].close(), writers["validation"].close()
    return train, dataclasses.replace(validation, residual_nats=sum(coder.price(residual).values()))


def reject(page: Rejected, rejections: Counter[str]) -> None:
    """Counts a page that goes no further, and names it in the log of those who debug."""
    rejections[page.reason] += 1
    logger.debug("%s: %s %s", page.url, page.reason, page.detail)


def load_documents(path: Path, validation_fraction: float, priced_fraction: float) -> Iterator[Counted]:
    """The documents that pass 1 wrote. All validation pages are priced, and a fraction of the training pages teaches
    the coder its prices; which ones, the address alone decides."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            url, text = json.loads(line)
            in_validation = split_of(url, validation_fraction) == "validation"
            yield Counted(url, text, in_validation or split_of(f"{url} priced", priced_fraction) == "validation")


def load_training_texts(path: Path, validation_fraction: float) -> Iterator[str]:
    """The texts that pass 1 wrote, of the training split alone."""
    for document in load_documents(path, validation_fraction, 0.0):
        if split_of(document.url, validation_fraction) == "train":
            yield document.text


def show(results: Iterable[Any], title: str) -> Iterator[Any]:
    """Passes everything on, and draws a bar where there is a terminal to draw it in."""
    with contextlib.closing(tqdm(results, desc=title, unit=" pages", leave=False, disable=None)) as bar:
        yield from bar
