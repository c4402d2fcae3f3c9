"""How well requests were understood: intents, slots, whole frames, and what was out of scope.

A frame is what one request means: (intent, ((slot, value), …)), plain strings; None is out of scope. The measures are
those of the papers on SNIPS (Coucke et al. 2018, https://arxiv.org/abs/1805.10190) and CLINC150 (Larson et al. 2019,
https://aclanthology.org/D19-1131).

    >>> wanted = [("play", (("artist", "abba"), ("year", "1976"))), ("rate", (("stars", "5"),)), None]
    >>> made = [("play", (("artist", "abba"), ("year", "76"))), ("rate", (("stars", "5"),)), None]
    >>> for name, value in score_frames(wanted, made).items():
    ...     print(f"{name:20} {value:.3f}")
    intent_accuracy      1.000
    slot_precision       0.667
    slot_recall          0.667
    slot_f1              0.667
    exact_frame          0.667
    in_scope_accuracy    1.000
    out_of_scope_recall  1.000
"""

from collections import Counter

import numpy as np

OUT_OF_SCOPE = None


def score_frames(wanted, made):
    """All measures at once, of equally many frames that were wanted and that were made.

    Returns:
        A dictionary: `intent_accuracy`, over all requests; `slot_precision`, `slot_recall` and `slot_f1`, over all
        slots, each of which counts with its value and whatever the intent (as conlleval does); `exact_frame`, the share
        of requests with the right intent and exactly the right slots; `in_scope_accuracy`, of intents over the requests
        that have one; `out_of_scope_recall`, the share of the others that were refused. A share of nothing is nan.

    Raises:
        ValueError: the lists differ in length.
    """
    if len(wanted) != len(made):
        raise ValueError(f"frames that were made are expected to be {len(wanted)}. Received: {len(made)}")
    right_intent = [_intent(want) == _intent(make) for want, make in zip(wanted, made, strict=True)]
    exact = [want == make for want, make in zip(wanted, made, strict=True)]
    in_scope = np.array([want is not OUT_OF_SCOPE for want in wanted], bool)
    precision, recall, f1 = score_slots([_slots(want) for want in wanted], [_slots(make) for make in made])
    return {
        "intent_accuracy": _share(right_intent),
        "slot_precision": precision,
        "slot_recall": recall,
        "slot_f1": f1,
        "exact_frame": _share(exact),
        "in_scope_accuracy": _share(np.array(right_intent, bool)[in_scope]),
        "out_of_scope_recall": _share(np.array(right_intent, bool)[~in_scope]),
    }


def score_slots(wanted, made):
    """Precision, recall and F1 over all slots of all requests: lists of tuples of (slot, value) -> three floats.

    A slot that is wanted twice has to be made twice.

    >>> score_slots([(("city", "rome"), ("city", "oslo"))], [(("city", "rome"),)])
    (1.0, 0.5, 0.6666666666666666)
    """
    hits = sum((Counter(want) & Counter(make)).total() for want, make in zip(wanted, made, strict=True))
    precision, recall = _share_of(hits, sum(map(len, made))), _share_of(hits, sum(map(len, wanted)))
    return precision, recall, _share_of(2 * hits, sum(map(len, made)) + sum(map(len, wanted)))


def choose_threshold(confidences, right, in_scope, least_accuracy):
    """The confidence below which requests are to be refused: the highest that keeps enough of those in scope.

    What is refused counts as out of scope. So a higher threshold finds more of what is out of scope, and loses more of
    what was understood.

    Args:
        confidences: float [N], in [0, 1].
        right: bool [N], whether the intent is right where it is not refused.
        in_scope: bool [N].
        least_accuracy: the share of the requests in scope that have to be right and not refused.

    Returns:
        The threshold; 0.0 where even that keeps too few.

    >>> choose_threshold([0.9, 0.8, 0.3, 0.2], [True, True, True, False], [True, True, True, False], 2 / 3)
    0.8
    """
    confidences, kept = np.asarray(confidences, float), np.asarray(right, bool) & np.asarray(in_scope, bool)
    ranked = np.sort(confidences[kept])[::-1]  # of those that are worth keeping
    needed = int(np.ceil(least_accuracy * np.count_nonzero(in_scope) - 1e-9))
    return float(ranked[needed - 1]) if 0 < needed <= len(ranked) else 0.0


def _intent(frame):
    return OUT_OF_SCOPE if frame is OUT_OF_SCOPE else frame[0]


def _slots(frame):
    return () if frame is OUT_OF_SCOPE else frame[1]


def _share(flags):
    return float(np.mean(flags)) if len(flags) else float("nan")


def _share_of(part, whole):
    return part / whole if whole else float("nan")
