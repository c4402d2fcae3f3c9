"""Texts while they are said: a batch of rows goes through its windows, a few tokens at a time.

Glossary: N rows (a power of two, some of them empty), T tokens of a window, M tokens that a row has room for.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_llm.contracts import PAD_ID
from tf_llm.decoding.settings import stack_settings
from tf_llm.decoding.strategies import begin
from tf_llm.decoding.texts import Text

GLANCE = 16  # tokens between two looks for stop strings, where nobody waits for each token


class Piece(NamedTuple):
    """What a step added to a text, and why it ended, if it did with this step (see `Completion.finish_reason`)."""

    text: str
    finish_reason: str | None


class Stream:
    """Iterates over lists of `Piece`s, one for each prompt, until every text has ended.

    Row n's pieces, joined, are what the same prompt and settings give alone and as a whole. A row that has ended goes
    on giving ("", None). Whoever iterates may `cancel` rows in between, from any thread.

    Args:
        generator: a `Generator`.
        prompts: lists of ids.
        configs: a `GenerationConfig` for each.
        tokens: how many tokens a step has; None is as many as can be said unseen.
    """

    def __init__(self, generator, prompts, configs, tokens=1):
        self.generator, self.prompts, self.tokens = generator, prompts, tokens
        encode, decode = generator.tokenizer.encode, generator.tokenizer.decode
        room = generator.target_length  # a request has one answer, which a second window would not go on with
        limits = [min(c.max_new_tokens, room) if generator.frame == "request" else c.max_new_tokens for c in configs]
        self.texts = [
            Text(decode, limit, config.stop_strings, generator.marks)
            for limit, config in zip(limits, configs, strict=True)
        ]
        if tokens is None:
            self.tokens = GLANCE if any(config.stop_strings for config in configs) else room
        self._cancelled = set()
        padding = next_power(len(prompts)) - len(prompts)
        self._limits = np.array([*limits, *[1] * padding], "int32")
        prefixes = [encode(config.prefix) for config in configs] + [[]] * padding
        self._arrays, self._fixed = stack_settings([*configs, *configs[:1] * padding], prefixes)
        self._pieces = self._run(room * next_power(-(-max(limits, default=1) // room)))

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._pieces)

    def cancel(self, row):
        """Ends a row with the next step; its last piece has the finish_reason "cancelled"."""
        self._cancelled.add(row)

    def score(self, row):
        """The model's own log-probabilities of the tokens that a row has said so far; one more pass of the decoder."""
        return self.generator._score([self.prompts[row]], [self.texts[row].ids])[0]

    def _run(self, room):
        generator, rows, length = self.generator, len(self._limits), self.generator.target_length
        advance = generator.compile_advance(rows, room, self._arrays, self._fixed)
        said, count = np.full([rows, room], PAD_ID, "int32"), 0
        while not all(text.finish_reason for text in self.texts):
            context, state = generator.encode_sources(self._sources(), rows)
            talk = begin(state, rows, room, tf.constant(said), count)
            while int(talk.position) < length and not all(text.finish_reason for text in self.texts):
                ended = np.ones(rows, bool)
                ended[: len(self.texts)] = [bool(text.finish_reason) for text in self.texts]
                until = min(int(talk.position) + self.tokens, length)
                talk = advance(
                    context, talk._replace(ended=tf.constant(ended)), tf.constant(until), self._arrays, self._limits
                )
                new = talk.said[:, count : int(talk.count)].numpy()
                count = int(talk.count)
                yield [self._say(row, text, new[row]) for row, text in enumerate(self.texts)]
            said = talk.said.numpy()

    def _sources(self):
        rows = zip(self.prompts, self.texts, strict=True)
        return [self.generator.frame_ids([*ids, *text.shown_ids]) for ids, text in rows]

    def _say(self, row, text, ids):
        if text.finish_reason:
            return Piece("", None)
        piece = text.finish("cancelled") if row in self._cancelled else text.say(ids)
        return Piece(piece, text.finish_reason)


def next_power(number):
    """The least power of two that is no less.

    >>> [next_power(number) for number in (1, 2, 3, 33)]
    [1, 2, 4, 64]
    """
    return 1 << max(0, number - 1).bit_length()
