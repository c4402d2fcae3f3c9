"""The small layers that the models are made of, in keras.ops alone.

Keys and values, attention and the write into the cache are layers of their own, so that the graph for training and
the graph of one cached decoding step call the very same objects: the forward pass is written once.

Glossary: B batch, S source length, T target length, D width, H heads, G key/value heads (G divides H), K head size,
F feed-forward width, V vocabulary, N rows in decoding, k new tokens of a decoding step.
"""

import math
import warnings

import keras
from keras import ops

from tf_llm.model.dropout import Dropout

FEW = 8  # tokens a row, as decoding has them


@keras.saving.register_keras_serializable("tf_llm")
class KeysValues(keras.layers.Layer):
    """What attention looks up, and what it finds there: [B, S, D] -> (keys, values), each [B, G, S, K].

    Heads stand before positions, as products of matrices want them: a cache of T positions would otherwise be turned
    round in each step.

    Args:
        num_heads: G. Fewer than the queries have is grouped-query attention (Ainslie et al. 2023): a smaller cache.
        head_size: K.

    Call: (memory [B, S, D], rotation [2, S, K/2] or None). The keys are turned by the rotation.
    """

    def __init__(self, num_heads, head_size, **kwargs):
        super().__init__(**kwargs)
        self.num_heads, self.head_size = num_heads, head_size

    def build(self, memory_shape):
        width = 2 * self.num_heads * self.head_size
        self.projection = keras.layers.Dense(width, use_bias=False, name="projection", dtype=self.dtype_policy)
        self.projection.build(memory_shape)

    def call(self, memory, rotation=None):
        both = self.projection(memory)  # [B, S, 2·G·K]
        # Split, as the gradient of a split is one concatenation; that of a slice fills a tensor of both with zeros.
        shape = (-1, memory.shape[1], self.num_heads, self.head_size)
        keys, values = (ops.reshape(part, shape) for part in ops.split(both, 2, axis=-1))  # [B, S, G, K] each
        return ops.transpose(rotate(keys, rotation), (0, 2, 1, 3)), ops.transpose(values, (0, 2, 1, 3))

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads, "head_size": self.head_size}


