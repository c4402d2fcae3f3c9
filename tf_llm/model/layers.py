"""The small layers that the transformer is made of, in keras.ops alone.

Keys and values, attention and the write into the cache are layers of their own, so that the graph for training and
the graph of one cached decoding step call the very same objects: the forward pass is written once.

Glossary: B batch, S source length, T target length, D width, H heads, K head size (D = H·K), F feed-forward width,
N rows in decoding, k new tokens of a decoding step.
"""

import math
import warnings

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("tf_llm")
class PositionEmbedding(keras.layers.Layer):
    """Adds to each vector one that says where it stands.

    Args:
        length: number of positions.
        kind: "learned" (a trained table, as in BERT) or "sinusoidal" (fixed waves of geometric wavelengths from 2π to
            10,000·2π; see `sinusoids`).

    Call: (embedded [B, T, D], position int32 []) -> [B, T, D]. `position` is where the first vector stands;
    position + T may not exceed `length`.

    Raises:
        ValueError: `kind` is neither of the two; or it is sinusoidal, and D is odd or below 4.
    """

    def __init__(self, length, kind="learned", **kwargs):
        super().__init__(**kwargs)
        if kind not in ("learned", "sinusoidal"):
            raise ValueError(f"kind expected one of ['learned', 'sinusoidal']. Received: {kind!r}")
        self.length, self.kind = length, kind

    def build(self, embedded_shape):
        shape, learned = (self.length, embedded_shape[-1]), self.kind == "learned"
        initializer = "uniform" if learned else lambda shape, dtype: ops.convert_to_tensor(sinusoids(*shape), dtype)
        self.table = self.add_weight(name="table", shape=shape, initializer=initializer, trainable=learned)

    def call(self, embedded, position):
        table = ops.convert_to_tensor(self.table)  # JAX does not cut a variable
        rows = ops.slice(table, (position, 0), (embedded.shape[1], table.shape[1]))  # [T, D]
        return embedded + ops.cast(rows, embedded.dtype)[None]

    def get_config(self):
        return {**super().get_config(), "length": self.length, "kind": self.kind}


