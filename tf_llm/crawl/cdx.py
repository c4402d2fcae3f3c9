"""Single pages of Common Crawl, found in its index: a site, a language, a kind of file, without whole archives.

    <index server>/<crawl>-index?url=…&output=json&showNumPages=true     how many pages of results there are
    <index server>/<crawl>-index?url=…&output=json&filter=…&page=0       one record a line, as JSON
    <data server>/<filename>, bytes offset to offset + length - 1        one gzip member, which is one WARC record

A record is a request, and Common Crawl is asked at most twice a second: this is for some thousand pages. Whole files
bring a thousand pages a second. What came once is kept in the cache folder, the lists too: a second run asks nobody.

What does not become a page is counted in `rejections`: beside the reasons of warc.py

    "bad index entry"         a line of the index says not where its record is
    "not found"               there is no such file, or no such bytes in it
    "length mismatch"         the bytes are not one gzip member from end to end
    "digest mismatch"         they are another page than the index says

The index server is pywb: https://pywb.readthedocs.io/en/latest/manual/cdxserver_api.html
"""

import copy
import dataclasses
import hashlib
import io
import itertools
import json
import logging
import os
import re
import time
import urllib.parse
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Self

from tf_llm.contracts import Page, Rejected, UserError
from tf_llm.crawl.cache import REMEDY, cache_folder
from tf_llm.crawl.common_crawl import (
    CRAWLS_SHOWN,
    DATA_ADDRESS,
    INDEX_ADDRESS,
    choose_crawl,
    list_crawls,
    refuse_damaged,
)
from tf_llm.crawl.download import Host, NotFoundError
from tf_llm.crawl.files import MAX_BYTES, count_rejections, narrow
from tf_llm.crawl.manners import DownloadConfig
from tf_llm.crawl.records import HEAD, MAX_HEAD, matches_digest
from tf_llm.crawl.warc import MEDIA_TYPE, MEDIA_TYPES, read_items
from tf_llm.files import write_atomically
from tf_llm.languages import find_long_code

logger = logging.getLogger(__name__)

