"""Tunes an encoder so that texts which belong together have context vectors that lie together.

A pair is a title and a passage of its text, or whatever else says the same in two ways. In a batch of pairs each left
side is to find its own right side among all right sides, and the other way around: a softmax over cosines, divided by a
temperature, in both directions (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748; symmetric as in Radford et
al. 2021, https://arxiv.org/abs/2103.00020, section 2.3). Pairs of one owner, such as two passages under one title, are
no wrong answers for each other and are left out of each other's sum.

The context vector is what `decoding.Generator.embed` returns: the mean of the encoder's context over what the source
holds, at length 1. So a tuned model is used as it was before.

Glossary: P pairs, B pairs of a batch, S source length, C context length, D width.
"""

import dataclasses
import logging
import time

import numpy as np
import tensorflow as tf

from tf_llm.training.optimizers import TrainingConfig, build_optimizer

logger = logging.getLogger(__name__)

MASKED = -1e9  # a logit that takes no part
MAX_SCORED = 1_024  # held-out pairs that are scored against each other: chance is log of that


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastiveConfig:
    """How long, how fast and how sharply."""

    temperature: float = 0.05  # of the softmax over cosines
    batch_size: int = 128  # pairs, each of which is a wrong answer for all others
    learning_rate: float = 1e-4  # of Adam, behind the warm-up; a start from nothing wants ten times as much
    warmup_steps: int = 20
    epochs: int = 30  # over the pairs, at most
    patience: int = 6  # epochs without a better held-out loss, after which it ends
    seconds: float = 300.0  # after which it ends in any case, with the epoch
    seed: int = 0  # of the order of pairs

    def __post_init__(self):
        for name in ("temperature", "learning_rate", "seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"contrastive.{name} is expected to be above 0. Received: {getattr(self, name)!r}")
        for name, least in (("batch_size", 2), ("epochs", 1), ("patience", 1), ("warmup_steps", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(
                    f"contrastive.{name} is expected to be at least {least}. Received: {getattr(self, name)!r}"
                )


@dataclasses.dataclass(frozen=True)
class Pairs:
    """What belongs together: int32 [P, S] and [P, S], padded with zeros; owners [P], the same for pairs of one text."""

    left: np.ndarray
    right: np.ndarray
    owners: np.ndarray

    def __len__(self):
        return len(self.owners)

    def take(self, places):
        """The pairs at these places."""
        return Pairs(self.left[places], self.right[places], self.owners[places])


def tune_context(model, pairs, held_out, config=None):
    """Trains the encoder of a model in place; it ends with the weights that were best on the held-out pairs.

    Args:
        model: has `build_start`, as the models of `build_model` have. What its decoder alone has is left as it is.
        pairs: `Pairs` to learn from.
        held_out: `Pairs` of other owners.
        config: a `ContrastiveConfig`.

    Returns:
        A list of {"epoch", "loss", "held_out_loss", "held_out_accuracy", "seconds"}; the first, epoch 0, is before
        training.

    Raises:
        ValueError: there are fewer pairs than a batch holds, or fewer than two held-out ones.
    """
    config = config or ContrastiveConfig()
    if len(pairs) < config.batch_size or len(held_out) < 2:
        raise ValueError(
            f"pairs are expected to be at least {config.batch_size}, a batch, and 2 held-out ones. Received: "
            f"{len(pairs)} and {len(held_out)}"
        )
    start = model.build_start()
    optimizer = build_optimizer(TrainingConfig(optimizer="adam", learning_rate=config.learning_rate))
    step = make_step(start, optimizer, config)
    score = make_score(start, config)
    rng = np.random.default_rng(config.seed)
    held_out = held_out.take(rng.permutation(len(held_out))[:MAX_SCORED])
    begin, steps = time.monotonic(), 0
    history = [{"epoch": 0, "loss": None, **score(held_out), "seconds": 0.0}]
    best, weights = history[0]["held_out_loss"], start.get_weights()
    for epoch in range(1, config.epochs + 1):
        losses, order = [], rng.permutation(len(pairs))
        for first in range(0, len(pairs) - config.batch_size + 1, config.batch_size):
            optimizer.learning_rate.assign(config.learning_rate * min(1, (steps + 1) / (config.warmup_steps + 1)))
            batch = pairs.take(order[first : first + config.batch_size])
            losses.append(step(batch.left, batch.right, batch.owners.astype("int32")))
            steps += 1
        line = {"epoch": epoch, "loss": float(np.mean(losses)), **score(held_out), "seconds": time.monotonic() - begin}
        history.append(line)
        logger.info("%s", line)
        if line["held_out_loss"] < best:
            best, weights = line["held_out_loss"], start.get_weights()
        last = max(range(len(history)), key=lambda number: -history[number]["held_out_loss"])
        if epoch - last >= config.patience or line["seconds"] > config.seconds:
            break
    start.set_weights(weights)
    return history


def embed_context(start, source_ids, training=False):
    """The mean of the context over what each source holds, of length 1: int32 [B, S] -> float32 [B, D]."""
    read = start(source_ids, training=training)
    weights = tf.cast(read["context_mask"], tf.float32)[:, :, None]  # [B, C, 1]
    return tf.math.l2_normalize(tf.reduce_sum(tf.cast(read["context"], tf.float32) * weights, axis=1), axis=1)


def contrast(left, right, owners, temperature):
    """The loss of a batch, and how often the right partner is the nearest: vectors [B, D] twice, [B] -> [], [].

    >>> vectors = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    >>> loss, accuracy = contrast(vectors, vectors, tf.constant([7, 8]), temperature=1.0)
    >>> round(float(loss), 4), float(accuracy)  # log(1 + e⁻¹)
    (0.3133, 1.0)
    """
    logits = tf.matmul(left, right, transpose_b=True) / temperature  # [B, B]
    places = tf.range(tf.shape(owners)[0])
    same = (owners[:, None] == owners[None, :]) & (places[:, None] != places[None, :])  # [B, B]
    logits = tf.where(same, MASKED, logits)
    both = tf.stack([logits, tf.transpose(logits)])  # [2, B, B]
    answers = tf.stack([places, places])  # [2, B]
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(answers, both)  # [2, B]
    nearest = tf.argmax(both, axis=-1, output_type=tf.int32)  # [2, B]
    return tf.reduce_mean(losses), tf.reduce_mean(tf.cast(nearest == answers, tf.float32))


def make_step(start, optimizer, config):
    """One step of training: (left [B, S], right [B, S], owners [B]) -> its loss."""
    variables = start.trainable_variables

    @tf.function(reduce_retracing=True)
    def step(left, right, owners):
        with tf.GradientTape() as tape:
            vectors = embed_context(start, tf.concat([left, right], axis=0), training=True)  # [2B, D]
            loss, _ = contrast(*tf.split(vectors, 2), owners, config.temperature)
        pairs = zip(tape.gradient(loss, variables), variables, strict=True)
        # What only the decoder needs (keys and values of the context) has no gradient. Rows of the embedding that
        # occur several times are added up before Adam squares them.
        pairs = [(tf.convert_to_tensor(gradient), variable) for gradient, variable in pairs if gradient is not None]
        optimizer.apply(*map(list, zip(*pairs, strict=True)))
        return loss

    return step


def make_score(start, config):
    """Scores held-out pairs against each other: `Pairs` -> {"held_out_loss", "held_out_accuracy"}."""
    embed = tf.function(lambda ids: embed_context(start, ids), reduce_retracing=True)

    def score(pairs):
        sides = [
            tf.concat([embed(ids[first : first + 256]) for first in range(0, len(ids), 256)], axis=0)
            for ids in (pairs.left, pairs.right)
        ]
        loss, accuracy = contrast(*sides, tf.constant(pairs.owners.astype("int32")), config.temperature)
        return {"held_out_loss": float(loss), "held_out_accuracy": float(accuracy)}

    return score
