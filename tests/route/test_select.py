from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.backends.prices import Prices
from llm_proxy.config import Config
from llm_proxy.errors import RouterError
from llm_proxy.route.base import Decision, Destination, Expected, Finished, Score
from llm_proxy.route.costs import CostEstimator
from llm_proxy.route.select import Selector
from tests.fakes import ENDPOINT, request

TOOLS = [{"type": "function", "function": {"name": "f"}}]
IMAGES = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
SECTIONS: Any = {
    "backends": {
        "cloud": {"base_url": "https://cloud.test/v1", "models": ["big", "shared"]},
        "local": {"base_url": "http://localhost:1/v1", "models": ["shared"], "has_tools": False, "context_tokens": 100},
        "blind": {"base_url": "http://localhost:2/v1", "has_images": False},
    },
    "default_backend": "local",
    "routes": {
        "auto": {"candidates": ["local/tiny", "blind/mid", "cloud/big/2"]},
        "small": {"candidates": ["local/tiny"]},
    },
    "aliases": {"gpt-4o": "auto", "mini": "cloud/mini", "nick": "gpt-4o-mini"},
}


class Fixed:
    def __init__(self, value: float) -> None:
        self.value = value

    def score(self, call: Any, encoding: Any) -> Score:
        return Score(self.value, "fixed")


def selector(value: float = 0.0, **sections: Any) -> Selector:
    config = Config(**{**SECTIONS, **sections})
    return Selector(config, routers={name: Fixed(value) for name in config.routes})


def at(backend: str, model: str) -> Destination:
    base_url = SECTIONS["backends"][backend]["base_url"]
    return Destination(identity=f"{base_url}|{model}", backend=backend, model=model)


def own(model: str, renamed: str = "") -> Destination:
    return Destination(identity=f"https://api.openai.com/v1|{renamed or model}", model=renamed)


def auto() -> Destination:
    behind = "http://localhost:1/v1|tiny http://localhost:2/v1|mid https://cloud.test/v1|big/2"
    return Destination(f"route:auto|{behind}", route="auto")


class TestResolve:
    @pytest.mark.parametrize(
        ("model", "endpoint", "expected"),
        [
            ("auto", ENDPOINT, auto()),
            ("gpt-4o", "", auto()),
            ("cloud/any", ENDPOINT, at("cloud", "any")),
            ("cloud/a/b", ENDPOINT, at("cloud", "a/b")),
            ("mini", ENDPOINT, at("cloud", "mini")),
            ("big", ENDPOINT, at("cloud", "big")),
            ("shared", "", at("cloud", "shared")),
            ("other", "", at("local", "other")),
            ("nobody/x", "", at("local", "nobody/x")),
            ("cloud/", "", at("local", "cloud/")),
            ("other", ENDPOINT, own("other")),
            ("nick", ENDPOINT, own("nick", "gpt-4o-mini")),
        ],
    )
    def test_a_name_leads_somewhere(self, model: str, endpoint: str, expected: Destination) -> None:
        assert selector().resolve(request(model=model, endpoint=endpoint)) == expected

    def test_an_alias_shares_the_answers_of_what_it_stands_for(self) -> None:
        one, two = (selector().resolve(request(model=model)) for model in ("nick", "gpt-4o-mini"))
        assert one.identity == two.identity
        changed = selector(aliases={"nick": "gpt-5"}).resolve(request(model="nick"))
        assert changed.identity != one.identity

    @pytest.mark.parametrize(
        ("candidates", "is_same"),
        [
            (["local/tiny", "blind/mid", "cloud/big/2"], True),
            (["local/tiny", "blind/mid", "cloud/big/3"], False),
            (["local/mid", "blind/mid", "cloud/big/2"], False),
        ],
    )
    def test_routes_of_one_name_share_answers_where_their_candidates_are_the_same(
        self, candidates: list[str], is_same: bool
    ) -> None:
        other = selector(routes={"auto": {"candidates": candidates, "long_prompt_chars": 9}})
        asked = request(model="auto")
        assert (other.resolve(asked).identity == selector().resolve(asked).identity) is is_same

    def test_the_default_is_the_first_backend_unless_configured(self) -> None:
        assert selector().default_backend == "local"
        assert selector(default_backend="").default_backend == "cloud"
        assert Selector(Config()).default_backend == ""
        assert Selector(Config()).resolve(request(model="m", endpoint="")) == Destination("|m", model="m")

    def test_any_number_of_names_leads_where_each_leads_alone(self) -> None:
        one = selector()
        names = [f"m{number}" for number in range(600)]
        for turn in (names, names[::-1]):
            assert [one.resolve(request(model=name, endpoint="")) for name in turn] == [
                at("local", name) for name in turn
            ]
        assert len(one._known) <= 256, "callers may name anything"

    def test_a_long_name_is_not_kept(self) -> None:
        one, name = selector(), "m" * 1_000_000
        assert one.resolve(request(model=name, endpoint="")) == at("local", name)
        assert name not in {model for _, model in one._known}


