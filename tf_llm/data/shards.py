"""Token shards: documents as blocks of token ids on disk, behind a manifest that can prove them whole.

A shard is a file of fixed-length blocks, raw little-endian integers and nothing else, so that block n of a shard is a
slice of bytes. A page's ids, ended by END_ID, are cut into windows of `block_length`, each of which begins with the
last `overlap` ids of the window before, as context; the first begins with padding and END_ID ("what came before has
ended"), the last is filled up with padding. So every id of a page stands behind the overlap exactly once, and a pass
over all blocks scores every word once.

    ids 5 6 7 8 9, block_length 5, overlap 2   ->   [0 1 | 5 6 7] [6 7 | 8 9 1]

An objective that masks words wants full windows more than it wants their beginnings. With `joined`, the pages of the
training split become one stream, each still ended by END_ID, and that is cut into windows that share nothing; only the
last one of all is filled up. The validation split stays as it is, since every word of it is to be scored in its page.

Folder layout: `train-00000.ids`, …, `validation-00000.ids`, …, `tokenizer.json`, and `manifest.json`, written last:
a folder without it is unfinished and is refused.
"""

import dataclasses
import hashlib
import json
import zlib
from pathlib import Path

import numpy as np

from tf_llm.contracts import END_ID, PAD_ID, UserError
from tf_llm.files import write_atomically

