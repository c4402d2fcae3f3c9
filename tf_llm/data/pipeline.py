"""Shards to tf.data batches. Batch n is a pure function of (seed, n), so a run resumes anywhere by arithmetic.

There is no shuffle buffer: `shuffle_position` maps position i of epoch e to a block without a table, and every row is
made from its block by TensorFlow ops alone.

Memory: a split is held whole, as ONE constant, for as long as its dataset lives; while it is read, three times that
for a moment. A stored id takes 2 bytes below 65,537 ids and 4 above, and a token is stored
block_length / (block_length - overlap) times: with blocks of 128 that overlap by 64, 4 bytes a token. A constant ends
at 2 GiB; a larger split is refused. An engine that reads shards as they are needed is a later part of this project.

Glossary: B batch, L block length, S source length, T target length.
"""

import numpy as np
import tensorflow as tf

from tf_llm.contracts import TARGET_IDS, WEIGHTS, UserError
from tf_llm.data.shards import id_dtype

MAX_BYTES = 2**31 - 2**20  # a graph with a larger constant cannot be written down: protocol buffers end at 2 GiB
ROUNDS = 12  # of the cipher that shuffles; from 8 on, its orders look like NumPy's permutations


def read_blocks(shards, split):
    """All blocks of a split in memory, in the order they were written: ids [blocks, L] as they lie on disk.

    Raises UserError where they are more than the batches below can hold.
    """
    dtype, length, files = id_dtype(shards.vocabulary_size), shards.config.block_length, shards.split(split).files
    size = sum(entry["blocks"] for entry in files) * length * dtype.itemsize
    if size > MAX_BYTES:
        raise UserError(
            f"the {split} split is too large to be held in memory as one constant: expected at most {MAX_BYTES:,} "
            f"bytes of token ids, received {size:,}; prepare fewer pages, or overlap blocks less"
        )
    parts = [np.fromfile(shards.folder / entry["name"], dtype).reshape(-1, length) for entry in files]
    return np.concatenate(parts) if parts else np.zeros((0, length), dtype)


def make_training_batches(shards, objective, batch_size, seed, first_batch=0):
    """An endless tf.data.Dataset of training batches, beginning with batch number `first_batch`.

    Every block comes once an epoch, in an order that `seed` and the epoch decide; a batch may span two epochs.

    Args:
        shards: a `Shards`.
        objective: an `Objective`, for instance `PrefixLM(64, 64, shorten=True)`.
        batch_size: B, rows of a batch over all devices.
        seed: of the shuffle and of what the objective draws.
        first_batch: where to begin; a run that was interrupted after n batches passes n.

    Returns:
        Elements ({source_ids [B, S], decoder_ids [B, T]}, target_ids [B, T], weights [B, T]), static shapes; packed
        rows have their segments and positions among the features, too.

    Raises:
        UserError: the split has fewer blocks than one batch, or is too large for this pipeline.
    """
    blocks = read_blocks(shards, "train")
    count = len(blocks)
    if count < batch_size:
        raise UserError(
            f"the corpus is too small: expected at least one batch of {batch_size} blocks of "
            f"{shards.config.block_length} tokens, received {count}; take more pages or a smaller batch"
        )
    table = tf.constant(blocks)  # [blocks, L]

    def make_row(index):
        epoch, position = index // count, index % count
        number = shuffle_position(position, count, tf.stack([seed, epoch]))
        row_seed = tf.cast(tf.stack([seed, index]), tf.int32)  # repeats itself after four billion rows
        return as_features(objective(tf.cast(table[number], tf.int32), row_seed))

    indices = tf.data.Dataset.range(first_batch * batch_size, tf.int64.max)
    rows = indices.map(make_row, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return rows.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def shuffle_position(position, count, seed):
    """Where a position in [0, count) goes in a random order of all of them, which `seed` decides: int64 -> int64.

    A bijection, without a table. `tf.random.experimental.index_shuffle` is made of the same cipher, but is not used:
    - of 65,537, 262,145, … positions (a power of 4, and one) it hits one twice and one never: it takes a bit too few;
    - its four rounds leave the orders of successive seeds almost alike;
    - up to 65,536 positions, seeds that agree in their last 8 bits give the same order.

    Args:
        position: int64, one or several [n].
        count: number of positions, a Python integer.
        seed: int64 [2].

    >>> shuffle_position(tf.range(5, dtype=tf.int64), 5, seed=tf.constant([0, 0], tf.int64)).numpy().tolist()
    [3, 0, 2, 4, 1]
    """
    key = tf.random.stateless_uniform([3], seed, minval=None, maxval=None, dtype=tf.int32)  # hashed: all bits matter
    # One position too many where the cipher would take a bit too few. Only one position leads there, and goes on.
    largest = tf.constant(count - 1 if (count - 1).bit_count() > 1 else count, tf.int64)

    def encrypt(index):
        return tf.raw_ops.RandomIndexShuffle(index=index, seed=key, max_index=largest, rounds=ROUNDS)

    place = encrypt(position)
    return tf.where(place < count, place, encrypt(place))


def make_evaluation_batches(shards, objective, batch_size, split="validation", max_tokens=None):
    """The blocks of a split once, in the order they were written, in batches of one shape.

    The last batch is filled up with rows of padding, which have no weight. So every target of the split counts once, as
    long as the objective's targets are what stands behind the overlap: `build_objective(…, training=False)` makes such.

    Args:
        shards: a `Shards`.
        objective: an `Objective` that draws nothing: its seed is always [0, 0].
        batch_size: B, rows of a batch over all devices.
        split: "validation" or "train".
        max_tokens: about how many targets to take, in blocks spread evenly over the split; None takes all.

    Returns:
        Elements as those of `make_training_batches`.

    Raises:
        UserError: the split is empty, or too large for this pipeline.
    """
    blocks = read_blocks(shards, split)
    if not len(blocks):
        raise UserError(
            f"the {split} split is empty: expected at least one page in it, received none; take more pages, or change "
            "validation_fraction"
        )
    if max_tokens:
        blocks = blocks[:: -(-shards.split(split).tokens // max_tokens)]
    blocks = np.pad(blocks, [(0, -len(blocks) % batch_size), (0, 0)])
    rows = tf.data.Dataset.from_tensor_slices(blocks).map(
        lambda block: as_features(objective(tf.cast(block, tf.int32), tf.constant([0, 0]))),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return rows.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def as_features(row):
    """An objective's row as Keras takes it: (features, labels, sample weights). What is neither of the last two is a
    feature: the ids that encoder and decoder read and, of packed rows, their segments and positions."""
    features = {name: column for name, column in row.items() if name not in (TARGET_IDS, WEIGHTS)}
    return features, row[TARGET_IDS], row[WEIGHTS]
