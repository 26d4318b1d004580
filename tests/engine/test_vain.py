"""What was sent and paid for is booked, whether or not anybody takes the answer: in the ledger and on the budget."""

from __future__ import annotations

import contextlib
import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from llm_proxy.backends.delays import AT_LEAST
from llm_proxy.boarding import Flights
from llm_proxy.drive import AsyncDriver
from llm_proxy.engine.effects import Compute, Held, Late, Pause, Race, Raced
from llm_proxy.engine.permit import Permit
from llm_proxy.engine.vain import came_of, estimated, is_late, less, said_by, sent_tokens
from llm_proxy.errors import LimitReached
from llm_proxy.faces._http import httpx
from llm_proxy.metered import metered, metered_async
from llm_proxy.types import Head, Outgoing, Usage
from llm_proxy.wire.chat import answer_tokens
from tests.drive_kit import aplain
from tests.engine.attempts_kit import BACKENDS, BROKEN, JSON_TYPE, STREAM_TYPE, Attempting, proxied
from tests.engine.cascade_kit import SMALL_USD, Steps, held
from tests.engine.cascade_kit import rig as cascading
from tests.engine.draft_kit import ANSWER, Servers, ask, drafting_rig, said, teach
from tests.engine.test_gate import Purse, with_purse
from tests.engine.test_racing import FAR, LOCAL, Racer, driven, whole
from tests.engine.test_racing import rig as racing
from tests.fakes import FakeScorer, Rig, body_of, completion, events_of, request

LATE = [httpx.ReadTimeout(""), Late()]
NEVER = [BROKEN, httpx.ConnectError("refused"), httpx.ConnectTimeout("")]
LATE_IDS, NEVER_IDS = ["timeout", "late"], ["reset", "refused", "no connection in time"]
OUTGOING = Outgoing("https://b.test/v1/completions", [], b"x" * 40, backend="b", model="m")


class TestLate:
    @pytest.mark.parametrize("error", [*LATE, GeneratorExit(), KeyboardInterrupt()])
    def test_who_was_sent_and_is_not_waited_for(self, error: BaseException) -> None:
        assert is_late(error)

    @pytest.mark.parametrize("error", [*NEVER, ValueError(), LimitReached("full", code="queue_full")])
    def test_who_was_not_sent_or_has_failed(self, error: BaseException) -> None:
        assert not is_late(error)


