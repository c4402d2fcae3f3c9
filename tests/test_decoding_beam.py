"""Beam search against three things: cases by hand, every text there is, and the same search written with lists."""

import doctest
import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.contracts import DECODER_IDS, END_ID, PAD_ID, SOURCE_IDS, START_ID, UNKNOWN_ID
from tf_llm.decoding import beam as beam_module
from tf_llm.decoding.beam import Beam, decode_beams, repeat_rows, share_cache
from tf_llm.decoding.generator import Generator
from tf_llm.decoding.logits import Never, NoRepeatedNgram
from tf_llm.decoding.strategies import Greedy, decode
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.text.tokenizers import WordTokenizer
from tf_llm.text.words import WordsConfig

V, T = 6, 4
SAID = [3, 4, 5]  # all that is neither padding, nor unknown, nor the end


def test_docstring_examples():
    result = doctest.testmod(beam_module)
    assert result.attempted >= 4 and result.failed == 0


class Memory:
    """A model whose logits hang on everything that was said: `key` stands for the whole text, and for the row.

    Args:
        seed: of its logits.
        end: added to the logit of END_ID.
    """

    size = 997

    def __init__(self, seed, end=0.0):
        self.logits = np.random.default_rng(seed).normal(scale=1.5, size=(self.size, V)).astype("float32")
        self.logits[:, END_ID] += end
        self.steps = tf.Variable(0)

    def start(self, rows):
        return {"key": tf.constant(rows, tf.int32)}

    def step(self, token_ids, position, state):
        self.steps.assign_add(1)
        key = (state["key"] * 31 + token_ids[:, 0] + 1) % self.size
        return tf.gather(self.logits, key)[:, None], {"key": key}

    def log_probabilities(self, row, text):
        """Of what comes next, by `id`: only what may be said is among them."""
        key = row
        for token_id in [START_ID, *text]:
            key = (key * 31 + token_id + 1) % self.size
        logits = self.logits[key].astype("float64")
        total = np.logaddexp.reduce(np.delete(logits, [PAD_ID, UNKNOWN_ID]))
        return {token_id: logits[token_id] - total for token_id in (END_ID, *SAID)}


def search(memory, beam, rows=(0,), max_tokens=T, mode="eager"):
    """(texts without padding, scores) of each row."""

    def run():
        return decode_beams(memory.step, memory.start(rows), beam, len(rows), max_tokens)

    ids, scores = (run if mode == "eager" else tf.function(run, jit_compile=mode == "xla"))()
    assert ids.shape == (len(rows), beam.num_beams, max_tokens) and scores.shape == ids.shape[:2]
    texts = [[[i for i in text if i != PAD_ID] for text in row] for row in ids.numpy().tolist()]
    return texts, scores.numpy()


def search_with_lists(memory, beam, row, max_tokens=T):
    """One row of the same, as lists of (score, text) and without a bound on anything but the beams."""
    live, ended = [(0.0, [])], []
    for length in range(1, max_tokens + 1):
        candidates = [
            (score + more, [*text, token_id])
            for score, text in live
            for token_id, more in memory.log_probabilities(row, text).items()
        ]
        candidates = sorted(candidates, reverse=True)[: 2 * beam.num_beams]
        ended += [(score / beam.norm(length), text) for score, text in candidates if text[-1] == END_ID]
        ended = sorted(ended, reverse=True)[: beam.num_beams]
        live = [(score, text) for score, text in candidates if text[-1] != END_ID][: beam.num_beams]
        if len(ended) >= (wanted := beam.num_return_sequences) and ended[wanted - 1][0] > live[0][0] / beam.norm(
            max_tokens
        ):
            break
    return (ended + live)[: beam.num_beams]


# === By hand ===


def run_script(script, beam, max_tokens=3):
    """A script says for each row what may follow which token: {token before: {token: probability}}."""
    table = np.zeros([len(script), V, V], "float32")
    for row, follow in enumerate(script):
        for before, shares in follow.items():
            table[row, before, list(shares)] = list(shares.values())

    def step(token_ids, position, state):
        found = tf.gather_nd(tf.constant(table), tf.stack([state["row"], token_ids[:, 0]], axis=1))
        return tf.math.log(found)[:, None], state

    return decode_beams(step, {"row": tf.range(len(script))}, beam, len(script), max_tokens)


