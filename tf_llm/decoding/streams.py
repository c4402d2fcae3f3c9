"""Texts while they are said: a batch of rows goes through its windows, a few tokens at a time.

Glossary: N rows (a power of two, some of them empty), T tokens of a window, M tokens that a row has room for, V
vocabulary, D width.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_llm.contracts import PAD_ID
from tf_llm.decoding import strategies
from tf_llm.decoding.beam import repeat_rows
from tf_llm.decoding.constraints import constrain
from tf_llm.decoding.contrastive import advance_by_contrast, begin_contrast
from tf_llm.decoding.rows import next_power
from tf_llm.decoding.scoring import score_texts
from tf_llm.decoding.settings import choose_rules, choose_strategy, name_shapes, stack_settings
from tf_llm.decoding.speculative import advance_by_guesses
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
        whole: whether nobody looks at the pieces, so that a step may be long.
        tokens: how many a step has otherwise; with a draft model at least as many as it guesses.
    """

    def __init__(self, generator, prompts, configs, whole=False, tokens=1):
        self.generator, self.prompts = generator, prompts
        encode, decode = generator.tokenizer.encode, generator.tokenizer.decode
        limits = [generator.limit_tokens(config) for config in configs]
        self.texts = [
            Text(decode, limit, config.stop_strings, generator.marks)
            for limit, config in zip(limits, configs, strict=True)
        ]
        self._cancelled = set()
        self._padding = next_power(len(prompts)) - len(prompts)
        self._limits = np.array([*limits, *[1] * self._padding], "int32")
        self._config = configs[0]  # for what they have in common
        prefixes = [encode(config.prefix) for config in configs] + [[]] * self._padding
        self._arrays, self._fixed, self._table = stack_settings([*configs, *configs[:1] * self._padding], prefixes)
        self._guesses = generator.count_guesses(self._config)
        self._tokens = max(tokens, self._guesses)
        if whole:
            self._tokens = GLANCE if any(config.stop_strings for config in configs) else generator.target_length
        self._pieces = self._run()

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._pieces)

    def cancel(self, row):
        """Ends a row with the next step; its last piece has the finish_reason "cancelled"."""
        self._cancelled.add(row)

    def score(self, row):
        """The model's own log-probabilities of the tokens that a row has said so far; one more pass of the decoder."""
        return score_texts(self.generator, [self.prompts[row]], [self.texts[row].ids])[0]

    def _run(self):
        rows, length = len(self._limits), self.generator.target_length
        room = length * next_power(-(-int(self._limits.max()) // length))
        advance = self._build_advance(rows)
        key = ("advance", rows, room, self._guesses, *name_shapes(self._arrays, self._fixed, self._table))
        said, count = np.full([rows, room], PAD_ID, "int32"), 0
        while not all(text.finish_reason for text in self.texts):
            context, state = self._read(rows)
            talk = strategies.begin(state, rows, room, tf.constant(said), count)
            while int(talk.position) < length and not all(text.finish_reason for text in self.texts):
                ended = [bool(text.finish_reason) for text in self.texts] + [True] * self._padding
                until = tf.constant(min(int(talk.position) + self._tokens, length))
                talk = talk._replace(ended=tf.constant(ended))
                arguments = context, talk, until, self._arrays, self._limits, self._table
                talk = self.generator.run(key, advance, *arguments, is_loop=True)
                new = talk.said[:, count : int(talk.count)].numpy()
                count = int(talk.count)
                yield [self._say(row, text, new[row]) for row, text in enumerate(self.texts)]
            said = talk.said.numpy()

    def _read(self, rows):
        """What the steps need of the sources of a window, and the state that it begins with."""
        generator, config = self.generator, self._config
        asked = zip(self.prompts, self.texts, strict=True)
        sources = [generator.frame_ids([*ids, *text.shown_ids]) for ids, text in asked]
        context, state = generator.encode_sources(sources, rows)
        if config.contrasts:
            width, words = generator.model.config.d_model, generator.tokenizer.vocabulary_size
            state = begin_contrast(state, rows, generator.target_length, words, width)
        elif config.constraint is not None:
            places = [config.constraint.place(text.ids) for text in self.texts]
            state["places"] = tf.constant(places + [0] * self._padding)
        elif self._guesses:
            draft_context, draft_state = generator.encode_sources(sources, rows, by_draft=True)
            context, state = (context, draft_context), (state, draft_state)
        return context, state

    def _build_advance(self, rows):
        """(context, talk, until, arrays, limits, table) -> talk, as the settings have it."""
        generator, config, fixed, guesses = self.generator, self._config, self._fixed, self._guesses
        window = generator.target_length

        def advance(context, talk, until, arrays, limits, table):
            rules, strategy = choose_rules(arrays, fixed), choose_strategy(arrays, fixed)
            seeds = arrays.get("seeds", tf.zeros([rows, 2], tf.uint32))
            if config.contrasts:
                count, alpha = config.top_k, config.penalty_alpha
                step = generator.bind_step(repeat_rows(context, count), with_hidden=True)
                return advance_by_contrast(step, talk, count, alpha, until, window, rules, limits)
            if guesses:
                step = generator.bind_step(context[0], num_tokens=guesses)
                guess = generator.bind_step(context[1], by_draft=True)
                sizes = guesses, window, generator.tokenizer.vocabulary_size
                return advance_by_guesses(step, guess, talk, strategy, until, seeds, *sizes, rules, limits)
            step = generator.bind_step(context)
            if table:
                step = constrain(step, table, fixed["widest_state"])
            return strategies.advance(step, talk, strategy, until, seeds, rules, limits)

        return advance

    def _say(self, row, text, ids):
        if text.finish_reason:
            return Piece("", None)
        piece = text.finish("cancelled") if row in self._cancelled else text.say(ids)
        return Piece(piece, text.finish_reason)
