r"""Which pages and lines of a corpus repeat earlier ones, across all its parts.

First every part is read, alone and in any order, and a few numbers are kept of each page; then the numbers of all parts
are compared:

    >>> from tf_llm.text.duplicate_keys import KeyWriter
    >>> config = DuplicatesConfig(names="addresses,pages,near,lines")
    >>> notice = "All rights reserved."
    >>> corpus = [
    ...     [("http://a.example/", f"Tea is hot.\n{notice}"), ("http://b.example/", f"tea is  hot. {notice}")],
    ...     [("https://www.a.example", "Another text."), ("http://c.example/", f"A cat sat.\n{notice}")],
    ... ]
    >>> parts = []
    >>> for pages in corpus:
    ...     writer = KeyWriter(config)
    ...     for url, text in pages:
    ...         writer.add(url, text)
    ...     parts.append(Keys(**writer.close()))
    >>> verdicts = find_repeated_pages(parts, config)
    >>> [[REASONS[verdict - 1] if verdict else "stays" for verdict in part] for part in verdicts]
    [['stays', 'duplicate page'], ['duplicate address', 'stays']]
    >>> repeated = find_repeated_lines(parts, verdicts)
    >>> remove_lines(f"A cat sat.\n{notice}", repeated[1][1:])
    'A cat sat.'

The order of pages is (part, position), of what repeats the first stays, and the outcome is the same however a corpus is
cut into parts. In this order, each among the pages that the ones before leave:

    name         what repeats an earlier page
    "addresses"  a page with the same address, see `normalize_url`
    "pages"      a page with the same text, but for case and white space
    "near"       a page of a group whose members share so many of their shingles with another member, see minhash.py
    "lines"      a line that stands in an earlier page, or earlier in this one, but for case and outer white space;
                 blank lines repeat nothing. C4's rule as its code has it (https://arxiv.org/abs/1910.10683)

The steps need no more than keys and numbers of pages, so that a cluster can take them, too: `find_first` (the minimum
by key), `candidate_pairs` (bucket by bucket of one band) and `connect` (components). On one machine, with the keys in
files, a million pages of 40 lines take (examples/benchmarks/duplicates_found.py; processor time of a busy machine)

    name         in files    arrays in memory    those of two million    processor time
    "addresses"      8 MB               90 MB                  156 MB               .4 s
    "pages"          8 MB               90 MB                  156 MB               .4 s
    "near"         512 MB              107 MB                  207 MB               11 s
    "lines"        328 MB              257 MB                  337 MB               16 s

because no more than two million keys are sorted at once: what grows is 2 bytes a line, and for "near" 35 a page.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from tf_llm.text.duplicate_keys import DuplicatesConfig, Keys
from tf_llm.text.minhash import count_needed

REASONS = ("duplicate address", "duplicate page", "near-duplicate page")  # of verdicts 1, 2 and 3

# So many keys are sorted at once: about 100 MB. More are taken in ranges of their values, one after the other.
SORTED_KEYS = 1 << 21
COMPARED_PAIRS = 1 << 15  # at once
# So many pages of a bucket are compared with the others, one after the other; of pages that are alike, one is enough.
ROUNDS = 4


def find_repeated_pages(parts: Sequence[Keys], config: DuplicatesConfig) -> list[np.ndarray]:
    """For every part uint8 [D]: 0 for pages that stay, for others 1 + the index of the reason in REASONS."""
    starts = _starts([len(part) for part in parts])
    verdicts = np.zeros(starts[-1], np.uint8)
    for verdict, name in ((1, "addresses"), (2, "pages")):
        if name in config.kinds:
            columns = [getattr(part, name) for part in parts]
            verdicts[mark_repeats(columns, verdicts == 0)] = verdict
    if "near" in config.kinds:
        groups = group_alike(parts, verdicts == 0, config)
        verdicts[groups != np.arange(len(groups))] = 3
    return _split(verdicts, starts)


def find_repeated_lines(parts: Sequence[Keys], verdicts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For every part bool [L]: True for lines that stand earlier in a page that stays, or in such a page itself.

    verdicts: of the pages, as `find_repeated_pages` gives them. Lines of pages that go are False.
    """
    starts = _starts([len(part.lines) for part in parts])
    kept = np.zeros(starts[-1], bool)
    for part, verdict, mine in zip(parts, verdicts, _split(kept, starts), strict=True):
        mine[:] = np.repeat(verdict == 0, np.diff(part.line_starts))
    return _split(mark_repeats([part.lines for part in parts], kept), starts)


def remove_lines(text: str, repeated: np.ndarray) -> str:
    """The text without its repeated lines, and without white space around what is left."""
    lines = text.split("\n")
    if len(lines) != len(repeated):
        raise ValueError(f"repeated expected one value a line, {len(lines)}. Received: {len(repeated)}")
    return "\n".join(line for line, is_repeated in zip(lines, repeated, strict=True) if not is_repeated).strip()


def mark_repeats(columns: Sequence[np.ndarray], kept: np.ndarray) -> np.ndarray:
    """Which of the keys of all columns, one after the other, have occurred before among the kept ones: bool [n].

    kept: bool [n]; where it is False the key does not count and is not marked. Nor is key 0.
    """
    repeats = np.zeros(len(kept), bool)
    for keys, ids in split_keys(columns, kept):
        repeats[ids[find_first(keys, ids) != ids]] = True
    return repeats


