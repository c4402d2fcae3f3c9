"""Which settings of a model are refused, and that a new choice is one class and one line."""

import doctest

import keras
import numpy as np
import pytest
from keras import ops

from tf_llm.model import config as config_module
from tf_llm.model import layers, norms, positions
from tf_llm.model.config import ARCHITECTURES, ModelConfig
from tf_llm.model.encoder_decoder import build_model

SMALL = {"vocabulary_size": 20, "source_length": 7, "target_length": 6, "num_heads": 2, "d_model": 8, "d_ff": 12}


def test_docstring_examples():
    assert doctest.testmod(config_module).failed == 0


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"vocabulary_size": 0}, "model.vocabulary_size expected a whole number of at least 1. Received: 0"),
        ({"source_length": 1.5}, "model.source_length expected a whole number of at least 1. Received: 1.5"),
        ({"target_length": -1}, "model.target_length expected a whole number of at least 1. Received: -1"),
        ({"num_layers": "2"}, "model.num_layers expected a whole number of at least 1. Received: '2'"),
        ({"num_heads": 0}, "model.num_heads expected a whole number of at least 1. Received: 0"),
        ({"d_ff": 0}, "model.d_ff expected a whole number of at least 1. Received: 0"),
        ({"num_decoder_layers": -1}, "model.num_decoder_layers expected a whole number of at least 0. Received: -1"),
        ({"reach": 1}, "model.reach expected a whole number of at least 2. Received: 1"),
        ({"relative_buckets": 2}, "model.relative_buckets expected a whole number of at least 4. Received: 2"),
        ({"relative_distance": 16}, "model.relative_distance expected a whole number of at least 32. Received: 16"),
        ({"d_model": 9, "num_heads": 2}, "model.d_model expected a multiple of num_heads, which is 2, or a d_head"),
        ({"num_key_value_heads": 3}, "model.num_key_value_heads expected a divisor of num_heads, which is 4"),
        ({"architecture": "lstm"}, r"model.architecture expected one of \['cnn', 'rnn', 'transformer'\]"),
        ({"context": "matrix"}, r"model.context expected one of \['sequence', 'vector'\]. Received: 'matrix'"),
        ({"positions": "alibi"}, r"model.positions expected one of \['learned', 'none', 'relative', 'rotary', 'sinus"),
        ({"norm": "none"}, r"model.norm expected one of \['batch_layer', 'layer', 'rms'\]. Received: 'none'"),
        ({"norm_place": "middle"}, r"model.norm_place expected one of \['first', 'last'\]. Received: 'middle'"),
        ({"input_norm": "x"}, r"model.input_norm expected one of \['batch_layer', 'layer', 'none', 'rms'\]"),
        ({"activation": "tanh"}, r"model.activation expected one of \['gated_gelu', 'gelu', 'relu', 'swiglu'\]"),
        ({"embeddings": "some"}, r"model.embeddings expected one of \['all', 'inputs', 'none'\]. Received: 'some'"),
        (
            {"d_model": 9, "num_heads": 3, "positions": "sinusoidal"},
            "model.d_model expected an even number of at least 4 with sinusoidal positions. Received: 9; choose",
        ),
        ({"positions": "rotary", "d_head": 3}, "model.d_head expected an even number with rotary positions"),
        ({"embedding_dropout": 1.0}, r"model.embedding_dropout expected a share in \[0, 1\). Received: 1.0"),
        ({"residual_dropout": -0.1}, r"model.residual_dropout expected a share in \[0, 1\). Received: -0.1"),
        ({"output_l2": float("nan")}, "model.output_l2 expected a number of at least 0. Received: nan"),
        ({"norm_epsilon": 0.0}, r"model.norm_epsilon expected a number in \(0, 1\). Received: 0.0"),
        (
            {"architecture": "rnn", "positions": "rotary"},
            "model.positions='rotary' expected self-attention, which architecture='rnn' has not; choose learned, ",
        ),
        ({"short_convolution": 1}, "model.short_convolution expected a whole number of at least 2. Received: 1"),
        (
            {"architecture": "rnn", "short_convolution": 3},
            "model.short_convolution expected self-attention, which architecture='rnn' has not; choose short_conv",
        ),
        ({"embeddings": "all"}, "model.output_l2 expected to be 0 with embeddings='all': it would shrink the input"),
        (
            {"target_vocabulary_size": -1},
            "model.target_vocabulary_size expected a whole number of at least 0. Received: -1",
        ),
        (
            {"target_vocabulary_size": 50},
            "model.target_vocabulary_size expected embeddings='none': two vocabularies share no table. Received: both",
        ),
        ({"packed": True}, "model.packed expected context='sequence': one vector would mix all examples of a row"),
        ({"packed": True, "context": "sequence"}, "model.packed expected norms without batch statistics; choose norm"),
        (
            {"packed": True, "context": "sequence", "input_norm": "none", "architecture": "cnn"},
            "model.packed expected architecture='transformer': nothing keeps the examples of a row apart in 'cnn'",
        ),
    ],
)
def test_wrong_settings_are_named(settings, text):
    with pytest.raises(ValueError, match=text):
        ModelConfig(**settings)


