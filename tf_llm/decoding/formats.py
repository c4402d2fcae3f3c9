"""The parts of a generator as files for LiteRT (phones, microcontrollers) and for ONNX (onnxruntime, browsers).

Neither format has the ops on strings that a SavedModel has (export.py), so whoever runs these files makes ids of a text
and text of ids: `tokenizer.json` beside them is for `text.tokenizers.load_tokenizer`, and frames.py says how a
prompt's ids become a source. Models of the architecture "rnn" are refused: of their loops over time LiteRT's converter
says that it does not take them, and tf2onnx makes what onnxruntime stumbles over. What an export of either format
writes:

    encoder   source_ids int32 [N, S] -> what the steps read of it: context_mask, context_keys_0, context_values_0, …
    step      that, token_ids int32 [N, 1], position int32 [], and the cache keys_0, values_0, … (zeros at first)
              -> logits [N, 1, V], and the cache as new_keys_0, new_values_0, …
    window    source_ids [N, S] -> said_ids int32 [N, T]: the whole loop, the likeliest token each time; END_ID where a
              row ended, PAD_ID behind it

The number of rows may be any. A file of ONNX holds at most 2 GB.

Glossary: N rows, S source length, T target length, V vocabulary.
"""

import contextlib
import logging
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_llm.contracts import SOURCE_IDS, UserError
from tf_llm.decoding import strategies
from tf_llm.files import make_folder

OPSET = 18  # version of the ops of ONNX; onnxruntime has known it since 1.14


def export_lite(generate, folder):
    """Writes `encoder.tflite`, `step.tflite` and `window.tflite`, with TensorFlow's own converter.

    Args:
        generate: a `Generator` whose model computes in float32.
        folder: is made; it may exist if nothing is in it.

    Returns:
        The folder, a `Path`.

    Raises:
        UserError: the folder holds something, or cannot be written; or the model computes in another precision, or is
            none that the converter takes.
    """
    return _write(generate, folder, "tflite", _convert_to_lite)


def export_onnx(generate, folder):
    """Writes `encoder.onnx`, `step.onnx` and `window.onnx`, with tf2onnx. See `export_lite`.

    Raises:
        UserError: as `export_lite`; or tf2onnx is not installed.
    """
    try:
        import tf2onnx  # noqa: F401, for what it says where it is absent
    except ImportError as error:
        raise UserError(f'expected tf2onnx for ONNX. Received: {error}. pip install "tf_llm[onnx]"') from error
    return _write(generate, folder, "onnx", _convert_to_onnx)


def draw_parts(generate):
    """The graphs that are converted: name -> tf.function with an input signature."""
    model, config = generate.model, generate.model.config
    source = tf.TensorSpec([None, config.source_length], tf.int32, SOURCE_IDS)
    context = {
        name: tf.TensorSpec(tensor.shape, tensor.dtype, name)
        for name, tensor in generate.start.output.items()
        if name != "context"
    }
    cache = {
        name: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, name)
        for name, tensor in model.empty_cache(1).items()
    }
    token_ids, position = tf.TensorSpec([None, 1], tf.int32, "token_ids"), tf.TensorSpec([], tf.int32, "position")

    def read(source_ids):
        found = dict(generate.start(source_ids, training=False))
        del found["context"]  # the blocks have made their keys and values of it
        return found

    def step(inputs):
        inputs = dict(inputs)
        token_ids, position = inputs.pop("token_ids"), inputs.pop("position")
        logits, new = generate.bind_step({name: inputs[name] for name in context})(
            token_ids, position, {name: inputs[name] for name in cache}
        )
        return {"logits": logits} | {f"new_{name}": tensor for name, tensor in new.items()}

    def window(source_ids):
        rows, length = tf.shape(source_ids)[0], config.target_length
        step, talk = generate.bind_step(read(source_ids)), strategies.begin(model.empty_cache(rows), rows, length)
        return {"said_ids": strategies.advance(step, talk, strategies.Greedy(), length, seeds=None).said}

    inputs = {"token_ids": token_ids, "position": position, **context, **cache}
    return {
        "encoder": tf.function(read, input_signature=[source], autograph=False),
        "step": tf.function(step, input_signature=[inputs], autograph=False),
        "window": tf.function(window, input_signature=[source], autograph=False),
    }


def _write(generate, folder, suffix, convert):
    if generate.model.dtype_policy.name != "float32":
        raise UserError(
            f"expected a model that computes in float32. Received: {generate.model.dtype_policy.name}. Load it with "
            "precision='float32'"
        )
    if generate.model.config.architecture == "rnn":
        raise UserError(
            "expected a model of another architecture than 'rnn', whose loops over time cannot be converted to "
            f"{suffix}. Received: 'rnn'. Write a SavedModel"
        )
    with make_folder(folder) as partial:
        for name, graph in draw_parts(generate).items():
            try:
                content = convert(generate, graph)
            except Exception as error:  # whatever a converter raises: a dozen kinds
                raise UserError(
                    f"expected a model whose {name} can be converted to {suffix}. Received: an error of the converter, "
                    f"{' '.join(str(error).split())[:300]}. Choose other blocks or positions, or a SavedModel"
                ) from error
            (partial / f"{name}.{suffix}").write_bytes(content)
        generate.tokenizer.save(partial / "tokenizer.json")
    return Path(folder)


def _convert_to_lite(generate, graph):
    module = tf.Module()
    # Weights that the module does not list are taken for none, without a word, and the result is all NaN.
    module.weights = [variable.value for variable in generate.model.variables]
    module.graph = graph
    return tf.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()], module).convert()


def _convert_to_onnx(generate, graph):
    import tf2onnx

    handlers = {"XlaDynamicUpdateSlice": (_write_slice, [])}
    with _quiet("tf2onnx"):
        converted, _ = tf2onnx.convert.from_function(
            graph, graph.input_signature, opset=OPSET, custom_op_handlers=handlers
        )
    return converted.SerializeToString()


def _write_slice(context, node, name, _):
    """What `CacheWrite` does, which tf2onnx does not know: the cache but for one position, which is new."""
    cache, new, begins = node.input
    shape, outputs, dtypes = context.get_shape(cache), node.output, [context.get_dtype(node.output[0])]
    # The axis of the positions: T in the cache, 1 in what is new. (-1 stands for N.)
    axes = [axis for axis, (one, other) in enumerate(zip(shape, context.get_shape(new), strict=True)) if one != other]
    axis = axes[-1] if axes else 1
    context.remove_node(node.name)

    def hold(key, values):
        return context.make_const(f"{name}_{key}", np.array(values)).output[0]

    position = context.make_node("Slice", [begins, hold("from", [axis]), hold("to", [axis + 1])]).output[0]  # [1]
    places = np.arange(shape[axis], dtype="int32").reshape([-1 if i == axis else 1 for i in range(len(shape))])
    is_new = context.make_node("Equal", [hold("places", places), position]).output[0]
    context.make_node("Where", [is_new, new, cache], outputs=outputs, dtypes=dtypes, shapes=[shape])


@contextlib.contextmanager
def _quiet(name):
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
