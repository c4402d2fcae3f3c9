"""Parameters against built models, operations against those of the graph, memory against what must be held."""

import dataclasses
import doctest
import math

import pytest
import tensorflow as tf

from tf_llm.contracts import UserError
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.model.sizes import SIZES, build_size, count_parameters
from tf_llm.recipes import RECIPES
from tf_llm.training import costs
from tf_llm.training.costs import PARTS, STATE_COPIES, count_flops, count_memory, count_state
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
    "two_vocabularies": dataclasses.replace(SEQUENCE, embeddings="none", target_vocabulary_size=37),
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
@pytest.mark.parametrize(("variant", "ema_decay"), [("tied", 0.0), ("rnn", 0.99)])
def test_the_state_is_that_of_the_built_optimizer(name, variant, ema_decay):
    model = build_model(VARIANTS[variant])
    optimizer = build_optimizer(TrainingConfig(optimizer=name, ema_decay=ema_decay))
    optimizer.build(model.trainable_variables)
    scalars = 2  # the number of the step, and the rate
    counted = count_state(VARIANTS[variant], name, averages=ema_decay > 0)
    assert counted == sum(math.prod(v.shape) for v in optimizer.variables) - scalars


def test_every_optimizer_is_known_and_an_unknown_one_lists_them():
    assert STATE_COPIES.keys() == OPTIMIZERS.keys()
    with pytest.raises(UserError, match=r"one of \['adafactor', .*'sgd'\]\. Received: 'adamm'"):
        count_state(SMALL, "adamm")


# === Floating-point operations ===

BATCH = 3

CALLS = {"While": "body", "StatelessWhile": "body", "PartitionedCall": "f", "StatefulPartitionedCall": "f"}


def list_needed(graph):
    """The operations that a graph's results come from. Keras runs a recurrent cell once in front of its loop, to see
    the shape of what it returns, which is all that anybody asks of it."""
    needed, open_ends = set(), [tensor.op for tensor in graph.outputs]
    while open_ends:
        op = open_ends.pop()
        if op not in needed:
            needed.add(op)
            open_ends += [tensor.op for tensor in op.inputs] + op.control_inputs
    return needed


def count_graph_flops(graph, loop_steps):
    """Of all matrix products in a graph and in what it calls; what is in a loop counts `loop_steps` times."""
    flops = 0
    for op in list_needed(graph):
        shapes = [tuple(tensor.shape) for tensor in op.inputs]
        if op.type in ("MatMul", "BatchMatMulV2"):
            is_turned = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
            flops += 2 * math.prod(op.outputs[0].shape) * shapes[0][-2 if is_turned else -1]
        elif op.type == "Einsum":
            letters = op.get_attr("equation").decode().split("->")[0].replace(",", "")
            flops += 2 * math.prod(
                dict(zip(letters, [size for shape in shapes for size in shape], strict=True)).values()
            )
        elif op.type == "Conv2D":
            flops += 2 * math.prod(op.outputs[0].shape) * math.prod(shapes[1][:-1])
        elif op.type in ("Conv2DBackpropInput", "Conv2DBackpropFilter"):  # every output position meets every weight
            kernel = shapes[1] if op.type == "Conv2DBackpropInput" else op.outputs[0].shape
            flops += 2 * math.prod(shapes[2][:-1]) * math.prod(kernel)
        elif op.type in CALLS:
            called = graph._get_function(op.get_attr(CALLS[op.type]).name).graph
            flops += count_graph_flops(called, loop_steps) * (loop_steps if CALLS[op.type] == "body" else 1)
    return flops


def trace(config, differentiate):
    """The graph of a forward pass, or of the gradients of all weights."""
    model = build_model(config)

    def forward(features):
        logits = model(features, training=True)
        return tf.reduce_sum(logits * logits)

    def backward(features):
        with tf.GradientTape() as tape:
            loss = forward(features)
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    features = {column.name: tf.TensorSpec((BATCH, *column.shape[1:]), tf.int32) for column in model.inputs}
    return tf.function(backward if differentiate else forward).get_concrete_function(features).graph


@variants
def test_operations_are_those_of_the_graph(config):
    """To the last one, in the matrix products: 2 % were allowed, for what a compiler might rearrange."""
    row = sum(count_flops(config).values())
    assert count_graph_flops(trace(config, differentiate=False), config.source_length) == BATCH * row / 3
    if config.architecture != "rnn":  # the gradients of a loop are a loop of another kind
        assert count_graph_flops(trace(config, differentiate=True), 0) == BATCH * row