def split_keys(columns: Sequence[np.ndarray], kept: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The kept keys of all columns and their numbers, range by range of the keys, so that equal ones come together.

    Hashes are spread evenly, so each of the 2^b ranges has about as many; one key that is there very often makes its
    range larger.
    """
    bits = max(0, int(np.count_nonzero(kept) - 1) // SORTED_KEYS).bit_length()
    starts = _starts([len(column) for column in columns])
    for number in range(1 << bits):
        keys, ids = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for column, start, mine in zip(columns, starts, _split(kept, starts), strict=False):
            chosen = mine & (column != 0)
            if bits:
                chosen &= (column >> np.uint64(64 - bits)) == number
            chosen = np.flatnonzero(chosen)
            keys.append(column[chosen])
            ids.append(chosen + start)
        yield np.concatenate(keys), np.concatenate(ids)


def find_first(keys: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """For every key the smallest id that has the same key.

    >>> find_first(np.array([7, 5, 7, 7]), np.array([10, 11, 12, 9]))
    array([ 9, 11,  9,  9])
    """
    if not len(keys):
        return ids.copy()
    order = np.argsort(keys)
    ordered = keys[order]
    begins = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    smallest = np.minimum.reduceat(ids[order], begins)
    first = np.empty_like(ids)
    first[order] = np.repeat(smallest, np.diff(begins, append=len(keys)))
    return first


def group_alike(parts: Sequence[Keys], kept: np.ndarray, config: DuplicatesConfig) -> np.ndarray:
    """For every page the number of the first page of its group of near duplicates: int64 [n]; many are alone."""
    groups = np.arange(len(kept))
    twins = groups.copy()  # the page that each one was last found alike: most pairs meet in many bands

    def compare(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
        alike = twins[others] == ones
        new = np.flatnonzero(~alike)
        alike[new] = compare_pages(parts, ones[new], others[new], count_needed(config.jaccard, config.sketch))
        twins[others[alike]] = ones[alike]
        return alike

    for band in range(config.bands[0]):
        columns = [part.bands[:, band] for part in parts]
        pairs = [candidate_pairs(keys, ids, compare) for keys, ids in split_keys(columns, kept)]
        connect(groups, np.concatenate(pairs))
    return groups


def candidate_pairs(keys: np.ndarray, ids: np.ndarray, compare: Callable) -> np.ndarray:
    """Pairs of pages that have the same key of one band and are alike: int64 [n, 2], the smaller id first.

    Each page is compared with the first one of its bucket, so 10,000 copies of a page cost 10,000 comparisons and not
    50 million. Pages that are not like the first one go on without it: they are a bucket again, a few times.

    compare: (ids [n], ids [n]) -> bool [n], whether they are alike.
    """
    pairs = [np.empty((0, 2), np.int64)]
    for _ in range(ROUNDS):
        first = find_first(keys, ids)
        later = np.flatnonzero(first != ids)
        if not len(later):
            break
        alike = compare(first[later], ids[later])
        pairs.append(np.stack([first[later[alike]], ids[later[alike]]], axis=1))
        keys, ids = keys[later[~alike]], ids[later[~alike]]
    return np.concatenate(pairs)


def compare_pages(parts: Sequence[Keys], ones: np.ndarray, others: np.ndarray, needed: int) -> np.ndarray:
    """Whether the signatures of two pages agree in so many places: bool [n]."""
    starts = _starts([len(part) for part in parts])
    alike = np.zeros(len(ones), bool)
    for begin in range(0, len(ones), COMPARED_PAIRS):
        some = slice(begin, begin + COMPARED_PAIRS)
        same = _signatures(parts, starts, ones[some]) == _signatures(parts, starts, others[some])
        alike[some] = np.count_nonzero(same, axis=1) >= needed
    return alike


def _signatures(parts: Sequence[Keys], starts: np.ndarray, ids: np.ndarray) -> np.ndarray:
    rows = np.empty((len(ids), parts[0].signatures.shape[1]), np.uint8)
    owners = np.searchsorted(starts, ids, side="right") - 1
    for owner in np.unique(owners):
        mine = np.flatnonzero(owners == owner)
        rows[mine] = parts[owner].signatures[ids[mine] - starts[owner]]
    return rows


def connect(groups: np.ndarray, pairs: np.ndarray) -> None:
    """Joins the groups of each pair, in place. A group is named by its smallest member.

    groups: int64 [n], at first np.arange(n), where everything is alone. pairs: int64 [m, 2].

    >>> groups = np.arange(6)
    >>> connect(groups, np.array([[4, 5], [1, 4], [0, 3]])); groups
    array([0, 1, 2, 0, 1, 1])
    """
    while True:
        names = groups[pairs]
        low, high = names.min(axis=1), names.max(axis=1)
        if np.array_equal(low, high):
            return
        np.minimum.at(groups, high, low)
        # The name of a group may have joined another group itself: follow to the end.
        while not np.array_equal(groups, followed := groups[groups]):
            groups[:] = followed


def _starts(lengths: Sequence[int]) -> np.ndarray:
    """Where each part begins when they stand one after the other, and where the last one ends."""
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def _split(whole: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
    return [whole[begin:end] for begin, end in itertools.pairwise(starts)]
