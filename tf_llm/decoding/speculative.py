"""Speculative sampling: a small model guesses some tokens, the large one reads all of them in one step and keeps those
that it might as well have said itself (Leviathan et al. 2023, https://arxiv.org/abs/2211.17192).

The text has exactly the distribution that it has without the small model. Let q be what the small model draws a token
from, and p what the large one would, after rules and cuts in both. A guess x is kept with probability
min(1, p(x)/q(x)); otherwise a token is drawn from what p has more than q, max(0, p - q). A token t is said with
probability

    q(t) · min(1, p(t)/q(t)) + (1 - Σ min(p, q)) · max(0, p(t) - q(t)) / Σ max(0, p - q)
    = min(p, q)(t) + max(0, p - q)(t) = p(t),        since 1 - Σ min(p, q) = Σ max(0, p - q).

Two things differ from the paper. Rows share one position, so a batch goes on by what its slowest row has decided; the
others decide anew later. And where all guesses are kept, no further token is drawn from p alone. Hence a row decides
each token in the same way with the same numbers of chance, however often it is asked: it says the same alone and in
company.

Glossary: N rows, k guesses, T tokens of a window, M tokens that a row has room for, V vocabulary.
"""

import tensorflow as tf

from tf_llm.contracts import END_ID, PAD_ID, START_ID
from tf_llm.decoding.draws import draw_uniforms
from tf_llm.decoding.strategies import RULES, Talk, draw

GUESS, KEEP, REPLACE = 1, 2, 3  # purposes of what is drawn


def check_draft(model, draft):
    """Raises ValueError where a model cannot guess for another one."""
    for name in ("source_length", "target_length"):
        if getattr(draft.config, name) != getattr(model.config, name):
            raise ValueError(
                f"draft is expected to have the {name} {getattr(model.config, name)} of the model. "
                f"Received: {getattr(draft.config, name)}"
            )
    for each, which in ((model, "model"), (draft, "draft")):
        kinds = {name.rpartition("_")[0] for name in each.empty_cache(1)}
        if kinds != {"keys", "values"}:
            raise ValueError(
                f"{which} is expected to remember keys and values alone where tokens are guessed, since guesses are "
                f"taken back. Received: one that remembers {sorted(kinds)}"
            )


def advance_by_guesses(
    step, guess_step, talk, strategy, until, seeds, num_guesses, window, vocabulary_size, rules=RULES, limits=None
):
    """`strategies.advance`, several tokens at a time.

    Args:
        step: a `contracts.StepFn` of k tokens, of the large model.
        guess_step: a `contracts.StepFn` of one token, of the small one. Both models forget what they were told at a
            position when they are told something else there, as key/value caches do.
        talk: a `Talk` whose state is a pair: the large model's and the small one's.
        strategy: a `Greedy` or a `Sample`.
        until, seeds, rules, limits: see `advance`.
        num_guesses: k, no more than T.
        window, vocabulary_size: T, V.

    Returns:
        The `Talk` after it.
    """

    def share(logits, said, count):
        """What a token is drawn from: logits [N, V] -> probabilities [N, V]."""
        logits = tf.cast(logits, tf.float32)
        for rule in rules:
            logits = rule(logits, said, count)
        end = tf.where(tf.range(logits.shape[-1]) == END_ID, 0.0, logits)  # where the rules leave nothing, a row ends
        logits = tf.where(tf.reduce_any(logits > float("-inf"), axis=1, keepdims=True), logits, end)
        return tf.nn.softmax(strategy.cut(logits))

    def put(buffer, place, column):
        """[N, L] or [N, L, V] with [N] or [N, V] at a place of L."""
        here = tf.range(buffer.shape[1]) == place
        return tf.where(here if len(buffer.shape) == 2 else here[:, None], column[:, None], buffer)

    def say(talk):
        begin, (state, guess_state) = talk, talk.state
        rows = tf.shape(begin.token_ids)[0]
        places, purposes = (
            tf.repeat(begin.count + tf.range(num_guesses), 3),
            tf.tile([GUESS, KEEP, REPLACE], [num_guesses]),
        )
        chance = tf.reshape(draw_uniforms(seeds, places, purposes), [rows, num_guesses, 3])

        # === The small model guesses ===
        def guess(i, last, said, shares, state):
            position = tf.minimum(begin.position + i, window - 1)  # guesses behind the window are never looked at
            logits, state = guess_step(last[:, None], position, state)
            q = share(logits[:, 0], said, begin.count + i)  # [N, V]
            last = draw(q, chance[:, i, 0])  # [N]
            return i + 1, last, put(said, begin.count + i, last), put(shares, i, q), state

        shares = tf.zeros([rows, num_guesses, vocabulary_size])
        start = tf.constant(0), begin.token_ids, begin.said, shares, guess_state
        _, _, guessed, shares, guess_state = tf.while_loop(lambda i, *_: i < num_guesses, guess, start)

        # === The large one reads them: near the end of the window, some earlier tokens again ===
        first = tf.minimum(begin.position, window - num_guesses)
        places = first + tf.range(num_guesses)  # [k], in the window
        read = tf.gather(guessed, tf.maximum(begin.count - begin.position + places - 1, 0), axis=1)  # [N, k]
        logits, state = step(tf.where(places == 0, START_ID, read), first, state)  # [N, k, V]

        # === What stays, until a row has replaced a guess: what it would say next was not asked ===
        def confirm(i, talk, agrees):
            p, q = share(logits[:, talk.position - first], talk.said, talk.count), shares[:, i]  # [N, V]
            guess = guessed[:, talk.count]  # [N]
            kept = chance[:, i, 1] * tf.gather(q, guess, batch_dims=1) < tf.gather(p, guess, batch_dims=1)  # [N]
            more = tf.maximum(p - q, 0.0)
            more = tf.where(tf.reduce_sum(more, axis=1, keepdims=True) > 0, more, p)  # rounding may leave nothing
            token_ids = tf.where(kept, guess, draw(more, chance[:, i, 2]))
            token_ids = tf.where(talk.ended, PAD_ID, token_ids)
            said, count = put(talk.said, talk.count, token_ids), talk.count + 1
            ended = talk.ended | (token_ids == END_ID)
            if limits is not None:
                ended = ended | (count >= limits)
            return i + 1, Talk(talk.position + 1, count, token_ids, ended, said, ()), agrees & kept

        def is_decided(i, talk, agrees):
            return (i < num_guesses) & (talk.position < until) & tf.reduce_all(agrees | talk.ended)

        start = tf.constant(0), begin._replace(state=()), tf.ones_like(begin.ended)
        _, talk, _ = tf.while_loop(is_decided, confirm, start)
        return (talk._replace(state=(state, guess_state)),)

    goes_on = lambda talk: (talk.position < until) & ~tf.reduce_all(talk.ended)  # noqa: E731
    return tf.while_loop(goes_on, say, (talk,))[0]
