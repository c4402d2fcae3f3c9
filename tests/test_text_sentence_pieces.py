"""Pieces: every text comes back, Python = graph, the same corpus gives the same model, and T5's ids are T5's."""

import doctest
import io
import itertools
import json
import pickle
import random
import sys

import pytest
import sentencepiece
import tensorflow as tf
from archives import write_prose
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.contracts import END_ID, PAD_ID, UNKNOWN_ID, UserError
from tf_llm.text import piece_training, sentence_pieces, tokens
from tf_llm.text.piece_training import KINDS, build_sentence_piece_tokenizer, sample_texts
from tf_llm.text.sentence_pieces import SentencePieceTokenizer
from tf_llm.text.tokenizers import load_tokenizer

CORPUS = [write_prose(seed, 20) + f"\nIn line {seed}, naïve café — 日本\n\n  indented\t{seed}" for seed in range(40)]
AWKWARD = [
    "", " ", "\n", "\t", "\0", "\r\n", "  two  spaces  ", "\n\n\nlines\n", " \n \n", "\nThe\n The\n  The", "\n ",
    "\n\n ", "\n\ue000", "\n \ue000n\n", "\n\u2581", "\u2581",
    "\u2581\u2581a \u2581", "\ue000", "\ue000u", "\ue000e\u2581", "\ue000\ue000uu", "<unk>",
    "</s><pad><s>", "<0x41>", "<extra_id_0>", " ⁇ ", "\u2585", "👩‍👩‍👧 e\u0301 \u200f", "\ufeffbom",
    "\u0378 \U000e0fff \U0010ffff", "\ufffd", "ﬁ Ⅷ",
]  # fmt: skip
PIECES = "aehnt \n\n\t\0\u2581\ue000ueé日👩\u0301\u200d\ufeff\u00a0<>0_x⁇\u0378"
texts = st.text(st.sampled_from(PIECES)) | st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return build_sentence_piece_tokenizer(CORPUS, 450, request.param, num_sentinels=3)


def train_foreign(**options):
    """A model with T5's options, of which the size is the exception."""
    model, lines = io.BytesIO(), [line for text in CORPUS for line in text.split("\n")]
    options = {"normalization_rule_name": "nmt_nfkc", "vocab_size": 110, "model_type": "unigram"} | options
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, minloglevel=2, num_threads=1, **(ids | options)
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def foreign():
    return SentencePieceTokenizer.from_model(train_foreign())


def graph_ids(tokenizer, texts):
    ids = tf.function(tokenizer.graph_encode)(tf.constant(texts, tf.string))
    assert ids.dtype == tf.int32
    return ids.to_list()


def graph_texts(tokenizer, rows):
    ids = tf.ragged.constant(rows, tf.int32, ragged_rank=1).to_tensor(PAD_ID)
    return [text.decode() for text in tf.function(tokenizer.graph_decode)(ids).numpy()]


def find_word(tokenizer):
    """The id of a piece that is a word with the space before it."""
    return next(id for id, text in enumerate(tokenizer.spellings) if text[:1] == b" " and text[1:].isalpha())


@pytest.mark.parametrize("module", [piece_training, sentence_pieces, tokens], ids=lambda module: module.__name__)
def test_docstring_examples(module):
    result = doctest.testmod(module)
    assert result.attempted and result.failed == 0


def test_awkward_texts_come_back_here_and_in_the_graph(tokenizer):
    ids = [tokenizer.encode(text) for text in [*AWKWARD, *CORPUS]]
    assert [tokenizer.decode(row) for row in ids] == [*AWKWARD, *CORPUS]
    assert graph_ids(tokenizer, [*AWKWARD, *CORPUS]) == ids
    assert graph_texts(tokenizer, ids) == [*AWKWARD, *CORPUS]


