r"""How alike two texts are, told from sketches of a few hundred bytes: MinHash, and bands of it to find the candidates.

The measure is Jaccard's: of the runs of five words ("shingles") that two texts have, the share that both have. A sketch
keeps `size` minima of hashes of a text's shingles, and two sketches agree in a minimum with a probability that is the
Jaccard similarity, so the share of minima in which they agree estimates it, with a standard error of
sqrt(J (1 - J) / size): .025 at J = .8 and size 256.

    >>> words = [f"word{n}" for n in range(300)]
    >>> one, other = " ".join(words), " ".join(words[:200] + words[201:])
    >>> a, b = find_shingles(one), find_shingles(other)
    >>> len(np.intersect1d(a, b)) / len(np.union1d(a, b)), float(np.mean(sketch(a, 256) == sketch(b, 256)))
    (0.97, 0.96484375)

Only texts that have all the minima of one band (`rows` minima in a row) in common are ever compared. With b bands of r
rows that happens with probability 1 - (1 - J^r)^b, an S-curve (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets,
chapter 3, http://www.mmds.org):

                                   J = .3     .5     .6     .7     .8    .85     .9
    32 bands of 8 (the default)      .002   .118   .419   .851  .9972  .9999   1.00
    14 bands of 8 (FineWeb)          .001   .053   .211   .565   .924   .988  .9996

A wrong candidate costs a comparison, a missed one is a duplicate that stays. FineWeb, which does not compare, takes
fewer bands.

The minima are those of "fast similarity sketching" (Dahlgaard, Knudsen, Thorup, FOCS 2017, https://arxiv.org/abs/1704.04370),
for which each shingle is hashed a few times in all instead of once per minimum; the estimate is as exact. Shingles are
hashed where they stand, by differences of sums. So numpy alone is quicker than the libraries that take shingles as
strings, each of which has to be made first: examples/benchmarks/duplicates_found.py.
"""

from __future__ import annotations

import functools
import re

import numpy as np

# Runs of scripts that put no space between words, so that each character counts as a word: Thai and Lao, Burmese,
# Khmer, Chinese and Japanese (Korean has spaces). Few texts but these match the second pattern, which is much faster.
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")
MAYBE_UNSPACED = re.compile("[^\0-\u0dff\u2000-\u2e7f]")
# Texts are taken in pieces of so many characters, to bound the memory; the few shingles across a seam are lost.
PIECE = 1 << 16
BASE = 0x9E3779B97F4A7C15  # any odd number: those have an inverse among the numbers of 64 bits
HASHES = 8  # per minimum: after so many a sketch of 256 is complete in eleven cases of twelve


def normalize(text: str) -> str:
    r"""The text as exact duplicates have it in common: lower-case, white space collapsed.

    >>> normalize(" The  Cat\nsat ")
    'the cat sat'
    """
    return " ".join(text.lower().split())


def find_shingles(text: str, shingle: int = 5) -> np.ndarray:
    """Hashes of all runs of `shingle` words of a normalised text: uint64 [n], repetitions included.

    A text of fewer words is one shingle, an empty one has none. Words stand between white space, and each character of
    a script without spaces is one:

    >>> len(find_shingles("one two three four five six")), len(find_shingles("敏捷的棕色狐狸")), len(find_shingles(""))
    (2, 3, 0)
    """
    return np.concatenate([np.empty(0, np.uint64), *(_hash_runs(piece, shingle) for piece in _pieces(text))])


def _pieces(text: str) -> list[str]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]


def _hash_runs(text: str, shingle: int) -> np.ndarray:
    """The shingles of one piece.

    The hash of a run of bytes is the sum of byte · BASE^position over it, divided by BASE^(its first position), modulo
    2^64: so all the runs of a text come from one cumulative sum.
    """
    if not text.isascii() and MAYBE_UNSPACED.search(text):
        text = UNSPACED.sub(lambda match: f" {' '.join(match[0])} ", text)
        text = " ".join(text.split())
    letters = np.frombuffer(f"{text} ".encode("utf-8", "surrogatepass"), np.uint8)
    powers, inverses = _powers()
    sums = np.zeros(len(letters) + 1, np.uint64)
    np.cumsum(letters * powers[: len(letters)], out=sums[1:])
    starts = np.concatenate(([0], np.flatnonzero(letters == ord(" ")) + 1))  # of words, and the end of the last one
    run = min(shingle, len(starts) - 1)
    begin, end = starts[:-run], starts[run:]
    return mix((sums[end] - sums[begin]) * inverses[begin])