class TestDecide:
    def decide(self, value: float, route: str = "auto", **options: Any) -> str:
        chosen = selector(value).decide(request(**options), Destination("x", route=route), None)
        assert (chosen.score, chosen.reason) == (value, "fixed")
        return f"{chosen.backend}/{chosen.model}"

    @pytest.mark.parametrize(
        ("value", "expected"),
        [(0, "local/tiny"), (1 / 3, "local/tiny"), (0.34, "blind/mid"), (0.67, "cloud/big/2"), (1, "cloud/big/2")],
    )
    def test_the_candidate_at_the_scores_quantile(self, value: float, expected: str) -> None:
        assert self.decide(value) == expected

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"tools": TOOLS}, "blind/mid"),
            ({"messages": IMAGES}, "local/tiny"),
            ({"messages": IMAGES, "tools": TOOLS}, "cloud/big/2"),
            ({"text": "x" * 400}, "local/tiny"),
            ({"text": "x" * 404}, "blind/mid"),
        ],
    )
    def test_who_cannot_serve_it_is_passed_over(self, options: dict[str, Any], expected: str) -> None:
        assert self.decide(0, **options) == expected

    def test_the_quantile_is_of_those_who_can(self) -> None:
        assert self.decide(1, messages=IMAGES) == "cloud/big/2"
        assert self.decide(1, text="x" * 404) == "cloud/big/2"

    def test_nobody_can(self) -> None:
        with pytest.raises(
            RouterError, match=r"route 'small': no candidate takes this request: local/tiny \(no tools\)"
        ):
            self.decide(0, "small", tools=TOOLS)

    def test_the_rules_decide_where_nothing_else_does(self) -> None:
        chosen = Selector(Config(**SECTIONS)).decide(request(tools=TOOLS), Destination("x", route="auto"), None)
        assert chosen == Decision("cloud", "big/2", "tools", 0.7, (("cloud", "big/2"),), by="rules")

    def test_the_fallback_is_the_strongest(self) -> None:
        assert selector().fallback(Destination("x", route="auto")) == Decision("cloud", "big/2", "default", 1.0)


PRICED: Any = {
    "backends": {
        "cloud": {
            "base_url": "https://cloud.test/v1",
            "prices": {
                "mini": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 10.0},
                "mid": {"input_usd_per_mtok": 3.0, "output_usd_per_mtok": 10.0},
                "big": {"input_usd_per_mtok": 2.0, "output_usd_per_mtok": 10.0},
            },
        },
        "dark": {"base_url": "https://dark.test/v1"},
    },
    "routes": {
        "auto": {"candidates": ["cloud/mini", "cloud/mid", "cloud/big"]},
        "dark": {"candidates": ["dark/a", "dark/b"]},
    },
}


class TestCosts:
    def selector(self, value: float, *, is_tried: bool = True) -> Selector:
        config = Config(**PRICED)
        costs = CostEstimator(Prices(config.backends))
        for model in ("mini", "mid", "big") * 200 * is_tried:
            costs.observe(Finished("cloud", model, 100, 300, 1.0))
        return Selector(config, routers={name: Fixed(value) for name in config.routes}, costs=costs)

    def decide(self, value: float, route: str = "auto", text: str = "x" * 400) -> Decision:
        return self.selector(value).decide(request(text), Destination("x", route=route), None)

    def test_of_those_that_are_good_enough_the_cheapest(self) -> None:
        # 100 prompt tokens and 300 seen: 0.0031, 0.0033 and 0.0032 dollars
        rivals = ("cloud", "mini"), ("cloud", "mid"), ("cloud", "big")
        for score, model, reason, first in (
            (0.0, "mini", "fixed; cheapest of 3, about $0.003100", 0),
            (0.5, "big", "fixed; cheapest of 2, about $0.003200", 1),
            (1.0, "big", "fixed", 2),
        ):
            assert self.decide(score) == Decision("cloud", model, reason, score, rivals[first:], by="rules")

    def test_those_that_were_never_asked_are_tried_three_times(self) -> None:
        chosen = self.selector(0.0, is_tried=False)
        asked = [chosen.decide(request("x" * 400), Destination("x", route="auto"), None) for _ in range(11)]
        assert [one.model for one in asked] == ["mini"] * 3 + ["big"] * 3 + ["mid"] * 3 + ["mini"] * 2
        assert asked[3].reason == "fixed; on trial among 3, about $0.003200"
        assert asked[9].reason == "fixed; cheapest of 3, about $0.003100"

    def test_where_no_price_is_known_the_weakest(self) -> None:
        found = self.decide(0.0, "dark")
        assert (found.model, found.reason) == ("a", "fixed; cheapest of 2, price unknown")

    def test_it_learns_who_is_terse(self) -> None:
        chosen = self.selector(0.0)
        for _ in range(2_000):
            chosen.observe(Finished("cloud", "big", 100, 10, 1.0))
        assert chosen.decide(request("x" * 400), Destination("x", route="auto"), None).model == "big"

    @pytest.mark.parametrize(
        ("rivals", "expected"), [(("mini", "mid", "big"), 0.0031), (("mid", "big"), 0.0032), ((), 9.0)]
    )
    def test_asking_again_costs_what_the_cheapest_of_them_does(self, rivals: tuple[str, ...], expected: float) -> None:
        call = Finished("cloud", "mid", 100, 5_000, 1.0)
        found = self.selector(0.0, is_tried=False).again(call, 9.0, [("cloud", model) for model in rivals])
        assert found is not None
        assert found.cost_usd == pytest.approx(expected)

    def test_the_model_that_answered_has_cost_what_it_did(self) -> None:
        call = Finished("cloud", "big", 100, 1, 1.0)
        assert self.selector(1.0).again(call, 0.5, [("cloud", "big")]) == Expected(0.5, 0.0)

    def test_without_estimates(self) -> None:
        chosen, call = selector(), Finished("cloud", "big", 1, 1, 1.0)
        chosen.observe(call)
        assert chosen.again(call, 0.5, [("cloud", "mini")]) is None
