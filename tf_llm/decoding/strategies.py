"""From the model's logits to the next token, again and again. Nothing here knows what kind of model gives the logits.

A strategy chooses one token a row; `decode` calls the model's step and the strategy until every row has ended. The
search over several hypotheses a row is in beam.py.

Glossary: N rows, T tokens at most, V vocabulary.
"""

import dataclasses
import math

import tensorflow as tf

from tf_llm.contracts import END_ID, PAD_ID, START_ID, UNKNOWN_ID

NEVER_SAID = (PAD_ID, UNKNOWN_ID)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy:
    """Always the likeliest token.

    >>> Greedy()(tf.constant([[0.1, 0.9, 0.3]]), seed=[0, 0]).numpy().tolist()
    [1]
    """

    def __call__(self, logits, seed):
        """Logits [N, V] -> ids int32 [N]."""
        return tf.argmax(logits, axis=-1, output_type=tf.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """A token drawn by its probability, after the logits were sharpened and the least likely ones cut off."""

    temperature: float = 1.0  # logits are divided by it: below 1 the likely becomes likelier
    top_k: int = 0  # draw from so many of the likeliest tokens; 0 draws from all

    def __post_init__(self):
        if not self.temperature > 0:
            raise ValueError(
                f"temperature is expected to be above 0. Received: {self.temperature}. For the likeliest token "
                "every time, use Greedy"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k is expected to be at least 0. Received: {self.top_k}. 0 draws from all tokens")

    def __call__(self, logits, seed):
        """Logits [N, V] and a seed int32 [2] -> ids int32 [N]."""
        logits = logits / self.temperature
        if self.top_k:
            weakest = tf.math.top_k(logits, min(self.top_k, logits.shape[-1])).values[:, -1:]  # [N, 1]
            logits = tf.where(logits < weakest, logits.dtype.min, logits)
        return tf.random.stateless_categorical(logits, 1, seed, dtype=tf.int32)[:, 0]


def hide(logits, ids):
    """Makes ids impossible: logits [N, V] -> [N, V] with minus infinity in their columns.

    >>> hide(tf.constant([[0.1, 0.9, 0.3]]), ids=(0, 2)).numpy().tolist()
    [[-inf, 0.8999999761581421, -inf]]
    """
    columns = tf.one_hot(tf.constant(ids, tf.int32), logits.shape[-1], on_value=True, off_value=False)  # [ids, V]
    return tf.where(tf.reduce_any(columns, axis=0), tf.constant(-math.inf, logits.dtype), logits)


def decode(step, state, strategy, num_rows, max_tokens, seed, never_said=NEVER_SAID):
    """Says up to `max_tokens` tokens a row, as one loop in the graph, which stops as soon as every row has ended.

    Args:
        step: a `contracts.StepFn`: (token_ids [N, 1], position, state) -> (logits [N, 1, V], state).
        state: what the first step is given; a dictionary of tensors that lead with N.
        strategy: (logits [N, V], seed [2]) -> ids int32 [N].
        num_rows: N.
        max_tokens: T.
        seed: of all that is drawn, an integer.
        never_said: ids that are never chosen.

    Returns:
        ids int32 [N, T]: what was said, END_ID where a row ended, PAD_ID behind it.
    """

    def say(position, token_ids, ended, said, state):
        logits, state = step(token_ids[:, None], position, state)
        chosen = strategy(hide(logits[:, 0], never_said), tf.stack([seed, position]))  # [N]
        token_ids = tf.where(ended, PAD_ID, chosen)  # [N]
        said = tf.where(tf.range(max_tokens) == position, token_ids[:, None], said)  # [N, T]
        return position + 1, token_ids, ended | (token_ids == END_ID), said, state

    said = tf.fill([num_rows, max_tokens], PAD_ID)
    start = tf.constant(0), tf.fill([num_rows], START_ID), tf.zeros([num_rows], tf.bool), said, dict(state)
    *_, said, _ = tf.while_loop(
        lambda position, _, ended, *__: (position < max_tokens) & ~tf.reduce_all(ended), say, start
    )
    return said
