"""One contestant of decoding_speed.py: loads a T5 from a folder and says so many tokens, as it is told to.

    python examples/benchmarks/peers/generations.py hugging_face FOLDER --precision=float32

Once the model is loaded it says who it is in a line of JSON, and then answers each line, `{"rows": 16, "beams": 1}`,
with the seconds it took and the ids it said.

A new contestant is a function of the folder that returns (a function of the sources and of the number of beams, its
settings), and a line in CONTESTANTS.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from absl import app, flags

THREADS = 2
NEW = 128  # tokens to be said
END_ID = 1
_PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Of weights and computation.")


class Numbers:
    """A tokenizer whose words are the ids themselves, so that all contestants read the same."""

    num_sentinels = 0

    def __init__(self, vocabulary_size):
        self.vocabulary_size = vocabulary_size

    def encode(self, text):
        return [int(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(map(str, ids))


def load_tf_llm(folder, jit_compile=True):
    """`Generator` here, from text to text."""
    import tensorflow as tf

    import tf_llm
    from tf_llm.decoding.generator import Generator

    limit_threads(tf)
    length = json.loads((folder / "lengths.json").read_text())["source"]
    model, _ = tf_llm.from_pretrained(folder, source_length=length, target_length=NEW, precision=_PRECISION.value)
    generator = Generator(model, Numbers(model.config.vocabulary_size), "request", jit_compile=jit_compile)
    config = generator.config.with_settings(max_new_tokens=NEW, min_new_tokens=NEW, beam_manner="hugging_face")

    def generate(sources, beams):
        texts = [" ".join(map(str, source[:-1])) for source in sources]  # END_ID is added there
        found = generator.complete(texts, config, num_beams=beams, length_penalty=1.0)
        return [completion.ids for completion in found]

    compiled = "with XLA" if jit_compile else "without XLA"
    return generate, f"tf_llm.Generator {compiled}, TensorFlow {tf.__version__}"


def load_hugging_face(folder):
    """`generate` of transformers, in PyTorch."""
    import torch
    import transformers

    torch.set_num_threads(THREADS)
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, _PRECISION.value))
    settings = {"min_new_tokens": NEW, "max_new_tokens": NEW, "do_sample": False}

    def generate(sources, beams):
        with torch.inference_mode():
            found = model.eval().generate(torch.tensor(sources).long(), num_beams=beams, **settings)
        return found[:, 1:].tolist()

    return generate, f"transformers {transformers.__version__}, generate, PyTorch {torch.__version__}"


def load_keras_hub(folder, jit_compile="auto"):
    """`T5Seq2SeqLM.generate` of KerasHub, with weights that are copied by hand: it loads no T5 of transformers."""
    import keras
    import keras_hub
    import tensorflow as tf
    from safetensors.numpy import load_file

    limit_threads(tf)
    keras.config.set_dtype_policy(_PRECISION.value)
    config = json.loads((folder / "config.json").read_text())
    backbone = keras_hub.models.T5Backbone(
        vocabulary_size=config["vocab_size"],
        num_layers=config["num_layers"],
        num_heads=config["num_heads"],
        hidden_dim=config["d_model"],
        intermediate_dim=config["d_ff"],
        key_value_dim=config["d_kv"],
        dropout=0.0,
        activation="relu",
        use_gated_activation=False,
        tie_embedding_weights=True,
    )
    arrays = load_file(folder / "model.safetensors")
    for weight, name in zip(backbone.weights, list_tensors(config["num_layers"]), strict=True):
        weight.assign(arrays[name].T if "kernel" in weight.path else arrays[name])
    models = {}
    for beams in (1, 4):
        models[beams] = keras_hub.models.T5Seq2SeqLM(backbone=backbone, preprocessor=None)
        sampler = keras_hub.samplers.BeamSampler(num_beams=beams) if beams > 1 else "greedy"
        models[beams].compile(sampler=sampler, jit_compile=jit_compile)

    def generate(sources, beams):
        rows, ones = len(sources), np.ones_like(sources)
        inputs = {
            "encoder_token_ids": sources,
            "encoder_padding_mask": ones,
            "decoder_token_ids": np.zeros([rows, NEW + 1], "int32"),
            "decoder_padding_mask": np.eye(1, NEW + 1, dtype="int32").repeat(rows, axis=0),
        }
        found = models[beams].generate(inputs, stop_token_ids=None)
        return np.asarray(found["decoder_token_ids"])[:, 1:].tolist()

    compiled = "with XLA" if jit_compile is True else "without XLA"
    return generate, f"KerasHub {keras_hub.__version__}, T5Seq2SeqLM.generate {compiled}, TensorFlow {tf.__version__}"


def list_tensors(num_layers):
    """The names in transformers of KerasHub's weights, in KerasHub's order."""
    yield "shared.weight"
    for stack in ("encoder", "decoder"):
        yield f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        for i in range(num_layers):
            attentions = ["SelfAttention", "EncDecAttention"][: 1 + (stack == "decoder")]
            for place, attention in enumerate(attentions):
                layer = f"{stack}.block.{i}.layer.{place}"
                yield from (f"{layer}.{attention}.{part}.weight" for part in "qkvo")
                yield f"{layer}.layer_norm.weight"
            layer = f"{stack}.block.{i}.layer.{len(attentions)}"
            yield from (f"{layer}.DenseReluDense.{part}.weight" for part in ("wi", "wo"))
            yield f"{layer}.layer_norm.weight"
        yield f"{stack}.final_layer_norm.weight"


def limit_threads(tf):
    """As many threads as PyTorch gets: TensorFlow counts those within an operation and those for several apart."""
    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)


CONTESTANTS = {
    "tf_llm": load_tf_llm,
    "tf_llm_plain": lambda folder: load_tf_llm(folder, jit_compile=False),
    "hugging_face": load_hugging_face,
    "keras_hub": load_keras_hub,
    "keras_hub_xla": lambda folder: load_keras_hub(folder, jit_compile=True),
}


def main(argv):
    name, folder = argv[1], Path(argv[2])
    generate, settings = CONTESTANTS[name](folder)
    sources = np.load(folder / "sources.npy")
    print(json.dumps({"settings": settings}), flush=True)
    for line in sys.stdin:
        cell = json.loads(line)
        begin = time.perf_counter()
        ids = generate(sources[: cell["rows"]], cell["beams"])
        print(json.dumps({"seconds": time.perf_counter() - begin, "ids": ids}), flush=True)


if __name__ == "__main__":
    app.run(main)
