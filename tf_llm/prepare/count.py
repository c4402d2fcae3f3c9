"""Stage "count": which documents of a part are kept, now that duplicates are known, and what their words are.

Only pages of the training split have a say in the vocabulary, so that nothing of the validation split leaks into it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tf_llm.contracts import Document, Rejected
from tf_llm.data.shards import split_of
from tf_llm.prepare.documents import load_documents
from tf_llm.prepare.pulse import Faults, Pulse
from tf_llm.prepare.statistics import Statistics
from tf_llm.prepare.task import Preparation, Task, follow, place_of, survive
from tf_llm.text.duplicates import REASONS, remove_lines
from tf_llm.text.filters import Filters

COUNTS, KEPT = "counts.json", "kept.npy"
REPEATS, PAGES, LINES = "repeats", "pages.npy", "lines.npy"


def count_words(task: Task, place: Path, pulse: Pulse, faults: Faults) -> dict[str, Any]:
    """Counts the words of the training documents of a part, and notes which documents are kept. Returns statistics."""
    preparation, statistics = task.preparation, Statistics()
    counts: Counter[str] = Counter()
    kept = []
    for item, fault in follow(remove_repeats(task.folder, task.number, preparation), pulse, faults, "documents"):
        result = fault or item
        if isinstance(result, Document):
            with survive(result.url) as mishaps:
                result = count_document(result, preparation, statistics, counts)
            result = mishaps[0] if mishaps else result
        if item is not None:  # else the rest of the part was lost
            kept.append(isinstance(result, Document))
        if isinstance(result, Rejected):
            statistics.reject(result)
        pulse.counts(0, isinstance(result, Rejected))
    (place / COUNTS).write_text(json.dumps(counts), encoding="utf-8")
    np.save(place / KEPT, np.array(kept, bool), allow_pickle=False)
    return statistics.to_json()


def count_document(
    document: Document, preparation: Preparation, statistics: Statistics, counts: Counter[str]
) -> Document | Rejected:
    """Adds a document to the statistics and, if it is of the training split, to the counts; or says why not."""
    removed, stopped = Counter(), Counter()
    found = preparation.builder.cut(document.text, removed, stopped)
    if found is None:
        return Rejected(document.url, "no words left")
    statistics.keep(document)
    statistics.kept += len(found)
    statistics.removed.update(removed)
    if split_of(document.url, preparation.shards.validation_fraction) == "train":
        statistics.training += 1
        counts.update(found)
        statistics.stop_words.update(stopped)
    return document


def remove_repeats(folder: str | Path, number: int, preparation: Preparation) -> Iterator[Document | Rejected]:
    """What becomes of each document of a part when its repetitions are removed, by the verdicts of the whole corpus."""
    place = place_of(folder, number, REPEATS)
    pages = np.load(place / PAGES, allow_pickle=False, mmap_mode="r")
    lines = np.load(place / LINES, allow_pickle=False, mmap_mode="r") if (place / LINES).exists() else None
    filters, start = Filters(preparation.filters), 0
    for document, verdict in zip(load_documents(place_of(folder, number, "read")), pages, strict=True):
        end = start + document.text.count("\n") + 1
        repeated, start = (lines[start:end] if lines is not None else None), end
        if verdict:
            yield Rejected(document.url, REASONS[verdict - 1])
        elif repeated is not None and repeated.any():
            shorter = remove_lines(document.text, repeated)
            yield filters.recheck(Document(document.url, shorter, document.languages))
        else:
            yield document


def load_kept(folder: str | Path, number: int, preparation: Preparation) -> Iterator[Document]:
    """The documents of a part that go on to be encoded, repeated lines removed."""
    kept = np.load(place_of(folder, number, "count") / KEPT, allow_pickle=False)
    # Where the rest of a part was lost, there are fewer verdicts, and the next document is not to be touched.
    for is_kept, document in zip(kept, remove_repeats(folder, number, preparation), strict=False):
        if is_kept:
            yield document
