"""What sources that read files share: which files, in what order, whose part of them, and the count of what was lost.

A subclass says what such files are called and what is in one of them:

    >>> class Lines(Files):
    ...     noun, example = "text file", "texts/*.txt"
    ...
    ...     def _read(self, path):
    ...         for line in path.read_bytes().splitlines():
    ...             yield Page(path.name, line) if line else Rejected(path.name, "empty line")
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.txt").write_bytes(b"one\\ntwo\\nthree\\n\\n")
    ...     lines = Lines(f"{folder}/*.txt")
    ...     [page.content for page in lines], lines.rejections, [page.content for page in lines.shard(0, 2)]
    ([b'one', b'two', b'three'], Counter({'empty line': 1}), [b'one', b'three'])
"""

from __future__ import annotations

import bz2
import contextlib
import copy
import fnmatch
import glob
import gzip
import hashlib
import itertools
import logging
import os
import re
import urllib.parse
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

from tf_llm.contracts import Page, Rejected, UserError
from tf_llm.crawl.remote import divide_paths

logger = logging.getLogger(__name__)

MAX_BYTES = 64 << 20
GZIP_MARK = b"\x1f\x8b"
BZIP2_MARK = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")  # of a block, or of the end of a stream that has none


class Files:
    """A `contracts.Source`: the pages of files, in the order of the files' names.

    paths: a file, a pattern or a folder, of which all files are taken that are named like `names`; or several of them.
        Addresses http(s)://, s3:// and gs:// are paths, too, see remote.py.
    max_bytes: pages larger than this are rejected ("too large").

    `rejections` counts what the latest iteration could not turn into pages, by reason.

    Raises UserError where a path is missing or a pattern matches nothing.
    """

    noun = "file"  # what errors call one of them
    example = "files/*"  # of a pattern
    names: tuple[str, ...] = ()  # patterns of what such files are called, in small letters and without .gz or .bz2

    def __init__(self, paths: str | os.PathLike | Iterable[str | os.PathLike], *, max_bytes: int = MAX_BYTES):
        if max_bytes < 1:
            raise ValueError(f"max_bytes expected at least 1. Received: {max_bytes!r}")
        paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        here, self.remote = divide_paths(paths, self.noun)  # remote files by where their copies are to be
        self.paths = find_files(here, self.noun, self.example, self.takes) if here or not self.remote else []
        self.paths += self.remote  # nothing may lie there yet: see `list_local`
        self.folder = find_folder(here)
        self.max_bytes = max_bytes
        self.rejections: Counter[str] = Counter()
        self.items = slice(0, None, 1)  # of each file, pages and rejections counted together

    def __repr__(self) -> str:
        """Names the same pages with the same words: files' names and sizes, settings, and shard.

        It does not matter in which folder files lie. Remote ones are known by their addresses.
        """
        known = {path: (path.name, path.stat().st_size) for path in self.paths if path.exists()}
        known |= {path: (file.address, file.size) for path, file in self.remote.items()}
        files = [known[path] for path in self.paths if path in known]
        digest = hashlib.sha256(repr((files, *self._settings(), self.items)).encode()).hexdigest()[:16]
        return f"{type(self).__name__}({len(files)} files from {self.paths[0].name} to {self.paths[-1].name}, {digest})"

    @property
    def parts(self) -> int:
        """The number of files."""
        return len(self.paths)

    def __iter__(self) -> Iterator[Page]:
        self.rejections.clear()
        for path in self.list_local():
            mine = itertools.islice(self._read(path), self.items.start, self.items.stop, self.items.step)
            yield from count_rejections(map(self._convert, mine), self.rejections, str(path))

    def shard(self, index: int, count: int) -> Self:
        """Part `index` of `count`: every count-th file or, of fewer files than that, every count-th item of each.

        The latter reads every file in every part.
        """
        part = copy.copy(self)
        part.rejections = Counter()
        mine = narrow(slice(0, None, 1), index, count)
        if count <= len(self.paths):
            part.paths = self.paths[mine]
        else:
            part.items = narrow(self.items, index, count)
        return part

    def fetch(self) -> None:
        """Copies the remote files to the cache folder."""
        for _ in self.list_local():
            pass

    def list_local(self) -> Iterator[Path]:
        """Yields the path of each file on this machine. A remote one is copied when it is its turn.

        Raises UserError where it cannot be.
        """
        for path in self.paths:
            if path in self.remote:
                self.remote[path].fetch(path)
            yield path

    def _read(self, path: Path) -> Iterator[Page | Rejected]:
        """The pages of one file, and a Rejected for everything in it that should have been one. Raises nothing."""
        raise NotImplementedError

    def _convert(self, item: Any) -> Page | Rejected:
        """What takes long to make of an item that `_read` yields: it is done for the items of this part alone."""
        return item

    def _address(self, path: Path) -> str:
        """The path of a file below the folder that all share, as a URL: the same wherever that folder lies.

        What comes from elsewhere has the address that it has there, without the keys that a query may hold.
        """
        if path in self.remote:
            return self.remote[path].address.partition("?")[0]
        path = path.absolute()
        path = path.relative_to(self.folder) if path.is_relative_to(self.folder) else Path(path.name)
        return urllib.parse.quote(os.fsencode(path.as_posix()))

    def _require_pages(self, expected: str, remedy: str, nothing: str) -> None:
        """Raise UserError where there is not one page in all the files. Reads up to the first one."""
        reasons: Counter[str] = Counter()
        details: dict[str, str] = {}  # of what is said of files
        for path in self.list_local():
            for item in map(self._convert, self._read(path)):
                if isinstance(item, Page):
                    return
                reasons[item.reason] += 1
                if item.url == str(path) and item.detail:
                    details.setdefault(item.reason, f" ({item.detail})")
        received = [f"{count} × {reason}{details.get(reason, '')}" for reason, count in reasons.most_common(3)]
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        raise UserError(
            f"expected {expected} in {self.paths[0]}{more}. Received: {', '.join(received) or nothing}. {remedy}"
        )

    @classmethod
    def takes(cls, name: str) -> bool:
        """Whether a file of this name belongs to such sources."""
        name = re.sub(r"\.(gz|bz2)$", "", name.lower())
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in cls.names)

    def _settings(self) -> tuple[Any, ...]:
        """What else than the files decides which pages there are. Shards on disk are known by it: never reorder it."""
        return ()