@settings(deadline=None, max_examples=200)
@given(text=texts)
def test_any_text_comes_back_here_and_in_the_graph(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert UNKNOWN_ID not in ids and max(ids, default=0) < tokenizer.vocabulary_size - tokenizer.num_sentinels
    assert tokenizer.graph_encode(tf.constant([text])).to_list() == [ids]
    assert tokenizer.graph_decode(tf.constant([ids], tf.int32)).numpy()[0].decode() == text


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_whatever_a_model_says_reads_the_same_here_and_in_the_graph(tokenizer, data):
    """Halves of characters, escapes without their second sign, ids of padding, sentinels, and past the vocabulary."""
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size + 2) | st.integers(3, 259), max_size=12))
    assert tokenizer.graph_decode(tf.constant([ids], tf.int32)).numpy()[0].decode() == tokenizer.decode(ids)


def test_every_short_text_of_the_signs_that_are_rewritten_comes_back(tokenizer):
    for size in range(5):
        for signs in itertools.product("a \n\ue000\u2581enu", repeat=size):
            assert tokenizer.decode(tokenizer.encode("".join(signs))) == "".join(signs)


def test_lone_surrogates_become_replacement_characters(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b\udfff")) == "a\ufffdb\ufffd"


def test_bytes_that_are_no_text_become_replacement_characters_in_the_graph(tokenizer, foreign):
    for each in (tokenizer, foreign):
        assert graph_ids(each, [b"The \xff old\n\xe4x"]) == [each.encode("The \ufffd old\n\ufffdx")]


def test_special_ids_and_sentinels(tokenizer):
    size = tokenizer.vocabulary_size
    word = find_word(tokenizer)
    ids = [PAD_ID, word, UNKNOWN_ID, size - 1, word, size - 2, END_ID, PAD_ID, size]
    text = tokenizer.spellings[word].decode()
    assert tokenizer.decode(ids) == f"{text[1:]}<extra_id_0>{text}<extra_id_1>" == graph_texts(tokenizer, [ids])[0]
    assert size == 3 + len(tokenizer.vocabulary) + tokenizer.num_sentinels
    assert tokenizer.encode("<extra_id_0>") != [size - 1]  # whatever a page says, it is no sentinel


def test_a_line_end_is_a_piece_and_words_behind_it_are_the_usual_ones(tokenizer):
    assert tokenizer.vocabulary[:2] == ["\n", "\ue000n"]
    word, end, indented = find_word(tokenizer), 3, 4
    text = tokenizer.spellings[word].decode().strip()
    ids = tokenizer.encode(f"{text}\n{text}\n\n{text}\n {text}\n\n {text}\n")
    assert ids == [word, end, word, end, end, word, indented, word, end, indented, word, end]


def test_the_same_texts_give_the_same_bytes(tokenizer):
    again = [build_sentence_piece_tokenizer(iter(CORPUS), 450, kind).model for kind in KINDS]
    assert tokenizer.model in again and again[0] != again[1]


TINY = [
    "a",
    "aaaa",
    "a b",
    "abcdefgh",
    "日本語",
    "x" * 20_000,
    "<0x41> </s> <pad>",
    "a\0b\u2585\tc",
    "\u2581a\ue000",
    "\ud800a",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_corpus_too_small_for_the_vocabulary_gives_what_it_has(kind, caplog):
    for text in TINY:
        with caplog.at_level("INFO", "tf_llm.text.piece_training"):
            tokenizer = build_sentence_piece_tokenizer([text], 500, kind)
        assert f"no more than {len(tokenizer.vocabulary)} pieces, of 500 asked for" in caplog.records[-1].getMessage()
        assert all(tokenizer.decode(tokenizer.encode(other)) == other for other in [*AWKWARD, *TINY[:-1]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [261, 300, 700])
def test_a_vocabulary_too_small_for_all_characters_has_the_most_frequent(kind, size):
    rng = random.Random(5)
    letters = [chr(0x4E00 + number) for number in range(2_000)]
    corpus = ["".join(rng.choices(letters, weights=range(2_000, 0, -1), k=200)) for _ in range(50)]
    tokenizer = build_sentence_piece_tokenizer(corpus, size, kind)
    assert len(tokenizer.vocabulary) <= size
    assert tokenizer.decode(tokenizer.encode(corpus[0])) == corpus[0]


@pytest.mark.parametrize("corpus", [[], [""], [" \n\t "], ["\ud800"]], ids=["nothing", "empty", "space", "surrogate"])
def test_a_corpus_without_text_is_a_one_line_error(corpus):
    with pytest.raises(UserError, match=r"expected texts to find pieces in\. Received: none but empty ones") as error:
        build_sentence_piece_tokenizer(corpus, 500)
    assert "\n" not in str(error.value)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(UserError, match=r"vocabulary_size of at least 261 for pieces.* Received: 260\. Take more"):
        build_sentence_piece_tokenizer(CORPUS, 260)
    with pytest.raises(ValueError, match=r"expected one of \['bpe', 'unigram'\]. Received: 'words'"):
        build_sentence_piece_tokenizer(CORPUS, 500, "words")


def test_samples_are_spread_evenly_and_fit():
    texts = [f"{number:04d}" for number in range(1_000)]
    kept = sample_texts(iter(texts), 400)
    assert 50 <= len(kept) <= 100 and len(set(map(int.__sub__, map(int, kept[1:]), map(int, kept)))) == 1
    assert sample_texts(texts, 4_000) == texts
    assert sample_texts(["a" * 50], 8) == ["a" * 8]


def test_saved_and_loaded_and_pickled(tmp_path, tokenizer, foreign):
    path = str(tmp_path / "tokenizer.json")
    for one in (tokenizer, foreign):
        one.graph_encode(tf.constant(["The"]))
        one.save(path)
        for other in (load_tokenizer(path), pickle.loads(pickle.dumps(one))):
            assert type(other) is SentencePieceTokenizer
            assert (other.model, other.is_lossless, other.vocabulary_size, other.num_sentinels) == (
                one.model, one.is_lossless, one.vocabulary_size, one.num_sentinels,
            )  # fmt: skip
            assert other.encode(CORPUS[0] + "<extra_id_1>") == one.encode(CORPUS[0] + "<extra_id_1>")
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda saved: {"model": saved["model"][:-8]}, "its model does not match its checksum"),
        (lambda saved: {"model": "?" + saved["model"]}, "damaged or of another kind"),
        (lambda saved: {"model": 5}, "damaged or of another kind"),
        (lambda saved: {"sha256": None}, "its model does not match its checksum"),
        (lambda saved: {"num_sentinels": "three"}, "num_sentinels expected a whole number"),
        (lambda saved: {"num_sentinels": -1}, "num_sentinels expected a whole number"),
    ],
    ids=["cut", "letters", "number", "checksum", "word", "negative"],
)
def test_damaged_files_are_one_line_errors(tmp_path, tokenizer, change, text):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    saved = json.loads(path.read_text())
    path.write_text(json.dumps(saved | change(saved)))
    with pytest.raises(UserError, match=text) as error:
        load_tokenizer(str(path))
    assert "un the preparation of the data again" in str(error.value) and "\n" not in str(error.value)


