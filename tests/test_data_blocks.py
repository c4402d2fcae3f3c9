"""Blocks read from the disk: those that are asked for, and all of them in pieces."""

import numpy as np
import pytest

from tf_llm.contracts import UserError
from tf_llm.data import blocks
from tf_llm.data.blocks import StoredBlocks, read_blocks
from tf_llm.data.shards import ShardConfig, ShardWriter, load_shards, write_manifest

L, SIZES = 4, [3, 3, 3, 1]  # blocks of each shard


@pytest.fixture(params=[1000, 100_000], ids=["2 bytes", "4 bytes"])
def shards(tmp_path, request):
    """Ten blocks, the ids of which count up, in four files; and an empty validation split."""
    config = ShardConfig(block_length=L, overlap=0, blocks_per_shard=3)
    train, validation = (ShardWriter(tmp_path, split, config, request.param) for split in ("train", "validation"))
    train.add_blocks(np.arange(2, 2 + L * sum(SIZES)).reshape(-1, L), pages=1, tokens=L * sum(SIZES))
    write_manifest(tmp_path, config, request.param, train.close(), validation.close(), {})
    return load_shards(tmp_path)


def test_blocks_are_found_by_number(shards):
    assert [entry["blocks"] for entry in shards.train.files] == SIZES
    stored, expected = StoredBlocks(shards, "train"), np.arange(2, 2 + L * sum(SIZES)).reshape(-1, L)
    assert len(stored) == sum(SIZES)
    assert stored.total_bytes == sum((shards.folder / entry["name"]).stat().st_size for entry in shards.train.files)
    for numbers in ([9, 0, 3, 2, 2, 8], [5], [], [*range(10)], [*range(10)][::-1]):
        read = stored.read(np.array(numbers, "int64"))
        assert read.dtype == stored.dtype and np.array_equal(read, expected[numbers])
    assert not len(StoredBlocks(shards, "validation"))


def test_a_reading_opens_a_shard_once(shards, monkeypatch):
    opened, fill = [], StoredBlocks._fill

    def note(self, path, *rest):
        opened.append(path.name)
        fill(self, path, *rest)

    monkeypatch.setattr(StoredBlocks, "_fill", note)
    StoredBlocks(shards, "train").read(np.array([9, 0, 8, 1, 7, 0]))
    assert opened == ["train-00000.ids", "train-00002.ids", "train-00003.ids"]


@pytest.mark.parametrize("blocks_of_a_piece", [0.5, 1, 2, 3, 100])
def test_pieces_are_the_whole(shards, monkeypatch, blocks_of_a_piece):
    stored = StoredBlocks(shards, "train")
    monkeypatch.setattr(blocks, "PIECE_BYTES", int(blocks_of_a_piece * stored.block_bytes))
    pieces = list(stored.read_pieces())
    assert max(map(len, pieces)) == min(max(int(blocks_of_a_piece), 1), SIZES[0])
    assert np.array_equal(np.concatenate(pieces), read_blocks(shards, "train"))
    assert read_blocks(shards, "validation").shape == (0, L) and not list(
        StoredBlocks(shards, "validation").read_pieces()
    )


def test_shard_that_went_away_is_told(shards):
    stored, path = StoredBlocks(shards, "train"), shards.folder / "train-00001.ids"
    path.write_bytes(path.read_bytes()[:-1])
    stored.read(np.array([4]))  # what is there still
    end = f"its end before {3 * stored.block_bytes} bytes. Shards have to stay where they are"
    with pytest.raises(UserError, match=f"^expected the shard {path} as its manifest describes it. Received: {end}"):
        stored.read(np.array([5]))
    path.unlink()
    with pytest.raises(UserError, match=r"Received: .*No such file"):
        list(stored.read_pieces())
