"""From the model's logits to the next token, again and again. Nothing here knows what kind of model gives the logits.

A strategy chooses one token a row. `advance` calls the model's step, the rules (logits.py) and the strategy for as many
tokens as it is told, as one loop in the graph; `decode` is all of it at once. Both are the same loop, so a text that is
asked for token by token is the text that is asked for as a whole. The search over several hypotheses is in beam.py.

Glossary: N rows, T tokens of a window, M tokens that a row has room for in all its windows, V vocabulary.
"""

import dataclasses
from typing import Any, NamedTuple

import tensorflow as tf

from tf_llm.contracts import END_ID, PAD_ID, START_ID
from tf_llm.decoding import logits as cuts
from tf_llm.decoding.draws import draw_uniforms, split_seeds
from tf_llm.decoding.logits import Never, as_column

RULES = (Never(),)  # what holds where nothing else is said


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy:
    """Always the likeliest token.

    >>> Greedy()(tf.constant([[0.1, 0.9, 0.3]]), seeds=None, count=0).numpy().tolist()
    [1]
    """

    def cut(self, logits):
        """What `Sample.cut` is: the likeliest token alone."""
        return Sample(temperature=0).cut(logits)

    def __call__(self, logits, seeds, count):
        """Logits [N, V] -> ids int32 [N]."""
        return tf.argmax(logits, axis=-1, output_type=tf.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """A token drawn by its probability, after the logits were sharpened and the least likely ones cut off.

    Each setting is a number, or a tensor [N] of one for each row. The cuts are made in the order of the fields, each on
    what the last one left.
    """

    temperature: Any = 1.0  # logits are divided by it: below 1 the likely becomes likelier; 0 says the likeliest
    top_k: Any = 0  # draw from so many of the likeliest tokens; 0 draws from all
    top_p: Any = 1.0  # draw from the fewest tokens that together have this probability
    min_p: Any = 0.0  # draw from tokens that have this share of the likeliest one's probability
    typical_p: Any = 1.0  # draw from the most typical tokens that together have this probability
    widest: int = 0  # where top_k is a tensor, what none of its entries exceeds

    def __post_init__(self):
        for name, (least, most) in SHARES.items():
            setting = getattr(self, name)
            if not tf.is_tensor(setting) and not least <= setting <= most:
                bounds = f"at least {least}" if most == float("inf") else f"in [{least}, {most}]"
                raise ValueError(f"{name} is expected to be {bounds}. Received: {setting}")

    def cut(self, logits):
        """The logits that are drawn from: [N, V] -> [N, V]."""
        temperature = as_column(self.temperature, logits.dtype)
        is_cold = temperature < COLD
        likeliest = tf.one_hot(tf.argmax(logits, axis=-1), logits.shape[-1], on_value=True, off_value=False)  # [N, V]
        logits = cuts.hide_where(is_cold & ~likeliest, logits / tf.where(is_cold, 1.0, temperature))
        if tf.is_tensor(self.top_k) or self.top_k:
            logits = cuts.keep_top_k(logits, self.top_k, self.widest or self.top_k)
        for name, keep, all_ in (
            ("top_p", cuts.keep_top_p, 1.0),
            ("min_p", cuts.keep_min_p, 0.0),
            ("typical_p", cuts.keep_typical, 1.0),
        ):
            setting = getattr(self, name)
            if tf.is_tensor(setting) or setting != all_:
                logits = keep(logits, setting)
        return logits

    def __call__(self, logits, seeds, count):
        """Logits [N, V], uint32 [N, 2] and the number of the token int32 [] -> ids int32 [N]."""
        return draw(tf.nn.softmax(self.cut(logits)), draw_uniforms(seeds, count))


COLD = 1e-6  # temperatures below are 0: logits that were divided by them might be infinite
# Least and most of each setting.
SHARES = {
    "temperature": (0, float("inf")),
    "top_k": (0, float("inf")),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
}


def draw(shares, uniforms):
    """The token in whose part of the line from 0 to 1 a number falls: shares [N, V], uniforms [N] -> ids int32 [N].

    Shares need not add up to 1. What has none is never drawn.

    >>> draw(tf.constant([[0.2, 0.0, 0.8]] * 3), tf.constant([0.1, 0.2, 0.999])).numpy().tolist()
    [0, 2, 2]
    """
    ends = tf.cumsum(shares, axis=-1)  # [N, V], where each token's part ends
    return tf.reduce_sum(tf.cast(ends <= uniforms[:, None] * ends[:, -1:], tf.int32), axis=-1)


class Talk(NamedTuple):
    """How far the rows have come. A long text is a chain of windows; each begins with a new state at position 0."""

    position: Any  # int32 [], where the next token stands in its window
    count: Any  # int32 [], tokens said in all windows
    token_ids: Any  # int32 [N], the last ones
    ended: Any  # bool [N]
    said: Any  # int32 [N, M], END_ID where a row ended, PAD_ID behind it
    state: Any  # the model's: a structure of tensors that lead with N


def begin(state, num_rows, room, said=None, count=0, ended=None):
    """The `Talk` at the beginning of a window.

    Args:
        state: what the first step is given.
        num_rows, room: N, M.
        said: int32 [N, M], what was said in earlier windows.
        count: how many tokens that is.
        ended: bool [N], rows that say nothing more.
    """
    return Talk(
        tf.constant(0),
        tf.convert_to_tensor(count, tf.int32),
        tf.fill([num_rows], START_ID),
        tf.zeros([num_rows], tf.bool) if ended is None else ended,
        tf.fill([num_rows, room], PAD_ID) if said is None else said,
        state,
    )


def advance(step, talk, strategy, until, seeds, rules=RULES, limits=None):
    """Says tokens up to the position `until`, as one loop in the graph, which stops as soon as every row has ended.

    Args:
        step: a `contracts.StepFn`: (token_ids [N, 1], position, state) -> (logits [N, 1, V], state).
        talk: a `Talk`.
        strategy: (logits [N, V], seeds, count []) -> ids int32 [N].
        until: int32 [], no more than T.
        seeds: uint32 [N, 2] (`draws.split_seeds`), of all that is drawn.
        rules: see logits.py; they are applied one after the other. Where they leave nothing, a row ends.
        limits: int32 [N], tokens after which a row ends at the latest, or None.

    Returns:
        The `Talk` after it.
    """

    def say(talk):
        logits, state = step(talk.token_ids[:, None], talk.position, talk.state)
        logits = tf.cast(logits[:, 0], tf.float32)  # [N, V]
        for rule in rules:
            logits = rule(logits, talk.said, talk.count)
        chosen = strategy(logits, seeds, talk.count)  # [N]
        possible = tf.gather(logits, chosen, batch_dims=1) > float("-inf")  # [N]
        token_ids = tf.where(talk.ended, PAD_ID, tf.where(possible, chosen, END_ID))  # [N]
        said = tf.where(tf.range(talk.said.shape[1]) == talk.count, token_ids[:, None], talk.said)  # [N, M]
        ended, count = talk.ended | (token_ids == END_ID), talk.count + 1
        if limits is not None:
            ended = ended | (count >= limits)
        return (Talk(talk.position + 1, count, token_ids, ended, said, state),)

    goes_on = lambda talk: (talk.position < until) & ~tf.reduce_all(talk.ended)  # noqa: E731
    return tf.while_loop(goes_on, say, (talk,))[0]


def decode(step, state, strategy, num_rows, max_tokens, seed=0, rules=RULES):
    """Says up to `max_tokens` tokens a row in one window.

    Args:
        step, strategy, rules: see `advance`.
        state: what the first step is given; a dictionary of tensors that lead with N.
        num_rows: N.
        max_tokens: T.
        seed: of all that is drawn, a whole number; row n draws with seed + n, so that equal rows say different things.

    Returns:
        ids int32 [N, T]: what was said, END_ID where a row ended, PAD_ID behind it.
    """
    seeds = tf.constant(split_seeds([seed + row for row in range(num_rows)]))
    return advance(step, begin(dict(state), num_rows, max_tokens), strategy, max_tokens, seeds, rules).said
