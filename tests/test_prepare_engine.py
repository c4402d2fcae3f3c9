"""Pages to shards: what is counted, what is kept, and that nothing is half-written."""

import dataclasses
import errno
import json
import subprocess
import sys
import types
from collections import Counter

import numpy as np
import pytest
from archives import write_html, write_record, write_warc

import tf_llm
from tf_llm.contracts import Document, UserError
from tf_llm.crawl.warc import Warc
from tf_llm.data.pipeline import read_blocks
from tf_llm.data.shards import split_of
from tf_llm.prepare import local
from tf_llm.prepare.worker import WorkerConfig
from tf_llm.text.html import strip_html
from tf_llm.text.piece_training import build_sentence_piece_tokenizer
from tf_llm.text.residual import UnigramCoder
from tf_llm.text.tokenizers import load_tokenizer
from tf_llm.text.words import find_words, load_stop_words


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("TF_LLM_OFFLINE", "1")


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    return write_warc(tmp_path_factory.mktemp("archive") / "pages.warc.gz", pages=60)


def make_run(**changes):
    run = tf_llm.recipes.article()
    changes.setdefault("shards", dataclasses.replace(run.shards, validation_fraction=0.2, blocks_per_shard=50))
    changes.setdefault("workers", WorkerConfig(processes=1))
    return dataclasses.replace(run, **changes)


def read_folder(folder):
    """Everything in the files of a folder, but for how long it took."""
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    manifest = json.loads(contents.pop("manifest.json"))
    del manifest["about"]["seconds"]
    return contents, manifest


def test_shards_hold_what_the_steps_keep_and_their_counts_add_up(archive, tmp_path):
    run = make_run()
    shards = local.prepare(Warc(archive), run, tmp_path / "data")
    tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
    stop_words, _ = load_stop_words(run.words.stop_words)
    documents = [strip_html(page) for page in Warc(archive)]
    assert len(documents) == 60 and all(isinstance(document, Document) for document in documents)

    words, removed, ids, residual = Counter(), Counter(), {"train": [], "validation": []}, 0.0
    for document in documents:
        kept = find_words(document.text, run.words, stop_words, removed)
        if split_of(document.url, 0.2) == "train":
            words.update(kept)
        ids[split_of(document.url, 0.2)].append(tokenizer.encode(document.text))
    assert tokenizer.vocabulary == [
        word for word, count in sorted(words.items(), key=lambda w: (-w[1], w[0])) if count > 1
    ]

    for split in ("train", "validation"):
        stored = read_blocks(shards, split)[:, run.shards.overlap :].ravel()
        expected = [id for page in ids[split] for id in [*page, 1]]
        assert stored[stored != 0].tolist() == expected
        figures = shards.split(split)
        assert (figures.pages, figures.tokens) == (len(ids[split]), len(expected))
    steps = shards.about["steps"]
    assert steps["pages"] == 60 and steps["stop words"] == removed["stop words"] > 0
    assert steps["capital letters"] == removed["capital letters"] > 0
    assert steps["bytes of text"] == sum(len(document.text.encode()) for document in documents)
    assert steps["kinds of words removed as rare"] == sum(count == 1 for count in words.values())

    coder = UnigramCoder(tokenizer)  # the corpus is small: all of its training pages teach the coder
    for document in documents:
        if split_of(document.url, 0.2) == "train":
            coder.update(document.text)
    residual = sum(coder.nats(d.text) for d in documents if split_of(d.url, 0.2) == "validation")
    assert shards.validation.residual_nats == pytest.approx(residual)
    assert shards.validation.text_bytes == sum(
        len(d.text.encode()) for d in documents if split_of(d.url, 0.2) == "validation"
    )


def test_two_processes_write_the_same_bytes_as_one(archive, tmp_path):
    local.prepare(Warc(archive), make_run(), tmp_path / "one")
    workers = WorkerConfig(processes=2, pages_per_task=3)
    local.prepare(Warc(archive), make_run(workers=workers), tmp_path / "two")
    assert read_folder(tmp_path / "one") == read_folder(tmp_path / "two")


