"""Text in, text out: a trained model, its tokenizer and a strategy.

Glossary: N rows, S source length, T target length.
"""

import numpy as np
import tensorflow as tf

from tf_llm.contracts import END_ID, MODES, PAD_ID
from tf_llm.decoding.beam import Beam, decode_beams, repeat_rows
from tf_llm.decoding.strategies import Sample, decode


def frame_page(ids, source_length, vocabulary_size):
    """A page that goes on. END_ID in front says that it begins, as in training.

    >>> frame_page([5, 6], 4, 200)
    [1, 5, 6]
    """
    return [END_ID, *ids][-source_length:]


def frame_request(ids, source_length, vocabulary_size):
    """A whole source with END_ID behind it, as T5 is given it.

    >>> frame_request([5, 6], 4, 200)
    [5, 6, 1]
    """
    return [*ids[: source_length - 1], END_ID]


def frame_blank(ids, source_length, vocabulary_size):
    """A text whose end is masked: what a model that was trained on masked spans is asked in place of a page.

    >>> frame_blank([5, 6, 7], 4, 200)
    [6, 7, 199, 1]
    """
    return [*ids[max(0, len(ids) - source_length + 2) :], vocabulary_size - 1, END_ID]


def frame_mode(ids, source_length, vocabulary_size):
    """The same with the mode token of UL2's sequential denoiser in front.

    >>> frame_mode([5, 6, 7], 5, 200)
    [102, 6, 7, 199, 1]
    """
    return [vocabulary_size - 1 - MODES["S"], *frame_blank(ids, source_length - 1, vocabulary_size)]


# What is made of a prompt's ids: a source of at most S. All but "request" go on where a window of T tokens ends.
FRAMES = {"page": frame_page, "request": frame_request, "blank": frame_blank, "mode": frame_mode}


class Generator:
    """Continues texts, or answers them.

    The model was trained to continue a window of S tokens by up to T more. A longer continuation is a chain of such
    windows, just as a page was cut for training: what was said last is the source of what is said next. `Beam` searches
    each window alone and goes on from its best hypothesis; the others are forgotten at its end.

    Args:
        model: has `build_start`, `build_step`, `empty_cache` and `config`, as the models of `build_model` have.
        tokenizer: a `contracts.Tokenizer`.
        frame: how a prompt becomes a source, a key of FRAMES: "page" where the model was trained to continue pages,
            "request" for pairs and T5, "blank" and "mode" for masked spans and UL2's mixture.

    >>> generate = Generator(model, tokenizer)                            # doctest: +SKIP
    >>> generate("The transformer architecture", max_new_tokens=12)       # doctest: +SKIP
    'attention layers, output shape (batch_size, length)'
    """

    def __init__(self, model, tokenizer, frame="page"):
        if frame not in FRAMES:
            raise ValueError(f"frame is expected to be one of {sorted(FRAMES)}. Received: {frame!r}")
        self.tokenizer, self.frame = tokenizer, frame
        self.source_length, self.target_length = model.config.source_length, model.config.target_length
        self._start, self._step, self._empty_cache = model.build_start(), model.build_step(), model.empty_cache
        self._decode = {}  # strategy -> compiled function

    def __call__(self, prompts, max_new_tokens=64, strategy=None, seed=0):
        """Continues one text or a list of texts.

        Args:
            prompts: a string, or a list of strings. Words that the tokenizer does not keep are passed over.
            max_new_tokens: tokens to say at most; a continuation may end earlier by itself.
            strategy: see strategies.py, or a `Beam`; None is `Sample(temperature=0.8, top_k=40)`.
            seed: the same seed gives the same continuation.

        Returns:
            The continuation without the prompt: a string, or a list of strings.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is expected to be at least 1. Received: {max_new_tokens}")
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not texts:
            return []
        read = [self.tokenizer.encode(text) for text in texts]
        if self.frame == "request":  # has one answer, which a second window would not go on with
            max_new_tokens = min(max_new_tokens, self.target_length)
        marks = self.tokenizer.vocabulary_size - (self.tokenizer.num_sentinels if self.frame != "request" else 0)
        said = [[] for _ in texts]
        for round_ in range(-(-max_new_tokens // self.target_length)):
            sources = [self._frame(ids + more) for ids, more in zip(read, said, strict=True)]
            spoken = self._say(sources, strategy, seed + round_)
            for more, row in zip(said, spoken, strict=True):
                if END_ID not in more:
                    more += row[(row != PAD_ID) & (row < marks)].tolist()
            if all(END_ID in more for more in said):
                break
        texts = [self.tokenizer.decode(more[:max_new_tokens]) for more in said]
        return texts[0] if isinstance(prompts, str) else texts

    def _frame(self, ids):
        """What the encoder is given of a prompt's ids: at most S."""
        return FRAMES[self.frame](ids, self.source_length, self.tokenizer.vocabulary_size)

    def _say(self, rows, strategy, seed):
        """What is said to each row of at most S ids: int32 [N, T]."""
        source = np.full((len(rows), self.source_length), PAD_ID, "int32")
        for place, ids in zip(source, rows, strict=True):
            place[: len(ids)] = ids
        strategy = strategy or Sample(temperature=0.8, top_k=40)
        if strategy not in self._decode:
            self._decode[strategy] = tf.function(lambda source, seed: self._run(source, strategy, seed))
        return self._decode[strategy](tf.constant(source), tf.constant(seed)).numpy()

    def _run(self, source, strategy, seed):
        """Encodes once, then decodes with a cache: source int32 [N, S] -> int32 [N, T]."""
        fixed = dict(self._start(source, training=False))
        del fixed["context"]  # the blocks have made their keys and values of it

        def step(token_ids, position, cache):
            inputs = {"token_ids": token_ids, "position": position, **fixed, **cache}
            logits, cache = self._step(inputs, training=False)
            return logits[:, :, : self.tokenizer.vocabulary_size], cache  # the model may have room for more words

        rows = source.shape[0]
        cache = self._empty_cache(rows)
        if isinstance(strategy, Beam):
            fixed = repeat_rows(fixed, strategy.num_beams)
            ids, _ = decode_beams(step, cache, strategy, rows, self.target_length)  # [N, W, T]
            return ids[:, 0]  # the best
        return decode(step, cache, strategy, rows, self.target_length, seed)
