"""The load generators: both count what was answered, and what was not as it should be."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from benchmarks._load import BLANKS, UNIQUE, Load, measure, pinned
from benchmarks._upstream import upstream
from tests.faces.asgi_kit import Raw, RawUpstream, raw_response

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": f"hi {UNIQUE}{BLANKS}"}]})
GENERATORS = pytest.mark.parametrize("generator", ["wrk", "asyncio"])


@pytest.fixture
def seconds(generator: str, monkeypatch: pytest.MonkeyPatch) -> float:
    if generator == "wrk" and shutil.which("wrk") is None:
        pytest.skip("wrk is not installed here")
    if generator == "asyncio":
        monkeypatch.setattr("benchmarks._load.shutil.which", lambda name: None)
        return 0.3
    return 1.0


@GENERATORS
@pytest.mark.parametrize("is_stream", [False, True])
def test_it_counts_answers(seconds: float, is_stream: bool) -> None:
    body = json.dumps({**json.loads(BODY), "stream": is_stream})
    with upstream() as url:
        found = measure(Load(url, (body,), {"x-a": "b"}), connections=2, seconds=seconds)
    assert found.errors == 0
    assert found.rps > 10
    assert 0 < found.p50_ms <= found.p99_ms


@GENERATORS
def test_no_two_requests_are_the_same_and_each_is_json(seconds: float) -> None:
    with RawUpstream(lambda request: request.send(raw_response(b"{}", "cache-status: hit"))) as server:
        measure(Load(server.url, (BODY,), {"x-a": "b"}, "hit"), connections=2, seconds=seconds)
        texts = [json.loads(got.body)["messages"][0]["content"] for got in server.requests]
        assert len(set(texts)) == len(texts) > 2
        assert all("@" not in text for text in texts)
        assert {got.header("x-a") for got in server.requests} == {"b"}


@GENERATORS
@pytest.mark.parametrize("status", ["500 Oh", "200 OK"])
def test_what_is_not_as_expected_is_an_error(seconds: float, status: str) -> None:
    def handler(request: Raw) -> Any:
        request.send(raw_response(b"{}", "cache-status: miss", status=status))

    with RawUpstream(handler) as server:
        found = measure(Load(server.url, (BODY,), {}, "exact"), connections=1, seconds=seconds)
        assert found.errors >= len(server.requests) - 2 > 0


def test_a_command_is_pinned_where_that_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks._load.shutil.which", lambda name: f"/usr/bin/{name}")
    assert pinned(["a"], (0, 1)) == ["taskset", "--cpu-list", "0,1", "a"]
    assert pinned(["a"], ()) == ["a"]
    monkeypatch.setattr("benchmarks._load.shutil.which", lambda name: None)
    assert pinned(["a"], (0, 1)) == ["a"]
