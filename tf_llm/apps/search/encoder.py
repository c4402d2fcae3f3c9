"""Vectors of texts for the dense side of the search: a model's encoder, tuned on the titles and texts of the corpus.

    encoder = Encoder.load("runs/encoder")
    index = SearchIndex.open("runs/search", embed=encoder)

A text is read in windows of as many tokens as the model takes, the first few of them; their vectors are added up. Any
model of `build_model` can do it, and a run's folder can be loaded; one that was tuned on the corpus (tuning.py) does it
better.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_llm.config import RunConfig, load_config, write_config
from tf_llm.load import CHECKPOINTS, CONFIG, TOKENIZER, load_model
from tf_llm.training.checkpoints import Checkpoints
from tf_llm.training.contrastive import embed_context

WINDOWS = 4  # of a text that are read
ROWS = 64  # windows that are read at once
LEAST = 4  # tokens of a window behind the first, or it says nothing


class Encoder:
    """Texts to vectors: `encoder(["tea", "coffee"])` is float32 [2, D], rows of length 1, zeros for what says nothing.

    Args:
        model: has `build_start` and `config`, as the models of `build_model` have.
        tokenizer: a `contracts.Tokenizer`.
        run: the `RunConfig` that the model belongs to; only `save` needs it.
    """

    def __init__(self, model, tokenizer, run: RunConfig | None = None):
        self.model, self.tokenizer, self.run = model, tokenizer, run
        self._start = model.build_start()
        self._embed = tf.function(lambda ids: embed_context(self._start, ids), reduce_retracing=False)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        cut = [self.cut(text, WINDOWS) for text in texts]
        rows = self.pad([window for windows in cut for window in windows])  # [N, S]
        vectors = np.zeros([len(texts), self.model.config.d_model], "float32")
        owners = np.repeat(np.arange(len(texts)), list(map(len, cut)))
        for first in range(0, len(rows), ROWS):
            batch = rows[first : first + ROWS]
            size = 1 << (len(batch) - 1).bit_length()  # a graph for each power of 2, and not for each number
            found = self._embed(np.pad(batch, ((0, size - len(batch)), (0, 0)))).numpy()[: len(batch)]
            np.add.at(vectors, owners[first : first + ROWS], found)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1)

    def cut(self, text: str, count: int) -> list[list[int]]:
        """The first `count` windows of a text that say something, as ids."""
        length = self.model.config.source_length
        # No token is shorter than a character of white space or of itself, words are longer: bounds what is read.
        ids = self.tokenizer.encode(text[: 12 * count * length])
        windows = [ids[first : first + length] for first in range(0, min(len(ids), count * length), length)]
        return [window for number, window in enumerate(windows) if len(window) >= (LEAST if number else 1)]

    def pad(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Lists of ids -> int32 [N, S]."""
        padded = np.zeros([len(rows), self.model.config.source_length], "int32")
        for place, ids in zip(padded, rows, strict=True):
            place[: len(ids)] = ids
        return padded

    def save(self, folder) -> None:
        """Writes a folder like that of a run, which `load` and `tf_llm.Generator.load` read."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_config(self.run, folder / CONFIG)
        self.tokenizer.save(folder / TOKENIZER)
        Checkpoints(folder / CHECKPOINTS, self.model).save()

    @classmethod
    def load(cls, folder) -> Encoder:
        """The encoder of a folder, or of any run. Raises UserError where there is none."""
        return cls(*load_model(folder), load_config(Path(folder) / CONFIG))
