"""Decoding: strategies on scripted logits, and the cached loop against the whole model, token by token."""

import doctest
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_llm.contracts import DECODER_IDS, END_ID, PAD_ID, SOURCE_IDS, START_ID, UNKNOWN_ID
from tf_llm.decoding import strategies
from tf_llm.decoding.draws import split_seeds
from tf_llm.decoding.generator import Generator
from tf_llm.decoding.strategies import Greedy, Sample, advance, begin, decode
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
        assert (decode(step, {}, strategy, 2, 6, 0, rules=()).numpy() == UNKNOWN_ID).any()


def test_sampling_follows_the_probabilities():
    """χ² with ten thousand draws: above the bound, one seed in a thousand would fall by chance."""
    rows, shares = 10_000, np.array([0.1, 0.45, 0.3, 0.15])
    logits, seeds = tf.math.log(tf.tile([shares.astype("float32")], [rows, 1])), tf.constant(split_seeds(range(rows)))
    for sample, expected in (
        (Sample(), shares),
        (Sample(temperature=0.5), shares**2),
        (Sample(temperature=2.0), shares**0.5),
        (Sample(top_k=2), shares * [0, 1, 1, 0]),
        (Sample(top_p=0.8), shares * [0, 1, 1, 1]),
        (Sample(min_p=0.6), shares * [0, 1, 1, 0]),
        (Sample(typical_p=0.25), shares * [0, 0, 1, 0]),  # the mean surprise is 1.23 nats; that of .3 is 1.20
        (Sample(top_k=50), shares),  # more than there are: all of them
    ):
        counts = np.bincount(sample(logits, seeds, 3), minlength=4)
        expected = rows * expected / expected.sum()
        assert (counts[expected == 0] == 0).all(), sample
        possible = expected > 0
        chi_squared = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
        assert chi_squared < 16.3, (sample, counts, expected)  # 3 degrees of freedom, p = .001


def test_each_row_has_its_own_settings():
    shares = tf.math.log([[0.4, 0.3, 0.2, 0.1]] * 5)
    sample = Sample(
        temperature=tf.constant([1.0, 0.0, 1.0, 1.0, 1.0]),
        top_k=tf.constant([0, 0, 2, 0, 0]),
        top_p=tf.constant([1.0, 1.0, 1.0, 0.6, 1.0]),
        min_p=tf.constant([0.0, 0.0, 0.0, 0.0, 0.45]),
        widest=2,
    )
    kept = np.isfinite(sample.cut(shares).numpy()).sum(axis=1)
    assert kept.tolist() == [4, 1, 2, 2, 3]


def test_the_seed_of_a_row_and_the_place_decide_what_is_drawn():
    logits, seeds = tf.zeros([50, V]), tf.constant(split_seeds([5] * 25 + list(range(25))))
    one, again, other = (Sample()(logits, seeds, count).numpy() for count in (1, 1, 2))
    assert (one == again).all() and (one != other).any()
    assert len(set(one[:25])) == 1 and len(set(one[25:])) > 1
    assert one[30] == one[0]  # whatever stands above and below
    assert set(Sample(temperature=0)(tf.one_hot([3] * 50, V), seeds, 0).numpy()) == {3}


def test_greedy_is_a_draw_at_temperature_0():
    logits = tf.random.stateless_normal([50, V], [1, 2])
    likeliest = Greedy()(logits, None, 0).numpy()
    for temperature in (1e-30, 1e-45):  # dividing by them would give infinity
        assert (
            Sample(temperature=temperature)(logits, tf.constant(split_seeds(range(50))), 0).numpy() == likeliest
        ).all()
    assert (Sample(temperature=0)(logits, tf.constant(split_seeds(range(50))), 0).numpy() == likeliest).all()
    assert (np.argwhere(np.isfinite(Greedy().cut(logits).numpy()))[:, 1] == likeliest).all()


def test_a_row_to_which_nothing_is_allowed_ends():
    step = lambda ids, position, state: (tf.math.log([[[0.0] * 6], [[0, 0, 0, 1.0, 0, 0]]]), state)  # noqa: E731
    for strategy in (Greedy(), Sample()):
        assert decode(step, {}, strategy, 2, 3).numpy().tolist() == [[END_ID, PAD_ID, PAD_ID], [3, 3, 3]]


def test_wrong_settings_are_named():
    for settings, text in (
        ({"temperature": -0.5}, r"temperature is expected to be at least 0\. Received: -0\.5"),
        ({"top_k": -1}, r"top_k is expected to be at least 0\. Received: -1"),
        ({"top_p": 1.1}, r"top_p is expected to be in \[0, 1\]\. Received: 1\.1"),
        ({"min_p": math.nan}, r"min_p is expected to be in \[0, 1\]\. Received: nan"),
    ):
        with pytest.raises(ValueError, match=text):
            Sample(**settings)


