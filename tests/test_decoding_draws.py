"""Chance: the published test vectors of Threefry, and numbers that are as even as they should be."""

import doctest

import numpy as np
import tensorflow as tf

from tf_llm.decoding import draws
from tf_llm.decoding.draws import cipher, draw_uniforms, split_seeds


def test_docstring_examples():
    result = doctest.testmod(draws)
    assert result.attempted and not result.failed


def test_known_answers():
    """Those of Random123, `kat_vectors`, threefry2x32 with 20 rounds: counter, key, answer."""
    for counter, key, answer in (
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ):
        words = lambda pair: tuple(tf.constant([word], tf.uint32) for word in pair)  # noqa: E731
        assert tuple(int(word[0]) for word in cipher(words(key), words(counter))) == answer


def test_numbers_are_even_and_do_not_hang_together():
    seeds = tf.constant(split_seeds(range(2000)))
    numbers = draw_uniforms(seeds, tf.range(10), tf.zeros([10], tf.int32)).numpy()  # [2000, 10]
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # χ², 19 degrees of freedom, p = .001
    correlations = np.corrcoef(numbers.T)[np.triu_indices(10, 1)]
    assert np.abs(correlations).max() < 0.1
    other = draw_uniforms(seeds, 3, 1).numpy()
    assert abs(np.corrcoef(numbers[:, 3], other)[0, 1]) < 0.1


def test_a_number_hangs_on_its_own_seed_place_and_purpose_alone():
    seeds = tf.constant(split_seeds([5, 2**40, 5]))
    table = draw_uniforms(seeds, tf.range(6), tf.constant([0, 1, 2, 0, 1, 2])).numpy()
    assert (table[0] == table[2]).all() and (table[0] != table[1]).all()
    compiled = tf.function(draw_uniforms, jit_compile=True)
    for place in range(6):
        alone = compiled(seeds[:1], tf.constant(place), tf.constant(place % 3)).numpy()
        assert alone[0] == table[0, place]