def test_a_vector_for_a_context_saves_its_keys_and_its_attention():
    vector, sequence = (count_flops(dataclasses.replace(SEQUENCE, context=kind)) for kind in ("vector", "sequence"))
    fewer, target, width = SEQUENCE.source_length - 1, SEQUENCE.target_length, SEQUENCE.d_model
    assert sequence["encoder"] == vector["encoder"]
    assert sequence["decoder"] - vector["decoder"] == 6 * fewer * 2 * width * width + 12 * target * fewer * width


def test_a_decoder_takes_six_operations_a_weight_and_token():
    config = build_size("t5_v1_1_xl", source_length=64, target_length=64)
    decoder, weights = count_flops(config)["decoder"], costs.count_parameters(config)["decoder"]
    assert decoder / (6 * weights * config.target_length) == pytest.approx(1, abs=0.02)  # short rows: little attention


# === Memory ===


def total(config, optimizer="adam", precision="float32", rows=4):
    return sum(count_memory(config, optimizer, precision, rows).values())


@pytest.mark.parametrize(
    "field", ["source_length", "target_length", "vocabulary_size", "num_layers", "d_model", "d_ff"]
)
@variants
def test_more_of_anything_needs_more_memory(config, field):
    if config.architecture == "transformer" or field != "d_ff":
        assert total(dataclasses.replace(config, **{field: 2 * getattr(config, field)})) > total(config)
    assert total(config, rows=5) > total(config)
    assert total(config, precision="mixed_bfloat16", rows=400) < total(config, rows=400)
    assert (
        total(config, "gradient_descent") < total(config, "sgd") < total(config, "adam") < total(config, "adam", rows=5)
    )


@variants
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_memory_holds_at_least_what_must_be_there(config, precision):
    model = build_model(config, precision)
    memory = count_memory(config, "adam", precision, rows=3)
    weights = 4 * sum(math.prod(variable.shape) for variable in model.trainable_variables)
    assert memory["weights"] == weights and memory["optimizer"] == 2 * weights and memory["gradients"] >= weights
    assert memory["logits"] == 3 * 2 * 4 * math.prod(model.output_shape[1:])
    positions = config.num_layers * config.source_length + config.decoder_layers * config.target_length
    sums = 3 * positions * config.d_model * (4 if precision == "float32" else 2)  # what blocks hand on to each other
    assert memory["activations"] > 3 * sums


# What XLA for TPU (libtpu 0.0.52) takes for a step of `JaxStep`, in bytes: what it allocates, or what is alive at once,
# whichever is more. `python examples/benchmarks/tpu_compiles.py` measures more of them; 2026-11-25.
XLA_MEMORY = {
    "tiny": (build_size("tiny"), "adam", 16, "mixed_bfloat16", 128_000_000),
    "small, float32": (build_size("small"), "adam", 32, "float32", 845_000_000),
    "small, v6e": (build_size("small"), "adam", 32, "mixed_bfloat16", 567_000_000),
    "base": (build_size("base"), "adamw", 16, "mixed_bfloat16", 3_016_000_000),
    "t5_small": (build_size("t5_small"), "adafactor", 16, "mixed_bfloat16", 3_060_000_000),
    "transformer_base": (build_size("transformer_base"), "adam_transformer", 16, "mixed_bfloat16", 2_690_000_000),
    "article": (RECIPES["article"]().model, "adam", 16, "mixed_bfloat16", 192_000_000),
    "best": (RECIPES["best"]().model, "adam", 16, "mixed_bfloat16", 108_000_000),
}


@pytest.mark.parametrize("config, optimizer, rows, precision, taken", XLA_MEMORY.values(), ids=XLA_MEMORY)
def test_memory_is_no_less_than_xla_takes_and_no_more_than_three_tenths_above(
    config, optimizer, rows, precision, taken
):
    planned = sum(count_memory(config, optimizer, precision, rows, compiled=True).values())
    assert 1.0 <= planned / taken <= 1.3


@pytest.mark.parametrize("name", ["small", "t5_small", "transformer_base"])
def test_a_compiled_step_keeps_less(name):
    eager, compiled = (count_memory(build_size(name), "adam", "float32", 4, compiled=each) for each in (False, True))
    assert compiled["logits"] < eager["logits"] and compiled["activations"] < eager["activations"]
    assert all(compiled[what] == eager[what] for what in ("weights", "optimizer", "gradients"))


def test_running_means_of_the_weights_take_half_as_much_as_adam():
    plain, averaged = (count_memory(SMALL, "adam", "float32", 1, averages=each) for each in (False, True))
    assert averaged == {**plain, "optimizer": 1.5 * plain["optimizer"]}


def test_accumulated_gradients_take_room_of_their_own():
    plain, accumulated = (count_memory(SMALL, "adam", "float32", 1, accumulates) for accumulates in (False, True))
    assert accumulated["gradients"] == 2 * plain["gradients"]
    assert {**accumulated, "gradients": 0} == {**plain, "gradients": 0}
