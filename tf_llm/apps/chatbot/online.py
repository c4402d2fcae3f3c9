"""The online language model (article, section 2.3): a model that goes on learning from the texts it sees in use.

Dynamic evaluation (Mikolov et al., "Recurrent neural network based language model", 2010; Krause et al., "Dynamic
evaluation of neural sequence models", ICML 2018, https://arxiv.org/abs/1709.07432): each window of a text is first
predicted, then learned from, and so makes what follows likelier. What was predicted is never scored afterwards, so that
bits per byte with and without learning compare.

Nobody watches a model that learns from what comes along, so it is held on a leash:

    bound   the weights stay in a ball around the trained ones: ‖w - w₀‖ <= radius · ‖w₀‖, whatever the texts were
    decay   with each step they go back by a share of the way, as Krause et al. have it
    undo    the weights of before a text come back, bit for bit;  `forget` brings back the trained ones

A model of pages gains by it, the more the further a text is from what it was trained on. One that has answers by heart
pays for each new one with some of the old: examples/benchmarks/chatbot_quality.py has figures of the former.

Glossary: S source length, T target length, V vocabulary.
"""

import dataclasses
import math
from collections import deque

import numpy as np
import tensorflow as tf

from tf_llm.contracts import (
    DECODER_IDS,
    DECODER_POSITIONS,
    DECODER_SEGMENTS,
    END_ID,
    PAD_ID,
    SOURCE_IDS,
    SOURCE_POSITIONS,
    SOURCE_SEGMENTS,
    START_ID,
)

MAX_WINDOWS = 2_000  # of one text; what is behind them is not read
EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class Reading:
    """What came of reading a text."""

    nats: float  # -log probability of its tokens, each window before it was learned from
    tokens: int
    text_bytes: int  # UTF-8, of what was read
    drift: float  # ‖w - w₀‖ / ‖w₀‖ behind it

    @property
    def bits_per_byte(self):
        """Of the text, its end included."""
        return self.nats / math.log(2) / max(self.text_bytes, 1)