MATCHES = ("exact", "prefix", "host", "domain")
FIELDS = "url,filename,offset,length,digest,languages,encoding,charset"  # one of the last two, as the crawl has it
PATH = re.compile(r"(?:\w[\w.=-]*/)*\w[\w.-]*", re.ASCII)
PAYLOAD_DIGEST = re.compile(rb"^WARC-Payload-Digest:[ \t]*(\S+)", re.IGNORECASE | re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """Where a record is, and what the index says of it."""

    url: str
    path: str  # of the file on the data server
    offset: int
    length: int
    digest: str  # SHA-1 of the body in base 32; "" where there is none
    languages: tuple[str, ...]
    charset: str | None


class CommonCrawlPages:
    """Pages of one monthly crawl whose addresses match; a `contracts.Source`. They come one by one, as iterated.

    Args:
        url: an address, or a pattern: "example.org/*" is everything below it, "*.example.org" all its hosts.
        crawl: the crawl's name, such as "CC-MAIN-2026-39"; None is the newest there is.
        match: "exact", "prefix", "host" or "domain" in place of a pattern.
        languages: pages mainly in one of these, as ISO 639-3 or 639-1 codes; none for all. Crawls from 2018-39 on know.
        media_types: as detected in the content, not as the server said.
        limit: at most so many records are asked for.
        cache_dir, index_address, data_address, index_interval, data_interval, config, sleep: as of `CommonCrawl`.

    Raises:
        UserError: an argument is out of range; when iterated: nothing matches, or the network fails for good.

    >>> for page in CommonCrawlPages("*.wikipedia.org", languages=["es"], limit=100): ...
    """

    def __init__(
        self,
        url: str,
        crawl: str | None = None,
        *,
        match: str | None = None,
        languages: Iterable[str] = (),
        media_types: Iterable[str] = MEDIA_TYPES,
        limit: int | None = None,
        cache_dir: str | os.PathLike | None = None,
        index_address: str = INDEX_ADDRESS,
        data_address: str = DATA_ADDRESS,
        index_interval: float = 1.0,
        data_interval: float = 0.55,
        config: DownloadConfig | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ):
        if not url:
            raise UserError("expected the address of pages. Received: ''. Name one, or a pattern: example.org/*")
        if match is not None and match not in MATCHES:
            raise UserError(f"expected match as one of {', '.join(MATCHES)}. Received: {match!r}. Choose one of them")
        if limit is not None and limit < 1:
            raise UserError(f"expected a limit of at least 1. Received: {limit}. Leave it out to have all pages")
        self.url, self.match, self.limit = url, match, limit
        self.crawl = choose_crawl(crawl)
        self.languages = tuple(map(find_long_code, languages))
        self.media_types = tuple(media_types)
        for media_type in self.media_types:
            if not MEDIA_TYPE.fullmatch(media_type):
                raise UserError(f"expected a media type such as text/html. Received: {media_type!r}. Correct it")
        self.cache_dir = cache_dir
        self.index = Host(index_address, index_interval, config, sleep)
        self.data = Host(data_address, data_interval, config, sleep)
        self.rejections: Counter[str] = Counter()
        self._mine = slice(0, limit, 1)  # of the entries of the index

    def __repr__(self) -> str:
        settings = [self.url, self.match, *self.languages, *self.media_types]
        share = f", of {self._mine.start}::{self._mine.step}" if self._mine.step > 1 else ""
        names = ", ".join(setting for setting in settings if setting)
        return f"CommonCrawlPages({self.crawl or 'newest'}, {names}, {self.limit or 'all'}{share})"

    @property
    def parts(self) -> int:
        """One: there is a single list of records, which come one after the other."""
        return 1

    def __iter__(self) -> Iterator[Page]:
        self.rejections.clear()
        items = (self._read(entry) if isinstance(entry, Entry) else entry for entry in self.find())
        yield from count_rejections(items, self.rejections, self.url)

    def shard(self, index: int, count: int) -> Self:
        """Part `index` of `count`: every count-th record. The newest crawl gets its name now."""
        part = copy.copy(self)
        part._mine = narrow(self._mine, index, count)
        part.rejections, part.crawl = Counter(), self.name_crawl()
        return part

    def fetch(self) -> None:
        """Downloads the lists and the records."""
        for entry in self.find():
            if isinstance(entry, Entry):
                try:
                    self._download(entry)
                except NotFoundError as error:
                    logger.debug("%s", error)  # counted when it is read

    def name_crawl(self) -> str:
        """The name of this crawl; where none was given, the newest one's from now on."""
        self.crawl = self.crawl or list_crawls(self.index, self.cache_dir)[0]
        return self.crawl

    def find(self) -> Iterator[Entry | Rejected]:
        """Yields where the records are, and a `Rejected` for a line of the index that does not say it.

        Raises:
            UserError: no record matches, or there is no such crawl; the newest ones are named.
        """
        return itertools.islice(self._list_entries(), self._mine.start, self._mine.stop, self._mine.step)

    def _list_entries(self) -> Iterator[Entry | Rejected]:
        self.name_crawl()
        filters = ["=status:200"]
        if self.languages:  # the field is a list, the main one first
            filters.append(f"~languages:({'|'.join(self.languages)})(,.*)?$")
        if self.media_types:
            filters.append(f"~mime-detected:({'|'.join(map(re.escape, self.media_types))})$")
        found = False
        for number in range(self._count_pages()):
            page = self._ask({"fl": FIELDS, "filter": filters, "limit": self.limit, "page": number})
            for line in page.read_bytes().splitlines():
                found = True
                yield parse_entry(line, self.url)
        if not found:
            raise self._nothing_found()

    def _count_pages(self) -> int:
        try:
            path = self._ask({"showNumPages": "true"})
        except NotFoundError as error:
            raise self._nothing_found() from error
        with refuse_damaged(path):
            return int(json.loads(path.read_bytes() or b'{"pages": 0}')["pages"])

    def _ask(self, parameters: dict) -> Path:
        """The file with the answer of the index to a query; an empty one where nothing matches on this page."""
        query = {"url": self.url, "output": "json", "matchType": self.match, **parameters}
        query = urllib.parse.urlencode({name: value for name, value in query.items() if value is not None}, doseq=True)
        name = f"{hashlib.sha256(query.encode()).hexdigest()[:32]}.jsonl"
        path = self._folder() / "index" / name
        try:
            return self.index.download(f"{self.crawl}-index", path, query=query)
        except NotFoundError:
            if "page" not in parameters:
                raise
            write_atomically(path, b"", REMEDY)  # so pywb says that the filters let nothing of this page through
            return path

    def _nothing_found(self) -> UserError:
        wanted = repr(self).partition(", ")[2].removesuffix(")")
        return UserError(
            f"expected pages in the index of {self.crawl}. Received: none for {wanted}. Ask for others, or in another "
            f"crawl; the newest are {', '.join(list_crawls(self.index, self.cache_dir)[:CRAWLS_SHOWN])}"
        )

    def _download(self, entry: Entry) -> Path:
        file = f"{PurePosixPath(entry.path).name}-{entry.offset}-{entry.length}.gz"
        path = self._folder() / "records" / file
        return self.data.download_span(entry.path, path, entry.offset, entry.length)

    def _read(self, entry: Entry) -> Page | Rejected:
        try:
            return read_record(self._download(entry).read_bytes(), entry)
        except NotFoundError as error:
            return Rejected(entry.url, "not found", str(error))

    def _folder(self) -> Path:
        return cache_folder(self.cache_dir) / "common_crawl" / self.crawl


def parse_entry(line: bytes, name: str) -> Entry | Rejected:
    """One line of the index; `name` stands for it where it has no address."""
    try:
        fields = json.loads(line)
        url, path = fields["url"], fields["filename"]
        offset, length = int(fields["offset"]), int(fields["length"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return Rejected(name, "bad index entry", repr(error))
    if not (isinstance(url, str) and isinstance(path, str)):
        return Rejected(name, "bad index entry", f"{url!r} {path!r}")
    if not (PATH.fullmatch(path) and offset >= 0 and length > 0):  # they become part of requests and of paths
        return Rejected(url, "bad index entry", f"{path} {offset} {length}")
    if length > MAX_BYTES:
        return Rejected(url, "too large", f"{length} bytes")
    languages = tuple(re.findall(r"[a-z]{3}", str(fields.get("languages", ""))))
    charset = str(fields.get("encoding") or fields.get("charset", "")).lower()
    charset = charset if re.fullmatch(r"[\w.:+-]{1,40}", charset, re.ASCII) else None
    return Entry(url, path, offset, length, str(fields.get("digest", "")), languages, charset)


def read_record(content: bytes, entry: Entry) -> Page | Rejected:
    """The page in one gzip member, or why there is none. The index tells what the record itself does not."""
    member = zlib.decompressobj(wbits=31)
    try:
        record = member.decompress(content, MAX_BYTES + MAX_HEAD)
    except zlib.error as error:
        return Rejected(entry.url, "gzip member damaged", str(error))
    if member.unconsumed_tail:
        return Rejected(entry.url, "too large", f"more than {len(record)} bytes")
    if not member.eof or member.unused_data:
        return Rejected(entry.url, "length mismatch", f"{entry.length} bytes are not one gzip member")
    items = list(read_items(io.BytesIO(record), entry.url, MAX_BYTES))
    if len(items) != 1:
        return Rejected(entry.url, "record damaged", f"{len(items)} records in one")
    [page] = items
    if isinstance(page, Rejected):
        return page
    if entry.digest and not is_of(entry, record, page):
        return Rejected(entry.url, "digest mismatch", entry.digest)
    return dataclasses.replace(page, languages=page.languages or entry.languages, charset=page.charset or entry.charset)


def is_of(entry: Entry, record: bytes, page: Page) -> bool:
    """Whether a sound record has the digest that the index names: in its head, or else of its body."""
    named = PAYLOAD_DIGEST.search(HEAD.match(record)[0])
    if named:
        return named[1].decode("latin-1").rpartition(":")[2] == entry.digest
    return matches_digest(f"sha1:{entry.digest}", page.content)