@keras.saving.register_keras_serializable("tf_llm")
class Attend(keras.layers.Layer):
    """Dot-product attention with several heads (Vaswani et al. 2017, section 3.2).

    Args:
        num_heads: H, a multiple of the G heads of the keys.
        head_size: K.
        scale: whether queries are divided by √K. T5 does not; its first queries are smaller by as much instead.
        dropout: share of the attention weights that is dropped in training.

    Call: (queries [B, T, D], keys [B, G, S, K], values [B, G, S, K], attention_mask bool, broadcast to [B, H, T, S],
    bias [1, H, T, S] or None, rotation [2, T, K/2] or None) -> [B, T, D]. The softmax is taken in float32. A query that
    may see nothing takes some mean of all values.
    """

    def __init__(self, num_heads, head_size, scale=True, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_heads, self.head_size, self.scale = num_heads, head_size, scale
        self.dropout = Dropout(dropout, name="dropout", dtype=self.dtype_policy)

    def build(self, queries_shape):
        size = self.num_heads * self.head_size
        variance = 1.0 if self.scale else 1.0 / self.head_size
        start = keras.initializers.VarianceScaling(variance, "fan_avg", "uniform")  # of variance 1, Keras's default
        self.query = keras.layers.Dense(
            size, use_bias=False, kernel_initializer=start, name="query", dtype=self.dtype_policy
        )
        self.output_projection = keras.layers.Dense(
            queries_shape[-1], use_bias=False, name="output", dtype=self.dtype_policy
        )
        self.query.build(queries_shape)
        self.output_projection.build((*queries_shape[:-1], size))

    def call(self, queries, keys, values, attention_mask, bias=None, rotation=None, training=None):
        length = queries.shape[1]
        projected = ops.reshape(self.query(queries), (-1, length, self.num_heads, self.head_size))  # [B, T, H, K]
        projected = rotate(projected, rotation)
        if self.scale:
            projected = projected / math.sqrt(self.head_size)
        shared_by = self.num_heads // keys.shape[1]  # H/G queries look up each key
        if shared_by > 1:
            keys, values = ops.repeat(keys, shared_by, axis=1), ops.repeat(values, shared_by, axis=1)  # [B, H, S, K]
        scores = ops.cast(ops.einsum("bthk,bhsk->bhts", projected, keys), "float32")  # [B, H, T, S]
        if bias is not None:
            scores = scores + ops.cast(bias, "float32")
        scores = scores + ops.where(attention_mask, 0.0, -1e9)  # whose gradient costs nothing
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are using a softmax")  # over one position: S = 1 is meant
            weights = ops.cast(ops.softmax(scores, axis=-1), values.dtype)  # [B, H, T, S]
        weights = self.dropout(weights, training=training)
        found = ops.einsum("bhts,bhsk->bthk", weights, values)  # [B, T, H, K]
        return self.output_projection(ops.reshape(found, (-1, length, self.num_heads * self.head_size)))  # [B, T, D]

    def get_config(self):
        own = {"num_heads": self.num_heads, "head_size": self.head_size, "scale": self.scale}
        return {**super().get_config(), **own, "dropout": self.dropout.rate}


@keras.saving.register_keras_serializable("tf_llm")
class ShortConvolution(keras.layers.Layer):
    """Adds to each vector those of its neighbours, every coordinate in a proportion of its own.

    In front of self-attention it shows a token what stands beside it, which attention would first have to learn to look
    up (So et al. 2021, "Primer"; Allen-Zhu 2025, "canon layers"). A convolution of one weight a neighbour and
    coordinate ("depthwise") costs next to nothing.

    Args:
        before: neighbours in front of a token.
        behind: neighbours behind it.

    Call: (hidden [B, before + T + behind, D], segments int32 [B, before + T + behind] or None) -> [B, T, D]. Of
    neighbours in another segment nothing is added; without segments all are of one.

    >>> layer = ShortConvolution(before=1)
    >>> layer.build((1, 4, 1))
    >>> _ = layer.taps.assign([[10.0]])
    >>> hidden = ops.array([[[1.0], [2.0], [3.0], [4.0]]])
    >>> ops.convert_to_numpy(layer(hidden))[0, :, 0].tolist()
    [12.0, 23.0, 34.0]
    >>> ops.convert_to_numpy(layer(hidden, ops.array([[1, 1, 2, 2]])))[0, :, 0].tolist()
    [12.0, 3.0, 34.0]
    """

    def __init__(self, before, behind=0, **kwargs):
        super().__init__(**kwargs)
        self.before, self.behind = before, behind

    def build(self, hidden_shape):
        start = keras.initializers.RandomNormal(stddev=0.5)  # neighbours count at once; 0 was not tried
        self.taps = self.add_weight(name="taps", shape=(self.before + self.behind, hidden_shape[-1]), initializer=start)

    def call(self, hidden, segments=None):
        length = hidden.shape[1] - self.before - self.behind  # T
        mixed = cut(hidden, self.before, length)  # [B, T, D]
        neighbours = [i for i in range(self.before + self.behind + 1) if i != self.before]
        for tap, i in enumerate(neighbours):
            neighbour = cut(hidden, i, length) * self.taps[tap]  # [B, T, D]
            if segments is not None:
                same = ops.equal(segments[:, i : i + length], segments[:, self.before : self.before + length])
                neighbour = neighbour * ops.cast(same, neighbour.dtype)[..., None]
            mixed = mixed + neighbour
        return mixed

    def get_config(self):
        return {**super().get_config(), "before": self.before, "behind": self.behind}


def cut(hidden, begin, length):
    """So many positions from `begin` on: [B, …, D] -> [B, length, D]. A split, since on a CPU the gradient of a slice
    takes ten times as long."""
    return ops.split(hidden, [begin, begin + length], axis=1)[1]


def rotate(vectors, rotation):
    """Turns each pair (i, i + K/2) of coordinates: vectors [B, T, H, K], rotation [2, T, K/2] or None -> [B, T, H, K].

    >>> quarter = ops.array([[[0.0]], [[1.0]]])  # the cosine and the sine of 90°, for one position
    >>> ops.convert_to_numpy(rotate(ops.array([[[[2.0, 3.0]]]]), quarter)).tolist()
    [[[[-3.0, 2.0]]]]
    """
    if rotation is None:
        return vectors
    cosine, sine = rotation[0][:, None, :], rotation[1][:, None, :]  # [T, 1, K/2] each
    first, second = ops.split(vectors, 2, axis=-1)  # [B, T, H, K/2] each
    return ops.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


@keras.saving.register_keras_serializable("tf_llm")
class CacheWrite(keras.layers.Layer):
    """Writes the keys (or values) of new tokens into the cache.

    Call: (cache [N, G, T, K], new [N, G, k, K], position int32 []) -> [N, G, T, K] with `new` at `position` and behind.
    T is static, so that one compiled step serves every position. position + k may not exceed T: the write would
    silently begin further to the front.
    """

    def call(self, cache, new, position):
        return ops.slice_update(cache, (0, 0, position, 0), ops.cast(new, cache.dtype))


def _gelu(hidden):
    return ops.gelu(hidden, approximate=True)  # the tanh form: T5's, and the one that every export format knows


# name -> (function, whether its result is a gate for a second, linear projection (Shazeer 2020)). A further activation
# is a line here.
ACTIVATIONS = {
    "relu": (ops.relu, False),
    "gelu": (_gelu, False),
    "gated_gelu": (_gelu, True),
    "swiglu": (ops.silu, True),
}


@keras.saving.register_keras_serializable("tf_llm")
class FeedForward(keras.layers.Layer):
    """Two dense layers with an activation between, applied to each position alone: [B, T, D] -> [B, T, D].

    Args:
        d_ff: width F between the two.
        activation: a key of ACTIVATIONS. A gated one has a third dense layer: f(gate(x)) · widen(x).
        use_bias: whether the dense layers have biases.
        dropout: share of what is between the two that is dropped in training.
    """

    def __init__(self, d_ff, activation="relu", use_bias=True, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.d_ff, self.activation, self.use_bias = d_ff, activation, use_bias
        self.function, self.is_gated = ACTIVATIONS[activation]
        self.dropout = Dropout(dropout, name="dropout", dtype=self.dtype_policy)

    def build(self, hidden_shape):
        width = hidden_shape[-1]
        settings = {"use_bias": self.use_bias, "dtype": self.dtype_policy}
        self.widen = keras.layers.Dense(self.d_ff, name="widen", **settings)
        self.narrow = keras.layers.Dense(width, name="narrow", **settings)
        self.widen.build(hidden_shape)
        self.narrow.build((*hidden_shape[:-1], self.d_ff))
        if self.is_gated:
            self.gate = keras.layers.Dense(self.d_ff, name="gate", **settings)
            self.gate.build(hidden_shape)

    def call(self, hidden, training=None):
        rows = ops.reshape(hidden, (-1, hidden.shape[-1]))  # [B·T, D]; TensorFlow joins product, bias and ReLU so
        widened = self.widen(rows)  # [B·T, F]
        widened = self.function(self.gate(rows)) * widened if self.is_gated else self.function(widened)
        narrowed = self.narrow(self.dropout(widened, training=training))  # [B·T, D]
        return ops.reshape(narrowed, (-1, *hidden.shape[1:]))  # [B, T, D]

    def get_config(self):
        own = {"d_ff": self.d_ff, "activation": self.activation, "use_bias": self.use_bias}
        return {**super().get_config(), **own, "dropout": self.dropout.rate}


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


@keras.saving.register_keras_serializable("tf_llm")
class TiedOutput(keras.layers.Layer):
    """The output embedding that is the input embedding turned round (Press and Wolf 2017): [B, T, D] -> [B, T, V].

    Args:
        table: the `keras.layers.Embedding` whose vectors the outputs are compared with.
        use_bias: whether each word has a bias of its own.
    """

    def __init__(self, table, use_bias=False, **kwargs):
        super().__init__(**kwargs)
        self.table, self.use_bias = table, use_bias

    def build(self, hidden_shape):
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.table.input_dim,), initializer="zeros")

    def call(self, hidden):
        length, width = hidden.shape[1:]
        if length is not None and length <= FEW:  # on a CPU the product is faster with the large matrix in front
            rows = ops.transpose(ops.reshape(hidden, (-1, width)))  # [D, B·T]
            logits = ops.transpose(ops.matmul(self.table.embeddings, rows))  # [B·T, V]
            logits = ops.reshape(logits, (-1, length, self.table.input_dim))
        else:
            logits = ops.matmul(hidden, ops.transpose(self.table.embeddings))  # [B, T, V]
        return logits + self.bias if self.use_bias else logits