def narrow(share: slice, index: int, count: int) -> slice:
    """Part `index` of `count` of what the slice `share` takes: of every third, every second is every sixth.

    >>> narrow(slice(1, None, 3), 1, 2)
    slice(4, None, 6)
    """
    if not 0 <= index < count:
        raise ValueError(f"shard expected 0 <= index < count. Received: index={index!r}, count={count!r}")
    return slice(share.start + index * share.step, share.stop, share.step * count)


def find_files(
    paths: Iterable[str | os.PathLike], noun: str, example: str, takes: Callable[[str], bool] = bool
) -> list[Path]:
    """Every file that is named, matches a pattern, or lies in a folder and is taken, once and sorted.

    Raises UserError where there is none; it calls one a `noun`.
    """
    found = set()
    for path in paths:
        matches = [path]
        if Path(path).is_dir():
            matches = [file for file in Path(path).rglob("*") if takes(file.name)]
        elif not Path(path).exists():
            matches = glob.glob(str(path), recursive=True)  # noqa: PTH207, Path.glob refuses absolute patterns
        files = {Path(match) for match in matches if Path(match).is_file()}
        if not files:
            raise UserError(
                f"expected a {noun}, or a pattern such as {example}. Received: {str(path)!r}, where there is no file. "
                "Check the path"
            )
        found |= files
    if not found:
        raise UserError(f"expected at least one {noun}. Received: no path. Name a file or a pattern")
    return sorted(found)


def find_folder(paths: Iterable[str | os.PathLike]) -> Path:
    """The folder that all the paths and patterns share; of none, the current one.

    >>> find_folder(["/data/a/*.txt", "/data/b/**/*.txt"]).as_posix()
    '/data'
    """
    folders = []
    for path in paths:
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), Path(path).absolute().parts)
        folder = Path(*fixed)
        folders.append(folder.parent if folder.is_file() else folder)
    return Path(os.path.commonpath(folders)) if folders else Path()


class UnreadableError(Exception):
    """A file that cannot be read, or not to its end; its argument is the reason, a short fixed phrase."""


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, inflated where its first bytes say that it is gzip or bzip2, whatever it is called.

    Raises UnreadableError, in the `with` block too: "gzip cut short", "gzip damaged", the same of bzip2, "unreadable
    file". The checksum of gzip stands at its end, so the last bytes before a damage may be wrong.
    """
    kind = ""
    try:
        with path.open("rb") as plain:
            mark = plain.peek(16)
            if mark.startswith(GZIP_MARK):
                kind, inflated = "gzip", gzip.GzipFile(fileobj=plain)
            elif BZIP2_MARK.match(mark):
                kind, inflated = "bzip2", bz2.BZ2File(plain)
            with inflated if kind else contextlib.nullcontext(plain) as file:
                yield file
    except EOFError as error:
        raise UnreadableError(f"{kind} cut short", str(error)) from error
    except (OSError, zlib.error) as error:
        # What the system says has a number; what gzip and bz2 say of their streams has none.
        is_damage = kind and getattr(error, "errno", None) is None
        raise UnreadableError(f"{kind} damaged" if is_damage else "unreadable file", str(error)) from error


def read_file(path: Path, read: Callable[[BinaryIO], Iterator[Page | Rejected]]) -> Iterator[Page | Rejected]:
    """What `read` finds in a file; where it cannot be read to its end, a Rejected with the file's own path."""
    try:
        with open_file(path) as file:
            yield from read(file)
    except UnreadableError as error:
        yield Rejected(str(path), *error.args)


def count_rejections(items: Iterable[Page | Rejected], rejections: Counter[str], name: str) -> Iterator[Page]:
    """The pages among `items`; the rest is counted and logged, with a warning where it is the file `name` itself."""
    for item in items:
        if isinstance(item, Page):
            yield item
        else:
            rejections[item.reason] += 1
            level = logging.WARNING if item.url == name else logging.DEBUG
            logger.log(level, "%s: %s %s", item.url, item.reason, item.detail)
