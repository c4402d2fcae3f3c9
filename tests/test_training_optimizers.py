"""Optimisers by hand, schedules by hand, and the embedding gradients that Keras gets wrong."""

import doctest
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_llm.training import optimizers
from tf_llm.training.optimizers import OPTIMIZERS, SCHEDULES, TrainingConfig, build_optimizer, learning_rate_at

STOCK = {
    "gradient_descent": lambda rate: keras.optimizers.SGD(rate),
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "adagrad": lambda rate: keras.optimizers.Adagrad(rate),
    "adam": lambda rate: keras.optimizers.Adam(rate),
    "adam_short_memory": lambda rate: keras.optimizers.Adam(rate, beta_2=0.98),
}


def test_docstring_examples():
    result = doctest.testmod(optimizers)
    assert result.attempted >= 3 and result.failed == 0


# === Repeated rows of an embedding gradient ===


def _look_up_repeatedly(optimizer, scales, make_dense=False):
    """Row 0 of three is looked up four times a step, row 2 once; returns the table after the steps."""
    table = keras.Variable(np.zeros((3, 2), "float32"))
    optimizer.build([table])
    for scale in scales:
        with tf.GradientTape() as tape:
            objective = tf.reduce_sum(tf.gather(table.value, [0, 0, 2, 0, 0]) * scale)
        gradient = tape.gradient(objective, table.value)
        assert isinstance(gradient, tf.IndexedSlices)
        optimizer.apply([tf.convert_to_tensor(gradient) if make_dense else gradient], [table])
    return table.numpy()


