"""Contrastive tuning: the loss by hand, what it changes and what it leaves, and that it learns."""

import doctest

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_llm.contracts import END_ID
from tf_llm.decoding.generator import Generator
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.text.tokenizers import CharTokenizer
from tf_llm.training import contrastive
from tf_llm.training.contrastive import ContrastiveConfig, Pairs, contrast, embed_context, tune_context

LETTERS = "abcdefghijklmnop"


def build(**settings):
    keras.utils.set_random_seed(0)
    shape = {"source_length": 6, "target_length": 4, "num_layers": 1, "num_heads": 2, "d_model": 16, "d_ff": 16}
    settings = {"context": "sequence", "input_norm": "none", "norm": "rms", "embedding_dropout": 0.0, **settings}
    return build_model(ModelConfig(vocabulary_size=len(LETTERS) + 3, **shape, **settings))


def make_pairs(count, seed):
    """A letter of the first half stands for its partner in the second: nothing else says that they belong together."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 8, count)
    left, right = np.zeros([2, count, 6], "int32")
    left[:, :3], right[:, :4] = (kinds + 3)[:, None], (kinds + 11)[:, None]
    return Pairs(left, right, kinds.astype("int32"))


def test_docstring_examples():
    result = doctest.testmod(contrastive)
    assert result.attempted >= 3 and result.failed == 0


def test_the_loss_is_that_of_a_loop():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=[2, 5, 3]).astype("float32")
    owners = np.array([4, 7, 4, 9, 7])
    losses, hits = [], []
    for a, b in ((left, right), (right, left)):
        for i in range(5):
            others = [j for j in range(5) if j == i or owners[j] != owners[i]]
            logits = np.array([a[i] @ b[j] / 0.3 for j in others])
            losses.append(np.log(np.exp(logits).sum()) - a[i] @ b[i] / 0.3)
            hits.append(others[int(np.argmax(logits))] == i)
    loss, accuracy = contrast(tf.constant(left), tf.constant(right), tf.constant(owners), 0.3)
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(accuracy) == pytest.approx(np.mean(hits))


def test_vectors_are_those_of_the_generator():
    model = build()
    generate = Generator(model, CharTokenizer(LETTERS), frame="request")
    texts = ["abc", "ponm", "a"]
    ids = np.zeros([3, 6], "int32")
    for place, text in zip(ids, texts, strict=True):
        place[: len(text) + 1] = [*generate.tokenizer.encode(text), END_ID]  # as a request ends
    np.testing.assert_allclose(embed_context(model.build_start(), ids), generate.embed(texts), atol=1e-6)


@pytest.mark.parametrize("context", ["sequence", pytest.param("vector", marks=pytest.mark.thorough)])
def test_partners_find_each_other_after_tuning(context):
    model = build(context=context)
    decoder = model.get_layer("decoder").get_weights()
    config = ContrastiveConfig(batch_size=16, epochs=8, learning_rate=0.03, warmup_steps=2, patience=8)
    held_out = make_pairs(40, seed=1)
    history = tune_context(model, make_pairs(64, seed=0), held_out, config)
    losses = [line["held_out_loss"] for line in history]
    assert losses[0] > 1 and min(losses) < 0.2 and history[0]["loss"] is None
    start = model.build_start()
    score = contrast(embed_context(start, held_out.left), embed_context(start, held_out.right), held_out.owners, 0.05)
    assert float(score[0]) == pytest.approx(min(losses), abs=1e-4)  # the best weights, not the last
    for before, after in zip(decoder, model.get_layer("decoder").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_it_ends_where_held_out_pairs_are_no_better():
    model, kept = build(), make_pairs(32, seed=0)
    before = model.get_weights()
    shuffled = make_pairs(40, seed=1)
    shuffled = Pairs(shuffled.left, np.roll(shuffled.right, 1, axis=0), np.arange(40))  # nothing can be learned of them
    config = ContrastiveConfig(batch_size=16, epochs=30, learning_rate=0.05, warmup_steps=0, patience=2)
    history = tune_context(model, kept, shuffled, config)
    best = min(range(len(history)), key=lambda number: history[number]["held_out_loss"])
    assert len(history) == best + 3
    if best == 0:
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


def test_too_few_pairs_are_refused():
    with pytest.raises(ValueError, match=r"pairs are expected to be at least 128, a batch, .* Received: 5 and 3"):
        tune_context(None, make_pairs(5, 0), make_pairs(3, 0))


@pytest.mark.parametrize(("name", "value"), [("temperature", 0), ("seconds", -1), ("batch_size", 1), ("patience", 0)])
def test_settings_out_of_bounds_are_named(name, value):
    with pytest.raises(ValueError, match=rf"contrastive\.{name} is expected to be .* Received: {value}"):
        ContrastiveConfig(**{name: value})
