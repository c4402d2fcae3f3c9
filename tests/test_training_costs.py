"""Parameters against built models, operations against those of the graph, memory against what must be held."""

import dataclasses
import doctest
import math

import keras
import pytest
import tensorflow as tf

from tf_llm.contracts import DECODER_IDS, SOURCE_IDS
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.model.sizes import SIZES, build_size, count_parameters
from tf_llm.recipes import RECIPES
from tf_llm.training import costs
from tf_llm.training.costs import PARTS, STATE_COPIES, count_activations, count_flops, count_memory, count_state
from tf_llm.training.optimizers import OPTIMIZERS, TrainingConfig, build_optimizer

SMALL = ModelConfig(
    vocabulary_size=50, source_length=6, target_length=5, num_layers=2, num_decoder_layers=1, num_heads=4, d_model=8,
    d_ff=12,
)  # fmt: skip
SEQUENCE = dataclasses.replace(SMALL, context="sequence", input_norm="none", output_l2=0.0)
VARIANTS = {
    "article": SMALL,
    "sequence": SEQUENCE,
    "grouped": dataclasses.replace(SEQUENCE, num_key_value_heads=2, d_head=3, activation="swiglu"),
    "tied": dataclasses.replace(SEQUENCE, embeddings="all", output_scale=True, norm="rms", positions="relative"),
    "own_tables": dataclasses.replace(SEQUENCE, embeddings="none", output_bias=False, positions="rotary"),
    "norms_last": dataclasses.replace(SMALL, norm="batch_layer", norm_place="last", input_norm="rms"),
    "no_biases": dataclasses.replace(SEQUENCE, feed_forward_bias=False, activation="gated_gelu", positions="none"),
    "convolution": dataclasses.replace(SEQUENCE, short_convolution=3, positions="sinusoidal"),
    "packed": dataclasses.replace(SEQUENCE, packed=True),
    "rnn": dataclasses.replace(SMALL, architecture="rnn", d_model=12, target_length=6),
    "cnn": dataclasses.replace(SEQUENCE, architecture="cnn", reach=3, norm="rms"),
}
variants = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)


def test_examples_in_docstrings():
    result = doctest.testmod(costs)
    assert result.attempted and not result.failed


# === Parameters ===


@variants
def test_parameters_are_those_of_the_built_model_part_by_part(config):
    model = build_model(config)
    counted = costs.count_parameters(config)
    assert sum(counted.values()) == sum(math.prod(variable.shape) for variable in model.trainable_variables)
    found, seen = dict.fromkeys(PARTS, 0), set()
    for part in (*PARTS, "target_embedding"):
        layer = next((layer for layer in model.layers if layer.name == part), None)
        for variable in layer.trainable_variables if layer else []:
            if id(variable) not in seen:  # a shared table belongs to the part that comes first
                seen.add(id(variable))
                found[part.replace("target", "input")] += math.prod(variable.shape)
    assert found == counted


@pytest.mark.parametrize("name", ["base", "large", "transformer_big", "t5_small", "t5_v1_1_small"])
def test_named_sizes_have_the_parameters_that_keras_counts(name):
    assert sum(costs.count_parameters(SIZES[name]).values()) == count_parameters(SIZES[name])


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_the_parameters_that_keras_counts(name):
    config = RECIPES[name]().model
    assert sum(costs.count_parameters(config).values()) == count_parameters(config)


@pytest.mark.parametrize("name", STATE_COPIES)
@pytest.mark.parametrize("variant", ["tied", "rnn"])
def test_the_state_is_that_of_the_built_optimizer(name, variant):
    model = build_model(VARIANTS[variant])
    optimizer = build_optimizer(TrainingConfig(optimizer=name))
    optimizer.build(model.trainable_variables)
    scalars = 2  # the number of the step, and the rate
    assert count_state(VARIANTS[variant], name) == sum(math.prod(v.shape) for v in optimizer.variables) - scalars


def test_every_optimizer_is_known_and_an_unknown_one_lists_them():
    assert STATE_COPIES.keys() == OPTIMIZERS.keys()
    with pytest.raises(ValueError, match=r"one of \['adafactor', .*'sgd'\]\. Received: 'adamm'"):
        count_state(SMALL, "adamm")


# === Floating-point operations ===


def count_graph_flops(graph, loop_steps):
    """Of all matrix products in a graph; what is in a loop counts `loop_steps` times."""
    flops = 0
    for op in graph.get_operations():
        shapes = [tuple(tensor.shape) for tensor in op.inputs]
        if op.type in ("MatMul", "BatchMatMulV2"):
            inner = shapes[0][-2 if op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x") else -1]
            flops += 2 * math.prod(op.outputs[0].shape) * inner
        elif op.type == "Einsum":
            terms = op.get_attr("equation").decode().split("->")[0].split(",")
            sizes = dict(pair for term, shape in zip(terms, shapes, strict=True) for pair in zip(term, shape, strict=True))
            flops += 2 * math.prod(sizes.values())
        elif op.type == "Conv2D":
            flops += 2 * math.prod(op.outputs[0].shape) * math.prod(shapes[1][:-1])
        elif op.type in ("Conv2DBackpropInput", "Conv2DBackpropFilter"):  # each input meets each weight once
            kernel = shapes[1] if op.type.endswith("Input") else tuple(op.outputs[0].shape)
            flops += 2 * math.prod(shapes[2][:-1]) * math.prod(kernel)
        elif op.type in ("While", "StatelessWhile"):
            body = graph._get_function(op.get_attr("body").name).graph
            flops += loop_steps * count_graph_flops(body, loop_steps)
    return flops


def trace(config, differentiate, batch=3):
    """The graph of a forward pass, or of the gradients of all weights."""
    model = build_model(config)

    def forward(features):
        logits = model(features, training=True)
        return tf.reduce_sum(logits * logits)

    def backward(features):
        with tf.GradientTape() as tape:
            loss = forward(features)
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    features = {name: tf.TensorSpec((batch, *shape[1:]), tf.int32) for name, shape in model.input_shape.items()}
    return tf.function(backward if differentiate else forward).get_concrete_function(features).graph


@variants
def test_operations_are_those_of_the_graph(config):
    """To the last one, for the matrix products: the promise of 2 % leaves room for what a compiler rearranges."""
    expected = 3 * sum(count_flops(config).values())
    assert count_graph_flops(trace(config, differentiate=False), config.source_length) * 3 == expected
    if config.architecture != "rnn":  # the gradients of a loop are another loop, which this count does not follow
        assert count_graph_flops(trace(config, differentiate=True), 0) == expected
