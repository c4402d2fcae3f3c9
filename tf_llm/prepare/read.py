"""Stage "read": the pages of a part become documents, or are rejected; nothing here needs to know the other parts.

    page -> strip_html -> Filters -> a line in documents.jsonl, and the keys by which duplicates are found

A part that was begun before goes on behind the last whole line of its log.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tf_llm.contracts import Document, Page, Rejected
from tf_llm.prepare.documents import DocumentLog, read_entry, write_entry
from tf_llm.prepare.pulse import Faults, Pulse
from tf_llm.prepare.statistics import Statistics
from tf_llm.prepare.task import Task, follow, survive
from tf_llm.text.duplicate_keys import KeyWriter
from tf_llm.text.filters import Filters
from tf_llm.text.html import HtmlConfig, strip_html

KEYS = "keys.npz"


def read_pages(task: Task, place: Path, pulse: Pulse, faults: Faults) -> dict[str, Any]:
    """Reads a part, or the rest of it: what the log in `place` has already is taken from there. Returns statistics."""
    preparation, statistics = task.preparation, Statistics()
    filters, keys = Filters(preparation.filters), KeyWriter(preparation.duplicates)

    def note(entry: dict[str, Any]) -> None:
        result, edits = read_entry(entry), entry.get("edits", {})
        statistics.see(entry["bytes"])
        statistics.edit(edits)
        if isinstance(result, Rejected):
            statistics.reject(result)
        else:
            keys.add(result.url, result.text)

    with DocumentLog(place) as log:
        done = 0
        for entry in log.replay():
            pulse.looks(0)  # a long log takes longer than the patience for one item
            note(entry)
            done += 1
        for page, fault in follow(task.source, pulse, faults, repr(task.source), done):
            size, edits = len(page.content) if page else 0, Counter()
            result = fault or clean_page(page, preparation.html, filters, edits)
            entry = write_entry(result, size, edits)
            log.append(entry)
            note(entry)
            pulse.counts(size, isinstance(result, Rejected))
    statistics.reject_records(task.source.rejections)
    with (place / KEYS).open("wb") as file:
        np.savez(file, **keys.close())
    return statistics.to_json()


def clean_page(page: Page, html: HtmlConfig, filters: Filters, edits: Counter[str]) -> Document | Rejected:
    """The document in a page, or why there is none. What the filters edit is counted in `edits`."""
    with survive(page.url) as faults:
        document = strip_html(page, html)
        if isinstance(document, Document):
            document = filters(document, edits)
        return document
    return faults[0]
