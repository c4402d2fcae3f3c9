"""The measures of understanding, against frames counted by hand."""

import math

import pytest

from tf_llm.evaluation.understanding import choose_threshold, score_frames, score_slots

PLAY = ("play", (("artist", "abba"), ("year", "1976")))


def test_a_perfect_understanding():
    figures = score_frames([PLAY, None], [PLAY, None])
    assert set(figures.values()) == {1.0}


def test_slots_count_by_themselves_where_the_intent_is_wrong():
    figures = score_frames([PLAY], [("rate", (("artist", "abba"),))])
    assert figures["intent_accuracy"] == 0 and figures["exact_frame"] == 0
    assert (figures["slot_precision"], figures["slot_recall"]) == (1.0, 0.5)
    assert figures["slot_f1"] == pytest.approx(2 / 3)


def test_a_slot_that_is_made_twice_and_wanted_once_is_wrong_once():
    assert score_slots([(("city", "rome"),)], [(("city", "rome"), ("city", "rome"))])[0] == 0.5


def test_the_order_of_slots_is_part_of_an_exact_frame():
    made = ("play", PLAY[1][::-1])
    assert score_frames([PLAY], [made])["exact_frame"] == 0
    assert score_frames([PLAY], [made])["slot_f1"] == 1


def test_what_is_out_of_scope_is_counted_apart():
    figures = score_frames([PLAY, PLAY, None, None], [PLAY, None, None, PLAY])
    assert (figures["in_scope_accuracy"], figures["out_of_scope_recall"]) == (0.5, 0.5)
    assert math.isnan(score_frames([PLAY], [PLAY])["out_of_scope_recall"])


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"expected to be 2\. Received: 1"):
        score_frames([PLAY, None], [PLAY])


@pytest.mark.parametrize(("least", "threshold"), [(1.0, 0.3), (0.5, 0.8), (0.25, 0.9), (0.0, 0.0)])
def test_the_threshold_keeps_as_many_as_were_asked_for(least, threshold):
    confidences, right = [0.9, 0.8, 0.5, 0.3, 0.95], [True, True, True, True, False]
    assert choose_threshold(confidences, right, [True] * 4 + [False], least) == threshold


def test_no_threshold_keeps_what_was_never_right():
    assert choose_threshold([0.9, 0.8], [True, False], [True, True], 1.0) == 0.0
