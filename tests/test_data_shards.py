"""Documents as blocks of ids: nothing lost, nothing twice, and a damaged folder is refused."""

import doctest
import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.contracts import END_ID, PAD_ID, UserError
from tf_llm.data import shards
from tf_llm.data.shards import (
    MANIFEST,
    ShardConfig,
    ShardWriter,
    Split,
    cut_blocks,
    load_shards,
    split_of,
    write_manifest,
)

CONFIG = ShardConfig(block_length=6, overlap=2, blocks_per_shard=4)
RNG = np.random.default_rng(7)
PAGES = [RNG.integers(2, 1000, size).tolist() for size in (9, 0, 4, 40, 1, 3, 17)]


def write_folder(folder, config=CONFIG, vocabulary_size=1000, pages=PAGES, about=None):
    writers = {split: ShardWriter(folder, split, config, vocabulary_size) for split in ("train", "validation")}
    for number, ids in enumerate(pages):
        writers["validation" if number == 2 else "train"].add(ids, text_bytes=10, residual_nats=0.1)
    splits = [writer.close() for writer in writers.values()]
    write_manifest(folder, config, vocabulary_size, *splits, about or {})
    return folder


def read_ids(folder, split, dtype="<u2"):
    return np.concatenate([np.fromfile(path, dtype) for path in sorted(folder.glob(f"{split}-*.ids"))])


def test_docstring_examples():
    result = doctest.testmod(shards)
    assert result.attempted == 2 and result.failed == 0


lengths = st.integers(2, 12).flatmap(lambda length: st.tuples(st.just(length), st.integers(0, length - 1)))


@given(st.lists(st.integers(2, 99), max_size=60), lengths)
def test_every_id_stands_behind_the_overlap_once_and_its_context_before_it(ids, lengths):
    length, overlap = lengths
    blocks = cut_blocks(ids, ShardConfig(block_length=length, overlap=overlap))
    targets = blocks[:, overlap:].ravel().tolist()
    assert targets[: len(ids) + 1] == [*ids, END_ID]
    assert set(targets[len(ids) + 1 :]) <= {PAD_ID} and len(targets) - len(ids) - 1 < length - overlap
    before = ([PAD_ID] * (overlap - 1) + [END_ID])[:overlap] + targets
    for number, context in enumerate(blocks[:, :overlap].tolist()):
        begin = number * (length - overlap)
        assert context == before[begin : begin + overlap]


def test_round_trip(tmp_path):
    about = {"source": "größe", "path": "\udcff.warc", "steps": {"words": 3}, "seconds": 0.1}
    found = load_shards(write_folder(tmp_path, about=about))
    assert (found.folder, found.config, found.vocabulary_size, found.about) == (tmp_path, CONFIG, 1000, about)
    assert (found.train.pages, found.validation.pages) == (6, 1)
    assert found.train.tokens == sum(len(ids) + 1 for ids in PAGES) - 5 and found.validation.tokens == 5
    assert found.train.text_bytes == 60 and found.train.residual_nats == pytest.approx(0.6)
    assert found.split("train") == found.train and found.split("validation") == found.validation
    for split in ("train", "validation"):
        pages = [ids for number, ids in enumerate(PAGES) if (number == 2) == (split == "validation")]
        blocks = np.concatenate([cut_blocks(ids, CONFIG) for ids in pages])
        assert read_ids(tmp_path, split).tolist() == blocks.ravel().tolist()
        assert found.split(split).blocks == sum(entry["blocks"] for entry in found.split(split).files) == len(blocks)
    found.verify()
    with pytest.raises(ValueError, match=r"split is expected to be one of \['train', 'validation'\]. Received: 'test'"):
        found.split("test")


def read_files(found, split):
    """Blocks of a split in the order that the manifest has its files."""
    parts = [np.fromfile(found.folder / entry["name"], "<u2") for entry in found.split(split).files]
    return np.concatenate(parts).reshape(-1, found.config.block_length)


