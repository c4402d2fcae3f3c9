r"""Documents in the rows of CSV files, into pages of plain text.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.csv").write_text('text,url\n"Tea, green",http://a.example/\nBlack tea,\n')
    ...     [(page.url, page.content) for page in Csv(folder)]
    [('http://a.example/', b'Tea, green'), ('a.csv#3', b'Black tea')]

The first row names the columns. What a row costs when it is broken is that row:

    reason         the row
    "ragged row"   has more or fewer cells than the first one
    "no text"      has nothing in the column of texts
    "bad quoting"  has a quote in the wrong place, or one that nothing closes
    "too large"    is longer than `max_bytes`; it is never in memory as a whole

and what costs a file: "no column" (the detail lists those it has), "gzip cut short" and the like (`files.open_file`).
The format is RFC 4180; quotes are doubled. Cells are cut out as bytes: text/ finds out the encoding.
"""

from __future__ import annotations

import codecs
import csv
import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from tf_llm.contracts import Page, Rejected, UserError
from tf_llm.crawl.files import Files, read_file

MAX_BYTES = 16 << 20  # of a row; the csv module takes four bytes for each while it reads a cell
BLANK = b" \t\r\n\0"
COLUMNS_SHOWN = 20  # in an error about a missing one
PIECE = 1 << 20  # bytes of a row that is too large, at a time
# Each byte is one of these characters and back: what is a quote, a comma or the end of a line is the same in all
# encodings but UTF-16.
BYTES = "latin-1"


class Csv(Files):
    """A `contracts.Source`: the documents of CSV files, in the order of the files' names.

    paths: a file, a pattern such as "tables/*.csv.gz", a folder, or several of them.
    text_column: the name of the column where the text stands.
    url_column: of the one where the address stands; a document without one gets that of its file and the number of its
        line.
    delimiter: what separates cells; None is a tab in files named .tsv and a comma in others.
    max_bytes: longer rows are rejected.

    `rejections` counts what the latest iteration could not turn into pages, by reason.

    Raises UserError where a path is missing or a pattern matches nothing, and where no file holds a single document.
    """

    noun, example = "CSV file", "tables/*.csv"
    names = ("*.csv", "*.tsv")

    def __init__(
        self,
        paths: str | os.PathLike | Iterable[str | os.PathLike],
        text_column: str = "text",
        url_column: str = "url",
        *,
        delimiter: str | None = None,
        max_bytes: int = MAX_BYTES,
    ):
        super().__init__(paths, max_bytes=max_bytes)
        if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n'):
            raise UserError(f"expected delimiter as one character of ASCII. Received: {delimiter!r}. Choose another")
        self.text_column, self.url_column, self.delimiter = text_column, url_column, delimiter
        self._require_pages(
            f"rows with a text in the column {text_column!r}", "Name other files, or another column", "no row"
        )

    def _read(self, path: Path) -> Iterator[Page | Rejected]:
        return read_file(path, functools.partial(self._read_rows, path))

    def _read_rows(self, path: Path, file: BinaryIO) -> Iterator[Page | Rejected]:
        """The documents of an open file."""
        delimiter = self.delimiter or ("\t" if ".tsv" in path.suffixes else ",")
        rows = read_rows(file, delimiter, self.max_bytes)
        columns = name_columns(next(rows, (0, "no row"))[1])
        if self.text_column not in columns:
            yield Rejected(str(path), "no column", show_columns(columns))
            return
        text_place = columns.index(self.text_column)
        url_place = columns.index(self.url_column) if self.url_column in columns else None
        address = self._address(path)
        for number, row in rows:
            place = f"{address}#{number}"
            if isinstance(row, str):
                yield Rejected(place, row)
            elif len(row) != len(columns):
                yield Rejected(place, "ragged row", f"{len(row)} cells, the first row has {len(columns)}")
            else:
                url = "" if url_place is None else decode(row[url_place])
                content = row[text_place].encode(BYTES)
                if content.strip(BLANK):
                    yield Page(url or place, content, content_type="text/plain")
                else:
                    yield Rejected(url or place, "no text")

    def _settings(self) -> tuple[str, str, str | None, int]:
        return self.text_column, self.url_column, self.delimiter, self.max_bytes