def test_stock_keras_does_not_add_up_repeated_rows():
    """The figures of the module's docstring. Where this fails, Keras was repaired and `DenseGradients` can go."""
    constant = [1.0, 1.0, 1.0]
    assert _look_up_repeatedly(keras.optimizers.Adam(0.1), constant)[0] == pytest.approx(-0.600, abs=5e-4)
    assert _look_up_repeatedly(keras.optimizers.Adam(0.1), constant, True)[0] == pytest.approx(-0.300, abs=5e-4)
    assert _look_up_repeatedly(optimizers.Adam(0.1), constant)[0] == pytest.approx(-0.300, abs=5e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_repeated_rows_are_added_up_in_apply(name):
    scales = np.random.default_rng(0).normal(size=(3, 5, 2)).astype("float32")
    expected = _look_up_repeatedly(STOCK[name](0.1), scales, make_dense=True)
    np.testing.assert_allclose(_look_up_repeatedly(OPTIMIZERS[name](0.1), scales), expected, rtol=1e-6, atol=1e-7)


def _fit(optimizer, embedding):
    """Three steps of stock `model.fit` on batches that repeat their tokens; returns the embedding table."""
    ids = np.array([[1, 1, 1, 2], [1, 1, 3, 1]] * 3)
    targets = np.random.default_rng(1).normal(size=(6, 4, 2)).astype("float32")
    inputs = keras.Input((4,), dtype="int32")
    if embedding:
        layer = keras.layers.Embedding(5, 2, embeddings_initializer="ones")
        outputs = layer(inputs)
    else:  # the same in dense algebra, whose gradient is dense from the start
        layer = keras.layers.Dense(2, use_bias=False, kernel_initializer="ones")
        outputs = layer(keras.ops.one_hot(inputs, 5))
    model = keras.Model(inputs, outputs)
    model.compile(optimizer, loss="mse")
    model.fit(ids, targets, batch_size=2, epochs=1, shuffle=False, verbose=0)
    return layer.weights[0].numpy()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_repeated_rows_are_added_up_in_stock_fit(name):
    expected = _fit(STOCK[name](0.1), embedding=False)
    np.testing.assert_allclose(_fit(OPTIMIZERS[name](0.1), embedding=True), expected, rtol=1e-6, atol=1e-7)
    if "adam" in name or "adagrad" in name:
        assert np.abs(_fit(STOCK[name](0.1), embedding=True) - expected).max() > 0.01


def test_variables_without_gradient_are_passed_over():
    used, unused = keras.Variable(1.0), keras.Variable(1.0)
    optimizer = build_optimizer(TrainingConfig(optimizer="gradient_descent", learning_rate=0.5))
    optimizer.build([used, unused])
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([tf.constant(1.0), None], [used, unused])
    assert (float(used), float(unused)) == (0.5, 1.0)


# === Each optimiser's first two steps, by hand ===

RATE, FIRST, SECOND = 0.1, np.array([0.5, -2.0, 0.0]), np.array([1.0, 1.0, 0.25])


def _gradient_descent():
    yield -RATE * FIRST
    yield -RATE * (FIRST + SECOND)


def _sgd():
    yield -RATE * FIRST
    yield -RATE * FIRST - RATE * (0.9 * FIRST + SECOND)


def _adagrad():
    squares = 0.1 + FIRST**2  # Keras begins with 0.1
    weight = -RATE * FIRST / np.sqrt(squares + 1e-7)
    yield weight
    squares += SECOND**2
    yield weight - RATE * SECOND / np.sqrt(squares + 1e-7)


def _adam(beta_2=0.999):
    mean, squares, weight = np.zeros(3), np.zeros(3), np.zeros(3)
    for step, gradient in enumerate((FIRST, SECOND), start=1):
        mean = 0.9 * mean + 0.1 * gradient
        squares = beta_2 * squares + (1 - beta_2) * gradient**2
        root = np.sqrt(squares / (1 - beta_2**step))
        # Keras adds epsilon before it corrects the bias of the root, the paper after: the same but for epsilon.
        weight = weight - RATE * (mean / (1 - 0.9**step)) / (root + 1e-7 / math.sqrt(1 - beta_2**step))
        yield weight


BY_HAND = {
    "gradient_descent": _gradient_descent,
    "sgd": _sgd,
    "adagrad": _adagrad,
    "adam": _adam,
    "adam_short_memory": lambda: _adam(0.98),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_first_two_steps_by_hand(name):
    weight = keras.Variable(np.zeros(3, "float32"))
    optimizer = build_optimizer(TrainingConfig(optimizer=name, learning_rate=RATE))
    optimizer.build([weight])
    for gradient, expected in zip((FIRST, SECOND), BY_HAND[name](), strict=True):
        optimizer.apply([tf.constant(gradient, "float32")], [weight])
        np.testing.assert_allclose(weight.numpy(), expected, rtol=2e-5, atol=1e-7)


# === The rate ===


def test_schedules_by_hand():
    progress = [0.0, 0.25, 0.5, 1.0]
    by_hand = {
        "constant": [1, 1, 1, 1],
        "cosine": [1, (1 + math.sqrt(0.5)) / 2, 0.5, 0],
        "linear": [1, 0.75, 0.5, 0],
    }
    assert by_hand.keys() == SCHEDULES.keys()
    for name, expected in by_hand.items():
        assert [SCHEDULES[name](part) for part in progress] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rate_climbs_to_its_peak_and_stays_above_zero(schedule):
    config = TrainingConfig(learning_rate=2.0, schedule=schedule, warmup_steps=3)
    rates = [learning_rate_at(config, step, 100) for step in range(100)]
    assert rates[:3] == pytest.approx([2 / 3 * (step + 1) * SCHEDULES[schedule](step / 100) for step in range(3)])
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[-1] > 0
    assert learning_rate_at(config, 100, 100) == learning_rate_at(config, 500, 100)  # the schedule ends where it ends


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rate_is_at_its_peak_while_the_run_is_not_planned(schedule):
    config = TrainingConfig(learning_rate=0.5, schedule=schedule)
    assert [learning_rate_at(config, step, total_steps=0) for step in range(13)] == [0.5] * 13


# === Settings ===

NAN = math.nan


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"optimizer": "adamw"}, r"training.optimizer expected one of \['adagrad', 'adam', .*\]. Received: 'adamw'"),
        ({"optimizer": ["adam"]}, r"training.optimizer expected one of .* Received: \['adam'\]"),
        ({"schedule": "step"}, r"training.schedule expected one of \['constant', 'cosine', 'linear'\]. Received: 's"),
        ({"learning_rate": 0}, "training.learning_rate expected a finite number above 0. Received: 0"),
        ({"learning_rate": NAN}, "training.learning_rate expected a finite number above 0. Received: nan"),
        ({"learning_rate": math.inf}, "training.learning_rate expected a finite number above 0. Received: inf"),
        ({"learning_rate": "1e-4"}, "training.learning_rate expected a finite number above 0. Received: '1e-4'"),
        ({"batch_size": 0}, "training.batch_size expected a whole number of at least 1. Received: 0"),
        ({"batch_size": 1.5}, "training.batch_size expected a whole number of at least 1. Received: 1.5"),
        ({"steps": -1}, "training.steps expected a whole number of at least 0. Received: -1"),
        ({"warmup_steps": NAN}, "training.warmup_steps expected a whole number of at least 0. Received: nan"),
        ({"clip_norm": -1.0}, "training.clip_norm expected a finite number of at least 0. Received: -1.0"),
        ({"clip_norm": NAN}, "training.clip_norm expected a finite number of at least 0. Received: nan"),
        ({"seconds": math.inf}, "training.seconds expected a finite number of at least 0. Received: inf"),
        ({"seconds": 0}, "training.steps or training.seconds expected above 0. Received: 0 for both"),
        ({"log_seconds": NAN}, "training.log_seconds expected a number of at least 0. Received: nan"),
        ({"evaluate_seconds": -1}, "training.evaluate_seconds expected a number of at least 0. Received: -1"),
        ({"checkpoint_seconds": None}, "training.checkpoint_seconds expected a number of at least 0. Received: None"),
        ({"seed": -1}, r"training.seed expected a whole number in \[0, 2\*\*32\). Received: -1"),
        ({"seed": 2**32}, r"training.seed expected a whole number in \[0, 2\*\*32\). Received: 4294967296"),
        ({"shorten_sources": "no"}, "training.shorten_sources expected True or False. Received: 'no'"),
        ({"precision": None}, 'training.precision expected "auto" or the name of a Keras dtype policy. Received: None'),
    ],
)
def test_wrong_settings_are_named(settings, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        TrainingConfig(**settings)


def test_settings_at_their_bounds():
    TrainingConfig(steps=1, seconds=0, evaluate_seconds=math.inf, log_seconds=0, seed=2**32 - 1, learning_rate=1)
    assert float(build_optimizer(TrainingConfig(learning_rate=1)).learning_rate) == 1.0
