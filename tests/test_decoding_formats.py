"""LiteRT and ONNX: what is written, and what is refused. The benchmark export_formats.py runs what is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from tf_llm.contracts import UserError
from tf_llm.decoding.formats import draw_parts, export_lite, export_onnx
from tf_llm.decoding.generator import Generator
from tf_llm.model.config import ModelConfig
from tf_llm.model.encoder_decoder import build_model
from tf_llm.text.tokenizers import CharTokenizer, load_tokenizer

REPOSITORY = Path(__file__).resolve().parent.parent
SHAPE = {"vocabulary_size": 40, "source_length": 6, "target_length": 5, "num_layers": 1, "num_heads": 2, "d_model": 16}


def build_generator(precision="float32", **settings):
    keras.utils.set_random_seed(3)
    model = build_model(ModelConfig(**SHAPE | {"d_ff": 32} | settings), precision)
    for variable in model.trainable_variables:
        variable.assign(variable + keras.random.normal(variable.shape, stddev=0.3, dtype="float32"))
    return Generator(model, CharTokenizer([*"abcdefghijklmnopqrstuvwxyz .,!?"]), "request")


def test_other_runtimes_compute_what_keras_computes():
    for package, extra in (("ai_edge_litert", "litert"), ("onnxruntime", "onnx"), ("tf2onnx", "onnx")):
        pytest.importorskip(package, reason=f"needs {package}: pip install 'tf_llm[{extra}]'")
    command = [sys.executable, str(REPOSITORY / "examples" / "benchmarks" / "export_formats.py"), "--quick"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    figure = json.loads(result.stdout.splitlines()[-1])
    assert figure["name"] == "export_formats" and figure["holds"] and 0 < figure["value"] < 1e-5
    rows = [line.split()[:2] for line in result.stdout.splitlines()[1:-1]]
    assert rows == [[model, suffix] for model in ("article", "t5") for suffix in ("tflite", "onnx")]


def test_the_window_says_what_the_generator_says():
    generate = build_generator(context="sequence")
    prompts = ["abc", "", "fghij klm"]
    source = generate.pad_sources([generate.frame_ids(generate.tokenizer.encode(prompt)) for prompt in prompts], 3)
    said = draw_parts(generate)["window"](source)["said_ids"].numpy()
    assert [generate.tokenizer.decode(ids) for ids in said] == generate(prompts)


def test_what_cannot_be_converted_is_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"computes in float32. Received: mixed_bfloat16. Load it with precision="):
        export_lite(build_generator("mixed_bfloat16"), tmp_path / "new")
    with pytest.raises(UserError, match=r"another architecture than 'rnn', .* to tflite. Received: 'rnn'. Write a Sav"):
        export_lite(build_generator(architecture="rnn"), tmp_path / "new")
    generate = build_generator()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tf2onnx", None)
        with pytest.raises(UserError, match=r'expected tf2onnx for ONNX.*pip install "tf_llm\[onnx\]"'):
            export_onnx(generate, tmp_path / "new")
    monkeypatch.setattr(tf.lite.TFLiteConverter, "from_concrete_functions", lambda *_: 1 / 0)
    with pytest.raises(UserError, match=r"whose encoder can be converted to tflite. Received: .*division by zero"):
        export_lite(generate, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_the_files_have_the_tokenizer_beside_them(tmp_path, monkeypatch):
    generate = build_generator()
    monkeypatch.setattr("tf_llm.decoding.formats._convert_to_lite", lambda *_: b"a file")
    folder = export_lite(generate, str(tmp_path / "new"))
    assert sorted(path.name for path in folder.iterdir()) == [
        *("encoder.tflite", "step.tflite", "tokenizer.json", "window.tflite")
    ]
    assert load_tokenizer(folder / "tokenizer.json").vocabulary == generate.tokenizer.vocabulary
