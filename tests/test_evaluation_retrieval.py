"""Measures of rankings, by hand and against another computation of the same."""

import doctest
import math

import numpy as np
import pytest

from tf_llm.evaluation import retrieval
from tf_llm.evaluation.retrieval import compare_paired, compute_ndcg, compute_recall, compute_reciprocal_rank


def test_docstring_examples():
    result = doctest.testmod(retrieval)
    assert result.attempted >= 5 and result.failed == 0


def test_ndcg_by_hand():
    gains = {"a": 3, "b": 2, "c": 1, "never": 0, "worse": -1}
    assert compute_ndcg("abc", gains) == pytest.approx(1.0)
    best = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert compute_ndcg("cxa", gains) == pytest.approx((1 + 3 / 2) / best)
    assert compute_ndcg("xxxa", gains, depth=2) == pytest.approx(3 / math.log2(3) / (3 + 2 / math.log2(3)))
    assert compute_ndcg("xyza", gains, depth=3) == 0.0
    assert compute_ndcg("", gains) == compute_ndcg("abc", {}) == compute_ndcg("a", {"a": 0}) == 0.0
    assert compute_ndcg(["worse", "a"], gains, depth=2) < compute_ndcg(["a", "worse"], gains, depth=2)
    assert compute_ndcg("aaaa", {"a": 1}) == 1.0  # and not more


def test_recall_and_reciprocal_rank_by_hand():
    gains = {"a": 1, "b": 4, "c": 0}
    assert [compute_recall("cxab", gains, depth) for depth in (1, 2, 3, 4, 9)] == [0, 0, 0.5, 1, 1]
    assert compute_recall("ab", {"c": 0}) == compute_recall("", gains) == 0.0
    assert compute_reciprocal_rank("cxab", gains) == 1 / 3
    assert compute_reciprocal_rank("cxab", gains, depth=2) == compute_reciprocal_rank("", gains) == 0.0


def test_ndcg_is_that_of_another_computation():
    rng = np.random.default_rng(0)
    for _ in range(50):
        gains = dict(enumerate(rng.integers(0, 5, 30).tolist()))
        ranking = rng.permutation(30).tolist()
        discounts = 1 / np.log2(np.arange(2, 12))
        found = np.array([gains[i] for i in ranking[:10]]) @ discounts
        best = np.sort(list(gains.values()))[::-1][:10] @ discounts
        assert compute_ndcg(ranking, gains) == pytest.approx(found / best)


def test_a_bootstrap_knows_chance_from_a_difference():
    rng = np.random.default_rng(1)
    scores = rng.uniform(size=100)
    better = compare_paired(scores, scores + rng.normal(0.1, 0.1, 100))
    assert better["least"] > 0.05 and better["p"] < 0.001
    chance = compare_paired(scores, scores + rng.normal(0, 0.1, 100))
    assert chance["least"] < 0 < chance["most"] and chance["p"] > 0.05


def test_a_bootstrap_agrees_with_the_normal_approximation():
    differences = np.random.default_rng(2).normal(0.05, 0.2, 400)
    found = compare_paired(np.zeros(400), differences)
    error = differences.std() / 20  # of the mean of 400
    assert found["most"] - found["least"] == pytest.approx(2 * 1.96 * error, rel=0.05)
    two_sided = math.erfc(abs(differences.mean()) / error / math.sqrt(2))
    assert found["p"] == pytest.approx(two_sided, abs=0.01)
    assert compare_paired(differences, np.zeros(400))["difference"] == -found["difference"]


def test_no_difference_is_certain_of_nothing():
    assert compare_paired([0.5, 0.1], [0.5, 0.1]) == {"difference": 0, "least": 0, "most": 0, "p": 1}


@pytest.mark.parametrize("scores", [([], []), ([1.0], [1.0, 2.0])])
def test_scores_of_other_queries_are_refused(scores):
    with pytest.raises(ValueError, match=r"scores are expected for the same queries, at least one. Received: "):
        compare_paired(*scores)