class Export(tf.Module):
    def __init__(self, tokenizer):
        self.tokenizer, self.table = tokenizer, tokenizer.graph_table

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def encode(self, texts):
        return self.tokenizer.graph_encode(texts).to_tensor()

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def decode(self, ids):
        return self.tokenizer.graph_decode(ids)


def test_a_saved_model_takes_raw_strings(tmp_path, tokenizer, foreign):
    for each in (tokenizer, foreign):
        folder = str(tmp_path / f"lossless {each.is_lossless}")
        tf.saved_model.save(Export(each), folder)
        loaded = tf.saved_model.load(folder)
        text = "The old<extra_id_0> harbour\u2581\n"
        ids = loaded.encode(tf.constant([text]))
        assert ids.numpy().tolist() == [each.encode(text)]
        assert loaded.decode(ids).numpy()[0].decode() == each.decode(each.encode(text))


def test_without_tensorflow_text_only_the_graph_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    tokenizer = build_sentence_piece_tokenizer(CORPUS, 450, "bpe")
    ids = tokenizer.encode(CORPUS[0])
    assert tokenizer.decode(ids) == CORPUS[0] == graph_texts(tokenizer, [ids])[0]
    with pytest.raises(
        UserError, match=r"expected tensorflow-text .* cannot be exported or served .* Install"
    ) as error:
        tokenizer.graph_encode(tf.constant(["The"]))
    assert "\n" not in str(error.value)


