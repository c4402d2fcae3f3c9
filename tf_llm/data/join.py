"""Several folders of shards as one corpus: part 1 trains while part 2 is prepared, then training goes on with both.

The parts have to speak the same ids: part 2 is prepared with the tokenizer of part 1. Each removed its duplicates among
its own pages; what stands in both is in the corpus twice. A page's split is decided by its address, so no page that
validates in one part trains in another.
"""

import dataclasses
import hashlib

from tf_llm.contracts import UserError
from tf_llm.data.shards import SPLITS, Split

TOKENIZER = "tokenizer.json"
ALIKE = ("block_length", "overlap", "joined", "validation_fraction")  # of the parts; how blocks fill files may differ


def join_shards(parts):
    """One `Shards`, the splits of which are those of its parts, one behind the other; nothing is copied or read.

    The blocks of all parts are shuffled together, so a corpus that grew has other batches than before: a run that goes
    on with it (`train(…, allow_changes=True)`) counts its steps on, and meets in the present epoch some blocks again
    and some not at all.

    Args:
        parts: `Shards`, as `load_shards` and `prepare` return them; one or more.

    Returns:
        A `Shards` in the folder of the first part, which has its tokenizer. `about` tells each part's counts under the
        name of its folder.

    Raises:
        UserError: the parts have other tokenizers or cut their blocks otherwise, or one is there twice.
        ValueError: there are none.

    >>> shards = join_shards([load_shards("data/1"), load_shards("data/2")])  # doctest: +SKIP
    """
    if not parts:
        raise ValueError("parts is expected to hold at least one Shards. Received: none")
    first, *others = parts
    for number, other in enumerate(others, 1):
        check_alike(first, other)
        if twin := [part for part in parts[:number] if part.fingerprint == other.fingerprint]:
            raise UserError(
                f"expected parts of a corpus that differ. Received: the same shards in {twin[0].folder} and in "
                f"{other.folder}. Leave one of them out"
            )
    if not others:
        return first
    splits = {name: join_splits(name, parts) for name in SPLITS}
    return dataclasses.replace(first, **splits, about=join_abouts(parts), others=tuple(part.folder for part in others))


def check_alike(first, other):
    """Raises UserError where the ids or the blocks of two parts do not mean the same."""
    for name in ALIKE:
        one, two = getattr(first.config, name), getattr(other.config, name)
        if one != two:
            raise UserError(
                f"expected shards.{name}={one} in {other.folder}, as in {first.folder}. Received: {two}. Parts of one "
                "corpus are prepared with the same settings"
            )
    if digest_tokenizer(first) != digest_tokenizer(other) or first.vocabulary_size != other.vocabulary_size:
        raise UserError(
            f"expected in {other.folder} the tokenizer of {first.folder}. Received: another {TOKENIZER}, of "
            f"{other.vocabulary_size} ids. Prepare the later part with the tokenizer of the first"
        )


def digest_tokenizer(shards):
    """What tells the tokenizer of a folder from others. Raises UserError where there is none."""
    try:
        return hashlib.sha256((shards.folder / TOKENIZER).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(
            f"expected {TOKENIZER} in {shards.folder}. Received: {error.strerror}. Prepare it again"
        ) from error


def join_splits(name, parts):
    """The splits of that name as one. The names of its files are whole paths, which any folder leads to."""
    splits = [part.split(name) for part in parts]
    files = [
        entry | {"name": str((part.folder / entry["name"]).resolve())}
        for part in parts
        for entry in part.split(name).files
    ]
    sums = {field.name: sum(getattr(split, field.name) for split in splits) for field in dataclasses.fields(Split)[1:]}
    return Split(files=tuple(files), **sums)


def join_abouts(parts):
    """What is told of the first part; of what is counted, what is told of each."""
    about = dict(parts[0].about)
    for kind in ("steps", "rejections"):
        about[kind] = {
            f"{part.folder}: {name}": count for part in parts for name, count in part.about.get(kind, {}).items()
        }
    sources = [part.about.get("settings", {}).get("source", "") for part in parts]
    about["settings"] = about.get("settings", {}) | {"source": " + ".join(sources)}
    return about | {"parts": [part.about for part in parts]}