MANIFEST = "manifest.json"
FORMAT = 1  # of the folder; a change that older code would misread takes the next number
SPLITS = ("train", "validation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """How token ids lie on disk."""

    block_length: int = 128  # ids in a block, context included
    overlap: int = 64  # ids at the head of a block that repeat the tail of the one before; 0 for pairs of texts
    joined: bool = False  # training windows run on over the ends of pages and are always full, as T5's
    blocks_per_shard: int = 8192  # a matter of taste: batches do not depend on it
    validation_fraction: float = 0.02  # of pages, chosen by the hash of their address
    parts: int = 0  # of the corpus, prepared one by one; 0: one for each file of the source, but two at least

    def __post_init__(self):
        if not 0 <= self.overlap < self.block_length:
            raise ValueError(
                f"overlap is expected in [0, block_length). Received: overlap={self.overlap}, "
                f"block_length={self.block_length}"
            )
        if self.blocks_per_shard < 1:
            raise ValueError(f"blocks_per_shard is expected to be at least 1. Received: {self.blocks_per_shard}")
        if self.parts < 0:
            raise ValueError(f"parts is expected to be at least 0. Received: {self.parts}")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"validation_fraction is expected in (0, 1). Received: {self.validation_fraction}")


@dataclasses.dataclass(frozen=True)
class Split:
    """The shards of one split and what they add up to."""

    files: tuple[dict, ...] = ()  # {"name", "blocks", "sha256"} each
    pages: int = 0
    blocks: int = 0
    tokens: int = 0  # targets: kept words, and one END_ID a page (or pair)
    text_bytes: int = 0  # UTF-8 bytes of the extracted text of these pages
    residual_nats: float = 0.0  # what it costs to write down all that the recipe threw away of them


def split_of(url, validation_fraction):
    """Which split a page belongs to: a pure function of its address, so that no page is ever in both.

    >>> split_of("https://example.org/", 1e-9)
    'train'
    """
    return "validation" if zlib.crc32(url.encode("utf-8", "surrogatepass")) < validation_fraction * 2**32 else "train"


def cut_blocks(ids, config):
    """Cuts the ids of one page, and END_ID behind them, into blocks: list of int -> int32 [blocks, block_length].

    >>> cut_blocks([5, 6, 7, 8, 9], ShardConfig(block_length=5, overlap=2)).tolist()
    [[0, 1, 5, 6, 7], [6, 7, 8, 9, 1]]
    """
    stride = config.block_length - config.overlap
    before = config.overlap  # PAD_ID, and last END_ID, in front of the page
    stream = np.full(before + len(ids) + 1 + -(len(ids) + 1) % stride, PAD_ID, "int32")
    stream[before - 1 : before] = END_ID
    stream[before : before + len(ids)] = ids
    stream[before + len(ids)] = END_ID
    return np.lib.stride_tricks.sliding_window_view(stream, config.block_length)[::stride]


class ShardWriter:
    """Writes the shards of one split; each file appears whole under its name, or not at all.

    Args:
        folder: where to; it exists.
        split: "train" or "validation".
        config: a `ShardConfig`.
        vocabulary_size: ids are below it; up to 65,536 an id takes 2 bytes, else 4.
    """

    def __init__(self, folder, split, config, vocabulary_size):
        self.folder, self.split, self.config = Path(folder), split, config
        self.vocabulary_size, self.dtype = vocabulary_size, id_dtype(vocabulary_size)
        self.total = Split()
        self._buffer, self._buffered = [], 0
        self._is_joined = config.joined and split == "train"
        self._rest = np.zeros(0, "int32")  # of the stream of joined pages, too short for a window

    def add(self, ids, text_bytes=0, residual_nats=0.0):
        """Adds one page: its ids, the UTF-8 bytes of its text, and the cost of what the ids leave out of it.

        Raises ValueError for an id that is padding or not of the vocabulary: it would be read back as another one.
        """
        ids = np.asarray(ids, "int64")
        lowest, highest = (ids.min(), ids.max()) if ids.size else (END_ID, END_ID)
        if lowest <= PAD_ID or highest >= self.vocabulary_size:
            raise ValueError(
                f"ids are expected in [{PAD_ID + 1}, {self.vocabulary_size}). Received: {lowest} to {highest}"
            )
        blocks = self._join(ids) if self._is_joined else cut_blocks(ids, self.config)
        self.add_blocks(blocks, 1, len(ids) + 1, text_bytes, residual_nats)

    def add_blocks(self, blocks, pages, tokens, text_bytes=0, residual_nats=0.0):
        """Adds blocks that are cut already, int [n, block_length], and what they add to the `Split`."""
        self._buffer.append(blocks.astype(self.dtype))
        self._buffered += len(blocks)
        self.total = dataclasses.replace(
            self.total,
            pages=self.total.pages + pages,
            blocks=self.total.blocks + len(blocks),
            tokens=self.total.tokens + tokens,
            text_bytes=self.total.text_bytes + text_bytes,
            residual_nats=self.total.residual_nats + residual_nats,
        )
        while self._buffered >= self.config.blocks_per_shard:
            self._flush(self.config.blocks_per_shard)

    def close(self):
        """Writes what is left, and returns the `Split`."""
        if len(self._rest):
            last = np.pad(self._rest, [0, self.config.block_length - len(self._rest)])
            self.add_blocks(last[np.newaxis], pages=0, tokens=0)
            self._rest = self._rest[:0]
        if self._buffered:
            self._flush(self._buffered)
        return self.total

    def _join(self, ids):
        """The windows that a page fills, [n, block_length], when it follows the pages before it."""
        length = self.config.block_length
        stream = np.concatenate([self._rest, ids, [END_ID]]).astype("int32")
        end = len(stream) // length * length
        self._rest = stream[end:]
        return stream[:end].reshape(-1, length)  # [n, L]

    def _flush(self, count):
        blocks = np.concatenate(self._buffer)
        content = blocks[:count].tobytes()
        self._buffer, self._buffered = [blocks[count:]], len(blocks) - count
        name = f"{self.split}-{len(self.total.files):05d}.ids"
        write_atomically(self.folder / name, content)
        entry = {"name": name, "blocks": count, "sha256": hashlib.sha256(content).hexdigest()}
        self.total = dataclasses.replace(self.total, files=(*self.total.files, entry))


def id_dtype(vocabulary_size):
    """The narrowest little-endian integer that holds every id."""
    return np.dtype("<u2") if vocabulary_size <= 2**16 else np.dtype("<i4")


@dataclasses.dataclass(frozen=True)
class Shards:
    """A finished folder of shards, as its manifest describes it."""

    folder: Path
    config: ShardConfig
    vocabulary_size: int
    train: Split
    validation: Split
    about: dict  # how it was made: source, tokeniser, counts per step, rejections, versions, seconds
    others: tuple[Path, ...] = ()  # folders whose shards were joined to these (join.py)

    def split(self, name):
        """The `Split` of that name."""
        if name not in SPLITS:
            raise ValueError(f"split is expected to be one of {list(SPLITS)}. Received: {name!r}")
        return getattr(self, name)

    @property
    def folders(self):
        """Where all of them lie."""
        return self.folder, *self.others

    @property
    def fingerprint(self):
        """What tells this corpus from others: a digest of all its blocks in their order, wherever they lie."""
        digests = [[entry["sha256"] for entry in self.split(name).files] for name in SPLITS]
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def verify(self):
        """Compares every file with its sha256 in the manifest. Raises UserError on the first difference."""
        for entry in (*self.train.files, *self.validation.files):
            path = self.folder / entry["name"]
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "(no file)"
            if digest != entry["sha256"]:
                raise UserError(
                    f"{path} is not the file that was written: expected sha256 {entry['sha256'][:12]}…, received "
                    f"{digest[:12]}…; delete {path.parent} and prepare it again"
                )


def write_manifest(folder, config, vocabulary_size, train, validation, about):
    """Finishes a folder of shards: from here on `load_shards` takes it. `about` is whatever JSON can hold."""
    manifest = {
        "format": FORMAT,
        "config": dataclasses.asdict(config),
        "vocabulary_size": vocabulary_size,
        "train": dataclasses.asdict(train),
        "validation": dataclasses.asdict(validation),
        "about": about,
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    write_atomically(Path(folder) / MANIFEST, text.encode("utf-8", "surrogatepass"))  # file names may be no Unicode


def load_shards(folder):
    """Reads the manifest of a folder of shards and checks that the files have the sizes it names.

    Raises:
        UserError: no folder, no manifest (preparing did not finish), one that is damaged or of another version, or a
            file that is missing, short or long.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] != FORMAT:
            raise UserError(
                f"{path} is of another version: expected format {FORMAT}, received {manifest['format']}; delete the "
                "folder and prepare it again"
            )
        config = ShardConfig(**manifest["config"])
        splits = [_read_split(manifest[name]) for name in SPLITS]
        shards = Shards(folder, config, manifest["vocabulary_size"], *splits, manifest["about"])
        width = id_dtype(shards.vocabulary_size).itemsize * config.block_length
        sizes = {entry["name"]: entry["blocks"] * width for split in splits for entry in split.files}
    except OSError as error:
        raise UserError(
            f"{folder} holds no finished shards: expected {MANIFEST}, received {error.strerror}; prepare them first"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); delete the folder and prepare it again") from error
    for name, expected in sizes.items():
        size = (folder / name).stat().st_size if (folder / name).exists() else None
        if size != expected:
            received = "no such file" if size is None else f"{size} bytes"
            raise UserError(
                f"{folder / name} is expected to have {expected} bytes, received {received}; "
                f"delete {folder} and prepare it again"
            )
    return shards


def _read_split(entry):
    files = tuple({key: file[key] for key in ("name", "blocks", "sha256")} for file in entry["files"])
    return Split(**(entry | {"files": files}))
