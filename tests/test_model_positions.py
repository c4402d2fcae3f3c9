"""Position schemes: each against a formula, and what makes it a scheme of positions."""

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tf_llm.model import positions
from tf_llm.model.layers import rotate
from tf_llm.model.positions import PositionEmbedding, RelativeBias, Rotation, bucket_distances, sinusoids

random = np.random.default_rng(0)


def _normal(*shape):
    return random.normal(size=shape).astype("float32")


def test_docstring_examples():
    result = doctest.testmod(positions)
    assert result.attempted >= 3 and result.failed == 0


@pytest.mark.parametrize("width", [4, 6, 64])
def test_sinusoids_equal_the_formula(width):
    expected = np.zeros((50, width))
    for position in range(50):
        for wave in range(width // 2):
            wavelength = 2 * np.pi * 10_000 ** (wave / (width // 2 - 1))
            expected[position, wave] = np.sin(2 * np.pi * position / wavelength)
            expected[position, width // 2 + wave] = np.cos(2 * np.pi * position / wavelength)
    np.testing.assert_allclose(sinusoids(50, width), expected, atol=1e-6)


@pytest.mark.parametrize("width", [2, 7])
def test_sinusoids_need_a_width_to_halve(width):
    message = f"sinusoidal positions expected an even width of at least 4. Received: {width}"
    with pytest.raises(ValueError, match=message):
        sinusoids(3, width)
    with pytest.raises(ValueError, match=message):
        PositionEmbedding(3, "sinusoidal")(np.zeros((1, 3, width)), position=0)


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_positions_are_rows_of_the_table_from_the_given_one_on(kind):
    layer, embedded = PositionEmbedding(8, kind), _normal(2, 3, 4)
    for position in (0, 2, 5, ops.array(5)):
        rows = ops.convert_to_numpy(layer(embedded, position=position)) - embedded
        table = ops.convert_to_numpy(layer.table)[int(position) : int(position) + 3]
        np.testing.assert_allclose(rows, [table, table], atol=1e-6)
    assert len(layer.trainable_weights) == (kind == "learned")
    if kind == "sinusoidal":
        np.testing.assert_array_equal(layer.table, sinusoids(8, 4))


def test_unknown_positions_are_named():
    with pytest.raises(ValueError, match=r"kind expected one of \['learned', 'sinusoidal'\]. Received: 'rotary'"):
        PositionEmbedding(3, "rotary")


@pytest.mark.parametrize("kind", ["learned", "sinusoidal"])
def test_positions_may_be_given_for_each_token(kind):
    layer, embedded = PositionEmbedding(8, kind), _normal(2, 3, 4)
    given_positions = np.array([[0, 1, 0], [5, 7, 2]])
    added = ops.convert_to_numpy(layer(embedded, position=given_positions)) - embedded
    np.testing.assert_allclose(added, ops.convert_to_numpy(layer.table)[given_positions], atol=1e-6)


def _bucket(distance, bidirectional, buckets, max_distance):
    """T5's rule for one distance, in words: half of the buckets for the near ones, a logarithm for the far ones."""
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    far = math.log(distance / exact) / math.log(max_distance / exact) * (buckets - exact)
    return first + min(exact + int(far + 1e-6), buckets - 1)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 20), (4, 4)])
def test_buckets_follow_t5s_rule(bidirectional, buckets, max_distance):
    distances = np.arange(-300, 300, dtype="int32")
    expected = [_bucket(distance, bidirectional, buckets, max_distance) for distance in distances.tolist()]
    found = ops.convert_to_numpy(bucket_distances(distances, bidirectional, buckets, max_distance)).tolist()
    assert found == expected and max(found) == buckets - 1 and min(found) == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9), st.integers(1, 5), st.booleans())
def test_relative_bias_knows_the_distance_alone(position, tokens, bidirectional):
    layer = RelativeBias(3, 14, bidirectional, buckets=8, max_distance=20)
    whole = ops.convert_to_numpy(layer(_normal(1, 14, 4), position=0))
    assert whole.shape == (1, 3, 14, 14)
    for offset in range(-13, 14):
        diagonal = np.diagonal(whole, offset, 2, 3)
        np.testing.assert_array_equal(diagonal, diagonal[..., :1].repeat(diagonal.shape[-1], -1))
    cut = layer(_normal(1, tokens, 4), position=np.int32(position))
    np.testing.assert_array_equal(cut, whole[:, :, position : position + tokens])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_rotary_products_know_the_distance_alone(query, key, shift):
    waves, queries, keys = Rotation(8), _normal(1, 1, 1, 8), _normal(1, 1, 1, 8)

    def product(query, key):
        turned = [
            ops.convert_to_numpy(rotate(vectors, waves(vectors[:, :, 0], position=np.int32(position))))
            for vectors, position in ((queries, query), (keys, key))
        ]
        return (turned[0] * turned[1]).sum()

    assert product(query + shift, key + shift) == pytest.approx(product(query, key), abs=1e-3)
    assert product(0, 0) == pytest.approx((queries * keys).sum(), abs=1e-5)
