"""What is done to logits before a token is chosen: rules, which forbid or discourage tokens, and cuts, which leave to a
draw the likelier ones alone.

A rule is called with the logits float32 [N, V], what the rows have said so far, int32 [N, M] with padding behind, and
how many tokens that is, int32 []; it returns logits. Its settings are numbers, the same for all rows, or tensors [N].
Minus infinity is the logit of what cannot be said. Rules and cuts mean what they mean in Hugging Face's transformers.

Glossary: N rows, V vocabulary, M tokens that a row has room for, P tokens of a prefix.
"""

import dataclasses
import math
from typing import Any

import tensorflow as tf

from tf_llm.contracts import END_ID, PAD_ID, UNKNOWN_ID

NEVER_SAID = (PAD_ID, UNKNOWN_ID)


def as_column(setting, dtype=tf.float32):
    """A number or a tensor [N] -> [1, 1] or [N, 1]."""
    return tf.reshape(tf.cast(setting, dtype), [-1, 1])


def hide(logits, ids):
    """Makes ids impossible: logits [N, V] -> [N, V] with minus infinity in their columns.

    >>> hide(tf.constant([[0.1, 0.9, 0.3]]), ids=(0, 2)).numpy().tolist()
    [[-inf, 0.8999999761581421, -inf]]
    """
    columns = tf.one_hot(tf.constant(ids, tf.int32), logits.shape[-1], on_value=True, off_value=False)  # [ids, V]
    return hide_where(tf.reduce_any(columns, axis=0), logits)


def hide_where(mask, logits):
    """Makes impossible what bool [N, V] (or [V]) marks."""
    return tf.where(mask, tf.constant(-math.inf, logits.dtype), logits)


def mark(ids, counts, vocabulary_size):
    """Which tokens are among the ids int32 [N, M] that count, bool [N, M] or [M] -> bool [N, V].

    >>> mark(tf.constant([[3, 1, 3]]), tf.constant([[True, False, True]]), 5).numpy().tolist()
    [[False, False, False, True, False]]
    """
    rows = tf.broadcast_to(tf.range(tf.shape(ids)[0])[:, None], tf.shape(ids))
    places = tf.stack([rows, ids], axis=-1)  # [N, M, 2]
    counts = tf.broadcast_to(tf.cast(counts, tf.int32), tf.shape(ids))
    found = tf.scatter_nd(places, counts, [tf.shape(ids)[0], vocabulary_size])
    return tf.ensure_shape(found, [ids.shape[0], vocabulary_size]) > 0


# === Rules ===


@dataclasses.dataclass(frozen=True)
class Never:
    """Tokens that are never said."""

    ids: tuple = NEVER_SAID

    def __call__(self, logits, said, count):
        return hide(logits, self.ids)


@dataclasses.dataclass(frozen=True)
class NeverInARow:
    """Sequences of tokens that are never said as a whole: the last token of each is, where the others stand before it.

    >>> rule, logits = NeverInARow(((3, 4),)), tf.zeros([2, 5])
    >>> rule(logits, tf.constant([[3, 0], [4, 0]]), 1).numpy().tolist()
    [[0.0, 0.0, 0.0, 0.0, -inf], [0.0, 0.0, 0.0, 0.0, 0.0]]
    """

    sequences: tuple  # of tuples of ids

    def __call__(self, logits, said, count):
        for *before, last in self.sequences:
            places = tf.maximum(count - len(before) + tf.range(len(before)), 0)
            latest = tf.gather(said, places, axis=1)  # [N, tokens before the last]
            follows = tf.reduce_all(latest == tf.constant(before, tf.int32), axis=1) & (count >= len(before))  # [N]
            logits = hide_where(follows[:, None] & (tf.range(logits.shape[-1]) == last), logits)
        return logits


@dataclasses.dataclass(frozen=True)
class LeastLength:
    """No end before so many tokens."""

    least: Any  # int, or int32 [N]

    def __call__(self, logits, said, count):
        too_early = count < as_column(self.least, tf.int32)  # [N, 1]
        return hide_where(too_early & (tf.range(logits.shape[-1]) == END_ID), logits)


@dataclasses.dataclass(frozen=True)
class Prefix:
    """What is said first, whatever the model thinks."""

    ids: Any  # int32 [N, P], PAD_ID behind shorter ones

    def __call__(self, logits, said, count):
        length = self.ids.shape[1]
        wanted = tf.where(count < length, self.ids[:, tf.minimum(count, length - 1)], PAD_ID)[:, None]  # [N, 1]
        forced = tf.where(tf.range(logits.shape[-1]) == wanted, tf.zeros([], logits.dtype), -math.inf)  # [N, V]
        return tf.where(wanted == PAD_ID, logits, forced)


@dataclasses.dataclass(frozen=True)
class RepetitionPenalty:
    """What was said already becomes less likely: its logit is divided by the penalty, or multiplied where negative.

    Source: Keskar et al. 2019, https://arxiv.org/abs/1909.05858, section 4.1.

    >>> rule = RepetitionPenalty(2.0)
    >>> rule(tf.constant([[1.0, 1.0, -1.0]]), tf.constant([[1, 2, 0]]), 2).numpy().tolist()
    [[1.0, 0.5, -2.0]]
    """

    penalty: Any  # 1 changes nothing

    def __call__(self, logits, said, count):
        penalty = as_column(self.penalty, logits.dtype)
        seen = mark(said, tf.range(said.shape[1]) < count, logits.shape[-1])  # [N, V]
        return tf.where(seen, tf.where(logits < 0, logits * penalty, logits / penalty), logits)


