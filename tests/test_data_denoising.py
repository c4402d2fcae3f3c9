"""Span corruption, UL2's mixture and what scores them: the published algorithm, exactly, and nothing lost."""

import doctest
import itertools
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_llm.contracts import DECODER_IDS, END_ID, SOURCE_IDS, START_ID, TARGET_IDS, WEIGHTS
from tf_llm.data import denoising, rows
from tf_llm.data.denoising import (
    DENOISERS,
    MODES,
    SENTINELS,
    Continuation,
    Denoisers,
    SpanCorruption,
    corrupt,
    count_noise,
    draw_noise_mask,
    plan_denoisers,
    plan_lengths,
    plan_window,
)

V = 1000
FIGURE = "Thank you for inviting me to your party last week ."
FIRST_SENTINEL = V - SENTINELS  # ids from here on are sentinels


def draw(objective, blocks, count, seed=5):
    """`count` rows of one block, or of each of several, as arrays [count, ·]."""
    blocks = tf.constant(blocks, tf.int32)
    dataset = tf.data.Dataset.range(count).map(
        lambda n: objective(blocks if blocks.shape.rank == 1 else blocks[n], tf.stack([seed, tf.cast(n, tf.int32)])),
        num_parallel_calls=2,
    )
    (rows,) = dataset.batch(count).as_numpy_iterator()
    return rows


def restore(source, target):
    """The window that a row was made of: each sentinel of the source replaced by its span."""
    spans, current = {}, None
    for number in target[: np.argmax(target == 0) if 0 in target else None].tolist()[:-1]:
        if number >= FIRST_SENTINEL:
            current = spans.setdefault(number, [])
        else:
            current.append(number)
    ids = source[source != 0].tolist()[:-1]
    assert source[len(ids)] == END_ID == target[np.count_nonzero(target) - 1]
    return [id for number in ids for id in (spans[number] if number >= FIRST_SENTINEL else [number])]


def find_lengths(mask):
    """Sizes of the spans of True in a mask."""
    return [len(list(group)) for value, group in itertools.groupby(mask) if value]


def published_noise_mask(length, density, mean, rng):
    """`random_spans_noise_mask` as the paper's code describes it, written anew in NumPy."""
    noise = min(max(round(length * density), 1), length - 1)
    spans = max(round(noise / mean), 1)

    def segments(items):
        borders = np.sort(rng.permutation(items - 1)[: spans - 1]) + 1
        return np.diff([0, *borders, items])

    sizes = np.stack([segments(length - noise), segments(noise)], axis=1).ravel()
    return np.repeat(np.arange(2 * spans) % 2 == 1, sizes)


def chi_square(counts):
    """How far counts are from even, in standard deviations."""
    counts = np.asarray(counts, float)
    freedom = counts.size - 1
    return (np.sum((counts - counts.mean()) ** 2) / counts.mean() - freedom) / np.sqrt(2 * freedom)


@pytest.mark.parametrize(("module", "attempted"), [(denoising, 17), (rows, 3)], ids=["denoising", "rows"])
def test_docstring_examples(module, attempted):
    assert doctest.testmod(module) == (0, attempted)


def test_figure_of_the_paper():
    words = FIGURE.split()
    mask = [word in ("for", "inviting", "last") for word in words]
    row = corrupt(tf.range(3, 14), tf.constant(mask), 12, 8, V)
    names = {0: "<pad>", 1: "</s>", V - 1: "<X>", V - 2: "<Y>", V - 3: "<Z>"} | dict(enumerate(words, start=3))
    source, target = (" ".join(names[id] for id in row[name].numpy()) for name in (SOURCE_IDS, TARGET_IDS))
    assert source == "Thank you <X> me to your party <Y> week . </s> <pad>"
    assert target == "<X> for inviting <Y> last <Z> </s> <pad>"
    assert row[DECODER_IDS].numpy().tolist() == [START_ID, *row[TARGET_IDS].numpy()[:-1]]
    assert row[WEIGHTS].numpy().tolist() == [1] * 7 + [0]


def test_every_mask_is_equally_likely_as_in_the_published_algorithm():
    """Windows of 12 ids, 5 of them masked in 2 spans: 4 x 6 masks."""
    length, density, mean, count = 12, 0.4, 2.5, 6000
    noise, spans = (int(number) for number in count_noise(length, density, mean))
    assert (noise, spans) == (5, 2)
    masks = draw(lambda _, seed: draw_noise_mask(length, length, noise, spans, seed), [0], count)
    ours = Counter(map(tuple, masks.tolist()))
    rng = np.random.default_rng(3)
    theirs = Counter(tuple(published_noise_mask(length, density, mean, rng).tolist()) for _ in range(count))
    assert set(ours) == set(theirs) and len(ours) == 24
    assert abs(chi_square(list(ours.values()))) < 4 and abs(chi_square(list(theirs.values()))) < 4


