"""Several rankings become one, by reciprocal rank (Cormack, Clarke, Büttcher 2009, https://doi.org/10.1145/1571941.1572114).

A document at rank r of a ranking, from 1, gets weight / (60 + r) from it; the sum over rankings is its score. Scores of
different kinds (BM25, cosine) need not be comparable. The 60 is the paper's: what it changes is how much more the first
ranks count than the next.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

OFFSET = 60


def fuse(
    rankings: Sequence[Sequence[Hashable]], weights: Sequence[float] | None = None, offset: float = OFFSET
) -> list[tuple[Hashable, float]]:
    """(document, score) of all that stand in some ranking, best first; of equals, the one that was met first.

    Args:
        rankings: documents, best first.
        weights: of the rankings; None is 1 each.
        offset: the paper's k.

    >>> [(name, round(1000 * score, 2)) for name, score in fuse([["a", "b"], ["b", "c"]])]
    [('b', 32.52), ('a', 16.39), ('c', 16.13)]
    >>> [name for name, _ in fuse([["a", "b"], ["b", "c"]], weights=[1, 0])]
    ['a', 'b', 'c']
    """
    scores: dict[Hashable, float] = {}
    for ranking, weight in zip(rankings, [1.0] * len(rankings) if weights is None else weights, strict=True):
        for rank, document in enumerate(ranking, 1):
            scores[document] = scores.get(document, 0.0) + weight / (offset + rank)
    return sorted(scores.items(), key=lambda item: -item[1])
