"""What the encoder reads and what the decoder must say, made from one stored block in pure TensorFlow ops.

An objective is called with a block and a seed and returns a row of a batch (`contracts.Objective`). `OBJECTIVES` names
the ones there are; whoever adds one adds a builder to it.

Glossary: L block length, S source length, T target length, V vocabulary size.
"""

import dataclasses
import math

import tensorflow as tf

from tf_llm.contracts import PAD_ID
from tf_llm.data.denoising import (
    SENTINELS,
    Continuation,
    Denoisers,
    SpanCorruption,
    plan_denoisers,
    plan_lengths,
)
from tf_llm.data.pairs import Pairs
from tf_llm.data.rows import build_row


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What a model learns from a block of ids."""

    kind: str = "prefix_lm"  # a key of OBJECTIVES
    shorten_sources: bool = True  # prefix_lm: train on sources of every length from one token up, as prompts have
    noise_density: float = 0.15  # span_corruption: fraction of the ids that is masked
    mean_span_length: float = 3.0  # span_corruption: masked ids in a row, on average
    packed: bool = False  # pairs: whether a row may hold several

    def __post_init__(self):
        self._check("kind", f"one of {sorted(OBJECTIVES)}", lambda value: value in OBJECTIVES)
        self._check("noise_density", "a number in (0, 1)", lambda value: 0 < value < 1)
        self._check("mean_span_length", "a finite number of at least 1", lambda value: 1 <= value < math.inf)
        for name in ("shorten_sources", "packed"):
            self._check(name, "True or False", lambda value: isinstance(value, bool))

    def _check(self, name, expected, holds):
        value = getattr(self, name)
        try:
            held = holds(value)
        except TypeError:  # a word where a number is expected, an unhashable value where a name is
            held = False
        if not held:
            raise ValueError(f"objective.{name} expected {expected}. Received: {value!r}")


class PrefixLM:
    """The article's task: the encoder reads the first part of a window, the decoder continues it.

    Args:
        source_length: S, the first ids of a block: the overlap of the shards.
        target_length: T, the ids behind them.
        shorten: whether to cut the source, for training, to a random number of its last tokens: 1, 2, … or all that
            there are, each as likely. People's prompts are shorter than S, and a model that only ever read full
            sources has never seen one.

    Call: (block int32 [S + T], seed int32 [2]) -> source_ids [S], decoder_ids [T], target_ids [T] int32 and
    weights float32 [T]. In a stored block padding stands in front of the source; in `source_ids` it stands behind.

    >>> row = PrefixLM(3, 2)(tf.constant([0, 1, 5, 6, 7]), tf.constant([0, 0]))
    >>> {name: column.numpy().tolist() for name, column in row.items()}
    {'source_ids': [1, 5, 0], 'decoder_ids': [0, 6], 'target_ids': [6, 7], 'weights': [1.0, 1.0]}
    """

    def __init__(self, source_length, target_length, shorten=False):
        self.source_length, self.target_length, self.shorten = source_length, target_length, shorten

    def __call__(self, block, seed):
        if block.shape[0] != self.source_length + self.target_length:
            raise ValueError(
                f"a block is expected to have source_length + target_length = {self.source_length} + "
                f"{self.target_length} ids. Received: {block.shape[0]}"
            )
        source, target = block[: self.source_length], block[self.source_length :]
        held = tf.math.count_nonzero(source != PAD_ID, dtype=tf.int32)
        kept = held
        if self.shorten:  # a block of padding alone, which fills up a batch, holds nothing to choose from
            kept = tf.random.stateless_uniform([], seed, minval=1, maxval=tf.maximum(held, 1) + 1, dtype=tf.int32)
        source = tf.roll(source, kept - self.source_length, axis=0)  # the last `kept` ids come to the front
        source = tf.where(tf.range(self.source_length) < kept, source, PAD_ID)
        return build_row(source, target)


def _build_prefix_lm(config, source_length, target_length, vocabulary_size, training, overlap):
    return PrefixLM(source_length, target_length, shorten=training and config.shorten_sources)


def _build_span_corruption(config, source_length, target_length, vocabulary_size, training, overlap):
    if training:
        settings = config.noise_density, config.mean_span_length
        return SpanCorruption(source_length, target_length, vocabulary_size, *settings)
    return Continuation(source_length, target_length, vocabulary_size, overlap)


def _build_denoisers(config, source_length, target_length, vocabulary_size, training, overlap):
    if training:
        return Denoisers(source_length, target_length, vocabulary_size)
    return Continuation(source_length, target_length, vocabulary_size, overlap, mode="S")


def _build_pairs(config, source_length, target_length, vocabulary_size, training, overlap):
    return Pairs(source_length, target_length, config.packed)


OBJECTIVES = {
    "prefix_lm": _build_prefix_lm,  # the article: continue a text
    "span_corruption": _build_span_corruption,  # T5
    "denoisers": _build_denoisers,  # UL2
    "pairs": _build_pairs,  # a source text and its target, as `write_pairs` stores them
}


def build_objective(config, source_length, target_length, vocabulary_size, *, training, overlap):
    """The objective to train with, or the one that scores the validation split: it draws nothing.

    Every objective of the second kind makes a target, once, of each id that stands behind the overlap of a block (of
    pairs: of each id of a target text), so that bits per byte can be stated of every kind.

    Args:
        config: an `ObjectiveConfig`.
        source_length, target_length, vocabulary_size: S, T and V of the model.
        training: which of the two.
        overlap: of the blocks, as `shards.config.overlap` has it.

    >>> config = ObjectiveConfig(kind="span_corruption")
    >>> [type(build_objective(config, 64, 64, 1000, training=t, overlap=32)).__name__ for t in (True, False)]
    ['SpanCorruption', 'Continuation']
    """
    return OBJECTIVES[config.kind](config, source_length, target_length, vocabulary_size, training, overlap)


def sentinels_needed(config):
    """How many ids at the end of the vocabulary an objective has to itself.

    >>> sentinels_needed(ObjectiveConfig()), sentinels_needed(ObjectiveConfig(kind="denoisers"))
    (0, 100)
    """
    return SENTINELS if config.kind in ("span_corruption", "denoisers") else 0


def check_lengths(config, block_length, overlap, source_length, target_length):
    """Raises ValueError where an objective cannot make rows of S and T ids of blocks of L.

    >>> check_lengths(ObjectiveConfig(), block_length=128, overlap=64, source_length=64, target_length=64)
    >>> check_lengths(ObjectiveConfig(kind="span_corruption"), 128, 103, source_length=116, target_length=26)
    """
    fresh = block_length - overlap
    if config.kind == "prefix_lm":
        if (source_length, target_length) != (overlap, fresh):
            raise ValueError(
                "model.source_length is expected to be shards.overlap, and model.target_length what is left of "
                f"shards.block_length. Received: {source_length} and {target_length} for blocks of {block_length} with "
                f"an overlap of {overlap}"
            )
    elif config.kind == "pairs":
        if source_length + target_length != block_length or overlap:
            raise ValueError(
                "shards.block_length is expected to be model.source_length + model.target_length, and shards.overlap "
                f"0, for pairs. Received: {block_length} and {overlap}, for {source_length} + {target_length}"
            )
    else:
        if config.kind == "denoisers":
            source, target = plan_denoisers(block_length)
        else:
            source, target = plan_lengths(block_length, config.noise_density, config.mean_span_length)
        target = max(target, fresh + 1)  # scoring puts a sentinel in front of what stands behind the overlap
        if source_length < source or target_length < target:
            raise ValueError(
                f"model.source_length is expected to be at least {source}, and model.target_length {target}, for "
                f"objective.kind={config.kind!r} on blocks of {block_length} with an overlap of {overlap}. Received: "
                f"{source_length} and {target_length}"
            )