class OnlineLearner:
    """Reads texts with a generator's model, and learns from them.

    The generator says from then on what the model has learned: they share its weights.

    Args:
        generate: a `decoding.generator.Generator`, of any model that `build_model` has built. Its frame says how a
            window of a text is shown to the model.
        learning_rate: of each step.
        decay: the share of the way back to the trained weights that each step goes.
        radius: of the ball, in lengths of the trained weights.
        memory: of the running mean of squared gradients, by whose root a step is divided, as in Adam without momentum.
        undos: texts that can be undone; of each the weights are kept.

    Raises:
        ValueError: a number is out of bounds, or the model rounds its weights, so that small steps would be lost.
    """

    def __init__(self, generate, learning_rate=1e-3, decay=0.03, radius=0.1, memory=0.99, undos=4):
        for name, value, most in (
            ("learning_rate", learning_rate, math.inf),
            ("decay", decay, 1),
            ("radius", radius, 1),
        ):
            if not 0 <= value < most:
                raise ValueError(f"{name} is expected to be in [0, {most}). Received: {value!r}")
        self.generate, self.model, self.undos = generate, generate.model, undos
        if self.model.variable_dtype != "float32":
            raise ValueError(
                f"the model is expected to keep its weights in float32, to be moved by little. Received: "
                f"{self.model.variable_dtype}. Build it with another precision"
            )
        self.weights = [variable.value for variable in self.model.trainable_variables]
        self.trained = [tf.identity(weight) for weight in self.weights]
        self.norm = float(tf.linalg.global_norm(self.trained))
        self.squares = [tf.Variable(tf.zeros_like(weight), trainable=False) for weight in self.weights]
        self.steps = tf.Variable(0.0, trainable=False)
        self.learning_rate, self.decay, self.radius, self.memory = learning_rate, decay, radius, memory
        self._before: deque = deque(maxlen=undos)  # the weights, and what the steps go by, of before each text
        self._score = tf.function(lambda batch: self._cross_entropy(batch))
        self._learn = tf.function(self._take_step)

    # === What a user calls ===

    def read(self, text, learns=True):
        """Reads a text from its beginning to its end, and learns from it: a `Reading`.

        Args:
            text: a page where the model continues pages.
            learns: whether it does; else the text is only scored.
        """
        return self._read("", text, learns)

    def read_pair(self, prompt, text, learns=True):
        """The same of a text that answers a prompt; of a longer answer than the model can give, the beginning."""
        return self._read(prompt, text, learns)

    def undo(self):
        """Takes back the latest text that is not taken back yet. Returns whether there was one."""
        if not self._before:
            return False
        self._restore(self._before.pop())
        return True

    def forget(self):
        """Takes back everything: the trained weights, and none of what was read can be undone."""
        self._restore([*self.trained, *map(tf.zeros_like, self.squares), tf.zeros([])])
        self._before.clear()

    @property
    def drift(self):
        """How far the weights are from the trained ones, in lengths of those."""
        differences = [weight - trained for weight, trained in zip(self.weights, self.trained, strict=True)]
        return float(tf.linalg.global_norm(differences)) / max(self.norm, EPSILON)

    # === How ===

    @property
    def _state(self):
        return [*self.weights, *self.squares, self.steps]

    def _restore(self, values):
        for variable, value in zip(self._state, values, strict=True):
            variable.assign(value)

    def _read(self, prompt, text, learns):
        if learns and self.undos:
            self._before.append([tf.identity(variable) for variable in self._state])
        encode, length = self.generate.tokenizer.encode, self.generate.target_length
        asked, ids = encode(prompt), [*encode(text), END_ID]
        most = length if self.generate.frame == "request" else length * MAX_WINDOWS
        kept = ids[:most]
        text_bytes = len(text.encode("utf-8", "surrogatepass")) * len(kept) // len(ids)
        nats = 0.0
        for begin in range(0, len(kept), length):
            batch = self._make_batch([*asked, *kept[:begin]], kept[begin : begin + length])
            if learns:
                settings = self.learning_rate, self.decay, self.radius, self.memory
                nats += float(self._learn(batch, tf.constant(settings)))
            else:
                nats += float(self._score(batch))
        return Reading(nats, len(kept), text_bytes, self.drift)

    def _make_batch(self, before, ids):
        """The window of `ids` behind `before`, as the model was shown it in training: (columns, targets, weights)."""
        source = np.full([1, self.generate.source_length], PAD_ID, "int32")  # [1, S]
        framed = self.generate.frame_ids(before)
        source[0, : len(framed)] = framed
        targets = np.full([1, self.generate.target_length], PAD_ID, "int32")  # [1, T]
        targets[0, : len(ids)] = ids
        said = np.concatenate([[[START_ID]], targets[:, :-1]], axis=1).astype("int32")
        columns = {SOURCE_IDS: source, DECODER_IDS: said}
        if self.model.config.packed:
            count = (np.arange(targets.shape[1]) < len(ids)).astype("int32")[None]
            columns |= {SOURCE_SEGMENTS: (source != PAD_ID).astype("int32"), DECODER_SEGMENTS: count}
            columns |= {
                name: np.arange(side.shape[1], dtype="int32")[None]
                for name, side in ((SOURCE_POSITIONS, source), (DECODER_POSITIONS, said))
            }
        columns = {name: tf.constant(column) for name, column in columns.items()}
        return columns, tf.constant(targets), tf.constant(np.arange(targets.shape[1]) < len(ids), tf.float32)

    def _cross_entropy(self, batch):
        """Nats of a window, summed over its tokens: float32 []."""
        columns, targets, counts = batch
        logits = tf.cast(self.model(columns, training=False), tf.float32)  # [1, T, V]
        nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)  # [1, T]
        return tf.reduce_sum(nats * counts)

    def _take_step(self, batch, settings):
        """Scores a window, then moves the weights: the nats of before it."""
        learning_rate, decay, radius, memory = tf.unstack(settings)
        with tf.GradientTape() as tape:
            nats = self._cross_entropy(batch)
            loss = nats / tf.maximum(tf.reduce_sum(batch[2]), 1.0)
        gradients = tape.gradient(loss, [variable.value for variable in self.model.trainable_variables])
        gradients = [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]
        sound = tf.math.is_finite(tf.linalg.global_norm(gradients))  # else this step is none
        self.steps.assign_add(tf.cast(sound, tf.float32))
        unbiased = 1.0 - tf.pow(memory, tf.maximum(self.steps, 1.0))  # the mean of squares began at 0
        moved = []
        for weight, trained, square, gradient in zip(self.weights, self.trained, self.squares, gradients, strict=True):
            if gradient is None:  # a weight that plays no part
                moved.append(weight - trained)
                continue
            square.assign(tf.where(sound, memory * square + (1 - memory) * tf.square(gradient), square))
            step = learning_rate * gradient / (tf.sqrt(square / unbiased) + EPSILON)
            moved.append((1 - decay) * (weight - step - trained))
        # Back to the edge of the ball, if need be.
        norm = tf.linalg.global_norm(moved)
        scale = tf.minimum(1.0, radius * self.norm / tf.maximum(norm, EPSILON))
        for weight, trained, difference in zip(self.weights, self.trained, moved, strict=True):
            weight.assign(tf.where(sound, trained + scale * difference, weight))
        return nats
