"""What the encoder reads and what the decoder must say, made from one stored block in pure TensorFlow ops.

Glossary: L block length, S source length, T target length (L = S + T).
"""

import tensorflow as tf

from tf_llm.contracts import DECODER_IDS, PAD_ID, SOURCE_IDS, START_ID, TARGET_IDS, WEIGHTS


class PrefixLM:
    """The article's task: the encoder reads the first part of a window, the decoder continues it.

    Args:
        source_length: S, the first ids of a block: the overlap of the shards.
        target_length: T, the ids behind them.
        shorten: whether to cut the source, for training, to a random number of its last tokens: 1, 2, … or all that
            there are, each as likely. People's prompts are shorter than S, and a model that only ever read full
            sources has never seen one.

    Call: (block int32 [S + T], seed int32 [2]) -> source_ids [S], decoder_ids [T], target_ids [T] int32 and
    weights float32 [T]. In a stored block padding stands in front of the source; in `source_ids` it stands behind.

    >>> row = PrefixLM(3, 2)(tf.constant([0, 1, 5, 6, 7]), tf.constant([0, 0]))
    >>> {name: column.numpy().tolist() for name, column in row.items()}
    {'source_ids': [1, 5, 0], 'decoder_ids': [0, 6], 'target_ids': [6, 7], 'weights': [1.0, 1.0]}
    """

    def __init__(self, source_length, target_length, shorten=False):
        self.source_length, self.target_length, self.shorten = source_length, target_length, shorten

    def __call__(self, block, seed):
        if block.shape[0] != self.source_length + self.target_length:
            raise ValueError(
                f"a block is expected to have source_length + target_length = {self.source_length} + "
                f"{self.target_length} ids. Received: {block.shape[0]}"
            )
        source, target = block[: self.source_length], block[self.source_length :]
        held = tf.math.count_nonzero(source != PAD_ID, dtype=tf.int32)
        kept = held
        if self.shorten:  # a block of padding alone, which fills up a batch, holds nothing to choose from
            kept = tf.random.stateless_uniform([], seed, minval=1, maxval=tf.maximum(held, 1) + 1, dtype=tf.int32)
        source = tf.roll(source, kept - self.source_length, axis=0)  # the last `kept` ids come to the front
        source = tf.where(tf.range(self.source_length) < kept, source, PAD_ID)
        return {
            SOURCE_IDS: source,  # [S]
            DECODER_IDS: tf.concat([[START_ID], target[:-1]], axis=0),  # [T]
            TARGET_IDS: target,  # [T]
            WEIGHTS: tf.cast(target != PAD_ID, tf.float32),  # [T]
        }
