"""How a model is told where each token stands: position schemes behind one interface.

A scheme draws into the graph at three places, of which most use one:

    embed     adds something to the embedded tokens          learned, sinusoidal
    bias      adds something to the scores of attention      relative (T5)
    rotation  turns queries and keys before they meet        rotary

A further scheme is a class here that overrides one of them, and a line in POSITIONS.

`position` is an int32 scalar, where the first token stands, or, in packed rows, int32 [B, T], where each stands in its
own example. Bias and rotation are about differences between positions, which packing does not change: they are always
given the scalar.

Glossary: B batch, T target length, k tokens at hand (T in training), L positions that are looked at, D width, H heads,
K head size.
"""

import math

import keras
import numpy as np
from keras import ops


class Positions:
    """The scheme "none", and what the others begin with. Its order is left for the model to find in the causal mask.

    Args:
        config: a `ModelConfig`.
    """

    def __init__(self, config):
        self.config = config

    def embed(self, embedded, position):
        """Vectors [B, k, D] -> [B, k, D]."""
        return embedded

    def bias(self, stack, queries, position):
        """What is added to scores: float [1, H, k, L], or None.

        Args:
            stack: "encoder" or "decoder".
            queries: [B, k, D], of which only k matters.
            position: where the first of them stands.
        """
        return None

    def rotation(self, queries, position):
        """By what `layers.rotate` turns queries and keys: float [2, k, K/2], or None."""
        return None


class Learned(Positions):
    """A trained vector for each position, added to the embedded token (as in BERT): the article's scheme."""

    kind = "learned"

    def __init__(self, config):
        super().__init__(config)
        length = max(config.source_length, config.target_length)
        self.embedding = PositionEmbedding(length, self.kind, name="position_embedding")

    def embed(self, embedded, position):
        return self.embedding(embedded, position=position)


class Sinusoidal(Learned):
    """Fixed waves in place of the trained vectors (Vaswani et al. 2017, section 3.5)."""

    kind = "sinusoidal"


class Relative(Positions):
    """T5's bias: what attention adds for a distance, trained for each head, one table a stack (Raffel et al. 2020)."""

    def __init__(self, config):
        super().__init__(config)
        self.biases = {
            stack: RelativeBias(
                config.num_heads,
                length,
                bidirectional=stack == "encoder",
                buckets=config.relative_buckets,
                max_distance=config.relative_distance,
                name=f"{stack}_relative_bias",
            )
            for stack, length in (("encoder", config.source_length), ("decoder", config.target_length))
        }

    def bias(self, stack, queries, position):
        return self.biases[stack](queries, position=position)


class Rotary(Positions):
    """Queries and keys turned by angles that grow with the position, so that their product knows the distance alone
    (Su et al. 2021)."""

    def __init__(self, config):
        super().__init__(config)
        self.waves = Rotation(config.head_size, name="rotation")

    def rotation(self, queries, position):
        return self.waves(queries, position=position)


POSITIONS = {"learned": Learned, "none": Positions, "relative": Relative, "rotary": Rotary, "sinusoidal": Sinusoidal}


# === The layers that they are made of ===


@keras.saving.register_keras_serializable("tf_llm")
class PositionEmbedding(keras.layers.Layer):
    """Adds to each vector one that says where it stands.

    Args:
        length: number of positions.
        kind: "learned" (a trained table) or "sinusoidal" (`sinusoids`).

    Call: (embedded [B, T, D], position int32 [] or [B, T]) -> [B, T, D]. No position may reach `length`.
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
        if len(getattr(position, "shape", ())):  # a plain 0 in training
            return embedded + ops.cast(ops.take(table, position, axis=0), embedded.dtype)  # [B, T, D]
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
class RelativeBias(keras.layers.Layer):
    """A trained number for each head and each bucket of distances (`bucket_distances`).

    Args:
        num_heads: H.
        length: L, positions that are looked at.
        bidirectional: whether keys may stand behind the query.
        buckets, max_distance: see `bucket_distances`.

    Call: (queries [B, k, D], position int32 []) -> [1, H, k, L], for keys at 0, 1, … L - 1.
    """

    def __init__(self, num_heads, length, bidirectional, buckets=32, max_distance=128, **kwargs):
        super().__init__(**kwargs)
        self.num_heads, self.length, self.bidirectional = num_heads, length, bidirectional
        self.buckets, self.max_distance = buckets, max_distance

    def build(self, queries_shape):
        self.table = self.add_weight(name="table", shape=(self.buckets, self.num_heads), initializer="glorot_uniform")

    def call(self, queries, position):
        rows = position + ops.arange(queries.shape[1])  # [k]
        distances = ops.arange(self.length)[None, :] - rows[:, None]  # [k, L]
        buckets = bucket_distances(distances, self.bidirectional, self.buckets, self.max_distance)
        biases = ops.take(ops.convert_to_tensor(self.table), buckets, axis=0)  # [k, L, H]
        return ops.transpose(biases, (2, 0, 1))[None]  # [1, H, k, L]

    def get_config(self):
        own = {"num_heads": self.num_heads, "length": self.length, "bidirectional": self.bidirectional}
        return {**super().get_config(), **own, "buckets": self.buckets, "max_distance": self.max_distance}


def bucket_distances(distances, bidirectional, buckets=32, max_distance=128):
    """T5's buckets: near distances have one each, far ones share logarithmically, and all beyond `max_distance` one.

    Args:
        distances: int32, key position minus query position.
        bidirectional: give half of the buckets to keys behind the query; otherwise these fall into bucket 0.
        buckets: how many there are.
        max_distance: where the last one begins.

    >>> distances = ops.array([0, -1, -8, -16, -40, -1000, 3])  # key position minus query position
    >>> ops.convert_to_numpy(bucket_distances(distances, bidirectional=False)).tolist()
    [0, 1, 8, 16, 23, 31, 0]
    """
    first = 0
    if bidirectional:
        buckets //= 2
        first = ops.where(distances > 0, buckets, 0)
        distances = ops.abs(distances)
    else:
        distances = ops.maximum(-distances, 0)
    exact = buckets // 2
    ratio = ops.log(ops.cast(ops.maximum(distances, 1), "float32") / exact) / math.log(max_distance / exact)
    far = exact + ops.cast(ratio * (buckets - exact), "int32")
    return first + ops.where(distances < exact, distances, ops.minimum(far, buckets - 1))


@keras.saving.register_keras_serializable("tf_llm")
class Rotation(keras.layers.Layer):
    """Cosines and sines of the angles by which rotary positions turn each pair of coordinates.

    Args:
        head_size: K, even. Pair i turns by position · 10,000^(-2i/K).

    Call: (queries [B, k, D], position int32 []) -> [2, k, K/2], for the positions of the k queries.
    """

    def __init__(self, head_size, **kwargs):
        super().__init__(**kwargs)
        self.head_size = head_size

    def call(self, queries, position):
        speeds = ops.exp(ops.arange(0, self.head_size, 2, dtype="float32") * (-math.log(1e4) / self.head_size))
        rows = ops.cast(position + ops.arange(queries.shape[1]), "float32")  # [k]
        angles = rows[:, None] * speeds[None, :]  # [k, K/2], in float32: a half-precision angle would be noise
        return ops.cast(ops.stack([ops.cos(angles), ops.sin(angles)]), self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "head_size": self.head_size}
