"""Pages to shards: what is counted and kept, that nothing is half-written, and that what was done is used again."""

import dataclasses
import errno
import json
import subprocess
import sys
import types
from collections import Counter

import numpy as np
import pytest
from archives import write_html, write_prose, write_record, write_warc
from mines import Mines

import tf_llm
from tf_llm.contracts import Document, UserError
from tf_llm.crawl.warc import Warc
from tf_llm.data.pipeline import read_blocks
from tf_llm.data.shards import split_of
from tf_llm.prepare import engine
from tf_llm.prepare.local import Local
from tf_llm.prepare.worker import WorkerConfig
from tf_llm.text.html import strip_html
from tf_llm.text.piece_training import build_sentence_piece_tokenizer
from tf_llm.text.residual import UnigramCoder
from tf_llm.text.tokenizers import load_tokenizer
from tf_llm.text.words import find_words, load_stop_words


@pytest.fixture(scope="module", autouse=True)
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_LLM_OFFLINE", "1")
        yield


ONE = WorkerConfig(processes=1)


class Kept(Local):
    """A driver that keeps its worker from one run to the next."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture(scope="module", autouse=True)
def kept(offline):
    """Whoever prepares with one worker gets the same one, which takes a second to start."""
    with pytest.MonkeyPatch.context() as patch, Local(ONE) as first:
        kept = Kept(ONE)
        kept._pool = first._pool
        patch.setattr(engine, "Local", lambda config: kept if config == ONE else Local(config))
        yield


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    return write_warc(tmp_path_factory.mktemp("archive") / "pages.warc.gz", pages=60)


def make_run(**changes):
    run = tf_llm.recipes.article()
    changes.setdefault("shards", dataclasses.replace(run.shards, validation_fraction=0.2, blocks_per_shard=50))
    changes.setdefault("workers", ONE)
    return dataclasses.replace(run, **changes)


def read_folder(folder):
    """Everything in the files of a folder, but for how long it took."""
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    manifest, statistics = (json.loads(contents.pop(name)) for name in ("manifest.json", "statistics.json"))
    del manifest["about"]["seconds"], statistics["seconds"], statistics["per_second"], contents["report.html"]
    return contents, manifest, statistics


def test_shards_hold_what_the_steps_keep_and_their_counts_add_up(archive, tmp_path):
    run = make_run()
    shards = engine.prepare(Warc(archive), run, tmp_path / "data")
    tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
    stop_words, _ = load_stop_words(run.words.stop_words)
    # The parts of the one file have every second page each, and stand one behind the other in the shards.
    documents = [strip_html(page) for part in (0, 1) for page in Warc(archive).shard(part, 2)]
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
    engine.prepare(Warc(archive), make_run(), tmp_path / "one")
    workers = WorkerConfig(processes=2)
    engine.prepare(Warc(archive), make_run(workers=workers), tmp_path / "two")
    assert read_folder(tmp_path / "one") == read_folder(tmp_path / "two")


def test_characters(archive, tmp_path):
    run = make_run(tokens="characters")
    shards = engine.prepare(Warc(archive), run, tmp_path / "data")
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
    return {run.tokens: engine.prepare(Warc(archive), run, tmp_path_factory.mktemp("pieces") / "data") for run in runs}


def with_sentinels(run, count):
    return types.SimpleNamespace(**vars(run), sentinels=count)


@pytest.mark.parametrize("tokens", ["unigram", "bpe"])
def test_pieces_hold_the_whole_text(archive, pieces, tokens):
    shards = pieces[tokens]
    tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
    assert 300 < len(tokenizer.vocabulary) <= 400 and tokenizer.num_sentinels == 5
    assert shards.vocabulary_size == tokenizer.vocabulary_size == len(tokenizer.vocabulary) + 3 + 5
    texts = {"train": [], "validation": []}
    for page in (page for part in (0, 1) for page in Warc(archive).shard(part, 2)):
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
        engine.prepare(Warc(archive), with_sentinels(run, 7), pieces["bpe"].folder)
    for tokens in ("words", "characters"):
        shards = engine.prepare(Warc(archive), with_sentinels(make_run(tokens=tokens), 7), tmp_path / tokens)
        tokenizer = load_tokenizer(shards.folder / "tokenizer.json")
        assert shards.vocabulary_size == len(tokenizer.vocabulary) + 3 + 7
        assert (
            max(read_blocks(shards, "train").max(), read_blocks(shards, "validation").max())
            < shards.vocabulary_size - 7
        )


def test_a_vocabulary_too_small_for_pieces_is_refused_before_a_page_is_read(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "write_shards", None)
    words = dataclasses.replace(make_run().words, vocabulary_size=200)
    with pytest.raises(UserError, match=r"words\.vocabulary_size of at least 261 for pieces"):
        engine.prepare(Warc(archive), make_run(tokens="unigram", words=words), tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_shards_are_used_again_or_refused(archive, tmp_path):
    folder = tmp_path / "data"
    engine.prepare(Warc(archive), make_run(), folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    (tmp_path / "data.partial" / "parts").mkdir(parents=True)  # left by a run that was killed behind its last step
    engine.prepare(Warc(archive), make_run(workers=WorkerConfig(processes=2)), folder)  # no number depends on that
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]

    fewer = make_run(words=dataclasses.replace(make_run().words, vocabulary_size=20))
    with pytest.raises(UserError, match=r"same settings in .*data. Received: words .*8000.*20.*Choose another folder"):
        engine.prepare(Warc(archive), fewer, folder)
    other = write_warc(tmp_path / "other.warc.gz", pages=3)
    with pytest.raises(UserError, match="Received: source Warc"):
        engine.prepare(Warc(other), make_run(), folder)


def test_rejections_are_counted_and_neighbours_kept(tmp_path):
    hostile = "<a " * 20_000
    empty = "<html><body><script>start()</script></body></html>"
    records = [write_record(f"https://example.org/{n}", write_html(n)) for n in range(12)]
    records[3:3] = [write_record("https://example.org/hostile", hostile), write_record("https://example.org/e", empty)]
    records[7:7] = [write_record("https://example.org/deep", "<div>" * 5000 + "x")]
    path = tmp_path / "mixed.warc.gz"
    path.write_bytes(b"".join(records) + records[0][:200])  # cut short
    shards = engine.prepare(Warc(path), make_run(), tmp_path / "data")
    assert shards.train.pages + shards.validation.pages == 12
    rejections = shards.about["rejections"]
    assert rejections == {"nested too deeply": 2, "no text": 1, "gzip member cut short": 1}


def test_a_corpus_without_text_is_a_one_line_error(tmp_path):
    path = tmp_path / "empty.warc.gz"
    path.write_bytes(write_record("https://example.org/", "<script>x</script>"))
    with pytest.raises(
        UserError, match=r"expected pages with text in Warc.*Received: 1 × no text\. Take more"
    ) as error:
        engine.prepare(Warc(path), make_run(), tmp_path / "data")
    assert "\n" not in str(error.value) and not (tmp_path / "data").exists()


@pytest.mark.parametrize("moment", ["finish", "load_kept"])
def test_a_full_disk_is_one_line_and_what_was_done_is_used(archive, tmp_path, monkeypatch, moment):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    run = make_run(tokens="bpe", words=dataclasses.replace(make_run().words, vocabulary_size=400))
    with monkeypatch.context() as patch:
        patch.setattr(engine, moment, fail)
        with pytest.raises(
            UserError, match=r"written at .*data. Received: .*No space left on device. Make room"
        ) as error:
            engine.prepare(Warc(archive), run, tmp_path / "data")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["data.partial"]
    shards = tmp_path / "data.partial" / "shards"
    shards.mkdir(exist_ok=True)
    (shards / "manifest.json.0.partial").write_text("{")  # it could have been killed there, too
    monkeypatch.setattr(Local, "find_repeats", None)  # it is not asked again
    engine.prepare(Warc(archive), run, tmp_path / "data").verify()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert not list((tmp_path / "data").glob("*.partial"))


def test_what_was_done_with_other_settings_is_cleared(archive, tmp_path, monkeypatch):
    left = tmp_path / "data.partial"
    (left / "parts" / "00000" / "read").mkdir(parents=True)
    (left / "settings.json").write_text("{}")
    (left / "parts" / "00000" / "read" / "statistics.json").write_bytes(b"half")
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(engine.shutil, "rmtree", None)
        engine.prepare(Warc(archive), make_run(), tmp_path / "data")
    assert not (left / "settings.json").exists()  # whoever is killed in here leaves nothing to go on with
    shards = engine.prepare(Warc(archive), make_run(), tmp_path / "data")
    shards.verify()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_two_at_once_are_refused(archive, tmp_path):
    with (
        engine.open_partial(tmp_path / "data.partial", {}),
        pytest.raises(UserError, match=r"the only one who prepares .*data. Received: another process is at it. Let it"),
    ):
        engine.prepare(Warc(archive), make_run(), tmp_path / "data")


def test_several_files_are_parts_and_can_be_divided_further(tmp_path):
    for number in range(3):
        pages = range(10 * number, 10 * number + 10)
        records = [write_record(f"https://example.org/{page}", write_html(page)) for page in pages]
        (tmp_path / f"{number}.warc.gz").write_bytes(b"".join(records))
    source, vocabularies = Warc(f"{tmp_path}/*.warc.gz"), []
    for parts, name in ((0, "three"), (6, "six")):
        run = make_run(shards=dataclasses.replace(make_run().shards, parts=parts))
        shards = engine.prepare(source, run, tmp_path / name)
        statistics = json.loads((shards.folder / "statistics.json").read_bytes())
        assert statistics["parts"] == (parts or 3) and statistics["pages"] == statistics["documents"] == 30
        assert len(shards.train.files) == (parts or 3)
        vocabularies.append(load_tokenizer(shards.folder / "tokenizer.json").vocabulary)
    assert vocabularies[0] == vocabularies[1]


def test_a_second_piece_of_a_corpus_can_have_the_tokenizer_of_the_first(archive, tmp_path):
    first = engine.prepare(Warc(archive), make_run(), tmp_path / "first")
    other = write_warc(tmp_path / "other.warc.gz", pages=80)
    tokenizer = first.folder / "tokenizer.json"
    second = engine.prepare(Warc(other), make_run(), tmp_path / "second", tokenizer=tokenizer)
    assert (second.folder / "tokenizer.json").read_bytes() == tokenizer.read_bytes()
    assert second.train.pages > first.train.pages
    with pytest.raises(UserError, match=r"same settings .*Received: tokenizer [0-9a-f]{64}, where this run has none"):
        engine.prepare(Warc(other), make_run(), tmp_path / "second")


def test_copies_of_a_page_are_kept_once_wherever_they_lie(tmp_path):
    for number in range(2):
        copies = [write_record(f"https://{number}.example/{page}", write_html(7)) for page in range(300)]
        others = [write_record(f"https://{number}.example/own{page}", write_html(10 + page)) for page in range(5)]
        (tmp_path / f"{number}.warc.gz").write_bytes(b"".join(copies + others))
    shards = engine.prepare(Warc(f"{tmp_path}/*.warc.gz"), make_run(), tmp_path / "data")
    assert shards.train.pages + shards.validation.pages == 1 + 5
    assert shards.about["rejections"] == {"duplicate page": 599 + 5}


def test_pages_that_end_their_worker_cost_themselves(tmp_path):
    contents = dict(enumerate(write_prose(number, 12) for number in range(24)))
    contents |= {3: "hang", 7: "kill", 8: "raise", 11: "fill", 23: "kill"}
    workers = WorkerConfig(processes=2, seconds_per_page=1.0, megabytes=4096)
    shards = engine.prepare(Mines([*contents.items()]), make_run(workers=workers), tmp_path / "data")
    assert shards.train.pages + shards.validation.pages == 19
    assert shards.about["rejections"] == {"worker died": 2, "out of time": 1, "worker error": 1, "out of memory": 1}
    examples = json.loads((shards.folder / "statistics.json").read_bytes())["examples"]
    assert examples["out of time"] == [{"url": "https://mines.example/3", "detail": "1 s"}]


def test_a_source_that_ends_its_worker_costs_the_rest_of_its_part(tmp_path):
    contents = dict(enumerate(write_prose(number, 12) for number in range(24)))
    contents[10] = "source dies"  # in the first part, which has the even numbers
    shards = engine.prepare(Mines([*contents.items()]), make_run(), tmp_path / "data")
    assert shards.train.pages + shards.validation.pages == 5 + 12
    assert shards.about["rejections"] == {"rest of the part lost": 1}


def test_validation_pages_do_not_reach_the_vocabulary(tmp_path):
    urls = [f"https://example.org/{n}" for n in range(200)]
    held_out = [url for url in urls if split_of(url, 0.2) == "validation"]
    records = [
        write_record(url, write_html(n).replace("old", "zeppelin zeppelin" if url in held_out else "old"))
        for n, url in enumerate(urls[:40])
    ]
    path = tmp_path / "pages.warc.gz"
    path.write_bytes(b"".join(records))
    shards = engine.prepare(Warc(path), make_run(), tmp_path / "data")
    assert shards.validation.pages > 2
    assert "zeppelin" not in load_tokenizer(shards.folder / "tokenizer.json").vocabulary


def test_workers_start_without_tensorflow():
    code = "import sys; import tf_llm.prepare.engine; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_pages(shared_data, tmp_path):
    shards = engine.prepare(Warc(shared_data / "warc" / "real-pages.warc.gz"), make_run(), tmp_path / "data")
    rejections = shards.about["rejections"]
    assert shards.train.pages + shards.validation.pages + sum(rejections.values()) == 882
    assert rejections == {"no text": 1, "duplicate page": 15} and shards.train.tokens > 200_000
    blocks = read_blocks(shards, "train")
    assert blocks.dtype == np.uint16 and blocks.max() < shards.vocabulary_size == 8003
