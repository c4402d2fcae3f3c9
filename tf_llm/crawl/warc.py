"""WARC and WET archives, whole or damaged, into pages.

    >>> pages = Warc("crawl/*.warc.gz")                      # doctest: +SKIP
    >>> for page in pages: print(page.url, len(page.content))   # doctest: +SKIP
    >>> pages.rejections                                     # doctest: +SKIP
    Counter({'http status 404': 31, 'media type image/png': 4, 'gzip member damaged': 1})

records.py finds the sound records, FastWARC reads the head of each and its HTTP head, bodies.py decodes. Of the types
of record (ISO 28500) `response` (what a server answered), `resource` (a file) and `conversion` (text, as in Common
Crawl's WET files) become pages. `metadata` behind a response tells its character set and languages, as Common Crawl
writes them. `warcinfo`, `request` and `revisit` hold no page.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from fastwarc.warc import HeaderMap, WarcRecord

from tf_llm.contracts import Page, Rejected, UserError
from tf_llm.crawl.bodies import TooLargeError, decode_body, remove_chunks
from tf_llm.crawl.files import MAX_BYTES, Files, count_rejections
from tf_llm.crawl.records import HEAD, matches_digest, read_records

MEDIA_TYPES = ("text/html", "application/xhtml+xml", "text/plain")
PAGE_KINDS = ("response", "resource", "conversion")
SILENT_KINDS = ("warcinfo", "request", "revisit", "metadata")
MEDIA_TYPE = re.compile(r"[\w.+-]{1,40}/[\w.+-]{1,80}", re.ASCII)
CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:+-]{1,40})", re.IGNORECASE | re.ASCII)
METADATA_FIELD = re.compile(r"^([\w-]+):[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)


class Warc(Files):
    """A `contracts.Source`: the pages of WARC or WET files, plain or gzipped, in the order of the files' names.

    paths: a path or a pattern such as "crawl/**/*.warc.gz", or several of them.
    max_bytes: records and decoded pages larger than this are rejected ("too large").

    `rejections` counts what the latest iteration could not turn into pages, by reason; a file that is no archive, or
    cannot be read, is one of them. Damage (see records.py) costs the records that it hit.

    Raises UserError where a path is missing or a pattern matches nothing, and where no file holds a single WARC record.
    """

    noun, example = "WARC or WET file", "crawl/*.warc.gz"
    names = ("*.warc", "*.wet")

    def __init__(self, paths: str | os.PathLike | Iterable[str | os.PathLike], *, max_bytes: int = MAX_BYTES):
        super().__init__(paths, max_bytes=max_bytes)
        require_records(self.list_local(), max_bytes)

    def _read(self, path: Path) -> Iterator[Page | Rejected]:
        return read_items(path, str(path), self.max_bytes)


def require_records(paths: Iterable[Path], max_bytes: int) -> None:
    """Raise UserError where there is not one sound record in all the files. Reads up to the first one."""
    reasons = {}
    for path in paths:
        for record in open_records(path, str(path), max_bytes):
            if not isinstance(record, Rejected):
                return
            reasons[path] = record.reason  # the last one says it best
    received = ", ".join(f"{path} ({reason})" for path, reason in itertools.islice(reasons.items(), 3))
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    raise UserError(
        f"expected a WARC or WET archive. Received: {received}{more}. Download it again, or name files "
        "such as those listed in Common Crawl's warc.paths.gz and wet.paths.gz"
    )


def read_pages(
    file: str | os.PathLike | BinaryIO, rejections: Counter[str], name: str | None = None, max_bytes: int = MAX_BYTES
) -> Iterator[Page]:
    """The pages of one archive, a path or a binary file (a pipe or a download is read as it comes, in flat memory).

    Whatever the bytes are, nothing is raised: what cannot become a page is counted in `rejections` and logged, damage
    as a warning, pages one by one for those who debug. `name` stands for the archive in the log.
    """
    if name is None:
        name = str(file) if isinstance(file, str | os.PathLike) else str(getattr(file, "name", "archive"))
    return count_rejections(read_items(file, name, max_bytes), rejections, name)


def open_records(file: str | os.PathLike | BinaryIO, name: str, max_bytes: int) -> Iterator[bytes | Rejected]:
    """`read_records` of a path or a binary file; a file that cannot be opened is a rejection."""
    try:
        with Path(file).open("rb") if isinstance(file, str | os.PathLike) else contextlib.nullcontext(file) as archive:
            yield from read_records(archive, name, max_bytes)
    except OSError as error:
        yield Rejected(name, "unreadable file", str(error))


def read_items(file: str | os.PathLike | BinaryIO, name: str, max_bytes: int) -> Iterator[Page | Rejected]:
    """The pages of one archive, and a Rejected for everything in it that should have been one."""
    held, held_id = None, None  # an item waits for the next one: metadata about it may come in between
    silent_kinds = set()
    for record in open_records(file, name, max_bytes):
        if isinstance(record, bytes):
            record = parse_record(record, name)
        item = record if isinstance(record, Rejected) else make_item(record, name, max_bytes)
        if item is not None:
            if held:
                yield held
            held = item
            held_id = record.headers.get("WARC-Record-ID") if isinstance(item, Page) else None
        else:
            kind = str(record.record_type)
            silent_kinds.add(kind)
            if kind == "metadata" and held_id and held_id in list_subjects(record):
                held = add_metadata(held, record.reader.read())
    yield held or Rejected(name, f"no pages, only {' and '.join(sorted(silent_kinds))}")


def parse_record(content: bytes, name: str) -> WarcRecord | Rejected:
    """FastWARC's view of a sound record; a head that it takes for one of another length is damaged."""
    try:
        record = WarcRecord.from_reader(io.BytesIO(content), quirks_mode=True)  # quirks: line ends may be LF only
    except OSError as error:
        return Rejected(name, "record damaged", str(error))
    if record.content_length != len(content) - HEAD.match(content).end():
        return Rejected(name, "record damaged", "unclear Content-Length")
    return record


