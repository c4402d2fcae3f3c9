"""Learning while in use: what is scored, what moves, how far, and back. And a bot taught from nothing and from a T5."""

import dataclasses
import math
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from untrained_run import write_run

from tf_llm import recipes
from tf_llm.apps.chatbot import training
from tf_llm.apps.chatbot.dialogues import Message
from tf_llm.apps.chatbot.facts import Fact
from tf_llm.apps.chatbot.online import OnlineLearner, Reading
from tf_llm.contracts import UserError
from tf_llm.decoding.generator import Generator
from tf_llm.load import from_pretrained, save_pretrained
from tf_llm.model.encoder_decoder import build_model
from tf_llm.model.sizes import build_size
from tf_llm.text.tokenizers import CharTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz .?"
TOKENIZER = CharTokenizer(LETTERS)
SMALL = {"d_model": 16, "num_heads": 2, "d_ff": 16, "source_length": 48, "target_length": 16}
TEXT = "the cat sat on the mat. the cat sat on the mat. the cat sat."


def build(frame="page", packed=False, **settings):
    """A generator of a model of random weights, the same ones each time."""
    keras.utils.set_random_seed(3)
    sizes = {"vocabulary_size": TOKENIZER.vocabulary_size, "source_length": 16, "target_length": 16, "d_ff": 32}
    settings = {**sizes, "d_model": 16, "num_heads": 2, "packed": packed, **settings}
    return Generator(build_model(dataclasses.replace(recipes.best().model, **settings)), TOKENIZER, frame)


@pytest.fixture(scope="module")
def compiled():
    return OnlineLearner(build(), undos=2)


@pytest.fixture
def learner(compiled):
    """The same one for all, as new: compiling is what takes long."""
    compiled.forget()
    compiled.learning_rate, compiled.decay, compiled.radius = 1e-2, 1e-3, 0.5
    return compiled


