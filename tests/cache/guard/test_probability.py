"""One number out of rules, cosine and logit: monotone, and never against a rule."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.cache.guard.probability import JUDGED, p_same

COSINES = st.floats(-1, 1)
LOGITS = st.floats(-30, 30)
REASONS = st.sampled_from(sorted(JUDGED))
SERVED = 0.996


@given(REASONS, COSINES, st.none() | LOGITS)
def test_it_is_a_probability(reason: str, cosine: float, logit: float | None) -> None:
    assert 0 <= p_same(reason, cosine, logit) <= 1


@given(REASONS, COSINES, COSINES, st.none() | LOGITS)
def test_similarity_only_helps(reason: str, one: float, other: float, logit: float | None) -> None:
    low, high = sorted((one, other))
    assert p_same(reason, low, logit) <= p_same(reason, high, logit)


@given(REASONS, COSINES, LOGITS, LOGITS)
def test_the_model_only_helps(reason: str, cosine: float, one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert p_same(reason, cosine, low) <= p_same(reason, cosine, high)


@given(COSINES, LOGITS)
def test_agreeing_wordings_are_never_less_likely(cosine: float, logit: float) -> None:
    assert p_same("", cosine, logit) >= p_same("words", cosine, logit)


@pytest.mark.parametrize("reason", ["quotes", "operators", "numbers", "negation", "names", "direction", "tense", "new"])
def test_a_rule_is_never_outvoted(reason: str) -> None:
    assert p_same(reason, 1.0, 30.0) == 0


def test_without_the_model_only_agreeing_wordings_are_served() -> None:
    assert p_same("words", 1.0, None) == 0
    assert p_same("", 0.95, None) == pytest.approx(SERVED)
    assert p_same("", 0.94, None) < SERVED


@pytest.mark.parametrize(("cosine", "logit"), [(math.nan, 3.0), (math.nan, None), (1.0, math.nan)])
def test_what_is_no_number_is_refused(cosine: float, logit: float | None) -> None:
    assert p_same("", cosine, logit) == 0


def test_words_that_differ_are_served_where_both_are_sure() -> None:
    assert p_same("words", 0.97, 6.0) >= SERVED
    assert p_same("words", 0.55, 6.0) < SERVED
    assert p_same("words", 0.97, 0.0) < SERVED
    assert p_same("words", 0.4, 30.0) == 0


def test_questions_that_begin_otherwise_need_less_of_the_model() -> None:
    assert p_same("question", 0.9, 2.3) >= SERVED > p_same("words", 0.9, 2.3)
    assert p_same("", 0.9, 1.8) >= SERVED > p_same("question", 0.9, 1.8)


def test_texts_that_are_all_but_one_need_less_of_the_model() -> None:
    assert p_same("words", 0.98, 2.2) >= SERVED > p_same("words", 0.90, 2.6)
    assert p_same("words", 0.90, 3.3) >= SERVED > p_same("words", 0.80, 3.9)
    assert p_same("words", 0.99, 1.0) < SERVED  # the model still has a veto
