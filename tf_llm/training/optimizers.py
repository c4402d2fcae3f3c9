"""Optimisers by name. The learning rate as a function of the step: schedules.py.

Every optimiser here is Keras's own class with a repair, and for Adam a faster update. Keras's TensorFlow backend hands an embedding's gradient to
the optimiser as IndexedSlices, whose rows repeat when a token occurs more than once in a batch, and does not add the
repetitions up first: Adam squares four small gradients where it should square their sum, and Adagrad and every clip go
wrong in the same way. One row looked up four times, three Adam steps of 0.1, a constant gradient: stock Keras moves the
row by -0.600, and by -0.300 where it is given the same gradient as a dense tensor. `GuardedUpdates` adds the
repetitions up in `apply`, where both stock `model.fit` and the trainer of this package pass.

Weight decay is decoupled (Loshchilov and Hutter 2019): each step takes rate · decay · weight off the weight itself.
It pulls on matrices and embeddings alone. A norm, a bias or a position has no size that a smaller one would do for.
"""

import contextlib
import dataclasses
import functools
import math
import re

import keras
import tensorflow as tf

from tf_llm.training.schedules import SCHEDULES


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


class GuardedUpdates:
    """Mixed into a Keras optimiser: adds up repeated rows of embedding gradients before anything else sees them.

    It also says which weights decay, where the optimiser is one that lets them (Keras, left alone, takes all), and it
    can pass over a step whose gradients are unsound. With `use_ema` it keeps running means of the weights: after a run
    of t updates they go back over the last tenth of it, or over the 1 / (1 - ema_momentum) latest, whichever is less.

    Attributes:
        sound: inside `guard()`, bool [] in the graph that is being drawn: whether the update is to be made.
    """

    sound, _is_guarded = None, False

    @property
    def averages(self):
        """The running means, in the order of the weights; none without `use_ema`, or before `build`."""
        return list(self._model_variables_moving_average) if self.use_ema and self.built else []

    @contextlib.contextmanager
    def averaged(self):
        """Inside, the weights are their running means, where these are kept. Not for a replica, and not for a graph."""
        self._exchange_averages()
        try:
            yield
        finally:
            self._exchange_averages()

    @contextlib.contextmanager
    def guard(self):
        """Around the drawing of a step that sums the gradients of all devices itself, as it must to cut them by their
        global norm, and then sets `sound`. Where that is False nothing changes: no weight, no state, no count."""
        self._is_guarded = True
        try:
            yield
        finally:
            self._is_guarded, self.sound = False, None

    def apply(self, grads, trainable_variables=None):
        """Applies gradients, dense or IndexedSlices, to the variables (see `keras.optimizers.Optimizer.apply`)."""
        super().apply([tf.convert_to_tensor(g) if hasattr(g, "indices") else g for g in grads], trainable_variables)
        if self._is_guarded:
            self.iterations.assign_sub(tf.cast(tf.logical_not(self.sound), self.iterations.dtype))

    def build(self, variables):
        """Makes the state for these variables (see `keras.optimizers.Optimizer.build`)."""
        if not self.built:
            self.exclude_from_weight_decay(var_list=[variable for variable in variables if not is_decayed(variable)])
        super().build(variables)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars if self._is_guarded else super()._all_reduce_sum_gradients(grads_and_vars)

    def _distributed_tf_update_step(self, distribution, grads_and_vars, learning_rate):
        def update():
            super(GuardedUpdates, self)._distributed_tf_update_step(distribution, grads_and_vars, learning_rate)
            return True

        tf.cond(self.sound, update, lambda: False) if self._is_guarded else update()

    def _update_model_variables_moving_average(self, trainable_variables):
        """Keras's own starts from the first update's weights, and would move in a step that is passed over."""
        done = tf.cast(self.iterations, tf.float32)  # updates before this one
        share = 1.0 - tf.minimum(self.ema_momentum, done / (done + 9.0))  # as in tf.train.ExponentialMovingAverage

        def move(average, variable):
            average.assign_add(tf.cast(share, average.dtype) * (variable - average))

        def update(distribution):
            def update_all():
                self._update_averages(distribution, move)
                return True

            tf.cond(self.sound, update_all, lambda: False) if self._is_guarded else update_all()

        tf.__internal__.distribute.interim.maybe_merge_call(update, self._distribution_strategy)

    def _exchange_averages(self):
        def exchange(average, variable):
            before = tf.identity(variable)
            variable.assign(average)
            average.assign(before)

        self._update_averages(getattr(self, "_distribution_strategy", None), exchange)  # JAX has none, and no averages

    def _update_averages(self, distribution, change):
        """Calls change(average, variable) for each weight on each device."""
        for average, variable in zip(self.averages, self._trainable_variables, strict=False):  # or none
            distribution.extended.update(average.value, change, args=(variable.value,), group=False)

    @property
    def weight_decay(self):
        """As it was given, and 0 for a step that is not sound. (On several devices the step is drawn for all at once,
        one behind the other: a value that one of them set for a while would be seen by the next.)"""
        return tf.where(self.sound, self._decay, 0.0) if self._is_guarded and self._decay else self._decay

    @weight_decay.setter
    def weight_decay(self, decay):
        self._decay = decay

    def _apply_weight_decay(self, variables):
        if self._decay:  # else Keras would multiply every weight by 0 and take that off
            # That of all optimisers: Keras's Muon has a way of its own, which copies on several devices refuse.
            keras.optimizers.Optimizer._apply_weight_decay(self, variables)


def is_decayed(variable):
    """Whether weight decay pulls on a variable: on matrices and tables of words, not on norms, biases and positions.

    >>> is_decayed(keras.Variable(np.ones((2, 2)), name="kernel")), is_decayed(keras.Variable(np.ones(2), name="gamma"))
    (True, False)
    """
    return len(variable.shape) > 1 and not re.search("position|bias|norm", variable.path)


@keras.saving.register_keras_serializable("tf_llm")
class SGD(GuardedUpdates, keras.optimizers.SGD):
    """Stochastic gradient descent (article, section 3.4)."""


@keras.saving.register_keras_serializable("tf_llm")
class Adagrad(GuardedUpdates, keras.optimizers.Adagrad):
    """Adagrad: each weight's rate falls with the squares of the gradients it has seen (Duchi et al. 2011)."""


class OneKernel:
    """Mixed into Adam and AdamW: TensorFlow has their update as one op, Keras draws it as a dozen.

    Each of those passes over the weights or their means, which takes a CPU a fifth of a step with few rows.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable (see `keras.optimizers.Optimizer.update_step`)."""
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        index, dtype = self._get_variable_index(variable), variable.dtype
        step = tf.cast(self.iterations + 1, dtype)
        beta_1, beta_2 = (tf.cast(beta, dtype) for beta in (self.beta_1, self.beta_2))
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(self.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )


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
