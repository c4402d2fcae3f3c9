"""Do LiteRT and onnxruntime compute what Keras computes? The encoder, one step, and the whole loop.

    python examples/benchmarks/export_formats.py            about 3 minutes on 2 cores
    python examples/benchmarks/export_formats.py --quick    the article's model and T5's, about a minute

Small models with random weights, which together have most of what a `ModelConfig` may choose, are written for both
formats in float32 (`tf_llm.export_lite`, `tf_llm.export_onnx`) and run for three rows by ai-edge-litert and by
onnxruntime. The columns: the largest difference from Keras in what the encoder and one step put out (keys, values,
logits), as a share of the largest number of the same output; how many of the rows are said in other words by the whole
loop; the size of the three files; and the seconds of writing them. The goal is 1e-5, and no row in other words.

Needs `pip install "tf_llm[litert,onnx]"`.
"""

import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets at length when it is imported
import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging

import tf_llm
from tf_llm.contracts import END_ID, PAD_ID, SOURCE_IDS
from tf_llm.decoding.formats import draw_parts
from tf_llm.decoding.generator import Generator
from tf_llm.model.config import ModelConfig
from tf_llm.text.tokenizers import CharTokenizer

try:
    import onnxruntime
    import tf2onnx  # noqa: F401, for what it says where it is absent
    from ai_edge_litert.interpreter import Interpreter
except ImportError as error:
    print(f'could not run: {error}; pip install "tf_llm[litert,onnx]"')
    sys.exit(2)

GOAL = 1e-5
SHAPE = {"vocabulary_size": 100, "source_length": 16, "target_length": 12, "num_layers": 2, "num_heads": 4}
SHAPE |= {"d_model": 64, "d_ff": 128}
RMS = {"context": "sequence", "norm": "rms", "input_norm": "none"}
MODELS = {
    "article": {},
    "t5": RMS | {"positions": "relative", "activation": "gated_gelu", "attention_scale": False},
    "best": RMS | {"positions": "rotary", "activation": "swiglu", "num_key_value_heads": 2, "short_convolution": 3},
    "cnn": {"architecture": "cnn", "context": "sequence"},
}
ROWS = ((5, 6, 7, END_ID), (8, END_ID), (*range(3, 18), END_ID))

_QUICK = flags.DEFINE_bool("quick", False, "Two of the models.")


def build_generator(settings):
    """A generator with random weights that says many different things.

    Where queries are not divided by √K, those of T5 are smaller by as much, and so are these: else scores of hundreds
    would make much of the last bit of each, in which no two runtimes agree.
    """
    keras.utils.set_random_seed(3)
    model = tf_llm.build_model(ModelConfig(**SHAPE | settings))
    for variable in model.trainable_variables:
        is_large = "/query/" in variable.path and not model.config.attention_scale
        stddev = 0.3 / math.sqrt(model.config.head_size) if is_large else 0.3
        variable.assign(variable + keras.random.normal(variable.shape, stddev=stddev, dtype="float32"))
    return Generator(model, CharTokenizer([chr(code) for code in range(32, 32 + 97)]), "request")


def run_lite(path, inputs):
    """What LiteRT makes of those of the inputs that a file asks for."""
    interpreter = Interpreter(model_path=str(path))
    (names,) = interpreter.get_signature_list().values()
    return interpreter.get_signature_runner()(**{name: inputs[name] for name in names["inputs"]})


def run_onnx(path, inputs):
    """The same by onnxruntime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(None, {each.name: inputs[each.name] for each in session.get_inputs()})
    return dict(zip(names, found, strict=True))


FORMATS = {"tflite": (tf_llm.export_lite, run_lite), "onnx": (tf_llm.export_onnx, run_onnx)}


def ask_keras(generate):
    """Inputs of all parts, and what each part makes of them: name -> {output: array}."""
    random, parts = np.random.default_rng(0), draw_parts(generate)
    source = np.array([[*row, *[PAD_ID] * (SHAPE["source_length"] - len(row))] for row in ROWS], "int32")
    read = parts["encoder"](tf.constant(source))
    cache = {name: tensor.shape for name, tensor in generate.model.empty_cache(len(ROWS)).items()}
    cache = {name: random.normal(size=shape).astype("float32") for name, shape in cache.items()}
    inputs = {"token_ids": np.array([[5], [6], [7]], "int32"), "position": np.array(2, "int32"), **cache}
    inputs |= {name: tensor.numpy() for name, tensor in read.items()}
    stepped = parts["step"]({name: tf.constant(value) for name, value in inputs.items()})
    answers = {"encoder": read, "step": stepped, "window": parts["window"](tf.constant(source))}
    return {SOURCE_IDS: source, **inputs}, tf.nest.map_structure(np.array, answers)


def measure(found, expected):
    """The largest difference of any output, as a share of it; NaN where one is missing, or has another shape."""
    if found.keys() != expected.keys() or any(found[key].shape != expected[key].shape for key in expected):
        return np.nan
    sizes = {key: max(np.abs(value.astype("float64")).max(), 1e-9) for key, value in expected.items()}
    return max(np.abs(found[key].astype("float64") - expected[key]).max() / sizes[key] for key in expected)


def main(_):
    logging.set_verbosity(logging.WARNING)
    worst, others = 0.0, 0
    print(f"{'model':8} {'format':8} {'encoder':>8} {'step':>8} {'other words':>12} {'MB':>6} {'seconds':>8}")
    with tempfile.TemporaryDirectory() as temporary:
        for name, settings in list(MODELS.items())[: 2 if _QUICK.value else None]:
            generate = build_generator(settings)
            inputs, answers = ask_keras(generate)
            for suffix, (export, run) in FORMATS.items():
                begin = time.perf_counter()
                folder = export(generate, Path(temporary, name, suffix))
                seconds = time.perf_counter() - begin
                found = {part: run(folder / f"{part}.{suffix}", inputs) for part in answers}
                apart = [measure(found[part], answers[part]) for part in ("encoder", "step")]
                said, expected = found["window"]["said_ids"], answers["window"]["said_ids"]
                differing = int((said != expected).any(axis=1).sum())
                size = sum(path.stat().st_size for path in folder.glob(f"*.{suffix}")) / 1e6
                cells = " ".join(f"{each:8.0e}" for each in apart)
                words = f"{differing} of {len(ROWS)}"
                print(f"{name:8} {suffix:8} {cells} {words:>12} {size:6.2f} {seconds:8.1f}", flush=True)
                worst, others = max([worst, *apart], key=lambda each: (np.isnan(each), each)), others + differing
    holds = bool(worst <= GOAL and not others)
    result = {
        "name": "export_formats",
        "value": float(f"{worst:.1e}"),
        "goal": GOAL,
        "unit": "relative difference",
    }
    print(json.dumps(result | {"holds": holds}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
