"""Optimisers by hand, schedules by hand, and the embedding gradients that Keras gets wrong."""

import doctest
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.training import optimizers, schedules, updates
from tf_llm.training.optimizers import (
    DECAYING,
    OPTIMIZERS,
    TrainingConfig,
    build_optimizer,
)
from tf_llm.training.schedules import SCHEDULES, learning_rate_at
from tf_llm.training.updates import is_decayed

STOCK = {
    "gradient_descent": lambda rate: keras.optimizers.SGD(rate),
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "adagrad": lambda rate: keras.optimizers.Adagrad(rate),
    "adam": lambda rate: keras.optimizers.Adam(rate),
    "adam_short_memory": lambda rate: keras.optimizers.Adam(rate, beta_2=0.98),
    "adam_transformer": lambda rate: keras.optimizers.Adam(rate, beta_2=0.997, epsilon=1e-9),
    "adamw": lambda rate: keras.optimizers.AdamW(rate),
    "adafactor": lambda rate: keras.optimizers.Adafactor(rate),
    "lion": lambda rate: keras.optimizers.Lion(rate),
    "muon": lambda rate: keras.optimizers.Muon(rate, exclude_layers=["table", "dense"]),
}
# Keras has no such thing: it is compared with itself, fed with dense gradients.
STOCK["adamw_rms"] = OPTIMIZERS["adamw_rms"]
# Adam is one op here, whose 1 - β2 is one of float32 and so good to five digits: hence the tolerances of 1e-5 below.
# To the linear ones it makes no difference whether repetitions were added up; to Lion, which looks at signs, seldom.
INDIFFERENT = ("gradient_descent", "sgd", "lion", "adamw_rms")


@pytest.mark.parametrize(("module", "examples"), [(optimizers, 2), (schedules, 5), (updates, 1)])
def test_docstring_examples(module, examples):
    result = doctest.testmod(module, extraglobs={"np": np})
    assert result.attempted >= examples and result.failed == 0


# === Repeated rows of an embedding gradient ===


def _look_up_repeatedly(optimizer, scales, make_dense=False):
    """Row 0 of three is looked up four times a step, row 2 once; returns the table after the steps."""
    table = keras.Variable(np.zeros((3, 2), "float32"), name="table")
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
    np.testing.assert_allclose(_look_up_repeatedly(OPTIMIZERS[name](0.1), scales), expected, rtol=1e-5, atol=1e-7)


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
    np.testing.assert_allclose(_fit(OPTIMIZERS[name](0.1), embedding=True), expected, rtol=1e-5, atol=1e-7)
    if name not in INDIFFERENT:
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


def _adam(beta_2=0.999, epsilon=1e-7):
    mean, squares, weight = np.zeros(3), np.zeros(3), np.zeros(3)
    for step, gradient in enumerate((FIRST, SECOND), start=1):
        mean = 0.9 * mean + 0.1 * gradient
        squares = beta_2 * squares + (1 - beta_2) * gradient**2
        root = np.sqrt(squares / (1 - beta_2**step))
        # Keras adds epsilon before it corrects the bias of the root, the paper after: the same but for epsilon.
        weight = weight - RATE * (mean / (1 - 0.9**step)) / (root + epsilon / math.sqrt(1 - beta_2**step))
        yield weight


