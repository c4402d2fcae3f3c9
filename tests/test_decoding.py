"""Decoding: strategies on scripted logits, and the cached loop against the whole model, token by token."""

import doctest

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_llm.contracts import END_ID, PAD_ID, START_ID, UNKNOWN_ID
from tf_llm.decoding import strategies
from tf_llm.decoding.generator import Generator
from tf_llm.decoding.strategies import Greedy, Sample, decode
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.text.tokenizers import WordTokenizer
from tf_llm.text.words import WordsConfig

V = 7
WORDS = [f"w{n}" for n in range(27)]


def test_docstring_examples():
    result = doctest.testmod(strategies, extraglobs={"tf": tf})
    assert result.attempted >= 1 and result.failed == 0


def run_script(script, strategy=None, max_tokens=5, seed=0):
    """Decodes a script [N, T] of ids: the model says with certainty what the script says. Also counts the steps."""
    script = tf.constant(script)
    steps = tf.Variable(0)

    def step(token_ids, position, state):
        steps.assign_add(1)
        logits = tf.one_hot(script[:, position], V, on_value=5.0, off_value=-5.0)[:, None]
        return logits, {"seen": tf.tensor_scatter_nd_update(state["seen"], [[0, position]], token_ids[:1, 0])}

    state = {"seen": tf.fill([len(script), max_tokens], -1)}
    said = tf.function(lambda: decode(step, state, strategy or Greedy(), len(script), max_tokens, seed))()
    return said.numpy().tolist(), int(steps)


def test_rows_end_by_themselves_and_the_loop_ends_with_the_last():
    said, steps = run_script([[4, END_ID, 5, 5, 5], [3, 5, END_ID, 6, 6]])
    assert said == [[4, END_ID, PAD_ID, PAD_ID, PAD_ID], [3, 5, END_ID, PAD_ID, PAD_ID]]
    assert steps == 3


def test_a_row_that_never_ends_is_cut_at_the_limit():
    assert run_script([[4, 4, 4, 4, 4]], max_tokens=5) == ([[4] * 5], 5)
    assert run_script([[4, 4, 4, 4, 4]], max_tokens=2) == ([[4] * 2], 2)


def test_padding_and_unknown_are_never_said_unless_allowed():
    logits = np.zeros([2, 1, V], "float32")
    logits[..., [PAD_ID, UNKNOWN_ID]], logits[..., 4] = [8, 9], 5
    step = lambda ids, position, state: (tf.constant(logits), state)  # noqa: E731
    for strategy in (Greedy(), Sample(temperature=0.1)):
        assert (decode(step, {}, strategy, 2, 6, 0).numpy() == 4).all()
        assert (decode(step, {}, strategy, 2, 6, 0, never_said=()).numpy() == UNKNOWN_ID).any()


def test_sampling_follows_the_probabilities():
    logits = tf.math.log(tf.tile([[0.1, 0.6, 0.3]], [20_000, 1]))
    drawn = np.bincount(Sample()(logits, [1, 2]), minlength=3) / 20_000
    np.testing.assert_allclose(drawn, [0.1, 0.6, 0.3], atol=0.015)
    sharp = np.bincount(Sample(temperature=0.5)(logits, [1, 2]), minlength=3) / 20_000
    np.testing.assert_allclose(sharp, np.array([0.01, 0.36, 0.09]) / 0.46, atol=0.015)
    top = np.bincount(Sample(top_k=2)(logits, [1, 2]), minlength=3) / 20_000
    np.testing.assert_allclose(top, [0, 0.6 / 0.9, 0.3 / 0.9], atol=0.015)
    assert Sample(top_k=50)(logits, [1, 2]).shape == (20_000,)  # more than there are: all of them


def test_the_seed_decides_what_is_drawn():
    logits = tf.zeros([50, V])
    assert (Sample()(logits, [1, 2]).numpy() == Sample()(logits, [1, 2]).numpy()).all()
    assert (Sample()(logits, [1, 2]).numpy() != Sample()(logits, [1, 3]).numpy()).any()
    assert set(Sample(top_k=1)(tf.one_hot([3] * 9, V), [0, 0]).numpy()) == {3}


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"temperature is expected to be above 0\. Received: 0\. .* use Greedy"):
        Sample(temperature=0)
    with pytest.raises(ValueError, match=r"top_k is expected to be at least 0\. Received: -1"):
        Sample(top_k=-1)


@pytest.fixture(scope="module", params=["vector", "sequence"])
def generator(request):
    keras.utils.set_random_seed(3)
    config = ModelConfig(
        vocabulary_size=40, source_length=6, target_length=5, num_layers=2, num_heads=2, d_model=16, d_ff=32,
        context=request.param,
    )  # fmt: skip
    model = build_model(config)
    for variable in model.variables:  # a new model says nearly the same everywhere
        variable.assign(variable + keras.random.normal(variable.shape, stddev=0.3, dtype="float32"))
    return Generator(model, WordTokenizer(WORDS, WordsConfig(stop_words="none"))), model


def continue_slowly(model, ids, steps):
    """Greedy decoding with the whole forward pass for every token, in windows as `Generator` has them."""
    said = []
    while len(said) < steps:
        config = model.config
        source = (ids + said)[-config.source_length :]
        source += [PAD_ID] * (config.source_length - len(source))
        window = []
        for _ in range(config.target_length):
            decoder = ([START_ID, *window] + [PAD_ID] * config.target_length)[: config.target_length]
            inputs = {"source_ids": np.array([source], "int32"), "decoder_ids": np.array([decoder], "int32")}
            logits = np.array(model(inputs, training=False))[0, len(window), : len(WORDS) + 3]
            logits[[PAD_ID, UNKNOWN_ID]] = -np.inf
            window.append(int(logits.argmax()))
            if window[-1] == END_ID:
                return said + window
        said += window
    return said[:steps]


def test_cached_loop_says_what_the_whole_model_says(generator):
    generate, model = generator
    prompts = ["w1 w2 w3", "w9", "w4 w5 w6 w7 w8 w9 w10 w11 w12", ""]
    said = generate(prompts, max_new_tokens=12, strategy=Greedy())
    for prompt, text in zip(prompts, said, strict=True):
        ids = continue_slowly(model, [END_ID, *generate.tokenizer.encode(prompt)], 12)
        assert text == generate.tokenizer.decode(ids), prompt
    assert len({len(text) for text in said}) >= 1 and any(len(text.split()) > 5 for text in said)


def test_a_batch_says_what_each_would_say_alone(generator):
    generate, _ = generator
    prompts = ["w1 w2 w3", "w9", "w20 w21 w22 w23 w24 w25 w26"]
    together = generate(prompts, max_new_tokens=9, strategy=Greedy())
    assert together == [generate(prompt, max_new_tokens=9, strategy=Greedy()) for prompt in prompts]


def test_same_seed_same_text(generator):
    generate, _ = generator
    assert generate("w1 w2", seed=5) == generate("w1 w2", seed=5)
    assert len({generate("w1 w2", seed=seed, max_new_tokens=5) for seed in range(5)}) > 1


def test_lengths(generator):
    generate, _ = generator
    assert generate([]) == []
    assert len(generate("w1", max_new_tokens=1).split()) <= 1
    assert len(generate("w1", max_new_tokens=11, strategy=Greedy()).split()) <= 11
    with pytest.raises(ValueError, match=r"max_new_tokens is expected to be at least 1\. Received: 0"):
        generate("w1", max_new_tokens=0)
