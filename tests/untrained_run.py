"""The folder of a run that was never trained: what a server, or anything else that loads a model, needs to start."""

import dataclasses
import sys

import keras

from tf_llm import recipes
from tf_llm.config import write_config
from tf_llm.load import CHECKPOINTS, CONFIG, TOKENIZER
from tf_llm.model.encoder_decoder import build_model
from tf_llm.text.tokenizers import CharTokenizer
from tf_llm.training.checkpoints import Checkpoints

LETTERS = " abcdefghijklmnopqrstuvwxyz.,é∞"


def write_run(folder, seed=1, **settings):
    """Writes config, tokenizer and a checkpoint of random weights. `settings` are fields of the model's."""
    run = recipes.article()
    settings = {"num_layers": 1, "d_model": 16, "d_ff": 32, "num_heads": 2, **settings}
    # The recipe asks for words. The model has room for more of them than the tokenizer has characters.
    words = dataclasses.replace(run.words, vocabulary_size=len(LETTERS))
    model = dataclasses.replace(run.model, vocabulary_size=len(LETTERS) + 3, context="sequence", **settings)
    run = dataclasses.replace(run, tokens="characters", words=words, model=model)
    folder.mkdir(parents=True, exist_ok=True)
    write_config(run, folder / CONFIG)
    CharTokenizer(LETTERS).save(folder / TOKENIZER)
    keras.utils.set_random_seed(seed)
    Checkpoints(folder / CHECKPOINTS, build_model(run.model)).save()
    return folder


if __name__ == "__main__":
    from pathlib import Path

    write_run(Path(sys.argv[1]))
