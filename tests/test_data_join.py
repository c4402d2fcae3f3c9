"""Several folders of shards as one corpus."""

import numpy as np
import pytest

from tf_llm.contracts import UserError
from tf_llm.data.blocks import StoredBlocks, read_blocks
from tf_llm.data.join import join_shards
from tf_llm.data.shards import ShardConfig, ShardWriter, load_shards, write_manifest


def write_part(folder, start, tokenizer="words", vocabulary_size=1000, **config):
    """A finished folder: one page of nine ids in each split, in blocks of four, two blocks a file."""
    folder.mkdir()
    config = ShardConfig(**{"block_length": 4, "overlap": 1, "blocks_per_shard": 2} | config)
    writers = [ShardWriter(folder, split, config, vocabulary_size) for split in ("train", "validation")]
    for number, writer in enumerate(writers):
        writer.add(list(range(start + 20 * number, start + 20 * number + 9)), text_bytes=50, residual_nats=1.5)
    (folder / "tokenizer.json").write_text(tokenizer)
    about = {"settings": {"source": folder.name}, "steps": {"pages": 2}, "rejections": {"no text": start}}
    write_manifest(folder, config, vocabulary_size, *[writer.close() for writer in writers], about)
    return load_shards(folder)


@pytest.fixture
def parts(tmp_path):
    return [write_part(tmp_path / name, start) for name, start in (("one", 2), ("two", 102), ("three", 202))]


def test_blocks_of_all_parts_follow_each_other(parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts[1] = load_shards("two")  # a relative path, as people type them
    joined = join_shards(parts)
    monkeypatch.chdir("/")
    for split in ("train", "validation"):
        expected = np.concatenate([read_blocks(load_shards(tmp_path / part.folder), split) for part in parts])
        assert np.array_equal(read_blocks(joined, split), expected) and len(expected) == 12
        numbers = np.array([11, 0, 5, 4])
        assert np.array_equal(StoredBlocks(joined, split).read(numbers), expected[numbers])
        total = joined.split(split)
        assert (total.pages, total.blocks, total.tokens, total.text_bytes) == (3, 12, 30, 150)
        assert total.residual_nats == 4.5
    joined.verify()


def test_what_is_told_of_the_parts(parts):
    one, two, _ = parts
    joined = join_shards([one, two])
    assert joined.folder == one.folder and joined.folders == (one.folder, two.folder)
    assert joined.about["settings"] == {"source": "one + two"}
    assert joined.about["rejections"] == {f"{one.folder}: no text": 2, f"{two.folder}: no text": 102}
    assert joined.about["steps"] == {f"{one.folder}: pages": 2, f"{two.folder}: pages": 2}
    assert joined.about["parts"] == [one.about, two.about]


def test_a_corpus_is_known_by_its_blocks(parts, tmp_path):
    one, two, three = parts
    seen = {join_shards(some).fingerprint for some in ([one], [two], [one, two], [two, one], parts)}
    assert len(seen) == 5 and join_shards([one]) is one
    assert join_shards([join_shards([one, two]), three]).fingerprint == join_shards(parts).fingerprint
    assert write_part(tmp_path / "elsewhere", 2).fingerprint == one.fingerprint


def test_parts_that_do_not_fit_are_refused(parts, tmp_path):
    first = parts[0]

    def refuse(text, name="odd", start=500, **changes):
        with pytest.raises(UserError) as caught:
            join_shards([*parts, write_part(tmp_path / name, start, **changes)])
        assert str(caught.value).startswith(text), caught.value

    for number, changes in enumerate(({"tokenizer": "others"}, {"vocabulary_size": 1001})):
        folder, size = tmp_path / f"odd{number}", changes.get("vocabulary_size", 1000)
        refuse(
            f"expected in {folder} the tokenizer of {first.folder}. Received: another tokenizer.json, of {size} ids. "
            "Prepare the later part with the tokenizer of the first",
            folder.name,
            **changes,
        )
    for name, value in (("block_length", 5), ("overlap", 2), ("joined", True), ("validation_fraction", 0.5)):
        was = getattr(first.config, name)
        refuse(
            f"expected shards.{name}={was} in {tmp_path / name}, as in {first.folder}. Received: {value}. Parts of one",
            name,
            **{name: value},
        )
    join_shards([*parts, write_part(tmp_path / "fits", 500, blocks_per_shard=7)])
    folders = f"{parts[1].folder} and in {tmp_path / 'again'}"
    refuse(f"expected parts of a corpus that differ. Received: the same shards in {folders}", "again", 102)
    (parts[2].folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"^expected tokenizer.json in .*three. Received: No such file or directory"):
        join_shards(parts)
    with pytest.raises(ValueError, match=r"^parts is expected to hold at least one Shards. Received: none$"):
        join_shards([])
