"""Calls that a small model drafts: the answer is the target's own, and whatever goes wrong the call is sent as ever."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks._knowing import words
from llm_proxy.draft.confirmed import Confirmed, Step
from llm_proxy.draft.goodput import Way
from llm_proxy.engine.drafted import Meter, Said
from llm_proxy.engine.drafting import Drafting
from llm_proxy.engine.effects import Held, Hold, Mend
from llm_proxy.engine.racing import Racing
from llm_proxy.errors import Interrupted
from llm_proxy.types import Head, Outgoing
from llm_proxy.wire.chat import usage_of
from tests.engine.attempts_kit import BROKEN
from tests.engine.draft_kit import ANSWER, BIG, SMALL, Servers, ask, drafting_rig, said, teach
from tests.engine.flow_kit import Course
from tests.fakes import Rig, body_of, completion, request

FORMS = pytest.mark.parametrize("fields", [{}, {"stream": True, "stream_options": {"include_usage": True}}])
QUESTION = {"role": "user", "content": "Count."}
PRICES = {"prices": {"b": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 100.0}}}


def ready(acceptance: float = 1.0, *, rig: Rig | None = None, **more: Any) -> tuple[Rig, Servers]:
    rig = rig or drafting_rig()
    servers = Servers(rig, acceptance=acceptance, **more)
    teach(rig, servers)
    return rig, servers


def broken_off() -> Iterator[bytes]:
    raise OSError("reset")
    yield b""


def text_of(served: Any) -> str:
    text: str = said(served)["choices"][0]["message"]["content"]
    return text


@FORMS
@pytest.mark.parametrize("acceptance", [0.0, 0.5, 1.0])
class TestAnswers:
    def test_they_are_those_of_the_target(self, fields: dict[str, Any], acceptance: float) -> None:
        rig, servers = ready(acceptance)
        plain = servers.big.chat({"model": "b", "messages": [{"role": "user", "content": "Count."}]})
        found = said(ask(rig, servers, **fields))
        assert "small completions" in servers.asked
        assert "big chat/completions" not in servers.asked
        assert found["choices"][0]["message"] == plain["choices"][0]["message"]
        assert found["choices"][0]["finish_reason"] == "stop"
        assert found["usage"] == plain["usage"]

    def test_with_a_stop_text_and_a_limit_inside_a_draft(self, fields: dict[str, Any], acceptance: float) -> None:
        for more in ({"stop": "e f"}, {"stop": ["x", " fo"]}, {"max_tokens": 5}, {"max_tokens": 1}):
            rig, servers = ready(acceptance)
            plain = servers.big.chat({"model": "b", "messages": [{"role": "user", "content": "Count."}], **more})
            found = said(ask(rig, servers, **fields, **more))
            assert found["choices"][0]["message"] == plain["choices"][0]["message"]
            assert found["choices"][0]["finish_reason"] == plain["choices"][0]["finish_reason"]
            assert found["usage"] == plain["usage"]


class TestSteps:
    def test_a_drafter_is_waited_for_no_longer_in_its_queue(self) -> None:
        rig, servers = ready(rig=drafting_rig(small={"concurrency": 1}, draft={"wait_s": 0.05}))
        line: Any = rig.gate._lines["small"]
        line.enter(1, "another")  # and stays
        assert text_of(ask(rig, servers)) == ANSWER
        assert "small completions" not in servers.asked
        assert line.waiting == 0
        assert rig.troubles.counts["draft"] == 1

    def test_fewer_requests_than_tokens(self) -> None:
        rig, servers = ready()
        ask(rig, servers)
        assert servers.asked.count("big completions") <= 3
        (event,) = rig.events
        assert event.outcome.attempts == "big/b drafted=10 kept=10 steps=1"

    def test_a_stream_is_handed_on_as_it_is_confirmed(self) -> None:
        rig, servers = ready(0.5)
        served = ask(rig, servers, stream=True)
        body, seen = iter(served.rest), list[int]()
        for _ in body:
            seen.append(len(servers.asked))
        assert seen == sorted(set(seen)), "each piece is one step further"
        assert len(seen) > 2

    def test_an_entry_is_kept_and_both_forms_are_served_from_it(self) -> None:
        rig, servers = ready()
        said(ask(rig, servers, stream=True, stream_options={"include_usage": True}))
        servers.asked.clear()
        assert text_of(ask(rig, servers)) == ANSWER
        assert servers.asked == []
        assert rig.events[-1].outcome.status == "hit"

    def test_where_it_does_not_pay_the_call_is_sent_as_ever(self) -> None:
        rig = drafting_rig()
        servers = Servers(rig)
        teach(rig, servers, is_worth_it=False)
        ask(rig, servers, control="no-store")  # a trial
        for _ in range(5):
            servers.asked.clear()
            assert text_of(ask(rig, servers, control="no-store")) == ANSWER
            assert servers.asked == ["big chat/completions"]

    def test_plain_streams_are_measured(self) -> None:
        rig = drafting_rig()
        servers = Servers(rig)
        for _ in range(4):
            assert text_of(ask(rig, servers, stream=True, control="no-store")) == ANSWER
        (known,) = rig.drafting._goodput._known.values()  # type: ignore[attr-defined]
        assert known.plain_calls == 3, "the fourth is a trial"

    def test_plain_answers_that_drafts_came_between_teach_nothing(self) -> None:
        rig = drafting_rig()
        servers = Servers(rig)
        served = ask(rig, servers, stream=True)
        goodput = rig.drafting._goodput  # type: ignore[attr-defined]
        (way,) = [Way("big", "b", "verified", "size-0")]
        goodput.took(way, 3, 0.1)
        assert text_of(served) == ANSWER
        assert goodput._known[way].plain_calls == 0

    @pytest.mark.parametrize("fields", [{}, {"temperature": 0.5}], ids=["drafted or not", "never"])
    @pytest.mark.parametrize("is_cached", [True, False])
    def test_streams_count_as_calls_under_way_until_they_are_over(
        self, fields: dict[str, Any], is_cached: bool
    ) -> None:
        rig = Rig(
            {"cache": {"enabled": is_cached, "semantic": False}, "backends": {"big": BIG, "small": SMALL}}, encoder=None
        )
        servers, drafting = Servers(rig), rig.drafting
        assert isinstance(drafting, Drafting)
        served = [ask(rig, servers, stream=True, user=str(number), **fields) for number in range(3)]
        assert drafting._load.under_way("big") == 3
        for left, one in zip((2, 1), served, strict=False):
            assert text_of(one) == ANSWER
            assert drafting._load.under_way("big") == left
        assert text_of(served[2]) == ANSWER
        assert drafting._load.under_way("big") == 0

    def test_a_stream_that_is_left_or_breaks_off_counts_no_more(self) -> None:
        rig = Rig({"cache": {"enabled": False}, "backends": {"big": BIG, "small": SMALL}}, encoder=None)
        servers, drafting = Servers(rig), rig.drafting
        assert isinstance(drafting, Drafting)
        left = ask(rig, servers, stream=True, temperature=0.5)
        next(left.rest)
        assert drafting._load.under_way("big") == 1
        left.rest.close()
        assert drafting._load.under_way("big") == 0, "although somebody holds it"
        broken = ask(rig, servers, stream=True, temperature=0.5)
        broken.rest._source, broken.rest._pieces = None, broken_off()
        with pytest.raises(OSError, match="reset"):
            next(broken.rest)
        assert drafting._load.under_way("big") == 0, "although somebody holds it"

    def test_a_drafted_stream_that_is_left_counts_no_more(self) -> None:
        rig, servers = ready(0.5)
        assert isinstance(rig.drafting, Drafting)
        served = ask(rig, servers, stream=True, control="no-store")
        assert rig.drafting._load.under_way("big") == 1
        served.rest.close()
        assert rig.drafting._load.under_way("big") == 0

    def test_a_drafted_stream_counts_too(self) -> None:
        rig, servers = ready(0.5)
        assert isinstance(rig.drafting, Drafting)
        served = ask(rig, servers, stream=True, control="no-store")
        assert rig.drafting._load.under_way("big") == 1
        assert text_of(served) == ANSWER
        assert rig.drafting._load.under_way("big") == 0

    @pytest.mark.parametrize("acceptance", [0.0, 0.3])
    def test_what_drafts_no_longer_pay_for_the_target_writes_by_itself(self, acceptance: float) -> None:
        rig, servers = ready(acceptance)
        servers.step_s = 3.0
        assert text_of(ask(rig, servers)) == ANSWER
        assert servers.asked[-1] == "big completions"
        assert servers.big.sent == []
        assert len(servers.asked) < 8


class TestWhoIsNotDrafted:
    @pytest.mark.parametrize(
        "fields",
        [
            {"temperature": 0.5},
            {"tools": [{"type": "function"}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Count."}]}]},
        ],
    )
    def test_requests_that_are_not_greedy_or_can_not_be_written(self, fields: dict[str, Any]) -> None:
        rig = drafting_rig()
        course = Course(rig, request("Count.", model="big/b", **{"temperature": 0, **fields}))
        course.board()
        assert course.effect.asking is None, "one request, as without this part"

    def test_other_backends(self) -> None:
        rig = drafting_rig()
        course = Course(rig, request("Count.", model="small/s", temperature=0))
        course.board()
        assert course.effect.asking is None

    def test_without_anybody_who_drafts_this_part_is_not_there(self) -> None:
        rig = Rig({"backends": {"b": {"base_url": "https://b.test/v1"}}})
        assert rig.drafting is rig.attempts

    def test_trouble_in_the_plan(self) -> None:
        rig, servers = ready()
        rig.drafting._dispatcher = None  # type: ignore[attr-defined]
        assert text_of(ask(rig, servers)) == ANSWER
        assert servers.asked == ["big chat/completions"]
        assert rig.troubles.counts["draft"] == 1

    def test_trouble_in_the_price(self) -> None:
        rig, servers = ready()

        def usd(*_: Any) -> float:
            raise RuntimeError("no price")

        rig.drafting._usd = usd  # type: ignore[attr-defined]
        assert text_of(ask(rig, servers)) == ANSWER
        assert servers.asked == ["big chat/completions"]
        assert rig.troubles.counts["draft"] == 1


def performed(effect: Any, servers: Servers) -> Any:
    if isinstance(effect, Hold):
        head = servers(effect.outgoing)
        return Held(head, b"".join(head.body), True)
    return effect.call()


def failing(status: int, *, after: int = 0, what: str = "big completions", body: bytes = b"{}") -> Any:
    """Has one kind of request answered so, after some that are not."""
    left = [after]

    def meddle(path: str, outgoing: Outgoing) -> Head | None:
        if path != what:
            return None
        left[0] -= 1
        return None if left[0] >= 0 else Head(status, [("content-type", "application/json")], iter([body]))

    return meddle


def raising(what: str, after: int = 0) -> Any:
    left = [after]

    def meddle(path: str, outgoing: Outgoing) -> Head | None:
        if path == what:
            left[0] -= 1
            if left[0] < 0:
                raise BROKEN
        return None

    return meddle


class TestAnswersWithoutAnEnd:
    """The plain call says where they end: of what is sent as ever, the caller gets what it has not got yet."""

    @FORMS
    @pytest.mark.parametrize("limits", [{}, {"max_tokens": 1_000}], ids=["no limit", "a limit beyond"])
    @pytest.mark.parametrize("acceptance", [0.0, 1.0])
    def test_they_are_sent_as_ever_where_the_window_is_full(
        self, fields: dict[str, Any], limits: dict[str, Any], acceptance: float
    ) -> None:
        answer, window = " ".join(["on"] * 500), 200
        rig = drafting_rig({"context_tokens": window}, draft={"max_length": 16})
        rig, servers = ready(acceptance, rig=rig, answer=answer)
        scored: list[dict[str, Any]] = []

        def noted(path: str, outgoing: Outgoing) -> None:
            if path == "big completions":
                scored.append(json.loads(outgoing.body))

        servers.meddle = noted
        assert text_of(ask(rig, servers, control="no-store", **fields, **limits)) == answer
        assert servers.asked[-1] == "big chat/completions"
        assert max(len(words(body["prompt"])) + body["max_tokens"] for body in scored) <= window
        assert len(servers.asked) <= 2 * window
        assert rig.troubles.counts["draft"] == 1

    def test_a_models_own_window_comes_first(self) -> None:
        limits = {"limits": {"b": {"context_tokens": 100_000}}, "context_tokens": 10}
        rig, servers = ready(rig=drafting_rig(limits))
        assert text_of(ask(rig, servers)) == ANSWER
        assert "big chat/completions" not in servers.asked

    @pytest.mark.parametrize("patience", [{"timeout_s": 2.0}, {}], ids=["the backend's", "the usual"])
    def test_one_in_one_piece_is_sent_as_ever_where_nobody_would_wait_longer(self, patience: dict[str, Any]) -> None:
        answer = " ".join(["on"] * 500)
        rig, servers = ready(0.5, rig=drafting_rig(patience), answer=answer)
        servers.step_s = 1.5 if patience else 500.0
        assert text_of(ask(rig, servers)) == answer
        assert servers.asked[-1] == "big chat/completions"
        assert servers.asked.count("big completions") == 2

    def test_a_stream_may_take_as_long_as_it_is_read(self) -> None:
        rig, servers = ready(0.5, rig=drafting_rig({"timeout_s": 0.01}))
        assert text_of(ask(rig, servers, stream=True)) == ANSWER
        assert "big chat/completions" not in servers.asked


@FORMS
class TestTheDraftFails:
    @pytest.mark.parametrize(
        "meddle",
        [
            raising("small completions"),
            raising("small completions", 1),
            failing(500, what="small completions"),
            failing(200, what="small completions", body=b"nonsense"),
            failing(200, what="small completions", body=b'{"choices": []}'),
            failing(200, what="small completions", body=b'{"choices": [{"text": null}]}'),
        ],
        ids=["dead", "dies", "500", "no-json", "no-choice", "no-text"],
    )
    def test_the_target_goes_on_by_itself(self, fields: dict[str, Any], meddle: Any) -> None:
        rig, servers = ready(0.5)
        servers.meddle = meddle
        assert text_of(ask(rig, servers, **fields)) == ANSWER
        assert "big chat/completions" not in servers.asked
        assert rig.troubles.counts["draft"] == 1
        servers.asked.clear()
        assert text_of(ask(rig, servers, control="no-store", **fields)) == ANSWER
        assert servers.asked == ["big chat/completions"], "it is left alone for a while"
        rig.clock.advance(301.0)
        servers.meddle = lambda path, outgoing: None
        servers.asked.clear()
        ask(rig, servers, control="no-store", **fields)
        assert servers.asked[0] == "small completions"

    @pytest.mark.parametrize("text", ["", " \ufffd", " \u2603 \u2603 \u2603", "x" * 5000, "one two three. " * 10])
    def test_nonsense_changes_nothing(self, fields: dict[str, Any], text: str) -> None:
        rig, servers = ready()
        said_ = json.dumps({"choices": [{"text": text}]}).encode()
        servers.meddle = failing(200, what="small completions", body=said_)
        assert text_of(ask(rig, servers, **fields)) == ANSWER


@FORMS
class TestTheTargetDoesNotScore:
    @pytest.mark.parametrize(
        ("meddle", "is_lasting"),
        [
            (raising("big completions"), False),
            (failing(400), True),
            (failing(429), False),
            (failing(503), False),
            (failing(200), True),
        ],
        ids=["dead", "400", "429", "503", "no-score"],
    )
    def test_the_call_is_sent_as_ever(self, fields: dict[str, Any], meddle: Any, is_lasting: bool) -> None:
        rig, servers = ready(0.5)
        servers.meddle = meddle
        assert text_of(ask(rig, servers, **fields)) == ANSWER
        assert servers.asked[-1] == "big chat/completions"
        servers.asked.clear()
        ask(rig, servers, control="no-store", **fields)
        assert ("small completions" in servers.asked) is not is_lasting

    def test_in_the_middle_only_the_rest_is_handed_on(self, fields: dict[str, Any]) -> None:
        rig, servers = ready(0.5)
        servers.meddle = raising("big completions", 1)
        assert text_of(ask(rig, servers, **fields)) == ANSWER
        assert servers.asked[-1] == "big chat/completions"
        assert rig.events[-1].error == ""


class TestAStreamThatCanNotGoOn:
    def stuck(self, chat: Any) -> tuple[Rig, Any]:
        rig, servers = ready(0.5)
        broken = raising("big completions", 1)
        servers.meddle = lambda path, outgoing: chat(servers) if "chat" in path else broken(path, outgoing)
        return rig, ask(rig, servers, stream=True)

    @pytest.mark.parametrize("status", [503, 200])
    def test_no_stream_comes(self, status: int) -> None:
        rig, served = self.stuck(lambda servers: servers.answer([b"{}"], status=status))
        with pytest.raises(Interrupted):
            list(served.rest)
        assert rig.events[-1].error != ""

    def test_nothing_comes(self) -> None:
        def chat(_: Servers) -> Head:
            raise BROKEN

        rig, served = self.stuck(chat)
        with pytest.raises(Interrupted):
            list(served.rest)
        assert rig.troubles.counts["draft"] == 2

    @pytest.mark.parametrize(
        "answer",
        [
            [b'data: {"choices": [{"delta": {"content": "another"}}]}\n\n'],
            [b'data: {"choices": [{"delta": {"content": "one two"}}]}\n\n'],
        ],
        ids=["another", "unfinished"],
    )
    def test_it_is_not_the_same_answer_or_not_all_of_it(self, answer: list[bytes]) -> None:
        _, served = self.stuck(lambda servers: servers.answer(answer, "text/event-stream"))
        with pytest.raises(Interrupted):
            list(served.rest)

    def test_it_breaks(self) -> None:
        class Breaking:
            def __iter__(self) -> Any:
                raise BROKEN

        rig, served = self.stuck(lambda _: Head(200, [("content-type", "text/event-stream")], Breaking()))
        with pytest.raises(type(BROKEN)):
            list(served.rest)
        assert rig.events[-1].error == "ReadError"


class TestTextsThatDoNotComeBack:
    def test_tokens_that_were_not_made_so_send_the_call_as_ever(self) -> None:
        rig, servers = ready(0.5)
        servers.big.answers = {"Count.": "until then"}
        complete = servers.big.complete

        def odd(body: Any) -> dict[str, Any]:
            answer = complete(body)
            if body.get("echo") and body["max_tokens"] > 1:
                answer["choices"][0]["logprobs"]["tokens"][0] = "?"
                answer["usage"]["completion_tokens"] = 0
                answer["choices"][0]["finish_reason"] = "length"
            return answer

        servers.big.complete = odd  # type: ignore[method-assign]
        assert text_of(ask(rig, servers)) == "until then"
        assert servers.asked[-1] == "big chat/completions"

    def test_steps_that_bring_nothing_come_to_an_end(self) -> None:
        rig, servers = ready()
        complete = servers.big.complete

        def merging(body: Any) -> dict[str, Any]:
            answer = complete(body)
            logged = answer["choices"][0]["logprobs"]
            if logged is not None:
                logged["token_logprobs"] = [-9.0] * len(logged["tokens"])
                logged["top_logprobs"] = [{"x": -1.0}] * len(logged["tokens"])
            return answer

        servers.big.complete = merging  # type: ignore[method-assign]
        assert text_of(ask(rig, servers)) == ANSWER
        assert len(servers.asked) < 30

    @pytest.mark.parametrize("another", ["", " never"])
    def test_a_token_that_is_given_up_is_handed_on_once(self, monkeypatch: pytest.MonkeyPatch, another: str) -> None:
        rig, servers = ready(0.5)
        take, steps = Confirmed.take, []

        def disowning(confirmed: Confirmed, scored: Any, drafted: str) -> Step:
            steps.append(drafted)
            if len(steps) == 2:
                confirmed._give_up_last()
                confirmed._add([another] if another else [])
                return Step(-1)
            return take(confirmed, scored, drafted)

        monkeypatch.setattr(Confirmed, "take", disowning)
        served = ask(rig, servers, stream=True, stream_options={"include_usage": True})
        assert text_of(served) == ANSWER
        assert len(steps) >= 2

    def test_a_drafter_that_does_not_stop_is_cut(self) -> None:
        rig, servers = ready()
        sizes: list[int] = []
        small, big = servers.small.complete, servers.big.complete

        def endless(body: Any) -> dict[str, Any]:
            answer = small(body)
            answer["choices"][0]["text"] = "spam " * 100_000
            return answer

        def sized(body: Any) -> dict[str, Any]:
            sizes.append(len(body["prompt"]))
            return big(body)

        servers.small.complete, servers.big.complete = endless, sized  # type: ignore[method-assign]
        assert text_of(ask(rig, servers)) == ANSWER
        assert max(sizes) < 2_000


class TestCosts:
    def dear(self, **draft: Any) -> tuple[Rig, Servers]:
        small = {"prices": {"s": {"input_usd_per_mtok": 0.5, "output_usd_per_mtok": 0.5}}}
        return ready(0.5, rig=drafting_rig(PRICES, small, draft=draft))

    def test_the_call_costs_what_its_requests_cost(self) -> None:
        rig, servers = self.dear(max_extra_cost=50.0)
        ask(rig, servers)
        completed = [servers.big.complete(body) for body in servers.big.sent]
        servers.asked.clear()
        (event,) = rig.events
        assert event.outcome.cost_usd is not None
        assert event.outcome.cost_usd == pytest.approx(self.bill(rig), rel=1e-9)
        assert completed == []

    @pytest.mark.parametrize("fields", [{}, {"max_tokens": 7}], ids=["stored", "not stored"])
    def test_a_stream_without_usage_costs_what_its_requests_cost(self, fields: dict[str, Any]) -> None:
        rig, servers = self.dear(max_extra_cost=50.0)
        assert "usage" not in said(ask(rig, servers, stream=True, **fields))
        (event,) = rig.events
        assert event.outcome.is_stored is not bool(fields)
        assert event.outcome.cost_usd == pytest.approx(self.bill(rig), rel=1e-9)
        assert event.usage == usage_of(servers.big.chat({"model": "b", "messages": [QUESTION], **fields}))

    def bill(self, rig: Rig) -> float:
        return self.billed_usd

    @pytest.fixture(autouse=True)
    def _meter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Adds up what both servers would write on their bills."""
        self.billed_usd = 0.0
        complete = Servers.__call__

        def metered(servers: Servers, outgoing: Outgoing) -> Head:
            head = complete(servers, outgoing)
            raw = b"".join(head.body)
            if outgoing.url.endswith("/v1/completions"):
                usage = json.loads(raw)["usage"]
                prices = {"b": (1.0, 100.0), "s": (0.5, 0.5)}[outgoing.model]
                counts = usage["prompt_tokens"], usage["completion_tokens"]
                self.billed_usd += sum(price * count / 1e6 for price, count in zip(prices, counts, strict=True))
            return servers.answer([raw], head.header("content-type"))

        monkeypatch.setattr(Servers, "__call__", metered)

    def test_where_it_would_cost_too_much_nothing_is_drafted(self) -> None:
        prices = {"prices": {"b": {"input_usd_per_mtok": 100.0, "output_usd_per_mtok": 1.0}}}
        rig, servers = ready(0.5, rig=drafting_rig(prices))
        ask(rig, servers)
        assert servers.asked == ["big chat/completions"]

    def test_where_the_call_is_free_no_draft_is_paid_for(self) -> None:
        free = {"prices": {"b": {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 0.0}}}
        small = {"prices": {"s": {"input_usd_per_mtok": 0.5, "output_usd_per_mtok": 0.5}}}
        rig, servers = ready(0.5, rig=drafting_rig(free, small))
        ask(rig, servers)
        assert servers.asked == ["big chat/completions"]

    def test_where_more_was_spent_than_is_allowed_the_target_goes_on_by_itself(self) -> None:
        rig, servers = self.dear(max_extra_cost=50.0)
        rig.drafting._goodput._max_extra_cost = 1e9  # type: ignore[attr-defined]
        plan_usd = 1e-9
        rig.drafting._config = rig.config.model_copy(  # type: ignore[attr-defined]
            update={"draft": rig.config.draft.model_copy(update={"max_extra_cost": plan_usd})}
        )
        assert text_of(ask(rig, servers)) == ANSWER
        assert servers.asked.count("small completions") <= 2


