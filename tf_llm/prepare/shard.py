"""The unit of work: one stage of one part of a corpus. Everything else is about where and when it is carried out.

    stage    makes of one part                        of what
    "read"   documents.jsonl, keys of duplicates      the pages of the source
    "count"  counts.json, kept.npy                    its documents, and what the whole corpus says of duplicates
    "encode" *.ids, residual.json                     the documents that are kept, and the tokenizer

`process_shard` is idempotent and atomic. What a stage makes lies in a folder of its own, `parts/00017/read/`, which
appears whole, with statistics.json in it, or not at all: its being there is the mark that it is done. A part may be
begun again after a crash, on another machine, or on two at once, and the bytes are the same. So a driver needs no more
than to see to it that every part is processed (local.py on this machine, spark.py on many).
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from tf_llm.files import lock_folder, write_atomically
from tf_llm.prepare.count import count_words
from tf_llm.prepare.encode import encode_documents
from tf_llm.prepare.pulse import Faults, Pulse
from tf_llm.prepare.read import read_pages
from tf_llm.prepare.task import STATISTICS, Task, load_statistics, publish

STAGES = {"read": read_pages, "count": count_words, "encode": encode_documents}


def process_shard(task: Task, pulse: Pulse | None = None, faults: Faults | None = None) -> dict[str, Any]:
    """Does one stage of one part, unless it is done already. Returns its statistics.

    Args:
        task: what to do.
        pulse: is told of every page or document, see worker.py.
        faults: what ended the workers that were at this task before.

    Raises:
        OSError: the disk is full.
        UserError: what the source raises: a network that fails for good.
    """
    place = task.place(task.stage)
    partial = place.with_name(f"{task.stage}{task.attempt}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with lock_folder(partial.parent) if not task.attempt else contextlib.nullcontext():
        if place.exists():
            return load_statistics(place)
        partial.mkdir(exist_ok=True)
        statistics = STAGES[task.stage](task, partial, pulse or Pulse(), faults or {})
        write_atomically(partial / STATISTICS, json.dumps(statistics).encode())
        publish(partial, place)
    return load_statistics(place)
