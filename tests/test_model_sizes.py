"""Models by name have exactly the parameters that were published."""

import dataclasses
import doctest
import math

import pytest

from tf_llm.model import sizes
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.model.hugging_face import config_to_hugging_face, list_tensors
from tf_llm.model.sizes import SIZES, build_size, count_parameters

T5_COUNTS = {
    "t5_small": 60_506_624,
    "t5_base": 222_903_552,
    "t5_large": 737_668_096,
    "t5_3b": 2_851_598_336,
    "t5_v1_1_small": 76_961_152,
    "t5_v1_1_base": 247_577_856,
    "t5_v1_1_large": 783_150_080,
    "t5_v1_1_xl": 2_849_757_184,
}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name, expected",
    [("transformer_base", 61_362_176), ("transformer_big", 210_804_736), ("t5_v1_1_xl", T5_COUNTS["t5_v1_1_xl"])],
)
def test_built_models_have_as_many_parameters_as_published(name, expected):
    assert count_parameters(SIZES[name]) == expected


@pytest.mark.parametrize("name", T5_COUNTS)
def test_t5_has_as_many_parameters_as_published(name):
    """By the shapes of its tensors; that models have these is what loading checks."""
    assert sum(math.prod(shape) for shape in list_tensors(SIZES[name]).values()) == T5_COUNTS[name]


@pytest.mark.parametrize("name", T5_COUNTS)
def test_t5_has_the_tensors_of_transformers(name):
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'tf_llm[peers]'")
    transformers = pytest.importorskip("transformers", reason="needs transformers: pip install 'tf_llm[peers]'")
    settings = config_to_hugging_face(SIZES[name])
    copies = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    copies |= {"lm_head.weight"} if settings["tie_word_embeddings"] else set()
    with torch.device("meta"):
        theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**settings)).state_dict()
    assert {key: tuple(value.shape) for key, value in theirs.items() if key not in copies} == list_tensors(SIZES[name])


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(vocabulary_size=50),
        build_size("tiny", num_decoder_layers=1, num_key_value_heads=2),
        build_size("t5_small", d_model=60, d_ff=90, vocabulary_size=50, num_layers=3, num_decoder_layers=1),
    ],
    ids=["article", "tiny", "t5"],
)
def test_counting_takes_no_memory_and_leaves_no_trace(config):
    counted = count_parameters(config)
    model = build_model(config)  # a variable left without a value would get one now, or fail
    assert counted == sum(math.prod(variable.shape) for variable in model.trainable_variables)


@pytest.mark.parametrize("name", ["tiny", "small", "base", "large"])
def test_our_sizes_grow(name):
    names = ["tiny", "small", "base", "large"]
    shapes = [(SIZES[size].num_layers, SIZES[size].d_model, SIZES[size].d_ff) for size in names]
    assert shapes == sorted(shapes)
    config = SIZES[name]
    assert (config.norm, config.positions, config.activation, config.context) == ("rms", "rotary", "swiglu", "sequence")
    assert config.d_ff % 32 == 0 and config.d_ff >= 8 / 3 * config.d_model


def test_a_size_takes_changes_and_unknown_names_list_the_known():
    assert build_size("t5_base", target_length=7) == dataclasses.replace(SIZES["t5_base"], target_length=7)
    with pytest.raises(ValueError, match=r"size expected one of \['base', .*'transformer_big'\]\. Received: 'huge'"):
        build_size("huge")


def test_examples_in_docstrings():
    result = doctest.testmod(sizes)
    assert result.attempted and not result.failed
