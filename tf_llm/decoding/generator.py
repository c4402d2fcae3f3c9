"""Text in, text out: a trained model, its tokenizer and what is asked for.

Glossary: N rows, S source length, T target length (tokens of a window), M tokens that a row has room for, R texts a
prompt, W beams, C context length, D width, V vocabulary.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from tf_llm.contracts import END_ID, PAD_ID, START_ID
from tf_llm.decoding import strategies
from tf_llm.decoding.beam import Beam, decode_beams, repeat_rows
from tf_llm.decoding.frames import FRAMES
from tf_llm.decoding.settings import GenerationConfig, choose_rules, choose_strategy, stack_settings
from tf_llm.decoding.streams import Stream, next_power
from tf_llm.decoding.texts import Text

LOGITS = 64_000_000  # numbers that are held at most when texts are scored
ROWS = 64  # that are said together at most; more are said one batch after the other
# What is asked for where nothing else is said: of a page's many continuations, the likeliest soon repeats itself.
PAGE_CONFIG = GenerationConfig(do_sample=True, temperature=0.8, top_k=40)


class Generator:
    """Continues texts, or answers them.

    The model was trained to continue a window of S tokens by up to T more. A longer continuation is a chain of such
    windows, just as a page was cut for training: what was said last is the source of what is said next. A search with
    several beams searches each window alone and goes on from its best hypothesis.

    Args:
        model: has `build_start`, `build_step`, `empty_cache` and `config`, as the models of `build_model` have.
        tokenizer: a `contracts.Tokenizer`.
        frame: how a prompt becomes a source, a key of FRAMES: "page" where the model was trained to continue pages,
            "request" for pairs and T5, "blank" and "mode" for masked spans and UL2's mixture.
        config: a `GenerationConfig`, what is asked for where a call does not say; None draws with temperature 0.8 from
            the 40 likeliest tokens to continue a page, and says the likeliest to answer a request.

    >>> generate = Generator(model, tokenizer)                                        # doctest: +SKIP
    >>> generate("The transformer architecture", max_new_tokens=12)                   # doctest: +SKIP
    'attention layers, output shape (batch_size, length)'
    >>> generate(["Keras", "TensorFlow"], num_beams=4, no_repeat_ngram_size=3)        # doctest: +SKIP
    >>> for piece in generate.stream("The transformer architecture", temperature=1):  # doctest: +SKIP
    ...     print(piece, end="", flush=True)
    """

    def __init__(self, model, tokenizer, frame="page", config=None):
        if frame not in FRAMES:
            raise ValueError(f"frame is expected to be one of {sorted(FRAMES)}. Received: {frame!r}")
        self.tokenizer, self.frame = tokenizer, frame
        self.config = config or (GenerationConfig() if frame == "request" else PAGE_CONFIG)
        self.source_length, self.target_length = model.config.source_length, model.config.target_length
        # Sentinels in what is said to a blank are no text.
        self.marks = tokenizer.vocabulary_size - (tokenizer.num_sentinels if frame != "request" else 0)
        self.model = self._model = model
        self._start, self._step = model.build_start(), model.build_step()
        self._whole_step = None  # of T tokens at once, drawn when it is needed
        self._graphs = {}  # what they are for -> compiled functions

    # === What a user calls ===

    def __call__(self, prompts, config=None, **settings):
        """Continues or answers one text or a list of texts.

        Args:
            prompts: a string, or a list of strings. Words that the tokenizer does not keep are passed over.
            config: a `GenerationConfig`; None is the generator's own.
            settings: fields of `GenerationConfig` that differ from it, such as max_new_tokens, temperature, num_beams.

        Returns:
            What was said, without the prompt: a string, or a list of strings. With num_return_sequences above 1 a list
            in place of each string.
        """
        return _map(lambda completion: completion.text, self.complete(prompts, config, **settings), prompts)

    def complete(self, prompts, config=None, log_probabilities=False, **settings):
        """The same, as `Completion`s: a list of one a prompt (a single prompt is a list of one), or with
        num_return_sequences above 1 a list of lists.

        Args:
            prompts, config, settings: see `__call__`.
            log_probabilities: whether those of the tokens are wanted; they cost one more pass of the decoder.
        """
        config = (config or self.config).with_settings(**settings)
        prompts = [self.tokenizer.encode(prompt) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
        count = config.num_return_sequences
        if config.num_beams > 1:
            completions = self._in_batches(lambda batch: self._search(batch, config), prompts, config.num_beams)
        else:
            # A further text of the same prompt has another upper half of its seed.
            configs = [dataclasses.replace(config, seed=config.seed + (i << 32)) for i in range(count)]
            rows = [(ids, one) for ids in prompts for one in configs]
            completions = self._in_batches(self._say, rows)
        if log_probabilities:
            asked = [ids for ids in prompts for _ in range(count)]
            scores = self._score(asked, [completion.ids for completion in completions])
            completions = [
                dataclasses.replace(completion, log_probabilities=score)
                for completion, score in zip(completions, scores, strict=True)
            ]
        if count == 1:
            return completions
        return [completions[i : i + count] for i in range(0, len(completions), count)]

    def stream(self, prompt, config=None, **settings):
        """Iterates over pieces of what `__call__` returns, each as soon as it is said and can no longer change.

        Raises:
            ValueError: a search or several texts are asked for, which have no pieces.
        """
        config = (config or self.config).with_settings(**settings)
        stream = self.stream_batch([prompt], [config])
        return (pieces[0].text for pieces in stream if pieces[0].text)

    def stream_batch(self, prompts, configs):
        """The same for several prompts at once: a `Stream`, which iterates over lists of one `Piece` a prompt.

        Args:
            prompts: strings, at most ROWS.
            configs: a `GenerationConfig` for each. They may differ in all but settings.SHARED.
        """
        for config in configs:
            for name in ("num_beams", "num_return_sequences"):
                if getattr(config, name) > 1:
                    raise ValueError(f"{name} is expected to be 1 in a stream. Received: {getattr(config, name)}")
        if len(prompts) > ROWS or len(prompts) != len(configs):
            received = f"{len(prompts)} prompts and {len(configs)} configs"
            raise ValueError(f"prompts are expected to be at most {ROWS}, with a config each. Received: {received}")
        return Stream(self, [self.tokenizer.encode(prompt) for prompt in prompts], configs)

    def score(self, prompts, texts, with_end=False):
        """How likely the model finds each token of given texts.

        Args:
            prompts: a string or a list.
            texts: a string or a list, one for each prompt: what is to be said to it.
            with_end: whether the text is to end there, which is one more token.

        Returns:
            A list of log-probabilities, one for each token of the text; a list of such lists for lists.
        """
        one = isinstance(prompts, str)
        prompts, texts = ([prompts], [texts]) if one else (list(prompts), list(texts))
        if len(prompts) != len(texts):
            raise ValueError(f"texts are expected to be {len(prompts)}, one a prompt. Received: {len(texts)}")
        encode = self.tokenizer.encode
        scores = self._score(map(encode, prompts), [encode(text) + [END_ID] * with_end for text in texts])
        return scores[0] if one else scores

    def embed(self, texts):
        """What the encoder makes of texts: a string or a list -> float32 [D] or [N, D], of length 1.

        It is the mean of the context over what the source holds: of a page the last S tokens, of a request the first.
        """
        sources = [
            self.frame_ids(self.tokenizer.encode(text)) for text in ([texts] if isinstance(texts, str) else texts)
        ]
        if not sources:
            return np.zeros([0, self._model.config.d_model], "float32")
        vectors = self._in_batches(self._embed, sources)
        return vectors[0] if isinstance(texts, str) else np.stack(vectors)

    # === What it is made of ===

    def frame_ids(self, ids):
        """What the encoder is given of a prompt's ids: at most S."""
        return FRAMES[self.frame](ids, self.source_length, self.tokenizer.vocabulary_size)

    def encode_sources(self, sources, rows):
        """Lists of at most S ids, and empty rows behind them -> what the steps read of them, and an empty cache."""

        def start(source):
            context = dict(self._start(source, training=False))
            del context["context"]  # the blocks have made their keys and values of it
            return context, self._model.empty_cache(rows)

        return self._compile(("start", rows), start)(self._pad(sources, rows))

    def compile_advance(self, rows, room, arrays, fixed):
        """`strategies.advance` for so many rows: (context, talk, until, arrays, limits) -> talk.

        Args:
            rows, room: N, M.
            arrays, fixed: what `stack_settings` returns; the graph is made for the names of the arrays alone.
        """

        def advance(context, talk, until, arrays, limits):
            strategy, rules = choose_strategy(arrays, fixed), choose_rules(arrays, fixed)
            return strategies.advance(
                self.bind_step(context), talk, strategy, until, arrays.get("seeds"), rules, limits
            )

        widths = [(name, array.shape[1:]) for name, array in sorted(arrays.items())]
        return self._compile(("advance", rows, room, *widths, *sorted(fixed.items())), advance)

    def bind_step(self, context, model_step=None):
        """A `contracts.StepFn` of the model, for rows whose sources were read."""
        model_step = model_step or self._step

        def step(token_ids, position, cache):
            inputs = {"token_ids": token_ids, "position": position, **context, **cache}
            logits, cache = model_step(inputs, training=False)
            return logits[:, :, : self.tokenizer.vocabulary_size], cache  # the model may have room for more words

        return step

    def _pad(self, sources, rows):
        padded = np.full((rows, self.source_length), PAD_ID, "int32")  # [N, S]
        for place, ids in zip(padded, sources, strict=False):
            place[: len(ids)] = ids
        return tf.constant(padded)

    def _compile(self, key, function):
        if key not in self._graphs:
            self._graphs[key] = tf.function(function)
        return self._graphs[key]

    def _in_batches(self, function, rows, width=1):
        size = max(1, ROWS // width)
        return [result for i in range(0, len(rows), size) for result in function(rows[i : i + size])]

    def _say(self, batch):
        """(ids of a prompt, `GenerationConfig`) each -> `Completion` each."""
        prompts, configs = zip(*batch, strict=True)
        stream = Stream(self, prompts, configs, tokens=None)
        for _ in stream:
            pass
        return [text.complete() for text in stream.texts]

    def _search(self, prompts, config):
        """Ids of prompts -> R `Completion`s for each, the best first, in one list."""
        rows, length, count = next_power(len(prompts)), self.target_length, config.num_return_sequences
        limit = min(config.max_new_tokens, length) if self.frame == "request" else config.max_new_tokens
        if count > 1 and limit > length:
            raise ValueError(
                f"max_new_tokens is expected to be at most {length}, one window of the model, where a search is to "
                f"return several texts. Received: {limit}"
            )
        new_text = lambda: Text(self.tokenizer.decode, limit, config.stop_strings, self.marks)  # noqa: E731
        texts = [[new_text() for _ in range(count)] for _ in prompts]
        room = length * next_power(-(-limit // length))
        arrays, fixed = stack_settings([config] * rows, [self.tokenizer.encode(config.prefix)] * rows)
        search = self._compile_search(rows, room, config, arrays, fixed)
        said = np.full([rows, room], PAD_ID, "int32")
        for begin in range(0, limit, length):
            ended = np.array([row[0].finish_reason is not None for row in texts] + [True] * (rows - len(texts)))
            if ended.all():
                break
            sources = [self.frame_ids([*ids, *row[0].shown_ids]) for ids, row in zip(prompts, texts, strict=True)]
            context, state = self.encode_sources(sources, rows)
            window = tf.constant(min(length, limit - begin))
            ids = search(context, state, said, tf.constant(begin), window, ended, arrays).numpy()  # [N, W, M]
            for row, found in zip(texts, ids, strict=False):
                for text, hypothesis in zip(row, found[:, begin:], strict=False):
                    text.say(hypothesis[hypothesis != PAD_ID])
            said = ids[:, 0]
        for row in texts:
            for text in row:
                text.finish("stop")  # where nothing could be said
        return [text.complete() for row in texts for text in row]

    def _compile_search(self, rows, room, config, arrays, fixed):
        beam = Beam(
            num_beams=config.num_beams,
            length_penalty=config.length_penalty,
            num_return_sequences=config.num_return_sequences,
            manner=config.beam_manner,
        )

        def search(context, state, said, count, limit, ended, arrays):
            step = self.bind_step(repeat_rows(context, beam.num_beams))
            rules = choose_rules(repeat_rows(arrays, beam.num_beams), fixed)
            ids, _ = decode_beams(step, state, beam, rows, self.target_length, rules, said, count, limit, ended)
            return ids

        widths = [(name, array.shape[1:]) for name, array in sorted(arrays.items())]
        return self._compile(("search", rows, room, beam, *widths, *sorted(fixed.items())), search)

    def _score(self, prompts, texts):
        """Ids of prompts and of texts -> lists of log-probabilities. Each window of each text is a row."""
        length, rows, owners = self.target_length, [], []
        scores = [[] for _ in texts]
        for owner, (prompt, ids) in enumerate(zip(prompts, texts, strict=True)):
            if self.frame == "request" and len(ids) > length:
                raise ValueError(f"texts are expected to have at most {length} tokens. Received: {len(ids)}")
            for begin in range(0, len(ids), length):
                before = [token_id for token_id in ids[:begin] if token_id < self.marks]
                rows.append((self.frame_ids([*prompt, *before]), ids[begin : begin + length]))
                owners.append(owner)
        logits_of_a_row = length * self.tokenizer.vocabulary_size
        found = self._in_batches(self._score_windows, rows, max(1, ROWS * logits_of_a_row // LOGITS))
        for owner, window in zip(owners, found, strict=True):
            scores[owner] += window
        return scores

    def _score_windows(self, batch):
        rows = next_power(len(batch))
        targets = np.full([rows, self.target_length], PAD_ID, "int32")
        for place, (_, ids) in zip(targets, batch, strict=False):
            place[: len(ids)] = ids
        context, state = self.encode_sources([source for source, _ in batch], rows)
        if self._whole_step is None:
            self._whole_step = self._model.build_step(self.target_length)

        def score(context, state, targets):
            step = self.bind_step(context, self._whole_step)
            before = tf.concat([tf.fill([rows, 1], START_ID), targets[:, :-1]], axis=1)  # [N, T]
            logits, _ = step(before, tf.constant(0), state)  # [N, T, V]
            logs = tf.nn.log_softmax(tf.cast(logits, tf.float32))
            return tf.gather(logs, targets, batch_dims=2)  # [N, T]

        found = self._compile(("score", rows), score)(context, state, tf.constant(targets)).numpy()
        return [row[: len(ids)].tolist() for row, (_, ids) in zip(found, batch, strict=False)]

    def _embed(self, sources):
        rows = next_power(len(sources))

        def embed(source):
            read = self._start(source, training=False)
            weights = tf.cast(read["context_mask"], tf.float32)[:, :, None]  # [N, C, 1]
            total = tf.reduce_sum(tf.cast(read["context"], tf.float32) * weights, axis=1)  # [N, D]
            return tf.math.l2_normalize(total, axis=1)  # the length of the mean is that of the sum

        return list(self._compile(("embed", rows), embed)(self._pad(sources, rows)).numpy()[: len(sources)])


def _map(function, completions, prompts):
    found = [[function(c) for c in one] if isinstance(one, list) else function(one) for one in completions]
    return found[0] if isinstance(prompts, str) else found
