"""The tensors of the TensorFlow Models' transformer in our weights: each has one place, and faults are named."""

import dataclasses
import doctest
import math

import numpy as np
import pytest

from tf_llm.contracts import UserError
from tf_llm.model import tf_models
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.model.tf_models import SETTINGS, config_from_arrays, load_arrays, map_tensors

SHAPE = {"vocabulary_size": 11, "d_model": 8, "num_heads": 2, "d_ff": 12, "num_layers": 2, "num_decoder_layers": 3}
CONFIG = ModelConfig(**SETTINGS, **SHAPE, source_length=5, target_length=4)
QUERY = "encoder_layer/encoder_layers/0/_attention_layer/_query_dense/kernel"


def draw_arrays():
    random = np.random.default_rng(1)
    return {name: random.normal(size=shape).astype("float32") for name, (shape, _) in map_tensors(CONFIG).items()}


def test_docstring_examples():
    result = doctest.testmod(tf_models)
    assert result.attempted >= 8 and result.failed == 0


def test_shapes_tell_the_model():
    config = config_from_arrays(draw_arrays(), source_length=5, target_length=4, residual_dropout=0.2)
    assert config == dataclasses.replace(CONFIG, residual_dropout=0.2, d_head=4)


@pytest.mark.parametrize(
    ("d_model", "num_heads", "d_ff", "parameters"),
    [(512, 8, 2048, 61_362_176), (1024, 16, 4096, 210_804_736)],
    ids=["base", "big"],
)
def test_the_sizes_of_the_paper_have_their_parameters(d_model, num_heads, d_ff, parameters):
    shape = {"vocabulary_size": 33_708, "d_model": d_model, "num_heads": num_heads, "d_ff": d_ff, "num_layers": 6}
    table = map_tensors(ModelConfig(**SETTINGS, **shape))
    assert sum(math.prod(shape) for shape, _ in table.values()) == parameters


def test_every_number_has_one_place():
    arrays, model = draw_arrays(), build_model(CONFIG)
    load_arrays(model, arrays)
    placed = np.sort(np.concatenate([np.ravel(weight) for weight in model.trainable_weights]))
    np.testing.assert_array_equal(placed, np.sort(np.concatenate([array.ravel() for array in arrays.values()])))


def test_heads_become_columns_and_keys_lie_before_values():
    arrays, model = draw_arrays(), build_model(CONFIG)
    load_arrays(model, arrays)
    weights = {weight.path: np.asarray(weight) for weight in model.trainable_weights}
    there = "decoder_layer/decoder_layers/2/encdec_attention"
    query, key, value, output = (
        arrays[f"{there}/_{part}_dense/kernel"] for part in ("query", "key", "value", "output")
    )
    for head in range(2):
        columns = slice(4 * head, 4 * head + 4)
        np.testing.assert_array_equal(weights["decoder_2_context_attention/query/kernel"][:, columns], query[:, head])
        np.testing.assert_array_equal(weights["decoder_2_context_attention/output/kernel"][columns], output[head])
        both = weights["decoder_2_context_keys_values/projection/kernel"].reshape(8, 2, 8)
        np.testing.assert_array_equal(both[:, 0, columns], key[:, head])
        np.testing.assert_array_equal(both[:, 1, columns], value[:, head])


def test_one_error_names_all_that_does_not_fit():
    arrays, model = draw_arrays(), build_model(CONFIG)
    before = model.get_weights()
    bias, offset = "decoder_layer/decoder_layers/2/output_dense/bias", "encoder_layer/output_normalization/beta"
    del arrays[bias], arrays[offset]
    arrays[QUERY.replace("kernel", "bias")] = np.zeros([2, 4])  # of a model made with use_bias=True
    arrays[QUERY] = arrays[QUERY].reshape(8, 8)
    with pytest.raises(UserError) as error:
        load_arrays(model, arrays)
    message = str(error.value)
    assert f"2 missing: {bias}, {offset};" in message
    assert f"1 without a place: {QUERY.replace('kernel', 'bias')};" in message
    assert f"1 of another shape: {QUERY} (8, 8), not (8, 2, 4)." in message
    assert "\n" not in message
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"output_bias": True}, "1 weights that no tensor is for: output_embedding/bias"),
        ({"norm_place": "last"}, "4 without a place: decoder_layer/output_normalization/beta"),
    ],
    ids=["a weight too many", "a weight too few"],
)
def test_a_model_of_another_kind_is_refused(settings, fault):
    with pytest.raises(UserError, match=fault):
        load_arrays(build_model(dataclasses.replace(CONFIG, **settings)), draw_arrays())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda arrays: arrays.pop(QUERY), f"among them {QUERY} of 3 dimensions.*decoder_layer/.* and others"),
        (lambda arrays: arrays.update({QUERY: np.zeros([8, 8])}), f"{QUERY} of 3 dimensions.*one with 2"),
        (lambda arrays: arrays.clear(), "embedding_lookup/embeddings of 2 dimensions"),
    ],
    ids=["missing", "flat", "nothing"],
)
def test_tensors_of_something_else_are_refused(change, fault):
    arrays = draw_arrays()
    change(arrays)
    with pytest.raises(UserError, match=fault):
        config_from_arrays(arrays)