# -- models from elsewhere ---------------------------------------------------------------------------------------------

FOREIGN = [
    "The <extra_id_0> walks", "The<extra_id_0>walks", "<extra_id_0>", " <extra_id_0>  <extra_id_99> <extra_id_10>",
    "<extra_id_100> <extra_id_07> <extra_id_", "<extra_id_0><extra_id_0>The", "", "  ", "\n", " a  b\n\nc\t",
    "é 日本語 😀", "ﬁ Ⅷ e\u0301", "\u2581 a\u2581b", "\0a", "x\u00a0y\u200bz\u3000", "a\u2028b", "soft\u00adhy",
    "\ufeffbom", "日本", "日 本", "\u0378x", "don't — “quoted”", *CORPUS[:5],
]  # fmt: skip


def test_sentinels_of_foreign_models_are_found_here_and_in_the_graph(foreign):
    pieces = foreign.vocabulary_size - 100
    ids = [foreign.encode(text) for text in FOREIGN]
    assert ids[0] == [*foreign.encode("The"), pieces + 99, *foreign.encode("walks")]
    assert ids[3] == [pieces + 99, pieces, pieces + 89]
    assert max(ids[4]) < pieces
    assert foreign.decode(ids[0]) == "The<extra_id_0> walks" and foreign.decode(ids[2]) == "<extra_id_0>"
    assert not foreign.is_lossless and foreign.decode(foreign.encode("  ﬁ\n a ")) == "fi a"
    assert graph_ids(foreign, FOREIGN) == ids
    assert graph_texts(foreign, ids) == [foreign.decode(row) for row in ids]


foreign_texts = st.lists(texts | st.sampled_from(["<extra_id_0>", "<extra_id_99>", " "]), max_size=5).map("".join)


@settings(deadline=None, max_examples=50)
@given(st.lists(foreign_texts, min_size=1, max_size=9))  # five of them on average, since a call of the graph takes long
def test_foreign_models_say_the_same_here_and_in_the_graph(foreign, texts):
    ids = [foreign.encode(text) for text in texts]
    assert foreign.graph_encode(tf.constant(texts)).to_list() == ids
    rows = tf.ragged.constant(ids, tf.int32, ragged_rank=1).to_tensor(PAD_ID)
    assert [text.decode() for text in foreign.graph_decode(rows).numpy()] == [foreign.decode(row) for row in ids]


def test_foreign_models_without_sentinels(foreign):
    plain = SentencePieceTokenizer.from_model(foreign.model, num_sentinels=0)
    assert plain.encode("The old") == foreign.encode("The old") == graph_ids(plain, ["The old"])[0]
    assert len(plain.encode("<extra_id_0>")) > 1


def test_the_ids_are_those_of_hugging_face(foreign, tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs transformers, to compare with its T5Tokenizer")
    (tmp_path / "spiece.model").write_bytes(foreign.model)
    theirs = transformers.T5Tokenizer.from_pretrained(str(tmp_path))
    assert len(theirs) == foreign.vocabulary_size
    for text in FOREIGN:
        ids = foreign.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False), text
        if UNKNOWN_ID not in ids:
            assert foreign.decode(ids) == theirs.decode(ids), text


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (lambda path: None, "Received: No such file or directory. Name a file such as T5"),
        (lambda path: path.write_bytes(b"no model"), "Received: no SentencePiece model"),
        (lambda path: path.write_bytes(b""), "Received: .*Name a file"),
        (lambda path: path.write_bytes(train_foreign(pad_id=3, eos_id=2, unk_id=0, bos_id=1)), "not at 0, 1 and 2"),
    ],
    ids=["missing", "damaged", "empty", "other ids"],
)
def test_files_that_are_no_such_models(tmp_path, write, text):
    path = tmp_path / "spiece.model"
    write(path)
    with pytest.raises(UserError, match=text) as error:
        SentencePieceTokenizer.from_model(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
