"""Files of pages, of whichever kind: their names say how they are read."""

from __future__ import annotations

import os
from collections.abc import Iterable

from tf_llm.contracts import UserError
from tf_llm.crawl.files import Files, find_files
from tf_llm.crawl.json_lines import JsonLines
from tf_llm.crawl.parquet import Parquet
from tf_llm.crawl.remote import divide_paths
from tf_llm.crawl.tables import Csv
from tf_llm.crawl.texts import HtmlFiles, TextFiles
from tf_llm.crawl.warc import Warc
from tf_llm.crawl.wikipedia import WikipediaDump

SOURCES = (Warc, JsonLines, Csv, Parquet, TextFiles, HtmlFiles, WikipediaDump)
WITH_COLUMNS = (JsonLines, Csv, Parquet)


def read_files(
    paths: str | os.PathLike | Iterable[str | os.PathLike], text_column: str = "text", url_column: str = "url"
) -> Files:
    """The source that reads files of this kind, which their names tell: `pages.warc.gz`, `texts.jsonl`, `table.csv`, …

    Args:
        paths: a file, a pattern, a folder, or several of them; all files of one kind.
        text_column: where tables and JSON Lines have the text; others have no columns.
        url_column: where they have the address.

    Raises:
        UserError: a path is missing; a file is of no known kind, or they are of several; and what the source raises.

    >>> pages = read_files("crawl/*.warc.gz")  # doctest: +SKIP
    """
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    kinds: dict[type[Files], str] = {}
    here, elsewhere = divide_paths(paths, "file of pages")
    found = find_files(here, "file of pages", "crawl/*.warc.gz", is_known) if here or not elsewhere else []
    for path in [*found, *elsewhere]:
        kind = next((source for source in SOURCES if source.takes(path.name)), None)
        if kind is None:
            known = ", ".join(name.removeprefix("*") for source in SOURCES for name in source.names)
            raise UserError(
                f"expected files named {known}, each perhaps with .gz or .bz2. Received: {path}. Rename it, or use the "
                "source that reads such files"
            )
        kinds.setdefault(kind, path.name)
    if len(kinds) > 1:
        received = " and ".join(f"{name} ({kind.noun})" for kind, name in kinds.items())
        raise UserError(
            f"expected files of one kind. Received: {received}. Name fewer, or read them one after the other"
        )
    (kind,) = kinds
    return kind(paths, text_column, url_column) if kind in WITH_COLUMNS else kind(paths)


def is_known(name: str) -> bool:
    """Whether a file of this name is taken from a folder."""
    return any(source.takes(name) for source in SOURCES)
