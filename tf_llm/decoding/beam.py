"""Beam search: the likeliest text rather than the likeliest token, as far as a few live hypotheses can find it.

It sees what strategies.py sees of a model, a step function, and no more. What it does, it does as the TensorFlow Models
do, so that the same weights say the same:

- Hypotheses that have ended and those that live are kept apart, W of each; a hypothesis that ends makes no room for a
  less likely one among the living before its time.
- Each step takes the 2·W likeliest candidates over all live hypotheses. At most W of them can be ends, so that W are
  left to live.
- A row is done when as many of its ended hypotheses as are asked for have a better score than the best live one could
  still get: its log-probability can only fall, and the longest text divides it by most. What a row has found then
  stands, whatever its neighbours still look for. The search stops when every row is done.
- Where less has ended than there are beams, the best live hypotheses follow, with plain log-probabilities for scores.

transformers searches in another manner, which `Beam(manner="hugging_face")` follows to the letter: the score is
log p / L^α; an end counts only among the W likeliest candidates; at the limit live hypotheses compete with ended ones;
and a row is done when W have ended and the best live one is worse than all of these as long as it is now.

Minus infinity stands for what is not there: a token that is never said, a hypothesis that was not found.

Glossary: N rows, W beams, R texts that are asked for, T tokens of a window at most, M tokens that a row has room for in
all its windows, V vocabulary.
"""

import dataclasses
import math

import tensorflow as tf

from tf_llm.contracts import END_ID, PAD_ID, START_ID
from tf_llm.decoding.logits import RepetitionPenalty
from tf_llm.decoding.strategies import RULES

MANNERS = ("hugging_face", "tf_models")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beam:
    """The best of several hypotheses, by the score log p / ((5 + L) / 6)^α, END among the L tokens (Wu et al. 2016,
    https://arxiv.org/abs/1609.08144, section 7).

    Even one beam is not quite greedy: it remembers an end that was only the second likeliest token, and says it if what
    comes in its place turns out badly.

    >>> Beam(length_penalty=1.0).norm(7)
    2.0
    """

    num_beams: int = 4  # W, live hypotheses a row
    length_penalty: float = 0.6  # α; 0 compares log-probabilities, in which short texts win
    num_return_sequences: int = 1  # R, how many of the best are asked for
    manner: str = "tf_models"  # or "hugging_face"

    def __post_init__(self):
        if not isinstance(self.num_beams, int) or self.num_beams < 1:
            raise ValueError(f"num_beams is expected to be a whole number of at least 1. Received: {self.num_beams!r}")
        if not 0 <= self.length_penalty < math.inf:  # below 0 a live hypothesis could still gain by its length
            raise ValueError(f"length_penalty is expected to be at least 0. Received: {self.length_penalty}")
        if not 1 <= self.num_return_sequences <= self.num_beams:
            raise ValueError(
                f"num_return_sequences is expected to be between 1 and num_beams, {self.num_beams}. "
                f"Received: {self.num_return_sequences!r}"
            )
        if self.manner not in MANNERS:
            raise ValueError(f"manner is expected to be one of {list(MANNERS)}. Received: {self.manner!r}")

    def norm(self, length):
        """What the log-probability of so many tokens is divided by."""
        return (length if self.manner == "hugging_face" else (5.0 + length) / 6.0) ** self.length_penalty

    def is_done(self, live_scores, ended_scores, length, limit):
        """Whether the best are found: scores [N, W] each, sorted; tokens said and at most, float32 [] -> bool [N]."""
        if self.manner == "hugging_face":
            return ended_scores[:, -1] >= live_scores[:, 0] / self.norm(length)
        return ended_scores[:, self.num_return_sequences - 1] >= live_scores[:, 0] / self.norm(limit)


def repeat_rows(state, num_beams):
    """Gives each beam what its row has: a structure of tensors that lead with N -> one of tensors that lead with N·W.

    >>> repeat_rows({"keys": tf.constant([1, 2])}, 3)["keys"].numpy().tolist()
    [1, 1, 1, 2, 2, 2]
    """
    return tf.nest.map_structure(lambda leaf: tf.repeat(leaf, num_beams, axis=0), state)