def sinusoids(length, width):
    """The fixed table of Vaswani et al. 2017, section 3.5, as the TensorFlow Models lay it out: all sines, all cosines.

    Returns float32 [length, width]. The wavelengths grow geometrically from 2π to 10,000·2π.

    >>> sinusoids(2, 4).round(2)  # at position 0 every sine is 0 and every cosine 1
    array([[0.  , 0.  , 1.  , 1.  ],
           [0.84, 0.  , 0.54, 1.  ]], dtype=float32)
    """
    if width % 2 or width < 4:
        raise ValueError(f"sinusoidal positions expected an even width of at least 4. Received: {width}")
    waves = np.exp(-math.log(1e4) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(length)[:, None] * waves[None]  # [length, D/2]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype("float32")


@keras.saving.register_keras_serializable("tf_llm")
class MaskedBatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation whose mean and variance are taken over the positions that hold a token alone.

    Call: (hidden [B, T, D], keep_mask bool [B, T]) -> [B, T, D]. In training the statistics are those of the batch,
    outside of it the running averages. The mask goes by a name of its own because Keras passes one called `mask` on to
    every layer behind this one.
    """

    def call(self, hidden, keep_mask, training=None):
        return super().call(hidden, training=training, mask=keep_mask)


@keras.saving.register_keras_serializable("tf_llm")
class KeysValues(keras.layers.Layer):
    """What attention looks up, and what it finds there: [B, S, D] -> (keys, values), each [B, S, H, K].

    Args:
        num_heads: H, a divisor of D.
    """

    def __init__(self, num_heads, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, memory_shape):
        width = memory_shape[-1]
        self.projection = keras.layers.Dense(2 * width, use_bias=False, name="projection", dtype=self.dtype_policy)
        self.projection.build(memory_shape)

    def call(self, memory):
        length, width = memory.shape[1:]
        both = self.projection(memory)  # [B, S, 2·D]
        both = ops.reshape(both, (-1, length, 2, self.num_heads, width // self.num_heads))  # [B, S, 2, H, K]
        return both[:, :, 0], both[:, :, 1]  # [B, S, H, K] each

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads}


@keras.saving.register_keras_serializable("tf_llm")
class Attend(keras.layers.Layer):
    """Scaled dot-product attention with several heads (Vaswani et al. 2017, section 3.2).

    Call: (queries [B, T, D], keys [B, S, H, K], values [B, S, H, K], attention_mask bool, broadcast to [B, H, T, S])
    -> [B, T, D]. The softmax is taken in float32. A query that may see nothing takes the mean of all values.
    """

    def build(self, queries_shape):
        width = queries_shape[-1]
        self.query = keras.layers.Dense(width, use_bias=False, name="query", dtype=self.dtype_policy)
        self.output_projection = keras.layers.Dense(width, use_bias=False, name="output", dtype=self.dtype_policy)
        self.query.build(queries_shape)
        self.output_projection.build(queries_shape)

    def call(self, queries, keys, values, attention_mask):
        length, width = queries.shape[1:]
        heads, size = keys.shape[2:]
        projected = ops.reshape(self.query(queries), (-1, length, heads, size))  # [B, T, H, K]
        scores = ops.einsum("bthk,bshk->bhts", projected / math.sqrt(size), keys)  # [B, H, T, S]
        scores = ops.where(attention_mask, ops.cast(scores, "float32"), -1e9)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are using a softmax")  # over one position: S = 1 is meant
            weights = ops.cast(ops.softmax(scores, axis=-1), values.dtype)  # [B, H, T, S]
        found = ops.einsum("bhts,bshk->bthk", weights, values)  # [B, T, H, K]
        return self.output_projection(ops.reshape(found, (-1, length, width)))  # [B, T, D]


@keras.saving.register_keras_serializable("tf_llm")
class CacheWrite(keras.layers.Layer):
    """Writes the keys (or values) of new tokens into the cache.

    Call: (cache [N, T, H, K], new [N, k, H, K], position int32 []) -> [N, T, H, K] with `new` at `position` and behind.
    T is static, so that one compiled step serves every position. position + k may not exceed T: the write would
    silently begin further to the front.
    """

    def call(self, cache, new, position):
        return ops.slice_update(cache, (0, position, 0, 0), ops.cast(new, cache.dtype))


@keras.saving.register_keras_serializable("tf_llm")
class FeedForward(keras.layers.Layer):
    """Two dense layers with a ReLU between, applied to each position alone: [B, T, D] -> [B, T, D].

    Args:
        d_ff: width F between the two.
    """

    def __init__(self, d_ff, **kwargs):
        super().__init__(**kwargs)
        self.d_ff = d_ff

    def build(self, hidden_shape):
        self.widen = keras.layers.Dense(self.d_ff, activation="relu", name="widen", dtype=self.dtype_policy)
        self.narrow = keras.layers.Dense(hidden_shape[-1], name="narrow", dtype=self.dtype_policy)
        self.widen.build(hidden_shape)
        self.narrow.build((*hidden_shape[:-1], self.d_ff))

    def call(self, hidden):
        widened = self.widen(hidden)  # [B, T, F]
        return self.narrow(widened)  # [B, T, D]

    def get_config(self):
        return {**super().get_config(), "d_ff": self.d_ff}


@keras.saving.register_keras_serializable("tf_llm")
class ContextVector(keras.layers.Layer):
    """The article's fixed-length context: the mean of the encoder's outputs over the positions that hold a token.

    Call: (encoded [B, S, D], source_mask bool [B, S]) -> [B, 1, D]. A source without any token gives zeros.
    """

    def call(self, encoded, source_mask):
        weights = ops.cast(source_mask, "float32")[..., None]  # [B, S, 1]; a long sum needs float32
        total = ops.sum(ops.cast(encoded, "float32") * weights, axis=1, keepdims=True)  # [B, 1, D]
        tokens = ops.maximum(ops.sum(weights, axis=1, keepdims=True), 1.0)  # [B, 1, 1]
        return ops.cast(total / tokens, encoded.dtype)  # [B, 1, D]
