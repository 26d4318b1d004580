"""Issued keys on a running proxy: who may ask what, how often and for how much, and that tenants never meet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from llm_proxy.faces._http import httpx
from llm_proxy.faces.keys import add, remove
from llm_proxy.holders import Holder
from tests.faces.asgi_kit import Proxy, Raw, RawUpstream, ask, completion, http, proxied, raw_response

CHAT = "/v1/chat/completions"
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "what is my secret?"}]}
LIST = {"object": "list", "data": [{"id": name, "object": "model"} for name in ("m", "gpt-4o", "gpt-4o-mini")]}
QUEUED = {"id": "r", "object": "response", "status": "queued", "output": [], "usage": None}
UNCOUNTED = {"id": "c", "choices": [{"index": 0, "text": "x" * 2400, "finish_reason": "stop", "logprobs": None}]}
PRICES = {"m": {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1.0}}


def answering(request: Raw) -> None:
    if request.target.endswith("/models"):
        request.send(raw_response(json.dumps(LIST).encode()))
    else:
        request.send(raw_response(completion(request.target)))


@contextmanager
def issued(tmp_path: Path, backend: Any = None, **sections: Any) -> Iterator[tuple[Proxy, Any, RawUpstream]]:
    """A proxy that issues keys, what issues one, and what its backend got."""
    path = tmp_path / "keys.json"
    path.write_text('{"format": 1, "keys": []}')

    def issue(name: str, tenant: str = "", **more: Any) -> str:
        key, _ = add(path, Holder("", name, tenant or name, **more), now_s=1.0)
        proxy.app.admission.book.refresh(is_due=True)
        return key

    server = {"keys_file": str(path), **sections.pop("server", {})}
    with (
        RawUpstream(answering) as upstream,
        proxied({"main": {"base_url": upstream.url, **(backend or {})}}, server=server, **sections) as proxy,
    ):
        yield proxy, issue, upstream


def post(proxy: Proxy, key: str, body: Any = QUESTION, path: str = CHAT, **more: Any) -> httpx.Response:
    return httpx.post(proxy.url + path, json=body, headers={"authorization": f"Bearer {key}", **more})


def get(proxy: Proxy, key: str, path: str, **more: str) -> httpx.Response:
    return httpx.get(proxy.url + path, headers={"authorization": f"Bearer {key}", **more})


def refused(response: httpx.Response, status: int, code: str | None) -> bool:
    error = response.json()["error"]
    return (response.status_code, error["code"], set(error)) == (status, code, {"message", "type", "param", "code"})


def test_a_file_without_keys_admits_nobody(tmp_path):
    with issued(tmp_path) as (proxy, _, upstream):
        for key in ("x", "lp-", "lp-guess"):
            assert refused(post(proxy, key), 401, "invalid_api_key")
        assert refused(httpx.post(proxy.url + CHAT, json=QUESTION), 401, "invalid_api_key")
        assert upstream.requests == []


def test_a_key_is_taken_until_it_is_taken_back(tmp_path):
    with issued(tmp_path) as (proxy, issue, _):
        key = issue("ci")
        assert ask(proxy.client(api_key=key)) == "/v1/chat/completions"
        assert post(proxy, key, **{"authorization": "Basic x", "x-api-key": key}).status_code == 200
        remove(tmp_path / "keys.json", "ci", now_s=2.0)
        proxy.app.admission.book.refresh(is_due=True)
        with pytest.raises(openai.AuthenticationError):
            ask(proxy.client(api_key=key))


def test_keys_of_the_settings_hold_as_before(tmp_path):
    with issued(tmp_path, server={"keys": ["settled"]}) as (proxy, issue, _):
        key = issue("ci", models=("other",))
        assert post(proxy, "settled").status_code == 200
        assert refused(post(proxy, key), 403, "model_not_allowed")
        assert get(proxy, "settled", "/llm-proxy/calls").status_code == 200


class TestTenants:
    def outcomes(self, proxy: Proxy, *keys: str, **more: str) -> list[str]:
        return [post(proxy, key, **more).headers["cache-status"].partition(";")[2].strip()[:3] for key in keys]

    def test_keys_of_one_share_a_cache_those_of_two_never(self, tmp_path):
        with issued(tmp_path) as (proxy, issue, _):
            one, two, other = issue("a", "team"), issue("b", "team"), issue("c", "else")
            assert self.outcomes(proxy, one, two, other, other) == ["fwd", "hit", "fwd", "hit"]

    @pytest.mark.parametrize("rule", ["api_key", "user", "header:x-team", "fixed:all"])
    def test_whatever_the_rule_and_whatever_they_say(self, tmp_path, rule):
        with issued(tmp_path, cache={"store": "memory", "tenant": rule}) as (proxy, issue, _):
            one, other = issue("a"), issue("b")
            assert self.outcomes(proxy, one, other, **{"x-team": "a", "openai-organization": "a"}) == ["fwd", "fwd"]

    def test_within_one_the_rule_divides_further(self, tmp_path):
        with issued(tmp_path, cache={"store": "memory", "tenant": "header:x-team"}) as (proxy, issue, _):
            key = issue("a")
            found = [self.outcomes(proxy, key, **{"x-team": team})[0] for team in ("x", "y", "x")]
            assert found == ["fwd", "fwd", "hit"]

    def test_an_organization_divides_nothing(self, tmp_path):
        with issued(tmp_path) as (proxy, issue, _):
            key = issue("a")
            found = [self.outcomes(proxy, key, **{"openai-organization": one})[0] for one in ("x", "y")]
            assert found == ["fwd", "hit"]

    def test_feedback_is_for_who_got_the_answer(self, tmp_path):
        routes = {"auto": {"candidates": ["main/m", "main/n"]}}
        cache = {"directory": str(tmp_path / "c"), "semantic": False}
        with issued(tmp_path, routes=routes, cache=cache) as (proxy, issue, _):
            mine, theirs = issue("a"), issue("b")
            name = post(proxy, mine, {**QUESTION, "model": "auto"}).headers["x-llm-proxy-id"]
            told = {"id": name, "good": True}
            assert post(proxy, theirs, told, "/llm-proxy/feedback").status_code == 404
            assert post(proxy, mine, told, "/llm-proxy/feedback").status_code == 200
            value = f"{name}; good"
            said = [
                post(proxy, key, **{"x-llm-proxy-feedback": value}).headers["x-llm-proxy-feedback"]
                for key in (theirs, mine)
            ]
            assert said == ["unknown", "noted"]


class TestWhatGoesOn:
    @pytest.mark.parametrize("backend", [{}, {"auth": "caller"}, {"auth": "caller", "api_key": "own"}])
    def test_no_key_and_nothing_that_names_the_caller(self, tmp_path, backend):
        with issued(tmp_path, backend) as (proxy, issue, upstream):
            key = issue("a")
            more = {"openai-organization": "org-x", "cookie": "a=b", "x-kept": "yes"}
            post(proxy, key, **more)
            get(proxy, key, "/v1/files", **more)
            get(proxy, key, "/v1/models", **more)
            sent = str([request.headers for request in upstream.requests])
            assert len(upstream.requests) == 3
            assert key not in sent
            assert "org-x" not in sent
            assert "a=b" not in sent
            assert sent.count("x-kept") == 3
            assert {request.header("authorization") for request in upstream.requests} == {
                "Bearer own" if "api_key" in backend else None
            }

    def test_the_event_has_its_name_and_not_the_key(self, tmp_path):
        with issued(tmp_path) as (proxy, issue, _):
            key = issue("a")
            post(proxy, key, **{"authorization": "Bearer decoy", "x-api-key": key})
            [event] = proxy.events
            assert event.caller == next(iter(proxy.app.admission.book.named()))
            assert key not in repr(event)


class TestModels:
    def test_only_those_it_may_ask(self, tmp_path):
        sections: dict[str, Any] = {
            "routes": {"auto": {"candidates": ["main/m"]}},
            "aliases": {"big": "m", "r": "auto"},
        }
        with issued(tmp_path, **sections) as (proxy, issue, _):
            keys = {
                "gpt": issue("gpt", models=("gpt-4o*",)),
                "route": issue("route", models=("auto",)),
                "name": issue("name", models=("big",)),
                "free": issue("free"),
            }
            found = {
                (who, model): post(proxy, key, {**QUESTION, "model": model}).status_code
                for who, key in keys.items()
                for model in ("gpt-4o-mini", "auto", "big", "r", "m", "main/m")
            }
            allowed = {("gpt", "gpt-4o-mini"), ("route", "auto"), ("route", "r"), ("name", "big")}
            assert {pair for pair, status in found.items() if status == 200} == allowed | {
                pair for pair in found if pair[0] == "free"
            }
            assert {status for pair, status in found.items() if status != 200} == {403}
            with pytest.raises(openai.PermissionDeniedError) as caught:
                ask(proxy.client(api_key=keys["gpt"]))
            assert caught.value.code == "model_not_allowed"

    def test_a_hit_is_refused_as_well(self, tmp_path):
        with issued(tmp_path) as (proxy, issue, _):
            assert post(proxy, issue("a", "team")).status_code == 200
            assert refused(post(proxy, issue("b", "team", models=("other",))), 403, "model_not_allowed")

    @pytest.mark.parametrize("name", ["Model", "MODEL", "mOdel"])
    def test_a_second_model_that_some_readers_see(self, tmp_path, name):
        with issued(tmp_path) as (proxy, issue, upstream):
            key = issue("a", models=("m",))
            for path in (CHAT, "/v1/audio/speech"):
                assert refused(post(proxy, key, {**QUESTION, name: "dear"}, path), 403, "model_not_allowed")
            assert upstream.requests == []

    @pytest.mark.parametrize("path", [CHAT, "/v1/audio/speech"])
    def test_others_that_are_asked_where_it_gives_no_answer(self, tmp_path, path):
        with issued(tmp_path) as (proxy, issue, upstream):
            key = issue("a", models=("m", "n"))
            for models in (["m", "dear"], "dear", [{"name": "dear"}]):
                assert refused(post(proxy, key, {**QUESTION, "models": models}, path), 403, "model_not_allowed")
            assert upstream.requests == []
            assert post(proxy, key, {**QUESTION, "models": ["n"]}, path).status_code == 200

    @pytest.mark.parametrize(
        "path",
        ["/openai/deployments/dear/chat/completions", "/v1beta/models/dear:generateContent", "/v1/rerank?model=dear"],
    )
    def test_a_path_that_names_one(self, tmp_path, path):
        with issued(tmp_path) as (proxy, issue, upstream):
            assert refused(post(proxy, issue("a", models=("m",)), path=path), 403, "model_not_allowed")
            assert upstream.requests == []
            assert post(proxy, issue("b"), path=path).status_code == 200

    @pytest.mark.parametrize("sections", [{}, {"aliases": {"gpt-4o": "m"}}])
    def test_the_list_has_only_those(self, tmp_path, sections):
        with issued(tmp_path, **sections) as (proxy, issue, _):
            names = [row["id"] for row in get(proxy, issue("a", models=("gpt-4o-*",)), "/v1/models").json()["data"]]
            assert names == ["gpt-4o-mini"]
            assert len(get(proxy, issue("b"), "/v1/models").json()["data"]) == 3

    def test_one_of_the_list(self, tmp_path):
        with issued(tmp_path) as (proxy, issue, upstream):
            key = issue("a", models=("org/m",))
            assert get(proxy, key, "/v1/models/org%2Fm").status_code == 200
            assert refused(get(proxy, key, "/v1/models/other"), 403, "model_not_allowed")
            assert [request.target for request in upstream.requests] == ["/v1/models/org%2Fm"]

    @pytest.mark.parametrize(
        ("body", "more", "status"),
        [
            (b'{"model": "m", "input": "x"}', {}, 200),
            (b'{"model": "dear", "input": "x"}', {}, 403),
            (b'{"model": "m", "model": "dear"}', {}, 403),
            (b'{"model": ["m"]}', {}, 403),
            (b'{"input": "x"}', {}, 403),
            (b'["m"]', {}, 403),
            (b"model=m", {}, 403),
            (b"", {}, 403),
            (b'{"model": "m"}', {"content-encoding": "gzip"}, 403),
        ],
    )
    def test_what_is_only_passed_on(self, tmp_path, body, more, status):
        with issued(tmp_path) as (proxy, issue, upstream):
            headers = {"authorization": f"Bearer {issue('a', models=('m',))}", **more}
            response = httpx.post(proxy.url + "/v1/audio/speech", content=body, headers=headers)
            assert response.status_code == status
            assert [request.body for request in upstream.requests] == ([body] if status == 200 else [])

    def test_a_body_in_chunks_is_passed_on_whole(self, tmp_path):
        with issued(tmp_path) as (proxy, issue, upstream):
            headers = {"authorization": f"Bearer {issue('a', models=('m',))}"}
            pieces = iter([b'{"mod', b'el": "m"}'])
            assert httpx.post(proxy.url + "/v1/audio/speech", content=pieces, headers=headers).status_code == 200
            assert upstream.requests[0].body == b'{"model": "m"}'

    @pytest.mark.parametrize("path", ["/v1/files", "/api/tags", "/v1/chat/completions"])
    def test_looking_at_what_is_kept_upstream_is_not_for_it(self, tmp_path, path):
        with issued(tmp_path) as (proxy, issue, _):
            assert refused(get(proxy, issue("a", models=("m",)), path), 403, "model_not_allowed")
            assert get(proxy, issue("b"), path).status_code == 200


class TestBudget:
    def test_it_is_spent_by_calls_that_are_asked_alone(self, tmp_path):
        cache = {"directory": str(tmp_path / "c"), "semantic": False}
        with issued(tmp_path, {"prices": PRICES}, cache=cache) as (proxy, issue, upstream):
            key = issue("a", usd_per_day=0.001)  # 1,000 tokens
            small = {**QUESTION, "max_tokens": 600}
            assert post(proxy, key, small).status_code == 200
            assert post(proxy, key, small).headers["cache-status"].startswith("llm-proxy; hit")
            assert post(proxy, key, {**small, "seed": 1}).status_code == 200, "of 600 only 2 were taken"
            response = post(proxy, key, {**small, "max_tokens": 1200})
            assert refused(response, 429, "budget_exceeded")
            assert "limit 'of key a' of the budget (issued " in response.json()["error"]["message"]
            assert post(proxy, issue("b"), {**small, "max_tokens": 1200}).status_code == 200
            assert len(upstream.requests) == 3

    @pytest.mark.parametrize(
        ("path", "fields", "answer"),
        [
            ("/v1/responses", {"input": "hi", "background": True, "max_output_tokens": 600}, QUEUED),
            ("/v1/completions", {"prompt": "hi", "max_tokens": 600}, UNCOUNTED),
        ],
        ids=["background", "no-usage"],
    )
    def test_what_an_answer_does_not_say_counts_too(self, tmp_path, monkeypatch, path, fields, answer):
        raw = raw_response(json.dumps(answer).encode())
        monkeypatch.setitem(globals(), "answering", lambda request: request.send(raw))
        cache = {"directory": str(tmp_path / "c"), "semantic": False}
        with issued(tmp_path, {"prices": PRICES}, cache=cache) as (proxy, issue, _):
            key = issue("a", usd_per_day=0.001)  # 1,000 tokens
            asked = [post(proxy, key, {"model": "m", "seed": seed, **fields}, path).status_code for seed in range(3)]
            assert asked == [200, 429, 429]

    def test_several_prompts_are_set_aside_for(self, tmp_path):
        cache = {"directory": str(tmp_path / "c"), "semantic": False}
        with issued(tmp_path, {"prices": PRICES}, cache=cache) as (proxy, issue, upstream):
            key = issue("a", usd_per_day=0.001)
            many = {"model": "m", "prompt": ["a", "b"], "max_tokens": 600}
            assert refused(post(proxy, key, many, "/v1/completions"), 429, "budget_exceeded")
            assert upstream.requests == []

    def test_what_is_not_counted_is_not_for_it(self, tmp_path):
        with issued(tmp_path) as (proxy, issue, upstream):
            key = issue("a", usd_per_day=1.0, may_pass=False)
            assert refused(post(proxy, key, {"model": "m"}, "/v1/audio/speech"), 403, "no_pass")
            assert refused(get(proxy, key, "/v1/files"), 403, "no_pass")
            coded = post(proxy, key, **{"content-encoding": "gzip"})
            assert refused(coded, 403, "no_pass")
            assert upstream.requests == []
            assert get(proxy, key, "/v1/models").status_code == 200
            assert post(proxy, issue("b", usd_per_day=1.0), {"model": "m"}, "/v1/audio/speech").status_code == 200


class TestPace:
    def test_more_than_it_may_is_a_429_that_says_when(self, tmp_path):
        with issued(tmp_path) as (proxy, issue, upstream):
            key, other = issue("a", requests_per_minute=2), issue("b")
            assert [post(proxy, key).status_code for _ in range(2)] == [200, 200], "hits count as well"
            response = post(proxy, key)
            assert refused(response, 429, "rate_limit_exceeded")
            assert 50 <= int(response.headers["retry-after"]) <= 60
            assert refused(get(proxy, key, "/v1/files"), 429, "rate_limit_exceeded")
            assert post(proxy, other).status_code == 200
            assert len(upstream.requests) == 2

    def test_feedback_in_a_header_counts_once(self, tmp_path):
        with issued(tmp_path) as (proxy, issue, _):
            key = issue("a", requests_per_minute=2)
            found = [post(proxy, key, **{"x-llm-proxy-feedback": "x; good"}).status_code for _ in range(3)]
            assert found == [200, 200, 429]

    def test_wrong_keys_take_nobodys_turn(self, tmp_path):
        with issued(tmp_path) as (proxy, issue, _):
            key = issue("a", requests_per_minute=1)
            assert [post(proxy, key + "x").status_code for _ in range(3)] == [401] * 3
            assert post(proxy, key).status_code == 200


class TestDashboard:
    def test_who_may_see_the_calls_of_all(self, tmp_path):
        with issued(tmp_path, observe={"ledger": False, "prompts": True}) as (proxy, issue, _):
            caller, watcher = issue("a", "team"), issue("b", may_watch=True, requests_per_minute=0)
            assert post(proxy, caller).status_code == 200
            for path in ("/llm-proxy/calls", "/llm-proxy/summary", "/llm-proxy/events", "/metrics"):
                assert refused(get(proxy, caller, path), 403, "not_allowed")
                assert refused(httpx.get(proxy.url + path), 401, "invalid_api_key")
            [row] = get(proxy, watcher, "/llm-proxy/calls").json()["calls"]
            assert (row["key"], row["tenant"], row["question"]) == ("a", "team", "")
            found = get(proxy, watcher, f"/llm-proxy/calls/{row['id']}").json()
            assert (found["key"], found["shows_questions"], found["question"]) == ("a", False, "")

    def test_the_page_says_nothing_and_is_for_all(self, tmp_path):
        with issued(tmp_path) as (proxy, *_):
            response = httpx.get(proxy.url, headers={"accept": "text/html", "host": "proxy.example"})
            assert response.status_code == 200


def test_readiness_tells_troubles_to_those_who_may_come_in(tmp_path):
    with issued(tmp_path) as (proxy, issue, _):
        proxy.runtime.troubles.note("cache", OSError("secret path"))
        for headers in ({}, {"authorization": "Bearer wrong"}):
            found = httpx.get(proxy.url + "/readyz", headers=headers)
            assert (found.status_code, set(found.json())) == (200, {"status", "cache", "encoder"})
        key = issue("a", requests_per_minute=0)
        assert get(proxy, key, "/readyz").json()["troubles"] == {"cache": 1}


def test_readiness_is_short_for_a_name_that_is_not_this_machine():
    with proxied("http://127.0.0.1:9/v1") as proxy:
        found = httpx.get(proxy.url + "/readyz", headers={"host": "evil.example"})
        assert set(found.json()) == {"status", "cache", "encoder"}
        assert "troubles" in httpx.get(proxy.url + "/readyz").json()


def test_a_file_that_comes_later_is_obeyed(tmp_path):
    path = tmp_path / "keys.json"
    with (
        RawUpstream(answering) as upstream,
        proxied(upstream.url, server={"keys_file": str(path)}) as proxy,
    ):
        assert httpx.post(proxy.url + CHAT, json=QUESTION).status_code == 200
        key, _ = add(path, Holder("", "a", "a"), now_s=1.0)
        proxy.app.admission.book.refresh(is_due=True)
        assert httpx.post(proxy.url + CHAT, json=QUESTION).status_code == 401
        assert post(proxy, key).status_code == 200
        assert key not in str([request.headers for request in upstream.requests]), "though this backend gets callers'"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="files are shared by processes of a POSIX system")
def test_two_workers_keep_one_pace_and_one_budget(tmp_path):
    cache = {"directory": str(tmp_path / "c"), "semantic": False}
    path = tmp_path / "keys.json"
    key, _ = add(path, Holder("", "a", "a", requests_per_minute=4, usd_per_day=0.001), now_s=1.0)
    with RawUpstream(answering) as upstream:
        backends = {"main": {"base_url": upstream.url, "prices": PRICES}}
        server = {"keys_file": str(path)}
        with (
            proxied(backends, server=server, cache=cache) as one,
            proxied(backends, server=server, cache=cache) as two,
        ):
            bodies = [{**QUESTION, "seed": seed, "max_tokens": 600} for seed in range(5)]
            assert post(one, key, bodies[0]).status_code == 200
            assert post(two, key, {**bodies[1], "max_tokens": 1001}).json()["error"]["code"] == "budget_exceeded"
            found = [
                post(proxy, key, body).status_code for proxy, body in zip((two, one, two), bodies[2:], strict=True)
            ]
            assert found == [200, 200, 429]


def test_a_coded_request_is_refused_while_there_are_budgets():
    budget = {"limits": {"all": {"usd_per_day": 1.0}}}
    with RawUpstream(answering) as upstream, proxied(upstream.url, budget=budget) as proxy:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n"
        assert http(proxy.port, head.encode())[0] == 415
        assert upstream.requests == []
