"""Contrastive search: a likely token, but not one that makes the text repeat itself (Su et al. 2022,
https://arxiv.org/abs/2202.06417).

Of the few likeliest tokens the one is said for which (1 - α) · p - α · s is largest, where s is the largest cosine
between the hidden vector that the model has behind this token and those of all tokens before it in the window. Looking
at the hidden vectors means taking a step with each candidate; the step of the one that is said is then the next step.

Glossary: N rows, W candidates, T tokens of a window, V vocabulary, D width.
"""

import tensorflow as tf

from tf_llm.contracts import END_ID, PAD_ID
from tf_llm.decoding.strategies import RULES, Talk


def begin_contrast(cache, num_rows, window, vocabulary_size, width):
    """The state of the first `advance_by_contrast` in a window: what the model remembers, and what it thought last."""
    vectors, logits = tf.zeros([num_rows, window, width]), tf.zeros([num_rows, vocabulary_size])
    return {"cache": cache, "vectors": vectors, "logits": logits}


def advance_by_contrast(step, talk, num_candidates, alpha, until, window, rules=RULES, limits=None):
    """`strategies.advance` for contrastive search. Nothing is drawn.

    Args:
        step: a step function for N·W rows, the candidates of a row one behind the other, that returns (logits
            [N·W, 1, V], hidden vectors [N·W, 1, D], state).
        talk: a `Talk` whose state is of `begin_contrast`.
        num_candidates: W.
        alpha: α, in [0, 1]; at 0 the likeliest token is said.
        until, rules, limits: see `advance`.
        window: T. The last token of a window, behind which there is no step, is the likeliest one.

    Returns:
        The `Talk` after it.
    """

    def take_step(token_ids, position, cache):
        """token_ids [N, W] -> logits [N, W, V], vectors of length 1 [N, W, D], cache of N·W rows."""
        logits, hidden, cache = step(tf.reshape(token_ids, [-1, 1]), position, cache)
        logits = tf.reshape(tf.cast(logits, tf.float32), [-1, num_candidates, logits.shape[-1]])  # [N, W, V]
        vectors = tf.reshape(tf.cast(hidden, tf.float32), [-1, num_candidates, hidden.shape[-1]])  # [N, W, D]
        return logits, tf.math.l2_normalize(vectors, axis=-1), cache

    def keep(choice, cache):
        """Of what leads with N·W, the part of the candidates int32 [N] that were chosen."""
        places = choice + num_candidates * tf.range(tf.shape(choice)[0])
        return tf.nest.map_structure(lambda leaf: tf.gather(leaf, places), cache)

    def repeat(cache):
        return tf.nest.map_structure(lambda leaf: tf.repeat(leaf, num_candidates, axis=0), cache)

    def write(vectors, position, new):
        return tf.where((tf.range(window) == position)[:, None], new[:, None], vectors)  # [N, T, D]

    def read_start(talk):
        """The step of START_ID, before any token."""
        token_ids = tf.repeat(talk.token_ids[:, None], num_candidates, axis=1)
        logits, vectors, cache = take_step(token_ids, talk.position, repeat(talk.state["cache"]))
        cache, said = keep(tf.zeros_like(talk.token_ids), cache), write(talk.state["vectors"], 0, vectors[:, 0])
        return talk._replace(state={"cache": cache, "vectors": said, "logits": logits[:, 0]})

    def say(talk):
        logits, said_vectors = talk.state["logits"], talk.state["vectors"]
        for rule in rules:
            logits = rule(logits, talk.said, talk.count)
        shares, candidates = tf.math.top_k(tf.nn.softmax(logits), num_candidates)  # [N, W], the likeliest first
        behind = tf.minimum(talk.position + 1, window - 1)
        next_logits, vectors, cache = take_step(candidates, behind, repeat(talk.state["cache"]))
        cosines = tf.einsum("nwd,ntd->nwt", vectors, said_vectors)  # [N, W, T]
        cosines = tf.where(tf.range(window) <= talk.position, cosines, -1.0)
        scores = (1 - alpha) * shares - alpha * tf.reduce_max(cosines, axis=-1)  # [N, W]
        scores = tf.where(talk.position + 1 < window, scores, shares)
        choice = tf.argmax(tf.where(shares > 0, scores, float("-inf")), axis=-1, output_type=tf.int32)  # [N]
        chosen, share = (tf.gather(each, choice, batch_dims=1) for each in (candidates, shares))
        token_ids = tf.where(talk.ended, PAD_ID, tf.where(share > 0, chosen, END_ID))  # [N]
        said = tf.where(tf.range(talk.said.shape[1]) == talk.count, token_ids[:, None], talk.said)  # [N, M]
        ended, count = talk.ended | (token_ids == END_ID), talk.count + 1
        if limits is not None:
            ended = ended | (count >= limits)
        state = {
            "cache": keep(choice, cache),
            "vectors": write(said_vectors, behind, tf.gather(vectors, choice, batch_dims=1)),
            "logits": tf.gather(next_logits, choice, batch_dims=1),
        }
        return (Talk(talk.position + 1, count, token_ids, ended, said, state),)

    talk = tf.cond(talk.position == 0, lambda: read_start(talk), lambda: talk)
    goes_on = lambda talk: (talk.position < until) & ~tf.reduce_all(talk.ended)  # noqa: E731
    return tf.while_loop(goes_on, say, (talk,))[0]
