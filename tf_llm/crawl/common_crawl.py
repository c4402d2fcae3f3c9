"""Common Crawl: a few billion web pages a month, as files of a hundred thousand parts.

    collinfo.json                                  the crawls there are            on the index server
    crawl-data/<crawl>/warc.paths.gz               its WARC files, one path a line  on the data server
    crawl-data/<crawl>/wet.paths.gz                the same pages as plain text
    crawl-data/<crawl>/segments/…/….warc.gz        about 1 GB, 20,000 pages

What is downloaded stays in the cache folder, so that a second run asks nobody. Common Crawl is a gift that many share:
there is one pace for the whole process, and `DownloadConfig` says what follows when a server is busy.
See https://commoncrawl.org/get-started
"""

import contextlib
import gzip
import json
import logging
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from tf_llm.contracts import Page, Rejected, UserError
from tf_llm.crawl.cache import cache_folder
from tf_llm.crawl.download import Host, NotFoundError
from tf_llm.crawl.downloads import Downloads
from tf_llm.crawl.files import MAX_BYTES
from tf_llm.crawl.manners import DownloadConfig
from tf_llm.crawl.warc import read_items

logger = logging.getLogger(__name__)

INDEX_ADDRESS = "https://index.commoncrawl.org"
DATA_ADDRESS = "https://data.commoncrawl.org"
KINDS = ("warc", "wet")  # pages as they were served; their text as Common Crawl extracted it
DAY = 24 * 60 * 60
CRAWLS_SHOWN = 5  # in an error about an unknown one


class CommonCrawl(Downloads):
    """Pages of one monthly crawl; a `contracts.Source`. Files are downloaded when iteration comes to them.

    Args:
        crawl: its name, such as "CC-MAIN-2026-39"; None is the newest there is.
        files: how many of the crawl's files, from the first of its list.
        megabytes: how much of each file, from its beginning, cut back to whole records; None is all of it.
        kind: "warc" or "wet".
        cache_dir: the folder for what is downloaded; None is `tf_llm` in the user's cache folder.
        index_address: where the list of crawls is.
        data_address: where the files are.
        index_interval: seconds between two requests to the index server.
        data_interval: seconds between two requests to the data server.
        config: a `DownloadConfig`: patience with the network, an address for complaints.
        sleep: what waits; a test may count instead.

    Raises:
        UserError: an argument is out of range; when iterated: the crawl does not exist, or the network fails for good.

    >>> for page in CommonCrawl("CC-MAIN-2026-39", megabytes=10): ...
    """

    def __init__(
        self,
        crawl: str | None = None,
        *,
        files: int = 1,
        megabytes: float | None = None,
        kind: str = "warc",
        cache_dir: str | os.PathLike | None = None,
        index_address: str = INDEX_ADDRESS,
        data_address: str = DATA_ADDRESS,
        index_interval: float = 1.0,
        data_interval: float = 0.55,
        config: DownloadConfig | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ):
        if kind not in KINDS:
            raise UserError(
                f"expected kind as one of {', '.join(sorted(KINDS))}. Received: {kind!r}. Choose one of them"
            )
        if files < 1:
            raise UserError(f"expected at least 1 file. Received: files={files}. Ask for more")
        if megabytes is not None and not megabytes > 0:
            raise UserError(f"expected megabytes above 0. Received: {megabytes}. Leave it out to have whole files")
        super().__init__(files)
        self.crawl, self.files, self.megabytes, self.kind = choose_crawl(crawl), files, megabytes, kind
        self.cache_dir = cache_dir
        self.index = Host(index_address, index_interval, config, sleep)
        self.data = Host(data_address, data_interval, config, sleep)

    @property
    def parts(self) -> int:
        """The number of files that were asked for."""
        return len(range(self.files)[self._mine])

    def download(self) -> Iterator[Path]:
        """Yields the local path of each file, downloading what the cache does not hold."""
        first_bytes = None if self.megabytes is None else int(self.megabytes * 1e6)
        for path in self.list_paths()[self._mine]:
            # The last component names a file among all of a crawl. It comes from outside: let it name nothing else.
            file = PurePosixPath(path).name
            if not re.fullmatch(r"\w[\w.-]*", file, re.ASCII):
                raise UserError(f"expected a file's path in the list of {self.crawl}. Received: {path!r}. Try again")
            if first_bytes is not None:
                file = f"first-{first_bytes}-bytes-of-{file}"
            yield self.data.download(path, self._folder() / file, first_bytes)

    def list_paths(self) -> list[str]:
        """The paths of this crawl's files on the data server.

        Raises:
            UserError: there is no such crawl; the newest ones are named.
        """
        self.name_crawl()
        path = self._folder() / f"{self.kind}.paths.gz"
        try:
            self.data.download(f"crawl-data/{self.crawl}/{self.kind}.paths.gz", path)
        except NotFoundError as error:
            raise UserError(
                f"expected a crawl that has {self.kind} files. Received: {self.crawl!r}. "
                f"Choose another; the newest are {', '.join(self.list_crawls()[:CRAWLS_SHOWN])}"
            ) from error
        with refuse_damaged(path):
            return gzip.decompress(path.read_bytes()).decode("ascii").split()

    def name_crawl(self) -> str:
        """The name of this crawl; where none was given, the newest one's from now on."""
        if self.crawl is None:
            self.crawl = self.list_crawls()[0]
            logger.info("the newest crawl is %s", self.crawl)
        return self.crawl

    def list_crawls(self) -> list[str]:
        """The names of the crawls there are, newest first."""
        return list_crawls(self.index, self.cache_dir)

    def _read(self, path: Path) -> Iterator[Page | Rejected]:
        return read_items(path, str(path), MAX_BYTES)

    def _settle(self) -> None:
        self.name_crawl()

    def _settings(self) -> tuple[str, ...]:
        extent = "whole" if self.megabytes is None else f"the first {self.megabytes:g} MB of each"
        return self.crawl or "newest", f"{self.files} {self.kind} files", extent

    def _folder(self) -> Path:
        return cache_folder(self.cache_dir) / "common_crawl" / self.crawl / self.kind


