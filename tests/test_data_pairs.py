"""Pairs of texts: what is packed comes out as it went in, and a folder of them is a folder of shards like any other."""

import doctest
import itertools
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.contracts import (
    DECODER_IDS,
    DECODER_POSITIONS,
    DECODER_SEGMENTS,
    END_ID,
    SOURCE_IDS,
    SOURCE_SEGMENTS,
    START_ID,
    TARGET_IDS,
    WEIGHTS,
    UserError,
)
from tf_llm.data import pairs as module
from tf_llm.data.pairs import Pairs, pack_pairs, write_pairs
from tf_llm.data.pipeline import make_evaluation_batches, make_training_batches, read_blocks
from tf_llm.data.shards import load_shards
from tf_llm.text.tokenizers import CharTokenizer, load_tokenizer

S, T = 9, 7
SEED = tf.constant([0, 0])
RNG = np.random.default_rng(5)


def draw_pairs(count, source_length=S, target_length=T):
    """Pairs that fit without being cut."""
    sizes = RNG.integers(0, [source_length, target_length], (count, 2))
    return [tuple(RNG.integers(2, 99, size).tolist() for size in row) for row in sizes]


def unpack(row):
    """The pairs of a row, read from its segments alone."""
    found = []
    for number in range(1, int(row[SOURCE_SEGMENTS].max(initial=0)) + 1):
        source, target = (
            row[SOURCE_IDS][row[SOURCE_SEGMENTS] == number],
            row[TARGET_IDS][row[DECODER_SEGMENTS] == number],
        )
        assert source[-1] == END_ID == target[-1]
        found.append((source[:-1].tolist(), target[:-1].tolist()))
    return found


def make_row(block, packed=True, lengths=(S, T)):
    return {name: column.numpy() for name, column in Pairs(*lengths, packed)(tf.constant(block), SEED).items()}


def test_docstring_examples():
    assert doctest.testmod(module) == (0, 3)


parts = st.tuples(*[st.lists(st.integers(2, 99), max_size=length - 1) for length in (S, T)])


@settings(deadline=None, max_examples=60)
@given(st.lists(parts, max_size=12))
def test_what_is_packed_comes_out_as_it_went_in(pairs):
    counts = Counter()
    rows = [make_row(block) for block in pack_pairs(pairs, S, T, packed=True, counts=counts)]
    assert Counter(map(str, itertools.chain.from_iterable(map(unpack, rows)))) == Counter(map(str, pairs))
    assert not any(counts.values())
    for row in rows:
        for side, ids in ((SOURCE_IDS, SOURCE_IDS), (DECODER_IDS, TARGET_IDS)):
            segments, positions = row[side.replace("ids", "segments")], row[side.replace("ids", "positions")]
            used = np.count_nonzero(segments)
            assert (segments[:used] > 0).all() and not row[ids][used:].any() and not positions[used:].any()
            for number in range(1, segments.max(initial=0) + 1):
                inside = positions[segments == number]
                assert inside.tolist() == list(range(len(inside)))
        shifted = np.concatenate([[START_ID], row[TARGET_IDS][:-1]])
        assert row[DECODER_IDS].tolist() == np.where(row[DECODER_POSITIONS] == 0, START_ID, shifted).tolist()
        assert (row[WEIGHTS] == (row[DECODER_SEGMENTS] > 0)).all()


def test_row_of_one_pair():
    (block,) = pack_pairs([([5, 6], [7])], S, T)
    row = make_row(block, packed=False)
    assert {name: column.tolist() for name, column in row.items()} == {
        SOURCE_IDS: [5, 6, END_ID, 0, 0, 0, 0, 0, 0],
        DECODER_IDS: [START_ID, 7, END_ID, 0, 0, 0, 0],
        TARGET_IDS: [7, END_ID, 0, 0, 0, 0, 0],
        WEIGHTS: [1, 1, 0, 0, 0, 0, 0],
    }
    (packed,) = pack_pairs([([5, 6], [7]), ([8], [9])], S, T, packed=True)
    first = make_row(packed, packed=False)  # the second pair is not mixed in
    assert first.keys() == row.keys() and all((first[name] == row[name]).all() for name in row)


@pytest.mark.parametrize("packed", [False, True])
def test_block_of_padding_has_no_weight(packed):
    assert not any(column.any() for column in make_row(np.zeros(S + T, "int32"), packed).values())


