"""What every objective builds its rows of: columns of static shape, in pure TensorFlow ops.

Glossary: L block length, S source length, T target length.
"""

import tensorflow as tf

from tf_llm.contracts import DECODER_IDS, PAD_ID, SOURCE_IDS, START_ID, TARGET_IDS, WEIGHTS


def move_to_front(values, kept, length):
    """The values that are kept, in their order, then zeros: int32 [L], bool [L] -> int32 [length].

    What does not fit is cut from the end. The shape is static, however many are kept.

    >>> move_to_front(tf.constant([0, 5, 6, 0, 7]), tf.constant([False, True, False, False, True]), 3).numpy().tolist()
    [5, 7, 0]
    """
    place = tf.cumsum(tf.cast(kept, tf.int32), exclusive=True)
    place = tf.where(kept & (place < length), place, -1)  # a negative segment is dropped
    return tf.math.unsorted_segment_sum(values, place, length)


def build_row(source, target, weights=None):
    """The columns of a row in which the decoder, from START_ID on, reads what it has said.

    Args:
        source: int32 [S].
        target: int32 [T].
        weights: float32 [T]; without them every target counts that is not padding.

    Returns:
        source_ids [S], decoder_ids [T], target_ids [T] int32 and weights float32 [T].

    >>> row = build_row(tf.constant([5, 6]), tf.constant([7, 1, 0]))
    >>> row["decoder_ids"].numpy().tolist(), row["weights"].numpy().tolist()
    ([0, 7, 1], [1.0, 1.0, 0.0])
    """
    return {
        SOURCE_IDS: source,
        DECODER_IDS: tf.concat([[START_ID], target[:-1]], axis=0),
        TARGET_IDS: target,
        WEIGHTS: tf.cast(target != PAD_ID, tf.float32) if weights is None else weights,
    }
