"""Which position holds a token, and which position may look at which: boolean masks, True = keep.

Glossary: B batch, S source length, T target length, N rows in decoding, K new tokens of a decoding step, W beams.
"""

import keras
from keras import ops

from tf_llm.contracts import PAD_ID


@keras.saving.register_keras_serializable("tf_llm")
class SourceMask(keras.layers.Layer):
    """Marks the source positions that hold a token: ids int32 [B, S] -> bool [B, S].

    >>> ops.convert_to_numpy(SourceMask()(ops.array([[7, 4, 0]]))).tolist()
    [[True, True, False]]
    """

    def call(self, source_ids):
        return ops.not_equal(source_ids, PAD_ID)  # [B, S]


@keras.saving.register_keras_serializable("tf_llm")
class TargetMask(keras.layers.Layer):
    """Marks the decoder positions that hold a token: ids int32 [B, T] -> bool [B, T].

    Position 0 always does: START_ID, which stands there, is the same number as PAD_ID.

    >>> ops.convert_to_numpy(TargetMask()(ops.array([[0, 7, 4, 0]]))).tolist()
    [[True, True, True, False]]
    """

    def call(self, decoder_ids):
        first = ops.arange(decoder_ids.shape[1])[None] == 0  # [1, T]
        return ops.logical_or(ops.not_equal(decoder_ids, PAD_ID), first)  # [B, T]


@keras.saving.register_keras_serializable("tf_llm")
class CausalMask(keras.layers.Layer):
    """Lets the token at `position + i` see itself and everything before it.

    Args:
        length: number of positions that can be looked at: the target length, which is also that of the cache.

    Call: (tokens [N, K] or [N, K, D], position int32 []) -> bool [1, 1, K, length], to be broadcast over rows and
    heads. Only the number K of tokens matters; `position` is where the first of them stands.

    >>> ops.convert_to_numpy(CausalMask(3)(ops.array([[5, 6, 7]]), position=0))[0, 0].astype(int)
    array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 1]])
    >>> ops.convert_to_numpy(CausalMask(4)(ops.array([[8]]), position=2))[0, 0].astype(int)
    array([[1, 1, 1, 0]])
    """

    def __init__(self, length, **kwargs):
        super().__init__(**kwargs)
        self.length = length

    def call(self, tokens, position):
        rows = position + ops.arange(tokens.shape[1])  # [K]
        return (ops.arange(self.length)[None, :] <= rows[:, None])[None, None]  # [1, 1, K, length]

    def get_config(self):
        return {**super().get_config(), "length": self.length}


@keras.saving.register_keras_serializable("tf_llm")
class LineageMask(keras.layers.Layer):
    """Lets the beams of a row see in one cache what each has said itself, or took over from another beam.

    The cache holds the W tokens of all beams for each position, one behind the other.

    Call: (lineage int32 [N, W, T], position int32 []) -> bool [N, 1, W, T·W]. The lineage says for each beam whose
    token it has at each position; what stands behind `position` does not matter.

    >>> lineage = ops.array([[[0, 1, 0], [0, 0, 0]]])  # beam 0 goes on from what beam 1 said at position 1
    >>> ops.convert_to_numpy(LineageMask()(lineage, position=1))[0, 0].astype(int)
    array([[1, 0, 0, 1, 0, 0],
           [1, 0, 1, 0, 0, 0]])
    """

    def call(self, lineage, position):
        num_beams, length = lineage.shape[1:]
        own = ops.equal(lineage[..., None], ops.arange(num_beams))  # [N, W, T, W]
        said = ops.arange(length)[:, None] <= position  # [T, 1]
        return ops.reshape(ops.logical_and(own, said), (-1, 1, num_beams, length * num_beams))


@keras.saving.register_keras_serializable("tf_llm")
class SegmentMask(keras.layers.Layer):
    """Keeps the examples of a packed row apart: a token sees those of its own example.

    Call: (segments of the queries int32 [B, T], segments of the keys int32 [B, S]) -> bool [B, 1, T, S]. Segment 0 is
    padding, which is never seen.

    >>> ops.convert_to_numpy(SegmentMask()(ops.array([[1, 2, 0]]), ops.array([[1, 1, 2, 0]])))[0, 0].astype(int)
    array([[1, 1, 0, 0],
           [0, 0, 1, 0],
           [0, 0, 0, 0]])
    """

    def call(self, query_segments, key_segments):
        same = ops.equal(query_segments[:, :, None], key_segments[:, None, :])  # [B, T, S]
        return ops.logical_and(same, key_segments[:, None, :] != 0)[:, None]  # [B, 1, T, S]
