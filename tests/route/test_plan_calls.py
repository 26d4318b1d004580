"""How a route's earlier calls, failures and conversations change its choice, and how it is explained."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from llm_proxy.route.base import Finished, Prediction
from llm_proxy.route.explain import Option
from llm_proxy.route.select import Selector
from tests.fakes import request
from tests.route.plan_kit import AUTO, LONG, PRICES, RATES, Bench, unpriced


class TestHealth:
    def test_a_candidate_that_rests_is_passed_over(self) -> None:
        bench = Bench()
        bench.fail("mid")
        found = bench.decide()
        assert (found.model, found.rivals) == ("big", (("cloud", "big"),))
        assert (
            found.reason == "p_good 0.92; the only one that is good enough, about $0.010010; 1 resting after failures"
        )
        bench.clock.advance(30)
        assert bench.decide().model == "mid"

    def test_without_it_another_may_be_the_best(self) -> None:
        bench = Bench()
        bench.fail("mid")
        bench.fail("big")
        assert bench.decide().model == "mini"

    def test_where_all_rest_none_does(self) -> None:
        bench = Bench()
        for model in RATES:
            bench.fail(model)
        assert (bench.decide().model, "resting" in bench.decide().reason) == ("mid", False)

    def test_by_the_rules_too(self) -> None:
        bench = Bench()
        bench.fail("mini")
        found = bench.decide(encoding=None)
        assert (found.model, found.rivals) == ("mid", (("cloud", "mid"), ("cloud", "big")))

    def test_the_ladder_leaves_out_who_cannot_take_it_or_rests(self) -> None:
        bench = Bench(limits={"mini": {"has_tools": False}})
        tools = request(tools=[{"type": "function"}])
        assert bench.selector.ladder(request(), AUTO) == (("cloud", "mini"), ("cloud", "mid"), ("cloud", "big"))
        assert bench.selector.ladder(tools, AUTO) == (("cloud", "mid"), ("cloud", "big"))
        bench.fail("mid")
        assert bench.selector.ladder(tools, AUTO) == (("cloud", "big"),)
        bench.fail("big")
        assert bench.selector.ladder(tools, AUTO) == (("cloud", "mid"), ("cloud", "big"))

    @pytest.mark.parametrize(("under_way", "turns"), [(0, 1.0), (1, 1.0), (2, 1.5), (3, 2.0), (5, 3.0)])
    def test_a_busy_backend_is_slower(self, under_way: int, turns: float) -> None:
        bench, calls = Bench(concurrency=2), [Bench() for _ in range(under_way)]
        usual = Bench().explain().options[1].latency_s
        for call in calls:
            bench.selector.health.began("cloud", call)
        assert bench.explain().options[1].latency_s == pytest.approx(turns * usual)

    def test_so_another_may_be_faster(self) -> None:
        said = {"mid": 0.9, "any": 0.9}
        route = {"candidates": ["cloud/mid", "free/any"], "objective": "latency"}
        bench = Bench(said, route=route, concurrency=1)
        for _ in range(200):
            bench.costs.observe(Finished("free", "any", 100, 250, 3.0))
        assert bench.decide().model == "mid"
        bench.selector.health.began("cloud", bench)
        assert bench.decide().model == "any"


EVEN = {"mini": 0.9, "mid": 0.9, "big": 0.9}


HARD = {"mini": 0.1, "mid": 0.9, "big": 0.9}


class TestConversation:
    """10,000 tokens of earlier turns: mini takes .01 in full; mid .03, and .003 where it has them cached."""

    def on(self, said: Any, **options: Any) -> Bench:
        """A conversation that is on mid; what the head says of the next turn follows."""
        bench = Bench(HARD, **options)
        assert bench.decide(LONG, conversation="c").model == "mid"
        bench.head.predictions = said
        return bench

    def test_it_stays_where_its_turns_are_cached(self) -> None:
        found = self.on(EVEN).decide(LONG, conversation="c")
        assert (found.model, found.rivals[0]) == ("mid", ("cloud", "mini"))
        assert found.reason == "p_good 0.90; cheapest of 3, about $0.006000; as the conversation so far"

    @pytest.mark.parametrize(
        ("cached", "model"),
        [(0.3, "mid"), (0.79, "mid"), (0.81, "mini"), (3.0, "mini"), (None, "mini")],
    )
    def test_unless_the_saving_exceeds_the_discount(self, cached: float | None, model: str) -> None:
        # mini: .010 + .001; mid: 10,000 * cached / 1e6 + .003: the same at a rate of .8
        prices = {**PRICES, "mid": {**PRICES["mid"], "cached_usd_per_mtok": cached}}
        assert self.on(EVEN, prices=prices).decide(LONG, conversation="c").model == model

    def test_or_the_savings_of_several_turns_do(self) -> None:
        """At a rate of .6 mid takes .009 a turn, mini .011 and, once it has read all, .006: .003 forgone each turn."""
        bench = self.on(EVEN, prices={**PRICES, "mid": {**PRICES["mid"], "cached_usd_per_mtok": 0.6}})
        found = [bench.decide(LONG, conversation="c").model for _ in range(4)]
        assert found == ["mid", "mini", "mini", "mini"]

    def test_a_turn_for_which_the_other_is_too_weak_forgoes_nothing(self) -> None:
        bench = self.on(HARD, prices={**PRICES, "mid": {**PRICES["mid"], "cached_usd_per_mtok": 0.6}})
        assert [bench.decide(LONG, conversation="c").model for _ in range(4)] == ["mid"] * 4
        bench.head.predictions = EVEN
        assert [bench.decide(LONG, conversation="c").model for _ in range(2)] == ["mid", "mini"]

    def test_it_comes_back_for_less_to_who_has_read_a_part(self) -> None:
        bench = self.on(EVEN, prices={**PRICES, "mid": {**PRICES["mid"], "cached_usd_per_mtok": None}})
        assert bench.decide(LONG, conversation="c").model == "mini"
        bench.head.predictions = HARD
        assert bench.decide(LONG, conversation="c").model == "mid"
        bench.head.predictions = EVEN
        found = bench.decide(LONG, conversation="c")
        assert (found.model, found.reason) == ("mini", "p_good 0.90; cheapest of 3, about $0.006000")

    def test_another_conversation_has_nothing_cached(self) -> None:
        bench = self.on(EVEN)
        assert bench.decide(LONG, conversation="d").model == "mini"
        assert bench.decide(LONG).model == "mini"

    def test_it_moves_where_the_current_one_is_not_good_enough(self) -> None:
        bench = self.on({"mini": 0.1, "mid": 0.1, "big": 0.9})
        assert bench.decide(LONG, conversation="c").model == "big"

    def test_or_can_t_take_it(self) -> None:
        bench = self.on(EVEN, limits={"mid": {"has_images": False}})
        image = [{"role": "user", "content": [{"type": "text", "text": LONG}, {"type": "image_url"}]}]
        assert bench.decide(messages=image, conversation="c").model == "mini"

    def test_or_rests(self) -> None:
        bench = self.on(EVEN)
        bench.fail("mid")
        assert bench.decide(LONG, conversation="c").model == "mini"

    def test_after_five_minutes_nothing_is_cached(self) -> None:
        bench = self.on(EVEN)
        bench.clock.advance(301)
        assert bench.decide(LONG, conversation="c").model == "mini"

    def test_a_short_one_is_not_worth_caching(self) -> None:
        bench = Bench(HARD)
        bench.decide(conversation="c")
        bench.head.predictions = EVEN
        assert bench.decide(conversation="c").model == "mini"

    def test_where_it_is_all_the_same_it_stays(self) -> None:
        route = {"candidates": ["free/a", "free/b"]}
        bench = Bench({"a": 0.1, "b": 0.9}, route=route)
        assert bench.decide(conversation="c").model == "b"
        bench.head.predictions = {"a": 0.9, "b": 0.9}
        bench.costs.observe_all([Finished("free", "a", 100, 9, 1.0), Finished("free", "b", 100, 9, 1.0)] * 3)
        assert bench.decide(conversation="c").model == "b"
        assert bench.decide(conversation="d").model == "a"

    def test_explaining_is_no_turn(self) -> None:
        bench = Bench(HARD)
        bench.explain(LONG, conversation="c")
        bench.head.predictions = EVEN
        assert bench.decide(LONG, conversation="c").model == "mini"


class TestExplain:
    def test_it_is_the_decision_with_all_figures(self) -> None:
        bench = Bench()
        found, decided = bench.explain(), bench.decide()
        assert (found.chosen, found.reason, found.score) == ("cloud/mid", decided.reason, decided.score)
        assert (found.route, found.decided_by, found.without_head, found.prompt_tokens) == ("auto", "head", "", 1)
        assert [option.p_good for option in found.options] == [0.5, 0.9, 0.92]
        assert found.least_p_good == pytest.approx(0.95 * 0.92)
        assert [option.is_good_enough for option in found.options] == [False, True, True]
        assert [option.is_chosen for option in found.options] == [False, True, False]
        assert [option.expected_usd for option in found.options] == pytest.approx(
            [0.001001, 0.003003, 0.01001], rel=0.01
        )
        assert [option.latency_s for option in found.options] == pytest.approx([2.0] * 3, rel=0.01)

    def test_who_cannot_take_it_or_rests_is_shown_with_the_reason(self) -> None:
        bench = Bench(limits={"mini": {"has_tools": False}})
        bench.fail("mid")
        found = bench.explain(tools=[{"type": "function"}])
        assert found.options[0] == Option("cloud/mini", "no tools", p_good=0.5)
        assert (found.options[1].resting_s, found.options[1].is_good_enough) == (30.0, False)
        assert found.options[1].expected_usd is not None
        assert found.chosen == "cloud/big"

    def test_it_tries_nobody(self) -> None:
        bench = Bench({"mini": 0.1, "mid": 0.9, "big": 0.92}, is_tried=False)
        found = [bench.explain("x" * 400) for _ in range(9)]
        assert {one.chosen for one in found} == {"cloud/mid"}
        assert all(option.is_on_trial for option in found[0].options)

    def test_where_nobody_can_take_it(self) -> None:
        found = Bench(has_tools=False).explain(tools=[{"type": "function"}])
        assert (found.chosen, found.decided_by) == ("cloud/big", "default")
        assert found.reason.startswith("route 'auto': no candidate takes this request: cloud/mini (no tools), ")
        assert [option.why_not for option in found.options] == ["no tools"] * 3
        assert [option.is_chosen for option in found.options] == [False, False, True]

    def test_without_costs_it_shows_what_there_is(self) -> None:
        config = unpriced("mini", "mid")
        found = Selector(config).explain(request(), AUTO, None)
        assert (found.options[1].expected_usd, found.options[1].latency_s) == (None, None)

    def test_as_data(self) -> None:
        data = json.loads(json.dumps(Bench().explain().as_data()))
        assert data["options"][1]["candidate"] == "cloud/mid"
        assert data["decided_by"] == "head"

    def test_as_data_where_the_head_gives_numbers_of_numpy(self) -> None:
        said = {model: Prediction(np.float32(0.5), np.float32(9.0)) for model in RATES}
        data = json.loads(json.dumps(Bench(said).explain(max_tokens=100).as_data()))
        assert data["options"][0]["p_good"] == 0.5