def test_two_rows_by_hand():
    trap = {0: {3: 0.6, 4: 0.4}, 3: {3: 0.3, 4: 0.3, 5: 0.4}, 4: {END_ID: 0.9, 5: 0.1}, 5: {END_ID: 1.0}}
    sure = {0: {5: 1.0}, 5: {END_ID: 0.5, 5: 0.5}}
    ids, scores = run_script([trap, sure], Beam(num_beams=2, length_penalty=1.0, num_return_sequences=2))
    # Greedy would say 3, which leads nowhere. Both texts of the second row end, the shorter one first.
    assert ids.numpy().tolist() == [[[4, END_ID, 0], [3, 5, END_ID]], [[5, END_ID, 0], [5, 5, END_ID]]]
    by_hand = [
        [math.log(0.36) / (7 / 6), math.log(0.24) / (8 / 6)],
        [math.log(0.5) / (7 / 6), math.log(0.25) / (8 / 6)],
    ]
    np.testing.assert_allclose(scores, by_hand, rtol=1e-5)


def test_a_length_penalty_lets_longer_texts_win():
    script = [{0: {END_ID: 0.22, 3: 0.78}, 3: {3: 0.9, END_ID: 0.1}}]
    short, long = (run_script(script, Beam(num_beams=4, length_penalty=a), 5)[0][0, 0].numpy() for a in (0.0, 1.5))
    assert short.tolist() == [END_ID, 0, 0, 0, 0]
    assert long.tolist() == [3, 3, 3, 3, END_ID]


def test_a_row_without_an_end_says_its_best_live_text_with_its_plain_log_probability():
    script = [{0: {3: 0.7, 4: 0.3}, 3: {3: 1.0}, 4: {4: 1.0}}, {0: {END_ID: 1.0}}]
    ids, scores = run_script(script, Beam(num_beams=2))
    assert ids.numpy().tolist() == [[[3, 3, 3], [4, 4, 4]], [[END_ID, 0, 0], [0, 0, 0]]]
    np.testing.assert_allclose(scores, [np.log([0.7, 0.3]), [0.0, -np.inf]], atol=1e-6)


def test_padding_and_unknown_are_never_said_unless_allowed():
    script = [{0: {PAD_ID: 0.5, UNKNOWN_ID: 0.3, 4: 0.2}, 4: {END_ID: 1.0}, UNKNOWN_ID: {END_ID: 1.0}}]
    beam = Beam(num_beams=2, length_penalty=0.0)
    ids, scores = run_script(script, beam)
    assert ids[0, 0].numpy().tolist() == [4, END_ID, 0] and scores[0].numpy().tolist() == [0.0, -np.inf]
    logits = tf.math.log([[[0.1, 0.2, 0.7, 0.0]]])
    step = lambda token_ids, position, state: (tf.tile(logits, [2, 1, 1]), state)  # noqa: E731
    ids, _ = decode_beams(step, {}, beam, 1, 2, rules=())
    assert ids.numpy().tolist() == [[[END_ID, 0], [UNKNOWN_ID, END_ID]]]


# === Against every text, and against lists ===


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_best_of_all_texts(seed, length_penalty):
    memory, beam = Memory(seed), Beam(num_beams=64, length_penalty=length_penalty)
    scores = {}
    for length in range(1, T + 1):
        for start in itertools.product(SAID, repeat=length - 1):
            text = [*start, END_ID]
            steps = [memory.log_probabilities(0, text[:i])[text[i]] for i in range(length)]
            scores[tuple(text)] = sum(steps) / ((5 + length) / 6) ** length_penalty
    (texts,), (found,) = search(memory, beam)
    assert len(scores) == 1 + 3 + 9 + 27
    best = max(scores, key=scores.get)
    assert tuple(texts[0]) == best and found[0] == pytest.approx(scores[best], rel=1e-5)
    for text, score in zip(texts, found, strict=True):
        if text and text[-1] == END_ID:
            assert score == pytest.approx(scores[tuple(text)], rel=1e-4)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    num_beams=st.integers(1, 5),
    length_penalty=st.sampled_from([0.0, 0.6, 1.0]),
    end=st.sampled_from([-4.0, -1.0, 1.0]),
    max_tokens=st.integers(1, 7),
)
def test_it_equals_the_search_with_lists(seed, num_beams, length_penalty, end, max_tokens):
    memory, beam = Memory(seed, end), Beam(num_beams=num_beams, length_penalty=length_penalty)
    (texts,), (scores,) = search(memory, beam, max_tokens=max_tokens)
    expected = search_with_lists(memory, beam, 0, max_tokens)
    assert texts[: len(expected)] == [text for _, text in expected]
    np.testing.assert_allclose(scores[: len(expected)], [score for score, _ in expected], rtol=1e-4, atol=1e-5)
    assert (scores[len(expected) :] == -np.inf).all()


@pytest.mark.parametrize("end", [-2.0, 0.0])
def test_the_best_of_a_row_is_the_same_in_any_company(end):
    memory, beam, rows = Memory(1, end), Beam(num_beams=3), (7, 0, 411, 93, 93)
    texts, scores = search(memory, beam, rows, max_tokens=8)
    for row, found, score in zip(rows, texts, scores, strict=True):
        expected_score, expected = search_with_lists(memory, beam, row, 8)[0]
        assert found[0] == expected and score[0] == pytest.approx(expected_score, rel=1e-4)
        assert search(memory, beam, (row,), max_tokens=8)[0][0][0] == expected
    assert len({tuple(found[0]) for found in texts}) > 2


