"""Optimisers by name, and the learning rate as a function of progress.

Every optimiser here is Keras's own class with one repair. Keras's TensorFlow backend hands an embedding's gradient to
the optimiser as IndexedSlices, whose rows repeat when a token occurs more than once in a batch, and does not add the
repetitions up first: Adam squares four small gradients where it should square their sum, and Adagrad and every clip go
wrong in the same way. One row looked up four times, three Adam steps of 0.1, a constant gradient: stock Keras moves the
row by -0.600, and by -0.300 where it is given the same gradient as a dense tensor. `DenseGradients` adds the
repetitions up in `apply`, where both stock `model.fit` and the trainer of this package pass.
"""

import dataclasses
import math

import keras
import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained. The defaults are the article's, where it names one."""

    optimizer: str = "adam"  # a key of OPTIMIZERS
    learning_rate: float = 1e-4  # the peak, where the schedule is not constant
    schedule: str = "constant"  # a key of SCHEDULES
    warmup_steps: int = 0  # steps in which the rate climbs from 0
    clip_norm: float = 0.0  # global norm to which gradients are cut; 0 cuts nothing
    batch_size: int = 16  # rows of a batch over all devices
    steps: int = 0  # optimiser steps; 0 plans as many as `seconds` has room for, after timing the first ones
    seconds: float = 150.0  # of training, when `steps` is 0
    precision: str = "auto"  # a Keras dtype policy; "auto" is mixed_bfloat16 where the hardware multiplies it
    seed: int = 0  # of weights, shuffle and dropout
    shorten_sources: bool = True  # train on sources of every length from one token up, as prompts have
    log_seconds: float = 10.0  # between two lines of progress
    evaluate_seconds: float = 40.0  # between two validations
    checkpoint_seconds: float = 60.0  # between two checkpoints

    def __post_init__(self):
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            self._check(name, f"one of {sorted(known)}", lambda value, known=known: value in known)
        self._check("learning_rate", "a finite number above 0", lambda value: 0 < value < math.inf)
        self._check("batch_size", "a whole number of at least 1", lambda value: _is_whole(value) and value >= 1)
        for name in ("warmup_steps", "steps"):
            self._check(name, "a whole number of at least 0", lambda value: _is_whole(value) and value >= 0)
        for name in ("clip_norm", "seconds"):
            self._check(name, "a finite number of at least 0", lambda value: 0 <= value < math.inf)
        for name in ("log_seconds", "evaluate_seconds", "checkpoint_seconds"):  # infinity is never
            self._check(name, "a number of at least 0", lambda value: value >= 0)
        self._check("seed", "a whole number in [0, 2**32)", lambda value: _is_whole(value) and 0 <= value < 2**32)
        self._check("shorten_sources", "True or False", lambda value: isinstance(value, bool))
        self._check("precision", '"auto" or the name of a Keras dtype policy', lambda value: isinstance(value, str))
        if not self.steps and not self.seconds:
            raise ValueError("training.steps or training.seconds expected above 0. Received: 0 for both")

    def _check(self, name, expected, holds):
        value = getattr(self, name)
        try:
            held = holds(value)
        except TypeError:  # a word where a number is expected, an unhashable value where a name is
            held = False
        if not held:
            raise ValueError(f"training.{name} expected {expected}. Received: {value!r}")


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


class DenseGradients:
    """Mixed into a Keras optimiser: adds up repeated rows of embedding gradients before anything else sees them.

    Attributes:
        gradients_are_reduced: switches off the optimiser's own sum over replicas, in a graph that is drawn while it is
            True: for a training step that has summed the gradients already (it must, to clip by their global norm).
    """

    gradients_are_reduced = False

    def apply(self, grads, trainable_variables=None):
        """Applies gradients, dense or IndexedSlices, to the variables (see `keras.optimizers.Optimizer.apply`)."""
        super().apply([None if g is None else tf.convert_to_tensor(g) for g in grads], trainable_variables)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars if self.gradients_are_reduced else super()._all_reduce_sum_gradients(grads_and_vars)


@keras.saving.register_keras_serializable("tf_llm")
class SGD(DenseGradients, keras.optimizers.SGD):
    """Stochastic gradient descent (article, section 3.4)."""


@keras.saving.register_keras_serializable("tf_llm")
class Adagrad(DenseGradients, keras.optimizers.Adagrad):
    """Adagrad: each weight's rate falls with the squares of the gradients it has seen (Duchi et al. 2011)."""


@keras.saving.register_keras_serializable("tf_llm")
class Adam(DenseGradients, keras.optimizers.Adam):
    """Adam: running means of the gradient and of its square (Kingma and Ba 2015); the article's choice."""


# "Gradient descent" is stochastic here as everywhere: the gradient of one batch stands for that of the whole corpus.
OPTIMIZERS = {
    "gradient_descent": lambda rate: SGD(rate),
    "sgd": lambda rate: SGD(rate, momentum=0.9),
    "adagrad": lambda rate: Adagrad(rate),
    "adam": lambda rate: Adam(rate),
    "adam_short_memory": lambda rate: Adam(rate, beta_2=0.98),  # for a run of hundreds of steps, not of millions
}

# Fraction of the run that is done, in [0, 1] -> fraction of the peak rate.
SCHEDULES = {
    "constant": lambda progress: 1.0,
    "cosine": lambda progress: 0.5 + 0.5 * math.cos(math.pi * progress),
    "linear": lambda progress: 1.0 - progress,
}


def build_optimizer(config):
    """The optimiser of a `TrainingConfig`, at its peak rate; the trainer moves the rate by `learning_rate_at`.

    >>> type(build_optimizer(TrainingConfig(optimizer="adagrad"))).__name__
    'Adagrad'
    """
    return OPTIMIZERS[config.optimizer](float(config.learning_rate))  # Keras refuses a whole number


def learning_rate_at(config, step, total_steps):
    """The rate of step number `step` (from 0) of `total_steps`; 0 in all stands for a run that is not planned yet.

    >>> config = TrainingConfig(learning_rate=1.0, schedule="linear", warmup_steps=4)
    >>> [learning_rate_at(config, step, total_steps=8) for step in (0, 1, 4, 6)]
    [0.25, 0.4375, 0.5, 0.25]
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    progress = min(step / total_steps, 1.0) if total_steps else 0.0
    return config.learning_rate * warmup * SCHEDULES[config.schedule](progress)
