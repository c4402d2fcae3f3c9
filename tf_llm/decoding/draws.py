"""Chance that hangs on nothing but a row's own seed: what a row draws is the same alone, in company and in pieces.

TensorFlow's random ops give a whole batch its numbers from one seed, so that a row's numbers change with its place
among the others. Here a number is a pure function of the row's seed, of where the token stands, and of what it is drawn
for: Threefry, a small cipher whose output passes for random (Salmon et al. 2011, "Parallel random numbers: as easy as
1, 2, 3", https://doi.org/10.1145/2063384.2063405). It is made of additions, rotations and exclusive ors, hence bit for
bit the same on every device, in and outside of a graph.

Glossary: N rows.
"""

import numpy as np
import tensorflow as tf

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))  # of Threefry-2x32, four rounds each
PARITY = 0x1BD11BDA


def split_seeds(seeds):
    """Whole numbers in [0, 2⁶⁴) -> uint32 [N, 2], low and high halves.

    >>> split_seeds([7, 2**32 + 1]).tolist()
    [[7, 0], [1, 1]]
    """
    return np.array([[seed % 2**32, seed >> 32] for seed in seeds], "uint32").reshape(-1, 2)


def draw_uniforms(seeds, place, purpose=0):
    """Numbers in [0, 1): seeds uint32 [N, 2] -> float32 [N], or [N, P] for several at once.

    Args:
        seeds: see `split_seeds`.
        place: int32 [] or [P], the number of the token that is drawn for.
        purpose: int32 [] or [P]; other purposes give other numbers.
    """
    place, purpose = tf.cast(place, tf.uint32), tf.cast(purpose, tf.uint32)
    keys = [half if not len(place.shape) else half[:, None] for half in (seeds[:, 0], seeds[:, 1])]
    bits, _ = cipher(keys, (place + tf.zeros_like(keys[0]), purpose + tf.zeros_like(keys[0])))
    return tf.cast(tf.cast(tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32)), tf.int32), tf.float32) * 2.0**-23


def cipher(key, counter):
    """Threefry-2x32 of 20 rounds: two pairs of uint32 tensors -> a pair of uint32 tensors."""
    keys = (*key, tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(*key), tf.constant(PARITY, tf.uint32)))
    first, second = counter[0] + keys[0], counter[1] + keys[1]
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            first += second
            left = tf.bitwise.left_shift(second, tf.constant(rotation, tf.uint32))
            right = tf.bitwise.right_shift(second, tf.constant(32 - rotation, tf.uint32))
            second = tf.bitwise.bitwise_xor(tf.bitwise.bitwise_or(left, right), first)
        first += keys[(group + 1) % 3]
        second += keys[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return first, second
