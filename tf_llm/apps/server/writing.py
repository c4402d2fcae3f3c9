"""What the batcher's thread does with the model: it writes texts, and it makes vectors of them.

A runner takes jobs of one kind and yields lists of (job, event); see batching.py. The last event of a job has `last`.
"""

import dataclasses
import functools

import numpy as np

from tf_llm.contracts import END_ID

WRITE, EMBED = "write", "embed"
UNSEEN = 8  # tokens of a step where nobody waits for each: more are said faster, and stopped later


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """A text to write: the content of a job of the kind WRITE."""

    prompt: str
    config: object  # a GenerationConfig
    by_pieces: bool = False  # whether its pieces are told as they come, or the whole at its end
    with_log_probabilities: bool = False  # of its tokens; with the whole only


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """An event: what was said since the one before."""

    text: str
    ids: tuple[int, ...] = ()  # without END_ID, which says nothing
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


def build_runners(generate):
    """The runners of a `Generator`, as a `Batcher` takes them."""
    return {WRITE: functools.partial(write_texts, generate), EMBED: functools.partial(embed_texts, generate)}


def write_texts(generate, jobs):
    """Decodes texts together: each row with its own settings, each until it ends. Jobs that were stopped cost at most
    one further step; where all were, the rest is not said at all."""
    contents = [job.content for job in jobs]
    tokens = 1 if any(content.by_pieces for content in contents) else UNSEEN
    stream = generate.stream_batch(
        [content.prompt for content in contents], [content.config for content in contents], tokens
    )
    pieces, told, ended = ["" for _ in jobs], [0 for _ in jobs], set()
    for step in stream:
        events = []
        for row, (job, piece) in enumerate(zip(jobs, step, strict=True)):
            if row in ended:
                continue
            pieces[row] += piece.text
            reason = piece.finish_reason or ("cancelled" if job.stopped else None)
            if reason == "cancelled":
                stream.cancel(row)
            if reason or (job.content.by_pieces and pieces[row]):
                events.append((job, _build_piece(stream, row, pieces[row], told[row], job.content, reason)))
                pieces[row], told[row] = "", len(stream.texts[row].ids)
            if reason:
                ended.add(row)
        yield events
        if len(ended) == len(jobs):
            return


def _build_piece(stream, row, text, told, content, reason):
    ids = tuple(id for id in stream.texts[row].ids[told:] if id != END_ID)
    values = tuple(stream.score(row)[: len(ids)]) if content.with_log_probabilities and reason else ()
    return Piece(text, ids, values, "length" if reason == "cancelled" else reason)


def embed_texts(generate, jobs):
    """Embeds texts together."""
    vectors = generate.embed([job.content for job in jobs])
    yield [(job, Vector(vector)) for job, vector in zip(jobs, vectors, strict=True)]


def warm_up(generate, config, max_batch, new_tokens):
    """Has all graphs compiled that common requests need: of the likeliest token, of a draw, of vectors.

    Args:
        generate: a `Generator`, which pads batches to powers of two.
        config: its `GenerationConfig`, as requests get it.
        max_batch: rows that are run together at most.
        new_tokens: of a text at most. A text of several windows needs a graph with more room.
    """
    configs = [
        config.with_settings(max_new_tokens=tokens, min_new_tokens=0, do_sample=draws)
        for tokens in sorted({1, new_tokens})
        for draws in (False, True)
    ]
    rows = 1
    while rows < 2 * max_batch:
        count = min(rows, max_batch)
        for config in configs:
            next(iter(generate.stream_batch([""] * count, [config] * count)))
        generate.embed([""] * count)
        rows *= 2


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