def list_crawls(index: Host, cache_dir: str | os.PathLike | None = None) -> list[str]:
    """The names of the crawls that the index server knows, newest first. The list is kept for a day."""
    path = cache_folder(cache_dir) / "common_crawl" / "collinfo.json"
    if path.exists() and time.time() - path.stat().st_mtime > DAY:
        path.unlink()
    index.download("collinfo.json", path)
    with refuse_damaged(path):
        crawls = [(crawl.get("to", ""), check_name(crawl["id"])) for crawl in json.loads(path.read_bytes())]
        if not crawls:
            raise ValueError("no crawls")
        return [name for _, name in sorted(crawls, reverse=True)]


def choose_crawl(crawl: str | None) -> str | None:
    """Returns what a user says; raises UserError where it cannot be the name of a crawl."""
    try:
        return crawl and check_name(crawl)
    except ValueError as error:
        raise UserError(f"{error}. Correct it") from error


def check_name(crawl: str) -> str:
    """Returns the name of a crawl, which becomes part of a path; raises ValueError where it is not like one."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", crawl):
        raise ValueError(f"expected the name of a crawl, such as CC-MAIN-2026-39. Received: {crawl!r}")
    return crawl


@contextlib.contextmanager
def refuse_damaged(path: Path) -> Iterator[None]:
    """Turns the errors of reading a list into a `UserError`, and removes it, so that it is fetched anew."""
    try:
        yield
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        path.unlink(missing_ok=True)
        raise UserError(
            f"expected a list from Common Crawl. Received: {path.name}: {error!r}. Try again, or check the addresses"
        ) from error
