"""Beam search: the likeliest text rather than the likeliest token, as far as a few live hypotheses can find it.

It sees what strategies.py sees of a model, a step function, and no more. What it does, it does as the TensorFlow Models
do, so that the same weights say the same:

- Hypotheses that have ended and those that live are kept apart, W of each; a hypothesis that ends makes no room for a
  less likely one among the living before its time.
- Each step takes the 2·W likeliest candidates over all live hypotheses. At most W of them can be ends, so that W are
  left to live.
- A row is done when the worst of its ended hypotheses has a better score than the best live one could still get: its
  log-probability can only fall, and the longest text divides it by most. The search stops when every row is done, and
  the best of a row is the same whatever it shares a batch with. The lesser ones may not be: a row that is done, and
  has ended less than W, goes on collecting while its neighbours search.
- A row in which nothing has ended says its best live hypothesis, with the plain log-probability for a score.

Minus infinity stands for what is not there: a token that is never said, a hypothesis that was not found.

Glossary: N rows, W beams, T tokens at most, V vocabulary.
"""

import dataclasses
import math

import tensorflow as tf

from tf_llm.contracts import END_ID, PAD_ID, START_ID
from tf_llm.decoding.strategies import NEVER_SAID, hide


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beam:
    """The best of several hypotheses, by the score log p / ((5 + L) / 6)^α, END among the L tokens (Wu et al. 2016).

    Even one beam is not quite greedy: it remembers an end that was only the second likeliest token, and says it if what
    comes in its place turns out badly.

    >>> Beam(length_penalty=1.0).norm(7)
    2.0
    """

    num_beams: int = 4  # W, live hypotheses a row
    length_penalty: float = 0.6  # α; 0 compares log-probabilities, in which short texts win

    def __post_init__(self):
        if not isinstance(self.num_beams, int) or self.num_beams < 1:
            raise ValueError(f"num_beams is expected to be a whole number of at least 1. Received: {self.num_beams!r}")
        if not 0 <= self.length_penalty < math.inf:  # below 0 a live hypothesis could still gain by its length
            raise ValueError(f"length_penalty is expected to be at least 0. Received: {self.length_penalty}")

    def norm(self, length):
        """What the log-probability of so many tokens is divided by."""
        return ((5.0 + length) / 6.0) ** self.length_penalty


def repeat_rows(state, num_beams):
    """Gives each beam what its row has: a structure of tensors that lead with N -> one of tensors that lead with N·W.

    >>> repeat_rows({"keys": tf.constant([1, 2])}, 3)["keys"].numpy().tolist()
    [1, 1, 1, 2, 2, 2]
    """
    return tf.nest.map_structure(lambda leaf: tf.repeat(leaf, num_beams, axis=0), state)


