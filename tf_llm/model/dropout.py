"""Dropout whose mask costs little: one random word decides for several elements.

Drawing random words is most of what `keras.layers.Dropout` costs, and it draws one for each element. To drop a tenth,
eight bits do. On TensorFlow the words have 64 bits: XLA on a CPU takes a hundred times as long over words of 32 bits.

Glossary: ... leading axes, D width, the last axis.
"""

import math

import keras
import numpy as np
from keras import ops

from tf_llm.contracts import REPLICA

WORD = "int64" if keras.backend.backend() == "tensorflow" else "int32"  # JAX knows 64 bits only when told so
SIGNIFICANT_BITS = {"bfloat16": 8, "float16": 11}  # of the numbers whose precision shows in a mean
# Added to a seed for each further replica: 2³² over the golden ratio. Its multiples keep clear of each other and of the
# small numbers that people choose for seeds.
STRIDE = 0x9E3779B9


class ReplicaSeeds(keras.random.SeedGenerator):
    """A `keras.random.SeedGenerator` that gives another seed on each replica (`contracts.REPLICA`).

    Its variable is the same on all of them, so a checkpoint holds it once. The first replica has the seeds of a single
    device. Whoever calls the model has to say on which it is: `Trainer` does, `model.fit` does not.
    """

    def next(self, ordered=True):
        seed, replica = super().next(ordered), REPLICA.get()
        return seed + ops.cast(replica, seed.dtype) * np.array([STRIDE, 0], keras.backend.standardize_dtype(seed.dtype))


@keras.saving.register_keras_serializable("tf_llm")
class Dropout(keras.layers.Layer):
    """Sets a share of all elements to zero in training, and scales up the others (Srivastava et al. 2014).

    An element is dropped if a random number of 8 bits is small enough, so the share is a multiple of 1/256: .1 becomes
    26/256. Where that would be off by more than a fiftieth of `rate`, or of 1 - `rate`, the numbers have 16 bits. The
    scale belongs to the share that is really dropped, so every element keeps its expectation.

    Args:
        rate: the share.
        seed: a whole number, or None for one from Keras's own seeds (`keras.utils.set_random_seed`).

    Attributes:
        realised_rate: the share that is really dropped.
        bits: of the random number that decides on an element.

    Call: (hidden [..., D]; training, without which nothing is dropped) -> [..., D].

    Raises:
        ValueError: `rate` is not in [0, 1), or D is unknown.

    >>> layer = Dropout(0.1)
    >>> layer.realised_rate, layer.bits
    (0.1015625, 8)
    >>> round(Dropout(0.01).realised_rate, 6), Dropout(0.01).bits
    (0.009995, 16)
    >>> hidden = Dropout(0.5, seed=1)(ops.ones((1000, 1000)), training=True)
    >>> round(float(ops.mean(hidden)), 1), float(ops.max(hidden))
    (1.0, 2.0)
    """

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"dropout.rate expected a share in [0, 1). Received: {rate!r}")
        self.rate, self.seed, self.supports_masking = rate, seed, True
        self.bits, self.dropped = count_dropped(rate)
        self.realised_rate = self.dropped / 2**self.bits
        self.factors = split_scale(1 / (1 - self.realised_rate), SIGNIFICANT_BITS.get(self.compute_dtype))
        if rate:
            self.seed_generator = ReplicaSeeds(seed)

    def build(self, hidden_shape):
        if hidden_shape[-1] is None:
            raise ValueError(f"dropout expected a known size of the last axis. Received: shape {tuple(hidden_shape)}")

    def call(self, hidden, training=None):
        if not training or not self.rate:
            return hidden
        first, second = self.factors
        mask = ops.cast(self.draw_mask(ops.shape(hidden)), hidden.dtype) * first  # [..., D], all that backward needs
        return hidden * mask if second == 1 else hidden * mask * second

    def draw_mask(self, shape):
        """Which elements stay: bool [..., D], others at each call."""
        *leading, width = shape
        word_bits = int(WORD.removeprefix("int"))
        words = -(-width * self.bits // word_bits)
        limit = 2 ** (word_bits - 1)
        drawn = keras.random.randint((*leading, words), -limit, limit - 1, WORD, seed=self.seed_generator)
        return ops.view(drawn, f"uint{self.bits}")[..., :width] >= self.dropped  # [..., D]

    def compute_output_shape(self, hidden_shape):
        return hidden_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def count_dropped(rate):
    """How many bits a decision needs, and how many of the numbers with so many bits drop an element.

    >>> count_dropped(0.1), count_dropped(0.5), count_dropped(0.001)
    ((8, 26), (8, 128), (16, 66))
    """
    dropped = round(rate * 2**8)
    if abs(dropped / 2**8 - rate) <= min(rate, 1 - rate) / 50:
        return 8, dropped
    return 16, min(max(round(rate * 2**16), 1), 2**16 - 1)


def split_scale(scale, significant_bits):
    """Two factors, each a number of so few bits, whose product is near `scale`; (scale, 1) where the bits suffice.

    bfloat16 has 1.109375 and 1.1171875, and nothing between that would do for a scale of 1.1130: what dropout leaves
    would be 0.3 % too small in the mean, at every place it is used.

    >>> abs(math.prod(split_scale(256 / 230, 8)) - 256 / 230) < 1e-3
    True
    >>> split_scale(2.0, 8)
    (2.0, 1.0)
    """
    if significant_bits is None:
        return scale, 1.0
    pairs = []
    for numerator in range(2 ** (significant_bits - 1), 2**significant_bits):
        second = numerator / 2 ** (significant_bits - 1)  # each number in [1, 2)
        pairs.append((round_to_bits(scale / second, significant_bits), second))
    return min(pairs, key=lambda pair: abs(math.prod(pair) - scale))


def round_to_bits(number, significant_bits):
    """The nearest binary floating-point number of so many bits.

    >>> round_to_bits(1 / 3, 8)
    0.333984375
    """
    fraction, exponent = math.frexp(number)
    return math.ldexp(round(math.ldexp(fraction, significant_bits)), exponent - significant_bits)
