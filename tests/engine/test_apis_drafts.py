"""What other APIs ask is sent as it came, whatever is drafted, raced or predicted for chat completions."""

from __future__ import annotations

from typing import Any

from llm_proxy.engine.effects import Launch
from llm_proxy.types import ChatRequest
from tests.engine.draft_kit import BIG, SMALL
from tests.engine.flow_kit import Course
from tests.engine.test_apis_flow import call
from tests.engine.test_near_misses import asked as asked_near
from tests.engine.test_near_misses import led, made
from tests.engine.test_racing import rig as racing_rig
from tests.fakes import Rig, request


def launched(rig: Rig, asked: ChatRequest) -> Launch:
    course = Course(rig, asked)
    course.board()
    return course.expect(Launch)


def test_no_prediction() -> None:
    _, launch, forward = asked_near(made())
    assert b"prediction" in forward.outgoing.body
    _, launch = led(made(), call(model="main/m"))
    assert (launch.asking, b"prediction" in launch.outgoing.body) == (None, False)


def test_no_prediction_where_another_model_drafts() -> None:
    rig = made({**BIG, "base_url": "https://main.test/v1", "draft_with": "main/s"})
    _, launch = led(rig, request(model="main/m"))
    assert (launch.asking, launch.flight.ticket.is_predicted) == (None, False)


def test_no_race() -> None:
    assert launched(racing_rig(), request(model="far/m")).asking is not None
    assert launched(racing_rig(), call(model="far/m")).asking is None


def test_no_drafts() -> None:
    sections: Any = {"cache": {"semantic": False}, "backends": {"big": BIG, "small": SMALL}}
    fields: dict[str, Any] = {"model": "big/b", "temperature": 0}
    assert launched(Rig(sections, encoder=None), request("Count.", **fields)).asking is not None
    rig = Rig(sections, encoder=None)
    assert launched(rig, call("completions", **fields)).asking is None
    assert launched(rig, call(**fields)).asking is None
