"""What is mended of the updates that Keras's optimisers make.

Keras's TensorFlow backend hands an embedding's gradient to the optimiser as IndexedSlices, whose rows repeat when a
token occurs more than once in a batch, and does not add the repetitions up first: Adam squares four small gradients
where it should square their sum, and Adagrad and every clip go wrong in the same way. One row looked up four times,
three Adam steps of 0.1, a constant gradient: stock Keras moves the row by -0.600, and by -0.300 where it is given the
same gradient as a dense tensor. `GuardedUpdates` adds the repetitions up in `apply`, where both stock `model.fit` and
the trainer of this package pass.
"""

import contextlib
import re

import keras
import tensorflow as tf


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