def test_characters(archive, tmp_path):
    run = make_run(tokens="characters")
    shards = local.prepare(Warc(archive), run, tmp_path / "data")
    tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
    assert {"T", "h", "e", " ", "."} <= set(tokenizer.vocabulary)
    first = read_blocks(shards, "train")[0, run.shards.overlap :]
    text = tokenizer.decode(first.tolist())
    assert text.startswith("Page ") and len(text) == 64
    assert shards.validation.residual_nats < 20 * shards.validation.pages  # nearly every character has an id


@pytest.fixture(scope="module")
def pieces(archive, tmp_path_factory):
    """The shards of the archive for each algorithm that finds pieces, with five sentinels."""
    words = dataclasses.replace(make_run().words, vocabulary_size=400)
    runs = [with_sentinels(make_run(tokens=tokens, words=words), 5) for tokens in ("unigram", "bpe")]
    return {run.tokens: local.prepare(Warc(archive), run, tmp_path_factory.mktemp("pieces") / "data") for run in runs}


def with_sentinels(run, count):
    return types.SimpleNamespace(**vars(run), sentinels=count)


@pytest.mark.parametrize("tokens", ["unigram", "bpe"])
def test_pieces_hold_the_whole_text(archive, pieces, tokens):
    shards = pieces[tokens]
    tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
    assert 300 < len(tokenizer.vocabulary) <= 400 and tokenizer.num_sentinels == 5
    assert shards.vocabulary_size == tokenizer.vocabulary_size == len(tokenizer.vocabulary) + 3 + 5
    texts = {"train": [], "validation": []}
    for page in Warc(archive):
        texts[split_of(page.url, 0.2)].append(strip_html(page).text)
    for split in ("train", "validation"):
        stored = read_blocks(shards, split)[:, make_run().shards.overlap :].ravel()
        rows = np.split(stored[stored != 0], np.flatnonzero(stored[stored != 0] == 1) + 1)[:-1]
        assert [tokenizer.decode(row.tolist()) for row in rows] == texts[split]
    again = build_sentence_piece_tokenizer(texts["train"], 400, tokens, num_sentinels=5)
    assert again.model == tokenizer.model  # the validation split had no say
    assert shards.validation.residual_nats == 0
    steps = shards.about["steps"]
    assert steps["kinds of pieces kept"] == len(tokenizer.vocabulary)
    assert not [name for name in steps if "words" in name] and shards.about["stop_words"] == "no stop words"


def test_sentinels_belong_to_the_settings(archive, pieces, tmp_path):
    words = dataclasses.replace(make_run().words, vocabulary_size=400)
    run = make_run(tokens="bpe", words=words)
    with pytest.raises(UserError, match=r"Received: sentinels 5, where this run has 7\. Choose another"):
        local.prepare(Warc(archive), with_sentinels(run, 7), pieces["bpe"].folder)
    for tokens in ("words", "characters"):
        shards = local.prepare(Warc(archive), with_sentinels(make_run(tokens=tokens), 7), tmp_path / tokens)
        tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
        assert shards.vocabulary_size == len(tokenizer.vocabulary) + 3 + 7
        assert (
            max(read_blocks(shards, "train").max(), read_blocks(shards, "validation").max())
            < shards.vocabulary_size - 7
        )