def apply_rules(rules, logits, said, count):
    """Log-probabilities of what the rules leave: [N·W, V] -> [N·W, V].

    A penalty would do something else to every logit if all were moved by the same amount, which changes no probability;
    to log-probabilities it does one thing.
    """
    if any(isinstance(rule, RepetitionPenalty) for rule in rules):
        logits = tf.nn.log_softmax(logits)
    for rule in rules:
        logits = rule(logits, said, count)
    scores = tf.nn.log_softmax(logits)
    return tf.where(tf.math.is_nan(scores), -math.inf, scores)  # where nothing is left, a hypothesis goes no further


def share_cache(step, num_beams):
    """A step function for `decode_beams` of a model's step in which the beams of a row share one cache.

    Args:
        step: (token_ids [N, W], position, state) -> (logits [N, W, V], state). Its cache keeps what every beam has said
            at every position, and an entry "lineage" of the state, int32 [N, W, T], says whose token each beam has
            there: its own, or that of the beam from which it went on.
        num_beams: W.

    Returns:
        A step function for N·W rows. Of its state only the lineage, int32 [N·W, T], is to be rearranged.
    """

    def step_of_beams(token_ids, position, state):
        lineage = state["lineage"]  # [N·W, T]
        rows, length = lineage.shape
        own = tf.tile(tf.range(num_beams), [rows // num_beams])[:, None]  # [N·W, 1]
        lineage = tf.where(tf.range(length) == position, own, lineage)
        lines = tf.reshape(lineage, [-1, num_beams, length])  # [N, W, T]
        logits, state = step(tf.reshape(token_ids, [-1, num_beams]), position, {**state, "lineage": lines})
        return tf.reshape(logits, [rows, 1, logits.shape[-1]]), {**state, "lineage": lineage}

    return step_of_beams


def decode_beams(
    step, state, beam, num_rows, max_tokens, rules=RULES, said=None, count=0, limit=None, ended=None, shared=()
):
    """Searches for the best text of up to `max_tokens` tokens for each row, as one loop in the graph.

    Args:
        step: a `contracts.StepFn` for N·W rows, the beams of a row one behind the other: (token_ids [N·W, 1], position,
            state) -> (logits [N·W, 1, V], state). What is the same for all beams of a row and stays so does not belong
            in the state, which is rearranged after each step: the step may hold it, enlarged by `repeat_rows`.
        state: what the first step is given; a structure of tensors that lead with N, which are repeated here.
        beam: a `Beam`.
        num_rows: N.
        max_tokens: T.
        rules: see logits.py; settings that differ from row to row are repeated for the beams.
        said: int32 [N, M], what was said in earlier windows, or None.
        count: how many tokens that is, int32 [].
        limit: tokens to say in this window, int32 [], no more than T; None is T.
        ended: bool [N], rows that are not searched, or None.
        shared: names of what the beams of a row have in common in the state, which is a dictionary then. It is neither
            repeated nor rearranged; see `share_cache`.

    Returns:
        ids int32 [N, W, M], the best first: what was said before, END_ID where a text ended, PAD_ID behind it; and
        scores float32 [N, W]. M is T where nothing was said before. Where less than W were found, the rest are all
        PAD_ID and have minus infinity for a score.

    >>> def step(token_ids, position, state):  # after a 3 anything may come; after a 4, the end
    ...     rows = tf.constant([[0, 0, 0, 0.6, 0.4], [0, 0.2, 0, 0.4, 0.4], [0, 1, 0, 0, 0]])
    ...     return tf.math.log(tf.gather(rows, tf.maximum(token_ids - 2, 0))), state
    >>> beam = Beam(num_beams=2, num_return_sequences=2, length_penalty=0.0)
    >>> ids, scores = decode_beams(step, {}, beam, num_rows=1, max_tokens=3)
    >>> ids[0].numpy().tolist(), (100 * tf.exp(scores[0]).numpy()).round().tolist()
    ([[4, 1, 0], [3, 4, 1]], [40.0, 24.0])
    """
    num_beams, missing, like_peer = beam.num_beams, -math.inf, beam.manner == "hugging_face"
    limit = tf.convert_to_tensor(max_tokens if limit is None else limit, tf.int32)
    said = tf.fill([num_rows, max_tokens], PAD_ID) if said is None else said
    room = said.shape[1]  # M

    def of_beams(function, state):
        """Applies a function to the leaves of a state that are not shared."""
        if not shared:
            return tf.nest.map_structure(function, state)
        return {name: leaf if name in shared else function(leaf) for name, leaf in state.items()}

    def grow(position, token_ids, live, live_scores, ended, ended_scores, searching, state):
        logits, state = step(token_ids[:, None], position, state)
        said_by_beam = tf.reshape(live, [num_rows * num_beams, room])  # [N·W, M]
        scores = apply_rules(rules, tf.cast(logits[:, 0], tf.float32), said_by_beam, count + position)  # [N·W, V]
        vocabulary_size = scores.shape[-1]
        scores = tf.reshape(scores, [num_rows, num_beams, vocabulary_size]) + live_scores[:, :, None]  # [N, W, V]
        flat_scores = tf.reshape(scores, [num_rows, num_beams * vocabulary_size])  # [N, W·V]
        scores, places = tf.math.top_k(flat_scores, 2 * num_beams)  # [N, 2·W]
        parents, chosen = places // vocabulary_size, places % vocabulary_size  # [N, 2·W]
        texts = tf.gather(live, parents, batch_dims=1)  # [N, 2·W, M]
        texts = tf.where(tf.range(room) == count + position, chosen[:, :, None], texts)  # [N, 2·W, M]
        ends = chosen == END_ID  # [N, 2·W]

        live_scores, kept = tf.math.top_k(tf.where(ends, missing, scores), num_beams)  # [N, W]
        live = tf.gather(texts, kept, batch_dims=1)  # [N, W, M]
        token_ids = tf.reshape(tf.gather(chosen, kept, batch_dims=1), [num_rows * num_beams])  # [N·W]
        origins = tf.gather(parents, kept, batch_dims=1) + num_beams * tf.range(num_rows)[:, None]  # [N, W]
        origins = tf.reshape(origins, [num_rows * num_beams])  # [N·W]
        state = of_beams(lambda leaf: tf.gather(leaf, origins), state)

        length = tf.cast(position + 1, tf.float32)
        if like_peer:
            ends = (ends | (position + 1 == limit)) & (tf.range(2 * num_beams) < num_beams)
        ending_scores = tf.where(ends & searching[:, None], scores / beam.norm(length), missing)  # [N, 2·W]
        ended_scores, kept = tf.math.top_k(tf.concat([ended_scores, ending_scores], 1), num_beams)  # [N, W]
        ended = tf.gather(tf.concat([ended, texts], 1), kept, batch_dims=1)  # [N, W, M]
        searching = searching & ~beam.is_done(live_scores, ended_scores, length, tf.cast(limit, tf.float32))
        return position + 1, token_ids, live, live_scores, ended, ended_scores, searching, state

    def goes_on(position, _, live, live_scores, ended, ended_scores, searching, __):
        return (position < limit) & tf.reduce_any(searching)

    texts = tf.repeat(said[:, None], num_beams, axis=1)  # [N, W, M]
    nothing = tf.fill([num_rows, num_beams], missing)
    one = tf.concat([tf.zeros([num_rows, 1]), nothing[:, 1:]], axis=1)  # the first step has one hypothesis: the start
    token_ids = tf.fill([num_rows * num_beams], START_ID)
    searching = tf.ones([num_rows], tf.bool) if ended is None else ~ended
    state = of_beams(lambda leaf: tf.repeat(leaf, num_beams, axis=0), state)
    start = tf.constant(0), token_ids, texts, one, texts, nothing, searching, state
    _, _, live, live_scores, ended, ended_scores, *_ = tf.while_loop(goes_on, grow, start)
    found = tf.reduce_sum(tf.cast(ended_scores > missing, tf.int32), axis=1, keepdims=True)  # [N, 1]
    places = tf.range(num_beams) - found  # [N, W], of the live ones behind those that have ended
    from_live = tf.maximum(places, 0)
    scores = tf.where(places < 0, ended_scores, tf.gather(live_scores, from_live, batch_dims=1))  # [N, W]
    ids = tf.where(places[:, :, None] < 0, ended, tf.gather(live, from_live, batch_dims=1))  # [N, W, M]
    return tf.where(scores[:, :, None] > missing, ids, PAD_ID), scores
