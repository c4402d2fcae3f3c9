"""What sources that download whole files share: which files, whose part of them, and the count of what was lost.

A subclass says where the files are and what is in one of them (common_crawl.py, wikipedia.py):

    >>> class Lines(Downloads):
    ...     parts = 2
    ...
    ...     def download(self):
    ...         yield from [Path("a.txt"), Path("b.txt")][self._mine]
    ...
    ...     def _read(self, path):
    ...         yield from [Page(f"{path}/1", b"tea"), Rejected(f"{path}/2", "empty line")]
    ...
    ...     def _settle(self): ...
    ...
    ...     def _settings(self):
    ...         return ("newest",)
    >>> lines = Lines(files=None)
    >>> [page.url for page in lines], lines.rejections, lines.shard(1, 2)
    (['a.txt/1', 'b.txt/1'], Counter({'empty line': 2}), Lines(newest, of 1::2 items 0::1))

files.py is the same for files that people have.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tf_llm.contracts import Page, Rejected
from tf_llm.crawl.files import count_rejections, narrow


class Downloads:
    """A `contracts.Source`: the pages of files that are downloaded when iteration comes to them.

    files: how many of the list's files, from the first; None is all.

    `rejections` counts what the latest iteration could not turn into pages, by reason.
    """

    def __init__(self, files: int | None):
        self.rejections: Counter[str] = Counter()
        self._mine = slice(0, files, 1)  # of the list of files
        self._items = slice(0, None, 1)  # of each file, pages and rejections counted together

    def __repr__(self) -> str:
        settings = list(self._settings())
        if self._mine.step > 1 or self._items.step > 1:
            shares = self._mine.start, self._mine.step, self._items.start, self._items.step
            settings.append("of {}::{} items {}::{}".format(*shares))
        return f"{type(self).__name__}({', '.join(settings)})"

    @property
    def parts(self) -> int:
        """The number of files."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Page]:
        self.rejections.clear()
        for path in self.download():
            mine = itertools.islice(self._read(path), self._items.start, self._items.stop, self._items.step)
            yield from count_rejections(map(self._convert, mine), self.rejections, str(path))

    def shard(self, index: int, count: int) -> Self:
        """Part `index` of `count`: every count-th file or, of fewer files than that, every count-th item of each.

        It downloads its own files when it is iterated. The newest files there are get their name now, so that all parts
        are of the same ones.
        """
        self._settle()
        part = copy.copy(self)
        part.rejections = Counter()
        if count <= self.parts:
            part._mine = narrow(self._mine, index, count)
        else:
            part._items = narrow(self._items, index, count)
        return part

    def fetch(self) -> None:
        """Downloads the files."""
        for _ in self.download():
            pass

    def download(self) -> Iterator[Path]:
        """Yields the local path of each file, downloading what the cache does not hold."""
        raise NotImplementedError

    def _read(self, path: Path) -> Iterator[Any]:
        """The items of one file. What is said of the file itself is a Rejected with its path."""
        raise NotImplementedError

    def _convert(self, item: Any) -> Page | Rejected:
        """What takes long to make of an item that `_read` yields: it is done for the items of this part alone."""
        return item

    def _settle(self) -> None:
        """Finds out which files "the newest" are, and keeps to that."""
        raise NotImplementedError

    def _settings(self) -> tuple[str, ...]:
        """What decides which pages there are, in words. Shards on disk are known by it: never reorder it."""
        raise NotImplementedError