@pytest.fixture
def eagerly():
    """Without compiling, which takes longer than what is computed."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def read_weights(generate):
    return [variable.numpy() for variable in generate.model.variables]


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_read_is_scored_as_the_generator_scores_it(learner):
    generate, before = learner.generate, read_weights(learner.generate)
    reading = learner.read(TEXT, learns=False)
    scores = generate.score("", TEXT, with_end=True)
    assert reading.tokens == len(TEXT) + 1 and reading.text_bytes == len(TEXT)
    assert reading.nats == pytest.approx(-sum(scores), rel=1e-5)
    assert reading.bits_per_byte == pytest.approx(reading.nats / math.log(2) / len(TEXT))
    assert_same(before, read_weights(generate))


def test_a_packed_model_is_shown_its_pair_as_in_training(eagerly):
    """With segments and positions: the same score as by the steps of decoding, which know nothing of them."""
    learner = OnlineLearner(build("request", packed=True))
    reading = learner.read_pair("what is it?", "a cat.", learns=False)
    assert reading.nats == pytest.approx(-sum(learner.generate.score("what is it?", "a cat.", with_end=True)), rel=1e-5)
    long = learner.read_pair("what?", "a" * 40, learns=False)
    assert (long.tokens, long.text_bytes) == (16, 40 * 16 // 41)


def test_the_beginning_of_a_text_makes_its_end_likelier_and_is_scored_before_it_is_learned(learner):
    plain, window = learner.read(TEXT, learns=False), learner.read(TEXT[:15], learns=False)
    assert learner.read(TEXT[:15]).nats == pytest.approx(window.nats, rel=1e-5)  # one window, with its end
    learner.forget()
    assert learner.read(TEXT).nats < plain.nats
    assert learner.read(TEXT, learns=False).nats < 0.9 * plain.nats
    assert -sum(learner.generate.score("", TEXT)) < 0.9 * plain.nats  # the generator says what was learned


def test_an_undo_brings_back_the_weights_bit_for_bit(learner):
    generate = learner.generate
    trained = read_weights(generate)
    learner.read(TEXT)
    once, drift = read_weights(generate), learner.drift
    learner.read("another text")
    again = read_weights(generate)
    assert learner.undo()
    assert_same(once, read_weights(generate))
    assert learner.drift == drift > 0
    learner.read("another text")  # what the steps go by came back, too
    assert_same(again, read_weights(generate))
    learner.read("a third")
    assert learner.undo() and learner.undo() and not learner.undo()  # of three texts, two
    assert_same(once, read_weights(generate))
    learner.forget()
    assert_same(trained, read_weights(generate))
    assert learner.drift == 0 and not learner.undo()


def test_no_text_moves_the_weights_out_of_the_ball(learner):
    learner.learning_rate, learner.decay, learner.radius = 1.0, 0.0, 0.03
    drifts = [learner.read(text).drift for text in ("zzzzzzzz", TEXT, "qqqq" * 20)]
    assert drifts[0] == pytest.approx(0.03, rel=1e-3) and max(drifts) <= 0.03 * 1.001


def test_decay_goes_back_by_its_share(learner):
    """With a rate of 0 nothing but the way back is left."""
    learner.learning_rate, learner.decay = 0.0, 0.1
    for variable in learner.model.trainable_variables:
        variable.assign(variable + 0.01)
    before = learner.drift
    learner.read("abc")  # one window
    assert learner.drift == pytest.approx(0.9 * before, rel=1e-4)


def test_a_step_that_is_not_finite_is_none(learner):
    weights = learner.model.trainable_variables
    weights[0].assign(np.full(weights[0].shape, np.nan))
    before = read_weights(learner.generate)[1:]
    assert math.isnan(learner.read("abc").nats)
    assert_same(before, read_weights(learner.generate)[1:])
    learner.forget()
    assert math.isfinite(learner.read(TEXT).nats) and learner.drift > 0


@pytest.mark.thorough
def test_other_kinds_of_models_learn_too(eagerly):
    kind = {"architecture": "cnn", "positions": "none", "short_convolution": 0, "context": "vector"}
    learner = OnlineLearner(build(**kind), learning_rate=1e-2, radius=0.5)
    before = learner.read(TEXT, learns=False).nats
    learner.read(TEXT)
    assert learner.read(TEXT, learns=False).nats < before


def test_bounds(learner):
    with pytest.raises(ValueError, match=r"decay is expected to be in \[0, 1\)\. Received: 1\.5"):
        OnlineLearner(learner.generate, decay=1.5)
    rounded = types.SimpleNamespace(model=types.SimpleNamespace(variable_dtype="bfloat16"))
    with pytest.raises(ValueError, match=r"the model is expected to keep its weights in float32.*Received: bfloat16"):
        OnlineLearner(rounded)
    assert Reading(0.0, 0, 0, 0.0).bits_per_byte == 0.0


# === Teaching ===


def test_facts_are_written_and_read(tmp_path):
    facts = [Fact("a.b", "function", "Do it.", "Do it. Now.", "https://a.invalid/é")]
    training.write_facts(facts, [], tmp_path / "facts.jsonl")
    assert training.load_facts(tmp_path / "facts.jsonl") == (facts, [])
    (tmp_path / "facts.jsonl").write_text('{"name": 1}\n')
    with pytest.raises(UserError, match=r"expected the facts of a bot in .*facts\.jsonl.*Train it anew"):
        training.load_facts(tmp_path / "facts.jsonl")


TALKS = [(Message("user", f"what is {letter}?"), Message("assistant", letter * 3)) for letter in LETTERS[:26]] * 9
LENGTHS = {"source_length": 24, "target_length": 8}
SETTINGS = {"steps": 3, "batch_size": 4, "precision": "float32"}


def publish(folder):
    """A T5 of random weights, as transformers writes one."""
    pytest.importorskip("safetensors", reason="needs safetensors: pip install 'tf_llm[hugging_face]'")
    config = build_size("t5_v1_1_small", vocabulary_size=TOKENIZER.vocabulary_size, source_length=9, target_length=6)
    config = dataclasses.replace(config, num_layers=1, num_decoder_layers=1, d_model=8, d_ff=16, num_heads=2, d_head=4)
    save_pretrained(build_model(config), TOKENIZER, folder)


def test_a_bot_starts_from_a_published_model(tmp_path, monkeypatch):
    """What the trainer is given: that model, with a run of its own form and shards that it can read."""
    given = []
    monkeypatch.setattr(training, "train", lambda *arguments: given.append(arguments))
    monkeypatch.setattr(training.Generator, "load", lambda workdir: workdir)
    publish(tmp_path / "published")
    monkeypatch.setattr(training, "from_pretrained", lambda name: from_pretrained(name, **LENGTHS))
    model, tokenizer = training.load_start(tmp_path / "published")
    before = model.get_weights()
    assert training.teach_dialogues(TALKS, tmp_path / "bot", (model, tokenizer), **SETTINGS) == tmp_path / "bot"
    ((trained, shards, run, _),) = given
    assert trained is model and run.model == model.config and run.objective.kind == "pairs"
    assert_same(before, trained.get_weights())  # nothing is drawn anew, no bias begins as frequencies
    assert not run.training.start_from_frequencies
    assert shards.train.pages + shards.validation.pages == len(TALKS) and shards.validation.pages > 0
    assert shards.config.block_length == 24 + 8 and shards.vocabulary_size == tokenizer.vocabulary_size


def test_a_bot_starts_from_a_run_of_ones_own(tmp_path):
    write_run(tmp_path / "run", seed=4)
    model, tokenizer = training.load_start(tmp_path / "run")
    run = training.configure_tuning(model, steps=5)
    assert run.model == model.config and tokenizer.encode("a") == [4]
    assert not run.model.packed and not run.objective.packed and run.training.warmup_steps == 1


@pytest.mark.thorough
def test_a_bot_that_started_from_a_published_model_is_taught_once(tmp_path):
    publish(tmp_path / "published")
    model, tokenizer = from_pretrained(tmp_path / "published", **LENGTHS)
    before = model.get_weights()
    generate = training.teach_dialogues(TALKS, tmp_path / "bot", (model, tokenizer), **SETTINGS)
    assert generate.frame == "request" and generate.model.config == model.config
    moved = [np.abs(a - b).max() for a, b in zip(before, generate.model.get_weights(), strict=True)]
    assert 0 < max(moved) < 0.1  # it went on from there
    assert training.is_done(tmp_path / "bot") and not training.is_done(tmp_path)
    again = training.teach_dialogues(None, tmp_path / "bot")
    assert again("what is a?") == generate("what is a?")


def test_the_bot_of_the_documentation_is_taught_what_is_not_held_out(tmp_path, monkeypatch):
    facts = [
        Fact(f"pack.{name}", "function", f"Do the {name}.", "", f"https://d.invalid/{package}/pack.html#pack.{name}")
        for package, names in (("python", ("one", "two", "three", "four")), ("numpy", ("five", "six")))
        for name in names
    ]
    taught_with = []
    monkeypatch.setattr(training, "collect_facts", lambda packages: facts)
    monkeypatch.setattr(training, "teach", lambda *given: taught_with.append(given) or "generate")
    monkeypatch.setattr(training, "PIECES", 300)
    generate, taught, others = training.teach_documentation(tmp_path, unseen=1, lessons=9, steps=7, shape=SMALL)
    assert (generate, taught, others) == ("generate", facts[1:4], [facts[0], *facts[4:]])
    ((pairs, tokenizer, run, workdir),) = taught_with
    assert workdir == tmp_path and run.training.steps == 7 and run.model.d_model == 16
    assert {answer for _, answer in pairs if answer.startswith("Do")} == {fact.summary for fact in taught}
    assert not [prompt for prompt, _ in pairs for fact in others if fact.name in prompt]
    assert all(tokenizer.decode(tokenizer.encode(text)) == text for pair in pairs for text in pair)
    assert training.load_facts(tmp_path / training.FACTS) == (taught, others)
    with pytest.raises(UserError, match=r"expected more than 4 facts in the documentation\. Received: 4\."):
        training.teach_documentation(tmp_path, unseen=4)
