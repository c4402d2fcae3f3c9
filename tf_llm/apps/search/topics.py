"""A start for an encoder: word vectors from which words stand in the same texts (latent semantic analysis).

Contrastive training from random numbers needs many pairs. What a corpus of a thousand texts can tell at once is which
words keep company: the singular vectors of its matrix of texts and words (Deerwester et al. 1990,
https://doi.org/10.1002/(SICI)1097-4571(199009)41:6<391::AID-ASI1>3.0.CO;2-9). A text is then the sum of the vectors of
its words, each as long as the word is rare (inverse document frequency).

An encoder that ends with an RMS norm makes all vectors equally long, so that the sum would no longer know which words
are rare. Hence the last coordinate of every word is one large constant, which the norm divides by, and whose scale in
that norm is 0: what is left of a word is its vector, nearly as long as it was. The parts of the blocks that add to it
begin with zeros, and learn from there.

Glossary: N texts, V words, K topics, D width, here K + 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

OVERSAMPLED = 16  # vectors beyond K that make the first K exact
ITERATIONS = 6  # of the product with the matrix and back: each makes the large singular values stand out more
CONSTANT = 16.0  # beside the longest word vector, which is 1


def start_from_topics(model, texts: Iterable[Sequence[int]]) -> None:
    """Gives an untrained model the word vectors of a corpus, in place.

    Args:
        model: of `build_model`, with RMS norms first, no positions in the sum, and no norm or scale of what goes in.
        texts: ids of the corpus' texts, each as a whole.

    Raises:
        ValueError: the model adds or norms what would not leave the vectors as they are.
    """
    config = model.config
    wanted = {"norm": "rms", "norm_place": "first", "input_norm": "none", "embedding_scale": False}
    received = {name: getattr(config, name) for name in wanted}
    if received != wanted or config.positions in ("learned", "sinusoidal") or config.architecture != "transformer":
        raise ValueError(
            f"a transformer with {wanted} and rotary, relative or no positions is expected. Received: {received}, "
            f"{config.architecture}, positions={config.positions!r}"
        )
    table = model.get_layer("input_embedding").get_layer("table")
    vectors = find_word_vectors(texts, config.vocabulary_size, config.d_model - 1)  # [V, K]
    vectors /= max(np.linalg.norm(vectors, axis=1).max(), 1e-9)
    constant = np.full([len(vectors), 1], CONSTANT)
    table.embeddings.assign(np.concatenate([vectors, constant], axis=1).astype("float32"))
    encoder = model.get_layer("encoder")
    for layer in encoder.layers:
        adds = getattr(layer, "output_projection", None) or getattr(layer, "narrow", None)  # attention, feed-forward
        if adds is not None:
            adds.set_weights([np.zeros_like(weight) for weight in adds.get_weights()])
    scale = np.ones(config.d_model, "float32")
    scale[-1] = 0.0
    encoder.get_layer("encoder_norm").set_weights([scale])


def find_word_vectors(texts: Iterable[Sequence[int]], vocabulary_size: int, topics: int, seed: int = 0) -> np.ndarray:
    """The right singular vectors of the matrix of texts and words, each word's row times its inverse document
    frequency: float [V, K].

    Rows of the matrix are 1 + log of how often each word occurs, times that frequency, at length 1. The vectors are
    found by iteration from random ones (Halko, Martinsson, Tropp 2011, https://arxiv.org/abs/0909.4061).

    >>> vectors = find_word_vectors([[1, 2], [1, 2], [3, 4], [3, 4], [3, 4]], vocabulary_size=6, topics=2)
    >>> cosine = lambda i, j: round(float(vectors[i] @ vectors[j] / np.linalg.norm(vectors[i]) ** 2), 3)
    >>> abs(cosine(1, 2)), abs(cosine(1, 3)), vectors[5].tolist()
    (1.0, 0.0, [0.0, 0.0])
    """
    counts = [Counter(text) for text in texts]
    frequency = np.bincount([word for text in counts for word in text], minlength=vocabulary_size)
    rarity = np.log(max(len(counts), 1) / np.maximum(frequency, 1))  # [V]
    places, values = [], []
    for row, text in enumerate(counts):
        words = np.fromiter(text, "int64", len(text))
        weights = (1 + np.log(np.fromiter(text.values(), "float64", len(text)))) * rarity[words]
        places.append(np.stack([np.full_like(words, row), words], axis=1))
        values.append(weights / max(np.linalg.norm(weights), 1e-9))
    if not places:
        return np.zeros([vocabulary_size, topics])
    matrix = tf.sparse.reorder(
        tf.SparseTensor(
            np.concatenate(places), np.concatenate(values).astype("float32"), [len(counts), vocabulary_size]
        )
    )
    multiply = tf.function(lambda basis: tf.sparse.sparse_dense_matmul(matrix, basis))  # [V, ·] -> [N, ·]
    multiply_back = tf.function(lambda basis: tf.sparse.sparse_dense_matmul(matrix, basis, adjoint_a=True))
    size = min(topics + OVERSAMPLED, len(counts), vocabulary_size)
    basis = np.random.default_rng(seed).normal(size=[vocabulary_size, size]).astype("float32")
    for _ in range(ITERATIONS):
        basis, _ = np.linalg.qr(multiply_back(multiply(basis)).numpy())  # [V, size]
    projected = multiply(basis).numpy()  # [N, size]
    _, _, turned = np.linalg.svd(projected.T @ projected)
    vectors = (basis @ turned.T)[:, :topics] * rarity[:, None]
    vectors[frequency == 0] = 0.0
    return np.pad(vectors, ((0, 0), (0, topics - vectors.shape[1])))
