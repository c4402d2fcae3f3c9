"""Pairs of a source text and a target text: how they are stored, and how rows are made of them.

A block holds `source ids END_ID target ids END_ID` once, or, packed, as often as fits, and then padding: up to S ids of
sources and T of targets, each with their END_ID. So whether an END_ID stands in front of an id an even or an odd number
of times tells its side, and half of that number its pair.

    (5 6 -> 7) and (8 -> 9), S = 5, T = 4   ->   5 6 1 7 1 8 1 9 1

`write_pairs` makes a folder of shards from texts, which `load_shards` and the pipeline read like any other; `Pairs` is
the objective.

Glossary: L block length, S source length, T target length (L = S + T).
"""

import itertools
import platform
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_llm.contracts import (
    DECODER_IDS,
    DECODER_POSITIONS,
    DECODER_SEGMENTS,
    END_ID,
    PAD_ID,
    SOURCE_POSITIONS,
    SOURCE_SEGMENTS,
    START_ID,
    UserError,
)
from tf_llm.data.rows import build_row, move_to_front
from tf_llm.data.shards import SPLITS, ShardConfig, ShardWriter, load_shards, split_of, write_manifest

BUFFER = 4096  # pairs that are packed together: more pack a little tighter, and take longer
TOKENIZER = "tokenizer.json"


class Pairs:
    """The encoder reads a source text, the decoder says its target; both end with END_ID, as in T5.

    Args:
        source_length, target_length: S and T.
        packed: whether a block may hold several pairs. Then the row has four more columns: the pairs are numbered from
            1, on padding stands 0, and positions begin at 0 with each. The decoder begins each with START_ID. Without
            it the first pair alone is taken.

    Call: (block int32 [S + T], seed int32 [2], unused) -> a row, see `build_row`, with `source_segments` and
    `source_positions` int32 [S], `decoder_segments` and `decoder_positions` int32 [T] where it is packed.

    >>> row = Pairs(6, 5, packed=True)(tf.constant([5, 6, 1, 7, 1, 8, 1, 9, 1, 0, 0]), tf.constant([0, 0]))
    >>> for name, column in row.items():
    ...     print(f"{name:17}", *column.numpy().astype(int))
    source_ids        5 6 1 8 1 0
    decoder_ids       0 7 0 9 0
    target_ids        7 1 9 1 0
    weights           1 1 1 1 0
    source_segments   1 1 1 2 2 0
    source_positions  0 1 2 0 1 0
    decoder_segments  1 1 2 2 0
    decoder_positions 0 1 0 1 0
    """

    def __init__(self, source_length, target_length, packed=False):
        self.source_length, self.target_length, self.packed = source_length, target_length, packed

    def __call__(self, block, seed):
        length = self.source_length + self.target_length
        if block.shape[0] != length:
            raise ValueError(
                f"a block is expected to have source_length + target_length = {self.source_length} + "
                f"{self.target_length} ids. Received: {block.shape[0]}"
            )
        part = tf.cumsum(tf.cast(block == END_ID, tf.int32), exclusive=True)  # 0 source, 1 target, 2 the next source …
        pair = part // 2 + 1
        held = (block != PAD_ID) if self.packed else (block != PAD_ID) & (pair == 1)
        first = tf.math.unsorted_segment_min(tf.range(length), part, length)  # of each part
        position = tf.range(length) - tf.gather(first, part)

        def collect(column, side):
            return move_to_front(column, held & (part % 2 == side), (self.source_length, self.target_length)[side])

        row = build_row(collect(block, 0), collect(block, 1))
        if self.packed:
            row[SOURCE_SEGMENTS], row[SOURCE_POSITIONS] = collect(pair, 0), collect(position, 0)
            row[DECODER_SEGMENTS], row[DECODER_POSITIONS] = collect(pair, 1), collect(position, 1)
            row[DECODER_IDS] = tf.where(row[DECODER_POSITIONS] == 0, START_ID, row[DECODER_IDS])
        return row


def pack_pairs(pairs, source_length, target_length, packed=False, counts=None):
    """Pairs of ids as blocks: iterable of (source ids, target ids) -> int32 [blocks, S + T].

    A part that is too long is cut, and ends with END_ID nonetheless. Packing is first-fit-decreasing: of every BUFFER
    pairs the longest come first, and each goes into the first block that has room for both of its parts. The same pairs
    make the same blocks.

    Args:
        pairs: without END_ID and padding in their ids.
        source_length, target_length: S and T, at least 1.
        packed: whether a block may hold several pairs.
        counts: a Counter to which "sources cut" and "targets cut" are added.

    Raises:
        ValueError: an id is padding or END_ID, which would end the text early.

    >>> pack_pairs([([5, 6], [7]), ([8], [9])], 5, 4, packed=True).tolist()
    [[5, 6, 1, 7, 1, 8, 1, 9, 1]]
    """
    counts, pairs, blocks = Counter() if counts is None else counts, iter(pairs), []
    lengths = source_length, target_length
    while buffer := [_end_pair(pair, lengths, counts) for pair in itertools.islice(pairs, BUFFER)]:
        rows = _fit(buffer, lengths) if packed else [[pair] for pair in buffer]
        blocks.append(np.zeros((len(rows), source_length + target_length), "int32"))
        for block, row in zip(blocks[-1], rows, strict=True):
            ids = [id for pair in row for part in pair for id in part]
            block[: len(ids)] = ids
    return np.concatenate(blocks) if blocks else np.zeros((0, source_length + target_length), "int32")