@settings(deadline=None, max_examples=50)  # each writes files
@given(st.lists(st.lists(st.integers(2, 99), max_size=30), min_size=2, max_size=12), lengths, st.integers(1, 5))
def test_joined_windows_are_the_stream_of_pages(pages, lengths, blocks_per_shard):
    """In the training split alone, whatever the lengths of pages, windows and files."""
    length, overlap = lengths
    config = ShardConfig(block_length=length, overlap=overlap, blocks_per_shard=blocks_per_shard, joined=True)
    with tempfile.TemporaryDirectory() as folder:
        found = load_shards(write_folder(Path(folder), config, pages=[*pages[:2], [5, 6, 7], *pages[2:]]))
        train, validation = (read_files(found, split) for split in ("train", "validation"))
    stream = [id for page in pages for id in [*page, END_ID]]
    joined = train.ravel().tolist()
    assert joined[: len(stream)] == stream and set(joined[len(stream) :]) <= {PAD_ID}
    assert len(train) == -(-len(stream) // length) == found.train.blocks
    assert (found.train.tokens, found.train.pages) == (len(stream), len(pages))
    assert validation.tolist() == cut_blocks([5, 6, 7], config).tolist() and found.validation.tokens == 4


def test_joined_is_off_unless_told_and_old_manifests_say_so(tmp_path):
    assert not ShardConfig().joined
    change_manifest(write_folder(tmp_path), lambda manifest: manifest["config"].pop("joined"))
    assert load_shards(tmp_path).config == CONFIG


@pytest.mark.parametrize("blocks_per_shard", [1, 2, 3, 7, 1000])
def test_where_files_end_does_not_matter(tmp_path, blocks_per_shard):
    for size in (blocks_per_shard, 4):
        (tmp_path / str(size)).mkdir(exist_ok=True)
        write_folder(tmp_path / str(size), ShardConfig(block_length=6, overlap=2, blocks_per_shard=size))
    one, other = tmp_path / str(blocks_per_shard), tmp_path / "4"
    assert read_ids(one, "train").tobytes() == read_ids(other, "train").tobytes()
    sizes = [entry["blocks"] for entry in load_shards(one).train.files]
    assert all(size == blocks_per_shard for size in sizes[:-1]) and 0 < sizes[-1] <= blocks_per_shard
    assert [entry["name"] for entry in load_shards(one).train.files] == [
        f"train-{n:05d}.ids" for n in range(len(sizes))
    ]


def test_file_is_written_as_soon_as_it_is_full(tmp_path):
    writer = ShardWriter(tmp_path, "train", CONFIG, 1000)
    writer.add([5] * 11)  # 3 blocks
    assert not list(tmp_path.iterdir())
    writer.add([5] * 3)  # the fourth
    assert [path.name for path in tmp_path.iterdir()] == ["train-00000.ids"]
    assert len(writer.close().files) == 1 == len(list(tmp_path.iterdir()))
    assert ShardWriter(tmp_path, "validation", CONFIG, 1000).close() == Split()


@pytest.mark.parametrize(("vocabulary_size", "dtype"), [(2**16, "<u2"), (2**16 + 1, "<i4")])
def test_width_of_ids(tmp_path, vocabulary_size, dtype):
    pages = [[2, vocabulary_size - 1], [3], [4]]
    write_folder(tmp_path, vocabulary_size=vocabulary_size, pages=pages)
    blocks = np.concatenate([cut_blocks(ids, CONFIG) for ids in pages[:2]])
    assert read_ids(tmp_path, "train", dtype).tolist() == blocks.ravel().tolist()
    assert load_shards(tmp_path).train.tokens == 5


@pytest.mark.parametrize("ids", [[5, 1000], [70_000], [5, 0], [-1]])
def test_ids_that_would_read_back_as_others_are_refused(tmp_path, ids):
    text = rf"ids are expected in \[1, 1000\). Received: {min(ids)} to {max(ids)}"
    with pytest.raises(ValueError, match=text):
        ShardWriter(tmp_path, "train", CONFIG, 1000).add(ids)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failed_write_leaves_nothing(tmp_path, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (type(tmp_path), "replace")}[call], fail)
    writer = ShardWriter(tmp_path, "train", CONFIG, 1000)
    with pytest.raises(UserError, match="No space left"):
        writer.add([5] * 100)
    assert not list(tmp_path.iterdir())


def test_folder_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    for folder, reason in (("file", "Not a directory"), ("missing", "No such file or directory"), (".", "No such")):
        with pytest.raises(
            UserError, match=rf"holds no finished shards: expected {MANIFEST}, received {reason}.*; prepare them first"
        ):
            load_shards(tmp_path / folder)


