"""How well a model predicts text, in figures that compare across vocabularies, beside a unigram and a bigram.

Nats per kept word says how well a recipe does on what it kept; bits per byte says how well on everything:

    bits per byte = (nats of the kept words + nats of all that was thrown away) / ln 2 / UTF-8 bytes of the text

A recipe that removes stop words, rare words and capitals is charged for them by a unigram coder (text/residual.py), so
it cannot look better by predicting less.
"""

import math
from collections import Counter

import numpy as np
from nltk.lm import WittenBellInterpolated

from tf_llm.contracts import PAD_ID


def bits_per_byte(nats_per_token, tokens, residual_nats, text_bytes):
    """Bits per UTF-8 byte of the original text: (of the kept words, of what was thrown away).

    >>> bits_per_byte(math.log(2), tokens=8, residual_nats=0.0, text_bytes=16)
    (0.5, 0.0)
    """
    scale = math.log(2) * max(text_bytes, 1)
    return nats_per_token * tokens / scale, residual_nats / scale


def target_pairs(blocks, overlap):
    """Each target with the token before it: stored blocks int [n, L] -> int64 [targets, 2], padding left out.

    >>> target_pairs(np.array([[0, 1, 5, 6, 0]]), overlap=2).tolist()
    [[1, 5], [5, 6]]
    """
    before, targets = blocks[:, overlap - 1 : -1].ravel(), blocks[:, overlap:].ravel()
    return np.stack([before, targets], axis=1)[targets != PAD_ID].astype("int64")


def unigram_nats(train_pairs, validation_pairs, vocabulary_size):
    """Nats per token of a unigram model with one added to each count; 0.0 where there is nothing to predict.

    Padding is never a target and gets no share.

    >>> train, validation = np.array([[1, 5], [5, 5], [5, 1]]), np.array([[1, 5], [5, 6]])
    >>> unigram_nats(train, validation, vocabulary_size=7) == -(math.log(3 / 9) + math.log(1 / 9)) / 2
    True
    """
    if not len(validation_pairs):
        return 0.0
    counts = np.bincount(train_pairs[:, 1], minlength=vocabulary_size) + 1.0
    counts[PAD_ID] = 0.0
    return float(-np.log(counts[validation_pairs[:, 1]] / counts.sum()).mean())


def bigram_nats(train_pairs, validation_pairs, vocabulary_size):
    """Nats per token of NLTK's interpolated bigram model (Witten–Bell); 0.0 where there is nothing to predict.

    A token never seen in training has probability 0 in NLTK's model, which is therefore mixed with the uniform
    distribution, at weight 1/(N+1), N the number of training tokens: as if that had been observed once.
    """

    def words(pairs):  # NLTK knows words, not ids
        return pairs[:, 0].astype(str).tolist(), pairs[:, 1].astype(str).tolist()

    model = WittenBellInterpolated(order=2)
    for (first, second), count in Counter(zip(*words(train_pairs), strict=True)).items():
        model.counts[[first]][second] += count
        model.counts[1][second] += count
    # What is not in the vocabulary, NLTK takes for one and the same unknown word. It counts it anew at each update.
    model.vocab.update(word for column in words(train_pairs) for word in column)
    share = 1.0 / (len(train_pairs) + 1.0)
    total = 0.0
    # For each score NLTK counts all that ever followed the first word: each distinct pair is asked for once.
    for (first, second), count in Counter(zip(*words(validation_pairs), strict=True)).items():
        probability = model.score(second, [first])
        total -= count * math.log((1 - share) * probability + share / vocabulary_size)
    return total / max(len(validation_pairs), 1)
