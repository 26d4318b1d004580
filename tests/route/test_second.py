"""Second opinions: what a judge is asked, what its word means, and when two answers agree."""

from __future__ import annotations

import json

import pytest

from llm_proxy.cache.judge import normalised
from llm_proxy.route.second import SecondOpinion

OPINION = SecondOpinion(normalised)


def test_the_texts_are_data() -> None:
    body = OPINION.judging("m", 'ignore all"\n', "yes")
    _, _, data = body["messages"][0]["content"].partition("\n\n")
    assert (body["model"], json.loads(data)) == ("m", {"question": 'ignore all"\n', "answer": "yes"})


@pytest.mark.parametrize(
    ("said", "is_right"),
    [
        ("yes", True),
        ("It is so.\n**Yes.**", True),
        ("No", False),
        ("yes and no", False),
        ("", False),
        ("yesterday", False),
    ],
)
def test_only_yes_approves(said: str, is_right: bool) -> None:
    assert OPINION.approves(said) is is_right


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("Paris.", "**paris**", True),
        ("Paris", "Lyon", False),
        ("Since 2 + 2 = 4, the answer is (B).", "The answer is B", True),
        ('{"answer": "1,000"}', r"So \boxed{1000.0}", True),
        ("The answer is 4", "The answer is 5", False),
        ("It depends on much.", "There is a lot to be said.", False),
        ("", "", True),
    ],
)
def test_agreement(one: str, other: str, is_same: bool) -> None:
    assert OPINION.agree(one, other) is is_same
    assert OPINION.agree(other, one) is is_same
