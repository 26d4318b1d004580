"""Which examples are kept: those that are measured to help, as far as their tokens are worth it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from llm_proxy.draft.examples import Asked, Example, Group, Helpfulness, with_examples

GROUP = Group("local", "tiny", "s" * 64, 0)
EXAMPLES = [Example(f"q{number}", f"a{number}", 100.0) for number in range(3)]
FREE: Any = {"worth_usd": 0.01, "usd_per_token": 0.0}


def taught(with_: float, without: float, outcomes: int = 50) -> Helpfulness:
    """One that knows how good answers are with and without."""
    found = Helpfulness()
    for _ in range(outcomes):
        found.learn(GROUP, with_, has_examples=True)
        found.learn(GROUP, without, has_examples=False)
    return found


class TestSelect:
    def test_it_tries_both_while_nothing_is_known(self) -> None:
        chosen = [bool(Helpfulness().select(GROUP, EXAMPLES, **FREE)) for _ in range(3)]
        assert chosen == [True, True, True]
        helpfulness = Helpfulness()
        assert [len(helpfulness.select(GROUP, EXAMPLES, **FREE)) for _ in range(6)] == [3, 3, 0, 3, 3, 0]

    def test_those_that_help_are_kept(self) -> None:
        helpfulness = taught(0.9, 0.2)
        assert helpfulness.gain(GROUP) == pytest.approx(0.7, abs=0.05)
        assert {len(helpfulness.select(GROUP, EXAMPLES, **FREE)) for _ in range(32)} == {3}
        kept = [len(helpfulness.select(GROUP, EXAMPLES, **FREE, is_served=False)) for _ in range(32)]
        assert kept.count(0) == 2, "one of sixteen shows what it is without"

    @pytest.mark.parametrize(("with_", "without"), [(0.5, 0.5), (0.2, 0.9), (0.92, 0.9), (0.0, 0.0)])
    def test_those_that_do_not_are_dropped(self, with_: float, without: float) -> None:
        helpfulness = taught(with_, without)
        assert sum(bool(helpfulness.select(GROUP, EXAMPLES, **FREE)) for _ in range(160)) == 10

    @pytest.mark.parametrize(
        ("usd_per_token", "kept"),
        # gain 0.7 and 0.01 dollars a good answer: halves of 0.007 * 8/7 for 100 tokens each
        [(0.0, 3), (0.9e-5, 3), (1.1e-5, 2), (1.9e-5, 2), (2.1e-5, 1), (3.8e-5, 1), (4.2e-5, 0)],
    )
    def test_only_as_many_as_their_tokens_are_worth(self, usd_per_token: float, kept: int) -> None:
        helpfulness = taught(0.9, 0.2, 2000)
        found = helpfulness.select(GROUP, EXAMPLES, worth_usd=0.01, usd_per_token=usd_per_token)
        assert found == EXAMPLES[:kept]

    def test_a_long_example_ends_it(self) -> None:
        helpfulness = taught(0.9, 0.2)
        examples = [EXAMPLES[0], Example("long", "long", 1e6), EXAMPLES[1]]
        assert helpfulness.select(GROUP, examples, worth_usd=0.01, usd_per_token=1e-6) == EXAMPLES[:1]

    def test_it_follows_what_changes(self) -> None:
        helpfulness = taught(0.9, 0.2)
        for _ in range(100):
            helpfulness.learn(GROUP, 0.2, has_examples=True)
        assert helpfulness.select(GROUP, EXAMPLES, **FREE) == []

    def test_by_chance_it_finds_the_truth(self) -> None:
        chance, helpfulness = random.Random(3), Helpfulness()
        late = 0
        for call in range(600):
            has_examples = bool(helpfulness.select(GROUP, EXAMPLES, **FREE))
            helpfulness.learn(GROUP, float(chance.random() < (0.8 if has_examples else 0.3)), has_examples=has_examples)
            late += has_examples and call >= 300
        assert late > 260

    def test_groups_are_told_apart(self) -> None:
        near, far = (Group.of("local", "tiny", "s", similarity) for similarity in (0.95, 0.6))
        assert (near.band, Group.of("local", "tiny", "s", 0.8).band, far.band) == (0, 1, 2)
        helpfulness = Helpfulness()
        for _ in range(10):
            helpfulness.learn(near, 1.0, has_examples=True)
            helpfulness.learn(near, 0.0, has_examples=False)
        assert (helpfulness.gain(near) or 0) > 0.5
        assert helpfulness.gain(far) is None

    def test_memory_is_bounded(self) -> None:
        helpfulness = Helpfulness()
        for number in range(6000):
            helpfulness.learn(Group("b", "m", str(number), 0), 1.0, has_examples=True)
            helpfulness.asked(Asked(str(number), "b", "m"), GROUP, has_examples=True)
        assert len(helpfulness._known) <= 1024
        assert len(helpfulness._asked) <= 4096


class TestOutcomes:
    def test_they_are_put_to_the_call(self) -> None:
        helpfulness = Helpfulness()
        for number in range(12):
            helpfulness.asked(Asked(str(number), "local", "tiny"), GROUP, has_examples=number % 2 == 0)
            helpfulness.heard(Asked(str(number), "local", "tiny"), float(number % 2 == 0))
        assert (helpfulness.gain(GROUP) or 0) > 0.5

    def test_those_of_other_calls_are_passed_over(self) -> None:
        helpfulness = Helpfulness()
        helpfulness.asked(Asked("a", "local", "tiny"), GROUP, has_examples=True)
        helpfulness.forget(Asked("a", "local", "tiny"))
        helpfulness.forget(Asked("b", "local", "tiny"))
        helpfulness.heard(Asked("a", "local", "tiny"), 1.0)
        assert GROUP not in helpfulness._known


class TestRequest:
    @pytest.mark.parametrize(
        "body",
        [
            '{"model":"m","messages":[{"role":"user","content":"q"}],"x":1.00000000000000000001}',
            '{ "messages" : [ {"role":"system","content":"[{"} ,\n {"role":"user","content":"q"} ] , "model":"m"}',
            '{"a":{"messages":[1]},"b":[[]],"messages":[{"role":"user","content":"q"}]}',
        ],
    )
    def test_they_come_before_the_last_message(self, body: str) -> None:
        sent = with_examples(body.encode(), EXAMPLES[:2]).decode()
        before, after = json.loads(body), json.loads(sent)
        told = [{"role": "user", "content": "q1"}, {"role": "assistant", "content": "a1"},
                {"role": "user", "content": "q0"}, {"role": "assistant", "content": "a0"}]  # fmt: skip
        assert after["messages"] == [*before["messages"][:-1], *told, before["messages"][-1]]
        given = "".join(json.dumps(turn, separators=(",", ":")) + "," for turn in told)
        assert sent.replace(given, "") == body, "no other byte differs"

    def test_what_is_no_request_is_refused(self) -> None:
        for body in (b"{}", b'{"messages":1}', b"[]"):
            with pytest.raises(ValueError, match=r"messages|Expecting"):
                with_examples(body, EXAMPLES)
