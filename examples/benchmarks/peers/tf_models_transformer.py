"""What the TensorFlow Models' own transformer computes, for parity_tf_models.py to compare with.

    .venv-tf-models/bin/python examples/benchmarks/peers/tf_models_transformer.py --size=small --folder=/tmp/peer

It runs in an environment of its own, without tf_llm: `official` needs the Keras of before Keras 3. Into the folder go
`model.*`, a tf.train.Checkpoint of the model; `trainer.*`, one as the official trainer keeps it (--size=small alone);
and `results.npz` with these arrays, for N rows, S source and T target tokens and a vocabulary of V:

    source_ids [N, S], target_ids [N, T]   what the model is given: random words and an end, then padding
    logits [N, T, V]                       without dropout, the targets shifted right by the model itself
    nats, smoothed [N, T]                  cross-entropy of each target, without and with label smoothing of .1
    greedy [N, T]                          the likeliest word time and again, each time from scratch
    beam_1, beam_4 [N, T]                  what the model itself decodes, α = .6
"""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from absl import app, flags
from official.legacy.transformer.metrics import padded_cross_entropy_loss
from official.nlp.modeling.models import seq2seq_transformer

END_ID, FIRST_WORD = 1, 3
# size -> the model; the lengths of source and target; and a seed with which sentences end at many different places.
# "base" is the transformer-base of the paper.
SIZES = {
    "small": {
        "layers": 2,
        "width": 32,
        "heads": 4,
        "inner": 64,
        "vocabulary": 100,
        "source": 16,
        "target": 16,
        "seed": 4,
    },
    "base": {
        "layers": 6,
        "width": 512,
        "heads": 8,
        "inner": 2048,
        "vocabulary": 33_708,
        "source": 16,
        "target": 12,
        "seed": 1,
    },
}
ROWS = 50

_FOLDER = flags.DEFINE_string("folder", None, "Where the files go.", required=True)
_SIZE = flags.DEFINE_enum("size", "small", sorted(SIZES), "Of the model.")


def build_model(size, beam_size):
    """The model as the official translation task makes it, but for the beam."""
    settings = {
        "num_layers": size["layers"],
        "num_attention_heads": size["heads"],
        "intermediate_size": size["inner"],
        "activation": "relu",
        "dropout_rate": 0.1,
        "attention_dropout_rate": 0.1,
        "intermediate_dropout": 0.1,
        "use_bias": False,
        "norm_first": True,
        "norm_epsilon": 1e-6,
    }
    model = seq2seq_transformer.Seq2SeqTransformer(
        vocab_size=size["vocabulary"],
        embedding_width=size["width"],
        dropout_rate=0.1,
        decode_max_length=size["target"],
        beam_size=beam_size,
        alpha=0.6,
        eos_id=END_ID,
        encoder_layer=seq2seq_transformer.TransformerEncoder(**settings),
        decoder_layer=seq2seq_transformer.TransformerDecoder(**settings),
    )
    model({"inputs": tf.ones([1, 2], tf.int32), "targets": tf.ones([1, 2], tf.int32)})
    return model


def move_weights(model, random):
    """Makes every weight matter, and the model say different things of different lengths.

    Norms and biases are moved off the ones and zeros that they start from. A model that has learned nothing repeats its
    last word; it does so less with larger kernels and smaller words. A longer vector makes the end now very likely, now
    very unlikely.
    """
    for weight in model.trainable_variables:
        if len(weight.shape) == 1:
            weight.assign_add(random.normal(0, 0.2, weight.shape).astype("float32"))
        elif "kernel" in weight.name:
            weight.assign(2.0 * weight)
    table = 0.2 * model.embedding_lookup.embeddings.numpy()
    table[END_ID] *= 7.0
    model.embedding_lookup.embeddings.assign(table)


def draw_rows(random, length, vocabulary):
    """Rows of 2 to `length` tokens: words, then an end, then padding."""
    ids = random.integers(FIRST_WORD, vocabulary, (ROWS, length)).astype("int32")
    for row, tokens in zip(ids, random.integers(2, length + 1, ROWS), strict=True):
        row[tokens - 1] = END_ID
        row[tokens:] = 0
    return ids


def write_trainer_checkpoint(model, prefix):
    """A checkpoint of the official trainer's layout, with an optimiser that has taken a step of no length."""
    optimizer = tf_keras.optimizers.legacy.Adam(learning_rate=0.0)
    optimizer.apply_gradients((tf.zeros_like(weight), weight) for weight in model.trainable_variables)
    step = tf.Variable(1, dtype=tf.int64)
    tf.train.Checkpoint(global_step=step, model=model, optimizer=optimizer).save(prefix)


def decode_greedily(model, source_ids, length):
    """The likeliest word time and again, by whole forward passes: no cache, no search."""
    said = np.zeros((len(source_ids), length), "int32")
    forward = tf.function(lambda source, targets: model({"inputs": source, "targets": targets}, training=False))
    for t in range(length):
        logits = forward(source_ids, said)[:, t]  # the model shifts the targets, so that place t is not looked at
        ended = (said[:, :t] == END_ID).any(axis=1)
        said[:, t] = np.where(ended, 0, np.argmax(logits, axis=-1))
    return said


def search(model, source_ids, length):
    """What the model decodes by itself, padded to `length`: it stops as soon as every row is decided."""
    said = model({"inputs": source_ids}, training=False)["outputs"].numpy()
    return np.pad(said, ((0, 0), (0, length - said.shape[1])))


def main(argv):
    del argv
    size, folder = SIZES[_SIZE.value], Path(_FOLDER.value)
    random = np.random.default_rng(size["seed"])
    tf_keras.utils.set_random_seed(size["seed"])
    model, single = build_model(size, beam_size=4), build_model(size, beam_size=1)
    move_weights(model, random)
    single.set_weights(model.get_weights())
    folder.mkdir(parents=True, exist_ok=True)
    tf.train.Checkpoint(model=model).write(str(folder / "model"))
    if _SIZE.value == "small":
        write_trainer_checkpoint(model, str(folder / "trainer"))

    source_ids, target_ids = (draw_rows(random, size[side], size["vocabulary"]) for side in ("source", "target"))
    logits = model({"inputs": tf.constant(source_ids), "targets": tf.constant(target_ids)}, training=False)
    losses = [padded_cross_entropy_loss(logits, target_ids, share, size["vocabulary"])[0] for share in (0.0, 0.1)]
    np.savez(
        folder / "results.npz",
        source_ids=source_ids,
        target_ids=target_ids,
        logits=logits.numpy(),
        nats=losses[0].numpy(),
        smoothed=losses[1].numpy(),
        greedy=decode_greedily(model, tf.constant(source_ids), size["target"]),
        beam_1=search(single, tf.constant(source_ids), size["target"]),
        beam_4=search(model, tf.constant(source_ids), size["target"]),
    )


if __name__ == "__main__":
    app.run(main)
