"""``llm_proxy.stats()``: the ledger's rows, with pandas and without."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import llm_proxy
from llm_proxy import Calls, ConfigError
from llm_proxy.faces.stats import COLUMNS, stats
from llm_proxy.observe.ledger import _SCHEMA
from llm_proxy.testing import FakeBackend

MESSAGES: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    return {"cache": {"directory": str(tmp_path), "semantic": False}}


@pytest.fixture
def asked(settings: Any) -> Any:
    """Two models asked twice each: the ledger has four calls."""
    with llm_proxy.OpenAI(api_key="k", http_client=FakeBackend().client(), llm_proxy=settings) as client:
        for model in ("a", "a", "<b>", "<b>"):
            client.chat.completions.create(model=model, messages=MESSAGES)
        yield settings


class TestRows:
    def test_one_a_call_with_what_was_just_asked(self, asked: Any) -> None:
        calls = stats(as_frame=False, llm_proxy=asked)
        assert isinstance(calls, Calls)
        assert calls.columns == COLUMNS
        assert calls["status"] == ["miss", "hit", "miss", "hit"]
        assert calls["model"] == ["a", "a", "<b>", "<b>"]
        assert [row["is_stream"] for row in calls] == [False] * 4
        assert calls["api"] == ["chat"] * 4
        assert isinstance(calls[0]["at"], datetime)
        assert abs(calls[-1]["at"].timestamp() - time.time()) < 60
        assert calls[0]["at"].tzinfo is UTC

    def test_the_last_seconds_alone(self, asked: Any) -> None:
        assert len(stats(last_s=3600, as_frame=False, llm_proxy=asked)) == 4
        assert len(stats(last_s=0, as_frame=False, llm_proxy=asked)) == 0

    def test_sums(self, asked: Any) -> None:
        sums = stats(by="model", as_frame=False, llm_proxy=asked)
        assert sums.columns[:3] == ("model", "calls", "exact_hits")
        assert [(row["model"], row["calls"], row["exact_hits"]) for row in sums] == [("<b>", 2, 1), ("a", 2, 1)]

    def test_nothing_yet(self, settings: Any) -> None:
        assert len(stats(as_frame=False, llm_proxy=settings)) == 0
        assert len(stats(by="day", as_frame=False, llm_proxy=settings)) == 0

    def test_a_frame_has_the_same_columns(self, asked: Any) -> None:
        pandas = pytest.importorskip("pandas")
        frame = stats(llm_proxy=asked)
        assert isinstance(frame, pandas.DataFrame)
        assert tuple(frame.columns) == COLUMNS
        assert list(frame["status"]) == ["miss", "hit", "miss", "hit"]
        assert frame.groupby("model")["saved_s"].sum().gt(0).all()

    def test_columns_are_those_of_the_ledger(self) -> None:
        assert all(f" {name} " in _SCHEMA.replace("\n", " ") for name in COLUMNS[1:] if name != "api")


class TestCalls:
    CALLS = Calls(("a", "b"), [(1, "<i>"), (2, "y"), (3, "z")])

    def test_it_is_a_sequence(self) -> None:
        assert len(self.CALLS) == 3
        assert self.CALLS[1] == {"a": 2, "b": "y"}
        assert [row["a"] for row in self.CALLS[1:]] == [2, 3]
        assert self.CALLS["b"] == ["<i>", "y", "z"]
        assert {"a": 3, "b": "z"} in self.CALLS

    def test_what_is_not_there(self) -> None:
        with pytest.raises(KeyError):
            self.CALLS["c"]
        with pytest.raises(IndexError):
            self.CALLS[3]

    def test_how_it_looks(self) -> None:
        assert repr(self.CALLS) == "<3 rows: a, b>"
        shown = self.CALLS._repr_html_()
        assert "<td>&lt;i&gt;</td>" in shown
        assert "newest" not in shown

    def test_a_long_one_is_cut(self) -> None:
        shown = Calls(("a",), [(number,) for number in range(50)])._repr_html_()
        assert shown.count("<tr>") == 21
        assert "the newest 20 of 50 rows" in shown


def test_settings_without_a_ledger() -> None:
    with pytest.raises(ConfigError, match="no ledger"):
        stats(llm_proxy={"cache": {"store": "memory"}})


@pytest.mark.parametrize("last_s", [-1.0, float("nan")])
def test_a_span_that_is_none(last_s: float, settings: Any) -> None:
    with pytest.raises(ConfigError, match="last_s"):
        stats(last_s=last_s, llm_proxy=settings)
