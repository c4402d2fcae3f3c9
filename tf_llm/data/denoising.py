"""Denoising: parts of a text are masked in what the encoder reads, and the decoder must say them.

    window   Thank you for inviting me to your party last week .
    source   Thank you <0> me to your party <1> week . </s>
    target   <0> for inviting <1> last <2> </s>

<0>, <1>, … are sentinels, the last ids of the vocabulary: sentinel i is V - 1 - i. `SpanCorruption` is T5's objective
(Raffel et al. 2020, section 3.1.4, and `random_spans_noise_mask` of its published code), `Denoisers` is the mixture of
UL2 (Tay et al. 2022, section 3.1), and `Continuation` asks a model that was trained by either of them to go on with a
text, so that every word of a validation split is scored once and bits per byte can be stated.

How many ids are masked depends on how many a window holds, and not on chance. So the numbers are counted by NumPy for
every length that there may be, and the graph looks them up.

Glossary: L block length, S source length, T target length, V vocabulary size.
"""

import math

import numpy as np
import tensorflow as tf

from tf_llm.contracts import END_ID, MODES, PAD_ID, SPECIAL_TOKENS
from tf_llm.data.rows import build_row, move_to_front

SENTINELS = 100  # as T5 has them
# UL2 tells the model which kind of denoising it is at, by a token in front of the source. Here these are the last of
# the sentinels, which leaves 97 for spans: enough for each mixture on windows of up to 580 ids.
SPANS = min(MODES.values())
DENOISERS = (  # mode, mean span length, noise density
    ("R", 3, 0.15),  # regular: as T5
    ("R", 8, 0.15),
    ("S", math.inf, 0.25),  # sequential: one span, at the end
    ("X", 3, 0.5),  # extreme: much is masked, or long spans are
    ("X", 8, 0.5),
    ("X", 64, 0.15),
    ("X", 64, 0.5),
)


class SpanCorruption:
    """T5's span corruption: about `noise_density` of a window is masked, in spans of `mean_span_length` on average.

    The number of masked ids and of spans follows from the number of ids; where the spans begin and end is drawn, every
    way of cutting as likely as every other. A window begins with what is not masked and ends with what is. There are
    never more spans than sentinels: in windows of more than 2000 ids, at T5's settings, the spans grow instead.

    Args:
        source_length, target_length: S and T. For a given window `plan_lengths` names those that it fills to the last
            id, and `plan_window` names the window for a given source.
        vocabulary_size: V, sentinels included.
        noise_density: fraction of ids that is masked.
        mean_span_length: of the masked spans.

    Call: (block int32 [L], seed int32 [2]) -> a row, see `build_row`. Padding, wherever it stands in the block, is
    never masked and never counted; a block of padding alone has no weight. Raises ValueError where a full block would
    not fit S and T.

    >>> row = SpanCorruption(8, 6, 120, noise_density=0.4)(tf.range(3, 12), tf.constant([0, 0]))
    >>> row["source_ids"].numpy().tolist(), row["target_ids"].numpy().tolist()
    ([3, 4, 5, 6, 7, 119, 1, 0], [119, 8, 9, 10, 11, 1])
    """

    def __init__(self, source_length, target_length, vocabulary_size, noise_density=0.15, mean_span_length=3.0):
        check_vocabulary(vocabulary_size)
        self.source_length, self.target_length, self.vocabulary_size = source_length, target_length, vocabulary_size
        self.noise_density, self.mean_span_length = noise_density, mean_span_length

    def __call__(self, block, seed):
        length = block.shape[0]
        needed = plan_lengths(length, self.noise_density, self.mean_span_length)
        if needed[0] > self.source_length or needed[1] > self.target_length:
            raise ValueError(
                f"source_length and target_length are expected to be at least {needed[0]} and {needed[1]} for blocks "
                f"of {length} ids. Received: {self.source_length} and {self.target_length}. Make them longer, or the "
                "blocks shorter (plan_window)"
            )
        noise, spans = count_noise(np.arange(length + 1), self.noise_density, self.mean_span_length)
        ids = move_to_front(block, block != PAD_ID, length)
        held = tf.math.count_nonzero(ids, dtype=tf.int32)
        noise_mask = draw_noise_mask(length, held, tf.gather(noise, held), tf.gather(spans, held), seed)
        return corrupt(ids, noise_mask, self.source_length, self.target_length, self.vocabulary_size)


