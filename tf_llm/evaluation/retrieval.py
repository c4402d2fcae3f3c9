"""How good is a ranking? nDCG, recall and reciprocal rank by judged documents, and whether a difference is one.

A ranking is a sequence of documents' names, best first; what was judged is {document: gain}, where a gain above 0 means
relevant and a larger one more so. All measures are 0 to 1 for one query; the mean over queries is what is reported.
"""

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

Ranking = Sequence[Hashable]
Gains = Mapping[Hashable, float]


def compute_ndcg(ranking: Ranking, gains: Gains, depth: int = 10) -> float:
    """Normalised discounted cumulative gain: the gains of the first `depth` ranks, each divided by log₂(rank + 1), as a
    share of what the best order would have (Järvelin, Kekäläinen 2002, https://doi.org/10.1145/582415.582418).

    Gains are taken as they are; the variant with 2^gain − 1 is had by handing those over. Where nothing is relevant it
    is 0. A document that comes twice counts where it comes first.

    >>> round(compute_ndcg(["b", "x", "a"], {"a": 3, "b": 1}), 4)  # (1/1 + 3/2) / (3/1 + 1/1.585)
    0.6885
    """
    discounts = [1 / math.log2(rank + 1) for rank in range(1, depth + 1)]
    found = [max(gains.get(document, 0), 0) for document in list(dict.fromkeys(ranking))[:depth]]
    ideal = sorted((gain for gain in gains.values() if gain > 0), reverse=True)[:depth]
    best = sum(gain * discount for gain, discount in zip(ideal, discounts, strict=False))
    return sum(gain * discount for gain, discount in zip(found, discounts, strict=False)) / best if best else 0.0


def compute_recall(ranking: Ranking, gains: Gains, depth: int = 10) -> float:
    """The share of the relevant documents that stand among the first `depth`; 0 where nothing is relevant.

    >>> compute_recall(["b", "x", "a"], {"a": 3, "b": 1, "c": 1, "d": 0}, depth=2)
    0.3333333333333333
    """
    relevant = {document for document, gain in gains.items() if gain > 0}
    return len(relevant & set(ranking[:depth])) / len(relevant) if relevant else 0.0


def compute_reciprocal_rank(ranking: Ranking, gains: Gains, depth: int | None = None) -> float:
    """1 / rank of the first relevant document; 0 where none stands among the first `depth`. Its mean is the MRR.

    >>> compute_reciprocal_rank(["x", "a", "b"], {"a": 3, "b": 1})
    0.5
    """
    for rank, document in enumerate(ranking[:depth], 1):
        if gains.get(document, 0) > 0:
            return 1 / rank
    return 0.0


def compare_paired(
    first: Sequence[float], second: Sequence[float], samples: int = 10_000, seed: int = 0
) -> dict[str, float]:
    """Is `second` better than `first`, or were the queries kind to it? A paired bootstrap over queries.

    Queries are drawn with replacement, both systems scored on the same draw, and the difference of the means noted
    (Efron, Tibshirani 1993, chapter 16; Sakai 2006, https://doi.org/10.1145/1148170.1148261).

    Args:
        first, second: a score for each query, in the same order.
        samples: how many draws.
        seed: of the draws.

    Returns:
        difference: of the means, second minus first.
        least, most: between which 95 % of the drawn differences lie.
        p: how often a difference at least as large as the one found, in whichever direction, comes about where there is
            none: in draws from the differences with their mean taken away.

    Raises:
        ValueError: they are not of one length, or empty.

    >>> result = compare_paired([0.2, 0.4, 0.6, 0.1], [0.3, 0.5, 0.7, 0.2])
    >>> round(result["difference"], 3), round(result["least"], 3), round(result["most"], 3)
    (0.1, 0.1, 0.1)
    """
    first, second = np.asarray(first, float), np.asarray(second, float)  # [Q]
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(
            f"scores are expected for the same queries, at least one. Received: {first.shape} and {second.shape}"
        )
    differences = second - first
    found = differences.mean()
    rng = np.random.default_rng(seed)
    drawn = np.concatenate(  # [samples], a thousand at a time to bound the memory
        [
            differences[rng.integers(0, len(differences), (min(1_000, samples - begin), len(differences)))].mean(axis=1)
            for begin in range(0, samples, 1_000)
        ]
    )
    least, most = np.quantile(drawn, [0.025, 0.975])
    # Round: equal differences, minus their mean, leave dust that would count as larger or smaller.
    extreme = np.abs(np.round(drawn - found, 12)) >= np.round(abs(found), 12)
    return {"difference": float(found), "least": float(least), "most": float(most), "p": float(extreme.mean())}
