"""Text in, text out: a trained model, its tokenizer and what is asked for.

Glossary: N rows, S source length, T target length (tokens of a window), M tokens that a row has room for, R texts a
prompt, W beams, C context length, D width, V vocabulary.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from tf_llm.contracts import END_ID, PAD_ID
from tf_llm.decoding.frames import FRAMES
from tf_llm.decoding.rows import in_batches
from tf_llm.decoding.scoring import embed_sources, score_texts
from tf_llm.decoding.search import search
from tf_llm.decoding.settings import GenerationConfig
from tf_llm.decoding.speculative import check_draft
from tf_llm.decoding.streams import Stream

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
        draft: a small model with the same tokenizer, which guesses what this one then confirms (speculative.py). It
            changes how fast texts come, and not how likely each is. Searches and constraints go without it.
        jit_compile: whether the loop over tokens is compiled by XLA. It says up to twice as many tokens a second then
            (examples/benchmarks/decoding_speed.py), after a first call of each kind (settings, rows, room) that takes
            5 to 10 seconds.

    >>> generate = Generator(model, tokenizer)                                        # doctest: +SKIP
    >>> generate("The transformer architecture", max_new_tokens=12)                   # doctest: +SKIP
    'attention layers, output shape (batch_size, length)'
    >>> generate(["Keras", "TensorFlow"], num_beams=4, no_repeat_ngram_size=3)        # doctest: +SKIP
    >>> for piece in generate.stream("The transformer architecture", temperature=1):  # doctest: +SKIP
    ...     print(piece, end="", flush=True)
    """

    def __init__(self, model, tokenizer, frame="page", config=None, draft=None, jit_compile=False):
        if frame not in FRAMES:
            raise ValueError(f"frame is expected to be one of {sorted(FRAMES)}. Received: {frame!r}")
        if draft is not None:
            check_draft(model, draft)
        self.tokenizer, self.frame = tokenizer, frame
        self.config = config or (GenerationConfig() if frame == "request" else PAGE_CONFIG)
        self.source_length, self.target_length = model.config.source_length, model.config.target_length
        # Sentinels in what is said to a blank are no text.
        self.marks = tokenizer.vocabulary_size - (tokenizer.num_sentinels if frame != "request" else 0)
        self.model, self.draft, self.jit_compile = model, draft, jit_compile
        self.start, self._draft_start = model.build_start(), draft and draft.build_start()
        self._drawn, self._compiled = {}, {}  # the model's graphs of a step, and functions, by what they are for

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
            completions = in_batches(
                lambda batch: search(self, batch, config), prompts, max(1, ROWS // config.num_beams)
            )
        else:
            # A further text of the same prompt has another upper half of its seed.
            configs = [dataclasses.replace(config, seed=config.seed + (i << 32)) for i in range(count)]
            rows = [(ids, one) for ids in prompts for one in configs]
            completions = in_batches(self._say, rows, ROWS)
        if log_probabilities:
            asked = [ids for ids in prompts for _ in range(count)]
            scores = score_texts(self, asked, [completion.ids for completion in completions])
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

    def stream_batch(self, prompts, configs, tokens=1):
        """The same for several prompts at once: a `Stream`, which iterates over lists of one `Piece` a prompt.

        Args:
            prompts: strings, 1 to ROWS of them.
            configs: a `GenerationConfig` for each. They may differ in all but settings.SHARED.
            tokens: how many tokens a step has. More are faster, and cancelled later.
        """
        for config in configs:
            for name in ("num_beams", "num_return_sequences"):
                if getattr(config, name) > 1:
                    raise ValueError(f"{name} is expected to be 1 in a stream. Received: {getattr(config, name)}")
        if not 1 <= len(prompts) <= ROWS or len(prompts) != len(configs):
            received = f"{len(prompts)} prompts and {len(configs)} configs"
            raise ValueError(f"prompts are expected to be 1 to {ROWS}, with a config each. Received: {received}")
        return Stream(self, [self.tokenizer.encode(prompt) for prompt in prompts], configs, tokens=tokens)

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
        scores = score_texts(self, list(map(encode, prompts)), [encode(text) + [END_ID] * with_end for text in texts])
        return scores[0] if one else scores

    def embed(self, texts):
        """What the encoder makes of texts: a string or a list -> float32 [D] or [N, D], of length 1.

        It is the mean of the context over what the source holds: of a page the last S tokens, of a request the first.
        """
        sources = [
            self.frame_ids(self.tokenizer.encode(text)) for text in ([texts] if isinstance(texts, str) else texts)
        ]
        if not sources:
            return np.zeros([0, self.model.config.d_model], "float32")
        vectors = in_batches(lambda batch: embed_sources(self, batch), sources, ROWS)
        return vectors[0] if isinstance(texts, str) else np.stack(vectors)

    # === What it is made of ===

    def frame_ids(self, ids):
        """What the encoder is given of a prompt's ids: at most S."""
        return FRAMES[self.frame](ids, self.source_length, self.tokenizer.vocabulary_size)

    def limit_tokens(self, config):
        """How many tokens may be said: a request has one answer, which a second window would not go on with."""
        return min(config.max_new_tokens, self.target_length) if self.frame == "request" else config.max_new_tokens

    def count_guesses(self, config):
        """How many tokens the draft guesses at a time: 0 where it is not asked."""
        if self.draft is None or config.contrasts or config.constraint is not None:
            return 0
        return min(config.num_assistant_tokens, self.target_length)

    def pad_sources(self, sources, rows):
        """Lists of at most S ids -> int32 [N, S], with empty rows behind them."""
        padded = np.full((rows, self.source_length), PAD_ID, "int32")
        for place, ids in zip(padded, sources, strict=False):
            place[: len(ids)] = ids
        return tf.constant(padded)

    def encode_sources(self, sources, rows, by_draft=False, num_beams=1):
        """Reads sources: lists of ids -> what the steps need of them, and an empty cache, for N rows.

        With several `num_beams` the cache is one that they share.
        """
        model, start = (self.draft, self._draft_start) if by_draft else (self.model, self.start)

        def read(source):
            context = dict(start(source, training=False))
            del context["context"]  # the blocks have made their keys and values of it
            return context, model.empty_cache(rows, **beams)

        beams = {"num_beams": num_beams} if num_beams > 1 else {}
        return self.run(("read", rows, by_draft, num_beams), read, self.pad_sources(sources, rows))

    def bind_step(self, context, num_tokens=1, with_hidden=False, by_draft=False, num_beams=1):
        """A `contracts.StepFn` of the model, for rows whose sources were read.

        `with_hidden`, it returns the hidden vectors [N, K, D] between logits and state. With several `num_beams` its
        tokens are those of as many beams, which share a cache (`beam.share_cache`).
        """
        key = (num_tokens, with_hidden, by_draft, num_beams)
        if key not in self._drawn:
            model, beams = self.draft if by_draft else self.model, {"num_beams": num_beams} if num_beams > 1 else {}
            with tf.init_scope():  # for all graphs, outside of the one that is being made
                self._drawn[key] = model.build_step(num_tokens, with_hidden, **beams)

        def step(token_ids, position, cache):
            inputs = {"token_ids": token_ids, "position": position, **context, **cache}
            logits, *hidden, cache = self._drawn[key](inputs, training=False)
            # The model may have room for more words.
            return logits[:, :, : self.tokenizer.vocabulary_size], *hidden, cache

        return step

    def run(self, key, function, *arguments, is_loop=False):
        """Calls `function` as a graph, which is made once for each `key`: one for arguments of one shape.

        A loop over tokens is many small operations, which XLA joins. What reads many tokens at once is a few large
        products, and TensorFlow's own are as fast.
        """
        if key not in self._compiled:
            graph = tf.function(function, autograph=False, jit_compile=is_loop and self.jit_compile)
            self._compiled[key] = graph.get_concrete_function(*arguments)
        return self._compiled[key](*arguments)

    def _say(self, batch):
        """(ids of a prompt, `GenerationConfig`) each -> `Completion` each."""
        prompts, configs = zip(*batch, strict=True)
        stream = Stream(self, prompts, configs, whole=True)
        for _ in stream:
            pass
        return [text.complete() for text in stream.texts]


def _map(function, completions, prompts):
    found = [[function(c) for c in one] if isinstance(one, list) else function(one) for one in completions]
    return found[0] if isinstance(prompts, str) else found