class TestCounts:
    def test_of_what_came(self) -> None:
        assert came_of(OUTGOING, Head(200, JSON_TYPE, ()), b"y" * 80) == Usage(10, 20)
        stream = b"".join(events_of("a", "b"))
        assert came_of(OUTGOING, Head(200, STREAM_TYPE, ()), stream) == Usage(10, stream.count(b"data:"))

    @pytest.mark.parametrize(
        ("body", "usage"),
        [
            (body_of(completion("x" * 40)), Usage(10, 5)),
            (body_of(completion("x" * 40, usage=None)), Usage(10, 10)),
            (body_of(completion("x" * 40, usage={"prompt_tokens": 3})), Usage(3, 10)),
            (b"[" * 100_000, Usage(10, 25_000)),
            (b"no JSON.", Usage(10, 2)),
            (b"[1, 2]", Usage(10, 1)),
        ],
        ids=["told", "nothing told", "half told", "deep", "no JSON", "no object"],
    )
    def test_of_an_answer(self, body: bytes, usage: Usage) -> None:
        assert said_by(OUTGOING, body) == usage

    @pytest.mark.parametrize(("echoed_chars", "tokens"), [(28, 3), (80, 0)])
    def test_not_of_what_it_repeats(self, echoed_chars: int, tokens: int) -> None:
        body = json.dumps({"choices": [{"text": "x" * 40}]}).encode()
        assert said_by(OUTGOING, body, echoed_chars=echoed_chars) == Usage(10, tokens)

    def test_of_a_response_that_is_only_begun_nobody_knows(self) -> None:
        assert estimated({"status": "queued", "output": []}, 7) is None
        assert estimated(None, 7) is None
        assert estimated(completion("x" * 40), 7) == Usage(7, 10)

    def test_without_parts_that_are_booked(self) -> None:
        whole_ = Usage(10, 5, cached_tokens=2)
        assert less(whole_, None) is whole_
        assert less(whole_, Usage(4, 2)) == Usage(6, 3, cached_tokens=2)
        assert less(whole_, Usage(40, 20)) == Usage(0, 0, cached_tokens=2)

    @pytest.mark.parametrize(
        ("message", "tokens"),
        [
            ({"content": "x" * 40, "reasoning_content": "y" * 40}, 20),
            ({"content": "x" * 40, "reasoning_content": "y" * 40, "reasoning": "y" * 40}, 20),
            ({"content": None, "reasoning": "y" * 40}, 10),
            ({"content": None, "refusal": "z" * 40}, 10),
            ({"content": None, "function_call": {"name": "f", "arguments": "x" * 40}}, 10),
        ],
        ids=["thoughts", "under both names", "thoughts alone", "refusal", "function"],
    )
    def test_all_that_was_said_is_counted(self, message: dict[str, Any], tokens: int) -> None:
        assert answer_tokens({"choices": [{"index": 0, "message": message}]}) == tokens


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b"", 0),
        (b"x" * 400, 100),
        (b"a word " * 1000, 1750),
        (b'{"url": "data:image/png;base64,' + b"iVBORw0K" * 50_000 + b'"}', 8),
        (b'{"data": "' + b"QUJD" * 1000 + b'=="} ' + b"text " * 400, 503),
    ],
)
def test_an_image_has_no_tokens_by_its_bytes(body: bytes, tokens: int) -> None:
    assert sent_tokens(body) == tokens


class TestPermits:
    """The same on the budget."""

    def permit(self) -> tuple[Permit, list[Usage | None]]:
        back: list[Usage | None] = []
        return Permit(lambda usage, model: back.append(usage), prompt_tokens=7, limit_bytes=1 << 20), back

    @pytest.mark.parametrize(
        ("error", "took"),
        [*((error, Usage(7)) for error in (*LATE, KeyboardInterrupt())), *((error, Usage()) for error in NEVER)],
    )
    def test_of_threads(self, error: BaseException, took: Usage) -> None:
        permit, back = self.permit()

        def send(_: Outgoing) -> Head:
            raise error

        with pytest.raises(type(error)):
            metered(send)(Outgoing("", [], b"", permit=permit))
        del permit
        assert back == [took]

    @pytest.mark.anyio
    @pytest.mark.parametrize(("error", "took"), [(LATE[0], Usage(7)), (BROKEN, Usage())])
    async def test_of_tasks(self, error: Exception, took: Usage) -> None:
        permit, back = self.permit()

        async def send(_: Outgoing) -> Head:
            raise error

        with pytest.raises(type(error)):
            await metered_async(send)(Outgoing("", [], b"", permit=permit))
        del permit
        assert back == [took]


BIG_PRICES = {"prices": {"b": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 100.0}}}
SMALL_PRICES = {"prices": {"s": {"input_usd_per_mtok": 8e5, "output_usd_per_mtok": 1e6}}}
FORMS = pytest.mark.parametrize("fields", [{}, {"stream": True}], ids=["plain", "stream"])


