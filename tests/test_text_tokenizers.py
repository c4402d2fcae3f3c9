"""Word and character tokenizers: round trips, Python = graph, files."""

import doctest
import json
import pickle
import subprocess
import sys
import unicodedata
from collections import Counter

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.contracts import END_ID, PAD_ID, UNKNOWN_ID, Document, UserError
from tf_llm.crawl.warc import Warc
from tf_llm.text import tokenizers
from tf_llm.text.html import strip_html
from tf_llm.text.tokenizers import CharTokenizer, WordTokenizer, build_char_tokenizer, build_word_tokenizer
from tf_llm.text.word_pattern import WORD_PATTERN
from tf_llm.text.words import WordsConfig, find_words, load_stop_words, split_words

TEXT = "The kettle — copper, 3.5 l (new!) — isn’t on the stove… It’s “gone”. ΟΔΟΣ, İstanbul, ß, 日本語 👩‍🚀\n\tEnd"
EVERYTHING = WordsConfig(stop_words="none", minimum_count=1)
STOP_WORDS = {"the", "on", "isn’t"}

# Capitals that came with Unicode 14: Python lowers them, the tables inside TensorFlow do not know them yet.
NEW_CAPITALS = {0x2C2F, 0xA7C0, 0xA7D0, 0xA7D6, 0xA7D8, *range(0x10570, 0x10596)}
NEW_IDEOGRAPHS = range(0x2EBF0, 0x2EE5E)  # Unicode 15.1
ASSIGNED = [chr(code) for code in range(1, 0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
ASSIGNED = [character for character in ASSIGNED if ord(character) not in NEW_IDEOGRAPHS]


def _tokenizer(config: WordsConfig = EVERYTHING, *texts: str) -> WordTokenizer:
    counts = Counter(word for text in texts or [TEXT] for word in find_words(text, config, STOP_WORDS))
    return build_word_tokenizer(counts, config, STOP_WORDS)


def _graph_ids(tokenizer, texts: list[str]) -> list[list[int]]:
    return tf.function(tokenizer.graph_encode)(tf.constant(texts, tf.string)).to_list()


def test_docstring_examples():
    result = doctest.testmod(tokenizers)
    assert result.attempted > 5 and result.failed == 0


def test_importing_text_leaves_tensorflow_and_nltk_alone():
    modules = "html, words, tokenizers, sentence_pieces, piece_training, builders, residual"
    code = (
        f"import sys; from tf_llm.text import {modules}; sys.exit(not {{'tensorflow', 'nltk'}}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_words_become_ids_and_words_again():
    tokenizer = _tokenizer()
    ids = tokenizer.encode(TEXT)
    assert min(ids) > UNKNOWN_ID and max(ids) < tokenizer.vocabulary_size == len(set(ids)) + 3
    text = tokenizer.decode(ids)
    assert text.startswith("the kettle — copper, 3.5 l (new!) — isn’t on the stove… it’s “gone”. οδος,")
    assert tokenizer.encode(text) == ids


def test_stop_words_and_rare_words():
    text = "The kettle on the hob"
    remove = WordTokenizer(["kettle"], WordsConfig(), STOP_WORDS)
    unknown = WordTokenizer(["kettle"], WordsConfig(rare_words="unknown"), STOP_WORDS)
    assert remove.encode(text) == [3]
    assert unknown.encode(text) == [3, UNKNOWN_ID]
    switched_off = WordTokenizer(["kettle", "on"], WordsConfig(stop_words="none"), STOP_WORDS)
    assert switched_off.encode(text) == [3, 4]
    assert WordTokenizer(["kettle", "on"], WordsConfig(), STOP_WORDS).encode(text) == [3]
    for tokenizer in (remove, unknown, switched_off):
        assert _graph_ids(tokenizer, [text]) == [tokenizer.encode(text)]


@pytest.mark.parametrize("tokenizer", [WordTokenizer(["a", "b"], EVERYTHING), CharTokenizer(["a", "b"])])
def test_special_ids_say_nothing(tokenizer):
    ids = [PAD_ID, 3, UNKNOWN_ID, 4, END_ID, PAD_ID]
    assert tokenizer.decode(ids).replace(" ", "") == "ab"
    assert tokenizer.decode([]) == tokenizer.decode([PAD_ID]) == ""
    rows = tokenizer.graph_decode(tf.constant([ids, [PAD_ID] * 6])).numpy()
    assert [row.decode() for row in rows] == [tokenizer.decode(ids), ""]


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda count: WordTokenizer(["a", "."], EVERYTHING, num_sentinels=count), "a. <extra_id_0> a <extra_id_1>."),
        (lambda count: CharTokenizer(["a", "."], num_sentinels=count), "a.<extra_id_0>a<extra_id_1>."),
    ],
    ids=["words", "characters"],
)
def test_sentinels_are_the_last_ids_and_never_come_from_text(tmp_path, build, text):
    tokenizer, plain = build(2), build(0)
    assert (tokenizer.vocabulary_size, tokenizer.num_sentinels) == (plain.vocabulary_size + 2, 2)
    ids = [3, 4, tokenizer.vocabulary_size - 1, 3, tokenizer.vocabulary_size - 2, 4, PAD_ID]
    assert tokenizer.decode(ids) == text == tokenizer.graph_decode(tf.constant([ids])).numpy()[0].decode()
    assert tokenizer.encode(text) == plain.encode(text) == _graph_ids(tokenizer, [text])[0]
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for other in (tokenizers.load_tokenizer(str(tmp_path / "tokenizer.json")), pickle.loads(pickle.dumps(tokenizer))):
        assert other.num_sentinels == 2 and other.decode(ids) == text
    with pytest.raises(ValueError, match=r"num_sentinels expected a whole number of at least 0\. Received: -1"):
        build(-1)


