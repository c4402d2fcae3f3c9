"""Steps 2 to 5: words, stop words, rare words, and where the stop words come from."""

import doctest
import time
from collections import Counter
from pathlib import Path

import nltk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_llm.text import words
from tf_llm.text.word_pattern import WORD_PATTERN
from tf_llm.text.words import (
    WordsConfig,
    choose_vocabulary,
    count_rare_words,
    find_words,
    remove_rare_words,
    split_words,
)


def test_docstring_examples():
    result = doctest.testmod(words)
    assert result.attempted > 8 and result.failed == 0


def _table_of_differences() -> list[tuple[str, str, str]]:
    lines = words.__doc__.splitlines()
    header = next(index for index, line in enumerate(lines) if line.split() == ["text", "word_tokenize", "split_words"])
    starts = [lines[header].index(name) for name in ("text", "word_tokenize", "split_words")]
    rows = []
    for line in lines[header + 1 :]:
        if not line.strip():
            return rows
        ours, _, _remark = line[starts[2] :].partition("  ")
        rows.append((line[starts[0] : starts[1]].strip(), line[starts[1] : starts[2]].strip(), ours))
    raise AssertionError("the table has no end")


def test_differences_from_word_tokenize_are_as_listed():
    table = _table_of_differences()
    assert len(table) == 10
    for text, theirs, ours in table:
        assert nltk.word_tokenize(text, preserve_line=True) == theirs.split(), text
        assert split_words(text) == ours.split(), text
        assert theirs != ours


def test_like_word_tokenize_on_plain_sentences():
    text = "In 2017 , some well-known models ( the best , 3.5 % better ) cost $1,000 : a lot ; is it not ?"
    assert split_words(text) == nltk.word_tokenize(text, preserve_line=True)


@given(st.text())
def test_words_hold_every_character_but_white_space(text):
    found = split_words(text)
    assert "".join(found) == nltk.redos.sub(r"[\p{Z}\p{Cc}]", "", text)
    assert all(found)


def test_words_do_not_span_lines():
    lines = ["one-", "-two it's", "3.", "14", "x\ty\u00a0z"]
    assert split_words("\n".join(lines)) == [word for line in lines for word in split_words(line)]


@given(st.text() | st.text(st.sampled_from("ab1٣-'’.,_ \n\u00a0é\u0301!")))
def test_words_are_those_of_nltks_tokenizer(text):
    assert split_words(text) == nltk.tokenize.RegexpTokenizer(WORD_PATTERN).tokenize(text)


@pytest.mark.parametrize("part", ["a", "1", "a-", "1,", "1.1", "'", "-a'", "é\u0301"])
def test_no_text_takes_long(part):
    begin = time.process_time()
    split_words(part * 300_000 + "!")
    assert time.process_time() - begin < 2


@given(st.lists(st.sampled_from("abcdefgh")), st.integers(1, 5))
def test_vocabulary_agrees_with_nltk(corpus, cutoff):
    oracle = nltk.lm.Vocabulary(corpus, unk_cutoff=cutoff)
    counts = Counter(corpus)
    vocabulary = choose_vocabulary(counts, WordsConfig(minimum_count=cutoff))
    assert set(vocabulary) == set(oracle) - {oracle.unk_label}
    assert remove_rare_words(corpus, set(vocabulary)) == [word for word in oracle.lookup(corpus) if word != "<UNK>"]
    assert count_rare_words(counts, vocabulary) == oracle.lookup(corpus).count("<UNK>")


def test_vocabulary_does_not_depend_on_the_order_of_the_corpus():
    corpus = ["b", "a", "c", "c", "d", "a", "b"]
    config = WordsConfig(minimum_count=1, vocabulary_size=3)
    assert choose_vocabulary(Counter(corpus), config) == choose_vocabulary(Counter(corpus[::-1]), config) == [*"abc"]


def test_each_step_has_its_switch():
    text, stop_words = "The CAT and the cat", {"the", "and"}
    assert find_words(text, WordsConfig(), stop_words) == ["cat", "cat"]
    assert find_words(text, WordsConfig(lower_case=False), stop_words) == ["The", "CAT", "cat"]
    assert find_words(text, WordsConfig(stop_words="none"), stop_words) == ["the", "cat", "and", "the", "cat"]
    assert choose_vocabulary(Counter(text.split()), WordsConfig(minimum_count=1)) == ["CAT", "The", "and", "cat", "the"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"stop_words": "all"}, r"words.stop_words expected one of \['nltk', 'none', 'own'\]. Received: 'all'"),
        ({"rare_words": "keep"}, r"words.rare_words expected one of \['remove', 'unknown'\]. Received: 'keep'"),
        ({"minimum_count": 0}, "words.minimum_count expected a whole number of at least 1. Received: 0"),
        ({"vocabulary_size": 1.5}, "words.vocabulary_size expected a whole number of at least 1. Received: 1.5"),
    ],
)
def test_wrong_settings_are_named(settings, text):
    with pytest.raises(ValueError, match=text):
        WordsConfig(**settings)


