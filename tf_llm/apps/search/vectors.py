"""Vectors on the disk: a file of rows to which rows are added, and nothing else is done.

Row i is float32 [D], of length 1, so that a product is a cosine. The lexical index says which document has which row;
a row that no document has counts for nothing. Hence one commit serves both: rows are written first, and what dies in
between leaves some that nobody ever asks for. Nearest are found by comparing with all: at 100,000 rows of 128 numbers
that takes 5 milliseconds on one core, is exact, needs no index that could be out of date, and no memory, since the file
is mapped.

Glossary: R rows, D width, N vectors to be added.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tf_llm.contracts import UserError

ITEM = np.dtype("<f4")


class VectorWriter:
    """Adds rows to a file. Of several processes, one at a time may.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with VectorWriter(Path(folder, "v"), 2) as writer:
    ...         writer.append(np.eye(2)), writer.append(np.ones([1, 2]))
    ...         writer.sync()
    ...     read_vectors(Path(folder, "v"), 2).round(2).tolist()
    (0, 2)
    [[1.0, 0.0], [0.0, 1.0], [0.7099999785423279, 0.7099999785423279]]
    """

    def __init__(self, path: Path, dimensions: int):
        self.path, self.dimensions = path, dimensions
        self._file = path.open("ab", buffering=0)
        self.rows = self._file.tell() // (dimensions * ITEM.itemsize)
        self._file.truncate(self.rows * dimensions * ITEM.itemsize)  # what was killed may leave half a row

    def __enter__(self) -> VectorWriter:
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def append(self, vectors: np.ndarray) -> int:
        """Adds [N, D] and returns the number of the first row. What has no direction becomes zeros, near to nothing.

        Raises:
            ValueError: they are of another shape.
            UserError: the disk is full.
        """
        vectors = np.asarray(vectors, "float32")
        if vectors.ndim != 2 or vectors.shape[1] != self.dimensions:
            raise ValueError(f"vectors are expected as [N, {self.dimensions}]. Received: {list(vectors.shape)}")
        content = memoryview(normalise(vectors).astype(ITEM).tobytes())
        try:
            while content:
                content = content[self._file.write(content) :]
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}; free some space") from error
        first, self.rows = self.rows, self.rows + len(vectors)
        return first

    def sync(self) -> None:
        """Waits until all rows are on the disk."""
        os.fsync(self._file.fileno())


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Rows [N, D] at length 1; those with no direction, or with what is no number, as zeros."""
    vectors = np.where(np.isfinite(vectors).all(axis=-1, keepdims=True), vectors, 0.0)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def read_vectors(path: Path, dimensions: int) -> np.ndarray:
    """The rows [R, D] of a file as they are now, mapped into memory."""
    size = path.stat().st_size if path.exists() else 0
    rows = size // (dimensions * ITEM.itemsize)
    if not rows:
        return np.zeros([0, dimensions], ITEM)
    return np.memmap(path, ITEM, mode="r", shape=(rows, dimensions))


def rank_rows(vectors: np.ndarray, vector: np.ndarray, count: int) -> np.ndarray:
    """The numbers of the `count` rows nearest to a vector [D], nearest first; of equals, the older one.

    >>> rank_rows(np.array([[1, 0], [0, 1], [0.6, 0.8]]), np.array([0.1, 1]), 2).tolist()
    [1, 2]
    """
    return rank_scores(vectors @ np.asarray(vector, "float32"), count)


def rank_scores(scores: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` largest scores [R], the largest first; of equals, the earlier one."""
    best = np.argpartition(-scores, count)[:count] if count < len(scores) else np.arange(len(scores))
    return best[np.lexsort((best, -scores[best]))]