def test_the_best_few_of_a_row_are_the_same_in_any_company():
    """A row that has found them stands still while others search."""
    memory, beam, rows = Memory(1, -1.0), Beam(num_beams=4, num_return_sequences=3), (7, 0, 411, 93)
    texts, scores = search(memory, beam, rows, max_tokens=8)
    for row, found, score in zip(rows, texts, scores, strict=True):
        expected = search_with_lists(memory, beam, row, 8)[:3]
        assert found[:3] == [text for _, text in expected]
        np.testing.assert_allclose(score[:3], [each for each, _ in expected], rtol=1e-4)


def test_rows_that_have_ended_are_not_searched():
    memory = Memory(1)
    ids, _ = decode_beams(memory.step, memory.start((7, 0)), Beam(), 2, 5, ended=tf.constant([True, True]))
    assert int(memory.steps) == 0 and not ids.numpy().any()


def test_rules_hold_for_each_hypothesis_and_over_windows():
    """No token twice, none of what was said before among them; the shares are of what is left."""
    memory, said = Memory(2, end=-1.0), tf.constant([[4, 0, 0, 0], [3, 0, 0, 0]])
    beam = Beam(num_beams=3, num_return_sequences=3, length_penalty=0.0)
    rules = (Never(), NoRepeatedNgram(1, longest=1))
    ids, scores = decode_beams(memory.step, memory.start((7, 0)), beam, 2, 4, rules, said, count=1, limit=3)
    for row, first, found, score in zip((7, 0), (4, 3), ids.numpy().tolist(), scores.numpy(), strict=True):
        texts = {}
        for text in itertools.permutations([i for i in (*SAID, END_ID) if i != first]):
            text, total = text[: text.index(END_ID) + 1], 0.0
            for i, token_id in enumerate(text):
                logs = memory.log_probabilities(row, text[:i])
                left = [logs[i] for i in logs if i not in (first, *text[: text.index(token_id)])]
                total += logs[token_id] - np.logaddexp.reduce(left)
            texts[text] = total
        best = sorted(texts, key=texts.get, reverse=True)[:3]
        assert [tuple(i for i in text[1:] if i) for text in found] == best
        assert all(text[0] == first for text in found)
        np.testing.assert_allclose(score, [texts[text] for text in best], rtol=1e-4)


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_eager_equals_graph(mode):
    memory, beam, rows = Memory(3), Beam(num_beams=3), (7, 0, 411)
    memory.steps = tf.Variable(0) if mode == "graph" else _Nothing()
    eager, compiled = (search(memory, beam, rows, 7, each) for each in ("eager", mode))
    assert eager[0] == compiled[0]
    np.testing.assert_allclose(eager[1], compiled[1], rtol=1e-5)


class _Nothing:
    def assign_add(self, _):
        """Counts nothing: XLA does not return what is only counted."""


def test_the_search_stops_when_nothing_better_can_come():
    memory = Memory(0, end=9.0)  # nearly sure to end at once
    (texts,), _ = search(memory, Beam(num_beams=1), max_tokens=50)
    assert texts[0] == [END_ID] and int(memory.steps) == 1
    memory = Memory(0, end=-99.0)  # never ends
    search(memory, Beam(num_beams=2), max_tokens=20)
    assert int(memory.steps) == 20


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_is_greedy_where_the_end_is_either_first_or_last(seed):
    memory = Memory(seed, end=3.0)
    ends = memory.logits[:, END_ID] > memory.logits[:, SAID].max(1) + 2
    memory.logits[:, END_ID] = np.where(ends, 20.0, -20.0)
    rows = tuple(range(0, 900, 100))
    texts, _ = search(memory, Beam(num_beams=1), rows, max_tokens=9)
    greedy = decode(memory.step, memory.start(rows), Greedy(), len(rows), 9, 0).numpy().tolist()
    assert [text for (text,) in texts] == [[i for i in row if i != PAD_ID] for row in greedy]
    assert len({len(text) for (text,) in texts}) > 1


# === With the real model ===


@pytest.fixture(scope="module", params=["vector", "sequence"])
def generator(request):
    keras.utils.set_random_seed(3)
    config = ModelConfig(
        vocabulary_size=20, source_length=6, target_length=5, num_layers=2, num_heads=2, d_model=16, d_ff=32,
        context=request.param,
    )  # fmt: skip
    model = build_model(config)
    for variable in model.variables:  # a new model says nearly the same everywhere
        variable.assign(variable + keras.random.normal(variable.shape, stddev=0.3, dtype="float32"))
    words = [f"w{n}" for n in range(17)]
    return Generator(model, WordTokenizer(words, WordsConfig(stop_words="none"))), model


