"""What can be counted in texts that a model has said: how varied they are, how often right, how likely it found them.

distinct-n    Li et al., "A diversity-promoting objective function for neural conversation models", NAACL 2016
repetition    Welleck et al., "Neural text generation with unlikelihood training", ICLR 2020: seq-rep-n
exact match   Rajpurkar et al., "SQuAD", EMNLP 2016, here without their normalisation: what is to be quoted is quoted

Words are what white space separates.
"""

import math
from collections.abc import Iterable, Iterator, Sequence


def list_ngrams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    """The sequences of n words in a text.

    >>> list(list_ngrams("a b c", 2))
    [('a', 'b'), ('b', 'c')]
    """
    if n < 1:
        raise ValueError(f"n is expected to be at least 1. Received: {n!r}")
    words = text.split()
    return zip(*(words[start:] for start in range(n)), strict=False)


def distinct_ngrams(texts: Iterable[str], n: int) -> float:
    """Distinct sequences of n words of all texts together, as a share of all there are; 0.0 where there are none.

    Near 0 the texts say the same over and over; 1 is nothing said twice. More text has a lower share: compare as much
    with as much.

    >>> distinct_ngrams(["I do not know", "I do not care"], 2)  # "I do" and "do not" come twice
    0.6666666666666666
    """
    ngrams = [ngram for text in texts for ngram in list_ngrams(text, n)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def measure_repetition(texts: Iterable[str], n: int = 4) -> float:
    """The share of sequences of n words that stood before in the same text, a mean over the texts that have any.

    >>> measure_repetition(["a b a b a b"], 2)  # ab ba ab ba ab: two of five are new
    0.6
    """
    shares = [1.0 - distinct_ngrams([text], n) for text in texts if len(text.split()) >= n]
    return sum(shares) / len(shares) if shares else 0.0


def compute_perplexity(log_probabilities: Iterable[Sequence[float]]) -> float:
    """e to the mean of -log p over the tokens of all texts; NaN where there are none.

    Args:
        log_probabilities: natural logarithms, a list for each text, as `Generator.score` returns them.

    >>> compute_perplexity([[math.log(0.5)], [math.log(0.25), math.log(0.125)]])  # (2 · 4 · 8)^(1/3)
    4.0
    """
    scores = [score for text in log_probabilities for score in text]
    return round(math.exp(-math.fsum(scores) / len(scores)), 12) if scores else math.nan


def match_exactly(said: Sequence[str], wanted: Sequence[str]) -> float:
    """The share of texts that are the one that was wanted, white space at their ends aside; NaN where there are none.

    Raises:
        ValueError: there are more of one than of the other.

    >>> match_exactly(["Four.", "five"], ["Four. ", "Five"])
    0.5
    """
    if len(said) != len(wanted):
        raise ValueError(f"said is expected to have {len(wanted)} texts, as wanted has. Received: {len(said)}")
    matches = [one.strip() == other.strip() for one, other in zip(said, wanted, strict=True)]
    return sum(matches) / len(matches) if matches else math.nan
