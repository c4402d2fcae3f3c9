r"""Entries of tables: product search over CSV and JSON Lines files.

    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp(), "teas.csv")
    >>> _ = path.write_text("name,description,price,colour\nSencha,Steamed,9.5,green\nPu-erh,,12,dark\n,,,\n")
    >>> entries = list(read_catalogue(path))
    >>> entries[0].title, entries[0].text, dict(entries[0].fields)
    ('Sencha', 'Steamed', {'price': 9.5, 'colour': 'green'})
    >>> entries[1].address, entries[2].reason
    ('teas.csv#3', 'no text')

Which columns are title, text, address, language and date is said, or goes by their names. All others are fields, to be
filtered and counted by: numbers where a cell is written as one, lists where JSON has them; a text of more than 100
characters is searched and not counted. Rows that cannot be read are `Rejected`, with the reasons of crawl/tables.py and
crawl/json_lines.py.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from tf_llm.apps.search.entries import DATE, Entry
from tf_llm.contracts import Rejected
from tf_llm.crawl.files import MAX_BYTES, find_files, read_file
from tf_llm.crawl.json_lines import JsonLines, read_lines
from tf_llm.crawl.tables import MAX_BYTES as MAX_ROW
from tf_llm.crawl.tables import Csv, decode, name_columns, read_rows

# How columns are called, by what they are; the first that a file has is taken.
NAMES = {
    "title": ("title", "name", "product", "product_name", "product_title", "label"),
    "text": ("text", "description", "body", "content", "summary", "details"),
    "address": ("address", "url", "link", "id", "sku", "asin", "product_id"),
    "language": ("language", "lang"),
    "date": (DATE, "published", "released", "updated"),
}
NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d+)?")  # 007 is a name
MAX_FACET = 100  # characters of a text that is counted


def read_catalogue(
    paths: str | os.PathLike | Iterable[str | os.PathLike], delimiter: str | None = None, **columns: str
) -> Iterator[Entry | Rejected]:
    """Yields the entry of each row, or why there is none.

    Args:
        paths: files, patterns or folders; .csv and .tsv are tables, .jsonl, .ndjson and .json lines of JSON, compressed
            or not.
        delimiter: between cells; None is a tab in .tsv and a comma elsewhere.
        columns: title="…", text="…", address="…", language="…", date="…", where they are called otherwise than NAMES
            has them.

    Raises:
        UserError: there is no such file.
    """
    if unknown := set(columns) - set(NAMES):
        raise ValueError(f"columns are expected to be of {sorted(NAMES)}. Received: {sorted(unknown)}")
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    files = find_files(paths, "catalogue", "products/*.csv", lambda name: Csv.takes(name) or JsonLines.takes(name))
    for path in files:
        read = read_objects if JsonLines.takes(path.name) else functools.partial(read_cells, delimiter, path)
        for row in read_file(path, functools.partial(number_rows, read, path.name)):
            yield row if isinstance(row, Rejected) else make_entry(*row, columns)


def number_rows(read, name: str, file: BinaryIO) -> Iterator[tuple[str, Mapping] | Rejected]:
    """The rows of an open file with their places, teas.csv#3."""
    for number, row, detail in read(file):
        place = f"{name}#{number}"
        yield Rejected(place, row, detail) if isinstance(row, str) else (place, row)


def read_cells(delimiter: str | None, path: Path, file: BinaryIO) -> Iterator[tuple[int, Mapping | str, str]]:
    """(number, {column: value} or a reason, detail) of each row of a table."""
    delimiter = delimiter or ("\t" if ".tsv" in path.suffixes else ",")
    rows = read_rows(file, delimiter, MAX_ROW)
    columns = name_columns(next(rows, (0, "no row"))[1])
    for number, row in rows:
        if isinstance(row, str):
            yield number, row, ""
        elif len(row) != len(columns):
            yield number, "ragged row", f"{len(row)} cells, the first row has {len(columns)}"
        else:
            cells = zip(columns, map(decode, row), strict=True)
            yield number, {name: float(cell) if NUMBER.fullmatch(cell) else cell for name, cell in cells if name}, ""


def read_objects(file: BinaryIO) -> Iterator[tuple[int, Mapping | str, str]]:
    """(number, object or a reason, detail) of each line of JSON."""
    for number, line in read_lines(file, MAX_BYTES):
        if line is None:
            yield number, "too large", ""
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, "bad JSON", str(error)
            continue
        yield (number, row, "") if isinstance(row, dict) else (number, "no object", type(row).__name__)


def make_entry(place: str, row: Mapping[str, object], columns: Mapping[str, str]) -> Entry | Rejected:
    """The entry of a row, by what its columns are called."""
    chosen = {part: find_column(row, columns.get(part), names) for part, names in NAMES.items()}
    own = {part: say(row[name]) if name is not None else "" for part, name in chosen.items()}
    fields, more = {}, []
    for name, value in row.items():
        if name in chosen.values() or value in (None, "") or name == DATE:
            continue
        if isinstance(value, str) and len(value) > MAX_FACET:
            more.append(value)
        else:
            fields[name] = tuple(value) if isinstance(value, list) else value
    if not own["title"] and not own["text"]:
        return Rejected(own["address"] or place, "no text", f"columns: {', '.join(map(repr, list(row)[:10]))}")
    text = "\n".join(filter(None, [own["text"], *more]))
    return Entry(own["address"] or place, own["title"], text, own["language"], own["date"], fields)


def find_column(row: Mapping[str, object], said: str | None, names: tuple[str, ...]) -> str | None:
    """The column that was said, else the first that is called like one of the names, in whatever case."""
    if said is not None:
        return said if said in row else None
    by_name = {name.strip().lower(): name for name in reversed(list(row))}
    return next((by_name[name] for name in names if name in by_name), None)


def say(value: object) -> str:
    """A value as text: numbers without a needless point, lists with commas.

    >>> say(7.0), say(["a", 2.5]), say(None)
    ('7', 'a, 2.5', '')
    """
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(say, value)))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)