def decode(cell: str) -> str:
    """The text of a cell, of bytes as characters."""
    return cell.encode(BYTES).decode("utf-8", "replace").strip()


def name_columns(row: list[str] | str) -> list[str]:
    """The names in the first row; none in a broken one."""
    return [] if isinstance(row, str) else [decode(cell) for cell in row]


def show_columns(columns: list[str]) -> str:
    """What an error says of the columns of a file.

    >>> show_columns(["body", "id"])
    "its columns are 'body', 'id'"
    """
    shown = [repr(column[:80]) for column in columns[:COLUMNS_SHOWN]]
    more = f" and {len(columns) - COLUMNS_SHOWN} more" if len(columns) > COLUMNS_SHOWN else ""
    return f"its columns are {', '.join(shown)}{more}" if shown else "it has no row of names"


class TooLargeError(Exception):
    """A row that is longer than it may be. What follows it is read next."""


class Lines:
    """The lines of an open file for `csv.reader`, which asks for as many as a row has."""

    def __init__(self, file: BinaryIO, max_bytes: int):
        self._file, self._max_bytes = file, max_bytes
        self._again: bytes | None = None  # a line that is given out once more
        self._number = 0
        self.row: list[bytes] = []  # the lines of the row that is being read
        self._size = 0  # of them

    def __iter__(self) -> Lines:
        return self

    def begin_row(self, again: bytes | None = None) -> None:
        """What comes next is a new row; `again`, if any, is its first line."""
        self.row, self._size, self._again = [], 0, again
        self._number -= again is not None

    @property
    def first_number(self) -> int:
        """The number of the row's first line, from 1."""
        return self._number - len(self.row) + 1

    def __next__(self) -> str:
        line, self._again = self._again or self._file.readline(self._max_bytes + 1), None
        if not line:
            raise StopIteration
        if not self._number:
            line = line.removeprefix(codecs.BOM_UTF8)
        self._number += 1
        self.row.append(line)
        self._size += len(line)
        if self._size > self._max_bytes:
            self._skip_row()
            raise TooLargeError
        return line.decode(BYTES)

    def _skip_row(self) -> None:
        """Reads on to the end of the row, piece by piece: where a line ends and all quotes have been closed."""
        quotes, piece, number = sum(line.count(b'"') for line in self.row), self.row[-1], self._number
        while piece and not (piece.endswith(b"\n") and quotes % 2 == 0):
            self._number += piece.endswith(b"\n")
            piece = self._file.readline(PIECE)
            quotes += piece.count(b'"')
        self.row = [b""] * (self._number - number + len(self.row))


def read_rows(file: BinaryIO, delimiter: str, max_bytes: int) -> Iterator[tuple[int, list[str] | str]]:
    r"""The rows that are not blank, each with the number of its first line; in place of a broken one, the reason.

    A quote that nothing closes makes the rest of the file one cell. So where a row turns out to be broken, each of its
    lines is tried as a row of its own; the last one, which the error is in, may begin a longer row. All lines are read
    at most twice.

    >>> import io
    >>> list(read_rows(io.BytesIO(b'a,b\n"c,d\ne,f\n"g","h\ni"\n'), ",", max_bytes=99))
    [(1, ['a', 'b']), (2, 'bad quoting'), (3, ['e', 'f']), (4, ['g', 'h\ni'])]
    """
    csv.field_size_limit(max(csv.field_size_limit(), max_bytes))  # of the whole process: nobody can lower it meanwhile
    lines = Lines(file, max_bytes)
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except TooLargeError:
            yield lines.first_number, "too large"
            lines.begin_row()
        except csv.Error:
            first_number, (*alone, last) = lines.first_number, lines.row
            if not alone:
                yield first_number, "bad quoting"
            for number, line in enumerate(alone, first_number):
                try:
                    yield from (
                        (number, row) for row in csv.reader([line.decode(BYTES)], delimiter=delimiter, strict=True)
                    )
                except csv.Error:
                    yield number, "bad quoting"
            lines.begin_row(last if alone else None)
        else:
            if row:
                yield lines.first_number, row
            lines.begin_row()
