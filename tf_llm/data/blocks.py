"""Blocks of token ids, read where they lie on disk: the few that are asked for, or all, piece by piece.

A block is a slice of bytes of a shard, found by arithmetic. So a corpus of any size needs no memory of this process but
for the blocks it has in hand: what was read lies in the page cache of the operating system, as far as there is room.

Glossary: L block length.
"""

import numpy as np

from tf_llm.contracts import UserError
from tf_llm.data.shards import id_dtype

PIECE_BYTES = 2**24  # of a split that is read from beginning to end


class StoredBlocks:
    """The blocks of one split, as if they were rows of an array.

    A file is opened for each reading and not kept open: that costs less than the reading, and however many shards there
    are, no process runs out of open files. A memory map would be no faster, and a process would seem to grow with
    all that it ever read.

    Args:
        shards: a `Shards`.
        split: "train" or "validation".
    """

    def __init__(self, shards, split):
        files, self.tokens = shards.split(split).files, shards.split(split).tokens
        self.dtype, self.block_length = id_dtype(shards.vocabulary_size), shards.config.block_length
        self.block_bytes = self.block_length * self.dtype.itemsize
        self._paths = [shards.folder / entry["name"] for entry in files]
        self._ends = np.cumsum([entry["blocks"] for entry in files], dtype="int64")  # the number after a file's last

    def __len__(self):
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def total_bytes(self):
        """What all of them take."""
        return len(self) * self.block_bytes

    def spread(self, max_tokens=None):
        """The numbers of blocks that hold about so many tokens, spread evenly over the split: a range; None: of all."""
        return range(0, len(self), -(-self.tokens // max_tokens) if max_tokens else 1)

    def read(self, numbers):
        """The blocks of these numbers, int64 [n] -> ids [n, L]. Each file is opened once and read in its own order.

        Raises UserError where a file is gone, or became shorter than its manifest says.
        """
        blocks = np.empty((len(numbers), self.block_length), self.dtype)
        order = np.argsort(numbers)
        ordered = numbers[order]
        files = np.searchsorted(self._ends, ordered, side="right")
        cuts = np.flatnonzero(np.diff(files)) + 1  # where another file begins
        for rows in np.split(np.arange(len(numbers)), cuts) if len(numbers) else ():
            file = files[rows[0]]
            begin = self._ends[file - 1] if file else 0
            offsets = (ordered[rows] - begin) * self.block_bytes
            self._fill(self._paths[file], offsets.tolist(), [blocks[row] for row in order[rows]])
        return blocks

    def read_pieces(self):
        """Yields all blocks in the order they were written, some megabytes at a time: ids [n, L]."""
        size = max(PIECE_BYTES // self.block_bytes, 1)
        for path, count in zip(self._paths, np.diff(self._ends, prepend=0).tolist(), strict=True):
            for begin in range(0, count, size):
                piece = np.empty((min(size, count - begin), self.block_length), self.dtype)
                self._fill(path, [begin * self.block_bytes], [piece])
                yield piece

    def _fill(self, path, offsets, arrays):
        """Fills each array with what stands at its offset in a file."""
        try:
            with path.open("rb", buffering=0) as file:
                for offset, array in zip(offsets, arrays, strict=True):
                    file.seek(offset)
                    if file.readinto(array) != array.nbytes:
                        raise EOFError(f"its end before {offset + array.nbytes:,} bytes")
        except (OSError, EOFError) as error:
            raise UserError(
                f"expected the shard {path} as its manifest describes it. Received: {error}. Shards have to stay where "
                "they are as long as they are read; prepare them again if they are damaged"
            ) from error


def read_blocks(shards, split, max_tokens=None):
    """All blocks of a split in memory, in the order they were written: ids [blocks, L], as they lie on disk.

    With `max_tokens`, those that hold about so many tokens at most, spread evenly over the split.
    """
    stored = StoredBlocks(shards, split)
    numbers = stored.spread(max_tokens)
    if len(numbers) < len(stored):
        return stored.read(np.array(numbers, "int64"))
    blocks, end = np.empty((len(stored), stored.block_length), stored.dtype), 0
    for piece in stored.read_pieces():
        blocks[end : end + len(piece)] = piece
        end += len(piece)
    return blocks