def test_files_from_before_there_were_sentinels_have_none(tmp_path):
    path = tmp_path / "tokenizer.json"
    _tokenizer().save(str(path))
    saved = json.loads(path.read_text())
    assert saved.pop("num_sentinels") == 0
    path.write_text(json.dumps(saved))
    assert tokenizers.load_tokenizer(str(path)).num_sentinels == 0


@pytest.mark.parametrize("text", ["", " \n\t", TEXT, "👩‍👩‍👧 e\u0301 \u200f", "\x00\x1f\u2028\u00a0"])
def test_characters_are_lossless(text):
    tokenizer = build_char_tokenizer(Counter(text), WordsConfig(minimum_count=1))
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    assert _graph_ids(tokenizer, [text, "", "ÿ" + text]) == [ids, [], [UNKNOWN_ID, *ids]]
    assert tokenizer.graph_decode(tf.constant([ids], tf.int32)).numpy()[0].decode() == text


def test_rare_characters_are_unknown():
    tokenizer = build_char_tokenizer(Counter("aaabbc"), WordsConfig(minimum_count=2))
    assert tokenizer.vocabulary == ["a", "b"]
    assert tokenizer.encode("abc") == [3, 4, UNKNOWN_ID]


awkward_texts = st.text(st.sampled_from("aBcß'’-.,1٣_ \t\n\u00a0“(é!İΣς한\u0301👩\u200d🚀\x00"))


@settings(max_examples=50, deadline=None)
@given(st.lists(awkward_texts, min_size=1, max_size=23))  # twelve on average, since a call of the graph takes long
def test_graph_equals_python_on_awkward_text(texts):
    tokenizer = _tokenizer(WordsConfig(stop_words="none", minimum_count=1, rare_words="unknown"), *texts[::4])
    ids = [tokenizer.encode(text) for text in texts]
    graph_ids = tokenizer.graph_encode(tf.constant(texts))
    assert graph_ids.dtype == tf.int32 and graph_ids.to_list() == ids
    rows = tokenizer.graph_decode(graph_ids.to_tensor(PAD_ID)).numpy()
    assert [row.decode() for row in rows] == [tokenizer.decode(row) for row in ids]


def test_graph_classes_of_all_characters():
    """Every character that this Python's Unicode knows: part of a word, a sign, or space, here as there."""
    texts = [f"a{character}b.{character}" for character in ASSIGNED]
    marked = tf.strings.regex_replace(tf.constant(texts), r"[\p{Z}\p{Cc}]+", " ")
    marked = tf.strings.regex_replace(marked, f"({WORD_PATTERN})", r"\1 ").numpy()
    different = [text for text, words in zip(texts, marked, strict=True) if split_words(text) != words.decode().split()]
    assert not different


def test_graph_small_letters_of_all_characters():
    lowered = tf.strings.lower(tf.constant(ASSIGNED), encoding="utf-8").numpy()
    different = {ord(c) for c, small in zip(ASSIGNED, lowered, strict=True) if c.lower() != small.decode()}
    assert different <= NEW_CAPITALS


@pytest.fixture(scope="module")
def real_texts(shared_data) -> list[str]:
    pages = Warc(shared_data / "warc" / "real-pages.warc.gz")
    return [document.text for document in map(strip_html, pages) if isinstance(document, Document)]


@pytest.mark.parametrize(
    "config",
    [WordsConfig(), WordsConfig(lower_case=False, stop_words="none", rare_words="unknown")],
    ids=["article", "everything"],
)
def test_graph_equals_python_on_all_real_pages(real_texts, config):
    stop_words, _ = load_stop_words("none" if config.stop_words == "none" else "own")
    counts = Counter()
    for text in real_texts[::4]:
        counts.update(find_words(text, config, stop_words))
    tokenizer = build_word_tokenizer(counts, config, stop_words)
    ids = [tokenizer.encode(text) for text in real_texts]
    graph_ids = tokenizer.graph_encode(tf.constant(real_texts))
    assert len(real_texts) > 850 and graph_ids.to_list() == ids
    rows = tokenizer.graph_decode(graph_ids[:100].to_tensor()).numpy()
    assert [row.decode() for row in rows] == [tokenizer.decode(row) for row in ids[:100]]


