"""Shards to tf.data batches. Batch n is a pure function of (seed, n), so a run resumes anywhere by arithmetic.

There is no shuffle buffer: `shuffle_position` maps position i of epoch e to a block without a table, and every row is
made from its block by TensorFlow ops alone. The order is one of all blocks of the split, however many shards they fill.

Memory: a split of at most IN_MEMORY bytes is ONE constant, for as long as its dataset lives; while it is read, three
times that for a moment. Of a larger one, blocks are read from the disk as rows need them; the batches are the same. A
process that drew 2,000 batches of 32 rows from 3 GB of shards, on 2026-11-30, had 823 MB when it had imported
TensorFlow and 832 MB at its peak. Each block that the page cache does not hold costs a read of 4 KB somewhere on the
disk: nothing to an SSD (cold, 49 batches a second where warm made 60, on 2 busy cores), some milliseconds to a disk
that turns, or over a network. Such a corpus is best copied to a local SSD first.

Blocks are read by a Python function on the host, which no other process can run: the graph of such a dataset is not to
be saved, or sent to tf.data's service. Workers and TPUs of this machine do not mind.

A stored id takes 2 bytes below 65,537 ids and 4 above, and a token is stored block_length / (block_length - overlap)
times: with blocks of 128 that overlap by 64, 4 bytes a token.

Glossary: B batch, H hosts, L block length, S source length, T target length.
"""

import numpy as np
import tensorflow as tf

from tf_llm.contracts import TARGET_IDS, WEIGHTS, UserError
from tf_llm.data.blocks import StoredBlocks, read_blocks

IN_MEMORY = 2**28  # bytes of a split; a row from the disk costs 190-230 µs of one core, 140-190 from a constant
READ_TOGETHER = 256  # blocks: a call of Python for each one would cost more than the reading
ROUNDS = 12  # of the cipher that shuffles; from 8 on, its orders look like NumPy's permutations
PARALLEL = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}


def make_training_batches(shards, objective, batch_size, seed, first_batch=0, host=0, hosts=1):
    """An endless tf.data.Dataset of training batches, beginning with batch number `first_batch`.

    Every block comes once an epoch, in an order that `seed` and the epoch decide; a batch may span two epochs. Shards
    that are joined by others later (`join_shards`) have other batches.

    Args:
        shards: a `Shards`.
        objective: an `Objective`, for instance `PrefixLM(64, 64, shorten=True)`.
        batch_size: B, rows of a batch over all devices.
        seed: of the shuffle and of what the objective draws.
        first_batch: where to begin; a run that was interrupted after n batches passes n.
        host, hosts: which share of each batch to make, and of how many: rows host * B / H to (host + 1) * B / H. What
            the other hosts need is not read.

    Returns:
        Elements ({source_ids [B, S], decoder_ids [B, T]}, target_ids [B, T], weights [B, T]), static shapes, with B / H
        rows where there are several hosts; packed rows have their segments and positions among the features, too.

    Raises:
        UserError: the split has fewer blocks than one batch.
        ValueError: the batch cannot be divided among the hosts.
    """
    stored = StoredBlocks(shards, "train")
    count, share = len(stored), batch_size // hosts
    if batch_size % hosts:
        raise ValueError(f"batch_size is expected to be a multiple of hosts. Received: {batch_size}, hosts={hosts}")
    if count < batch_size:
        raise UserError(
            f"the corpus is too small: expected at least one batch of {batch_size} blocks of "
            f"{shards.config.block_length} tokens, received {count}; take more pages or a smaller batch"
        )

    def place(row):
        """Of a row of this host: its number among those of all, and that of its block."""
        index = row // share * batch_size + host * share + row % share
        return index, shuffle_position(index % count, count, tf.stack([seed, index // count]))

    def make_row(index, block):
        row_seed = tf.cast(tf.stack([seed, index]), tf.int32)  # repeats itself after four billion rows
        return as_features(objective(tf.cast(block, tf.int32), row_seed))

    rows = tf.data.Dataset.range(first_batch * share, tf.int64.max)
    if stored.total_bytes <= IN_MEMORY:
        table = tf.constant(read_blocks(shards, "train"))  # [blocks, L]

        def look_up(index, number):
            return make_row(index, table[number])

        rows = rows.map(lambda row: look_up(*place(row)), **PARALLEL)
    else:
        rows = read_from_disk(stored, rows.map(place, **PARALLEL)).map(make_row, **PARALLEL)
    return rows.batch(share, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def read_from_disk(stored, numbers):
    """A dataset of (anything, number of a block) as one of (the same, the block [L]), read many blocks at a time."""

    def read(anything, together):
        blocks = tf.numpy_function(stored.read, [together], stored.dtype, stateful=False)
        return anything, tf.ensure_shape(blocks, [None, stored.block_length])

    return numbers.batch(READ_TOGETHER).map(read, **PARALLEL).unbatch()


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
        UserError: the split is empty.
    """
    stored = StoredBlocks(shards, split)
    if not len(stored):
        raise UserError(
            f"the {split} split is empty: expected at least one page in it, received none; take more pages, or change "
            "validation_fraction"
        )
    numbers = stored.spread(max_tokens)
    if len(numbers) * stored.block_bytes <= IN_MEMORY:
        blocks = tf.data.Dataset.from_tensor_slices(read_blocks(shards, split, max_tokens))
    else:
        places = tf.data.Dataset.range(numbers.start, numbers.stop, numbers.step)
        blocks = read_from_disk(stored, tf.data.Dataset.zip(places, places)).map(lambda _, block: block)
    padding = tf.data.Dataset.from_tensors(np.zeros(stored.block_length, stored.dtype))
    rows = blocks.concatenate(padding.repeat(-len(numbers) % batch_size)).map(
        lambda block: as_features(objective(tf.cast(block, tf.int32), tf.constant([0, 0]))), **PARALLEL
    )
    return rows.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def as_features(row):
    """An objective's row as Keras takes it: (features, labels, sample weights). What is neither of the last two is a
    feature: the ids that encoder and decoder read and, of packed rows, their segments and positions."""
    features = {name: column for name, column in row.items() if name not in (TARGET_IDS, WEIGHTS)}
    return features, row[TARGET_IDS], row[WEIGHTS]
