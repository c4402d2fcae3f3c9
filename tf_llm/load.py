"""A model together with its tokenizer: from the folder of a run, or in the form in which T5 models are published."""

import math
from pathlib import Path

import tensorflow as tf

from tf_llm import hub
from tf_llm.config import load_config
from tf_llm.contracts import UserError
from tf_llm.decoding import generator
from tf_llm.files import write_atomically
from tf_llm.model import hugging_face
from tf_llm.model.encoder_decoder import build_model
from tf_llm.text.tokenizers import load_tokenizer
from tf_llm.training.checkpoints import Checkpoints

# What lies in the folder of a run; `train.train` writes it.
CONFIG, TOKENIZER, CHECKPOINTS = "config.json", "tokenizer.json", "checkpoints"
# What a model expects of a prompt (decoding/generator.py) by the objective it was trained on.
FRAMES = {"prefix_lm": "page", "span_corruption": "blank", "denoisers": "mode", "pairs": "request"}


def load_model(workdir, precision="float32"):
    """The model of a run at its newest checkpoint, and its tokenizer: (`EncoderDecoder`, `Tokenizer`).

    Its weights are the running means, where the run kept some (`training.ema_decay`).

    Raises:
        UserError: the folder holds no run, or no checkpoint of it.
    """
    workdir = Path(workdir)
    run = load_config(workdir / CONFIG)
    tokenizer = load_tokenizer(workdir / TOKENIZER)
    model = build_model(run.model, precision)
    if not Checkpoints(workdir / CHECKPOINTS, model).restore():
        raise UserError(f"expected a checkpoint in {workdir / CHECKPOINTS}. Received: none. Train the model first")
    return model, tokenizer


def from_pretrained(
    name_or_folder,
    source_length=512,
    target_length=128,
    precision="float32",
    revision=None,
    token=None,
    local_files_only=None,
):
    """A T5 and its tokenizer, as transformers writes them: (`EncoderDecoder`, `SentencePieceTokenizer` or None).

    Args:
        name_or_folder: a folder, or a model's name on the Hugging Face hub (see `hub.find_folder`).
        source_length, target_length: S and T; the relative positions of T5 know no bound.
        precision: see `build_model`. Weights of another precision in the files become this one's.
        revision, token, local_files_only: see `hub.find_folder`.

    The tokenizer is None where the folder holds neither a `spiece.model` nor what `save_pretrained` writes.

    Raises:
        UserError: there is no such model; it is no T5; or its tensors are not exactly those of its settings.

    >>> model, tokenizer = from_pretrained("google/flan-t5-small")                # doctest: +SKIP
    >>> model.config.num_layers, tokenizer.decode(tokenizer.encode("The cat."))   # doctest: +SKIP
    (8, 'The cat.')
    """
    folder = hub.find_folder(name_or_folder, revision, token, local_files_only)
    settings = hub.read_json(folder / hub.CONFIG)
    config = hugging_face.config_from_hugging_face(settings, source_length, target_length)
    tensors = hub.open_tensors(folder)
    hugging_face.check_arrays(config, tensors)  # before memory is asked for
    tokenizer = _find_tokenizer(folder)
    if tokenizer is not None and tokenizer.vocabulary_size > config.vocabulary_size:
        raise UserError(
            f"expected a tokenizer of at most the model's {config.vocabulary_size} words in {folder}. Received: one of "
            f"{tokenizer.vocabulary_size}. Take tokenizer and model from the same folder"
        )
    model = build_model(config, precision)
    hugging_face.load_arrays(model, tensors)
    return model, tokenizer


def save_pretrained(model, tokenizer, folder, max_shard_bytes=5_000_000_000):
    """Writes a model and its tokenizer for `from_pretrained` and for transformers' `T5ForConditionalGeneration`.

    Args:
        model: an `EncoderDecoder` that T5 can be: one of the sizes `t5_…`, or loaded by `from_pretrained`.
        tokenizer: its tokenizer, or None. One that was taken from a `spiece.model` is written as that; another one as
            `tf_llm_tokenizer.json`, which `from_pretrained` alone reads.
        folder: is made if need be.
        max_shard_bytes: a model with more is written to several files.

    Raises:
        UserError: T5 cannot be such a model (with the reasons), or the folder cannot be written to.
    """
    folder = Path(folder)
    settings = hugging_face.config_to_hugging_face(model.config)
    item_size = tf.as_dtype(model.variable_dtype).size
    sizes = {name: math.prod(shape) * item_size for name, shape in hugging_face.list_tensors(model.config).items()}
    hub.write_folder(folder, settings, sizes, lambda names: hugging_face.export_arrays(model, names), max_shard_bytes)
    for name in (hub.PIECES, hub.TOKENIZER):
        (folder / name).unlink(missing_ok=True)
    if isinstance(pieces := getattr(tokenizer, "model", None), bytes):
        write_atomically(folder / hub.PIECES, pieces)
    if tokenizer is not None and not (pieces and tokenizer.num_sentinels == 100 and not tokenizer.is_lossless):
        tokenizer.save(folder / hub.TOKENIZER)


def _find_tokenizer(folder):
    if (folder / hub.TOKENIZER).is_file():
        return load_tokenizer(folder / hub.TOKENIZER)
    if (folder / hub.PIECES).is_file():
        from tf_llm.text.sentence_pieces import SentencePieceTokenizer

        return SentencePieceTokenizer.from_model(folder / hub.PIECES, num_sentinels=100)
    return None


class Generator(generator.Generator):
    """A `decoding.generator.Generator` that knows the folders of runs, and published models."""

    @classmethod
    def load(cls, workdir, jit_compile=False):
        """The generator of a finished run. For `jit_compile`, see `decoding.generator.Generator`.

        >>> generate = Generator.load("runs/first")           # doctest: +SKIP
        >>> print(generate("The transformer architecture"))   # doctest: +SKIP
        """
        run = load_config(Path(workdir) / CONFIG)
        return cls(*load_model(workdir), FRAMES[run.objective.kind], jit_compile=jit_compile)

    @classmethod
    def from_pretrained(cls, name_or_folder, frame="request", jit_compile=False, **settings):
        """The generator of a T5 in a folder or on the hub.

        Args:
            name_or_folder, settings: see `from_pretrained`.
            frame, jit_compile: see `decoding.generator.Generator`.

        >>> generate = Generator.from_pretrained("google/flan-t5-small")              # doctest: +SKIP
        >>> print(generate("translate English to German: The cat sat on the mat."))   # doctest: +SKIP
        """
        model, tokenizer = from_pretrained(name_or_folder, **settings)
        if tokenizer is None:
            raise UserError(
                f"expected a {hub.PIECES} beside the model of {name_or_folder}. Received: none. Copy it from the model "
                "that this one was tuned from; a tokenizer.json is not read"
            )
        return cls(model, tokenizer, frame, jit_compile=jit_compile)