@pytest.mark.parametrize("packed", [False, True])
def test_eager_equals_tf_data_and_nothing_is_drawn(packed):
    objective, blocks = Pairs(S, T, packed), pack_pairs(draw_pairs(40), S, T, packed)
    dataset = tf.data.Dataset.from_tensor_slices(blocks).enumerate()
    dataset = dataset.map(lambda n, block: objective(block, tf.stack([7, tf.cast(n, tf.int32)])))
    lengths = {name: S if "source" in name else T for name in objective(blocks[0], SEED)}
    assert len(lengths) == (8 if packed else 4)
    assert {name: (spec.shape, spec.dtype) for name, spec in dataset.element_spec.items()} == {
        name: ((length,), tf.float32 if name == WEIGHTS else tf.int32) for name, length in lengths.items()
    }
    for block, row in zip(blocks, dataset.as_numpy_iterator(), strict=True):
        expected = make_row(block, packed)
        assert all(column.tolist() == expected[name].tolist() for name, column in row.items())


def first_fit_decreasing(pairs, source_length, target_length):
    """The textbook's rule, with lists."""
    rows = []
    for pair in sorted(pairs, key=lambda p: -max((len(p[0]) + 1) / source_length, (len(p[1]) + 1) / target_length)):
        for row in rows:
            if (
                sum(len(source) + 1 for source, _ in [*row, pair]) <= source_length
                and sum(len(target) + 1 for _, target in [*row, pair]) <= target_length
            ):
                row.append(pair)
                break
        else:
            rows.append([pair])
    return rows


def test_packing_is_first_fit_decreasing():
    pairs = draw_pairs(300, 20, 12)
    blocks = pack_pairs(pairs, 64, 48, packed=True)
    assert [unpack(make_row(block, lengths=(64, 48))) for block in blocks] == first_fit_decreasing(pairs, 64, 48)
    assert blocks.tolist() == pack_pairs(iter(pairs), 64, 48, packed=True).tolist()  # the same each time
    needed = max(sum(len(pair[side]) + 1 for pair in pairs) / (64, 48)[side] for side in (0, 1))
    assert needed <= len(blocks) < 1.1 * needed


def test_packing_looks_at_no_more_than_its_buffer(monkeypatch):
    pairs = draw_pairs(50)
    monkeypatch.setattr(module, "BUFFER", 10)
    parts = [pack_pairs(pairs[begin : begin + 10], S, T, packed=True) for begin in range(0, 50, 10)]
    assert pack_pairs(pairs, S, T, packed=True).tolist() == np.concatenate(parts).tolist()
    assert pack_pairs([], S, T).shape == (0, S + T)


@pytest.mark.parametrize("packed", [False, True])
def test_too_long_parts_are_cut_and_counted(packed):
    counts = Counter()
    pairs = [(list(range(5, 5 + size)), list(range(50, 50 + size))) for size in (T - 1, S - 1, S, 40)]
    rows = [make_row(block, packed) for block in pack_pairs(pairs, S, T, packed, counts)]
    assert counts == {"sources cut": 2, "targets cut": 3}
    assert len(rows) == 4 and all(row[TARGET_IDS].tolist() == [*range(50, 49 + T), END_ID] for row in rows)
    sources = sorted(row[SOURCE_IDS].tolist() for row in rows)
    assert sources[-1] == [*range(5, 4 + S), END_ID] and sources.count(sources[-1]) == 3


@pytest.mark.parametrize("pair", [([5, 0], [6]), ([5], [END_ID, 6])], ids=["padding", "end"])
def test_ids_that_would_end_a_text_are_refused(pair):
    with pytest.raises(ValueError, match=f"expected above 1, the end of a text. Received: {min(map(min, pair))}"):
        pack_pairs([([5], [6]), pair], S, T)


def test_block_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"source_length \+ target_length = 9 \+ 7 ids. Received: 15"):
        Pairs(S, T)(tf.zeros(15, tf.int32), SEED)


TOKENIZER = CharTokenizer("0123456789+=")
SUMS = [(f"{one}+{other}", f"={one + other}") for one in range(30) for other in range(10)]


