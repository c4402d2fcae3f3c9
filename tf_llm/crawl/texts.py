"""Folders of texts and of HTML, a page per file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "tea.txt").write_text("Tea is a drink.")
    ...     [(page.url, page.content) for page in TextFiles(folder)]
    [('tea.txt', b'Tea is a drink.')]

A page's address is the path of its file below the folder that all share, its content the bytes as they are: text/ finds
out the encoding. Files may be compressed. What costs a file: "too large" (never read as a whole), "empty", and what
`files.open_file` says of damage.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from tf_llm.contracts import Page, Rejected
from tf_llm.crawl.files import MAX_BYTES, Files, read_file


class TextFiles(Files):
    """A `contracts.Source`: the pages of plain text files, in the order of the files' names.

    paths: a file, a pattern such as "texts/**/*.txt", a folder, or several of them.
    max_bytes: larger files are rejected.

    Raises UserError where a path is missing or a pattern matches nothing, and where no file holds anything.
    """

    noun, example = "text file", "texts/*.txt"
    names = ("*.txt", "*.text")
    content_type = "text/plain"

    def __init__(self, paths: str | os.PathLike | Iterable[str | os.PathLike], *, max_bytes: int = MAX_BYTES):
        super().__init__(paths, max_bytes=max_bytes)
        self._require_pages(f"a {self.noun}", "Name other files", "nothing")

    def _read(self, path: Path) -> Iterator[Page | Rejected]:
        return read_file(path, functools.partial(self._read_page, self._address(path)))

    def _read_page(self, address: str, file: BinaryIO) -> Iterator[Page | Rejected]:
        content = file.read(self.max_bytes + 1)
        if len(content) > self.max_bytes:
            yield Rejected(address, "too large", f"more than {self.max_bytes} bytes")
        elif not content.strip():
            yield Rejected(address, "empty")
        else:
            yield Page(address, content, content_type=self.content_type)

    def _settings(self) -> tuple[int]:
        return (self.max_bytes,)


class HtmlFiles(TextFiles):
    """A `contracts.Source`: the pages of HTML files, such as a site that was copied with wget.

    paths: a folder, of which all .html, .htm and .xhtml files are taken, or a file, a pattern, or several of them.
    max_bytes: larger files are rejected.

    Raises UserError where a path is missing or a pattern matches nothing, and where no file holds anything.
    """

    noun, example = "HTML file", "site/**/*.html"
    names = ("*.html", "*.htm", "*.xhtml")
    content_type = "text/html"
