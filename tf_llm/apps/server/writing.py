"""What the batcher's thread does with the model: texts that are written, texts that are embedded.

A runner takes jobs of one kind and yields lists of (job, event); see batching.py. The last event of a job has `last`.
"""

import dataclasses

import numpy as np

WRITE, EMBED = "write", "embed"


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """A text to write: the content of a job of the kind WRITE."""

    prompt: str
    config: object  # a GenerationConfig
    by_pieces: bool = False  # whether its pieces are told as they come


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """An event: what was said since the one before."""

    text: str
    ids: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()
    finish_reason: str | None = None  # "stop" or "length" with the last piece

    @property
    def last(self):
        return self.finish_reason is not None


@dataclasses.dataclass(frozen=True, slots=True)
class Vector:
    """An event: what an embedded text became, float32 [D]."""

    values: np.ndarray
    last: bool = True


def merge(pieces):
    """All pieces of a text as one. A text that was not even begun ends for want of time, which is a limit, too.

    >>> merge([Piece("A ", (5,)), Piece("cat.", (6, 7), finish_reason="stop")])
    Piece(text='A cat.', ids=(5, 6, 7), log_probabilities=(), finish_reason='stop')
    """
    return Piece(
        "".join(piece.text for piece in pieces),
        tuple(id for piece in pieces for id in piece.ids),
        tuple(value for piece in pieces for value in piece.log_probabilities),
        pieces[-1].finish_reason if pieces else "length",
    )
