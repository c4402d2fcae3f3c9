"""The ground floor: what passes between the folders of tf_llm, and nothing else.

Siblings (crawl, text, data, model, training, decoding, evaluation) never import each other; they meet as
arguments whose shapes are named here:

    Source    -> Page      crawl/     where raw pages come from
    Page      -> Document  text/      readable text, or a Rejected with its reason
    Document  -> ids       text/      a Tokenizer turns text into token ids and back
    Example   -> row       data/      an Objective says what the encoder reads and the decoder must say
    row [B,·] -> logits    model/     B rows make a batch

Glossary: B batch, S source length, T target length, L length of a stored block, N rows in decoding, K tokens per step,
V vocabulary.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import tensorflow as tf

# Token ids that mean the same in every vocabulary. Padding is also what starts the decoder, as in the transformer of
# the TensorFlow Models and in T5: no row of the embedding table is spent on a separate start symbol.
PAD_ID = 0
START_ID = PAD_ID
END_ID = 1
UNKNOWN_ID = 2
SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")
# Of a hundred sentinels at the end of a vocabulary, the last three say which kind of denoising is asked for (UL2).
MODES = {"R": 99, "X": 98, "S": 97}

# The columns of a batch; labels and sample weights travel beside them, as Keras expects (features, labels, weights).
SOURCE_IDS = "source_ids"  # int32 [B, S], what the encoder reads; PAD_ID where there is nothing
DECODER_IDS = "decoder_ids"  # int32 [B, T], the targets shifted right behind START_ID
TARGET_IDS = "target_ids"  # int32 [B, T], what the decoder must say
WEIGHTS = "weights"  # float32 [B, T], 1.0 where a target counts, 0.0 on padding
# Where one row holds several short examples, four more columns: the examples of a row are numbered from 1, 0 is
# padding, nothing attends across, and positions start again from 0 with each example.
SOURCE_SEGMENTS = "source_segments"  # int32 [B, S]
DECODER_SEGMENTS = "decoder_segments"  # int32 [B, T]
SOURCE_POSITIONS = "source_positions"  # int32 [B, S]
DECODER_POSITIONS = "decoder_positions"  # int32 [B, T]

# On which of several replicas a model is being called: training/ says so, model/ draws other dropout masks on each. A
# whole number or an integer tensor []; 0 on a single device.
REPLICA = contextvars.ContextVar("replica", default=0)


@contextlib.contextmanager
def on_replica(number):
    """Sets REPLICA inside the `with` block, for the current thread alone: tf.distribute traces each replica in its own.

    >>> with on_replica(3):
    ...     REPLICA.get()
    3
    >>> REPLICA.get()
    0
    """
    token = REPLICA.set(number)
    try:
        yield
    finally:
        REPLICA.reset(token)


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """One fetched resource, undecoded: what crawl/ yields and text/ turns into a Document."""

    url: str
    content: bytes  # the body, transfer and content encodings removed
    content_type: str = "text/html"  # media type without parameters, lower-case
    charset: str | None = None  # what the server or the crawler said; text/ has the last word
    languages: tuple[str, ...] = ()  # ISO 639 codes, most likely first, where the archive names them
    date: str | None = None  # WARC-Date: ISO 8601, UTC


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """The readable text of one page. `url` is its key: the unit of the train/validation split."""

    url: str
    text: str
    languages: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Rejected:
    """A page that goes no further. `reason` is a short fixed phrase that is counted, `detail` is for the log."""

    url: str
    reason: str
    detail: str = ""


class Source(Protocol):
    """Re-iterable pages. Iterating again starts from the first page and counts rejections afresh.

    A source can be pickled: a part of it may be read by another process. Its repr names the same pages with the same
    words, since shards on disk are known by it.
    """

    rejections: Counter[str]  # reason -> records that could not become a Page in the latest iteration

    @property
    def parts(self) -> int:
        """Into how many parts it falls by itself, its number of files say; 1 for a single stream.

        Any `count` will do for `shard`; with more than this, each part reads through everything for its share.
        """
        ...

    def __iter__(self) -> Iterator[Page]: ...

    def shard(self, index: int, count: int) -> Source:
        """The part `index` of `count`: the parts are disjoint and together hold every page."""
        ...

    def fetch(self) -> None:
        """Brings to this machine what is remote, so that no other process needs to ask the server.

        There is nothing to do for what lies here already. Reading works without it, too.
        """
        ...


class Tokenizer(Protocol):
    """Text to token ids and back, the same in Python and inside a TensorFlow graph.

    The last `num_sentinels` ids of the vocabulary stand for no text: with them a denoising objective marks what it has
    masked. Sentinel 0 is the last id, sentinel 1 the one before, as in T5.
    """

    vocabulary_size: int  # V, special tokens and sentinels included
    num_sentinels: int

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def save(self, path: str) -> None: ...

    def graph_encode(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """String tensor [B] -> int32 ids [B, None]."""
        ...

    def graph_decode(self, ids: tf.Tensor) -> tf.Tensor:
        """int32 ids [B, T] -> string tensor [B]."""
        ...


class Objective(Protocol):
    """What the encoder reads and what the decoder must say, in pure TensorFlow ops.

    `block` is int32 [L]; `seed` is int32 [2], all the randomness that may be used. Returns one row of a batch:
    source_ids [S], decoder_ids [T], target_ids [T], weights [T], and for packed rows their segments and positions.
    """

    def __call__(self, block: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]: ...


class StepFn(Protocol):
    """One step of decoding, all that a decoding strategy knows of a model.

    `(token_ids [N, K], position, state) -> (logits [N, K, V], state)`; every leaf of `state` leads with N.
    """

    def __call__(self, token_ids: Any, position: Any, state: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]: ...


class UserError(Exception):
    """An error with a remedy for the person at the keyboard: shown as one line, without a traceback."""

    exit_status = 1
