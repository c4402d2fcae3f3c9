"""What the encoder reads and what the decoder must say: worked examples, and what the seed decides."""

import doctest
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.contracts import DECODER_IDS, SOURCE_IDS, START_ID, TARGET_IDS, WEIGHTS
from tf_llm.data import objectives
from tf_llm.data.denoising import SENTINELS, Continuation, Denoisers, SpanCorruption, plan_denoisers
from tf_llm.data.objectives import OBJECTIVES, ObjectiveConfig, PrefixLM, build_objective, sentinels_needed
from tf_llm.data.pairs import Pairs

S, T = 6, 4
BLOCKS = np.array(
    [
        [7, 8, 9, 10, 11, 12, 13, 14, 15, 16],  # from the middle of a page
        [0, 0, 0, 0, 0, 1, 7, 8, 9, 10],  # its beginning
        [0, 0, 1, 7, 8, 9, 10, 1, 0, 0],  # its end
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],  # fills up a batch
    ],
    "int32",
)


def make_row(block, seed=(0, 0), shorten=False):
    row = PrefixLM(S, T, shorten)(tf.constant(block, tf.int32), tf.constant(seed, tf.int32))
    return {name: column.numpy().tolist() for name, column in row.items()}


def test_docstring_examples():
    result = doctest.testmod(objectives)
    assert result.attempted >= 7 and result.failed == 0


def test_padding_has_no_weight_and_stands_behind_the_source():
    middle, beginning, end, empty = [make_row(block) for block in BLOCKS]
    assert middle == {
        SOURCE_IDS: [7, 8, 9, 10, 11, 12],
        DECODER_IDS: [START_ID, 13, 14, 15],
        TARGET_IDS: [13, 14, 15, 16],
        WEIGHTS: [1, 1, 1, 1],
    }
    assert beginning[SOURCE_IDS] == [1, 0, 0, 0, 0, 0] and beginning[WEIGHTS] == [1, 1, 1, 1]
    assert end == {
        SOURCE_IDS: [1, 7, 8, 9, 0, 0],
        DECODER_IDS: [START_ID, 10, 1, 0],
        TARGET_IDS: [10, 1, 0, 0],
        WEIGHTS: [1, 1, 0, 0],
    }
    assert {value for column in empty.values() for value in column} == {0}
    assert make_row(BLOCKS[3], shorten=True) == empty


@settings(deadline=None)  # the first call of TensorFlow takes long
@given(st.lists(st.integers(1, 50), min_size=1, max_size=S), st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1))
def test_short_source_is_the_last_part_of_the_whole(source, seed, index):
    block = [0] * (S - len(source)) + source + [5, 6, 1, 0]
    row, whole = make_row(block, (seed, index), shorten=True), make_row(block)
    kept = [number for number in row[SOURCE_IDS] if number]
    assert len(kept) >= 1 and row[SOURCE_IDS] == kept + [0] * (S - len(kept))
    assert source[-len(kept) :] == kept and whole[SOURCE_IDS] == source + [0] * (S - len(source))
    assert {**row, SOURCE_IDS: None} == {**whole, SOURCE_IDS: None}


def test_source_lengths_are_evenly_spread():
    objective = PrefixLM(S, T, shorten=True)
    rows = tf.data.Dataset.range(1500).map(lambda n: objective(tf.constant(BLOCKS[2]), [3, tf.cast(n, tf.int32)]))
    lengths = Counter(np.count_nonzero(row[SOURCE_IDS]) for row in rows.as_numpy_iterator())
    assert sorted(lengths) == [1, 2, 3, 4]  # all that stands there, and no more
    assert all(count == pytest.approx(1500 / 4, rel=0.2) for count in lengths.values())


def test_seed_decides():
    rows = {seed: make_row(BLOCKS[0], seed, shorten=True) for seed in [(1, n) for n in range(20)]}
    assert all(make_row(BLOCKS[0], seed, shorten=True) == row for seed, row in rows.items())
    assert len({str(row) for row in rows.values()}) == S
    others = [make_row(BLOCKS[0], (2, n), shorten=True) for n in range(20)]
    assert others != list(rows.values())
    assert make_row(BLOCKS[0], (1, 0)) == make_row(BLOCKS[0], (2, 5))