@pytest.mark.parametrize(("density", "mean"), [(0.15, 3.0), (0.5, 3.0), (0.15, 8.0), (0.3, 1.0)])
def test_numbers_are_those_of_the_published_algorithm(density, mean):
    rng = np.random.default_rng(3)
    for length in [*range(2, 60), 114, 300]:
        noise, spans = count_noise(length, density, mean)
        mask = published_noise_mask(length, density, mean, rng)
        assert (noise, spans) == (mask.sum(), len(find_lengths(mask)))


def test_statistics_of_ten_thousand_windows():
    """Density, span length, and not one place of padding; the window's length is where both come out evenly."""
    density, mean = 0.15, 3.0
    window, target_length = plan_window(181, density, mean)
    assert (window, plan_lengths(window, density, mean)) == (200, (181, 41))
    block = np.arange(3, 3 + window)
    rows = draw(SpanCorruption(181, target_length, V, density, mean), block, 10_000)
    sources, targets = rows[SOURCE_IDS], rows[TARGET_IDS]
    assert (sources != 0).all() and (targets != 0).all() and (rows[WEIGHTS] == 1).all()
    assert (sources[:, -1] == END_ID).all() and (targets[:, -1] == END_ID).all()
    spans = (targets >= FIRST_SENTINEL).sum()
    masked = targets.size - spans - len(targets)
    assert masked / (window * len(targets)) == pytest.approx(density, abs=0.005)
    assert masked / spans == pytest.approx(mean, rel=0.01)
    kept = (sources[:, :, np.newaxis] == block[::20]).any(axis=1).mean(axis=0)  # no place is masked much more often
    assert kept[0] == 1 and kept[1:] == pytest.approx(1 - density, abs=0.06)
    assert len({source.tobytes() for source in sources}) == len(sources)
    assert all(restore(*row) == block.tolist() for row in zip(sources[:500], targets[:500], strict=True))


def test_lengths_of_spans_are_those_of_the_published_algorithm():
    window, density, mean, count, rng = 60, 0.3, 3.0, 4000, np.random.default_rng(3)
    noise, spans = (int(number) for number in count_noise(window, density, mean))
    masks = draw(lambda _, seed: draw_noise_mask(window, window, noise, spans, seed), [0], count)
    ours = np.bincount([size for mask in masks for size in find_lengths(mask)], minlength=14)
    masks = [published_noise_mask(window, density, mean, rng) for _ in range(count)]
    theirs = np.bincount([size for mask in masks for size in find_lengths(mask)], minlength=14)
    assert ours.sum() == theirs.sum() == count * spans
    assert np.abs(ours - theirs).max() < 5 * np.sqrt(2 * theirs.max())


@pytest.mark.parametrize(("density", "mean"), [(0.15, 1.0), (0.15, 3.0), (0.15, 8.0), (0.5, 3.0), (0.5, 8.0)])
def test_plan_fills_both_sides_for_every_source(density, mean):
    for source_length in range(3, 300, 9):
        window, target_length = plan_window(source_length, density, mean)
        assert plan_lengths(window, density, mean) == (source_length, target_length)
        assert plan_lengths(window + 1, density, mean)[0] == source_length + 1
    with pytest.raises(ValueError, match=r"source_length is expected to be at least 3. Received: 2"):
        plan_window(2, density, mean)


blocks = st.integers(2, 30).flatmap(
    lambda length: st.integers(0, length).flatmap(
        lambda held: st.tuples(st.just(length), st.just(held), st.integers(0, length - held))
    )
)