def make_item(record: WarcRecord, name: str, max_bytes: int) -> Page | Rejected | None:
    """The page in a record, why there is none, or None where none was to be expected."""
    head, kind = record.headers, str(record.record_type)
    url = head.get("WARC-Target-URI", "").strip(" \t<>")  # Wget wrote <http://a.example/>
    if kind in SILENT_KINDS or (kind == "resource" and url.startswith("metadata:")):  # Wget's own log
        return None
    if kind not in PAGE_KINDS:
        reason = "segmented record" if kind == "continuation" else "unknown record type"
        return Rejected(url or name, reason, head.get("WARC-Type", ""))
    if not url:
        return Rejected(name, "no target address", record.record_id or "")
    content_type, transfer_encoding, content_encoding = head.get("Content-Type", ""), "", ""
    if kind == "response" and record.is_http:
        record.parse_http(quirks_mode=True)
        http = record.http_headers
        if http is None or http.status_code is None:
            return Rejected(url, "bad HTTP head")
        if http.status_code != 200:
            return Rejected(url, f"http status {http.status_code}")
        content_type = http.get("Content-Type") or "text/html"  # text/ will see whether that is true
        transfer_encoding, content_encoding = http.get("Transfer-Encoding", ""), http.get("Content-Encoding", "")
    media_type = (head.get("WARC-Identified-Payload-Type") or content_type).partition(";")[0].strip().lower()
    if media_type not in MEDIA_TYPES:
        known = MEDIA_TYPE.fullmatch(media_type)
        return Rejected(url, f"media type {media_type if known else 'unknown'}", "" if known else repr(content_type))
    body = record.reader.read()
    try:
        if not has_payload_digest(head, body):
            return Rejected(url, "digest mismatch")
        body = decode_body(body, transfer_encoding, content_encoding, max_bytes)
    except TooLargeError as error:
        return Rejected(url, "too large", str(error))
    except (ValueError, OSError, zlib.error) as error:
        return Rejected(url, "bad content encoding", str(error))
    charset = CHARSET.search(content_type)
    return Page(
        url=url,
        content=body,
        content_type=media_type,
        charset=charset[1].lower() if charset else "utf-8" if kind == "conversion" else None,
        languages=tuple(re.findall(r"[\w-]+", head.get("WARC-Identified-Content-Language", ""))),
        date=head.get("WARC-Date"),
    )


def has_payload_digest(head: HeaderMap, body: bytes) -> bool:
    """Whether the body is what WARC-Payload-Digest says, where that is the only digest there is.

    records.py has checked the block, and with it the body, where the block has a digest. The standard means the body
    without chunks, most crawlers the bytes they got.
    """
    digest = head.get("WARC-Payload-Digest")
    if not digest or head.get("WARC-Block-Digest"):
        return True
    return matches_digest(digest, body) or matches_digest(digest, remove_chunks(body))


def list_subjects(record: WarcRecord) -> list[str | None]:
    """The ids of the records that a metadata record is about."""
    return [record.headers.get(name) for name in ("WARC-Concurrent-To", "WARC-Refers-To")]


def add_metadata(page: Page, block: bytes) -> Page:
    """The page with the character set and languages (ISO 639-3) that Common Crawl detected, where it had none."""
    fields = dict(METADATA_FIELD.findall(block.decode("utf-8", "replace")))
    languages = page.languages
    with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError):  # JSON from outside
        detected = json.loads(fields["languages-cld2"])["languages"]
        languages = languages or tuple(str(language["code-iso-639-3"]) for language in detected)
    charset = page.charset or fields.get("charset-detected", "").lower() or None
    return dataclasses.replace(page, charset=charset, languages=languages)
