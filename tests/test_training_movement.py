"""How far a step moves the weights, against numpy: whole weights and sampled ones."""

import doctest

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_llm.training import movement as movement_module
from tf_llm.training.movement import SAMPLE, Movement


def norm(arrays):
    return float(np.sqrt(sum(np.square(array.astype("float64")).sum() for array in arrays)))


def test_docstring_examples():
    result = doctest.testmod(movement_module)
    assert result.attempted >= 4 and result.failed == 0


@pytest.mark.parametrize(
    ("shapes", "tolerance"),
    [([(5, 3), (7,), (), (SAMPLE // 8, 8)], 1e-5), ([(1_000, 700), (300, 2, 999), (3,)], 0.02)],
    ids=["whole", "sampled"],
)
@pytest.mark.parametrize("make", [tf.Variable, keras.Variable], ids=["tensorflow", "keras"])
def test_it_equals_numpy(shapes, tolerance, make):
    draw = np.random.default_rng(0)
    before = [draw.normal(0, 1 + place, shape).astype("float32") for place, shape in enumerate(shapes)]
    steps = [draw.normal(0, 0.01, shape).astype("float32") for shape in shapes]
    variables = [make(array) for array in before]
    movement = Movement(variables)
    for factor in (0.0, 1.0, 3.0):
        for variable, array in zip(variables, before, strict=True):
            variable.assign(array)
        movement.remember()
        for variable, step in zip(variables, steps, strict=True):
            variable.assign_add(factor * step)
        assert movement.measure() == pytest.approx(factor * norm(steps) / norm(before), rel=tolerance)


def test_weights_that_are_zero_have_no_size():
    weight = tf.Variable([0.0, 0.0])
    movement = Movement([weight])
    movement.remember()
    weight.assign([1.0, 1.0])
    assert movement.measure() == 0.0


def test_weights_in_half_precision_and_a_fresh_copy():
    weight = tf.Variable(tf.ones([4], tf.bfloat16))
    movement = Movement([weight])
    movement.remember()
    weight.assign_add(tf.constant([0, 0, 0, 0.5], tf.bfloat16))  # must not reach what was remembered
    assert movement.measure() == pytest.approx(0.25)