@settings(deadline=None, max_examples=60)
@given(blocks, st.integers(0, 2**31 - 1), st.sampled_from([(0.15, 3.0), (0.5, 1.0), (0.9, 2.0)]))
def test_padding_is_never_masked_nor_counted(block, seed, noise):
    length, held, before = block
    ids = np.arange(3, 3 + held)
    padded = np.pad(ids, [before, length - held - before])
    source_length, target_length = np.max([plan_lengths(size, *noise) for size in range(1, length + 1)], axis=0)
    objective = SpanCorruption(int(source_length), int(target_length), V, *noise)
    row = {name: column.numpy() for name, column in objective(tf.constant(padded, tf.int32), [seed, 1]).items()}
    assert (row[WEIGHTS] == (row[TARGET_IDS] != 0)).all()
    if not held:
        assert not any(column.any() for column in row.values())
        return
    lengths = tuple(np.count_nonzero(row[name]) for name in (SOURCE_IDS, TARGET_IDS))
    if held > 1:
        assert lengths == plan_lengths(held, *noise)
        assert restore(row[SOURCE_IDS], row[TARGET_IDS]) == ids.tolist()
    else:  # nothing can be masked, and the target says that what it was shown came first
        assert row[SOURCE_IDS][:2].tolist() == [3, END_ID] and row[TARGET_IDS][:2].tolist() == [V - 1, END_ID]


def test_never_more_spans_than_sentinels():
    length = 900
    noise, spans = count_noise(length, 0.5, 1.0)
    assert (noise, spans) == (450, SENTINELS)
    row = draw(SpanCorruption(*plan_lengths(length, 0.5, 1.0), 2000, 0.5, 1.0), np.arange(3, 3 + length), 1)
    assert set(row[TARGET_IDS][0]) >= set(range(2000 - SENTINELS, 2000))


def test_too_little_room_is_refused():
    with pytest.raises(ValueError, match=r"at least 10 and 4 for blocks of 10 ids. Received: 9 and 4. Make"):
        SpanCorruption(9, 4, V)(tf.range(3, 13), [0, 0])
    with pytest.raises(ValueError, match=r"target_length is expected to be at least 6, for .* Received: 5"):
        Continuation(9, 5, V, overlap=5)(tf.range(3, 13), [0, 0])
    with pytest.raises(ValueError, match=r"expected to be at least 4 and 3. Received: 4 and 2"):
        Denoisers(4, 2, V)
    for build in (SpanCorruption, Denoisers, lambda *lengths: Continuation(*lengths, overlap=1)):
        with pytest.raises(ValueError, match=r"vocabulary_size is expected above 103, .* Received: 103"):
            build(9, 9, 103)


WINDOW = 128  # long enough for a span of 64


@pytest.fixture(scope="module")
def mixture():
    """(name of the denoiser's mode, source, target) of 4,000 windows."""
    rows = draw(Denoisers(*plan_denoisers(WINDOW), V), np.arange(3, 3 + WINDOW), 4000)
    modes = {V - 1 - number: mode for mode, number in MODES.items()}
    return [
        (modes[source[0]], source[1:], target)
        for source, target in zip(rows[SOURCE_IDS], rows[TARGET_IDS], strict=True)
    ]


def test_modes_are_three_sentinels():
    assert MODES == {"R": 99, "X": 98, "S": 97} and sorted({mode for mode, *_ in DENOISERS}) == ["R", "S", "X"]


def test_denoisers_are_mixed_evenly(mixture):
    counted = Counter()
    for mode, _, target in mixture:
        spans = np.count_nonzero(target >= FIRST_SENTINEL)
        masked = np.count_nonzero(target) - spans - 1
        counted[("S",) if mode == "S" else (mode, masked, spans)] += 1
    expected = [
        ("S",) if mode == "S" else (mode, *(int(number) for number in count_noise(WINDOW, density, mean)))
        for mode, mean, density in DENOISERS
    ]
    assert expected[:2] == [("R", 19, 6), ("R", 19, 2)] and expected[3:] == [
        ("X", 64, 21),
        ("X", 64, 8),
        ("X", 19, 1),
        ("X", 64, 1),
    ]
    assert set(counted) == set(expected) and len(expected) == len(DENOISERS)
    assert abs(chi_square(list(counted.values()))) < 4


def test_sequential_denoiser_masks_the_end(mixture):
    sizes = []
    for mode, source, _ in mixture:
        if mode == "S":
            ids = source[: np.argmax(source == 0)].tolist() if 0 in source else source.tolist()
            assert ids[-2:] == [V - 1, END_ID] and ids[:-2] == list(range(3, 1 + len(ids)))
            sizes.append(WINDOW - len(ids) + 2)
    assert min(sizes) == 1 and max(sizes) == WINDOW // 2 - 1
    assert np.mean(sizes) == pytest.approx(WINDOW / 4, rel=0.1)


