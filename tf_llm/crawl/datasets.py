"""Texts that others have put together: data sets of the Hugging Face Hub and of Kaggle.

    >>> pages = HuggingFaceDataset("wikimedia/wikipedia", "20231101.gd", streaming=True)     # doctest: +SKIP
    >>> pages = KaggleDataset("owner/some-texts", "*.csv", text_column="review")             # doctest: +SKIP

The packages `datasets` (https://huggingface.co/docs/datasets) and `kagglehub` (https://github.com/Kaggle/kagglehub)
fetch them, keep them in caches of their own and know where the user's key is. No code that comes with a data set is
executed.
"""

import contextlib
import copy
import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tf_llm.contracts import Page, Rejected, Source, UserError
from tf_llm.crawl.files import MAX_BYTES, count_rejections, narrow
from tf_llm.crawl.formats import is_known, read_files

logger = logging.getLogger(__name__)

SAFE_VERSION = 4  # of `datasets`: earlier ones could run a script of the data set


class Shares:
    """What both have in common: a part is a list of (index, count), and what was opened stays in its process."""

    def __init__(self):
        self.rejections: Counter[str] = Counter()
        self._shares: tuple[tuple[int, int], ...] = ()
        self._opened: Any = None

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_opened": None}

    def shard(self, index: int, count: int) -> Self:
        """Part `index` of `count`. Nothing is fetched for it yet."""
        narrow(slice(0, None, 1), index, count)  # raises ValueError where there is no such part
        part = copy.copy(self)
        part.rejections, part._shares = Counter(), (*self._shares, (index, count))
        return part