def test_a_vocabulary_too_small_for_pieces_is_refused_before_a_page_is_read(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "read_documents", None)
    words = dataclasses.replace(make_run().words, vocabulary_size=200)
    with pytest.raises(UserError, match=r"words\.vocabulary_size of at least 261 for pieces"):
        local.prepare(Warc(archive), make_run(tokens="unigram", words=words), tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_shards_are_used_again_or_refused(archive, tmp_path):
    folder = tmp_path / "data"
    local.prepare(Warc(archive), make_run(), folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    local.prepare(Warc(archive), make_run(workers=WorkerConfig(processes=2)), folder)  # no number depends on that
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    fewer = make_run(words=dataclasses.replace(make_run().words, vocabulary_size=20))
    with pytest.raises(UserError, match=r"same settings in .*data. Received: words .*8000.*20.*Choose another folder"):
        local.prepare(Warc(archive), fewer, folder)
    other = write_warc(tmp_path / "other.warc.gz", pages=3)
    with pytest.raises(UserError, match="Received: source Warc"):
        local.prepare(Warc(other), make_run(), folder)


def test_rejections_are_counted_and_neighbours_kept(tmp_path):
    hostile = "<a " * 20_000
    empty = "<html><body><script>start()</script></body></html>"
    records = [write_record(f"https://example.org/{n}", write_html(n)) for n in range(12)]
    records[3:3] = [write_record("https://example.org/hostile", hostile), write_record("https://example.org/e", empty)]
    records[7:7] = [write_record("https://example.org/deep", "<div>" * 5000 + "x")]
    path = tmp_path / "mixed.warc.gz"
    path.write_bytes(b"".join(records) + records[0][:200])  # cut short
    shards = local.prepare(Warc(path), make_run(), tmp_path / "data")
    assert shards.train.pages + shards.validation.pages == 12
    rejections = shards.about["rejections"]
    assert rejections.pop("no text") == 2
    assert rejections == {"nested too deeply": 1, "gzip member cut short": 1}


def test_a_corpus_without_text_is_a_one_line_error(tmp_path):
    path = tmp_path / "empty.warc.gz"
    path.write_bytes(write_record("https://example.org/", "<script>x</script>"))
    with pytest.raises(
        UserError, match=r"expected pages with text in Warc.*Received: 1 × no text\. Take more"
    ) as error:
        local.prepare(Warc(path), make_run(), tmp_path / "data")
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("moment", ["write_manifest", "encode_documents"])
def test_nothing_is_left_half_written(archive, tmp_path, monkeypatch, moment):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local, moment, fail)
    with pytest.raises(UserError, match=r"written at .*data. Received: .*No space left on device. Make room"):
        local.prepare(Warc(archive), make_run(), tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_cleared(archive, tmp_path):
    left = tmp_path / "data.partial"
    left.mkdir()
    (left / "train-00000.ids").write_bytes(b"half")
    shards = local.prepare(Warc(archive), make_run(), tmp_path / "data")
    shards.verify()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_validation_pages_do_not_reach_the_vocabulary(tmp_path):
    urls = [f"https://example.org/{n}" for n in range(200)]
    held_out = [url for url in urls if split_of(url, 0.2) == "validation"]
    records = [
        write_record(url, write_html(n).replace("old", "zeppelin zeppelin" if url in held_out else "old"))
        for n, url in enumerate(urls[:40])
    ]
    path = tmp_path / "pages.warc.gz"
    path.write_bytes(b"".join(records))
    shards = local.prepare(Warc(path), make_run(), tmp_path / "data")
    assert shards.validation.pages > 2
    assert "zeppelin" not in load_tokenizer(shards.folder / "tokenizer.json").vocabulary


def test_workers_start_without_tensorflow():
    code = "import sys; import tf_llm.prepare.local; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_pages(shared_data, tmp_path):
    shards = local.prepare(Warc(shared_data / "warc" / "real-pages.warc.gz"), make_run(), tmp_path / "data")
    assert shards.train.pages + shards.validation.pages + shards.about["rejections"]["no text"] == 882
    assert shards.about["rejections"].keys() == {"no text"} and shards.train.tokens > 200_000
    blocks = read_blocks(shards, "train")
    assert blocks.dtype == np.uint16 and blocks.max() < shards.vocabulary_size == 8003
