"""One line a call: what is in it, and what never is."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest

from llm_proxy.observe.lines import LOGGER_NAME, Lines
from llm_proxy.types import Usage
from tests.observe.events_kit import bypass, exact, miss, near


def logged(caplog: pytest.LogCaptureFixture, form: str, *events: object) -> list[str]:
    with caplog.at_level(logging.INFO, LOGGER_NAME):
        for event in events:
            Lines(form)(event)  # type: ignore[arg-type]
    return [record.getMessage() for record in caplog.records]


def test_as_text(caplog):
    assert logged(caplog, "text", near(), miss(), bypass(http_status=0, error="ReadTimeout", model="")) == [
        "hit semantic m 4.0 ms status=200 route=auto similarity=0.900 p_wrong=0.0020 saved_usd=0.50000000",
        "miss m 2000.0 ms status=200 backend=main cost_usd=0.12500000",
        "bypass - 500.0 ms status=0 detail=temperature error=ReadTimeout",
    ]


def test_as_json(caplog):
    event = replace(miss(), usage=Usage(10, 20), caller="1234abcd")
    line = json.loads(logged(caplog, "json", event)[0])
    assert line == {
        "at": "2023-11-14T22:13:20.000+00:00",
        "outcome": "miss",
        "api": "chat",
        "requested": "auto",
        "model": "m",
        "backend": "main",
        "reason": "cheapest",
        "latency_s": 2.0,
        "http_status": 200,
        "is_stream": False,
        "cost_usd": 0.125,
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "caller": "1234abcd",
    }


def test_a_hit_says_what_it_saved(caplog):
    line = json.loads(logged(caplog, "json", exact())[0])
    assert (line["saved_usd"], line["saved_s"]) == (0.25, 2.0)


def test_another_api_is_said(caplog):
    assert logged(caplog, "text", replace(miss(), api="responses")) == [
        "miss m 2000.0 ms status=200 api=responses backend=main cost_usd=0.12500000"
    ]


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_questions_and_one_line_whatever_the_names(caplog, form):
    event = replace(miss(model="a\nb\x1b[2J"), question="what is my secret?", traceparent="00-x")
    (line,) = logged(caplog, form, event)
    assert "secret" not in line
    assert line.isprintable()


def test_nobody_listens(caplog):
    with caplog.at_level(logging.WARNING, LOGGER_NAME):
        Lines("text")(miss())
    assert caplog.records == []