@pytest.fixture
def no_nltk_data(monkeypatch, tmp_path):
    """NLTK without any data, and a cache folder of the test's own."""
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TF_LLM_OFFLINE", raising=False)
    monkeypatch.setattr(words, "DOWNLOAD_SECONDS", 0.2)
    words._download_nltk_list.cache_clear()
    yield tmp_path / "tf_llm" / "nltk_data"
    words._download_nltk_list.cache_clear()


def _write_nltk_list(folder: Path):
    (folder / "corpora" / "stopwords").mkdir(parents=True)
    (folder / "corpora" / "stopwords" / "english").write_text("the\ndon't\n")


def test_installed_list_is_used(no_nltk_data, monkeypatch, tmp_path):
    _write_nltk_list(tmp_path / "installed")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "installed")])
    monkeypatch.setattr(nltk, "download", lambda *_, **__: pytest.fail("there is nothing to download"))
    assert words.load_stop_words() == ({"the", "don't", "don’t"}, "NLTK's English list, 2 words")


def test_real_list_has_contractions_whole(shared_data, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [str(shared_data / "nltk_data")])
    stop_words, origin = words.load_stop_words()
    assert origin == "NLTK's English list, 179 words"
    assert find_words("I don't know what you're DOING, isn’t it?", WordsConfig(), stop_words) == ["know", ",", "?"]


def test_missing_list_is_downloaded(no_nltk_data, monkeypatch):
    calls = []

    def download(name, download_dir, **_):
        calls.append(name)
        _write_nltk_list(Path(download_dir))

    monkeypatch.setattr(nltk, "download", download)
    assert words.load_stop_words()[1] == "NLTK's English list, 2 words"
    assert words.load_stop_words()[1] == "NLTK's English list, 2 words"  # the second time from the cache folder
    assert calls == ["stopwords"] and no_nltk_data.is_dir()


@pytest.mark.parametrize("trouble", ["hangs", "raises", "brings nothing", "brings rubbish"])
def test_own_list_stands_in_and_the_log_says_so(no_nltk_data, monkeypatch, caplog, capfd, trouble):
    def download(name, download_dir, **_):
        if trouble == "hangs":
            time.sleep(5)
        if trouble == "raises":
            raise OSError("no route to host")
        if trouble == "brings rubbish":
            Path(download_dir, "corpora").mkdir(parents=True)
            Path(download_dir, "corpora", "stopwords.zip").write_bytes(b"PK\x03\x04 and no more")

    monkeypatch.setattr(nltk, "download", download)
    caplog.set_level("INFO", logger="tf_llm")
    begin = time.monotonic()
    stop_words, origin = words.load_stop_words()
    assert time.monotonic() - begin < 2
    assert origin.startswith("tf_llm's own English list") and "neither installed nor to be downloaded" in origin
    assert {"the", "isn't", "isn’t"} <= stop_words
    assert caplog.messages == [f"stop words: {origin}"]
    assert capfd.readouterr() == ("", "")


def test_nothing_is_downloaded_offline(no_nltk_data, monkeypatch):
    monkeypatch.setenv("TF_LLM_OFFLINE", "1")
    monkeypatch.setattr(nltk, "download", lambda *_, **__: pytest.fail("offline"))
    assert words.load_stop_words()[1].startswith("tf_llm's own")


def test_choices_without_nltk(no_nltk_data, monkeypatch):
    monkeypatch.setattr(nltk, "download", lambda *_, **__: pytest.fail("not asked for"))
    assert words.load_stop_words("none") == (frozenset(), "no stop words")
    own, origin = words.load_stop_words("own")
    assert origin == f"tf_llm's own English list, {len(words._read_own_list())} words"
    assert len(own) > 200


def test_own_list_is_sound():
    own = words._read_own_list()
    assert len(set(own)) == len(own)
    assert [split_words(word.lower()) for word in own] == [[word] for word in own]