class HuggingFaceDataset(Shares):
    """The texts in one column of a data set of the Hugging Face Hub; a `contracts.Source`.

    name: of the data set, "owner/name", or a folder of Parquet, JSON Lines, CSV or text files.
    config: which of its subsets, where it has several.
    split: which of its splits.
    text_column: where the text stands.
    url_column: where the address stands; a row without one gets the name of the data set and its number.
    streaming: rows are read as they come, and nothing is kept; otherwise the whole split is copied to the cache first.
    revision: a commit or tag of the data set; None is the newest. With a commit, the same pages come every time.
    max_bytes: longer texts are rejected.

    `rejections` counts rows without text ("no text"), too long ones ("too large") and, when streaming, files that
    cannot be read to their end ("unreadable file"). A part is whole files of a stream, or a range of rows of a copy.

    Raises UserError, when it is first read, where the package is missing, there is no such data set or column, or the
    network fails.
    """

    def __init__(
        self,
        name: str,
        config: str | None = None,
        split: str = "train",
        text_column: str = "text",
        *,
        url_column: str = "url",
        streaming: bool = True,
        revision: str | None = None,
        max_bytes: int = MAX_BYTES,
    ):
        super().__init__()
        self.name, self.config, self.split, self.revision = name, config, split, revision
        self.text_column, self.url_column = text_column, url_column
        self.streaming, self.max_bytes = streaming, max_bytes

    def __repr__(self) -> str:
        names = [self.name, self.config, self.split, self.text_column, self.url_column, self.revision]
        shares = "".join(f", part {index} of {count}" for index, count in self._shares)
        kind = "streaming" if self.streaming else "copied"
        return f"HuggingFaceDataset({', '.join(name for name in names if name)}, {kind}, {self.max_bytes}{shares})"

    @property
    def parts(self) -> int:
        """The number of files: of the data set, or of its copy."""
        dataset = self._open()
        if self.streaming:
            return len(self._divide(dataset.num_shards)[0])
        return 1 if self._shares else max(1, len(dataset.cache_files))

    def __iter__(self) -> Iterator[Page]:
        self.rejections.clear()
        dataset = self._open()
        items = self._stream(dataset) if self.streaming else self._read_copy(dataset)
        yield from count_rejections(items, self.rejections, self.name)

    def fetch(self) -> None:
        """Copies the data set to the cache. There is nothing to do for a stream: every process reads its own part."""
        if not self.streaming:
            self._open()

    def _open(self):
        if self._opened is None:
            datasets = import_datasets()
            with refuse(f"the split {self.split!r} of the data set {self.name}", "its name, config and split"):
                self._opened = datasets.load_dataset(
                    self.name, self.config, split=self.split, streaming=self.streaming, revision=self.revision
                )
            columns = self._opened.column_names
            if columns and self.text_column not in columns:
                raise UserError(
                    f"expected a column {self.text_column!r} in the data set {self.name}. Received: columns "
                    f"{', '.join(columns)}. Name the one with the text as text_column"
                )
        return self._opened

    def _divide(self, files: int) -> tuple[range, slice]:
        """Which of so many files, and which items of each, are this part."""
        mine, items = range(files), slice(0, None, 1)
        for index, count in self._shares:
            if count <= len(mine):
                mine = mine[index::count]
            else:
                items = narrow(items, index, count)
        return mine, items

    def _stream(self, dataset) -> Iterator[Page | Rejected]:
        mine, items = self._divide(dataset.num_shards)
        for file in mine:
            rows = self._read_file(dataset.shard(dataset.num_shards, file), f"{self._place()}#{file}-")
            yield from itertools.islice(rows, items.start, items.stop, items.step)

    def _read_file(self, rows, place: str) -> Iterator[Page | Rejected]:
        from datasets.exceptions import DatasetsError

        try:
            with refuse(f"the data set {self.name}", "the network", spared=(ValueError, DatasetsError)):
                for number, row in enumerate(rows):
                    yield self._make_item(row, f"{place}{number}")
        except (ValueError, DatasetsError) as error:  # Arrow's and JSON's complaints are ValueErrors
            yield Rejected(place, "unreadable file", repr(error))

    def _read_copy(self, dataset) -> Iterator[Page | Rejected]:
        mine = range(len(dataset))
        for index, count in self._shares:
            mine = mine[len(mine) * index // count : len(mine) * (index + 1) // count]
        for number, row in zip(mine, dataset.select(mine), strict=True):
            yield self._make_item(row, f"{self._place()}#{number}")

    def _make_item(self, row: dict, place: str) -> Page | Rejected:
        if self.text_column not in row:
            raise UserError(
                f"expected a column {self.text_column!r} in the data set {self.name}. Received: columns "
                f"{', '.join(row)}. Name the one with the text as text_column"
            )
        text, url = row[self.text_column], row.get(self.url_column)
        url = url.encode("utf-8", "ignore").decode() if isinstance(url, str) else ""
        content = text.encode("utf-8", "ignore") if isinstance(text, str) else b""
        if not content.strip():
            return Rejected(url or place, "no text")
        if len(content) > self.max_bytes:
            return Rejected(url or place, "too large", f"{len(content)} bytes")
        return Page(url or place, content, content_type="text/plain", charset="utf-8")

    def _place(self) -> str:
        return "/".join(filter(None, (self.name.rstrip("/").rpartition("/")[2], self.config, self.split)))


class KaggleDataset(Shares):
    """The texts in the files of a data set of Kaggle; a `contracts.Source`.

    handle: "owner/name", or "owner/name/versions/3" to have the same pages every time.
    pattern: which of its files, such as "*.csv"; they are read by their suffix, see formats.py. Files of no known kind
        are passed over.
    text_column: where the text stands in files that have columns or fields.

    `rejections` counts what could not become a page, as the readers of the files count it.

    Raises UserError, when it is first read, where the package is missing, the data set cannot be had, or it has no
    such files.
    """

    def __init__(self, handle: str, pattern: str = "**/*", *, text_column: str = "text"):
        super().__init__()
        if handle.count("/") not in (1, 3):
            raise UserError(
                f"expected a data set of Kaggle, owner/name or owner/name/versions/3. Received: {handle!r}. Correct it"
            )
        self.handle, self.pattern, self.text_column = handle, pattern, text_column

    def __repr__(self) -> str:
        shares = "".join(f", part {index} of {count}" for index, count in self._shares)
        return f"KaggleDataset({self.handle}, {self.pattern}, {self.text_column}{shares})"

    @property
    def parts(self) -> int:
        """The number of files. Fetches them."""
        return self._open().parts

    def __iter__(self) -> Iterator[Page]:
        source = self._open()
        self.rejections = source.rejections
        yield from source

    def fetch(self) -> None:
        """Copies the files to the cache of kagglehub."""
        self._open()

    def _open(self) -> Source:
        if self._opened is None:
            try:
                import kagglehub
            except ImportError as error:
                raise UserError(
                    f'expected the package kagglehub. Received: {error}. Install it: pip install "tf_llm[kaggle]"'
                ) from error
            with refuse(f"the data set {self.handle} of Kaggle", "its name, and your key at kaggle.com/settings"):
                folder = Path(kagglehub.dataset_download(self.handle))
            paths = sorted(path for path in folder.glob(self.pattern) if path.is_file() and is_known(path.name))
            if not paths:
                raise UserError(
                    f"expected files of texts like {self.pattern} in the data set {self.handle}. Received: "
                    f"{', '.join(sorted(path.name for path in folder.iterdir())[:5]) or 'none'}. Name another pattern"
                )
            source = read_files(paths, text_column=self.text_column)
            for index, count in self._shares:
                source = source.shard(index, count)
            self._opened = source
        return self._opened


def import_datasets():
    """The package `datasets`; raises UserError where it is missing, or would run code of others."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f'expected the package datasets. Received: {error}. Install it: pip install "tf_llm[datasets]"'
        ) from error
    if int(datasets.__version__.partition(".")[0]) < SAFE_VERSION:
        raise UserError(
            f"expected datasets of version {SAFE_VERSION} or later. Received: {datasets.__version__}, which may run "
            'code of a data set. Upgrade it: pip install "tf_llm[datasets]"'
        )
    return datasets


@contextlib.contextmanager
def refuse(wanted: str, to_check: str, spared: tuple[type[Exception], ...] = ()):
    """Turns whatever the packages raise into a `UserError`, but for some: they have no errors in common."""
    try:
        yield
    except (UserError, *spared):
        raise
    except Exception as error:
        raise UserError(f"expected {wanted}. Received: {type(error).__name__}: {error}. Check {to_check}") from error