@pytest.mark.parametrize("shorten", [False, True])
def test_eager_equals_tf_data(shorten):
    objective = PrefixLM(S, T, shorten)
    dataset = tf.data.Dataset.from_tensor_slices(BLOCKS).enumerate()
    dataset = dataset.map(lambda n, block: objective(block, tf.stack([7, tf.cast(n, tf.int32)])))
    assert {name: (spec.shape, spec.dtype) for name, spec in dataset.element_spec.items()} == {
        SOURCE_IDS: ((S,), tf.int32),
        DECODER_IDS: ((T,), tf.int32),
        TARGET_IDS: ((T,), tf.int32),
        WEIGHTS: ((T,), tf.float32),
    }
    for number, row in enumerate(dataset.as_numpy_iterator()):
        expected = make_row(BLOCKS[number], (7, number), shorten)
        assert {name: column.tolist() for name, column in row.items()} == expected


def test_block_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"source_length \+ target_length = 6 \+ 4 ids. Received: 9"):
        make_row(BLOCKS[0, :9])


@pytest.mark.parametrize(
    ("kind", "trained", "scored", "sentinels"),
    [
        ("prefix_lm", PrefixLM, PrefixLM, 0),
        ("span_corruption", SpanCorruption, Continuation, SENTINELS),
        ("denoisers", Denoisers, Continuation, SENTINELS),
        ("pairs", Pairs, Pairs, 0),
    ],
)
def test_every_kind_is_built(kind, trained, scored, sentinels):
    config = ObjectiveConfig(kind=kind, noise_density=0.3, mean_span_length=5.0, packed=True)
    one, other = (build_objective(config, S, T, 200, training=training, overlap=3) for training in (True, False))
    assert (type(one), type(other)) == (trained, scored)
    assert {(objective.source_length, objective.target_length) for objective in (one, other)} == {(S, T)}
    assert sentinels_needed(config) == sentinels
    if kind == "prefix_lm":
        assert (one.shorten, other.shorten) == (True, False)
        config = ObjectiveConfig(shorten_sources=False)
        assert not build_objective(config, S, T, 200, training=True, overlap=3).shorten
    elif kind == "span_corruption":
        assert (one.noise_density, one.mean_span_length, other.overlap, other.front) == (0.3, 5.0, 3, [])
    elif kind == "denoisers":
        assert (other.overlap, other.front) == (3, [200 - 98])
    else:
        assert one.packed and other.packed


def test_kinds_are_all_tested():
    assert sorted(OBJECTIVES) == ["denoisers", "pairs", "prefix_lm", "span_corruption"]


OVERLAP, LENGTH = 12, 32


@pytest.mark.parametrize("kind", ["prefix_lm", "span_corruption", "denoisers"])
@settings(deadline=None, max_examples=20)
@given(st.integers(1, OVERLAP), st.integers(1, LENGTH - OVERLAP), st.integers(0, 99))
def test_scoring_makes_every_fresh_id_a_target_once(kind, context, fresh, seed):
    """Whatever an objective is trained on, its validation loss is a sum over the same ids."""
    lengths = (OVERLAP, LENGTH - OVERLAP) if kind == "prefix_lm" else plan_denoisers(LENGTH + 10)
    objective = build_objective(ObjectiveConfig(kind=kind), *lengths, 300, training=False, overlap=OVERLAP)
    ids = np.random.default_rng(seed).integers(1, 190, context + fresh)
    block = np.pad(ids, [OVERLAP - context, LENGTH - OVERLAP - fresh]).astype("int32")
    row = {name: column.numpy() for name, column in objective(tf.constant(block), tf.constant([0, 0])).items()}
    assert row[TARGET_IDS][row[WEIGHTS] == 1].tolist() == ids[context:].tolist()
    assert [id for id in row[SOURCE_IDS].tolist() if 0 < id < 190][:context] == ids[:context].tolist()


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (
            {"kind": "causal_lm"},
            r"kind expected one of \['denoisers', 'pairs', 'prefix_lm', 'span_corruption'\]. Received: 'causal_lm'",
        ),
        ({"kind": ["pairs"]}, r"kind expected one of .* Received: \['pairs'\]"),
        ({"noise_density": 1.0}, r"noise_density expected a number in \(0, 1\). Received: 1.0"),
        ({"noise_density": "some"}, "noise_density expected a number"),
        ({"mean_span_length": 0.5}, r"mean_span_length expected a finite number of at least 1. Received: 0.5"),
        ({"mean_span_length": float("inf")}, r"mean_span_length expected a finite number of at least 1. Received: inf"),
        ({"shorten_sources": 1}, r"shorten_sources expected True or False. Received: 1"),
        ({"packed": "yes"}, r"packed expected True or False. Received: 'yes'"),
    ],
    ids=lambda value: "-".join(map(str, value.items())) if isinstance(value, dict) else "",
)
def test_wrong_settings_are_named(setting, text):
    with pytest.raises(ValueError, match="^objective." + text):
        ObjectiveConfig(**setting)
