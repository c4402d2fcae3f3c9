"""Exported generators: the graph of strings against `Generator`, here and in a process without tf_llm."""

import base64
import doctest
import json
import subprocess
import sys
from pathlib import Path
from unicodedata import ucd_3_2_0

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_llm.contracts import UserError
from tf_llm.decoding import frames, graphs
from tf_llm.decoding.constraints import Automaton
from tf_llm.decoding.export import PROMPTS, draw, export_generator
from tf_llm.decoding.generator import Generator
from tf_llm.decoding.graphs import TextGraph, find_stops
from tf_llm.decoding.texts import find_stop
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.text.piece_training import build_sentence_piece_tokenizer
from tf_llm.text.tokenizers import CharTokenizer, WordTokenizer
from tf_llm.text.words import WordsConfig

category = ucd_3_2_0.category
RUNNER = Path(__file__).resolve().parent.parent / "examples" / "benchmarks" / "peers" / "saved_model.py"
WORDS = [*(f"w{n}" for n in range(24)), *"👩🇨ﬁ,()…", "\u200d", "مرحبا", "שלום", "e\u0301", "漢字"]
AWKWARD = (
    *("", " ", "\x00", "w1\x00w2", "👩‍👩‍👧‍👦 w3 🇨🇭", "e\u0301 = é", "مرحبا بالعالم (١٢٣)", "שלום, עולם!"),
    *("\u202ew1\u202c", "\ufeffw1", "𝛼 + 𝟛 = ½", "ﬁ İ ß ẞ Σς", "漢字 かな 한글 ไทย", "\u2028\x85\u00a0\u200b"),
    *("</s> <pad> w2", "▁ ▁w1 \ue000n", "\U0010ffff\U000e0001", "\ufffd", "\u0301" * 99, "w1 " * 7),
    "W1 w2, w3. " * 5_000,
)
DRAWN = {"max_new_tokens": 12, "temperature": 0.9, "top_k": 20, "seed": 2**40 + 7, "stop_strings": ("w7", "… w")}


def build_generator(tokenizer, frame="page", **settings):
    """One with random weights, which says many different things."""
    keras.utils.set_random_seed(3)
    shape = {"source_length": 8, "target_length": 5, "num_layers": 1, "num_heads": 2, "d_model": 16, "d_ff": 32}
    model = build_model(ModelConfig(vocabulary_size=tokenizer.vocabulary_size + 2, **shape, **settings))
    for variable in model.trainable_variables:
        variable.assign(variable + keras.random.normal(variable.shape, stddev=0.3, dtype="float32"))
    return Generator(model, tokenizer, frame)


@pytest.fixture(scope="module")
def generate():
    return build_generator(WordTokenizer(WORDS, WordsConfig(), {"w3"}, num_sentinels=3))


@pytest.fixture(scope="module")
def exported(generate, tmp_path_factory):
    """An export that draws: its folder, and what TensorFlow was given to save."""
    given = []

    def save(module, *arguments):
        given.append(module)
        tf_save(module, *arguments)

    tf_save, folder = tf.saved_model.save, tmp_path_factory.mktemp("exports") / "first" / "1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.saved_model, "save", save)
        return export_generator(generate, folder, **DRAWN), *given


@pytest.fixture(scope="module")
def module(exported):
    return exported[1]


@pytest.fixture
def patience():
    """Skips what takes its time where the optional packages are not installed."""
    pytest.importorskip("ai_edge_litert", reason="takes its time, so only with pip install 'tf_llm[litert]'")


@pytest.fixture(scope="module")
def prompts():
    """A hundred texts: awkward ones, and words and signs of Unicode 3.2, which no table lacks, in any order."""
    random = np.random.default_rng(5)
    texts = list(AWKWARD)
    while len(texts) < 100:
        wild = [sign for sign in map(chr, random.integers(0, 0x30000, 9)) if category(sign) not in ("Cn", "Cs")]
        known = [f"{word} " for word in random.choice(WORDS, random.integers(1, 9))]
        texts.append("".join(random.permutation(wild + known)))
    return texts


def say(model, prompts, **settings):
    """What an export says, with settings of the call."""
    settings = {name: tf.constant(value, dtype) for name, (value, dtype) in settings.items()}
    return [text.decode() for text in model.generate_with(tf.constant(prompts), **settings)["texts"].numpy()]


@pytest.mark.parametrize("source", [frames, graphs], ids=lambda module: module.__name__)
def test_docstring_examples(source):
    result = doctest.testmod(source, extraglobs={"tf": tf})
    assert result.attempted and result.failed == 0


@pytest.mark.parametrize("frame", sorted(frames.FRAMES))
def test_sources_are_the_same_in_python_and_in_the_graph(frame):
    rows = [list(range(5, 5 + length)) for length in (0, 1, 2, 3, 4, 5, 6, 7, 12)]
    ragged = tf.ragged.constant(rows, dtype=tf.int32)
    for source_length in range(3, 9):
        found = frames.GRAPH_FRAMES[frame](ragged, source_length, 200)
        assert found.to_list() == [frames.FRAMES[frame](ids, source_length, 200) for ids in rows]
        assert found.dtype == tf.int32 and max(map(len, found.to_list())) == source_length