@functools.cache
def _powers() -> tuple[np.ndarray, np.ndarray]:
    """BASE^1, BASE^2, … and their inverses, for the longest piece: four bytes a character (or three and a space)."""
    length = 4 * PIECE + 2
    bases = np.uint64(BASE), np.uint64(pow(BASE, -1, 1 << 64))
    return tuple(np.cumprod(np.full(length, base)) for base in bases)


def mix(numbers: np.ndarray) -> np.ndarray:
    """A bijection of the 64-bit numbers after which every bit depends on every bit: the end of SplitMix64.

    Steele, Lea, Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def sketch(shingles: np.ndarray, size: int) -> np.ndarray:
    """The minima of a set of hashed shingles, at least one: uint64 [size]. Repetitions do not count.

    In every round each shingle falls with a random value into a random bin, and every bin keeps the smallest value it
    has seen, where those of a later round are larger than any of an earlier one. So nothing changes any more once all
    bins are filled, and few shingles need many rounds where many need one or two. From round `size` on all shingles
    fall into the same bin, one after the other, so that rounds come to an end for a single shingle, too.
    """
    empty = np.uint64((1 << 64) - 1)
    minima = np.full(size, empty)
    rounds = -(-HASHES * size // len(shingles))  # at a time
    for begin in range(0, 2 * size, rounds):
        numbers = np.arange(begin, min(begin + rounds, 2 * size), dtype=np.uint64)[:, None]
        hashes = mix(shingles + mix(numbers + np.uint64(1)))  # [rounds, shingles]
        bins = ((hashes & np.uint64(0xFFFFFFFF)) * np.uint64(size)) >> np.uint64(32)
        bins = np.where(numbers < size, bins, numbers - np.uint64(size))
        values = (numbers << np.uint64(32)) | (hashes >> np.uint64(32))
        np.minimum.at(minima, bins.astype(np.intp).ravel(), values.ravel())
        if (minima != empty).all():
            break
    return minima


def sketch_text(text: str, size: int, shingle: int = 5) -> np.ndarray:
    """The sketch of a normalised text's shingles, in memory that does not grow with the text; 0s of an empty text."""
    if not text:
        return np.zeros(size, np.uint64)
    return np.minimum.reduce([sketch(_hash_runs(piece, shingle), size) for piece in _pieces(text)])


def choose_bands(jaccard: float, size: int) -> tuple[int, int]:
    """How many bands of how many rows: as many rows as find 99 % of the pairs that are just so similar.

    >>> choose_bands(0.8, 256), choose_bands(0.9, 256), choose_bands(1.0, 256)
    ((32, 8), (18, 14), (1, 256))
    """
    for rows in range(size, 1, -1):
        if 1 - (1 - jaccard**rows) ** (size // rows) >= 0.99:
            return size // rows, rows
    return size, 1


def make_bands(minima: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """One key for each band of a sketch: uint64 [bands]. Equal bands have equal keys, those of an empty text are 0."""
    multipliers = mix(np.arange(1, rows + 1, dtype=np.uint64)) | np.uint64(1)
    return mix((minima[: bands * rows].reshape(bands, rows) * multipliers).sum(axis=1))


def make_signature(minima: np.ndarray) -> np.ndarray:
    """Eight bits of each minimum: uint8 [size], to be kept and compared.

    Different minima look equal in one of 256 cases, which `count_needed` takes into account (Li, König, b-Bit minwise
    hashing, WWW 2010, http://research.microsoft.com/pubs/120078/).
    """
    return minima.astype(np.uint8)


def count_needed(jaccard: float, size: int) -> int:
    """In how many places two signatures must agree so that the Jaccard similarity is estimated at `jaccard` or more.

    >>> count_needed(0.8, 256), count_needed(1.0, 256)
    (205, 256)
    """
    return int(np.ceil(size * (jaccard + (1 - jaccard) / 256) - 1e-9))