def test_graph_equals_python_on_characters_of_real_pages(real_texts):
    tokenizer = build_char_tokenizer(Counter("".join(real_texts)), WordsConfig(minimum_count=50))
    texts = real_texts[::5]
    assert tokenizer.graph_encode(tf.constant(texts)).to_list() == [tokenizer.encode(text) for text in texts]


def test_graph_survives_bytes_that_are_not_utf8():
    tokenizer = WordTokenizer(["x", "y"], EVERYTHING)
    ids = tokenizer.graph_encode(tf.constant([b"x \xff y", b"\xe4\xb8 x", b"y\x00\xed\xa0\x80"])).to_list()
    assert ids == [[3, 4], [3], [4]]


@pytest.mark.parametrize("tokenizer", [_tokenizer(), build_char_tokenizer(Counter(TEXT), EVERYTHING)])
def test_a_saved_model_takes_raw_strings(tmp_path, tokenizer):
    module = tf.Module()
    module.table = tokenizer.graph_table
    module.encode = tf.function(
        lambda texts: tokenizer.graph_encode(texts).to_tensor(), input_signature=[tf.TensorSpec([None], tf.string)]
    )
    module.decode = tf.function(tokenizer.graph_decode, input_signature=[tf.TensorSpec([None, None], tf.int32)])
    tf.saved_model.save(module, str(tmp_path / "model"))
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    ids = loaded.encode(tf.constant([TEXT]))
    assert ids.numpy().tolist() == [tokenizer.encode(TEXT)]
    assert loaded.decode(ids).numpy()[0].decode() == tokenizer.decode(tokenizer.encode(TEXT))
    nodes = [node.op for name in ("encode", "decode") for node in _nodes(getattr(module, name))]
    assert {op for op in nodes if not hasattr(tf.raw_ops, op)} <= {"_Arg", "_Retval"}  # nothing of tensorflow_text


def _nodes(function):
    graph = function.get_concrete_function().graph.as_graph_def()
    return [*graph.node, *(node for part in graph.library.function for node in part.node_def)]


def test_the_graph_runs_inside_tf_data():
    tokenizer = _tokenizer()
    rows = tf.data.Dataset.from_tensor_slices([TEXT, "on the hob"]).batch(2).map(tokenizer.graph_encode)
    assert next(iter(rows)).to_list() == [tokenizer.encode(TEXT), tokenizer.encode("on the hob")]


@pytest.mark.parametrize("tokenizer", [_tokenizer(WordsConfig(minimum_count=1)), CharTokenizer([*"a\n\u2028é👩"])])
def test_saved_and_loaded_and_pickled(tmp_path, tokenizer):
    tokenizer.graph_encode(tf.constant([TEXT]))
    path = str(tmp_path / "tokenizer.json")
    tokenizer.save(path)
    for other in (tokenizers.load_tokenizer(path), pickle.loads(pickle.dumps(tokenizer))):
        assert type(other) is type(tokenizer)
        assert other.encode(TEXT + " hob") == tokenizer.encode(TEXT + " hob")
        assert (other.vocabulary, other.vocabulary_size) == (tokenizer.vocabulary, tokenizer.vocabulary_size)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda saved: "", "damaged or of another kind"),
        (lambda saved: json.dumps(saved)[:-20], "damaged or of another kind"),
        (lambda saved: json.dumps(["words"]), "damaged or of another kind"),
        (lambda saved: json.dumps(saved | {"kind": "sounds"}), "its kind is 'sounds'"),
        (lambda saved: json.dumps(saved | {"vocabulary": ["a", "a"]}), "a word stands twice in its vocabulary"),
        (lambda saved: json.dumps(saved | {"vocabulary": 5}), "damaged or of another kind"),
        (lambda saved: json.dumps(saved | {"config": {"tempo": 1}}), "damaged or of another kind"),
        (lambda saved: json.dumps(saved | {"stop_words": 5}), "damaged or of another kind"),
        (lambda saved: json.dumps(saved | {"num_sentinels": "2"}), "num_sentinels expected a whole number"),
        (lambda saved: json.dumps(saved | {"pattern": r"\w+"}), "expected the word pattern of this version"),
    ],
)
def test_files_that_are_no_tokenizers(tmp_path, change, text):
    path = tmp_path / "tokenizer.json"
    _tokenizer().save(str(path))
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(UserError) as caught:
        tokenizers.load_tokenizer(str(path))
    message = str(caught.value)
    assert text in message and str(path) in message and "un the preparation of the data again" in message
    assert "\n" not in message


def test_missing_file_is_named(tmp_path):
    path = tmp_path / "nowhere.json"
    with pytest.raises(UserError, match=f"expected a tokenizer at {path}. Received: No such file or directory. Name"):
        tokenizers.load_tokenizer(str(path))


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    _tokenizer().save(str(path))
    before = path.read_bytes()
    monkeypatch.setattr(tokenizers.Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(UserError, match=f"cannot write {path}: .*no space left; free some space"):
        CharTokenizer(["a"]).save(str(path))
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]
