"""Sketches: the estimate is right on average and as exact as promised; shingles are what they are said to be."""

import doctest
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.text import minhash
from tf_llm.text.minhash import (
    choose_bands,
    count_needed,
    find_shingles,
    make_bands,
    make_signature,
    normalize,
    sketch,
    sketch_text,
)


def test_docstring_examples():
    result = doctest.testmod(minhash)
    assert result.attempted and result.failed == 0


@pytest.mark.parametrize("union", [10, 100, 2_000])
@pytest.mark.parametrize("jaccard", [0.5, 0.8])
def test_the_share_of_equal_minima_estimates_the_similarity(union, jaccard):
    rng = np.random.default_rng(0)
    both, half = round(union * jaccard), round(union * jaccard) + round(union * (1 - jaccard) / 2)
    errors = []
    for _ in range(60):
        elements = rng.integers(0, 1 << 63, union, np.uint64)
        one, other = (sketch(some, 256) for some in (elements[:half], np.delete(elements, slice(both, half))))
        errors.append(np.mean(one == other) - jaccard)
    promised = np.sqrt(jaccard * (1 - jaccard) / 256)
    assert abs(np.mean(errors)) < 4 * promised / np.sqrt(60)
    assert np.std(errors) < 1.3 * promised


@settings(deadline=None)
@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1), st.integers(1, 40))
def test_a_sketch_is_of_a_set_and_a_union_has_the_minima_of_both(elements, size):
    elements = np.array(elements, np.uint64)
    whole = sketch(elements, size)
    assert np.array_equal(whole, sketch(np.repeat(elements[::-1], 2), size))
    half = len(elements) // 2
    if half:
        assert np.array_equal(whole, np.minimum(sketch(elements[:half], size), sketch(elements[half:], size)))


def refer_shingles(text, shingle):
    text = "".join(f" {letter} " if minhash.UNSPACED.match(letter) else letter for letter in text)
    words = text.split()
    runs = [tuple(words[n : n + shingle]) for n in range(max(1, len(words) - shingle + 1))]
    return runs if words else []


LETTERS = st.sampled_from("abcéß ы 日本語ไทยက ក 한국 🎄 𠀀 ‘’\u3000\n")


@settings(deadline=None, max_examples=150)
@given(st.text(LETTERS, max_size=60), st.integers(1, 6))
def test_shingles_are_runs_of_words(text, shingle):
    text = normalize(text)
    expected, hashes = refer_shingles(text, shingle), find_shingles(text, shingle).tolist()
    assert len(hashes) == len(expected)
    assert len(set(zip(hashes, expected, strict=True))) == len(set(hashes)) == len(set(expected))


def test_shingles_do_not_depend_on_where_they_stand():
    alone = find_shingles("a b c 日 e")
    assert find_shingles(f"{'x ' * 70}a b c 日 e{' y' * 70}").tolist().count(alone[0]) == 1


@pytest.mark.parametrize("text", ["word ", "日\ud800"])
def test_memory_does_not_grow_with_the_text(text, monkeypatch):
    monkeypatch.setattr(minhash, "PIECE", 1 << 10)
    peaks = []
    for pieces in (1, 1, 8):  # the first to warm up
        long = normalize(text * (pieces * minhash.PIECE // len(text)))
        tracemalloc.start()
        assert len(sketch_text(long, 256)) == 256
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1] < 10 << 20


def test_long_texts_are_alike_in_spite_of_their_seams():
    words = [f"word{number % 997}-{number % 89}" for number in range(20_000)]
    one, other = " ".join(words), " ".join(words[1:])
    assert len(one) > 3 * minhash.PIECE
    assert np.mean(sketch_text(one, 256) == sketch_text(other, 256)) > 0.98


def test_bands_find_what_is_similar_enough():
    for jaccard in (0.3, 0.5, 0.7, 0.8, 0.95, 1.0):
        for size in (1, 16, 100, 256):
            bands, rows = choose_bands(jaccard, size)
            assert 1 <= bands * rows <= size and (rows == 1 or 1 - (1 - jaccard**rows) ** bands >= 0.99)
    minima = sketch(np.arange(50, dtype=np.uint64), 256)
    changed = minima.copy()
    changed[17] += 1
    differ = make_bands(minima, 32, 8) != make_bands(changed, 32, 8)
    assert np.flatnonzero(differ).tolist() == [2]


def test_signatures_agree_by_chance_in_one_of_256_places():
    one, other = (
        make_signature(sketch(find_shingles(" ".join(map(str, numbers))), 65_536))
        for numbers in (range(9_000), range(9_000, 18_000))
    )
    assert np.mean(one == other) == pytest.approx(1 / 256, rel=0.2)
    assert count_needed(1e-9, 65_536) == 257 and count_needed(1.0, 65_536) == 65_536