def test_stop_strings_are_found_where_python_finds_them():
    texts = ["", "a", "abc", "bcabc", "ö a.b ö", "…\x00(", "aaa"]
    for stops in ((), ("bc",), ("abc", "bc"), ("bc", "abc", "b"), ("a.b", "ö "), (")", "\x00("), ("aa", "a")):
        for text, length in zip(texts, find_stops(tf.constant(texts), stops).numpy(), strict=True):
            place = find_stop(text, stops)
            assert text.encode()[:length].decode() == text[:place], (text, stops)


def ask_elsewhere(folder, strings, scored, tmp_path, with_text=False):
    """What an export says in a process that has no tf_llm, nor Keras if no pieces are wanted."""
    prompts, texts = ([base64.b64encode(string).decode() for string in each] for each in (strings, scored))
    job = {"prompts": prompts, "texts": texts, "folders": {"it": str(folder)}, "with_text": with_text}
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-I", str(RUNNER), str(tmp_path / "job.json")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    answers = json.loads(result.stdout.splitlines()[-1])["it"]
    return [base64.b64decode(text) for text in answers["texts"]], answers


@pytest.mark.thorough
def test_a_process_without_tf_llm_says_the_same_to_any_text(generate, exported, prompts, tmp_path):
    strings = [prompt.encode() for prompt in prompts] + [b"\xff w1 \xc3", b"\xed\xa0\x80"]  # the last two are no text
    told, answers = ask_elsewhere(exported[0], strings, strings[1:11], tmp_path)
    said = generate(prompts, **DRAWN)
    assert told[:100] == [text.encode() for text in said] and len(set(said)) > 50
    assert all(text.decode() for text in told[100:])
    scores = [sum(each) for each in generate.score(prompts[:10], prompts[1:11])]
    np.testing.assert_allclose(answers["log_probabilities"], scores, rtol=1e-4)
    np.testing.assert_allclose(answers["vectors"][:100], generate.embed(prompts), atol=1e-5)


@pytest.mark.thorough
def test_calls_bring_settings_of_their_own(generate, module):
    prompts, seeds, limits, temperatures = (
        ["w1 w2 w3", "w9", "w1 w2 w3", ""],
        [1, 2, 2**33, 4],
        [3, 9, 12, 7],
        [0, 1, 2, 1],
    )
    said = say(
        module,
        prompts,
        seed=(seeds, "int64"),
        max_new_tokens=(limits, "int32"),
        temperature=(temperatures, "float32"),
    )
    names = ("seed", "max_new_tokens", "temperature")
    rows = [dict(zip(names, row, strict=True)) for row in zip(seeds, limits, temperatures, strict=True)]
    stream = generate.stream_batch(prompts, [generate.config.with_settings(**DRAWN | row) for row in rows])
    pieces = [[piece.text for piece in step] for step in stream]
    assert said == ["".join(row) for row in zip(*pieces, strict=True)] and len(set(said)) == 4


