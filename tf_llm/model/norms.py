"""Normalisation layers behind one interface: (hidden [B, T, D], keep_mask bool [B, T]) -> [B, T, D].

The mask says which positions hold a token. Only batch normalisation asks: its statistics are those of all tokens
together. It is not called `mask` because Keras passes an argument of that name on to every layer behind.

A further norm is a class here with that `call`, and a line in NORMS.

Glossary: B batch, T length, D width.
"""

import keras
from keras import ops


@keras.saving.register_keras_serializable("tf_llm")
class LayerNorm(keras.layers.LayerNormalization):
    """Each vector shifted to mean 0 and scaled to variance 1, then a trained scale and shift (Ba et al. 2016).

    In float32, and with fewer passes over the vectors than Keras's own, which multiplies scale and deviation first.
    """

    def call(self, hidden, keep_mask):
        centered = ops.cast(hidden, "float32")
        centered = centered - ops.mean(centered, axis=-1, keepdims=True)  # [B, T, D]
        variance = ops.mean(ops.square(centered), axis=-1, keepdims=True)  # [B, T, 1]
        gamma, beta = (ops.cast(weight, "float32") for weight in (self.gamma, self.beta))  # [D]
        return ops.cast(centered * ops.rsqrt(variance + self.epsilon) * gamma + beta, self.compute_dtype)


@keras.saving.register_keras_serializable("tf_llm")
class RMSNorm(keras.layers.RMSNormalization):
    """Each vector divided by its root mean square, then a trained scale (Zhang and Sennrich 2019); T5's norm."""

    def call(self, hidden, keep_mask):
        return super().call(hidden)


@keras.saving.register_keras_serializable("tf_llm")
class MaskedBatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation whose mean and variance are taken over the positions that hold a token alone.

    In training the statistics are those of the batch, outside of it the running averages (Ioffe and Szegedy 2015).
    """

    def add_weight(self, *args, trainable=True, **kwargs):
        # Each device has a batch of its own. Left alone it would keep running averages of its own, too, of which a
        # checkpoint holds those of one; so all keep their mean.
        kwargs |= {} if trainable else {"aggregation": "mean"}
        return super().add_weight(*args, trainable=trainable, **kwargs)

    def call(self, hidden, keep_mask, training=None):
        return super().call(hidden, training=training, mask=keep_mask)


@keras.saving.register_keras_serializable("tf_llm")
class BatchLayerNorm(keras.layers.Layer):
    """The article's pair: batch normalisation, then layer normalisation.

    The mask keeps padding out of the batch statistics; without it they would say how much padding there was rather than
    how words lie. They are taken over all words of the targets, later ones too: in training, and only there, this
    gives the decoder a faint view of what comes.
    """

    def __init__(self, epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.batch_norm = MaskedBatchNorm(name="batch_norm", dtype=self.dtype_policy)
        self.layer_norm = LayerNorm(epsilon=epsilon, name="layer_norm", dtype=self.dtype_policy)

    def build(self, hidden_shape):
        self.batch_norm.build(hidden_shape)
        self.layer_norm.build(hidden_shape)

    def call(self, hidden, keep_mask, training=None):
        return self.layer_norm(self.batch_norm(hidden, keep_mask, training=training), keep_mask)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


NORMS = {"batch_layer": BatchLayerNorm, "layer": LayerNorm, "rms": RMSNorm}


def build_norm(config, name):
    """The norm that a `ModelConfig` names.

    >>> import types
    >>> type(build_norm(types.SimpleNamespace(norm="rms", norm_epsilon=1e-6), "norm")).__name__
    'RMSNorm'
    """
    return NORMS[config.norm](epsilon=config.norm_epsilon, name=name)
