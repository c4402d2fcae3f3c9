"""Whole sets of settings with a name. A recipe is a function that returns a `RunConfig`; add one by writing one."""

import dataclasses

from tf_llm.config import RunConfig
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


def best():
    """A first step past the article, on the same words: attention over the whole source, a higher rate that warms up
    and decays, gradients clipped, waves for positions, and neither batch normalisation nor, in a run that sees no page
    twice, dropout and L2.

    >>> best().words == article().words, best().model.context
    (True, 'sequence')
    """
    start = article()
    return dataclasses.replace(
        start,
        recipe="best",
        model=dataclasses.replace(
            start.model,
            context="sequence",
            positions="sinusoidal",
            embedding_scale=True,
            input_norm="none",
            embedding_dropout=0.0,
            output_l2=0.0,
        ),
        training=dataclasses.replace(
            start.training,
            optimizer="adam_short_memory",
            learning_rate=2e-3,
            schedule="cosine",
            warmup_steps=100,
            clip_norm=1.0,
        ),
    )


RECIPES = {"article": article, "best": best}
