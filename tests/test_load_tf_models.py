"""Checkpoints of the TensorFlow Models: their layouts, what is wrong with them, and parity with the peer itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tf_llm
from tf_llm.contracts import UserError

TESTS = Path(__file__).resolve().parent
BENCHMARK = TESTS.parent / "examples" / "benchmarks" / "parity_tf_models.py"
LENGTHS = {"source_length": 16, "target_length": 16}


def list_tensors():
    """{key: array} of a checkpoint as the official trainer wrote it, two small layers and Adam, with random numbers."""
    random, tensors = np.random.default_rng(1), {}
    for line in (TESTS / "tf_models_checkpoint.txt").read_text(encoding="utf-8").splitlines():
        key, dtype, *shape = line.split()
        shape = [int(size) for size in shape]
        tensors[key] = np.array(b"") if dtype == "string" else random.normal(size=shape).astype(dtype)
    return tensors


def write_checkpoint(prefix, tensors):
    """Writes any keys at all, which objects with attributes could not."""
    parts = [""] * len(tensors)
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=list(tensors), shape_and_slices=parts, tensors=list(tensors.values())
    )
    return prefix


def without_the_trainer(key):
    return key.startswith("model/") and "OPTIMIZER" not in key


LAYOUTS = {
    "trainer": lambda tensors: tensors,
    "model": lambda tensors: {key: tensors[key] for key in tensors if without_the_trainer(key)},
    "save_weights": lambda tensors: {key[6:]: tensors[key] for key in tensors if without_the_trainer(key)},
}


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_checkpoint_becomes_a_model(layout, tmp_path):
    tensors = list_tensors()
    model = tf_llm.from_tf_models(write_checkpoint(tmp_path / "ckpt-7", LAYOUTS[layout](tensors)), **LENGTHS)
    config = model.config
    assert (config.num_layers, config.decoder_layers, config.num_heads, config.d_ff) == (2, 2, 4, 64)
    assert (config.vocabulary_size, config.d_model, config.source_length) == (100, 32, 16)
    weights = {weight.path: np.asarray(weight) for weight in model.trainable_weights}
    for key, path in (
        ("model/embedding_lookup/embeddings", "table/embeddings"),
        ("model/decoder_layer/decoder_layers/1/output_layer_norm/beta", "decoder_1_feed_forward_norm/beta"),
        ("model/encoder_layer/output_normalization/gamma", "encoder_norm/gamma"),
    ):
        np.testing.assert_array_equal(weights[path], tensors[f"{key}/.ATTRIBUTES/VARIABLE_VALUE"])


def test_a_folder_means_its_newest_checkpoint(tmp_path):
    tensors = LAYOUTS["model"](list_tensors())
    write_checkpoint(tmp_path / "ckpt-7", tensors)
    tensors["model/embedding_lookup/embeddings/.ATTRIBUTES/VARIABLE_VALUE"] *= 2
    newest = tf_llm.from_tf_models(write_checkpoint(tmp_path / "ckpt-8", tensors), **LENGTHS)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "ckpt-8"\n', encoding="utf-8")  # as TensorFlow does
    table = tf_llm.from_tf_models(tmp_path, **LENGTHS).get_layer("input_embedding").get_layer("table").embeddings
    np.testing.assert_array_equal(table, newest.get_layer("input_embedding").get_layer("table").embeddings)


def test_what_is_no_such_checkpoint_is_a_one_line_error(tmp_path):
    def received(path, pattern):
        with pytest.raises(UserError, match=pattern) as error:
            tf_llm.from_tf_models(path, **LENGTHS)
        assert "\n" not in str(error.value)

    received(tmp_path / "missing", "expected a TensorFlow checkpoint at .*missing.*Check the path")
    received(tmp_path, "expected a TensorFlow checkpoint")
    (tmp_path / "text.index").write_text("not a checkpoint", encoding="utf-8")
    received(tmp_path / "text", "expected a TensorFlow checkpoint")
    write_checkpoint(tmp_path / "cut", list_tensors())
    data = tmp_path / "cut.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    received(tmp_path / "cut", "expected a TensorFlow checkpoint")
    write_checkpoint(tmp_path / "other", {"model/dense/kernel/.ATTRIBUTES/VARIABLE_VALUE": np.zeros([2, 2])})
    received(tmp_path / "other", r"expected the tensors of a Seq2SeqTransformer.*\['dense/kernel'\]")


def run_benchmark(*arguments):
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(BENCHMARK), "--quick", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_without_the_peer_the_benchmark_says_how_to_get_it(tmp_path):
    result = run_benchmark(f"--python={tmp_path}/python")
    assert result.returncode == 2, result.stderr
    assert f"could not run: {tmp_path}/python does not run" in result.stdout
    assert "pip install tf-models-official tf_keras" in result.stdout


def test_parity_with_the_tensorflow_models(tmp_path):
    """Logits, losses, greedy and beam search; then the checkpoint of a trainer, which holds the same model and more."""
    python = os.environ.get("TF_LLM_TF_MODELS_PYTHON")
    if not python:
        pytest.skip(
            "needs tf-models-official in an environment of its own; name its Python in TF_LLM_TF_MODELS_PYTHON "
            "(examples/benchmarks/parity_tf_models.py says how to make one)"
        )
    result = run_benchmark(f"--python={python}", f"--folder={tmp_path}")
    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout.splitlines()[-1])["holds"]
    alone, trained = (tf_llm.from_tf_models(tmp_path / name, **LENGTHS) for name in ("model", "trainer-1"))
    for one, other in zip(alone.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
