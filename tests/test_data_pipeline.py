"""Shards to batches: every block once an epoch, every target once an evaluation, and a run that resumes anywhere."""

import doctest
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from tf_llm.contracts import (
    DECODER_IDS,
    DECODER_POSITIONS,
    DECODER_SEGMENTS,
    SOURCE_IDS,
    SOURCE_POSITIONS,
    SOURCE_SEGMENTS,
    UserError,
)
from tf_llm.data import pipeline
from tf_llm.data.blocks import read_blocks
from tf_llm.data.objectives import ObjectiveConfig, PrefixLM, build_objective
from tf_llm.data.pairs import Pairs
from tf_llm.data.pipeline import make_evaluation_batches, make_training_batches, shuffle_position
from tf_llm.data.shards import ShardConfig, ShardWriter, load_shards, write_manifest

S, T, B = 5, 3, 4
OBJECTIVE = PrefixLM(S, T)
SHORTEN = PrefixLM(S, T, shorten=True)
TRAIN_PAGES, VALIDATION_PAGES = [5, 20, 4, 0, 11, 7], [4, 0, 12, 5]  # ids of each page


def write_shards(folder, train=TRAIN_PAGES, validation=VALIDATION_PAGES, vocabulary_size=1000):
    """Shards whose ids count up from 2, so that every block is another one."""
    config, number = ShardConfig(block_length=S + T, overlap=S, blocks_per_shard=3), itertools.count(2)
    writers = {split: ShardWriter(folder, split, config, vocabulary_size) for split in ("train", "validation")}
    for split, sizes in (("train", train), ("validation", validation)):
        for size in sizes:
            writers[split].add([next(number) for _ in range(size)])
    write_manifest(folder, config, vocabulary_size, *[writer.close() for writer in writers.values()], {})
    return load_shards(folder)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


def take(batches, count):
    """The first batches, as lists: [(source_ids, decoder_ids, target_ids, weights)]."""
    return [
        [array.tolist() for array in (features[SOURCE_IDS], features[DECODER_IDS], targets, weights)]
        for features, targets, weights in itertools.islice(batches.as_numpy_iterator(), count)
    ]


def targets_of(batches):
    """The targets of each row, which tell the block."""
    return [tuple(row) for batch in batches for row in batch[2]]


def test_docstring_examples():
    result = doctest.testmod(pipeline)
    assert result.attempted == 1 and result.failed == 0


@pytest.mark.parametrize("vocabulary_size", [1000, 100_000])
def test_blocks_are_read_in_the_order_they_were_written(tmp_path, vocabulary_size):
    shards = write_shards(tmp_path, vocabulary_size=vocabulary_size)
    blocks = read_blocks(shards, "train")
    assert len(shards.train.files) > 1 and len(blocks) == shards.train.blocks
    targets = blocks[:, S:].ravel()
    assert targets[targets > 1].tolist() == list(range(2, 2 + sum(TRAIN_PAGES)))


def test_batch_is_a_function_of_seed_and_number(shards):
    whole = take(make_training_batches(shards, SHORTEN, B, seed=3), 40)
    for first in (0, 1, 4, 5, 17):
        assert take(make_training_batches(shards, SHORTEN, B, seed=3, first_batch=first), 40 - first) == whole[first:]
    assert take(make_training_batches(shards, SHORTEN, B, seed=4), 40) != whole
    far = 2**33 // B  # rows that 32 bits cannot number
    assert take(make_training_batches(shards, SHORTEN, B, 3, far - 1), 2)[1:] == take(
        make_training_batches(shards, SHORTEN, B, 3, far), 1
    )


def test_epoch_has_every_block_once_in_an_order_of_its_own(shards):
    blocks, epochs = {tuple(row) for row in read_blocks(shards, "train")[:, S:].tolist()}, 7
    count = len(blocks)
    assert count == shards.train.blocks and count % B  # batches that span two epochs
    rows = targets_of(take(make_training_batches(shards, OBJECTIVE, B, seed=3), math.ceil(epochs * count / B)))
    orders = [tuple(rows[epoch * count : (epoch + 1) * count]) for epoch in range(epochs)]
    assert all(set(order) == blocks for order in orders)
    assert len(set(orders)) == epochs
    for seed in (4, 3 + 2**8, 3 + 2**16):
        others = targets_of(take(make_training_batches(shards, OBJECTIVE, B, seed), math.ceil(count / B)))[:count]
        assert set(others) == blocks and tuple(others) not in orders


def test_row_of_a_block_differs_between_epochs(shards):
    """A block that comes again is shortened anew."""
    sources = {}
    for batch in take(make_training_batches(shards, SHORTEN, B, seed=3), 60):
        for source, target in zip(batch[0], batch[2], strict=True):
            sources.setdefault(tuple(target), set()).add(tuple(source))
    for block in read_blocks(shards, "train").tolist():
        assert len(sources[tuple(block[S:])]) > 1 or np.count_nonzero(block[:S]) == 1


