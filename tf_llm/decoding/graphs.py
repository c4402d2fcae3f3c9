"""Text in, text out inside one TensorFlow graph: what `Generator` does in Python between its graphs, as ops.

Strings become ids, ids a source, the encoder reads it, a loop over windows says tokens with the cache, and what it said
becomes text again; nothing of it returns to Python. So the whole can be saved (export.py) and served where there is no
tf_llm. The tests compare it with `Generator`, text by text.

Glossary: N rows, S source length, T target length (tokens of a window), M tokens that a row has room for, L tokens of
the longest text, W beams, C context length, D width, V vocabulary.
"""

import tensorflow as tf

from tf_llm.contracts import END_ID, PAD_ID, START_ID
from tf_llm.decoding import strategies
from tf_llm.decoding.beam import Beam, decode_beams, repeat_rows
from tf_llm.decoding.constraints import constrain
from tf_llm.decoding.contrastive import advance_by_contrast, begin_contrast
from tf_llm.decoding.frames import GRAPH_FRAMES
from tf_llm.decoding.settings import choose_rules, choose_strategy, stack_settings
from tf_llm.decoding.streams import GLANCE


class TextGraph:
    """The parts of a `Generator`, drawn for settings that are known beforehand.

    Args:
        generate: a `Generator`.
        config: a `GenerationConfig`; one text a prompt.
    """

    def __init__(self, generate, config):
        self.generate, self.config, self.tokenizer = generate, config, generate.tokenizer
        self.window, self.marks = generate.target_length, generate.marks  # T
        self.limit = generate.limit_tokens(config)
        self.room = self.window * -(-self.limit // self.window)  # M
        self.arrays, self.fixed, self.table = stack_settings([config], [self.tokenizer.encode(config.prefix)])
        if self.table and self.limit > self.window:
            raise ValueError(
                f"max_new_tokens is expected to be at most {self.window}, one window of the model, in a graph with a "
                f"constraint. Received: {self.limit}"
            )

    # === What is asked for ===

    def say(self, prompts, limits=None, **settings):
        """Continues or answers texts: string [N] -> string [N].

        Args:
            prompts: string [N].
            limits: int32 [1] or [N], tokens at most, or None; not with beams.
            settings: what to put in the place of `stack_settings`' arrays: temperature float32, seeds uint32 […, 2].
        """
        prompt_ids = self.tokenizer.graph_encode(prompts)  # [N, None]
        rows = tf.shape(prompts)[0]
        arrays = {name: spread(array, rows) for name, array in (self.arrays | settings).items()}
        limits = spread([self.limit] if limits is None else limits, rows)
        say_window = self._search_window if self.config.num_beams > 1 else self._say_window

        def go_on(count, said, ended):
            source = self._frame(tf.concat([prompt_ids, self._shown(said[:, :count])], axis=1))
            said, ended = say_window(*self._read(source), said, count, ended, limits, arrays)
            return count + self.window, said, ended

        goes_on = lambda count, said, ended: (count < self.limit) & ~tf.reduce_all(ended)  # noqa: E731
        start = tf.constant(0), tf.fill([rows, self.room], PAD_ID), tf.zeros([rows], tf.bool)
        _, said, _ = tf.while_loop(goes_on, go_on, start)
        return self._write(said)

    def score(self, prompts, texts):
        """How likely the model finds the tokens of given texts.

        Args:
            prompts, texts: string [N] each.

        Returns:
            Log-probabilities float32 [N, L], 0 behind shorter texts, and how many tokens each text has, int32 [N].
        """
        rows, window = tf.shape(prompts)[0], self.window
        prompt_ids, ids = self.tokenizer.graph_encode(prompts), self.tokenizer.graph_encode(texts)
        lengths = tf.cast(ids.row_lengths(), tf.int32)  # [N]
        longest = tf.reduce_max(tf.concat([lengths, [0]], axis=0))  # L
        if self.generate.frame == "request":
            check(longest <= window, f"texts are expected to have at most {window} tokens. Received:", longest)

        def go_on(begin, found):
            before = tf.ragged.boolean_mask(ids[:, :begin], ids[:, :begin] < self.marks)
            context, cache = self._read(self._frame(tf.concat([prompt_ids, before], axis=1)))
            wanted = ids[:, begin : begin + window].to_tensor(PAD_ID, shape=[None, window])  # [N, T]
            told = tf.concat([tf.fill([rows, 1], START_ID), wanted[:, :-1]], axis=1)  # [N, T]
            logits, _ = self.generate.bind_step(context, window)(told, tf.constant(0), cache)  # [N, T, V]
            logs = tf.gather(tf.nn.log_softmax(tf.cast(logits, tf.float32)), wanted, batch_dims=2)  # [N, T]
            return begin + window, tf.concat([found, logs], axis=1)

        shapes = tf.TensorShape([]), tf.TensorShape([None, None])
        start = tf.constant(0), tf.zeros([rows, 0])
        _, found = tf.while_loop(lambda begin, _: begin < longest, go_on, start, shape_invariants=shapes)
        return tf.where(tf.sequence_mask(lengths, longest), found[:, :longest], 0.0), lengths

    def embed(self, texts):
        """The mean of the context over what each source holds, of length 1: string [N] -> float32 [N, D]."""
        read = self.generate.start(self._frame(self.tokenizer.graph_encode(texts)), training=False)
        weights = tf.cast(read["context_mask"], tf.float32)[:, :, None]  # [N, C, 1]
        total = tf.reduce_sum(tf.cast(read["context"], tf.float32) * weights, axis=1)  # [N, D]
        return tf.math.l2_normalize(total, axis=1)  # of length 1, sum and mean are the same

    # === What it is made of ===

    def _frame(self, ids):
        """Ids [N, None] -> a source int32 [N, S]."""
        source_length = self.generate.source_length
        ids = GRAPH_FRAMES[self.generate.frame](ids, source_length, self.tokenizer.vocabulary_size)
        return ids.to_tensor(PAD_ID, shape=[None, source_length])

    def _read(self, source):
        """A source int32 [N, S] -> what the steps need of it, and an empty cache."""
        context = dict(self.generate.start(source, training=False))
        del context["context"]  # the blocks have made their keys and values of it
        return context, self.generate.model.empty_cache(tf.shape(source)[0])

    def _say_window(self, context, cache, said, count, ended, limits, arrays):
        """Says up to T tokens: said [N, M] and ended [N] -> the same after it."""
        rows, glance = tf.shape(said)[0], GLANCE if self.config.stop_strings else self.window
        advance, state = self._choose_advance(context, cache, rows, limits, arrays)

        def say(talk):
            talk = advance(talk, tf.minimum(talk.position + glance, self.window))
            return (talk._replace(ended=talk.ended | self._has_stopped(talk.said)),)

        talk = strategies.begin(state, rows, self.room, said, count, ended)
        goes_on = lambda talk: (talk.position < self.window) & ~tf.reduce_all(talk.ended)  # noqa: E731
        talk = tf.while_loop(goes_on, say, (talk,))[0]
        return talk.said, talk.ended

    def _choose_advance(self, context, cache, rows, limits, arrays):
        """(talk, until) -> talk, and the state of a window's first `Talk`."""
        strategy, rules = choose_strategy(arrays, self.fixed), choose_rules(arrays, self.fixed)
        if self.config.contrasts:
            count, alpha = self.config.top_k, self.config.penalty_alpha
            width, words = self.generate.model.config.d_model, self.tokenizer.vocabulary_size
            step = self.generate.bind_step(repeat_rows(context, count), with_hidden=True)
            return (
                lambda talk, until: advance_by_contrast(step, talk, count, alpha, until, self.window, rules, limits),
                begin_contrast(cache, rows, self.window, words, width),
            )
        step, state = self._constrain(self.generate.bind_step(context), cache, rows)
        seeds = arrays.get("seeds")
        return lambda talk, until: strategies.advance(step, talk, strategy, until, seeds, rules, limits), state

    def _search_window(self, context, cache, said, count, ended, limits, arrays):
        """The same by a search, of which the best hypothesis is said."""
        beam = Beam(
            num_beams=self.config.num_beams,
            length_penalty=self.config.length_penalty,
            manner=self.config.beam_manner,
        )
        rows = tf.shape(said)[0]
        step = self.generate.bind_step(repeat_rows(context, beam.num_beams))
        step, state = self._constrain(step, cache, rows)
        rules = choose_rules(repeat_rows(arrays, beam.num_beams), self.fixed)
        most = tf.minimum(self.window, self.limit - count)
        found, _ = decode_beams(step, state, beam, rows, self.window, rules, said, count, most, ended)  # [N, W, M]
        best = tf.ensure_shape(found[:, 0], [None, self.room])  # [N, M]
        said = tf.where(ended[:, None], said, best)
        return said, ended | tf.reduce_any(said == END_ID, axis=1) | self._has_stopped(said)

    def _constrain(self, step, cache, rows):
        """A step function and the state of its first step; with a constraint, those that obey it."""
        if not self.table:
            return step, cache
        return constrain(step, self.table, self.fixed["widest_state"]), {**cache, "places": tf.zeros([rows], tf.int32)}

    def _shown(self, said):
        """What was said as text goes on from it, without padding and sentinels: int32 [N, M] -> [N, None]."""
        return tf.ragged.boolean_mask(said, (said != PAD_ID) & (said < self.marks))

    def _write(self, said):
        """int32 [N, M] -> string [N], cut at a stop string."""
        texts = self.tokenizer.graph_decode(tf.where(said < self.marks, said, PAD_ID))
        lengths = find_stops(texts, self.config.stop_strings)
        return tf.strings.substr(texts, tf.zeros_like(lengths), lengths)

    def _has_stopped(self, said):
        """Whether a stop string is complete: int32 [N, M] -> bool [N]."""
        if not self.config.stop_strings:
            return tf.zeros([tf.shape(said)[0]], tf.bool)
        texts = self.tokenizer.graph_decode(tf.where(said < self.marks, said, PAD_ID))
        return find_stops(texts, self.config.stop_strings) < tf.strings.length(texts)


def find_stops(texts, stop_strings):
    """`texts.find_stop` of each text: string [N] -> int32 [N], in bytes; the length of the text where there is none.

    >>> find_stops(tf.constant(["one two three", "four"]), ("three", "o t", "two")).numpy().tolist()
    [4, 4]
    """
    lengths, ends, begins = tf.strings.length(texts), [], []  # [N]
    if not stop_strings:
        return lengths
    for stop in (stop.encode() for stop in stop_strings):
        parts = tf.strings.split(texts, stop, maxsplit=1)  # [N, 1 or 2]
        begins.append(tf.strings.length(tf.gather(parts.values, parts.row_starts())))  # [N]
        ends.append(tf.where(begins[-1] < lengths, begins[-1] + len(stop), tf.int32.max))
    begins, ends = tf.stack(begins, axis=1), tf.stack(ends, axis=1)  # [N, stops]
    first = tf.reduce_min(ends, axis=1, keepdims=True)  # [N, 1]; of several that end there, the longest
    return tf.reduce_min(tf.where(ends == first, begins, lengths[:, None]), axis=1)


def spread(setting, rows):
    """Gives each row the one setting there is, or its own: [1, …] or [N, …] -> [N, …]."""
    setting = tf.convert_to_tensor(setting)
    spread_out = tf.broadcast_to(setting, tf.concat([[rows], tf.shape(setting)[1:]], axis=0))
    return tf.ensure_shape(spread_out, [None, *setting.shape[1:]])


def check(condition, message, *received):
    """An InvalidArgumentError of the graph where bool [] is False."""
    tf.debugging.Assert(condition, [message, *received])
