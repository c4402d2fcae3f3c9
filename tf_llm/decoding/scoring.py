"""What a model makes of given texts: how likely it finds their tokens, and vectors that stand for them.

Glossary: N rows, T tokens of a window, C context length, D width, V vocabulary.
"""

import numpy as np
import tensorflow as tf

from tf_llm.contracts import PAD_ID, START_ID
from tf_llm.decoding.rows import in_batches, next_power

LOGITS = 64_000_000  # numbers that are held at most


def score_texts(generator, prompts, texts):
    """Log-probabilities of the tokens of texts that are said to prompts, each told what stands before it.

    Args:
        generator: a `Generator`.
        prompts, texts: lists of lists of ids, as many of one as of the other.

    Returns:
        A list of numbers for each text.
    """
    length, rows, owners = generator.target_length, [], []
    scores = [[] for _ in texts]
    for owner, (prompt, ids) in enumerate(zip(prompts, texts, strict=True)):
        if generator.frame == "request" and len(ids) > length:
            raise ValueError(f"texts are expected to have at most {length} tokens. Received: {len(ids)}")
        for begin in range(0, len(ids), length):  # each window of each text is a row
            before = [token_id for token_id in ids[:begin] if token_id < generator.marks]
            rows.append((generator.frame_ids([*prompt, *before]), ids[begin : begin + length]))
            owners.append(owner)
    size = max(1, LOGITS // (length * generator.tokenizer.vocabulary_size))
    for owner, window in zip(owners, in_batches(lambda batch: _score(generator, batch), rows, size), strict=True):
        scores[owner] += window
    return scores


def _score(generator, batch):
    """(source, ids of a window) each -> log-probabilities each."""
    rows, length = next_power(len(batch)), generator.target_length
    targets = np.full([rows, length], PAD_ID, "int32")  # [N, T]
    for place, (_, ids) in zip(targets, batch, strict=False):
        place[: len(ids)] = ids
    context, state = generator.encode_sources([source for source, _ in batch], rows)

    def score(context, state, targets):
        before = tf.concat([tf.fill([rows, 1], START_ID), targets[:, :-1]], axis=1)  # [N, T]
        logits, _ = generator.bind_step(context, num_tokens=length)(before, tf.constant(0), state)  # [N, T, V]
        logs = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        return tf.gather(logs, targets, batch_dims=2)  # [N, T]

    found = generator.run(("score", rows), score, context, state, tf.constant(targets)).numpy()
    return [row[: len(ids)].tolist() for row, (_, ids) in zip(found, batch, strict=False)]


def embed_sources(generator, sources):
    """The mean of the context over what each source holds, of length 1: lists of ids -> a list of float32 [D]."""
    rows = next_power(len(sources))

    def embed(source):
        read = generator.start(source, training=False)
        weights = tf.cast(read["context_mask"], tf.float32)[:, :, None]  # [N, C, 1]
        total = tf.reduce_sum(tf.cast(read["context"], tf.float32) * weights, axis=1)  # [N, D]
        return tf.math.l2_normalize(total, axis=1)  # of length 1, sum and mean are the same

    found = generator.run(("embed", rows), embed, generator.pad_sources(sources, rows)).numpy()
    return list(found[: len(sources)])