class TestCallersWhoLeave:
    def test_nothing_more_is_asked(self) -> None:
        rig, servers = ready(0.5)
        served = ask(rig, servers, stream=True)
        next(served.rest)
        asked = len(servers.asked)
        assert served.close is not None
        served.close()
        assert list(served.rest) == []
        assert len(servers.asked) == asked
        assert all(body.closes for body in servers.bodies)
        assert rig.events[-1].error == "aborted"

    def test_in_the_middle_of_a_step(self) -> None:
        rig, _ = ready()
        course = Course(rig, request("Count.", model="big/b", temperature=0))
        course.board()
        flow = course.effect.asking
        effect = next(flow)
        while not isinstance(effect, Hold):
            effect = flow.send(effect.call())
        flow.close()
        assert rig.troubles.counts == {}


class TestChatsThatAreScored:
    def test_a_server_that_scores_chats_needs_no_template(self) -> None:
        rig = drafting_rig({"scores": "prompt_logprobs", "template": ""})
        servers = Servers(rig, acceptance=0.5)
        chat, asked = servers.big.chat, list[Any]()

        def scoring(body: Any) -> dict[str, Any]:
            if "prompt_logprobs" not in body:
                return chat(body)
            asked.append(body)
            said_ = body["messages"][-1]["content"] if body.get("continue_final_message") else ""
            prompt = "<|user|>Count.<|end|><|assistant|>" + said_
            done = servers.big.complete({**body, "prompt": prompt, "echo": True})
            logged = done["choices"][0]["logprobs"]
            rows: list[Any] = []
            for token, logprob, tops in zip(*logged.values(), strict=True):
                top = max(tops, key=tops.get)
                row = {"1": {"logprob": logprob, "rank": 1 if top == token else 9, "decoded_token": token}}
                rows.append(row | ({} if top == token else {"2": {"logprob": 0, "rank": 1, "decoded_token": top}}))
            new = done["usage"]["completion_tokens"]
            choice = done["choices"][0]
            tokens = [{"token": token} for token in logged["tokens"][len(rows) - new :]]
            choice["message"] = {"role": "assistant", "content": choice["text"].removeprefix(prompt)}
            choice["logprobs"] = {"content": tokens}
            return {**done, "prompt_logprobs": rows[: len(rows) - new]}

        servers.big.chat = scoring  # type: ignore[method-assign]
        teach(rig, servers)
        servers.meddle = failing(200, what="small completions", body=b'{"choices": [{"text": ""}]}')
        assert text_of(ask(rig, servers, control="no-store")) == ANSWER
        assert "continue_final_message" not in asked[0], "there is nothing to go on with yet"
        servers.meddle = lambda path, outgoing: None
        teach(rig, servers)
        assert text_of(ask(rig, servers)) == ANSWER
        assert {"prompt_logprobs", "max_tokens"} <= asked[0].keys()
        assert any(body.get("continue_final_message") for body in asked)
        assert all("stream" not in body for body in asked)