BY_HAND = {
    "gradient_descent": _gradient_descent,
    "sgd": _sgd,
    "adagrad": _adagrad,
    "adam": _adam,
    "adam_short_memory": lambda: _adam(0.98),
    "adam_transformer": lambda: _adam(0.997, 1e-9),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_first_two_steps_by_hand(name):
    weight = keras.Variable(np.zeros(3, "float32"))
    optimizer = build_optimizer(TrainingConfig(optimizer=name, learning_rate=RATE))
    optimizer.build([weight])
    for gradient, expected in zip((FIRST, SECOND), BY_HAND[name](), strict=True):
        optimizer.apply([tf.constant(gradient, "float32")], [weight])
        np.testing.assert_allclose(weight.numpy(), expected, rtol=2e-5, atol=1e-7)


# === Several steps of the others, against NumPy ===

DECAY = 0.1


def _rms(values):
    return np.sqrt(np.mean(values**2))


def _adamw(weight, gradients, decay, epsilon=1e-7, smallest=None):
    """With `smallest`, steps in the size of the weight."""
    mean, squares = np.zeros_like(weight), np.zeros_like(weight)
    for step, gradient in enumerate(gradients, start=1):
        weight = weight - RATE * decay * weight
        size = 1.0 if smallest is None else max(smallest, _rms(weight))
        mean = 0.9 * mean + 0.1 * gradient
        squares = 0.999 * squares + 0.001 * gradient**2
        correction = math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        weight = weight - RATE * size * correction * mean / (np.sqrt(squares) + epsilon)
        yield weight


def _adafactor(weight, gradients, decay):
    """Shazeer and Stern 2018, algorithms 4 and 5, with decay 1 - t^-0.8 and the rate kept at or below 1/√t."""
    rows = columns = squares = 0.0
    for step, gradient in enumerate(gradients, start=1):
        keep = 1 - step**-0.8
        new = gradient**2 + 1e-30
        if gradient.ndim == 2:
            rows = keep * rows + (1 - keep) * new.sum(1)
            columns = keep * columns + (1 - keep) * new.sum(0)
            squares = np.outer(rows, columns) / rows.sum()
        else:
            squares = keep * squares + (1 - keep) * new
        update = gradient / np.sqrt(squares)
        update = update / max(1.0, _rms(update))
        weight = weight - max(1e-3, _rms(weight)) * min(RATE, step**-0.5) * update
        yield weight


def _lion(weight, gradients, decay):
    mean = np.zeros_like(weight)
    for gradient in gradients:
        weight = weight - RATE * decay * weight
        weight = weight - RATE * np.sign(0.9 * mean + 0.1 * gradient)
        mean = 0.99 * mean + 0.01 * gradient
        yield weight


def _muon(weight, gradients, decay):
    """The five iterations work on the singular values alone: on each by the same polynomial."""
    mean = np.zeros_like(weight)
    for gradient in gradients:
        weight = weight - RATE * decay * weight
        mean = 0.95 * mean + gradient
        left, values, right = np.linalg.svd(gradient + 0.95 * mean, full_matrices=False)
        values = values / np.linalg.norm(values)
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        weight = weight - RATE * 0.2 * math.sqrt(max(weight.shape)) * (left * values) @ right
        yield weight


IN_NUMPY = {
    "adamw": _adamw,
    "adamw_rms": lambda *case: _adamw(*case, epsilon=1e-6, smallest=1e-3),
    "adafactor": _adafactor,
    "lion": _lion,
    "muon": lambda weight, *case: (_adamw if weight.ndim == 1 or weight.shape[0] == 7 else _muon)(weight, *case),
}


def test_every_optimizer_was_calculated():
    assert BY_HAND.keys() | IN_NUMPY.keys() == OPTIMIZERS.keys() == STOCK.keys()


@pytest.mark.parametrize("name", IN_NUMPY)
def test_several_steps_equal_numpy(name):
    random = np.random.default_rng(5)
    # Words, a tall and a flat matrix, a bias that begins at 0, a norm, and positions: the last three do not decay.
    shapes = {"input/table": (7, 3), "tall": (4, 2), "flat": (2, 4), "bias": (4,), "gamma": (4,)}
    weights = {path: random.normal(size=shape) * (path != "bias") for path, shape in shapes.items()}
    variables = [keras.Variable(weight.astype("float32"), name=path.split("/")[-1]) for path, weight in weights.items()]
    gradients = [[random.normal(size=shape) for shape in shapes.values()] for _ in range(6)]
    decay = DECAY if name in DECAYING else 0.0
    optimizer = build_optimizer(TrainingConfig(optimizer=name, learning_rate=RATE, weight_decay=decay))
    references = [
        IN_NUMPY[name](weight, [step[i] for step in gradients], decay * (weight.ndim > 1))
        for i, weight in enumerate(weights.values())
    ]
    for step in gradients:
        optimizer.apply([tf.constant(gradient, "float32") for gradient in step], variables)
        for variable, reference in zip(variables, references, strict=True):
            np.testing.assert_allclose(variable.numpy(), next(reference), rtol=1e-4, atol=2e-5, err_msg=variable.name)


def _build_transformer():
    config = ModelConfig(vocabulary_size=20, source_length=4, target_length=4, d_model=8, d_ff=16, num_heads=2)
    return build_model(config)


def test_what_decays_and_what_muon_takes():
    """Of the real model, by the paths that its weights have."""
    model = _build_transformer()
    muon = build_optimizer(TrainingConfig(optimizer="muon"))
    muon.build(model.trainable_variables)
    decayed = {variable.path for variable in model.trainable_variables if is_decayed(variable)}
    made_orthogonal = {v.path for v in model.trainable_variables if not muon._should_use_adamw(v)}
    kernels = {v.path for v in model.trainable_variables if v.path.endswith("kernel")}
    assert decayed == kernels | {"table/embeddings"}
    assert made_orthogonal == kernels - {"output_embedding/kernel"} and len(made_orthogonal) == 26


@pytest.mark.parametrize("name", DECAYING)
def test_decay_pulls_on_matrices_alone(name):
    model = _build_transformer()
    optimizer = build_optimizer(TrainingConfig(optimizer=name, learning_rate=0.5, weight_decay=0.5))
    optimizer.build(model.trainable_variables)
    before = [variable.numpy() for variable in model.trainable_variables]
    optimizer._apply_weight_decay(model.trainable_variables)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), old * (0.75 if is_decayed(variable) else 1.0), rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_serialised(name):
    optimizer = build_optimizer(TrainingConfig(optimizer=name, learning_rate=0.5))
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is type(optimizer) and again.get_config() == optimizer.get_config()


