"""What training minimises, and what is reported in any case: cross-entropy, in nats per target token.

Glossary: B batch, T target length, V vocabulary.
"""

import math

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable("tf_llm")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy against targets that are not quite certain (Vaswani et al. 2017, section 5.4).

    The true token gets the share 1 - ε and each of the other V - 1 tokens ε / (V - 1). The entropy of that distribution
    is taken off, as in the TensorFlow Models, so that the best possible loss is 0 and not a constant that grows with ε.

    The logits may be held near 0 besides, by a share of (log Σ exp)², since all that cross-entropy asks of them is
    their differences, and in bfloat16 large ones are coarse (Chowdhery et al. 2022, section 5).

    Args:
        label_smoothing: ε, in [0, 1).
        z_loss: what (log Σ exp logits)² is multiplied with before it is added; 0 adds nothing.

    Call: (targets int [B, T], logits [B, T, V]) -> float32 [], the mean; `call` gives the losses [B, T].

    Raises:
        ValueError: ε or z_loss is out of bounds.

    >>> loss = SmoothedCrossentropy(0.1)
    >>> shares = tf.constant([[[0.9, 0.05, 0.05]]])  # what a model says that has learned the smoothed targets
    >>> round(abs(float(loss(tf.constant([[0]]), tf.math.log(shares)))), 6)
    0.0
    >>> round(float(loss(tf.constant([[1]]), tf.math.log(shares))), 4)
    2.4568
    >>> z_loss = SmoothedCrossentropy(0.0, z_loss=0.1)
    >>> round(float(z_loss(tf.constant([[0]]), tf.math.log(100 * shares))), 4)  # -log 0.9 + 0.1 · (log 100)²
    2.2261
    """

    def __init__(self, label_smoothing, z_loss=0.0, name="smoothed_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is expected to be in [0, 1). Received: {label_smoothing!r}")
        if not 0 <= z_loss < math.inf:
            raise ValueError(f"z_loss is expected to be a finite number of at least 0. Received: {z_loss!r}")
        self.label_smoothing, self.z_loss = label_smoothing, z_loss

    def call(self, targets, logits):
        """With u = ε / (V - 1), the loss is -(1 - ε - u) log p(target) - u Σ log p, less the entropy.

        All log p have one and the same log Σ exp in them, which the plain cross-entropy has computed. So neither a
        one-hot tensor nor a second softmax over V is needed: what smoothing adds is linear in the logits. And log Σ exp
        itself is that cross-entropy and the target's logit together.
        """
        targets, logits = ops.cast(targets, "int32"), ops.cast(logits, "float32")
        nats = cross_entropy(targets, logits)  # [B, T]
        true = pick(logits, targets)  # [B, T]
        others = logits.shape[-1] - 1
        uniform = self.label_smoothing / others
        added = uniform * (others + 1) * (true - ops.mean(logits, axis=-1))  # [B, T]
        losses = nats + added - smoothed_entropy(self.label_smoothing, others)  # [B, T]
        return losses + self.z_loss * ops.square(nats + true) if self.z_loss else losses

    def get_config(self):
        return {**super().get_config(), "label_smoothing": self.label_smoothing, "z_loss": self.z_loss}


def smoothed_entropy(label_smoothing, others):
    """Nats of the distribution that gives 1 - ε to one token and shares ε equally among `others` tokens.

    >>> smoothed_entropy(0.5, others=1) == math.log(2), smoothed_entropy(0.0, others=9)
    (True, 0.0)
    """
    if not label_smoothing:
        return 0.0
    true = 1 - label_smoothing
    return -true * math.log(true) - label_smoothing * math.log(label_smoothing / others)


def cross_entropy(targets, logits):
    """-log p(target) in nats: (targets int [B, T], logits [B, T, V]) -> float32 [B, T]."""
    logits = ops.cast(logits, "float32")
    if keras.backend.backend() == "tensorflow":
        return cross_entropy_by_softmax(tf.cast(targets, tf.int32), logits)
    return ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)


@tf.custom_gradient
def cross_entropy_by_softmax(targets, logits):
    """What `tf.nn.sparse_softmax_cross_entropy_with_logits` computes, in less than half of its time on a CPU.

    TensorFlow's softmax is oneDNN's there, and its own cross-entropy is not. log Σ exp follows from any token's logit
    and probability; that of the likeliest token is at least 1/V and cannot have been rounded to 0.

    >>> logits = tf.math.log([[[0.5, 0.25, 0.25]]])
    >>> tf.exp(-cross_entropy_by_softmax(tf.constant([[1]]), logits)).numpy().round(6).tolist()
    [[0.25]]
    """
    rank = len(targets.shape)
    probabilities = tf.nn.softmax(logits)  # [B, T, V]
    likeliest = tf.argmax(logits, axis=-1, output_type=tf.int32)  # [B, T]; a step's accuracy needs it, too
    most, largest = (tf.gather(every, likeliest, batch_dims=rank) for every in (probabilities, logits))  # [B, T] each
    nats = (largest - tf.gather(logits, targets, batch_dims=rank)) - tf.math.log(most)  # [B, T]

    def differentiate(upstream):
        flat = tf.reshape(targets, [-1])  # [B·T]
        places = tf.stack([tf.range(tf.size(flat)), flat], axis=-1)  # [B·T, 2]
        rows = tf.reshape(probabilities, [-1, logits.shape[-1]])  # [B·T, V]
        rows = tf.tensor_scatter_nd_sub(rows, places, tf.ones_like(rows[:, 0])) * tf.reshape(upstream, [-1, 1])
        return None, tf.reshape(rows, tf.shape(logits))  # [B, T, V]

    return nats, differentiate


def pick(logits, targets):
    """The logit of each target: (logits [B, T, V], targets int32 [B, T]) -> [B, T].

    >>> pick(tf.constant([[[1.0, 2.0], [3.0, 4.0]]]), tf.constant([[1, 0]])).numpy().tolist()
    [[2.0, 3.0]]
    """
    if keras.backend.backend() == "tensorflow":
        return tf.gather(logits, targets, batch_dims=targets.shape.rank)
    # XLA computes this where it is used; the gradient of a gather would be one more tensor [B, T, V].
    return ops.sum(ops.where(ops.one_hot(targets, logits.shape[-1], dtype="bool"), logits, 0.0), axis=-1)


def build_loss(config):
    """The loss that a model is compiled with, for a `TrainingConfig`.

    >>> from tf_llm.training.optimizers import TrainingConfig
    >>> build_loss(TrainingConfig()).name, build_loss(TrainingConfig(label_smoothing=0.1)).name
    ('sparse_categorical_crossentropy', 'smoothed_crossentropy')
    """
    if config.label_smoothing or config.z_loss:
        return SmoothedCrossentropy(config.label_smoothing, config.z_loss)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