class Denoisers:
    """UL2's mixture: one of the seven DENOISERS, each as likely, with the token of its mode in front of the source.

        [R] spans of 3 or 8 ids, 15 % masked                  sentinel 99
        [X] spans of 3, 8 or 64 ids, up to 50 % masked        sentinel 98
        [S] the end of the window, 25 % on average            sentinel 97

    In a window that is too short for spans of 64, one span holds all that is masked. The length of the end that [S]
    masks is drawn from 1 to twice its mean less one, evenly.

    The seven need unlike room: of windows of 512 ids, [X] fills up to 342 of the target, [R] up to 104.
    `plan_denoisers` names the lengths for which nothing is lost. With shorter ones, a denoiser that lacks room leaves
    out ids at the end of the window *before* it masks, so that no span is ever cut and no sentinel is without its span.

    Args:
        source_length, target_length: S (at least 4) and T (at least 3).
        vocabulary_size: V, sentinels included.

    Call: (block int32 [L], seed int32 [2]) -> a row, see `build_row`; padding is treated as in `SpanCorruption`.

    >>> plan_denoisers(9)
    (11, 6)
    >>> row = Denoisers(11, 6, 120)(tf.range(3, 12), tf.constant([0, 3]))  # draws [X], which is 120 - 1 - 98
    >>> row["source_ids"].numpy().tolist(), row["target_ids"].numpy().tolist()
    ([21, 3, 4, 5, 6, 7, 119, 1, 0, 0, 0], [119, 8, 9, 10, 11, 1])
    """

    def __init__(self, source_length, target_length, vocabulary_size):
        check_vocabulary(vocabulary_size)
        if source_length < 4 or target_length < 3:
            raise ValueError(
                "source_length and target_length are expected to be at least 4 and 3. Received: "
                f"{source_length} and {target_length}"
            )
        self.source_length, self.target_length, self.vocabulary_size = source_length, target_length, vocabulary_size

    def __call__(self, block, seed):
        length = block.shape[0]
        noise, spans, sources, targets = count_denoisers(length)  # [7, L + 1] each
        fits = (sources <= self.source_length) & (targets <= self.target_length)
        limits = np.where(fits, np.arange(length + 1), 0).max(axis=1).astype("int32")  # [7]
        modes = np.array([self.vocabulary_size - 1 - MODES[mode] for mode, *_ in DENOISERS], "int32")  # [7]
        is_sequential = np.array([mode == "S" for mode, *_ in DENOISERS])  # [7]

        which_seed, cut_seed, mask_seed = tf.unstack(tf.random.split(seed, 3))
        which = tf.random.stateless_uniform([], which_seed, 0, len(DENOISERS), tf.int32)
        ids = move_to_front(block, block != PAD_ID, length)
        held = tf.minimum(tf.math.count_nonzero(ids, dtype=tf.int32), tf.gather(limits, which))
        ids = tf.where(tf.range(length) < held, ids, PAD_ID)
        noise, spans = tf.gather(tf.gather(noise, which), held), tf.gather(tf.gather(spans, which), held)
        most = tf.maximum(2 * noise - 1, 0)
        drawn = tf.random.stateless_uniform([], cut_seed, 1, tf.maximum(most, 1) + 1, tf.int32)
        noise = tf.where(tf.gather(is_sequential, which), tf.minimum(drawn, most), noise)
        noise_mask = draw_noise_mask(length, held, noise, spans, mask_seed)
        mode = tf.gather(modes, which)
        return corrupt(ids, noise_mask, self.source_length, self.target_length, self.vocabulary_size, mode)


