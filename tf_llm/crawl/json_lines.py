"""Documents in JSON Lines files, plain or compressed, into pages of plain text.

    >>> pages = JsonLines("texts/*.jsonl.gz")                            # doctest: +SKIP
    >>> for page in pages: print(page.url, page.content.decode())   # doctest: +SKIP
    >>> pages.rejections                                             # doctest: +SKIP
    Counter({'bad JSON': 2, 'no text': 1, 'gzip cut short': 1})

One line is one document: an object with the text in one field and, where there is one, its address in another. Blank
lines are no documents. What a line costs when it is broken is that line:

    reason             the line
    "bad JSON"         is no JSON, or no UTF-8
    "no object"        is JSON of another kind
    "no text"          has no text in its field, or an empty one
    "too large"        is longer than `max_bytes`; it is never in memory as a whole

"gzip cut short", "gzip damaged", "bzip2 cut short", "bzip2 damaged" and "unreadable file" end a file: the lines before
are kept, those behind are lost. A few lines in front of a damage may be garbled and yet pass for text.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from tf_llm.contracts import Page, Rejected
from tf_llm.crawl.files import MAX_BYTES, Files, read_file


class JsonLines(Files):
    """A `contracts.Source`: the documents of JSON Lines files, in the order of the files' names.

    paths: a path or a pattern such as "texts/**/*.jsonl.gz", or several of them.
    text_field: where the text stands.
    url_field: where the address stands; a document without one gets that of its file and the number of its line.
    max_bytes: longer lines are rejected.

    `rejections` counts what the latest iteration could not turn into pages, by reason. Lone surrogates, which JSON can
    spell and UTF-8 cannot, are left out of texts.

    Raises UserError where a path is missing or a pattern matches nothing, and where no file holds a single document.
    """

    noun, example = "JSON Lines file", "texts/*.jsonl.gz"
    names = ("*.jsonl", "*.ndjson", "*.json")

    def __init__(
        self,
        paths: str | os.PathLike | Iterable[str | os.PathLike],
        text_field: str = "text",
        url_field: str = "url",
        *,
        max_bytes: int = MAX_BYTES,
    ):
        super().__init__(paths, max_bytes=max_bytes)
        self.text_field, self.url_field = text_field, url_field
        self._require_pages(
            f"lines of JSON with a text in the field {text_field!r}",
            "Name other files, or the field that has the text",
            "no line",
        )

    def _read(self, path: Path) -> Iterator[Page | Rejected]:
        return read_file(path, functools.partial(self._read_lines, self._address(path)))

    def _read_lines(self, address: str, file: BinaryIO) -> Iterator[Page | Rejected]:
        for number, line in read_lines(file, self.max_bytes):
            yield parse_line(line, f"{address}#{number}", self.text_field, self.url_field)

    def _settings(self) -> tuple[str, str, int]:
        return self.text_field, self.url_field, self.max_bytes


def read_lines(file: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """The lines that are not blank with their numbers from 1; None in place of one that is too long.

    >>> import io
    >>> list(read_lines(io.BytesIO(b"ab\\n \\nabcdefghijkl\\nc"), max_bytes=4))
    [(1, b'ab'), (3, None), (4, b'c')]
    """
    for number in itertools.count(1):
        line = file.readline(max_bytes + 1)
        if not line:
            return
        if len(line.rstrip(b"\r\n")) > max_bytes:
            while line and not line.endswith(b"\n"):
                line = file.readline(max_bytes + 1)
            yield number, None
        elif line := line.strip():
            yield number, line


def parse_line(line: bytes | None, place: str, text_field: str, url_field: str) -> Page | Rejected:
    """The document of one line, or why there is none.

    >>> parse_line(b'{"text": "Tea"}', "a.jsonl#1", "text", "url").url
    'a.jsonl#1'
    """
    if line is None:
        return Rejected(place, "too large")
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Rejected(place, "bad JSON", str(error))
    if not isinstance(document, dict):
        return Rejected(place, "no object", type(document).__name__)
    url, text = document.get(url_field), document.get(text_field)
    url = url.encode("utf-8", "ignore").decode() if isinstance(url, str) else ""
    content = text.encode("utf-8", "ignore") if isinstance(text, str) else b""
    if not content.strip():
        return Rejected(url or place, "no text", f"fields: {', '.join(map(repr, list(document)[:10]))}")
    return Page(url or place, content, content_type="text/plain", charset="utf-8")
