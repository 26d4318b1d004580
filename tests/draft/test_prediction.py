"""Which requests can be given a prediction, what is predicted, and when it pays."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from llm_proxy.draft.prediction import (
    Draft,
    Kind,
    Predictions,
    draft_in,
    may_be_predicted,
    with_prediction,
)
from llm_proxy.types import Usage
from llm_proxy.wire.chat import unpredicted
from tests.fakes import body_of, completion

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
KIND = Kind("cloud", "m", 0)


class TestParameters:
    @pytest.mark.parametrize(
        "fields",
        [
            {}, {"n": 1}, {"n": None}, {"tools": []}, {"logprobs": False}, {"presence_penalty": 0},
            {"frequency_penalty": -0.5}, {"modalities": ["text"]}, {"max_tokens": 9}, {"stream": False},
            {"stream": True, "stream_options": {"include_usage": True}}, {"temperature": 0.2, "seed": 1},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]},
        ],
    )  # fmt: skip
    def test_those_that_go_with_one(self, fields: dict[str, Any]) -> None:
        assert may_be_predicted({**ASKED, **fields})

    @pytest.mark.parametrize(
        "fields",
        [
            {"n": 2}, {"n": "2"}, {"logprobs": True}, {"top_logprobs": 2}, {"presence_penalty": 0.1},
            {"frequency_penalty": 1}, {"presence_penalty": "high"}, {"max_completion_tokens": 9},
            {"tools": [{"type": "function"}]}, {"functions": [{"name": "f"}]}, {"audio": {"voice": "alloy"}},
            {"modalities": ["text", "audio"]}, {"prediction": {"type": "content", "content": "mine"}},
            {"stream": True}, {"stream": True, "stream_options": {}}, {"stream": True, "stream_options": 7},
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            {"messages": [{"role": "user", "content": ["text"]}]},
        ],
    )  # fmt: skip
    def test_those_that_do_not(self, fields: dict[str, Any]) -> None:
        assert not may_be_predicted({**ASKED, **fields})


class TestDraft:
    def test_what_an_answer_says_and_how_long_it_is(self) -> None:
        assert draft_in(body_of(completion("hello"))) == Draft("hello", 5)

    def test_rejected_tokens_are_none_of_the_answer(self) -> None:
        usage = {"completion_tokens": 9, "completion_tokens_details": {"rejected_prediction_tokens": 3}}
        assert draft_in(body_of(completion("hello", usage=usage))) == Draft("hello", 6)

    @pytest.mark.parametrize(
        "usage",
        [None, {}, {"completion_tokens": 90, "completion_tokens_details": {"reasoning_tokens": 80}},
         {"completion_tokens": "many"}],
    )  # fmt: skip
    def test_a_length_that_is_not_said_is_reckoned(self, usage: Any) -> None:
        assert draft_in(body_of(completion("hello world", usage=usage))) == Draft("hello world", 3)

    @pytest.mark.parametrize(
        "stored",
        [
            b"", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": null}]}', body_of(completion(None)),
            body_of(completion(" ")), body_of(completion("x", usage=[1])),
            body_of(completion("x", usage={"completion_tokens": 3, "completion_tokens_details": 3})),
            b'{"choices": [{"message": {"content": "x", "tool_calls": [{"id": 1}]}}]}',
        ],
    )  # fmt: skip
    def test_what_is_no_text_is_no_draft(self, stored: bytes) -> None:
        assert draft_in(stored) is None

    @pytest.mark.parametrize("text", ["plain", 'quotes " and \\ and \n', "ünïcode \U0001f600", "\ud83d"])
    @pytest.mark.parametrize("space", [b"", b" \n"])
    def test_no_other_byte_of_a_request_differs(self, text: str, space: bytes) -> None:
        body = b'{"model":"m", "number":1.0000000000000000001e2' + space + b"}" + space
        sent = with_prediction(body, text)
        assert sent.startswith(b'{"model":"m", "number":1.0000000000000000001e2,"prediction":')
        assert json.loads(sent)["prediction"] == {"type": "content", "content": text}

    def test_what_the_answer_takes_without(self) -> None:
        assert unpredicted(Usage(10, 9, 2, accepted_tokens=4, rejected_tokens=3)) == Usage(10, 6, 2)
        assert unpredicted(Usage(10, 9)) == Usage(10, 9)


def used(accepted: int, rejected: int, answered: int = 100) -> Usage:
    return Usage(50, answered + rejected, accepted_tokens=accepted, rejected_tokens=rejected)


def rich(**settings: Any) -> Predictions:
    """One whose account is no matter."""
    found = Predictions(**settings)
    found.earned(1e9)
    return found


def course(predictions: Predictions, calls: int, accepted: int, *, seconds: float = 1.0, kind: Kind = KIND) -> int:
    """How many of so many calls get a prediction, of which so much is accepted."""
    sent = 0
    for _ in range(calls):
        if predictions.begin(kind, 0.01):
            sent += 1
            predictions.predicted(kind, used(accepted, 100 - accepted), seconds)
            predictions.give_back(0.01)
    return sent


class TestPays:
    def test_it_is_sent_as_long_as_much_is_accepted(self) -> None:
        assert course(rich(), 200, 80) == 200

    @pytest.mark.parametrize("accepted", [0, 5, 19])
    def test_it_stops_within_twenty_calls_where_little_is(self, accepted: int) -> None:
        predictions = rich()
        assert course(predictions, 20, accepted) <= 5
        assert course(predictions, 1000, accepted) <= 8, "and then tries ever more seldom"

    def test_it_stops_where_acceptance_falls(self) -> None:
        predictions = rich()
        assert course(predictions, 100, 80) == 100
        assert course(predictions, 20, 0) <= 10

    def test_it_finds_out_that_acceptance_has_risen(self) -> None:
        predictions = rich()
        course(predictions, 100, 0)
        assert course(predictions, 300, 90) > 100
        assert course(predictions, 100, 90) == 100

    def test_least_share(self) -> None:
        assert course(rich(least_accepted=0.5), 100, 40) < 10
        assert course(rich(least_accepted=0.3), 100, 40) == 100

    def test_it_stops_where_it_takes_longer(self) -> None:
        predictions = rich()
        for _ in range(10):
            predictions.answered(KIND, 100, 1.0)
        assert course(predictions, 50, 80, seconds=0.5) == 50
        assert course(predictions, 50, 80, seconds=1.5) < 20

    def test_an_answer_of_another_length_is_no_measure(self) -> None:
        predictions = rich()
        predictions.answered(KIND, 1000, 0.1)
        assert course(predictions, 50, 80, seconds=1.5) == 50

    def test_near_and_far_are_told_apart(self) -> None:
        near, far = Kind.of("cloud", "m", 0.95), Kind.of("cloud", "m", 0.6)
        assert (near.band, Kind.of("cloud", "m", 0.8).band, far.band) == (0, 1, 2)
        predictions = rich()
        assert course(predictions, 100, 0, kind=far) < 10
        assert course(predictions, 100, 90, kind=near) == 100
        assert predictions.accepted_share(near) == pytest.approx(0.9)
        assert predictions.accepted_share(Kind("cloud", "other", 0)) == 0.0

    def test_one_that_brought_no_answer_counts_against_it(self) -> None:
        predictions = rich()
        course(predictions, 50, 90)
        predictions.failed(KIND)
        assert course(predictions, 10, 90) == 0
        assert course(predictions, 20, 90) > 10, "a try succeeded"

    def test_who_refuses_is_left_alone(self) -> None:
        predictions = rich()
        predictions.refuses("cloud", "m")
        assert course(predictions, 1000, 90) == 0
        assert course(predictions, 10, 90, kind=Kind("cloud", "other", 0)) == 10

    def test_many_at_once_are_no_more_tries(self) -> None:
        predictions = rich()
        assert sum(predictions.begin(KIND, 0.0) for _ in range(15)) == 4

    def test_memory_is_bounded(self) -> None:
        predictions = rich()
        for number in range(3000):
            predictions.begin(Kind("cloud", f"m{number}", 0), 0.0)
            predictions.refuses("cloud", f"x{number}")
        assert len(predictions._known) <= 1024
        assert len(predictions._refusing) <= 1024


class TestAccount:
    def test_nothing_is_sent_before_it_is_earned(self) -> None:
        predictions = Predictions(max_extra_cost=0.25)
        assert not predictions.begin(KIND, 0.01)
        predictions.earned(0.039)
        assert not predictions.begin(KIND, 0.01)
        predictions.earned(0.001)
        assert predictions.begin(KIND, 0.01)
        assert not predictions.begin(KIND, 0.01), "the first one's is set aside"
        predictions.give_back(0.01)
        assert predictions.begin(KIND, 0.01)

    def test_free_models_need_none(self) -> None:
        assert Predictions(max_extra_cost=0.0).begin(KIND, 0.0)
        assert not Predictions(max_extra_cost=0.0).begin(KIND, 1e-9)

    @pytest.mark.parametrize("seed", range(5))
    def test_it_is_kept_at_every_moment(self, seed: int) -> None:
        chance = random.Random(seed)
        predictions, limit = Predictions(max_extra_cost=0.2), 0.2
        under_way: list[float] = []
        for _ in range(2000):
            most = chance.uniform(0, 0.02)
            if predictions.begin(KIND, most):
                under_way.append(most)
            else:
                predictions.earned(0.01)
            if under_way and chance.random() < 0.6:
                most = under_way.pop(chance.randrange(len(under_way)))
                extra = most * chance.random()
                predictions.predicted(KIND, used(60, 40), 1.0)
                predictions.earned(0.01, extra)
                predictions.give_back(most)
            total = predictions.extra_usd + sum(under_way)
            assert total <= limit * predictions.plain_usd + 1e-9
        assert predictions.extra_usd > 0