class Continuation:
    """How a denoising model is asked to go on with a text: what follows the context is one masked span.

    The format makes it certain that the target begins with sentinel 0, which therefore has no weight; behind it, every
    id of the block behind its overlap is a target, once. Of a context that is too long the last ids are read.

    Args:
        source_length: S; overlap + 2 hold the whole context, with a mode overlap + 3.
        target_length: T, at least L - overlap + 1.
        vocabulary_size: V, sentinels included.
        overlap: of the blocks, see shards.py.
        mode: a key of MODES for a model of `Denoisers` ("S"), None for one of `SpanCorruption`.

    Call: (block int32 [L], seed int32 [2], unused) -> a row, see `build_row`. Raises ValueError for blocks with more
    ids behind the overlap than T has room for.

    >>> row = Continuation(6, 4, 120, overlap=3)(tf.constant([0, 1, 5, 6, 7]), tf.constant([0, 0]))
    >>> row["source_ids"].numpy().tolist(), row["target_ids"].numpy().tolist(), row["weights"].numpy().tolist()
    ([1, 5, 119, 1, 0, 0], [119, 6, 7, 0], [0.0, 1.0, 1.0, 0.0])
    """

    def __init__(self, source_length, target_length, vocabulary_size, overlap, mode=None):
        check_vocabulary(vocabulary_size)
        self.source_length, self.target_length, self.overlap = source_length, target_length, overlap
        self.sentinel = vocabulary_size - 1
        self.front = [] if mode is None else [vocabulary_size - 1 - MODES[mode]]

    def __call__(self, block, seed):
        fresh = block.shape[0] - self.overlap
        if fresh + 1 > self.target_length:
            raise ValueError(
                f"target_length is expected to be at least {fresh + 1}, for the ids of a block behind its overlap and "
                f"a sentinel. Received: {self.target_length}. Let blocks overlap more, or make the target longer"
            )
        context = block[max(0, self.overlap - self.source_length + 2 + len(self.front)) : self.overlap]
        source = tf.concat([self.front, context, [self.sentinel, END_ID]], axis=0)
        holds_text = tf.reduce_any(block != PAD_ID)  # a block of padding alone, which fills up a batch, stays one
        source = move_to_front(source, (source != PAD_ID) & holds_text, self.source_length)
        target = tf.concat([[tf.where(holds_text, self.sentinel, PAD_ID)], block[self.overlap :]], axis=0)
        target = tf.pad(target, [[0, self.target_length - fresh - 1]])  # [T]
        weights = tf.cast((target != PAD_ID) & (tf.range(self.target_length) > 0), tf.float32)
        return build_row(source, target, weights)


def corrupt(ids, noise_mask, source_length, target_length, vocabulary_size, mode=None):
    """Masks what `noise_mask` says, which must not begin with True; nothing in here is drawn.

    In the source each masked span becomes the next sentinel, in the target each span that is not masked does; both end
    with END_ID. What does not fit S or T is cut from the end.

    Args:
        ids: int32 [L], padding behind.
        noise_mask: bool [L], True where an id is masked.
        source_length, target_length, vocabulary_size: S, T and V.
        mode: an id that stands in front of the source, or None.

    The figure 2 of Raffel et al. 2020, the words numbered from 3 on, <X>, <Y>, <Z> = 119, 118, 117:

    >>> words = "Thank you for inviting me to your party last week .".split()
    >>> masked = [word in ("for", "inviting", "last") for word in words]
    >>> row = corrupt(tf.range(3, 14), tf.constant(masked), 11, 8, vocabulary_size=120)
    >>> row["source_ids"].numpy().tolist()  # Thank you <X> me to your party <Y> week . </s>
    [3, 4, 119, 7, 8, 9, 10, 118, 12, 13, 1]
    >>> row["target_ids"].numpy().tolist()  # <X> for inviting <Y> last <Z> </s>
    [119, 5, 6, 118, 11, 117, 1, 0]
    """
    real = ids != PAD_ID
    front = [] if mode is None else [mode]

    def replace(masked, front, length):
        """`ids` with each span of `masked` replaced by the next sentinel."""
        begins = masked & ~tf.concat([[False], masked[:-1]], axis=0)
        sentinels = vocabulary_size - tf.cumsum(tf.cast(begins, tf.int32))
        values = tf.concat([front, tf.where(masked, sentinels, ids), [END_ID]], axis=0)
        ends = tf.reduce_any(real, keepdims=True)  # nothing comes of padding alone
        kept = tf.concat([ends] * len(front) + [(real & ~masked) | begins, ends], axis=0)
        return move_to_front(values, kept, length)

    noise_mask &= real
    return build_row(replace(noise_mask, front, source_length), replace(real & ~noise_mask, [], target_length))


def draw_noise_mask(length, held, noise, spans, seed):
    """Which of the first `held` of `length` ids are masked: `noise` of them, in `spans` spans; bool [length].

    Both the masked and the other ids are cut into `spans` random segments, which take turns.
    """
    noise_seed, other_seed = tf.unstack(tf.random.split(seed, 2))
    others = draw_segments(length, held - noise, spans, other_seed)  # [L]
    masked = draw_segments(length, noise, spans, noise_seed)  # [L]
    ends = tf.cumsum(tf.reshape(tf.stack([others, masked], axis=1), [-1]))  # [2 L]
    return tf.searchsorted(ends, tf.range(length), side="right") % 2 == 1