@pytest.mark.parametrize(
    "positions",
    ["rotary", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("relative", "learned"))],
)
def test_beams_that_share_a_cache_find_what_those_with_caches_of_their_own_find(positions):
    """The one moves an index at each step, the other all keys and values. Keys have fewer heads than queries here."""
    config = ModelConfig(
        vocabulary_size=20, source_length=6, target_length=7, num_layers=2, num_heads=4, num_key_value_heads=2,
        d_model=16, d_ff=32, context="sequence", positions=positions,
    )  # fmt: skip
    keras.utils.set_random_seed(3)
    model, beam, rows = build_model(config), Beam(num_beams=3), 2
    for variable in model.variables:
        variable.assign(variable + keras.random.normal(variable.shape, stddev=0.3, dtype="float32"))
    source = np.random.default_rng(0).integers(3, 20, (rows, 6)).astype("int32")
    context = {name: part for name, part in model.build_start()(source).items() if name != "context"}

    def bind(num_beams, context):
        model_step = model.build_step(num_beams=num_beams)
        return lambda token_ids, at, state: model_step({"token_ids": token_ids, "position": at, **context, **state})

    rules = Never(), NoRepeatedNgram(1, longest=1)  # else a model of random weights says one thing again and again
    own = bind(1, repeat_rows(context, beam.num_beams))
    expected, scores = decode_beams(own, model.empty_cache(rows), beam, rows, 7, rules)
    cache = model.empty_cache(rows, beam.num_beams)
    state, common = {**cache, "lineage": tf.zeros([rows, 7], tf.int32)}, bind(beam.num_beams, context)
    step = share_cache(common, beam.num_beams)
    found, found_scores = decode_beams(step, state, beam, rows, 7, rules, shared=tuple(cache))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found_scores, scores, atol=1e-5)
    assert all(len(np.unique(row, axis=0)) == beam.num_beams for row in expected)


class WholeModel:
    """The model without a cache, for `search_with_lists`: its row is a prompt."""

    def __init__(self, model):
        self.config = model.config
        self.call = tf.function(lambda source, decoder: model({SOURCE_IDS: source, DECODER_IDS: decoder}))

    def log_probabilities(self, row, text):
        source_length, target_length = self.config.source_length, self.config.target_length
        source = [*row[-source_length:], *[PAD_ID] * source_length][:source_length]
        decoder = [START_ID, *text, *[PAD_ID] * target_length][:target_length]
        logits = self.call(tf.constant([source]), tf.constant([decoder])).numpy()[0, len(text)].astype("float64")
        total = np.logaddexp.reduce(np.delete(logits, [PAD_ID, UNKNOWN_ID]))
        return {i: logits[i] - total for i in range(len(logits)) if i not in (PAD_ID, UNKNOWN_ID)}


def test_cached_beams_say_what_the_whole_model_says(generator):
    """Beams change places at each step, and their caches with them; the second window goes on from the first."""
    generate, model = generator
    beam, prompts = Beam(num_beams=3), ["w1 w2 w3", "w9", "w4 w5 w6 w7 w8 w9 w10 w11 w12"]
    whole, said = WholeModel(model), generate(prompts, max_new_tokens=10, num_beams=3)
    for prompt, text in zip(prompts, said, strict=True):
        ids, expected = [END_ID, *generate.tokenizer.encode(prompt)], []
        for _ in range(2):
            if END_ID not in expected:
                expected += search_with_lists(whole, beam, ids + expected, 5)[0][1]
        assert text == generate.tokenizer.decode(expected), prompt
    assert said == [generate(prompt, max_new_tokens=10, num_beams=3) for prompt in prompts]
    assert any(said) and said != generate(prompts, max_new_tokens=10, do_sample=False)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"num_beams": 0}, r"num_beams is expected to be a whole number of at least 1\. Received: 0"),
        ({"num_beams": 2.0}, r"num_beams is expected to be a whole number of at least 1\. Received: 2\.0"),
        ({"length_penalty": -0.1}, r"length_penalty is expected to be at least 0\. Received: -0\.1"),
        (
            {"num_return_sequences": 5},
            r"num_return_sequences is expected to be between 1 and num_beams, 4\. Received: 5",
        ),
        ({"manner": "deep"}, r"manner is expected to be one of \['hugging_face', 'tf_models'\]\. Received: 'deep'"),
        ({"length_penalty": math.nan}, r"length_penalty is expected to be at least 0\. Received: nan"),
    ],
)
def test_wrong_settings_are_named(settings, text):
    with pytest.raises(ValueError, match=text):
        Beam(**settings)
