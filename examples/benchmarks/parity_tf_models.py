r"""Does the transformer of the TensorFlow Models compute the same here, given the same weights?

    python examples/benchmarks/parity_tf_models.py            transformer-base, 61,362,176 parameters: a minute
    python examples/benchmarks/parity_tf_models.py --quick    two layers of width 32: 15 seconds

The peer is `official.nlp.modeling.models.Seq2SeqTransformer` of tf-models-official, which needs an environment of its
own (the Keras of before Keras 3):

    python3 -m venv .venv-tf-models && .venv-tf-models/bin/pip install tf-models-official tf_keras

It draws weights, all of them off the ones and zeros that norms and biases start from, and 50 sources and targets with
padding, and writes down what it makes of them (peers/tf_models_transformer.py). `tf_llm.from_tf_models` reads its
checkpoint, and the same is done here. Compared are the logits, to 1e-5; the mean loss over all target tokens without
and with label smoothing of .1, to 1e-6; and, token by token, what is decoded greedily, with one beam (which is not
quite the same: see `Beam`) and with four, α = .6. Both sides may say any token here, padding included.

Float32 rounds in proportion: the weights are drawn so that logits stay within a few units. With weights three times as
large the two differ by up to 4e-5, each as far from float64 as from the other (BUILD_NOTES.md).

You should see a difference of the logits of some 1e-6, and 50 of 50 rows alike for each way of decoding.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from absl import app, flags

import tf_llm
from tf_llm.contracts import DECODER_IDS, PAD_ID, SOURCE_IDS, START_ID
from tf_llm.decoding.beam import Beam, decode_beams, repeat_rows
from tf_llm.decoding.strategies import Greedy, decode
from tf_llm.training.losses import SmoothedCrossentropy, cross_entropy

LOGITS_GOAL, LOSS_GOAL = 1e-5, 1e-6
PARAMETERS = {"small": 45_312, "base": 61_362_176}
REPOSITORY = Path(__file__).resolve().parents[2]
PEER = Path(__file__).parent / "peers" / "tf_models_transformer.py"
OWN_PYTHON = REPOSITORY / ".venv-tf-models" / "bin" / "python"

_PYTHON = flags.DEFINE_string(
    "python",
    os.environ.get("TF_LLM_TF_MODELS_PYTHON") or (str(OWN_PYTHON) if OWN_PYTHON.exists() else ""),
    "The Python that has tf-models-official; else TF_LLM_TF_MODELS_PYTHON, else that of .venv-tf-models.",
)
_QUICK = flags.DEFINE_bool("quick", False, "A small model in place of transformer-base.")
_FOLDER = flags.DEFINE_string("folder", "", "Keep what the peer writes, in this folder.")


def run_peer(python, size, folder):
    """Lets the peer compute; returns its results, a dictionary of arrays."""
    command = [python, str(PEER), f"--size={size}", f"--folder={folder}"]
    environment = os.environ | {"TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}
    try:
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
    except OSError as error:
        refuse(f"{python or 'no Python'} does not run ({error.strerror})")
    if process.returncode:
        refuse(f"{python} failed: {(process.stderr.strip().splitlines() or ['it says nothing'])[-1]}")
    with np.load(Path(folder) / "results.npz") as results:
        return dict(results)


def refuse(reason):
    print(
        f"could not run: {reason}. It takes an environment of its own:\n"
        "python3 -m venv .venv-tf-models && .venv-tf-models/bin/pip install tf-models-official tf_keras"
    )
    sys.exit(2)


def compute_logits(model, source_ids, target_ids):
    decoder_ids = np.pad(target_ids, ((0, 0), (1, 0)), constant_values=START_ID)[:, :-1]
    return model({SOURCE_IDS: tf.constant(source_ids), DECODER_IDS: tf.constant(decoder_ids)}, training=False)


def decode_rows(model, source_ids, strategy):
    """What the model says to each source: int32 [N, S] -> int32 [N, T]. Unlike the `Generator`, it may say anything."""
    start, step_model, (rows, length) = (
        model.build_start(),
        model.build_step(),
        (len(source_ids), model.config.target_length),
    )

    @tf.function
    def run(source_ids):
        fixed, cache = dict(start(source_ids, training=False)), model.empty_cache(rows)
        del fixed["context"]
        if isinstance(strategy, Beam):
            fixed = repeat_rows(fixed, strategy.num_beams)

        def step(token_ids, position, cache):
            return step_model({"token_ids": token_ids, "position": position, **fixed, **cache}, training=False)

        if isinstance(strategy, Beam):
            return decode_beams(step, cache, strategy, rows, length, rules=())[0][:, 0]  # the best of each row
        return decode(step, cache, strategy, rows, length, rules=())

    return run(tf.constant(source_ids)).numpy()


def compare(model, peer):
    """Rows of the table: (what, the difference or the number of rows that differ, the most that is allowed)."""
    logits = compute_logits(model, peer["source_ids"], peer["target_ids"])
    yield "logits, largest difference", np.abs(logits.numpy() - peer["logits"]).max(), LOGITS_GOAL
    counted = peer["target_ids"] != PAD_ID
    smoothed = SmoothedCrossentropy(label_smoothing=0.1).call(peer["target_ids"], logits)
    for name, ours in (("nats", cross_entropy(peer["target_ids"], logits)), ("smoothed", smoothed)):
        means = [losses[counted].mean(dtype=np.float64) for losses in (ours.numpy(), peer[name])]
        yield f"mean loss {means[1]:.4f}, {name}", abs(means[0] - means[1]), LOSS_GOAL
    for name, strategy in (("greedy", Greedy()), ("beam_1", Beam(num_beams=1)), ("beam_4", Beam(num_beams=4))):
        said = decode_rows(model, peer["source_ids"], strategy)
        texts = len(np.unique(peer[name], axis=0))
        yield f"{name}, rows that differ, {texts} texts", int((said != peer[name]).any(axis=1).sum()), 0


def main(argv):
    del argv
    size = "small" if _QUICK.value else "base"
    with tempfile.TemporaryDirectory() as scratch:
        folder = _FOLDER.value or scratch
        peer = run_peer(_PYTHON.value, size, folder)
        lengths = {"source_length": peer["source_ids"].shape[1], "target_length": peer["target_ids"].shape[1]}
        model = tf_llm.from_tf_models(Path(folder) / "model", **lengths)
    parameters = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    print(f"Seq2SeqTransformer, {parameters:,} parameters, {len(peer['source_ids'])} sources and targets")
    assert parameters == PARAMETERS[size], f"expected {PARAMETERS[size]:,}"

    print(f"{'':44}{'difference':>12}{'allowed':>10}")
    rows = []
    for row in compare(model, peer):
        rows.append(row)
        print(f"{row[0]:44}{row[1]:12.2g}{row[2]:10.2g}", flush=True)
    value, holds = float(f"{rows[0][1]:.3g}"), all(difference <= allowed for _, difference, allowed in rows)
    result = {"name": "parity_tf_models", "value": value, "goal": LOGITS_GOAL, "unit": "largest difference of a logit"}
    print(json.dumps(result | {"holds": bool(holds)}))
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    app.run(main)