def draw_segments(length, items, segments, seed):
    """Cuts `items` in a row into `segments` parts of at least one, all ways as likely: their sizes, int32 [length].

    Of the items - 1 places between two items, segments - 1 become borders. `items` and `segments` may be tensors.
    """
    places = tf.range(length)
    keys = tf.random.stateless_uniform([length], seed, minval=None, maxval=None, dtype=tf.int32)
    keys = tf.where(places < items - 1, keys, tf.int32.max)  # what is no place between two items comes last
    is_border = tf.argsort(tf.argsort(keys, stable=True), stable=True) < segments - 1
    segment = tf.cumsum(tf.cast(is_border, tf.int32), exclusive=True)
    return tf.math.unsorted_segment_sum(tf.cast(places < items, tf.int32), segment, length)


def count_noise(lengths, density, mean, most_spans=SENTINELS):
    """How many of so many ids are masked, in how many spans: int [n] -> (int32 [n], int32 [n]).

    >>> noise, spans = count_noise(np.array([0, 1, 2, 11, 568]), density=0.15, mean=3.0)
    >>> noise.tolist(), spans.tolist()
    ([0, 0, 1, 2, 85], [0, 0, 1, 1, 28])
    """
    lengths = np.asarray(lengths)
    noise = np.clip(np.round(lengths * density), 1, np.maximum(lengths - 1, 1))
    noise = np.where(lengths < 2, 0, noise)  # a single id is never masked: nothing would be left
    spans = np.clip(np.round(noise / mean), 1, most_spans)
    spans = np.minimum(spans, np.minimum(noise, lengths - noise))  # no segment is empty
    return noise.astype("int32"), spans.astype("int32")


def count_denoisers(window_length):
    """What each of DENOISERS does to windows of 0, 1, … window_length ids: int32 [7, window_length + 1] four times.

    Returns:
        (masked ids, spans, ids of the source, ids of the target); of [S], which draws, the mean of the first and the
        most of the last two.
    """
    lengths = np.arange(window_length + 1)
    counts = [count_noise(lengths, density, mean, SPANS) for _, mean, density in DENOISERS]
    noise, spans = (np.stack(column) for column in zip(*counts, strict=True))
    is_sequential = np.array([[mode == "S"] for mode, *_ in DENOISERS])
    least = np.where(is_sequential, np.minimum(noise, 1), noise)
    most = np.where(is_sequential, np.maximum(2 * noise - 1, 0), noise)
    return noise, spans, lengths - least + spans + 2, most + spans + 1


def plan_lengths(window_length, density, mean):
    """(source_length, target_length) that `SpanCorruption` fills to the last id, from windows of so many ids.

    >>> plan_lengths(568, density=0.15, mean=3.0)
    (512, 114)
    """
    noise, spans = (int(count) for count in count_noise(window_length, density, mean))
    return window_length - noise + spans + 1, noise + spans + 1


def plan_window(source_length, density, mean):
    """(window_length, target_length) for a source of so many ids: the longest window that fits it.

    It fills the source to the last id, and the target, as T5's `random_spans_helper` has it; but for spans of about one
    id at a density of about a half, where there are fewer spans than asked for.

    >>> plan_window(512, density=0.15, mean=3.0)
    (568, 114)
    """
    window = 2
    if plan_lengths(window, density, mean)[0] > source_length:
        raise ValueError(f"source_length is expected to be at least 3. Received: {source_length}")
    while plan_lengths(window + 1, density, mean)[0] <= source_length:  # one id more makes it longer by 0 or 1
        window += 1
    return window, plan_lengths(window, density, mean)[1]


def plan_denoisers(window_length):
    """(source_length, target_length) with which `Denoisers` loses nothing of windows of so many ids.

    >>> plan_denoisers(512)
    (514, 342)
    """
    _, _, sources, targets = count_denoisers(window_length)
    return int(sources.max()), int(targets.max())


def check_vocabulary(vocabulary_size):
    """Raises ValueError for a vocabulary in which sentinels would be words."""
    if vocabulary_size <= SENTINELS + len(SPECIAL_TOKENS):
        raise ValueError(
            f"vocabulary_size is expected above {SENTINELS + len(SPECIAL_TOKENS)}, its last {SENTINELS} ids being "
            f"sentinels. Received: {vocabulary_size}"
        )
