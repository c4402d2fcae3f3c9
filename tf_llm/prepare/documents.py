"""The documents of one part on the disk, between the stages: a log, a line of JSON for each page, in their order.

    {"url": "https://a.example/", "text": "Green tea.", "languages": ["eng"], "bytes": 5120, "edits": {"phone": 1}}
    {"url": "https://b.example/", "reason": "no text", "detail": "", "bytes": 301}

Every line is written as a whole before the next page is begun, so the log says how far a worker came that was killed:
as many lines, as many pages. A line that was cut is cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tf_llm.contracts import Document, Rejected

DOCUMENTS = "documents.jsonl"


class DocumentLog:
    """A log that is written, or goes on.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with DocumentLog(Path(folder)) as log:
    ...         log.append(write_entry(Document("http://a.example/", "Tea."), 12))
    ...     _ = Path(folder, DOCUMENTS).open("a").write('{"url": "http')
    ...     with DocumentLog(Path(folder)) as log:
    ...         [entry["url"] for entry in log.replay()]
    ['http://a.example/']
    """

    def __init__(self, folder: Path):
        self._file = (folder / DOCUMENTS).open("a+b", buffering=0)

    def __enter__(self) -> DocumentLog:
        return self

    def __exit__(self, *_) -> None:
        os.fsync(self._file.fileno())
        self._file.close()

    def replay(self) -> Iterator[dict[str, Any]]:
        """What is in the log already. What is not sound at its end, of a write that was cut, is removed."""
        sound = 0
        with Path(self._file.name).open("rb") as lines:
            for line in lines:
                try:
                    entry = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    entry = None
                if entry is None:
                    break
                sound += len(line)
                yield entry
        self._file.truncate(sound)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Adds a line."""
        line = json.dumps(entry).encode() + b"\n"
        while line:
            line = line[self._file.write(line) :]


def write_entry(result: Document | Rejected, num_bytes: int, edits: Mapping[str, int] | None = None) -> dict[str, Any]:
    """What the log says of a page of so many bytes."""
    if isinstance(result, Rejected):
        return {"url": result.url, "reason": result.reason, "detail": result.detail, "bytes": num_bytes}
    entry = {"url": result.url, "text": result.text, "languages": list(result.languages), "bytes": num_bytes}
    return entry | ({"edits": dict(edits)} if edits else {})


def read_entry(entry: Mapping[str, Any]) -> Document | Rejected:
    """The page of an entry."""
    if "reason" in entry:
        return Rejected(entry["url"], entry["reason"], entry["detail"])
    return Document(entry["url"], entry["text"], tuple(entry["languages"]))


def load_documents(folder: Path) -> Iterator[Document]:
    """The documents of a finished log, rejected pages left out."""
    with (folder / DOCUMENTS).open("rb") as lines:
        for line in lines:
            document = read_entry(json.loads(line))
            if isinstance(document, Document):
                yield document