def _end_pair(pair, lengths, counts):
    """Both parts of a pair, cut to their lengths and ended."""
    ended = []
    for side, part, length in zip(("sources", "targets"), pair, lengths, strict=True):
        if min(part, default=END_ID + 1) <= END_ID:
            raise ValueError(f"ids of a pair are expected above {END_ID}, the end of a text. Received: {min(part)}")
        counts[f"{side} cut"] += len(part) >= length
        ended.append([*part[: length - 1], END_ID])
    return ended


def _fit(pairs, lengths):
    """First-fit-decreasing: pairs by rows."""
    sizes = np.array([[len(part) for part in pair] for pair in pairs])  # [pairs, 2]
    order = np.argsort(-(sizes / lengths).max(axis=1), kind="stable")  # what takes most of its room first
    room, rows = np.tile(np.array(lengths), (len(pairs), 1)), []
    for number in order:
        fits = np.all(room[: len(rows) + 1] >= sizes[number], axis=1)  # the last one is a row that is empty yet
        row = int(np.argmax(fits))
        if row == len(rows):
            rows.append([])
        rows[row].append(pairs[number])
        room[row] -= sizes[number]
    return rows


def write_pairs(
    pairs,
    tokenizer,
    folder,
    source_length,
    target_length,
    packed=False,
    validation_fraction=0.05,
    source="pairs of texts",
):
    """Writes a finished folder of shards of pairs of texts, whole or not at all.

    A pair's split is decided by its source text, so that no source is in both. A pair of which the tokenizer leaves
    nothing on one side is rejected and counted. Bits per byte count the bytes of the target texts (of one that is cut,
    in proportion); what the tokenizer removes of them is not priced.

    Args:
        pairs: iterable of (source text, target text).
        tokenizer: a `Tokenizer`; saved as tokenizer.json in the folder.
        folder: where to; it must not be there yet.
        source_length, target_length: S and T, END_ID included.
        packed: whether a block may hold several pairs.
        validation_fraction: of the source texts.
        source: what the report calls the pairs.

    Returns:
        The `Shards`, blocks of S + T without an overlap.

    Raises:
        UserError: the folder is there already, no training pair is left, or there is no room on the disk.

    >>> write_pairs([("2 + 3", "5"), ("2 + 4", "6")], tokenizer, "sums", 64, 16, packed=True)  # doctest: +SKIP
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(
            f"expected a folder that is not there yet. Received: {folder}. Remove it, or choose another one"
        )
    partial = folder.with_name(f"{folder.name}.partial")
    config = ShardConfig(block_length=source_length + target_length, overlap=0, validation_fraction=validation_fraction)
    settings = {
        "source": source,
        "source_length": source_length,
        "target_length": target_length,
        "packed": packed,
        "validation_fraction": validation_fraction,
    }
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir(parents=True)
        _write_shards(pairs, tokenizer, partial, config, settings)
        partial.rename(folder)
    except OSError as error:
        raise UserError(
            f"expected a folder that can be written at {folder}. Received: {error}. Make room, or choose another one"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return load_shards(folder)


def _write_shards(pairs, tokenizer, folder, config, settings):
    begin, lengths = time.perf_counter(), (settings["source_length"], settings["target_length"])
    writers = {split: ShardWriter(folder, split, config, tokenizer.vocabulary_size) for split in SPLITS}
    buffers, steps, rejections = {split: [] for split in SPLITS}, Counter(pairs=0), Counter()

    def flush(split):
        blocks = pack_pairs([ids for ids, _ in buffers[split]], *lengths, settings["packed"], steps)
        tokens = sum(min(len(target) + 1, lengths[1]) for (_, target), _ in buffers[split])
        size = sum(size for _, size in buffers[split])
        writers[split].add_blocks(blocks, pages=len(buffers[split]), tokens=tokens, text_bytes=size)
        buffers[split].clear()

    for texts in pairs:
        ids = [tokenizer.encode(text) for text in texts]
        if empty := [side for side, part in zip(("source", "target"), ids, strict=True) if not part]:
            rejections[f"no words left in the {empty[0]}"] += 1
            continue
        steps["pairs"] += 1
        size = len(texts[1].encode("utf-8", "surrogatepass"))
        size = round(size * min(1.0, (lengths[1] - 1) / len(ids[1])))  # of what is left where it is cut
        split = split_of(texts[0], config.validation_fraction)
        buffers[split].append((ids, size))
        if len(buffers[split]) == BUFFER:
            flush(split)
    for split in SPLITS:
        flush(split)
    train, validation = (writers[split].close() for split in SPLITS)
    if not train.pages:
        received = ", ".join(f"{count} × {reason}" for reason, count in rejections.most_common(2)) or "none rejected"
        raise UserError(
            f"expected pairs to train on. Received: {validation.pages} of the validation split, {received}. Take more"
        )
    steps["rows"] = train.blocks + validation.blocks
    about = {
        "settings": settings,
        "stop_words": "as the tokenizer has them",
        "steps": dict(steps),
        "rejections": dict(rejections.most_common()),
        "versions": {"python": platform.python_version()},
        "seconds": {"writing": round(time.perf_counter() - begin, 2)},
    }
    tokenizer.save(str(folder / TOKENIZER))
    write_manifest(folder, config, tokenizer.vocabulary_size, train, validation, about)
