"""How likely one answer serves two questions: what the rules, the encoder and the pair model say, in one number.

The rules (`compare.agree`) come first: a number, a name, a negation that differs is never outvoted. What they leave
open is weighed: the pair model's logit, and on top the cosine with a weight of its own, so that similarity helps.
"""

from __future__ import annotations

import math

__all__ = ["JUDGED", "p_same"]

JUDGED = frozenset({"", "words", "person", "question"})
"""What `compare.agree` may find, and the pair model may still call the same question; all else is refused."""

# The score is the logit plus the cosine and the rules with weights of their own; P is .996 at a score of _SERVED_AT,
# which no different pair of the slot sets reaches, .003 of the different general questions that were kept out of
# training, and 3 of 888 near misses written for this (router_models/guard/card.md). Texts that are all but one to the
# encoder need less of the model: above .9 the cosine counts more. So do questions that begin otherwise ("what does it
# weigh", "how heavy is it"): the model is too strict with them. The weights were chosen by those sets, so that most of
# the same questions are served at no more different ones. Where P is in between it is lower than what those sets show,
# since a cache's neighbours are different questions more often than their pairs.
_COSINE = 9.0
_FOUND = {"": 1.5, "question": 1.0}  # by what the rules found
_NEAR_COSINE, _NEAR_FROM = 5.0, 0.9
_SERVED_AT, _SLOPE = 4.15, 1.9
_MIDDLE = _SERVED_AT - math.log(0.996 / 0.004) / _SLOPE
_USUAL_COSINE = 0.8
_MOST, _LEAST = 5.0, -9.0  # a logit beyond says no more than these
_LEAST_COSINE = 0.5  # pairs further apart were hardly seen in training

# Agreeing wordings need no model where they are near enough: at .95 P is .996. Set, not fitted: of the pairs in which
# the rules find nothing, too few are different to fit a slope.
_RULES_AT, _RULES_SLOPE = 0.95, 40.0
_SURE = math.log(0.996 / 0.004)


def p_same(reason: str, cosine: float, logit: float | None) -> float:
    """Probability that the answer to one text answers the other.

    Args:
        reason: What `compare.agree` found to differ; the empty string for nothing.
        cosine: Of the encoder's vectors, in [-1, 1].
        logit: Of `model.PairModel.logit`; None where there is no model, or it cannot tell.

    Returns:
        P in [0, 1], never falling as ``cosine`` or ``logit`` grows; 0 where a rule forbids, and for a NaN.
    """
    if reason not in JUDGED or not cosine >= _LEAST_COSINE or (logit is not None and math.isnan(logit)):
        return 0.0
    by_rules = 0.0 if reason else _sigmoid(_SURE + _RULES_SLOPE * (cosine - _RULES_AT))
    if logit is None:
        return by_rules
    nearness = _COSINE * (cosine - _USUAL_COSINE) + _NEAR_COSINE * max(cosine - _NEAR_FROM, 0.0)
    score = min(max(logit, _LEAST), _MOST) + nearness + _FOUND.get(reason, 0.0)
    return max(by_rules, _sigmoid(_SLOPE * (score - _MIDDLE)))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
