"""Optimisers by name, and the settings of training. The learning rate as a function of the step: schedules.py.

Every optimiser here is Keras's own class with what updates.py mends of its updates. Weight decay is decoupled
(Loshchilov and Hutter 2019): each step takes rate · decay · weight off the weight itself. It pulls on matrices and
embeddings alone. A norm, a bias or a position has no size that a smaller one would do for.
"""

import dataclasses
import functools
import math

import keras

from tf_llm.training.schedules import SCHEDULES
from tf_llm.training.updates import GuardedUpdates, OneKernel


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a model is trained. The defaults are the article's, where it names one."""

    optimizer: str = "adam"  # a key of OPTIMIZERS
    learning_rate: float = 1e-4  # the peak, where the schedule is not constant
    schedule: str = "constant"  # a key of SCHEDULES
    warmup_steps: int = 0  # steps in which the rate climbs from 0
    weight_decay: float = 0.0  # for the optimisers that know it: of matrices and embeddings, times the rate, a step
    clip_norm: float = 0.0  # global norm to which gradients are cut; 0 cuts nothing
    label_smoothing: float = 0.0  # share of each target that the other tokens get; what is reported stays unsmoothed
    z_loss: float = 0.0  # times the square of log Σ exp of the logits, which keeps them near 0 (PaLM has 1e-4)
    ema_decay: float = 0.0  # of a running mean of the weights, which is then what is scored and used; 0 keeps none
    start_from_frequencies: bool = False  # whether the output's biases begin as the frequencies of the tokens
    batch_size: int = 16  # rows of a batch over all devices, and all parts of it
    accumulation: int = 1  # parts of a batch that a device computes one behind the other, for want of memory
    steps_per_call: int = 1  # steps that devices take before the host looks at them, and at signals; TPUs like several
    spike_factor: float = 3.0  # a step whose loss is so many times that of the latest ones is passed over; 0 for none
    unsound_steps: int = 10  # in a row, of which the last ends the run
    steps: int = 0  # optimiser steps; 0 plans as many as `seconds` has room for, after timing the first ones
    seconds: float = 150.0  # of training, when `steps` is 0
    precision: str = "auto"  # a Keras dtype policy; "auto" is mixed_bfloat16 where the hardware multiplies it
    seed: int = 0  # of weights, shuffle and dropout
    log_seconds: float = 10.0  # between two lines of progress
    evaluate_seconds: float = 40.0  # between two validations
    checkpoint_seconds: float = 60.0  # between two checkpoints
    profile_steps: int = 0  # steps, behind the first ten, of which a profile is made for TensorBoard

    def __post_init__(self):
        for name, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            self._check(name, f"one of {sorted(known)}", lambda value, known=known: value in known)
        self._check("learning_rate", "a finite number above 0", lambda value: 0 < value < math.inf)
        for name in ("batch_size", "accumulation", "steps_per_call", "unsound_steps"):
            self._check(name, "a whole number of at least 1", lambda value: _is_whole(value) and value >= 1)
        for name in ("warmup_steps", "steps", "profile_steps"):
            self._check(name, "a whole number of at least 0", lambda value: _is_whole(value) and value >= 0)
        self._check("spike_factor", "0 or a number above 1", lambda value: value == 0 or value > 1)
        for name in ("weight_decay", "clip_norm", "z_loss", "seconds"):
            self._check(name, "a finite number of at least 0", lambda value: 0 <= value < math.inf)
        for name in ("label_smoothing", "ema_decay"):
            self._check(name, "a share in [0, 1)", lambda value: 0 <= value < 1)
        for name in ("log_seconds", "evaluate_seconds", "checkpoint_seconds"):  # infinity is never
            self._check(name, "a number of at least 0", lambda value: value >= 0)
        self._check("seed", "a whole number in [0, 2**32)", lambda value: _is_whole(value) and 0 <= value < 2**32)
        self._check("start_from_frequencies", "True or False", lambda value: isinstance(value, bool))
        self._check("precision", '"auto" or the name of a Keras dtype policy', lambda value: isinstance(value, str))
        if not self.steps and not self.seconds:
            raise ValueError("training.steps or training.seconds expected above 0. Received: 0 for both")
        if self.weight_decay and self.optimizer not in DECAYING:
            raise ValueError(
                f"training.optimizer expected one of {sorted(DECAYING)} where there is a weight_decay. Received: "
                f"{self.optimizer!r}. Choose one of them, or weight_decay=0"
            )

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


@keras.saving.register_keras_serializable("tf_llm")
class SGD(GuardedUpdates, keras.optimizers.SGD):
    """Stochastic gradient descent (article, section 3.4)."""


@keras.saving.register_keras_serializable("tf_llm")
class Adagrad(GuardedUpdates, keras.optimizers.Adagrad):
    """Adagrad: each weight's rate falls with the squares of the gradients it has seen (Duchi et al. 2011)."""


