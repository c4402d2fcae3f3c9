"""Whole sets of settings with a name. A recipe is a function that returns a `RunConfig`; add one by writing one."""

import dataclasses

from tf_llm.config import RunConfig
from tf_llm.data.denoising import plan_lengths
from tf_llm.data.objectives import ObjectiveConfig
from tf_llm.data.shards import ShardConfig
from tf_llm.model.config import ModelConfig
from tf_llm.text.words import WordsConfig
from tf_llm.training.optimizers import TrainingConfig


def article():
    """What the article says, to the letter; BUILD_NOTES.md maps its sentences to these settings.

    >>> article().training.learning_rate, article().model.context, article().model.output_l2
    (0.0001, 'vector', 0.01)
    """
    return RunConfig(
        recipe="article",
        words=WordsConfig(vocabulary_size=8_000),
        shards=ShardConfig(block_length=128, overlap=64, validation_fraction=0.05),
        model=ModelConfig(vocabulary_size=8_003, context="vector", positions="learned"),
        training=TrainingConfig(optimizer="adam", learning_rate=1e-4, schedule="constant"),
    )


def transformer():
    """The transformer that the article links to, that of the TensorFlow Models (Vaswani et al. 2017, norms first).

    It reads and writes pieces of words, and throws nothing away. What is not its own is its size, the article's here,
    and the length of the warm-up: theirs are 16,000 of 300,000 steps, and minutes have room for hundreds. The rate at
    the end of the warm-up is theirs, 2 · d_model^-½ · 16,000^-½.

    >>> transformer().model.embeddings, transformer().training.label_smoothing
    ('all', 0.1)
    """
    start = article()
    return dataclasses.replace(
        start,
        recipe="transformer",
        tokens="unigram",
        model=dataclasses.replace(
            start.model,
            context="sequence",
            positions="sinusoidal",
            embeddings="all",
            embedding_scale=True,
            input_norm="none",
            output_bias=False,
            output_l2=0.0,
            embedding_dropout=0.1,
            attention_dropout=0.1,
            feed_forward_dropout=0.1,
            residual_dropout=0.1,
        ),
        training=dataclasses.replace(
            start.training,
            optimizer="adam_transformer",
            learning_rate=9.9e-4,
            schedule="inverse_square_root",
            warmup_steps=30,
            label_smoothing=0.1,
        ),
    )


def t5():
    """T5 version 1.1 (Raffel et al. 2020; Shazeer 2020): masked spans are to be said, in windows that are always full.

    It is trained as nanoT5 does, which leaves T5's own Adafactor behind: AdamW with steps in proportion to the weights.

    >>> t5().objective.kind, t5().model.norm, t5().model.positions
    ('span_corruption', 'rms', 'relative')
    """
    start = article()
    objective = ObjectiveConfig(kind="span_corruption")
    window = 128
    source_length, target_length = plan_lengths(window, objective.noise_density, objective.mean_span_length)
    return dataclasses.replace(
        start,
        recipe="t5",
        tokens="unigram",
        objective=objective,
        # Validation continues texts, by as many ids as a target has room for behind its sentinel.
        shards=dataclasses.replace(start.shards, block_length=window, overlap=window - target_length + 1, joined=True),
        model=dataclasses.replace(
            start.model,
            vocabulary_size=8_103,
            source_length=source_length,
            target_length=target_length,
            context="sequence",
            positions="relative",
            norm="rms",
            input_norm="none",
            activation="gated_gelu",
            feed_forward_bias=False,
            attention_scale=False,
            output_bias=False,
            output_l2=0.0,
            embedding_dropout=0.0,
            d_ff=704,  # with its gate, as many weights as 1,024 without
        ),
        training=dataclasses.replace(
            start.training,
            optimizer="adamw_rms",
            learning_rate=2e-2,
            schedule="cosine",
            warmup_steps=100,
            clip_norm=1.0,
        ),
    )


def best():
    """What learns most in the same minutes here: everything that the log in BUILD_NOTES.md found to pay.

    Pieces of words, of which there are few; sources that are short beside their targets, since only targets teach; one
    block in the encoder and one in the decoder, each token with its neighbours in it before they look further; small
    batches; an output that begins as a unigram; RMSNorm, rotary positions and SwiGLU; no dropout, as no page is seen
    twice.

    >>> best().model.context, best().tokens
    ('sequence', 'unigram')
    """
    start = article()
    return dataclasses.replace(
        start,
        recipe="best",
        tokens="unigram",
        words=dataclasses.replace(start.words, vocabulary_size=4_000),
        shards=dataclasses.replace(start.shards, overlap=32),
        model=dataclasses.replace(
            start.model,
            vocabulary_size=4_003,
            source_length=32,
            target_length=96,
            num_layers=1,
            context="sequence",
            short_convolution=3,
            positions="rotary",
            norm="rms",
            input_norm="none",
            activation="swiglu",
            d_ff=704,  # with its gate, as many weights as 1,024 without
            feed_forward_bias=False,
            embedding_scale=True,
            embedding_dropout=0.0,
            output_l2=0.0,
        ),
        training=dataclasses.replace(
            start.training,
            optimizer="adam_short_memory",
            learning_rate=2e-3,
            schedule="linear",
            warmup_steps=50,
            clip_norm=1.0,
            start_from_frequencies=True,
            batch_size=8,
        ),
    )


RECIPES = {"article": article, "best": best, "t5": t5, "transformer": transformer}