def _logits(config, source_ids):
    keras.utils.set_random_seed(0)
    model = build_model(config)
    for weight in model.weights:
        weight.assign(weight + 0.1)
    decoder_ids = np.array([[0, 4, 5, 6, 7, 8]])
    return ops.convert_to_numpy(model({"source_ids": source_ids, "decoder_ids": decoder_ids}))


@pytest.mark.parametrize("kind", ["norm", "positions", "activation"])
def test_a_new_choice_is_one_class_and_one_line(monkeypatch, kind):
    """What a reader who adds a norm, a position scheme or an activation has to write: this, in one file each."""

    class Centred(keras.layers.Layer):  # norms.py
        def __init__(self, epsilon, **kwargs):
            super().__init__(**kwargs)

        def call(self, hidden, keep_mask):
            return hidden - ops.mean(hidden, axis=-1, keepdims=True)

    class Slopes(positions.Positions):  # positions.py: ALiBi, a bias that falls with the distance
        def bias(self, stack, queries, position):
            length = self.config.source_length if stack == "encoder" else self.config.target_length
            rows = position + ops.arange(queries.shape[1])
            distances = ops.cast(ops.abs(ops.arange(length)[None, :] - rows[:, None]), "float32")
            return -0.5 * distances[None, None]

    monkeypatch.setitem(norms.NORMS, "centred", Centred)
    monkeypatch.setitem(positions.POSITIONS, "slopes", Slopes)
    monkeypatch.setitem(layers.ACTIVATIONS, "squared_relu", (lambda hidden: ops.square(ops.relu(hidden)), False))
    choice = {"norm": "centred", "positions": "slopes", "activation": "squared_relu"}[kind]
    settings = SMALL | {"num_layers": 2, "context": "sequence", "positions": "none", "input_norm": "none"}
    source_ids = np.array([[3, 4, 5, 6, 7, 0, 0]])
    changed = _logits(ModelConfig(**(settings | {kind: choice})), source_ids)
    assert np.abs(changed - _logits(ModelConfig(**settings), source_ids)).max() > 1e-4
    if kind == "positions":  # without any, the encoder cannot tell in which order the words came
        turned = np.array([[4, 3, 5, 6, 7, 0, 0]])
        assert np.abs(changed - _logits(ModelConfig(**(settings | {kind: choice})), turned)).max() > 1e-4
        plain = ModelConfig(**settings)
        np.testing.assert_allclose(_logits(plain, turned), _logits(plain, source_ids), atol=1e-4)


@pytest.mark.parametrize(
    "architecture",
    [name if name == "cnn" else pytest.param(name, marks=pytest.mark.thorough) for name in ARCHITECTURES],
)
def test_each_architecture_learns_to_copy(architecture):
    keras.utils.set_random_seed(0)
    model = build_model(
        ModelConfig(
            **(SMALL | {"d_model": 32, "d_ff": 64, "context": "sequence", "input_norm": "none", "output_l2": 0.0}),
            architecture=architecture,
            num_layers=1,
            embedding_dropout=0.0,
            reach=3,
        )
    )
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
        jit_compile=False,
    )
    targets = np.random.default_rng(0).integers(3, 20, (64 * 200, 6)).astype("int32")
    features = {
        "source_ids": np.pad(targets, ((0, 0), (0, 1))),
        "decoder_ids": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
    }
    model.fit(features, targets, batch_size=64, verbose=0)
    assert model.evaluate(features, targets, batch_size=1000, verbose=0, return_dict=True)["accuracy"] > 0.9
