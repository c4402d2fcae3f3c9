"""A trained model as files that need no tf_llm: a SavedModel of strings, LiteRT for phones, or ONNX.

    python examples/export_model.py --workdir=runs/article --folder=exports/article/1
    python examples/export_model.py --pretrained=google/flan-t5-small --folder=exports/t5/1 --num_beams=4
    python examples/export_model.py --workdir=runs/article --folder=exports/lite --format=litert   # or onnx

The first takes about a minute, after which the folder holds all: weights, tokenizer, and the loop that says a text as
one graph. You see its signatures, and what the SavedModel, loaded again, says to --prompt. Any TensorFlow says so, too:

    import tensorflow as tf    # and, for models whose tokens are pieces of words: import tensorflow_text
    model = tf.saved_model.load("exports/article/1")
    print(model.generate(tf.constant(["The transformer"]))["texts"])

LiteRT and ONNX know no strings: their three files go from ids to ids (decoding/formats.py).
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets at length when it is imported
import tensorflow as tf
from absl import flags

import tf_llm
import tf_llm.flags

WORKDIR = flags.DEFINE_string("workdir", "runs/article", "The folder of a run.")
PRETRAINED = flags.DEFINE_string("pretrained", None, "A T5 in its place: a folder, or a name on the Hugging Face hub.")
FOLDER = flags.DEFINE_string("folder", "exports/article/1", "A new folder for the files.")
FORMAT = flags.DEFINE_enum("format", "saved_model", ["saved_model", "litert", "onnx"], "Of the files.")
PROMPT = flags.DEFINE_string("prompt", "The transformer architecture", "What the SavedModel is asked.")
# How texts are said, as `GenerationConfig` has it; what is not given is as usual for the model.
SETTINGS = [
    flags.DEFINE_integer("max_new_tokens", None, "Tokens at most."),
    flags.DEFINE_float("temperature", None, "Of a draw; 0 says the likeliest."),
    flags.DEFINE_integer("top_k", None, "Draw from so many of the likeliest tokens."),
    flags.DEFINE_float("top_p", None, "Draw from the fewest tokens that have this probability together."),
    flags.DEFINE_integer("num_beams", None, "Hypotheses; more than 1 searches."),
    flags.DEFINE_integer("seed", None, "Of all that is drawn."),
]


def main():
    load = tf_llm.Generator.from_pretrained if PRETRAINED.value else tf_llm.Generator.load
    generate = load(PRETRAINED.value or WORKDIR.value)
    if FORMAT.value != "saved_model":
        export = {"litert": tf_llm.export_lite, "onnx": tf_llm.export_onnx}[FORMAT.value]
        for path in sorted(export(generate, FOLDER.value).iterdir()):
            print(f"{path.stat().st_size / 1e6:9.2f} MB  {path}")
        return
    settings = {flag.name: flag.value for flag in SETTINGS if flag.value is not None}
    try:
        folder = tf_llm.export_generator(generate, FOLDER.value, **settings)
    except ValueError as error:  # settings that do not go together
        raise tf_llm.UserError(str(error)) from error
    print(f"{sum(path.stat().st_size for path in folder.rglob('*')) / 1e6:9.2f} MB  {folder}\n")
    model = tf.saved_model.load(folder)
    for name, signature in model.signatures.items():
        takes = ", ".join(sorted(signature.structured_input_signature[1]))
        print(f"{name:16} {takes} -> {', '.join(sorted(signature.structured_outputs))}")
    (text,) = model.generate(tf.constant([PROMPT.value]))["texts"].numpy()
    print(f"\n{PROMPT.value} …\n{text.decode()}")


if __name__ == "__main__":
    tf_llm.flags.launch(main)