@pytest.mark.parametrize("packed", [False, True])
def test_folder_of_pairs_is_read_by_the_pipeline(tmp_path, packed):
    texts = [*SUMS, ("", "=1"), ("1+1", "")]
    shards = write_pairs(iter(texts), TOKENIZER, tmp_path / "sums", 24, 12, packed, 0.2, source="sums")
    shards.verify()
    assert load_shards(tmp_path / "sums") == shards and [path.name for path in tmp_path.iterdir()] == ["sums"]
    assert load_tokenizer(str(tmp_path / "sums" / "tokenizer.json")).vocabulary == TOKENIZER.vocabulary
    assert (shards.config.block_length, shards.config.overlap, shards.vocabulary_size) == (36, 0, 15)
    assert shards.about["settings"]["source"] == "sums" and isinstance(shards.about["stop_words"], str)
    assert shards.about["rejections"] == {"no words left in the source": 1, "no words left in the target": 1}
    assert shards.about["steps"]["pairs"] == len(SUMS) == shards.train.pages + shards.validation.pages
    objective, found = Pairs(24, 12, packed), {}
    for split in ("train", "validation"):
        blocks, total = read_blocks(shards, split), shards.split(split)
        batches = list(make_evaluation_batches(shards, objective, 7, split).as_numpy_iterator())
        assert sum(weights.sum() for *_, weights in batches) == total.tokens  # every target once
        assert total.tokens == total.text_bytes + total.pages and total.residual_nats == 0  # a byte a digit, and an end
        rows = [make_row(block, packed=True, lengths=(24, 12)) for block in blocks]
        found[split] = {tuple(map(TOKENIZER.decode, pair)) for row in rows for pair in unpack(row)}
        assert len(found[split]) == total.pages and (
            len(blocks) < total.pages if packed else len(blocks) == total.pages
        )
    assert found["train"] | found["validation"] == set(SUMS)
    assert 0.1 < len(found["validation"]) / len(SUMS) < 0.3
    features, targets, _ = next(iter(make_training_batches(shards, objective, 4, seed=1)))
    assert len(features) == (6 if packed else 2) and targets.shape == (4, 12)


def test_a_source_is_in_one_split_however_many_targets_it_has(tmp_path):
    texts = [(f"{number}", f"{target}") for target in range(3) for number in range(100)]
    shards = write_pairs(texts, TOKENIZER, tmp_path / "numbers", 4, 4, validation_fraction=0.3)
    sources = [
        {tuple(block[: block.tolist().index(1)]) for block in read_blocks(shards, name)}
        for name in ("train", "validation")
    ]
    assert not sources[0] & sources[1] and len(sources[0] | sources[1]) == 100
    assert all(
        len(found) * 3 == shards.split(name).pages for name, found in zip(("train", "validation"), sources, strict=True)
    )


def test_bytes_of_what_is_cut_are_not_counted(tmp_path):
    shards = write_pairs([("1", "12345678")], TOKENIZER, tmp_path / "cut", 4, 5, validation_fraction=1e-9)
    assert (shards.train.tokens, shards.train.text_bytes) == (5, 4)
    assert shards.about["steps"] == {"pairs": 1, "sources cut": 0, "targets cut": 1, "rows": 1}


def test_folder_is_whole_or_not_there(tmp_path):
    def stop():
        yield from SUMS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pairs(stop(), TOKENIZER, tmp_path / "sums", 24, 12)
    with pytest.raises(
        UserError, match=r"pairs to train on. Received: 0 .*, 2 × no words left in the target. Take more"
    ):
        write_pairs([("1", "")] * 2, TOKENIZER, tmp_path / "sums", 24, 12)
    assert not list(tmp_path.iterdir())
    (tmp_path / "sums.partial").mkdir()
    (tmp_path / "sums.partial" / "train-00009.ids").touch()  # of a run that was killed
    write_pairs(SUMS, TOKENIZER, tmp_path / "sums", 24, 12)
    assert [path.name for path in tmp_path.iterdir()] == ["sums"] and not (
        tmp_path / "sums" / "train-00009.ids"
    ).exists()
    with pytest.raises(UserError, match=r"expected a folder that is not there yet. Received: .*sums. Remove it, or"):
        write_pairs(SUMS, TOKENIZER, tmp_path / "sums", 24, 12)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"expected a folder that can be written at .* Make room, or choose another"):
        write_pairs(SUMS, TOKENIZER, tmp_path / "file" / "sums", 24, 12)