def test_planned_lengths_lose_nothing_and_are_needed(mixture):
    assert all(restore(source, target) == list(range(3, 3 + WINDOW)) for _, source, target in mixture)
    assert max(np.count_nonzero(source) + 1 for _, source, _ in mixture) == plan_denoisers(WINDOW)[0]
    assert max(np.count_nonzero(target) for _, _, target in mixture) == plan_denoisers(WINDOW)[1]


@pytest.mark.parametrize(("source_length", "target_length"), [(64, 64), (20, 40), (130, 20), (4, 3)])
def test_shorter_lengths_shorten_the_window_and_cut_no_span(source_length, target_length):
    rows = draw(Denoisers(source_length, target_length, V), np.arange(3, 3 + WINDOW), 200)
    restored = set()
    for source, target in zip(rows[SOURCE_IDS], rows[TARGET_IDS], strict=True):
        ids = restore(source[1:], target)
        assert ids == list(range(3, 3 + len(ids)))
        restored.add(len(ids))
    assert len(restored) > 1 or source_length == 4
    assert max(restored) >= 0.9 * (source_length - 2)


@pytest.mark.parametrize("mode", [None, "S"])
def test_continuation_scores_what_stands_behind_the_overlap(mode):
    block = np.array([0, 0, 1, 3, 4, 5, 6, 1, 0, 0])
    front = [V - 98] if mode else []
    row = {key: column.numpy().tolist() for key, column in Continuation(7, 8, V, 4, mode)(block, [0, 0]).items()}
    assert row[SOURCE_IDS] == ([*front, 1, 3, V - 1, END_ID] + [0] * 7)[:7]
    assert row[TARGET_IDS] == [V - 1, 4, 5, 6, 1, 0, 0, 0]
    assert row[WEIGHTS] == [0, 1, 1, 1, 1, 0, 0, 0]
    assert row[DECODER_IDS] == [START_ID, *row[TARGET_IDS][:-1]]
    full = Continuation(5, 7, V, 4, mode)(np.arange(3, 13), [0, 0])[SOURCE_IDS].numpy().tolist()
    assert full == [*front, *range(4 + len(front), 7), V - 1, END_ID]  # the last of its context
    empty = Continuation(7, 8, V, 4, mode)(np.zeros(10, "int32"), [0, 0])
    assert not any(column.numpy().any() for column in empty.values())


def test_continuation_of_a_sequential_denoiser_is_what_it_was_trained_on(mixture):
    """The same text, cut at the same place: the rows differ by the end of the target alone, which is not scored."""
    _, source, target = next(row for row in mixture if row[0] == "S")
    masked = np.count_nonzero(target) - 2
    row = Continuation(WINDOW + 2, len(target), V, WINDOW - masked, "S")(np.arange(3, 3 + WINDOW), [0, 0])
    assert row[SOURCE_IDS].numpy()[1:].tolist() == source.tolist()
    assert row[TARGET_IDS].numpy()[: masked + 1].tolist() == target[: masked + 1].tolist()


OBJECTIVES = {
    "span_corruption": SpanCorruption(23, 17, V, noise_density=0.4),
    "denoisers": Denoisers(20, 12, V),
    "continuation": Continuation(16, 20, V, overlap=15, mode="S"),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_eager_equals_tf_data_and_the_seed_decides(name):
    objective, rng = OBJECTIVES[name], np.random.default_rng(1)
    block_list = rng.integers(3, 800, [24, 30]).astype("int32")
    block_list[0], block_list[1, :14], block_list[2, 20:] = 0, 0, 0
    batch, other = (draw(objective, block_list, len(block_list), seed) for seed in (7, 8))
    spec = tf.data.Dataset.from_tensor_slices(block_list).map(lambda block: objective(block, [0, 0])).element_spec
    assert {key: (value.shape, value.dtype) for key, value in spec.items()} == {
        SOURCE_IDS: ((objective.source_length,), tf.int32),
        DECODER_IDS: ((objective.target_length,), tf.int32),
        TARGET_IDS: ((objective.target_length,), tf.int32),
        WEIGHTS: ((objective.target_length,), tf.float32),
    }
    for number, block in enumerate(block_list):
        row = objective(tf.constant(block), tf.constant([7, number]))
        assert {key: column.numpy().tolist() for key, column in row.items()} == {
            key: column[number].tolist() for key, column in batch.items()
        }
    assert not any(column[0].any() for column in batch.values())
    differ = (batch[SOURCE_IDS] != other[SOURCE_IDS]).any(axis=1)
    assert not differ.any() if name == "continuation" else differ.sum() > len(block_list) / 2