@pytest.mark.parametrize(
    ("name", "value", "dtype", "text"),
    [
        ("temperature", [0.5, -1.0], "float32", r"temperature is expected to be at least 0.0. Received:\] \[0.5 -1\]"),
        ("temperature", [float("nan")], "float32", r"temperature is expected to be at least 0.0. Received:\] \[nan\]"),
        ("max_new_tokens", [13], "int32", r"max_new_tokens is expected to be in \[1, 12\]. Received:\] \[13\]"),
        ("max_new_tokens", [0], "int32", r"max_new_tokens is expected to be in \[1, 12\]. Received:\] \[0\]"),
        ("seed", [-1], "int64", r"seed is expected to be at least 0. Received:\] \[-1\]"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_the_graph(module, name, value, dtype, text):
    with pytest.raises(tf.errors.InvalidArgumentError, match=text):
        say(module, ["w1", "w2"], **{name: (value, dtype)})


def test_signatures_have_names_and_take_no_rows_at_all(module):
    nothing = tf.constant([], tf.string)
    assert module.generate(nothing)["texts"].shape == [0]
    found = module.score(nothing, nothing)
    assert sorted(found) == ["log_probabilities", "num_tokens", "token_log_probabilities"]
    assert found["token_log_probabilities"].shape == [0, 0] and found["num_tokens"].shape == [0]
    assert module.embed(nothing)["vectors"].shape == [0, 16]


def test_scores_are_those_of_each_token(generate, module):
    prompts, texts = ["w1 w2", "w9", ""], ["w1 w2 w4 w5 w6 w7 w8 w9 w10 w11 w12", "w3", "w4 w5"]  # w3 is a stop word
    found = module.score(tf.constant(prompts), tf.constant(texts))
    assert found["num_tokens"].numpy().tolist() == [11, 0, 2]
    for row, scores in zip(found["token_log_probabilities"].numpy(), generate.score(prompts, texts), strict=True):
        np.testing.assert_allclose(row, scores + [0.0] * (11 - len(scores)), rtol=1e-4)
    totals = [sum(scores) for scores in generate.score(prompts, texts)]
    np.testing.assert_allclose(found["log_probabilities"], totals, rtol=1e-4)


def test_a_request_has_one_window():
    generate = build_generator(CharTokenizer([*"abcdefgh"]), "request", context="sequence")
    graph, prompts, texts = TextGraph(generate, generate.config), ["abc", "", "hgfedcba" * 3], ["a", "ab", "abcde"]
    score = draw(graph.score, *[tf.TensorSpec([None], tf.string)] * 2)
    for row, expected in zip(score(prompts, texts)[0].numpy(), generate.score(prompts, texts), strict=True):
        np.testing.assert_allclose(row[: len(expected)], expected, rtol=1e-4)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at most 5 tokens. Received:\] \[6\]"):
        score(["a"], ["abcdef"])
    assert graph.limit == 5


def test_what_cannot_be_exported_is_named(generate, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    text = r"expected a new or an empty folder at .*full. Received: one that holds \['mine'\]. Name another one"
    with pytest.raises(UserError, match=text):
        export_generator(generate, tmp_path / "full")
    with pytest.raises(UserError, match=r"an empty folder at .*mine. Received: a file. Name another one"):
        export_generator(generate, tmp_path / "full" / "mine")
    with pytest.raises(ValueError, match=r"num_return_sequences is expected to be 1 in an export. Received: 2"):
        export_generator(generate, tmp_path / "new", num_return_sequences=2)
    foreign = build_generator(CharTokenizer([*"abc"]))
    foreign.tokenizer = type("Foreign", (), {"vocabulary_size": 6, "encode": lambda text: []})
    with pytest.raises(UserError, match=r"expected a tokenizer with graph_encode and graph_decode.*Received: type"):
        export_generator(foreign, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_a_failed_export_leaves_nothing(generate, tmp_path, monkeypatch):
    def fail(_, folder, signatures):
        Path(folder, "half").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(UserError, match=r"cannot write .*new: No space left on device; free some space"):
        export_generator(generate, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_keras_file_gives_the_same_generator(generate, tmp_path, patience):
    generate.model.save(tmp_path / "model.keras")
    copy = Generator(keras.models.load_model(tmp_path / "model.keras"), generate.tokenizer)
    assert copy.score("w1", "w2 w4 w5") == generate.score("w1", "w2 w4 w5")
    assert copy("w1 w2", do_sample=False, max_new_tokens=4) == generate("w1 w2", do_sample=False, max_new_tokens=4)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3, "no_repeat_ngram_size": 2, "prefix": "w4 w5", "max_new_tokens": 12},
        {"penalty_alpha": 0.5, "repetition_penalty": 1.3, "min_new_tokens": 9, "max_new_tokens": 12},
        {"constraint": Automaton.from_sequences([[5, 6, 7], [5, 8], [9]]), "do_sample": False, "max_new_tokens": 5},
    ],
    ids=["beams", "contrast", "constraint"],
)
def test_searches_say_in_the_graph_what_they_say_in_python(generate, settings, patience):
    prompts = ["w1 w2 w4", "w9", "w4 w5 w6 w7 w8 w9 w10 w11 w12", "", "w1 w2 w4"]
    graph = TextGraph(generate, generate.config.with_settings(**settings))
    assert [text.decode() for text in draw(graph.say, PROMPTS)(prompts).numpy()] == generate(prompts, **settings)


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "frame"), [("characters", "request"), ("pieces", "mode")])
def test_other_tokenizers_and_frames_in_a_process_without_tf_llm(kind, frame, prompts, tmp_path, patience):
    if kind == "characters":
        tokenizer = CharTokenizer(sorted(set("".join(AWKWARD))))
    else:
        corpus = [prompt[:200] for prompt in prompts] * 3
        tokenizer = build_sentence_piece_tokenizer(corpus, vocabulary_size=400, kind="bpe", num_sentinels=100)
    generate = build_generator(tokenizer, frame)
    folder = export_generator(generate, tmp_path / "it", max_new_tokens=12, do_sample=False)
    strings = [prompt.encode() for prompt in prompts] + [b"\xff a \xc3", b"\xed\xa0\x80"]
    told, _ = ask_elsewhere(folder, strings, [b"a"], tmp_path, with_text=kind == "pieces")
    said = generate(prompts, max_new_tokens=12, do_sample=False)
    assert told[:100] == [text.encode() for text in said] and len(set(said)) > 20
    assert [text.decode() for text in told[100:]]


@pytest.mark.thorough
@pytest.mark.parametrize("architecture", ["cnn", "rnn"])
def test_other_architectures_say_the_same_when_they_are_saved(architecture, tmp_path):
    generate = build_generator(CharTokenizer([*"abcdefgh"]), architecture=architecture)
    prompts, settings = ["abc", "", "hgfedcba"], {"max_new_tokens": 7, "do_sample": False}
    module = tf.saved_model.load(export_generator(generate, tmp_path / "it", **settings))
    told = module.generate(tf.constant(prompts))["texts"].numpy()
    assert [text.decode() for text in told] == generate(prompts, **settings)
    assert any(told)