@dataclasses.dataclass(frozen=True)
class NoRepeatedNgram:
    """No sequence of so many tokens is said twice.

    >>> rule, logits = NoRepeatedNgram(2, longest=2), tf.zeros([1, 6])
    >>> rule(logits, tf.constant([[3, 4, 5, 3, 0]]), 4).numpy().tolist()  # 3 again: not 4 again
    [[0.0, 0.0, 0.0, 0.0, -inf, 0.0]]
    """

    size: Any  # 0 forbids nothing
    longest: int  # no size is larger

    def __call__(self, logits, said, count):
        size, length = as_column(self.size, tf.int32), said.shape[1]
        again = (tf.range(length) < count) & (size > 0)  # [N, M]: would what stands here be said again behind the last?
        for back in range(1, self.longest):  # so far before it and so far before the end there stands the same
            earlier = tf.pad(said[:, : max(0, length - back)], [[0, 0], [min(back, length), 0]], constant_values=-1)
            last = tf.gather(said, tf.maximum(count - back, 0), axis=1)[:, None]  # [N, 1]
            again = again & ((earlier == last) & (count >= back) | (back >= size))
        return hide_where(mark(said, again, logits.shape[-1]), logits)


# === Cuts ===


def keep_top_k(logits, top_k, widest):
    """Leaves the k likeliest tokens; 0 leaves all, and `widest` is no smaller than any k. Equals stay together.

    >>> keep_top_k(tf.constant([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]]), tf.constant([2, 0]), widest=2).numpy().tolist()
    [[-inf, 3.0, 2.0], [1.0, 3.0, 2.0]]
    """
    top_k = as_column(top_k, tf.int32)  # [N, 1]
    likeliest = tf.math.top_k(logits, min(widest, logits.shape[-1])).values  # [N, widest]
    top_k = tf.broadcast_to(top_k, [tf.shape(logits)[0], 1])
    weakest = tf.gather(likeliest, tf.clip_by_value(top_k - 1, 0, likeliest.shape[-1] - 1), batch_dims=1)  # [N, 1]
    return hide_where((logits < weakest) & (top_k > 0), logits)


def keep_top_p(logits, top_p):
    """Leaves the fewest tokens that together have the probability p ("nucleus", Holtzman et al. 2020,
    https://arxiv.org/abs/1904.09751).

    >>> tf.exp(keep_top_p(tf.math.log([[0.5, 0.3, 0.2]]), 0.6)).numpy().round(2)
    array([[0.5, 0.3, 0. ]], dtype=float32)
    """
    top_p = as_column(top_p)
    ordered = tf.sort(logits, direction="DESCENDING")  # [N, V]
    before = tf.cumsum(tf.nn.softmax(ordered), axis=-1, exclusive=True)  # what the likelier ones have
    kept = tf.reduce_sum(tf.cast(before < top_p, tf.int32), axis=-1, keepdims=True)  # [N, 1]
    weakest = tf.gather(ordered, tf.maximum(kept - 1, 0), batch_dims=1)  # [N, 1]
    return hide_where((logits < weakest) & (top_p < 1), logits)


def keep_min_p(logits, min_p):
    """Leaves what is at least so likely as this share of the likeliest (Nguyen et al. 2025,
    https://arxiv.org/abs/2407.01082).

    >>> tf.exp(keep_min_p(tf.math.log([[0.5, 0.3, 0.2]]), 0.5)).numpy().round(2)
    array([[0.5, 0.3, 0. ]], dtype=float32)
    """
    return hide_where(logits < tf.reduce_max(logits, axis=-1, keepdims=True) + tf.math.log(as_column(min_p)), logits)


def keep_typical(logits, typical_p):
    """Leaves tokens whose surprise is near the mean one, the nearest first, until they have the probability p together
    (Meister et al. 2023, https://arxiv.org/abs/2202.00666).

    >>> tf.exp(keep_typical(tf.math.log([[0.6, 0.3, 0.1]]), 0.25)).numpy().round(2)  # 0.9 nats on the average
    array([[0. , 0.3, 0. ]], dtype=float32)
    """
    typical_p = as_column(typical_p)
    logs = tf.nn.log_softmax(logits)  # [N, V]
    shares = tf.exp(logs)
    mean = -tf.reduce_sum(tf.where(shares > 0, shares * logs, 0.0), axis=-1, keepdims=True)  # [N, 1]
    apart = tf.abs(-logs - mean)  # [N, V], infinite where nothing is possible
    order = tf.argsort(apart)
    reached = tf.cumsum(tf.gather(shares, order, batch_dims=1), axis=-1)
    last = tf.reduce_sum(tf.cast(reached < typical_p, tf.int32), axis=-1, keepdims=True)  # [N, 1]
    last = tf.minimum(last, logits.shape[-1] - 1)
    farthest = tf.gather(tf.gather(apart, order, batch_dims=1), last, batch_dims=1)  # [N, 1]
    return hide_where((apart > farthest) & (typical_p < 1), logits)