def test_in_pieces_it_is_the_same_and_rows_end_at_their_limits():
    """Eager and in a graph; the state goes from call to call."""
    logits = tf.random.stateless_normal([12, 3, 1, V], [3, 4])
    step = lambda ids, position, state: (logits[position], {"sum": state["sum"] + ids[:, 0]})  # noqa: E731
    seeds, limits = tf.constant(split_seeds([1, 2, 3])), tf.constant([12, 2, 7])
    start = begin({"sum": tf.zeros([3], tf.int32)}, 3, 12)
    go = lambda talk, until: advance(step, talk, Sample(), until, seeds, limits=limits)  # noqa: E731
    whole, compiled, pieces = go(start, 12), tf.function(go)(start, tf.constant(12)), start
    for until in range(1, 13):
        pieces = go(pieces, until)
    for one, other, third in zip(*map(tf.nest.flatten, (whole, compiled, pieces)), strict=True):
        assert (one.numpy() == other.numpy()).all() and (one.numpy() == third.numpy()).all()
    lengths = (whole.said.numpy() != PAD_ID).sum(axis=1)
    assert (lengths <= limits.numpy()).all() and lengths[1] == 2


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
    """Greedy decoding with the whole forward pass for every token, in windows as `Generator` has them: the ids, and the
    log-probability of each."""
    call = tf.function(lambda source, decoder: model({SOURCE_IDS: source, DECODER_IDS: decoder}, training=False))
    config, said, scores = model.config, [], []
    while len(said) < steps:
        source = (ids + said)[-config.source_length :]
        source += [PAD_ID] * (config.source_length - len(source))
        window = []
        for _ in range(config.target_length):
            decoder = ([START_ID, *window] + [PAD_ID] * config.target_length)[: config.target_length]
            logits = call(tf.constant([source]), tf.constant([decoder])).numpy()[0, len(window), : len(WORDS) + 3]
            logs = logits - np.logaddexp.reduce(logits)
            logits[[PAD_ID, UNKNOWN_ID]] = -np.inf
            window.append(int(logits.argmax()))
            scores.append(logs[window[-1]])
            if window[-1] == END_ID:
                return said + window, scores
        said += window
    return said[:steps], scores[:steps]


def test_cached_loop_says_what_the_whole_model_says(generator):
    generate, model = generator
    prompts = ["w1 w2 w3", "w9", "w4 w5 w6 w7 w8 w9 w10 w11 w12", ""]
    said = generate.complete(prompts, max_new_tokens=12, do_sample=False, log_probabilities=True)
    for prompt, completion in zip(prompts, said, strict=True):
        ids, scores = continue_slowly(model, [END_ID, *generate.tokenizer.encode(prompt)], 12)
        assert completion.ids == ids and completion.text == generate.tokenizer.decode(ids), prompt
        np.testing.assert_allclose(completion.log_probabilities, scores, atol=1e-4)
    assert any(len(completion.ids) > 5 for completion in said)


@pytest.mark.thorough
@pytest.mark.parametrize("settings", [{"seed": 3}, {"num_beams": 3}], ids=["drawn", "beams"])
@pytest.mark.parametrize("generator", ["sequence"], indirect=True)
def test_a_loop_compiled_by_xla_says_the_same(generator, settings):
    generate, model = generator
    compiled = Generator(model, generate.tokenizer, jit_compile=True)
    prompts, settings = ["w1 w2 w3", "w9", ""], {"max_new_tokens": 12, "log_probabilities": True, **settings}
    expected, found = generate.complete(prompts, **settings), compiled.complete(prompts, **settings)
    assert [each.ids for each in found] == [each.ids for each in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=1e-4)
    assert len({each.text for each in found}) > 1


def test_vectors_of_texts_are_means_of_the_context(generator):
    generate, _ = generator
    vectors = generate.embed(["w1 w2", "w3 w4 w5 w6 w7 w8"])
    assert vectors.shape == (2, 16) and np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    source = tf.constant([[END_ID, *generate.tokenizer.encode("w1 w2"), 0, 0, 0]])
    read = generate.start(source, training=False)
    kept = read["context_mask"].numpy()[0]
    mean = read["context"].numpy()[0][kept].mean(axis=0)
    np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(generate.embed("w1 w2"), vectors[0], atol=1e-5)


def test_hidden_vectors_come_beside_the_logits_they_make(generator):
    generate, model = generator
    context, cache = generate.encode_sources([[END_ID, 4, 5]], 1)
    token_ids, position = tf.constant([[START_ID]]), tf.constant(0)
    logits, hidden, _ = generate.bind_step(context, with_hidden=True)(token_ids, position, cache)
    plain, _ = generate.bind_step(context)(token_ids, position, cache)
    np.testing.assert_array_equal(logits, plain)
    made = model.get_layer("logits")(model.get_layer("output_embedding")(hidden))
    np.testing.assert_allclose(made[:, :, : logits.shape[-1]], logits, atol=1e-5)