class TestParts:
    @pytest.mark.parametrize("fields", [{}, {"stream": True}], ids=["plain", "stream"])
    def test_what_a_rival_cost_meanwhile_is_not_forgotten(self, fields: dict[str, Any]) -> None:
        race = {"race_with": "near/n", "race_after_s": 0.0}
        near = {
            "base_url": "https://near.test/v1",
            "prices": {"n": {"input_usd_per_mtok": 1e5, "output_usd_per_mtok": 0}},
        }
        backends = {"big": {**BIG, **race}, "small": SMALL, "near": near}
        rig = Rig({"cache": {"semantic": False}, "backends": backends}, encoder=None)
        rig.scorer.says = 0.0
        servers, is_asked = Servers(rig, answer=" ".join(map(str, range(45))) + "."), threading.Event()

        def meddle(path: str, outgoing: Outgoing) -> Head | None:
            if path.startswith("near"):
                is_asked.set()
                return servers.answer([body_of(completion("no", model="n"))])
            assert is_asked.wait(10.0)
            return None

        servers.meddle = meddle
        assert isinstance(rig.drafting, Racing)
        rig.drafting = rig.drafting._sends
        teach(rig, servers)
        is_asked.clear()
        said(ask(rig, servers, **fields))
        assert servers.asked.count("big completions") > 1
        assert (rig.events[-1].outcome.cost_usd or 0.0) >= 0.1, "one token of the rival's prompt"

    def test_where_calls_are_sent_again_they_are(self) -> None:
        rig, servers = ready(0.5, rig=drafting_rig({"retries": 1}))
        servers.meddle = raising("big completions", 1)
        assert text_of(ask(rig, servers, stream=True, endpoint="")) == ANSWER
        servers.asked.clear()
        assert text_of(ask(rig, servers, control="no-store", endpoint="")) == ANSWER

    def test_nothing_is_kept_back_and_nobody_goes_on_after_an_error(self) -> None:
        rig, servers = ready(0.5)
        made: list[Any] = []
        course = Course(rig, request("Count.", model="big/b", temperature=0, stream=True))
        course.board()
        flow, effect = course.effect.asking, next(course.effect.asking)
        while not isinstance(effect, Mend):
            effect = flow.send(performed(effect, servers))
        made.append(effect.mending)
        assert made[0].kept() == b""
        with pytest.raises(StopIteration) as stop:
            next(made[0].going_on(BROKEN))
        assert stop.value.value is None

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_a_meter_passes_all_on(self, size: int) -> None:
        seen: list[int] = []
        meter = Meter(seen.append)
        stream = b'data: {"a": 1}\n\n' * 7 + b"data: [DONE]\n\n"
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert [meter.passed(piece) for piece in pieces] == pieces
        assert seen == [5], "three of the events are no text"
        assert (meter.ended(), meter.kept(), meter.is_broken) == (b"", b"", False)
        with pytest.raises(StopIteration) as stop:
            next(meter.going_on(None))
        assert stop.value.value is None

    def test_a_stream_that_breaks_off_or_says_nothing_is_not_counted(self) -> None:
        seen: list[int] = []
        Meter(seen.append).passed(b"data: 1\n\n" * 9)
        Meter(seen.append).passed(b"data: [DONE]\n\n")
        assert seen == []

    def test_bytes_for_callers_of_either_kind(self) -> None:
        said_ = Said(b"a")
        assert list(said_) == [b"a"]
        said_.close()

    @pytest.mark.anyio
    async def test_and_for_tasks(self) -> None:
        said_ = Said(b"a")
        assert [piece async for piece in said_] == [b"a"]
        await said_.aclose()

    @pytest.mark.parametrize("status", [404, 200])
    def test_answers_that_say_nothing_of_tokens_teach_nothing(self, status: int) -> None:
        rig = drafting_rig()
        servers = Servers(rig)
        servers.meddle = lambda path, outgoing: servers.answer([b"{}"], status=status)
        ask(rig, servers)
        servers.meddle = lambda path, outgoing: servers.answer([b"x"], "text/plain")
        ask(rig, servers)
        assert all(known.plain_calls == 0 for known in rig.drafting._goodput._known.values())  # type: ignore[attr-defined]
