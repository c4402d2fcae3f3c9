"""Figures of generated text, against numbers that were worked out by hand."""

import doctest
import math

import pytest

from tf_llm.evaluation import generated_text
from tf_llm.evaluation.generated_text import (
    compute_perplexity,
    distinct_ngrams,
    list_ngrams,
    match_exactly,
    measure_repetition,
)


def test_docstring_examples():
    result = doctest.testmod(generated_text)
    assert not result.failed and result.attempted


def test_distinct_ngrams_are_counted_over_all_texts_and_never_across_two():
    texts = ["a b a", "b a c"]  # words: a b a b a c -> 3 of 6; pairs: ab ba | ba ac -> 3 of 4
    assert distinct_ngrams(texts, 1) == 3 / 6
    assert distinct_ngrams(texts, 2) == 3 / 4
    assert distinct_ngrams(texts, 4) == 0.0  # there is none
    assert distinct_ngrams([], 1) == 0.0
    with pytest.raises(ValueError, match=r"n is expected to be at least 1\. Received: 0"):
        list_ngrams("a", 0)


def test_repetition_is_a_mean_over_texts_that_are_long_enough():
    # "x y" three times in five places: pairs xy yx xy yx xy -> 2 distinct of 5; the second text repeats nothing
    assert measure_repetition(["x y x y x y", "p q r"], 2) == pytest.approx((3 / 5 + 0) / 2)
    assert measure_repetition(["x y x y x y", "p"], 2) == pytest.approx(3 / 5)
    assert measure_repetition(["p", ""], 4) == 0.0


def test_perplexity_counts_tokens_and_not_texts():
    halves, quarter = [math.log(1 / 2)] * 3, [math.log(1 / 4)]
    assert compute_perplexity([halves, quarter]) == pytest.approx(2 ** (5 / 4))
    assert compute_perplexity([[0.0]]) == 1.0
    assert math.isnan(compute_perplexity([[], []]))


def test_exact_match_forgives_nothing_but_white_space_at_the_ends():
    assert match_exactly(["a b", "a  b", "A b", " a b\n"], ["a b"] * 4) == 0.5
    assert math.isnan(match_exactly([], []))
    with pytest.raises(ValueError, match=r"said is expected to have 2 texts, as wanted has\. Received: 1"):
        match_exactly(["a"], ["a", "b"])