class TestDrafts:
    """What ``draft_with`` names is asked, and nothing comes of it."""

    def drafted(self, meddle: Any, **fields: Any) -> tuple[Rig, Servers, Purse]:
        rig = drafting_rig(BIG_PRICES, SMALL_PRICES, draft={"max_extra_cost": 1e12})
        servers = Servers(rig)
        teach(rig, servers)
        purse = with_purse(rig)
        servers.meddle = meddle
        assert said(ask(rig, servers, **fields))["choices"][0]["message"]["content"] == ANSWER
        return rig, servers, purse

    def meddling(self, what: str, answer: Any, sent: list[Outgoing]) -> Any:
        def meddle(path: str, outgoing: Outgoing) -> Head | None:
            if path != what:
                return None
            sent.append(outgoing)
            if isinstance(answer, Exception):
                raise answer
            return Head(200, JSON_TYPE, iter([answer]))

        return meddle

    @FORMS
    @pytest.mark.parametrize("late", LATE, ids=LATE_IDS)
    def test_a_late_one_costs_its_prompt(self, late: Exception, fields: dict[str, Any]) -> None:
        sent: list[Outgoing] = []
        rig, _, purse = self.drafted(self.meddling("small completions", late, sent), **fields)
        (outgoing,), (event,) = sent, rig.events
        prompt_usd = 0.8 * (len(outgoing.body) // 4)
        assert event.outcome.cost_usd == pytest.approx(prompt_usd, rel=1e-3)
        booked = [usd for _, usd, _ in purse.settled if usd > 0.1]
        assert booked == [pytest.approx(0.8 * self.prompt_tokens())]

    def prompt_tokens(self) -> int:
        """As the budget counts the call's prompt."""
        return math.ceil(len("Count.") / 4)

    @FORMS
    @pytest.mark.parametrize("failure", NEVER, ids=NEVER_IDS)
    def test_one_that_never_came_there_costs_nothing(self, failure: Exception, fields: dict[str, Any]) -> None:
        rig, _, purse = self.drafted(self.meddling("small completions", failure, []), **fields)
        assert rig.events[0].outcome.cost_usd < 0.1
        assert all(usd < 0.1 for _, usd, _ in purse.settled)

    def test_one_that_says_no_counts_is_estimated(self) -> None:
        sent: list[Outgoing] = []
        answer = json.dumps({"choices": [{"text": " one two three four"}]}).encode()
        rig, *_ = self.drafted(self.meddling("small completions", answer, sent))
        expected = sum(0.8 * (len(outgoing.body) // 4) + 5 for outgoing in sent)
        assert rig.events[0].outcome.cost_usd == pytest.approx(expected, rel=1e-3)

    @pytest.mark.parametrize("answer", [b"nonsense", b'{"choices": []}', b'{"choices": [{"text": null}]}'])
    def test_one_that_is_no_draft_is_paid_for(self, answer: bytes) -> None:
        sent: list[Outgoing] = []
        rig, *_ = self.drafted(self.meddling("small completions", answer, sent))
        assert rig.events[0].outcome.cost_usd >= 0.8 * (len(sent[0].body) // 4)

    @FORMS
    @pytest.mark.parametrize("failure", [BROKEN, b"{}", b'{"choices": []}'], ids=["reset", "no score", "no choice"])
    def test_one_whose_target_fails_is_paid_for(self, failure: Any, fields: dict[str, Any]) -> None:
        """The step comes to nothing, and the call is sent as ever."""
        rig, servers, _ = self.drafted(self.meddling("big completions", failure, []), **fields)
        assert servers.asked == ["small completions", "big completions", "big chat/completions"]
        assert rig.events[0].outcome.cost_usd > 0.8 * 5

    @pytest.mark.parametrize(
        "failure", [LATE[0], json.dumps({"choices": [{"text": "x" * 400}]}).encode()], ids=["timeout", "no score"]
    )
    def test_a_target_that_is_late_or_does_not_score_is_paid_for(self, failure: Any) -> None:
        sent: list[Outgoing] = []
        dear = {"prices": {"b": {"input_usd_per_mtok": 1e6, "output_usd_per_mtok": 1e6}}}
        free = {"prices": {"s": {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 0.0}}}
        rig = drafting_rig(dear, free, draft={"max_extra_cost": 1e6})
        servers = Servers(rig)
        teach(rig, servers)
        servers.meddle = self.meddling("big completions", failure, sent)
        usage = said(ask(rig, servers))["usage"]
        plain_usd = usage["prompt_tokens"] + usage["completion_tokens"]
        assert rig.events[0].outcome.cost_usd >= plain_usd + len(sent[0].body) // 4


class TestCascades:
    def prompt_usd(self, course: Steps, usd: float = 0.1) -> float:
        return usd * (len(course.effect.outgoing.body) // 4)

    def computed(self, course: Steps) -> None:
        while isinstance(course.effect, Compute):
            course.compute()

    @pytest.mark.parametrize("late", LATE, ids=LATE_IDS)
    def test_a_late_one_costs_its_prompt(self, late: Exception) -> None:
        made = cascading()
        course = Steps(made)
        prompt_usd = self.prompt_usd(course)
        course.hold(late)
        self.computed(course)
        course.forwarded()
        assert course.launch.flight.ticket.outcome.cost_usd == pytest.approx(prompt_usd)

    @pytest.mark.parametrize("failure", NEVER, ids=NEVER_IDS)
    def test_one_that_never_had_it_costs_nothing(self, failure: Exception) -> None:
        course = Steps(cascading())
        course.hold(failure)
        course.forwarded()
        assert course.launch.flight.ticket.outcome.cost_usd is None

    def test_one_that_is_no_answer_costs_what_came(self) -> None:
        course = Steps(cascading())
        prompt_usd = self.prompt_usd(course)
        course.hold(Held(Head(200, JSON_TYPE, [b"x" * 80]), b"x" * 80, True))
        self.computed(course)
        course.forwarded()
        assert course.launch.flight.ticket.outcome.cost_usd == pytest.approx(prompt_usd + 2.0)

    @pytest.mark.parametrize("late", LATE, ids=LATE_IDS)
    def test_a_late_judge_costs_its_prompt(self, late: Exception) -> None:
        course = Steps(cascading(cascade_judge="b/judge"))
        course.hold(held())
        judge_usd = self.prompt_usd(course, 0.4)
        course.hold(late, "judge")
        self.computed(course)
        course.forwarded()
        assert course.launch.flight.ticket.outcome.cost_usd == pytest.approx(SMALL_USD + judge_usd)

    def test_a_judge_that_says_nothing_costs_what_came(self) -> None:
        course = Steps(cascading(cascade_judge="b/judge"))
        course.hold(held())
        judge_usd = self.prompt_usd(course, 0.4)
        course.hold(Held(Head(200, JSON_TYPE, [b"x" * 80]), b"x" * 80, True), "judge")
        self.computed(course)
        course.forwarded()
        assert course.launch.flight.ticket.outcome.cost_usd == pytest.approx(SMALL_USD + judge_usd + 8.0)

    @pytest.mark.parametrize(("failure", "is_paid"), [(LATE[0], True), (BROKEN, False)], ids=["timeout", "reset"])
    def test_the_last_one_whose_place_another_takes(self, failure: Exception, is_paid: bool) -> None:
        made = cascading(scorer=FakeScorer(0.31))
        course = Steps(made)
        course.hold(held())
        self.computed(course)
        prompt_usd = self.prompt_usd(course, 1.0)
        course.hold(failure, "large")
        self.computed(course)
        course.settle(course.answer)
        assert made.event.outcome.cost_usd == pytest.approx(SMALL_USD + prompt_usd * is_paid)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_task_that_is_cancelled_for_being_late_is_on_the_budget() -> None:
    made = cascading(cascade_wait_s=0.05)
    purse = with_purse(made)

    async def send(outgoing: Outgoing) -> Head:
        if outgoing.model == "small":
            await anyio.sleep_forever()
        return aplain(body_of(completion("4", model="large")))

    with ThreadPoolExecutor(1) as pool:
        served = await AsyncDriver(Flights(), lambda: pool).serve(
            made.engine.answer(request("2+2?", model="auto")), send
        )
        assert served.body or [chunk async for chunk in served.rest]
    (ask_small, ask_large), settled = purse.asked, {name: usd for name, usd, _ in purse.settled}
    assert ask_large.usd > ask_small.usd > 0
    assert settled == {"r1": pytest.approx(0.1 * math.ceil(len("2+2?") / 4)), "r2": 15.0}
    (event,) = made.events
    assert event.outcome.cascade == "small late, large"
    assert event.outcome.cost_usd > 15.0


class TestRaces:
    def lost(self, *answers: Any) -> Any:
        racer = Racer(racing())
        racer.rig.scorer.says = 0.1
        assert driven(racer.race.flows[1], *answers) is None
        racer.step(Raced(0, whole(FAR).head, True))
        return racer.outcome.cost_usd

    def test_a_local_answer_that_is_late_costs_its_prompt(self) -> None:
        assert self.lost(LATE[0]) == pytest.approx(0.2)

    @pytest.mark.parametrize("answer", [*NEVER, whole(LOCAL, status=500)], ids=[*NEVER_IDS, "500"])
    def test_one_that_never_had_it_or_says_no_costs_nothing(self, answer: Any) -> None:
        assert self.lost(answer) is None

    def test_one_that_is_too_long_costs_what_came(self) -> None:
        cut = whole("x" * 4_000)._replace(is_whole=False)
        assert self.lost(cut) > 100.0

    @pytest.mark.parametrize(
        ("end", "cost_usd"),
        [
            (None, 0.8),
            (LATE[0], 0.8),
            (whole(FAR), 0.8),
            (whole(FAR, status=500), None),
            *((error, None) for error in NEVER),
        ],
        ids=["under way", "timeout", "whole by then", "500", *NEVER_IDS],
    )
    def test_a_remote_one_that_has_failed_costs_nothing(self, end: Any, cost_usd: float | None) -> None:
        racer = Racer(racing())
        remote = racer.race.flows[0]
        next(remote)
        if isinstance(end, Exception):
            with pytest.raises(type(end)):
                remote.throw(end)
        elif end is not None:
            remote.send(end.head)
            with pytest.raises(StopIteration):
                remote.send(end)
        racer.step(Raced(1, whole(LOCAL).head, True))
        assert (racer.outcome.backend, racer.outcome.cost_usd) == ("near", cost_usd)

    @pytest.mark.parametrize(
        ("failures", "cost_usd"),
        [(LATE[:1], 0.8), (LATE[:1] * 3, 2.4), (NEVER[1:2], None)],
        ids=["before it is sent again", "given up", "refused"],
    )
    def test_what_is_booked_is_not_booked_again_where_the_local_one_is_taken(
        self, failures: list[Exception], cost_usd: float | None
    ) -> None:
        racer = Racer(racing({"retries": 2}), endpoint="")
        remote: Any = racer.race.flows[0]
        effect = next(remote)
        with contextlib.suppress(type(failures[0])):
            for failure in failures:
                if isinstance(effect, Pause):
                    remote.send(None)
                effect = remote.throw(failure)
        racer.step(Raced(1, whole(LOCAL).head, True))
        assert (racer.outcome.backend, racer.outcome.cost_usd) == ("near", cost_usd and pytest.approx(cost_usd))

    def test_a_remote_one_that_is_not_taken_asks_nobody_else(self) -> None:
        """A thread can't be stopped, and learns of it when its request is over."""
        route = {"candidates": ["near/o", "far/m"], "long_prompt_chars": 1}
        racer = Racer(racing({"retries": 2}, routes={"auto": route}), model="auto", endpoint="")
        remote: Any = racer.race.flows[0]
        next(remote)
        racer.step(Raced(1, whole(LOCAL).head, True))
        with pytest.raises(type(LATE[0])):
            remote.throw(LATE[0])
        found = racer.outcome
        assert (found.model, found.attempts, found.cost_usd) == ("n", "far/m overtaken, near/n", pytest.approx(0.8))

    def test_a_refusal_that_is_not_taken_asks_nobody_else(self) -> None:
        racer = Racer(racing({"retries": 2}), endpoint="")
        remote: Any = racer.race.flows[0]
        next(remote)
        racer.step(Raced(1, whole(LOCAL).head, True))
        refusal = whole("no", status=503)
        remote.send(refusal.head)
        with pytest.raises(StopIteration) as stopped:
            remote.send(refusal)
        assert stopped.value.value.status == 503, "and not a pause before the next request"

    def test_trouble_with_the_scorer_is_paid_for(self) -> None:
        racer = Racer(racing())
        racer.rig.scorer.says = RuntimeError("no model")
        assert driven(racer.race.flows[1], whole(LOCAL)) is None
        racer.step(Raced(0, whole(FAR).head, True))
        assert racer.outcome.cost_usd == pytest.approx(1.5)


MAIN_PRICES = {"prices": {"m": {"input_usd_per_mtok": 1e6, "output_usd_per_mtok": 0.0}}}
TEXT = "x" * 40


class TestAttempts:
    """Requests that are sent again, or to another backend."""

    def rig(self, **main: Any) -> Rig:
        backends = {
            "main": {**BACKENDS["main"], **MAIN_PRICES, "fallbacks": ["spare"], **main},
            "spare": BACKENDS["spare"],
        }
        sections = {"cache": {"semantic": False}, "backends": backends, "attempts": {"hedge_share": 1.0}}
        return Rig(sections, encoder=None)

    @pytest.mark.parametrize(
        ("failure", "cost_usd"),
        [(LATE[0], 10.0), *((error, None) for error in NEVER)],
        ids=["timeout", *NEVER_IDS],
    )
    def test_one_that_is_late_costs_its_prompt_where_another_answers(
        self, failure: Exception, cost_usd: float | None
    ) -> None:
        made = Attempting(self.rig(), request(TEXT, model="main/m"))
        made.fails(failure)
        assert made.forwarded().backend == "spare"
        assert made.flight.ticket.outcome.cost_usd == cost_usd

    def test_the_characters_of_an_image_are_no_tokens(self) -> None:
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'A' * 4_000}"}}
        messages = [{"role": "user", "content": [{"type": "text", "text": TEXT}, image]}]
        made = Attempting(self.rig(), request(model="main/m", messages=messages))
        made.fails(LATE[0])
        assert made.flight.ticket.outcome.cost_usd == 10.0

    def test_refusals_cost_nothing(self) -> None:
        made = Attempting(self.rig(), request(TEXT, model="main/m"))
        made.refuses(504)
        assert made.flight.ticket.outcome.cost_usd is None

    def test_without_a_cache_the_call_is_booked_too(self) -> None:
        once = {"retries": 0}
        main = {**BACKENDS["main"], **MAIN_PRICES, **once, "fallbacks": ["spare"]}
        backends = {"main": main, "spare": {**BACKENDS["spare"], **once}}
        made = Rig({"cache": {"enabled": False}, "backends": backends}, encoder=None)
        flow = made.engine.answer(proxied(text=TEXT))
        next(flow)
        assert flow.throw(LATE[0]).outgoing.backend == "spare"
        with pytest.raises(type(LATE[0])):
            flow.throw(LATE[0])
        assert made.events[-1].outcome.cost_usd == 10.0

    @pytest.mark.parametrize(
        ("failure", "cost_usd"),
        [(None, 10.0), (LATE[0], 10.0), *((error, None) for error in NEVER)],
        ids=["under way", "timeout", *NEVER_IDS],
    )
    def test_the_loser_of_two_costs_nothing_where_it_never_had_it(
        self, failure: Exception | None, cost_usd: float | None
    ) -> None:
        rig = self.rig(hedge=True)
        for number in range(AT_LEAST):
            Attempting(rig, request(str(number), model="main/m")).answers()
        made = Attempting(rig, request(TEXT, model="main/m"))
        first = made.expect(Race).flows[0]
        next(first)
        if failure is not None:
            with pytest.raises(StopIteration):
                first.throw(failure)
        made.send(Raced(1, Head(200, JSON_TYPE, iter(())), True))
        assert made.flight.ticket.outcome.cost_usd == cost_usd