def change_manifest(folder, change):
    manifest = json.loads((folder / MANIFEST).read_bytes())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("format"),
        lambda manifest: manifest.pop("about"),
        lambda manifest: manifest["config"].update(overlap=6),
        lambda manifest: manifest["config"].update(colour=6),
        lambda manifest: manifest.update(vocabulary_size=None),
        lambda manifest: manifest["train"].pop("files"),
        lambda manifest: manifest["train"].update(colour=6),
        lambda manifest: manifest["train"]["files"][0].pop("sha256"),
        lambda manifest: manifest["train"]["files"].append("train-00000.ids"),
        lambda manifest: manifest.update(train=[]),
    ],
)
def test_damaged_manifest_is_refused(tmp_path, change):
    change_manifest(write_folder(tmp_path), change)
    with pytest.raises(UserError, match=rf"{MANIFEST} is damaged \(.*\); delete the folder and prepare it again"):
        load_shards(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 1', b"\xff", b"null"])
def test_manifest_of_something_else_is_refused(tmp_path, content):
    (write_folder(tmp_path) / MANIFEST).write_bytes(content)
    with pytest.raises(UserError, match=rf"{MANIFEST} is damaged"):
        load_shards(tmp_path)


def test_manifest_of_another_version_is_refused(tmp_path):
    change_manifest(write_folder(tmp_path), lambda manifest: manifest.update(format=2))
    with pytest.raises(UserError, match="of another version: expected format 1, received 2; delete the folder"):
        load_shards(tmp_path)


def test_missing_short_and_long_files_are_refused(tmp_path):
    path = write_folder(tmp_path) / "train-00001.ids"
    content = path.read_bytes()
    for received, change in (
        ("no such file", path.unlink),
        ("47 bytes", lambda: path.write_bytes(content[:-1])),
        ("49 bytes", lambda: path.write_bytes(content + b"\0")),
        ("no such file", lambda: path.rename(tmp_path / "other")),
    ):
        change()
        text = f"{path} is expected to have 48 bytes, received {received}; delete {tmp_path} and prepare it again"
        with pytest.raises(UserError, match=text):
            load_shards(tmp_path)
        path.write_bytes(content)
    load_shards(tmp_path).verify()


def test_changed_byte_is_found(tmp_path):
    (tmp_path / "whole").mkdir()
    write_folder(tmp_path / "whole")
    for number, path in enumerate(sorted((tmp_path / "whole").glob("*.ids"))):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / str(number))
        content = bytearray(path.read_bytes())
        content[RNG.integers(len(content))] ^= 1 << RNG.integers(8)
        (folder / path.name).write_bytes(content)
        found = load_shards(folder)
        with pytest.raises(
            UserError, match=rf"{path.name} is not the file that was written: expected sha256 [0-9a-f]{{12}}…, received"
        ):
            found.verify()
        (folder / path.name).unlink()
        with pytest.raises(UserError, match=r"received \(no file\)…; delete"):
            found.verify()


def test_split_is_a_function_of_the_address():
    urls = [f"https://site-{number % 97}.example/page/{number}" for number in range(20_000)] + ["", "\udcff"]
    for fraction in (0.02, 0.3):
        validation = {url for url in urls if split_of(url, fraction) == "validation"}
        assert len(validation) / len(urls) == pytest.approx(fraction, rel=0.1)
        assert validation == {url for url in reversed(urls) if split_of(url, fraction) == "validation"}
        assert all(split_of(url, 0.5) == "validation" for url in validation)  # a larger split holds the smaller one
    assert [split_of(f"https://a.example/{n}", 0.5) for n in range(4)] == ["train", "train", "validation", "validation"]


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"overlap": -1}, r"overlap is expected in \[0, block_length\). Received: overlap=-1, block_length=128"),
        ({"overlap": 8, "block_length": 8}, "Received: overlap=8, block_length=8"),
        ({"blocks_per_shard": 0}, "blocks_per_shard is expected to be at least 1. Received: 0"),
        ({"validation_fraction": 0.0}, r"validation_fraction is expected in \(0, 1\). Received: 0.0"),
        ({"validation_fraction": 1.0}, r"validation_fraction is expected in \(0, 1\). Received: 1.0"),
    ],
)
def test_wrong_settings_are_named(setting, text):
    with pytest.raises(ValueError, match=text):
        ShardConfig(**setting)
