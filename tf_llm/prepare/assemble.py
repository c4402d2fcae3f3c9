"""The end of a preparation: the parts become one folder of shards, with its manifest, its statistics and its report."""

from __future__ import annotations

import dataclasses
import json
import logging
import platform
import shutil
from collections import Counter
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tf_llm.data.shards import SPLITS, Split, write_manifest
from tf_llm.files import write_atomically
from tf_llm.prepare.encode import RESIDUAL, TOKENIZER
from tf_llm.prepare.report import write_report
from tf_llm.prepare.statistics import describe_vocabulary, list_top, merge_statistics
from tf_llm.prepare.task import STATISTICS, Preparation, place_of
from tf_llm.text.duplicates import REASONS
from tf_llm.text.residual import UnigramCoder
from tf_llm.text.tokenizers import load_tokenizer
from tf_llm.text.words import count_rare_words

logger = logging.getLogger(__name__)

SHARDS = "shards"


@dataclasses.dataclass
class Gathered:
    """What the parts have found, put together."""

    statistics: dict[str, Any]  # of the stages "read" and "count"
    encoded: list[dict[str, Any]]  # what "encode" says of each part
    counts: Counter[str]  # word -> occurrences in training documents
    repeated_lines: int
    seconds: dict[str, float]  # stage -> seconds that it took, in this process


def finish(folder: Path, preparation: Preparation, settings: dict[str, Any], gathered: Gathered) -> None:
    """Makes the folder `SHARDS` in the folder of a preparation, whole but for its name."""
    shards = folder / SHARDS
    shutil.rmtree(shards, ignore_errors=True)  # of a run that was killed here: it may hold files with half a name
    shards.mkdir()
    link(folder / TOKENIZER, shards / TOKENIZER)
    coder = UnigramCoder(load_tokenizer(str(folder / TOKENIZER)))
    train, validation = join_splits(folder, gathered.encoded, coder)
    vocabulary, noun = coder.tokenizer.vocabulary, preparation.builder.noun
    rejections = merge_statistics([gathered.statistics, *({"rejected": each["rejected"]} for each in gathered.encoded)])
    rejections = dict(Counter(rejections["rejected"]).most_common())
    versions = {"python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in ("nltk", "sentencepiece")}
    about = {
        "settings": settings,
        "stop_words": preparation.builder.origin,
        "steps": list_steps(gathered, noun, vocabulary),
        "rejections": rejections,
        "versions": versions,
        "seconds": gathered.seconds,
    }
    statistics = gathered.statistics | {
        "source": settings["source"],
        "settings": {name: value for name, value in settings.items() if isinstance(value, dict)},
        "versions": versions,
        "rejected": rejections,
        "duplicates": {reason: rejections.get(reason, 0) for reason in REASONS} | {"lines": gathered.repeated_lines},
        "tokens": {"train": train.tokens, "validation": validation.tokens},
        "parts": len(gathered.encoded),
        "seconds": gathered.seconds,
        "per_second": {
            "pages": gathered.statistics["pages"] / max(gathered.seconds["read"], 0.01),
            "MB of HTML": gathered.statistics["html_bytes"] / 1e6 / max(gathered.seconds["read"], 0.01),
        },
    }
    if gathered.counts:
        minimum = settings["words"]["minimum_count"]
        statistics["vocabulary"] = describe_vocabulary(noun, gathered.counts, len(vocabulary), minimum)
        stop_words = Counter(statistics.pop("stop_words"))
        statistics["top_before"] = list_top(leave_signs_out(gathered.counts | stop_words))  # no word is in both
        statistics["top_after"] = list_top(leave_signs_out({word: gathered.counts[word] for word in vocabulary}))
    write_atomically(shards / STATISTICS, json.dumps(statistics, indent=1).encode())
    write_report(shards, statistics)
    write_manifest(shards, preparation.shards, coder.tokenizer.vocabulary_size, train, validation, about)
    total = sum(gathered.seconds.values())
    logger.info("prepared %s tokens of %s pages in %.1f s", f"{train.tokens:,}", f"{train.pages:,}", total)


def leave_signs_out(counts: Mapping[str, int]) -> dict[str, int]:
    """Those that have a letter or a digit: full stops and commas lead every list."""
    return {word: count for word, count in counts.items() if word.isalnum() or any(map(str.isalnum, word))}


def list_steps(gathered: Gathered, noun: str, vocabulary: list[str]) -> dict[str, int]:
    """What each of the article's steps kept and removed, by name."""
    statistics, counts = gathered.statistics, gathered.counts
    steps = {
        "pages": statistics["documents"],
        "bytes of HTML": statistics["html_bytes"],
        "bytes of text": statistics["text_bytes"],
        **statistics["removed"],
        f"kinds of {noun} kept": len(vocabulary),
    }
    if counts:
        steps[f"{noun} kept"] = statistics["kept"]
        steps[f"kinds of {noun} removed as rare"] = len(counts) - len(vocabulary)
        steps[f"rare {noun} in training pages"] = count_rare_words(counts, vocabulary)
    return steps


def join_splits(folder: Path, encoded: list[dict[str, Any]], coder: UnigramCoder) -> list[Split]:
    """Gives the shards of all parts their names in one folder, adds up what they hold, and prices what they left out.

    Returns the `Split` of training and that of validation.
    """
    residual: dict[str, Counter[str]] = {}
    totals = {split: Split() for split in SPLITS}
    for part, statistics in enumerate(encoded):
        place = place_of(folder, part, "encode")
        left_out = json.loads((place / RESIDUAL).read_bytes())
        coder.merge(left_out["train"])
        for stream, symbols in left_out["validation"].items():
            residual.setdefault(stream, Counter()).update(symbols)
        for split, added in statistics["splits"].items():
            files = [
                entry | {"name": f"{split}-{number:05d}.ids"}
                for number, entry in enumerate(added["files"], start=len(totals[split].files))
            ]
            for entry, renamed in zip(added["files"], files, strict=True):
                link(place / entry["name"], folder / SHARDS / renamed["name"])
            numbers = {name: getattr(totals[split], name) + added[name] for name in added if name != "files"}
            totals[split] = Split(files=totals[split].files + tuple(files), **numbers)
    totals["validation"] = dataclasses.replace(totals["validation"], residual_nats=sum(coder.price(residual).values()))
    return [totals[split] for split in SPLITS]


def link(file: Path, name: Path) -> None:
    """Another name for a file, or a copy where the disk knows no such thing."""
    name.unlink(missing_ok=True)
    try:
        name.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, name)
