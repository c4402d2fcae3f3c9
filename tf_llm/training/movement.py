"""How far a step moves the weights, measured in their own size.

The ratio of an update to the weights, ‖Δw‖ / ‖w‖ over all of them together, says what neither the loss nor the norm of
the gradients does: whether the learning rate suits the weights. A thousandth is often named as a good one; far less
means that little is learned, far more that a few steps make the weights anew.

It takes a copy of the weights before the step and a look at them after it, so it is measured of one step now and then.
Of a large weight a sample is copied, so that it takes 256 kB of memory a weight at most, and no second model.
"""

import math

import tensorflow as tf

SAMPLE = 65_536  # numbers of each weight, evenly spread: what a larger one is judged by


class Movement:
    """The way that weights went since they were remembered.

    Args:
        variables: Keras's or TensorFlow's. On several devices, which all have the same weights, the first one's.

    >>> weight = tf.Variable([3.0, 4.0])
    >>> movement = Movement([weight])
    >>> movement.remember()
    >>> weight.assign_add([0.0, 1.0]).numpy()
    array([3., 5.], dtype=float32)
    >>> round(movement.measure(), 6)  # 1 of the 5 that they had
    0.2
    """

    def __init__(self, variables):
        # The mean of what is looked at stands for all numbers of a weight.
        self._variables = [(variable, max(1, -(-_size(variable) // SAMPLE))) for variable in variables]
        self._look, self._compare = tf.function(self._look), tf.function(self._compare)
        self._before = None

    def remember(self):
        """Keeps the weights as they are now."""
        self._before = self._look()

    def measure(self):
        """The norm of the way since then, divided by the norm of the weights there. Forgets them."""
        before, self._before = self._before, None
        return float(self._compare(before))

    def _look(self):
        return [tf.identity(_flatten(variable)[::stride]) for variable, stride in self._variables]

    def _compare(self, before):
        moved = weight = 0.0
        for (variable, _), old, new in zip(self._variables, before, self._look(), strict=True):
            moved += _size(variable) * tf.reduce_mean(tf.square(new - old))
            weight += _size(variable) * tf.reduce_mean(tf.square(old))
        return tf.sqrt(tf.math.divide_no_nan(moved, weight))


def _flatten(variable):
    return tf.cast(tf.reshape(tf.convert_to_tensor(variable), [-1]), tf.float32)  # [numbers]


def _size(variable):
    return math.prod(variable.shape)
