"""A model without a network, for what lies above a model: its logits hang on the source and on all that was said."""

import types

import numpy as np
import tensorflow as tf

from tf_llm.contracts import END_ID, PAD_ID, START_ID
from tf_llm.decoding.generator import Generator
from tf_llm.text.tokenizers import CharTokenizer

SIZE = 997  # keys, each with logits of its own


class ScriptedModel:
    """What `Generator` expects of a model. Its cache holds the tokens, as another model's holds keys and values.

    Args:
        seed: of its logits.
        vocabulary_size, source_length, target_length: V, S, T.
        end: added to the logit of END_ID.
        scale: of the logits.
        like: another one, with whose logits these are mixed.
    """

    def __init__(self, seed, vocabulary_size=9, source_length=6, target_length=5, end=0.0, scale=1.5, like=None):
        random = np.random.default_rng(seed)
        self.logits = random.normal(scale=scale, size=(SIZE, vocabulary_size)).astype("float32")
        self.logits[:, END_ID] += end
        if like is not None:
            self.logits = 0.6 * like.logits + 0.4 * self.logits
        self.hidden = random.normal(size=(SIZE, 4)).astype("float32")
        self.config = types.SimpleNamespace(source_length=source_length, target_length=target_length, d_model=4)

    def key(self, source, said):
        """Of a source (a list of ids, unpadded) and what was said in the window."""
        source = [*source, *[PAD_ID] * (self.config.source_length - len(source))]
        key = sum(token_id * (7 * i + 3) for i, token_id in enumerate(source)) % SIZE
        return (key + sum((token_id + 1) * (31 * i + 11) for i, token_id in enumerate([START_ID, *said]))) % SIZE

    def build_start(self):
        def start(source, training):
            weights = 7 * tf.range(self.config.source_length) + 3
            vectors = tf.gather(tf.constant(self.hidden), source)  # [N, S, D]
            return {
                "row": tf.reduce_sum(source * weights, 1) % SIZE,
                "context": vectors,
                "context_mask": source != PAD_ID,
            }

        return start

    def empty_cache(self, rows):
        return {"keys_0": tf.zeros([rows, self.config.target_length], tf.int32), "values_0": tf.zeros([rows, 1])}

    def build_step(self, num_tokens=1, with_hidden=False):
        weights = 31 * np.arange(self.config.target_length, dtype="int32") + 11

        def step(inputs, training):
            position = inputs["position"]
            tf.debugging.assert_less_equal(position + num_tokens, self.config.target_length)
            places = position + tf.range(num_tokens)
            at = tf.range(self.config.target_length)[None, :] == places[:, None]  # [K, T]
            new = tf.reduce_sum(tf.where(at[None], inputs["token_ids"][:, :, None], 0), axis=1)  # [N, T]
            cache = tf.where(tf.reduce_any(at, axis=0), new, inputs["keys_0"])
            seen = tf.range(self.config.target_length)[None, :] <= places[:, None]  # [K, T]
            sums = tf.reduce_sum(tf.where(seen, ((cache + 1) * weights)[:, None], 0), axis=2)  # [N, K]
            keys = (inputs["row"][:, None] + sums) % SIZE
            hidden = [tf.gather(tf.constant(self.hidden), keys)] if with_hidden else []
            return [tf.gather(tf.constant(self.logits), keys), *hidden, {**inputs, "keys_0": cache}]

        def cached(inputs, training=False):
            *outputs, state = step(inputs, training)
            return [*outputs, {name: state[name] for name in ("keys_0", "values_0")}]

        return cached

    def log_probabilities(self, source, said):
        """The model's own, of what comes next: float64 [V]."""
        logits = self.logits[self.key(source, said)].astype("float64")
        return logits - np.logaddexp.reduce(logits)


def build_scripted(seed=0, frame="page", draft=None, config=None, **settings):
    """A `Generator` of a scripted model, that speaks in the letters a, b, c, …: 3 is "a"."""
    model = ScriptedModel(seed, **settings)
    letters = [chr(ord("a") + i) for i in range(model.logits.shape[1] - 3)]
    return Generator(model, CharTokenizer(letters), frame, config, draft)
