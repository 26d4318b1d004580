"""How a route chooses by a head, with conversations, failures and load."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.backends.prices import Prices
from llm_proxy.config import Config
from llm_proxy.errors import RouterError
from llm_proxy.route.base import Finished, Prediction
from llm_proxy.route.costs import CostEstimator
from llm_proxy.route.select import Selector
from llm_proxy.testing import FakeHead
from tests.fakes import request
from tests.route.plan_kit import AUTO, P_GOOD, PRICES, VECTOR, Bench, unpriced


class TestQuality:
    def test_the_cheapest_of_those_that_are_good_enough(self) -> None:
        found = Bench().decide()
        assert (found.model, found.rivals) == ("mid", (("cloud", "mid"), ("cloud", "big")))
        assert found.score == pytest.approx(1 - 0.5 / 0.92)
        assert found.reason == "p_good 0.90; cheapest of 2, about $0.003003"

    @pytest.mark.parametrize(("quality", "model"), [(0.54, "mini"), (0.55, "mid"), (0.978, "mid"), (0.98, "big")])
    def test_the_tolerance_is_the_route_s(self, quality: float, model: str) -> None:
        assert Bench(route={"quality": quality}).decide().model == model

    def test_the_only_one_says_so(self) -> None:
        found = Bench({"mini": 0.1, "mid": 0.2, "big": 0.9}).decide()
        assert found.reason == "p_good 0.90; the only one that is good enough, about $0.010010"

    def test_the_best_is_that_of_those_who_can_take_it(self) -> None:
        bench = Bench(
            {"mini": 0.5, "mid": 0.9, "any": 1.0}, route={"candidates": ["cloud/mini", "cloud/mid", "free/any"]}
        )
        assert bench.decide().model == "any"
        assert bench.decide(tools=[{"type": "function"}]).model == "mid"

    def test_the_question_is_what_the_head_reads(self) -> None:
        bench = Bench()
        messages = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "so"}]
        bench.decide(messages=[{"role": "system", "content": "be brief"}, *messages])
        assert bench.head.texts == ["why?"]


class TestOtherTerms:
    @pytest.mark.parametrize(("worth", "model"), [(0.004, "mini"), (0.1, "mid"), (0.9, "big")])
    def test_what_a_good_answer_is_worth(self, worth: float, model: str) -> None:
        # .0011, .0033 and .011 dollars at 250 tokens of answer: mid from .0055, big from .385 on
        assert Bench(route={"usd_per_good_answer": worth}).decide().model == model

    def test_it_says_so(self) -> None:
        assert Bench(route={"usd_per_good_answer": 0.1}).explain().least_p_good is None
        found = Bench(route={"usd_per_good_answer": 0.1}).decide()
        assert found.reason == "p_good 0.90; worth the most of 3, about $0.003003"
        assert found.rivals == (("cloud", "mid"), ("cloud", "big"))

    def test_the_fastest_of_those_that_are_good_enough(self) -> None:
        bench = Bench(route={"objective": "latency"})
        for _ in range(2_000):
            bench.costs.observe(Finished("cloud", "big", 100, 250, 0.5))
        found = bench.decide()
        assert (found.model, found.rivals) == ("big", (("cloud", "big"),))
        assert found.reason == "p_good 0.92; fastest of 2, about $0.010010"

    def test_a_model_whose_latency_was_never_seen_is_tried(self) -> None:
        said = {"mini": 0.5, "mid": Prediction(0.9, 100.0), "new": Prediction(0.9, 100.0)}
        route = {"objective": "latency", "candidates": ["cloud/mini", "cloud/mid", "cloud/new"]}
        bench = Bench(said, route=route, prices={**PRICES, "new": PRICES["big"]})
        assert [bench.decide().model for _ in range(5)] == ["new"] * 3 + ["mid"] * 2


class TestTokens:
    def test_a_head_s_length_replaces_the_usual_one(self) -> None:
        said = {"mini": 0.5, "mid": Prediction(0.9, 5_000.0), "big": Prediction(0.92, 20.0)}
        found = Bench(said).decide()
        assert (found.model, found.foretold_tokens) == ("big", 20.0)
        assert found.reason == "p_good 0.92; cheapest of 2, about $0.000810"

    def test_it_is_scaled_to_what_was_seen(self) -> None:
        bench = Bench({"mini": 0.5, "mid": Prediction(0.9, 100.0), "big": Prediction(0.92, 100.0)})
        for _ in range(96):
            bench.selector.observe(Finished("cloud", "mid", 100, 1_000, 2.0, foretold_tokens=100.0))
        # (96 * 1000 + 4 * 100) / (96 * 100 + 4 * 100) = 9.64
        tokens = {option.candidate: option.completion_tokens for option in bench.explain().options}
        assert tokens["cloud/mid"] == pytest.approx(964.0)
        assert tokens["cloud/big"] == pytest.approx(100.0)

    def test_the_latency_goes_with_it_fourfold_at_most(self) -> None:
        found = {}
        for tokens in (250.0, 500.0, 10_000.0, 1.0):
            bench = Bench({"mini": 0.5, "mid": Prediction(0.9, tokens), "big": 0.92})
            found[tokens] = bench.explain().options[1].latency_s
        assert [found[tokens] / found[250.0] for tokens in found] == pytest.approx([1.0, 2.0, 4.0, 0.25], rel=0.01)

    def test_no_answer_is_longer_than_the_request_allows(self) -> None:
        said = {"mini": 0.5, "mid": Prediction(0.9, 1_000.0), "big": 0.92}
        options = Bench(said).explain(max_tokens=125).options
        assert [option.completion_tokens for option in options] == [125.0] * 3
        assert [option.latency_s for option in options] == pytest.approx([1.0, 1.0, 1.0], rel=0.01)
        assert Bench(said).decide(max_tokens=125).foretold_tokens == 125.0
        assert [
            option.completion_tokens for option in Bench(said).explain(max_tokens=125_000).options
        ] == pytest.approx([250.0, 1_000.0, 250.0], rel=0.01)

    def test_it_needs_no_trial(self) -> None:
        said = {"mini": 0.5, "mid": Prediction(0.9, 250.0), "big": Prediction(0.92, 250.0)}
        bench = Bench(said, is_tried=False)
        assert [bench.decide().model for _ in range(5)] == ["mid"] * 5

    def test_without_a_length_a_model_is_tried_as_by_the_rules(self) -> None:
        bench = Bench({"mini": 0.1, "mid": 0.9, "big": 0.92}, is_tried=False)
        assert [bench.decide("x" * 400).model for _ in range(8)] == ["mid"] * 3 + ["big"] * 3 + ["mid"] * 2
        assert "on trial among 2" in Bench({"mini": 0.1, "mid": 0.9, "big": 0.92}, is_tried=False).decide().reason


class TestNames:
    @pytest.mark.parametrize(
        ("known", "expected"),
        [
            (["mini", "mid", "big"], True),
            (["mini-2024-07-18", "mid-latest", "big"], True),
            (["mini", "mid"], False),
            (["mini", "mid", "bigger"], False),
            ([], False),
        ],
    )
    def test_by_name_then_without_the_date(self, known: list[str], expected: bool) -> None:
        bench = Bench(dict.fromkeys(known, 0.9))
        assert bench.selector.wants_vector("auto") is expected
        assert bench.decide().reason.startswith("p_good" if expected else "short prompt")

    def test_the_exact_name_comes_first(self) -> None:
        said = {"mini": 0.1, "mini-2024-07-18": 0.9, "mid": 0.9, "big": 0.9}
        route = {"candidates": ["cloud/mini-2024-07-18", "cloud/mid", "cloud/big"]}
        assert Bench(said, route=route).explain().options[0].p_good == 0.9
        assert Bench(said).explain().options[0].p_good == 0.1

    def test_a_dated_candidate_is_the_model_that_the_head_knows(self) -> None:
        route = {"candidates": ["cloud/mini-20240718", "cloud/mid", "cloud/big"]}
        assert Bench(route=route).explain().options[0].p_good == 0.5

    def test_a_configured_name_wins(self) -> None:
        route = {"known_as": {"cloud/mini": "Llama-3.2-3B"}}
        assert Bench({**P_GOOD, "Llama-3.2-3B": 0.95}, route=route).decide().model == "mini"

    def test_a_configured_name_that_the_head_does_not_know(self) -> None:
        found = Bench(route={"known_as": {"cloud/mini": "Llama"}}).explain()
        assert (found.decided_by, found.without_head) == ("rules", "head 'fake-head' does not know cloud/mini")

    def test_a_head_may_be_replaced_while_calls_go_on(self) -> None:
        heads = [FakeHead(P_GOOD, name="v1"), FakeHead({"mini": 0.9, "mid": 0.9}, name="v2"), None]
        config = unpriced("mini", "mid")
        selector = Selector(config, heads=lambda route: heads[0])
        said = []
        while heads:
            said.append(selector.explain(request(), AUTO, VECTOR).options[0].p_good)
            heads.pop(0)
        assert said == [0.5, 0.9, None]


class TestRules:
    @pytest.mark.parametrize(
        ("heads", "encoding", "lack"),
        [
            (None, VECTOR, "no head"),
            ({"other": FakeHead(P_GOOD)}, VECTOR, "no head"),
            ({"auto": FakeHead(P_GOOD)}, None, "no vector"),
        ],
    )
    def test_they_decide_where_no_head_can(self, heads: Any, encoding: Any, lack: str) -> None:
        config = unpriced("mini", "mid", "big")
        found = Selector(config, heads=heads).explain(request(), AUTO, encoding)
        assert (found.decided_by, found.without_head, found.chosen) == ("rules", lack, "cloud/mini")

    def test_where_there_is_nothing_to_choose_no_head_is_asked(self) -> None:
        head = FakeHead(P_GOOD)
        selector = Selector(unpriced("mini"), heads={"auto": head})
        assert not selector.wants_vector("auto")
        assert selector.explain(request(), AUTO, VECTOR).without_head == "nothing to choose"
        assert head.texts == []

    @pytest.mark.parametrize(
        ("said", "error", "message"),
        [
            ({**P_GOOD, "big": float("nan")}, None, "head 'fake-head' gives 'big' p_good=nan, completion_tokens=None"),
            ({**P_GOOD, "big": 1.5}, None, "head 'fake-head' gives 'big' p_good=1.5, completion_tokens=None"),
            (P_GOOD, RouterError("it can't run"), "it can't run"),
        ],
    )
    def test_a_head_that_fails_is_counted(self, said: Any, error: Any, message: str) -> None:
        bench = Bench(said)
        bench.head.error = error
        assert bench.decide().reason.startswith("short prompt")
        assert bench.troubles == [("router", message)]
        assert bench.explain().without_head == message

    def test_a_head_without_costs_takes_the_weakest_that_is_good_enough(self) -> None:
        config = unpriced("mini", "mid", "big")
        found = Selector(config, heads={"auto": FakeHead(P_GOOD)}).decide(request(), AUTO, VECTOR)
        assert (found.model, found.reason) == ("mid", "p_good 0.90")


class TestProperties:
    @given(
        st.lists(st.tuples(st.floats(0, 1), st.floats(0, 50), st.booleans(), st.booleans()), min_size=2, max_size=6),
        st.floats(0.05, 1.0),
    )
    def test_the_choice_is_able_well_good_enough_and_no_rival_is_cheaper(
        self, models: list[tuple[float, float, bool, bool]], quality: float
    ) -> None:
        rates = {f"m{n}": usd for n, (_, usd, _, _) in enumerate(models)}
        prices = {name: {"input_usd_per_mtok": usd, "output_usd_per_mtok": usd} for name, usd in rates.items()}
        limits = {f"m{n}": {"has_tools": has_tools} for n, (_, _, has_tools, _) in enumerate(models)}
        route = {"candidates": [f"cloud/m{n}" for n in range(len(models))], "quality": quality}
        said = {f"m{n}": Prediction(p, 100.0) for n, (p, _, _, _) in enumerate(models)}
        bench = Bench(said, route=route, prices=prices, limits=limits)
        for number, (_, _, _, is_failing) in enumerate(models):
            bench.fail(f"m{number}", times=3 * is_failing)
        able = [n for n, (_, _, has_tools, _) in enumerate(models) if has_tools]
        if not able:
            with pytest.raises(RouterError, match="no candidate takes this request"):
                bench.decide(tools=[{"type": "function"}])
            return
        found = bench.decide(tools=[{"type": "function"}])
        place = int(found.model.removeprefix("m"))
        well = [n for n in able if not models[n][3]] or able
        good = [n for n in well if models[n][0] >= quality * max(models[n][0] for n in well)]
        assert place in good
        assert [int(model.removeprefix("m")) for _, model in found.rivals] == good
        assert models[place][1] <= min(models[n][1] for n in good) + 1e-9
        explained = bench.explain(tools=[{"type": "function"}])
        assert (explained.chosen, explained.reason) == (f"cloud/{found.model}", found.reason)

    def test_three_trials_are_three_however_many_ask_at_once(self) -> None:
        config = Config(
            backends={"cloud": {"base_url": "https://c.test/v1", "prices": PRICES}},
            routes={"auto": {"candidates": ["cloud/mid", "cloud/big"]}},
        )
        costs = CostEstimator(Prices(config.backends))
        costs.observe_all([Finished("cloud", "mid", 100, 1_000, 2.0)] * 200)
        head = FakeHead({"mid": 0.9, "big": 0.92})
        selector = Selector(config, costs=costs, heads={"auto": head})
        chosen: list[str] = []
        asked = request("why?")

        def work() -> None:
            chosen.extend(selector.decide(asked, AUTO, VECTOR, f"{number}").model for number in range(50))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (len(chosen), chosen.count("big")) == (400, 3)