# === The rate ===


def test_schedules_by_hand():
    steps = [0, 25, 50, 90, 100]
    by_hand = {
        "constant": [1, 1, 1, 1, 1],
        "cosine": [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 + math.cos(0.9 * math.pi)) / 2, 0],
        "linear": [1, 0.75, 0.5, 0.1, 0],
        "inverse_square_root": [1, math.sqrt(9 / 26), math.sqrt(9 / 51), math.sqrt(9 / 91), math.sqrt(9 / 101)],
        "warmup_stable_decay": [1, 1, 1, 0.5, 0],
    }
    assert by_hand.keys() == SCHEDULES.keys()
    for name, expected in by_hand.items():
        assert [SCHEDULES[name](step, 100, 9) for step in steps] == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rate_climbs_to_its_peak_and_stays_above_zero(schedule):
    config = TrainingConfig(learning_rate=2.0, schedule=schedule, warmup_steps=3)
    rates = [learning_rate_at(config, step, 100) for step in range(100)]
    assert rates[:3] == pytest.approx([2 / 3 * (step + 1) * SCHEDULES[schedule](step, 100, 3) for step in range(3)])
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[-1] > 0
    if schedule != "inverse_square_root":  # the others end where they end
        assert learning_rate_at(config, 100, 100) == learning_rate_at(config, 500, 100)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rate_is_at_its_peak_while_the_run_is_not_planned(schedule):
    config = TrainingConfig(learning_rate=0.5, schedule=schedule, warmup_steps=13)
    rates = [learning_rate_at(config, step, total_steps=0) for step in range(13)]
    assert rates == pytest.approx([0.5 * (step + 1) / 13 for step in range(13)])


def test_inverse_square_root_is_the_formula_of_the_transformer():
    """2 · d^-½ · min(1, s/w) · max(s, w)^-½, where the peak is set to 2 · d^-½ · w^-½ and s counts from 1."""
    width, warmup = 512, 16
    peak = 2 * width**-0.5 * warmup**-0.5
    config = TrainingConfig(learning_rate=peak, schedule="inverse_square_root", warmup_steps=warmup)
    for s in range(1, 100):
        expected = 2 * width**-0.5 * min(1.0, s / warmup) * max(s, warmup) ** -0.5
        assert learning_rate_at(config, s - 1, total_steps=50) == pytest.approx(expected)
    assert max(learning_rate_at(config, step, 50) for step in range(99)) == pytest.approx(peak)


# === Settings ===

NAN = math.nan


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"optimizer": "adams"},
            r"training.optimizer expected one of \['adafactor', .*\]. Received: 'adams'",
        ),
        ({"optimizer": ["adam"]}, r"training.optimizer expected one of .* Received: \['adam'\]"),
        ({"schedule": "step"}, r"training.schedule expected one of \['constant', 'cosine', .*\]. Received: 'step'"),
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
        ({"weight_decay": -0.1}, "training.weight_decay expected a finite number of at least 0. Received: -0.1"),
        (
            {"weight_decay": 0.1},
            r"training.optimizer expected one of .* where there is a weight_decay. .*: 'adam'",
        ),
        ({"label_smoothing": 1.0}, r"training.label_smoothing expected a share in \[0, 1\). Received: 1.0"),
        ({"label_smoothing": NAN}, r"training.label_smoothing expected a share in \[0, 1\). Received: nan"),
        ({"seconds": math.inf}, "training.seconds expected a finite number of at least 0. Received: inf"),
        ({"seconds": 0}, "training.steps or training.seconds expected above 0. Received: 0 for both"),
        ({"log_seconds": NAN}, "training.log_seconds expected a number of at least 0. Received: nan"),
        ({"evaluate_seconds": -1}, "training.evaluate_seconds expected a number of at least 0. Received: -1"),
        ({"checkpoint_seconds": None}, "training.checkpoint_seconds expected a number of at least 0. Received: None"),
        ({"seed": -1}, r"training.seed expected a whole number in \[0, 2\*\*32\). Received: -1"),
        ({"seed": 2**32}, r"training.seed expected a whole number in \[0, 2\*\*32\). Received: 4294967296"),
        ({"precision": None}, 'training.precision expected "auto" or the name of a Keras dtype policy. Received: None'),
    ],
)
def test_wrong_settings_are_named(settings, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        TrainingConfig(**settings)


def test_settings_at_their_bounds():
    TrainingConfig(steps=1, seconds=0, evaluate_seconds=math.inf, log_seconds=0, seed=2**32 - 1, learning_rate=1)
    assert float(build_optimizer(TrainingConfig(learning_rate=1)).learning_rate) == 1.0
