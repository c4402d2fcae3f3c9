"""Documents in the rows of Parquet files, into pages of plain text.

    >>> pages = Parquet("data/train-*.parquet", text_column="content")   # doctest: +SKIP

Only two columns are read, a few rows at a time. What a row costs when it is broken is that row: "no text", "too large".
"row group too large" and "parquet damaged" cost a row group, and the latter the whole file where its end is missing,
since the list of columns stands there; "no column" costs a file, too (the detail lists the ones it has).

A file says how large its pages are: pieces of a column that are compressed on their own, about 1 MB each. They are
looked at before pyarrow is let at them, since it makes room for whatever they say, and a cell of 1 GB may take 100 kB
in the file. With `largest` for the largest page of a row group, n rows take at most n × `largest`.

The format is https://parquet.apache.org/docs/file-format/ and its heads are in Thrift's compact protocol,
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tf_llm.contracts import Page, Rejected, UserError
from tf_llm.crawl.files import MAX_BYTES, Files
from tf_llm.crawl.tables import BLANK, show_columns

BATCH_BYTES, BATCH_ROWS = 32 << 20, 1_000
BUFFER = 1 << 20  # bytes of a column that are read at once
PAGE_HEADS = (1 << 9, 1 << 16)  # bytes that are tried for the head of a page, which may hold its first and last text
UNCOMPRESSED, COMPRESSED = 2, 3  # the fields of a page's head that tell its size


class Parquet(Files):
    """A `contracts.Source`: the documents of Parquet files, in the order of the files' names.

    paths: a file, a pattern such as "data/train-*.parquet", a folder, or several of them.
    text_column: the name of the column where the text stands, of strings or bytes.
    url_column: of the one where the address stands; a document without one gets that of its file and the number of its
        row.
    max_bytes: longer texts are rejected.

    `rejections` counts what the latest iteration could not turn into pages, by reason.

    Raises UserError where pyarrow is not installed (the extra `parquet`), a path is missing or a pattern matches
    nothing, and where no file holds a single document.
    """

    noun, example = "Parquet file", "data/*.parquet"
    names = ("*.parquet",)

    def __init__(
        self,
        paths: str | os.PathLike | Iterable[str | os.PathLike],
        text_column: str = "text",
        url_column: str = "url",
        *,
        max_bytes: int = MAX_BYTES,
    ):
        import_pyarrow()
        super().__init__(paths, max_bytes=max_bytes)
        self.text_column, self.url_column = text_column, url_column
        self._require_pages(
            f"rows with a text in the column {text_column!r}", "Name other files, or another column", "no row"
        )

    def _read(self, path: Path) -> Iterator[Page | Rejected]:
        """The documents of a file, and a Rejected for what is broken."""
        pyarrow = import_pyarrow()
        try:
            with (
                path.open("rb") as heads,
                pyarrow.parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file,
            ):
                kinds = {field.name: field.type for field in file.schema_arrow}
                if not is_text(kinds.get(self.text_column)):
                    columns = [f"{name}: {kind}" for name, kind in kinds.items()]
                    yield Rejected(str(path), "no column", show_columns(columns))
                    return
                columns = [name for name in (self.text_column, self.url_column) if is_text(kinds.get(name))]
                address, first_row = self._address(path), 1
                for group in range(file.num_row_groups):
                    yield from self._read_group(file, group, heads, columns, address, first_row)
                    first_row += file.metadata.row_group(group).num_rows
        except OSError as error:
            yield Rejected(str(path), "parquet damaged" if error.errno is None else "unreadable file", str(error))
        except Exception as error:  # a parser in C++ fed by strangers: whatever it says costs this file only
            yield Rejected(str(path), "parquet damaged", str(error))

    def _read_group(self, file, group: int, heads: BinaryIO, columns: list[str], address: str, number: int):
        """The documents of a row group, whose first row has this number."""
        place = f"{address}#{number}"
        try:
            largest = max(find_largest_page(heads, find_column(file, group, name)) for name in columns)
            if largest > self.max_bytes + BUFFER:
                yield Rejected(place, "row group too large", f"a page of {largest} bytes")
                return
            rows = max(1, min(BATCH_ROWS, BATCH_BYTES // max(largest, 1)))
            batches = file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False)
            for batch in batches:
                cells = [list_bytes(batch.column(name)) for name in columns]
                for text, *urls in zip(*cells, strict=True):
                    yield self._make_page(text, urls[0] if urls else None, f"{address}#{number}")
                    number += 1
        except Exception as error:  # as above: this row group only
            yield Rejected(place, "parquet damaged", str(error))

    def _make_page(self, text: bytes | None, url: bytes | None, place: str) -> Page | Rejected:
        url = (url or b"").decode("utf-8", "replace").strip() or place
        if text is None or not text.strip(BLANK):
            return Rejected(url, "no text")
        if len(text) > self.max_bytes:
            return Rejected(url, "too large")
        return Page(url, text, content_type="text/plain", charset="utf-8")

    def _settings(self) -> tuple[str, str, int]:
        return self.text_column, self.url_column, self.max_bytes


def is_text(kind: Any) -> bool:
    """Whether a column of this type holds strings or bytes, dictionary-encoded or not."""
    known = import_pyarrow().types
    if kind is not None and known.is_dictionary(kind):
        kind = kind.value_type
    names = ("is_string", "is_large_string", "is_string_view", "is_binary", "is_large_binary", "is_binary_view")
    return kind is not None and any(getattr(known, name)(kind) for name in names)


def list_bytes(column: Any) -> list[bytes | None]:
    """The cells of a column."""
    pyarrow = import_pyarrow()
    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pyarrow.large_binary()).to_pylist()


def find_column(file: Any, group: int, name: str) -> Any:
    """What the file says of a column in a row group."""
    paths = [file.schema.column(place).path for place in range(len(file.schema))]
    return file.metadata.row_group(group).column(paths.index(name))


def find_largest_page(file: BinaryIO, column: Any) -> int:
    """The bytes of the largest page of a column in a row group, as the pages' heads have them.

    Raises IndexError or ValueError where they make no sense.
    """
    largest, pages = 0, 0
    place = column.data_page_offset
    if column.dictionary_page_offset is not None:
        place = min(place, column.dictionary_page_offset or place)
    end = place + column.total_compressed_size
    while place < end:
        for length in PAGE_HEADS:
            file.seek(place)
            try:
                head, size = read_struct(file.read(length), 0)
                break
            except IndexError:
                if length == PAGE_HEADS[-1]:
                    raise
        largest = max(largest, head[UNCOMPRESSED], head[COMPRESSED])
        pages += 1
        if head[COMPRESSED] < 0 or pages > column.num_values + 2:
            raise ValueError(f"a page of {head[COMPRESSED]} bytes, {pages} pages of {column.num_values} values")
        place += size + head[COMPRESSED]
    return largest


def read_struct(data: bytes, place: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """The fields of a struct in Thrift's compact protocol by their numbers, and the place behind it.

    >>> read_struct(bytes([0x15, 4, 0x15, 200, 1, 0]), 0)
    ({1: 2, 2: 100}, 6)
    """
    fields, field = {}, 0
    while byte := data[place]:
        place += 1
        if byte >> 4:
            field += byte >> 4
        else:
            field, place = read_integer(data, place)
        kind = byte & 15
        if kind in (1, 2):  # true, false
            fields[field] = kind == 1
        elif kind in (4, 5, 6):  # integers
            fields[field], place = read_integer(data, place)
        elif kind == 8:  # bytes
            length, place = read_integer(data, place, signed=False)
            place += length
        elif kind == 12 and depth < 4:
            fields[field], place = read_struct(data, place, depth + 1)
        else:
            raise ValueError(f"a field of kind {kind} in the head of a page")
    return fields, place + 1


def read_integer(data: bytes, place: int, signed: bool = True) -> tuple[int, int]:
    """An integer of seven bits a byte, the lowest first, and the place behind it; signed ones go 0, -1, 1, -2, …"""
    value, shift = 0, 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return ((value >> 1) ^ -(value & 1) if signed else value), place
        if shift > 63:
            raise ValueError("an integer of more than 64 bits in the head of a page")


def import_pyarrow() -> types.ModuleType:
    """pyarrow, with its part for Parquet. Raises UserError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"reading Parquet expected the package pyarrow. Received: {error}. pip install 'tf_llm[parquet]'"
        ) from error
    return pyarrow