def decode_beams(step, state, beam, num_rows, max_tokens, never_said=NEVER_SAID):
    """Searches for the best text of up to `max_tokens` tokens for each row, as one loop in the graph.

    Args:
        step: a `contracts.StepFn` for N·W rows, the beams of a row one behind the other: (token_ids [N·W, 1], position,
            state) -> (logits [N·W, 1, V], state). What is the same for all beams of a row and stays so does not belong
            in the state, which is rearranged after each step: the step may hold it, enlarged by `repeat_rows`.
        state: what the first step is given; a structure of tensors that lead with N, which are repeated here.
        beam: a `Beam`.
        num_rows: N.
        max_tokens: T.
        never_said: ids that are no candidates.

    Returns:
        ids int32 [N, W, T], the best first: END_ID where a text ended, PAD_ID behind it; and scores float32 [N, W].
        Where less than W were found, the rest are all PAD_ID and have minus infinity for a score.

    >>> def step(token_ids, position, state):  # after a 3 anything may come; after a 4, the end
    ...     rows = tf.constant([[0, 0, 0, 0.6, 0.4], [0, 0.2, 0, 0.4, 0.4], [0, 1, 0, 0, 0]])
    ...     return tf.math.log(tf.gather(rows, tf.maximum(token_ids - 2, 0))), state
    >>> ids, scores = decode_beams(step, {}, Beam(num_beams=2, length_penalty=0.0), num_rows=1, max_tokens=3)
    >>> ids[0].numpy().tolist(), (100 * tf.exp(scores[0]).numpy()).round().tolist()
    ([[4, 1, 0], [3, 4, 1]], [40.0, 24.0])
    """
    num_beams, missing = beam.num_beams, -math.inf

    def grow(position, token_ids, live, live_scores, ended, ended_scores, state):
        logits, state = step(token_ids[:, None], position, state)
        scores = tf.nn.log_softmax(hide(tf.cast(logits[:, 0], tf.float32), never_said))  # [N·W, V]
        vocabulary_size = scores.shape[-1]
        scores = tf.reshape(scores, [num_rows, num_beams, vocabulary_size]) + live_scores[:, :, None]  # [N, W, V]
        flat_scores = tf.reshape(scores, [num_rows, num_beams * vocabulary_size])  # [N, W·V]
        scores, places = tf.math.top_k(flat_scores, 2 * num_beams)  # [N, 2·W]
        parents, chosen = places // vocabulary_size, places % vocabulary_size  # [N, 2·W]
        texts = tf.gather(live, parents, batch_dims=1)  # [N, 2·W, T]
        texts = tf.where(tf.range(max_tokens) == position, chosen[:, :, None], texts)  # [N, 2·W, T]
        ends = chosen == END_ID  # [N, 2·W]

        live_scores, kept = tf.math.top_k(tf.where(ends, missing, scores), num_beams)  # [N, W]
        live = tf.gather(texts, kept, batch_dims=1)  # [N, W, T]
        token_ids = tf.reshape(tf.gather(chosen, kept, batch_dims=1), [num_rows * num_beams])  # [N·W]
        origins = tf.gather(parents, kept, batch_dims=1) + num_beams * tf.range(num_rows)[:, None]  # [N, W]
        origins = tf.reshape(origins, [num_rows * num_beams])  # [N·W]
        state = tf.nest.map_structure(lambda leaf: tf.gather(leaf, origins), state)

        ending_scores = tf.where(ends, scores / beam.norm(tf.cast(position + 1, tf.float32)), missing)  # [N, 2·W]
        ended_scores, kept = tf.math.top_k(tf.concat([ended_scores, ending_scores], 1), num_beams)  # [N, W]
        ended = tf.gather(tf.concat([ended, texts], 1), kept, batch_dims=1)  # [N, W, T]
        return position + 1, token_ids, live, live_scores, ended, ended_scores, state

    def goes_on(position, _, live, live_scores, ended, ended_scores, *__):
        within_reach = live_scores[:, 0] / beam.norm(max_tokens)  # [N]
        found = ended_scores > missing  # [N, W]
        worst = tf.reduce_min(tf.where(found, ended_scores, math.inf), axis=1)  # [N]
        done = tf.reduce_any(found, axis=1) & (worst > within_reach)
        return (position < max_tokens) & ~tf.reduce_all(done)

    texts = tf.fill([num_rows, num_beams, max_tokens], PAD_ID)
    nothing = tf.fill([num_rows, num_beams], missing)
    one = tf.concat([tf.zeros([num_rows, 1]), nothing[:, 1:]], axis=1)  # the first step has one hypothesis: the start
    token_ids = tf.fill([num_rows * num_beams], START_ID)
    start = tf.constant(0), token_ids, texts, one, texts, nothing, repeat_rows(state, num_beams)
    _, _, live, live_scores, ended, ended_scores, _ = tf.while_loop(goes_on, grow, start)
    any_ended = ended_scores[:, :1] > missing  # [N, 1]; they are sorted
    scores = tf.where(any_ended, ended_scores, live_scores)  # [N, W]
    ids = tf.where(any_ended[:, :, None], ended, live)  # [N, W, T]
    return tf.where(scores[:, :, None] > missing, ids, PAD_ID), scores