@keras.saving.register_keras_serializable("tf_llm")
class Adam(GuardedUpdates, OneKernel, keras.optimizers.Adam):
    """Adam: running means of the gradient and of its square (Kingma and Ba 2015); the article's choice."""


@keras.saving.register_keras_serializable("tf_llm")
class AdamW(GuardedUpdates, OneKernel, keras.optimizers.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""


@keras.saving.register_keras_serializable("tf_llm")
class RmsScaledAdamW(GuardedUpdates, OneKernel, keras.optimizers.AdamW):
    """AdamW whose step is measured in the size of the weight, as Adafactor's is: times max(0.001, RMS of the weight).

    T5's weights have very different sizes (its table begins at 1, its kernels far below), and plain AdamW diverges on
    them; with this T5 trains as well as with Adafactor, or better (nanoT5, Nawrot 2023). Decay goes by the plain rate.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable (see `keras.optimizers.Optimizer.update_step`)."""
        size = keras.ops.maximum(keras.ops.sqrt(keras.ops.mean(keras.ops.square(variable))), 1e-3)
        super().update_step(gradient, variable, learning_rate * size)


@keras.saving.register_keras_serializable("tf_llm")
class Adafactor(GuardedUpdates, keras.optimizers.Adafactor):
    """Adafactor: squares of a matrix's gradients, kept as means by row and by column (Shazeer and Stern 2018).

    As T5 uses it: no momentum, updates cut to an RMS of 1, steps in the size of the weight. Keras keeps the rate at or
    below 1/√step, with `relative_step` and without, and stores the squares in full besides, so memory is not saved.
    """


@keras.saving.register_keras_serializable("tf_llm")
class Lion(GuardedUpdates, keras.optimizers.Lion):
    """Lion: the sign of a running mean (Chen et al. 2023).

    Each weight moves by the whole rate, whatever its gradient: a tenth of Adam's rate is a good first guess.
    """


@keras.saving.register_keras_serializable("tf_llm")
class Muon(GuardedUpdates, keras.optimizers.Muon):
    """Muon: the running mean of a matrix's gradient, made orthogonal (Jordan et al. 2024), in steps of Adam's size
    (Liu et al. 2025). Tables, the output embedding, positions, norms and biases, which are no maps between hidden
    vectors, go by Adam.

    Keras tells them apart by their number of dimensions and by a search in their paths. Five Newton–Schulz iterations,
    in float32, stand for the singular value decomposition: on two cores about ten times the time of Adam's update, as
    much as the rest of a step of the article's model. Keys and values, one matrix here, are made orthogonal together.
    """

    def __init__(
        self, learning_rate=0.001, exclude_layers=("embedding", "table", "position", "bias", "taps"), **kwargs
    ):
        super().__init__(learning_rate, exclude_layers=list(exclude_layers), **kwargs)


# Peak rate -> the optimiser; those in DECAYING take a `weight_decay`, too.
# "Gradient descent" is stochastic here as everywhere: the gradient of one batch stands for that of the whole corpus. It
# is that of the corpus if `batch_size` is the number of its blocks, with as many parts as memory asks for, by
# `accumulation`, which divides it; see BUILD_NOTES.md.
OPTIMIZERS = {
    "gradient_descent": SGD,
    "sgd": functools.partial(SGD, momentum=0.9),
    "adagrad": Adagrad,
    "adam": Adam,
    "adam_short_memory": functools.partial(Adam, beta_2=0.98),  # for a run of hundreds of steps, not of millions
    "adam_transformer": functools.partial(Adam, beta_2=0.997, epsilon=1e-9),  # as in TensorFlow Models
    "adamw": AdamW,
    "adamw_rms": functools.partial(RmsScaledAdamW, epsilon=1e-6),
    "adafactor": functools.partial(Adafactor, beta_2_decay=-0.8, clip_threshold=1.0, relative_step=False),
    "lion": Lion,
    "muon": Muon,
}
DECAYING = ("adamw", "adamw_rms", "lion", "muon")


def build_optimizer(config):
    """The optimiser of a `TrainingConfig`, at its peak rate; the trainer moves the rate by `learning_rate_at`.

    >>> type(build_optimizer(TrainingConfig(optimizer="adagrad"))).__name__
    'Adagrad'
    """
    settings = {"weight_decay": float(config.weight_decay)} if config.optimizer in DECAYING else {}
    if config.ema_decay:
        settings |= {"use_ema": True, "ema_momentum": config.ema_decay}
    return OPTIMIZERS[config.optimizer](float(config.learning_rate), **settings)  # Keras refuses whole numbers


def unwrap(optimizer):
    """The optimiser itself: under mixed_float16 `model.compile` hides it in a LossScaleOptimizer.

    >>> hidden = build_optimizer(TrainingConfig())
    >>> unwrap(keras.optimizers.LossScaleOptimizer(hidden)) is unwrap(hidden) is hidden
    True
    """
    return getattr(optimizer, "inner_optimizer", optimizer)
