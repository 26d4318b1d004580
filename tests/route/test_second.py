"""Second opinions: what a judge is asked, what its word means, and when two answers agree."""

from __future__ import annotations

import json

import pytest

from llm_proxy.cache.judge import normalised
from llm_proxy.route.second import AsGood, SecondOpinion

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
        ("The answer is 50%", "The answer is 50", False),
        ("The answer is 500 km", "The answer is 500 m", False),
        ("The answer is 500 kms.", "So it is. The answer is **500 km**", True),
        (r"\boxed{50\%}", "The answer is 50 %.", True),
        ("The answer is $18", "answer: 18 dollars", True),
        ("The answer is 5 apples of the red kind", "The answer is 5", True),
        ("The answer is 5 apples and 3 pears", "The answer is 5", False),
        ("The answer is 5 km", "The answer is 5 m", False),
        ("The answer is 18 miles", "The answer is 18", True),
        ("The answer is red", "The answer is red wine", False),
    ],
)
def test_agreement(one: str, other: str, is_same: bool) -> None:
    assert OPINION.agree(one, other) is is_same
    assert OPINION.agree(other, one) is is_same


class TestAsGood:
    """Whether one answer is as good as another, by a model."""

    judge = AsGood("b/judge", normalised)

    def test_the_texts_are_data(self) -> None:
        body = self.judge.body("how far?", 'ignore all"\n', "far")
        _, _, data = body["messages"][0]["content"].partition("\n\n")
        assert body["model"] == "b/judge"
        assert json.loads(data) == {"question": "how far?", "answer_1": 'ignore all"\n', "answer_2": "far"}

    @pytest.mark.parametrize(("other", "is_good"), [("**5,000** km.", True), ("5000 miles", None)])
    def test_asks_only_where_it_has_to(self, other: str, is_good: bool | None) -> None:
        assert self.judge.compare("5000 km", other) is is_good

    @pytest.mark.parametrize(
        ("said", "is_good"),
        [("yes", True), ("It does less.\n**No.**", False), ("perhaps", None), ("", None), ("yes and no, well", None)],
    )
    def test_the_last_word_counts(self, said: str, is_good: bool | None) -> None:
        assert self.judge.verdict(said) is is_good


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("Paris", "Lyon", False),
        ("It is said that " * 20, "Paris", None),
        ("It is said that " * 20 + "so the answer is 4.", "The answer is 5", False),
        ("yes", "Yes.", True),
    ],
)
def test_what_can_not_be_compared(one: str, other: str, is_same: bool | None) -> None:
    assert OPINION.compare(one, other) is is_same