def shuffle(count, seed):
    return shuffle_position(tf.range(count, dtype=tf.int64), count, tf.constant(seed, tf.int64)).numpy()


@pytest.mark.parametrize("count", [*range(1, 20), 255, 256, 257, 5000, 65_535, 65_536, 65_537, 65_538, 262_145])
def test_shuffle_is_a_bijection(count):
    for seed in ([0, 0], [2**40, 3]):
        assert np.array_equal(np.sort(shuffle(count, seed)), np.arange(count))


def test_why_not_tensorflows_own_shuffle():
    """When this fails, TensorFlow was repaired, and `shuffle_position` can become simpler."""
    positions = tf.range(65_537, dtype=tf.int64)
    places = tf.random.experimental.index_shuffle(positions, tf.constant([0, 0], tf.int64), positions[-1])
    assert len(np.unique(places)) == 65_536


@pytest.mark.parametrize("count", [100, 60_000])
def test_shuffles_look_random(count):
    """Of positions and places there is no trace in each other, nor of one seed's order in the next one's."""
    orders = [shuffle(count, [3, epoch]) for epoch in range(12)] + [shuffle(count, [3 + 2**8, 0])]
    limit = 5 / math.sqrt(count)  # five standard deviations of a correlation by chance
    for order, following in itertools.pairwise([np.arange(count), *orders]):
        assert abs(np.corrcoef(order, following)[0, 1]) < limit
        assert abs(np.corrcoef(following[1:], following[:-1])[0, 1]) < limit
        near = np.mean(np.abs(order - following) < count / 50)
        assert near < 0.04 + 5 * math.sqrt(0.04 / count)
    means = np.stack([order[: count // B * B].reshape(-1, B).mean(axis=1) for order in orders])
    assert means.var() == pytest.approx(count**2 / 12 / B, rel=0.2)  # a batch is a sample of the whole corpus


@pytest.mark.parametrize("make", [make_training_batches, make_evaluation_batches])
def test_shapes_are_static(shards, make):
    features, targets, weights = make(
        shards, SHORTEN, B, **({"seed": 1} if make is make_training_batches else {})
    ).element_spec
    assert features == {
        SOURCE_IDS: tf.TensorSpec([B, S], tf.int32),
        DECODER_IDS: tf.TensorSpec([B, T], tf.int32),
    }
    assert (targets, weights) == (tf.TensorSpec([B, T], tf.int32), tf.TensorSpec([B, T], tf.float32))


@pytest.mark.parametrize("batch_size", [1, 2, B, 7, 100])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_evaluation_counts_every_target_once(shards, split, batch_size):
    batches = take(make_evaluation_batches(shards, OBJECTIVE, batch_size, split), None)
    sources, _, targets, weights = (np.concatenate(columns) for columns in zip(*batches, strict=True))
    assert weights.sum() == shards.split(split).tokens
    assert np.array_equal(weights, targets != 0)
    blocks = read_blocks(shards, split)
    assert targets[: len(blocks)].tolist() == blocks[:, S:].tolist()
    assert len(targets) == math.ceil(len(blocks) / batch_size) * batch_size
    assert not weights[len(blocks) :].any() and not sources[len(blocks) :].any()


@pytest.mark.parametrize("kind", ["span_corruption", "denoisers"])
def test_denoising_is_scored_on_the_same_targets(shards, kind):
    """One split, three objectives: bits per byte divide the sums over the same ids."""
    objective = build_objective(ObjectiveConfig(kind=kind), S + 3, T + 1, 1000, training=False, overlap=S)
    _, _, targets, weights = (
        np.concatenate(columns)
        for columns in zip(*take(make_evaluation_batches(shards, objective, B), None), strict=True)
    )
    expected = read_blocks(shards, "validation")[:, S:]
    assert weights.sum() == shards.validation.tokens
    assert targets[weights == 1].tolist() == expected[expected != 0].tolist()


def test_columns_of_packed_rows_are_features(shards):
    packed = Pairs(S, T, packed=True)
    batches = make_training_batches(shards, packed, B, seed=1), make_evaluation_batches(shards, packed, B)
    for features, targets, weights in (dataset.element_spec for dataset in batches):
        assert features == {
            name: tf.TensorSpec([B, length], tf.int32)
            for names, length in (
                ((SOURCE_IDS, SOURCE_SEGMENTS, SOURCE_POSITIONS), S),
                ((DECODER_IDS, DECODER_SEGMENTS, DECODER_POSITIONS), T),
            )
            for name in names
        }
        assert (targets, weights) == (tf.TensorSpec([B, T], tf.int32), tf.TensorSpec([B, T], tf.float32))


def test_evaluation_of_a_part_takes_every_nth_block(shards):
    blocks, tokens = read_blocks(shards, "validation"), shards.validation.tokens
    for max_tokens in (1, tokens // 5, tokens // 2, tokens - 1, tokens, tokens + 1):
        batches = take(make_evaluation_batches(shards, OBJECTIVE, B, max_tokens=max_tokens), None)
        targets = [row for batch in batches for row in batch[2] if any(row)]
        assert targets == blocks[:: math.ceil(tokens / max_tokens), S:].tolist()


def test_evaluation_batches_are_the_same_each_time(shards):
    batches = make_evaluation_batches(shards, OBJECTIVE, B)
    assert take(batches, None) == take(batches, None)


def list_ops(dataset):
    graph = tf.compat.v1.GraphDef.FromString(dataset._as_serialized_graph().numpy())
    functions = [node for function in graph.library.function for node in function.node_def]
    return {node.op for node in [*graph.node, *functions]}


def test_rows_are_made_by_tensorflow_alone(shards):
    for dataset in (make_training_batches(shards, SHORTEN, B, 1), make_evaluation_batches(shards, OBJECTIVE, B)):
        assert "ParallelMapDatasetV2" in list_ops(dataset)
        assert not {op for op in list_ops(dataset) if "PyFunc" in op}
    python = tf.data.Dataset.range(3).map(lambda n: tf.py_function(lambda m: m, [n], tf.int64))
    assert {op for op in list_ops(python) if "PyFunc" in op}  # the test would see one


def test_too_small_corpus_is_told(tmp_path, shards):
    text = f"expected at least one batch of 100 blocks of 8 tokens, received {shards.train.blocks}; take more pages or"
    with pytest.raises(UserError, match=f"^the corpus is too small: {text} a smaller batch$"):
        make_training_batches(shards, OBJECTIVE, 100, seed=1)
    small = write_shards(tmp_path, train=[], validation=[])
    with pytest.raises(UserError, match="at least one batch of 1 blocks of 8 tokens, received 0"):
        make_training_batches(small, OBJECTIVE, 1, seed=1)
    text = "split is empty: expected at least one page in it, received none; take more pages, or change validation_frac"
    with pytest.raises(UserError, match=f"^the validation {text}"):
        make_evaluation_batches(small, OBJECTIVE, B)


def test_one_batch_is_enough(shards):
    count = shards.train.blocks
    (batch,) = take(make_training_batches(shards, OBJECTIVE, count, seed=1), 1)
    assert sorted(targets_of([batch])) == sorted(tuple(row) for row in read_blocks(shards, "train")[:, S:].tolist())


def test_batches_are_the_same_from_disk(shards, monkeypatch):
    """Neither the way blocks are read nor how they lie in files decides what comes when."""
    made = [
        lambda: take(make_training_batches(shards, SHORTEN, B, seed=3, first_batch=5), 90),
        lambda: take(make_evaluation_batches(shards, OBJECTIVE, B), None),
        lambda: take(make_evaluation_batches(shards, OBJECTIVE, 7, "train"), None),
        lambda: take(make_evaluation_batches(shards, OBJECTIVE, B, max_tokens=shards.validation.tokens // 2), None),
    ]
    expected = [make() for make in made]
    monkeypatch.setattr(pipeline, "IN_MEMORY", 0)
    monkeypatch.setattr(pipeline, "READ_TOGETHER", 64)  # many times, within a few epochs
    assert [make() for make in made] == expected
    for dataset in (make_training_batches(shards, SHORTEN, B, 1), make_evaluation_batches(shards, OBJECTIVE, B)):
        assert {op for op in list_ops(dataset) if "PyFunc" in op}  # it was not the constant again


@pytest.mark.parametrize(("hosts", "limit"), [(2, pipeline.IN_MEMORY), (4, 0)])
def test_hosts_make_shares_of_the_same_batches(shards, monkeypatch, hosts, limit):
    monkeypatch.setattr(pipeline, "IN_MEMORY", limit)
    whole = take(make_training_batches(shards, SHORTEN, B, seed=3, first_batch=2), 10)
    shares = [
        take(make_training_batches(shards, SHORTEN, B, 3, first_batch=2, host=host, hosts=hosts), 10)
        for host in range(hosts)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert [list(itertools.chain(*columns)) for columns in zip(*parts, strict=True)] == batch


def test_rows_that_hosts_cannot_share_are_refused(shards):
    text = f"batch_size is expected to be a multiple of hosts. Received: {B}, hosts=3"
    with pytest.raises(ValueError, match=f"^{text}$"):
        make_training_batches(shards, OBJECTIVE, B, seed=1, hosts=3)
