"""The driver for one machine: the parts of a corpus in worker processes, and what all parts know together in this one.

A driver is handed tasks and sees to it that each is processed, `process_shard`, somewhere; and it joins what the parts
have found, where they have to know of each other: which pages and lines repeat others, and how often there is each word
in the whole. spark.py is the driver for many machines; both write the same bytes.
"""

from __future__ import annotations

import json
import queue
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tf_llm.prepare.count import COUNTS, LINES, PAGES, REPEATS
from tf_llm.prepare.progress import Progress
from tf_llm.prepare.read import KEYS
from tf_llm.prepare.shard import process_shard
from tf_llm.prepare.task import Task, place_of, publish
from tf_llm.prepare.worker import WorkerConfig, WorkerPool
from tf_llm.text.duplicate_keys import DuplicatesConfig, Keys
from tf_llm.text.duplicates import find_repeated_lines, find_repeated_pages


class Driver(Protocol):
    """What `prepare` asks of a driver, which is used in a `with` block. Folders are seen by all its processes."""

    def process(self, tasks: Sequence[Task], title: str, pages: int = 0) -> None:
        """Has every task processed, at least once each, in whatever order and wherever; `pages` in all, if known."""
        ...

    def find_repeats(self, folder: Path, parts: int, config: DuplicatesConfig) -> dict[str, int]:
        """Writes for each part which of its pages and lines repeat earlier ones of the corpus. Returns how many lines
        do."""
        ...

    def add_counts(self, folder: Path, parts: int) -> Counter[str]:
        """How often each word stands in the training documents of all parts."""
        ...


class Local:
    """Worker processes on this machine; the joins in this process, by sorting (text/duplicates.py states its memory).

    >>> with Local(WorkerConfig(processes=2)) as driver:    # doctest: +SKIP
    ...     driver.process(tasks, "reading pages")
    """

    def __init__(self, config: WorkerConfig):
        self.config = config

    def __enter__(self) -> Local:
        self._pool = WorkerPool(work, self.config)
        return self

    def __exit__(self, *_) -> None:
        self._pool.__exit__()

    def process(self, tasks: Sequence[Task], title: str, pages: int = 0) -> None:
        before, done = self._pool.counted, 0
        with Progress(title, total_parts=len(tasks), total_pages=pages) as progress:
            for task in self._pool.run(fetch_ahead(tasks)):
                done += task is not None
                seen, size, rejected = (now - then for now, then in zip(self._pool.counted, before, strict=True))
                progress.set(pages=seen, bytes=size, rejected=rejected, parts=done)

    def find_repeats(self, folder: Path, parts: int, config: DuplicatesConfig) -> dict[str, int]:
        keys = [load_keys(folder, part) for part in range(parts)]
        pages = find_repeated_pages(keys, config)
        lines = find_repeated_lines(keys, pages) if "lines" in config.kinds else [None] * parts
        for part in range(parts):
            save_repeats(folder, part, pages[part], lines[part])
        return {"lines": sum(int(each.sum()) for each in lines if each is not None)}

    def add_counts(self, folder: Path, parts: int) -> Counter[str]:
        counts: Counter[str] = Counter()
        for part in range(parts):
            counts.update(json.loads((place_of(folder, part, "count") / COUNTS).read_bytes()))
        return counts


def load_keys(folder: Path, part: int) -> Keys:
    """What the stage "read" has kept of a part, to find duplicates by."""
    with np.load(place_of(folder, part, "read") / KEYS, allow_pickle=False) as arrays:
        return Keys(**arrays)


def save_repeats(folder: Path, part: int, pages: np.ndarray, lines: np.ndarray | None, attempt: str = "") -> None:
    """Writes which pages and lines of a part repeat others, whole or not at all, unless that is done already.

    attempt: names what is half done, where several processes may be at the same part.
    """
    place = place_of(folder, part, REPEATS)
    if place.exists():
        return
    partial = place.with_name(f"{REPEATS}{attempt}.partial")
    partial.mkdir(exist_ok=True)
    np.save(partial / PAGES, pages, allow_pickle=False)
    if lines is not None:
        np.save(partial / LINES, lines, allow_pickle=False)
    publish(partial, place)


def work(task: Task, pulse, faults) -> None:
    """What a worker does."""
    process_shard(task, pulse, faults)


def fetch_ahead(tasks: Sequence[Task]) -> Iterator[Task | None]:
    """The tasks, each as soon as the pages of its part are on this machine; None while there is none to be had.

    One thread fetches, so that servers are asked at the pace of one process.
    """
    fetched: queue.SimpleQueue[Task | Exception | None] = queue.SimpleQueue()

    def fetch():
        try:
            for task in tasks:
                if task.source is not None and not task.place(task.stage).exists():
                    task.source.fetch()
                fetched.put(task)
            fetched.put(None)
        except BaseException as error:
            fetched.put(error)

    threading.Thread(target=fetch, daemon=True).start()
    while True:
        try:
            item = fetched.get_nowait()
        except queue.Empty:
            yield None
            continue
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        yield item
