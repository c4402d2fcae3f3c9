"""Documents in JSON Lines files, plain or gzipped, into pages of plain text.

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

"gzip cut short", "gzip damaged" and "unreadable file" end a file: the lines before are kept, those behind are lost. The
checksum of gzip stands at its end, so a few lines in front of a damage may be garbled and yet pass for text.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from tf_llm.contracts import Page, Rejected, UserError
from tf_llm.crawl.files import MAX_BYTES, Files

GZIP_MARK = b"\x1f\x8b"


class JsonLines(Files):
    """A `contracts.Source`: the documents of JSON Lines files, in the order of the files' names.

    paths: a path or a pattern such as "texts/**/*.jsonl.gz", or several of them.
    text_field: where the text stands.
    url_field: where the address stands; a document without one gets the name of its file and the number of its line.
    max_bytes: longer lines are rejected.

    `rejections` counts what the latest iteration could not turn into pages, by reason. Lone surrogates, which JSON can
    spell and UTF-8 cannot, are left out of texts.

    Raises UserError where a path is missing or a pattern matches nothing, and where no file holds a single document.
    """

    noun, example = "JSON Lines file", "texts/*.jsonl.gz"

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
        self._require_documents()

    def _read(self, path: Path) -> Iterator[Page | Rejected]:
        return read_items(path, self.text_field, self.url_field, self.max_bytes)

    def _settings(self) -> tuple[str, str, int]:
        return self.text_field, self.url_field, self.max_bytes

    def _require_documents(self) -> None:
        """Raise UserError where there is not one document in all the files. Reads up to the first one."""
        reasons: Counter[str] = Counter()
        for path in self.list_local():
            for item in self._read(path):
                if isinstance(item, Page):
                    return
                reasons[item.reason] += 1
        received = ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common(3)) or "no line"
        raise UserError(
            f"expected lines of JSON with a text in the field {self.text_field!r} in {self.paths[0]}"
            f"{f' and {len(self.paths) - 1} more' if len(self.paths) > 1 else ''}. Received: {received}. Name other "
            "files, or the field that has the text"
        )


def read_items(path: Path, text_field: str, url_field: str, max_bytes: int) -> Iterator[Page | Rejected]:
    """The documents of one file, and a Rejected for every line that should have been one. Raises nothing."""
    try:
        with path.open("rb") as plain:
            is_gzip = plain.peek(2)[:2] == GZIP_MARK
            with gzip.GzipFile(fileobj=plain) if is_gzip else plain as file:
                for number, line in read_lines(file, max_bytes):
                    yield parse_line(line, f"{path.name}#{number}", text_field, url_field)
    except EOFError as error:
        yield Rejected(str(path), "gzip cut short", str(error))
    except (gzip.BadGzipFile, zlib.error) as error:
        yield Rejected(str(path), "gzip damaged", str(error))
    except OSError as error:
        yield Rejected(str(path), "unreadable file", str(error))


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
