"""Stage "encode": the documents of a part that are kept become token ids in shards, with the price of all else.

What the ids leave out of a text (stop words, rare words, capitals) is priced by how often the training texts had it
(text/residual.py). A part can only count it; the prices are made of the counts of all parts.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

from tf_llm.data.shards import SPLITS, ShardWriter, split_of
from tf_llm.prepare.count import load_kept
from tf_llm.prepare.pulse import Faults, Pulse
from tf_llm.prepare.task import Task, follow, survive
from tf_llm.text.residual import Tally, UnigramCoder
from tf_llm.text.tokenizers import load_tokenizer

TOKENIZER, RESIDUAL = "tokenizer.json", "residual.json"
# The prices are learned from so much training text of the whole corpus: they converge early, and counting takes longer
# than all the rest of this stage.
PRICED_BYTES = 1_000_000


def encode_documents(task: Task, place: Path, pulse: Pulse, faults: Faults) -> dict[str, Any]:
    """Writes the shards of a part, and what is to be priced. Returns what each split adds up to."""
    config = task.preparation.shards
    coder = UnigramCoder(load_tokenizer(str(Path(task.folder) / TOKENIZER)))
    writers = {split: ShardWriter(place, split, config, coder.tokenizer.vocabulary_size) for split in SPLITS}
    residual = {split: Tally(coder) for split in SPLITS}
    lost: Counter[str] = Counter()
    for document, fault in follow(load_kept(task.folder, task.number, task.preparation), pulse, faults, "documents"):
        if not fault:
            with survive(document.url) as mishaps:
                split = split_of(document.url, config.validation_fraction)
                ids = coder.tokenizer.encode(document.text)
                if split == "validation" or is_sampled(document.url, task.priced_fraction):
                    residual[split].add(document.text)
            fault = mishaps[0] if mishaps else None
        pulse.counts(0, fault is not None)
        if fault:
            lost[fault.reason] += 1
            continue
        writers[split].add(ids, len(document.text.encode("utf-8", "surrogatepass")))
    counts = {split: tally.counts() for split, tally in residual.items()}
    (place / RESIDUAL).write_text(json.dumps(counts), encoding="utf-8")
    splits = {split: dataclasses.asdict(writer.close()) for split, writer in writers.items()}
    return {"rejected": dict(lost), "splits": splits}


def is_sampled(url: str, fraction: float) -> bool:
    """Whether a training page teaches the coder its prices; its address alone decides."""
    return split_of(f"{url} priced", fraction) == "validation"
