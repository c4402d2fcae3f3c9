"""How entries get into a generation: rows of vectors first, then one commit of tantivy.

What dies before the commit leaves rows that no document has, and an index that never heard of the entries. What dies
after it leaves both. In between there is nothing: the commit renames one file.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from tf_llm.apps.search.analysis import Analyser
from tf_llm.apps.search.entries import Entry, check_entry
from tf_llm.apps.search.generations import LEXICAL, VECTORS, Settings
from tf_llm.apps.search.lexical import MEMORY, build_document, open_lexical
from tf_llm.apps.search.vectors import VectorWriter
from tf_llm.contracts import Rejected, UserError

TOGETHER = 256  # entries that are embedded and written at once
COMMITTED = 5_000  # entries, after so many of which is committed

Embed = Callable[[Sequence[str]], np.ndarray]  # N texts -> [N, D]


@dataclasses.dataclass(frozen=True, slots=True)
class Update:
    """What became of entries: how many were written, and reason -> how many were not."""

    written: int
    rejections: Counter[str]


class Writer:
    """Changes a generation; call it under the lock of the folder.

    Inside the `with` block nobody sees anything but what was committed; an error drops the rest.
    """

    def __init__(self, generation: Path, settings: Settings, analyser: Analyser):
        self._analyser = analyser
        self._index = open_lexical(generation / LEXICAL)
        self._vectors = VectorWriter(generation / VECTORS, settings.dimensions) if settings.dimensions else None
        try:
            self._writer = self._index.writer(MEMORY, 1)
            # What was killed leaves files that no commit knows. Names come from a counter that goes on from the last
            # commit, so the next writer would want the same ones.
            self._writer.garbage_collect_files()
        except (ValueError, OSError) as error:
            raise UserError(
                f"cannot write to {generation}: {error}; look for another program that does, and for free space"
            ) from error

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is not None:
            self._writer.rollback()
        self._writer.wait_merging_threads()  # lets go of the index, too
        if self._vectors:
            self._vectors.__exit__()

    def write(self, entries: Sequence[Entry], vectors: np.ndarray | None) -> None:
        """Adds or replaces checked entries, with their vectors [N, D] where the generation has vectors."""
        first = self._vectors.append(vectors) if self._vectors and len(entries) else None
        for number, entry in enumerate(entries):
            self._writer.delete_documents_by_term("address", entry.address)
            row = None if first is None else first + number
            self._writer.add_document(build_document(entry, row, self._analyser))

    def remove(self, addresses: Iterable[str]) -> None:
        """Removes the entries with these addresses; others are passed over."""
        for address in addresses:
            self._writer.delete_documents_by_term("address", address.encode("utf-8", "ignore").decode())

    def commit(self) -> None:
        """From here on, what was written and removed is what is there."""
        try:
            if self._vectors:
                self._vectors.sync()
            self._writer.commit()
        except (ValueError, OSError) as error:
            raise UserError(f"cannot write the index: {error}; free some space") from error


def write_entries(writer: Writer, entries: Iterable[Entry | Rejected], embed: Embed | None) -> Update:
    """Checks, embeds and writes entries, and commits after every `COMMITTED` and at the end."""
    written, rejections = 0, Counter()
    entries = iter(entries)
    while batch := list(itertools.islice(entries, TOGETHER)):
        kept: dict[str, Entry] = {}
        for entry in batch:
            checked = entry if isinstance(entry, Rejected) else check_entry(entry)
            if isinstance(checked, Rejected):
                rejections[checked.reason] += 1
            else:
                kept.pop(checked.address, None)
                kept[checked.address] = checked  # of two with one address, the later one
        vectors = embed([join_text(entry) for entry in kept.values()]) if embed and kept else None
        writer.write(list(kept.values()), vectors)
        before, written = written, written + len(kept)
        if written // COMMITTED > before // COMMITTED:
            writer.commit()
    writer.commit()
    return Update(written, rejections)


def join_text(entry: Entry) -> str:
    """What is embedded of an entry."""
    return f"{entry.title}\n{entry.text}".strip()
