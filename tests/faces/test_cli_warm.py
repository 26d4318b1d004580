"""``llm-proxy cache warm``: past calls are answered from then on, as if this program had seen them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_proxy import OpenAI
from llm_proxy.cache.build import ENTRIES_NAME
from llm_proxy.cache.entry import decode_entry
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.encode.lazy import LazyEncoder
from llm_proxy.runtime import LEDGER_NAME, close_all
from llm_proxy.testing import FakeBackend, FakeEncoder
from tests.faces.cli_kit import entry, invoke, invoke_json, seed, settled

CREATED_S = 1_700_000_000


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with settled(monkeypatch) as folder:
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setattr(
            "llm_proxy.encode.lazy.build",
            lambda *_, **__: LazyEncoder(FakeEncoder),  # type: ignore[arg-type]
        )
        yield folder
        close_all()


def asked(question: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": question}], **more}


def answered(answer: str | None, *, finish_reason: str = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer, **more.pop("message", {})}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": CREATED_S,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        **more,
    }


def log(folder: Path, *lines: Any, name: str = "calls.jsonl") -> str:
    file = folder / name
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return str(file)


def entries(directory: Path) -> list[Any]:
    store = DiskStore(directory / ENTRIES_NAME)
    found = [decode_entry(row.record) for row in store.scan()]
    store.close()
    return found


def ask(backend: FakeBackend, question: str, **more: Any) -> Any:
    client = OpenAI(http_client=backend.client(), llm_proxy={"cache": {"semantic": False}}, **more.pop("client", {}))
    return client.chat.completions.create(**asked(question, **more))


def test_the_same_calls_are_answered_from_the_cache(directory: Path, tmp_path: Path) -> None:
    file = log(tmp_path, {"request": asked("France?"), "response": answered("Paris."), "latency_s": 1.5})
    assert (
        invoke("cache", "warm", file).stdout
        == "Stored 1 answers of 1 calls to https://api.openai.com/v1, 1 with vectors.\n"
    )
    (entry,) = entries(directory)
    assert (entry.created_s, entry.latency_s, entry.model) == (CREATED_S, 1.5, "gpt-4o-mini-2024-07-18")
    assert entry.cost_usd > 0
    assert (entry.encoder, entry.text) == ("fake-64", "France?")
    backend = FakeBackend("not asked")
    assert ask(backend, "France?").choices[0].message.content == "Paris."
    assert "".join(chunk.choices[0].delta.content or "" for chunk in ask(backend, "France?", stream=True)) == "Paris."
    assert backend.requests == []
    assert ask(backend, "Spain?").choices[0].message.content == "not asked"


def test_what_is_played_is_no_call(directory: Path, tmp_path: Path) -> None:
    invoke("cache", "warm", log(tmp_path, {"request": asked("a"), "response": answered("b")}))
    assert not (directory / LEDGER_NAME).exists()


def test_a_similar_question_is_stored_too(directory: Path, tmp_path: Path) -> None:
    lines = [{"request": asked(text), "response": answered(text)} for text in ("what is red", "is what red")]
    assert invoke_json("cache", "warm", log(tmp_path, *lines))["stored"] == 2


def test_once_more_changes_nothing(directory: Path, tmp_path: Path) -> None:
    file = log(tmp_path, {"request": asked("a"), "response": answered("b")})
    invoke("cache", "warm", file)
    before = entries(directory)
    assert invoke_json("cache", "warm", file)["skipped"] == {"present": 1}
    assert [entry.key for entry in entries(directory)] == [entry.key for entry in before]


@pytest.mark.parametrize(
    ("request_", "response", "reason"),
    [
        (asked("a"), {"error": {"message": "no"}}, "error"),
        (asked("a"), "text", "error"),
        (asked("a"), [{"object": "chat.completion.chunk"}], "stream"),
        (asked("a"), {"object": "chat.completion.chunk", "choices": []}, "stream"),
        (asked("a"), answered("b", finish_reason="length"), "finish-length"),
        (asked("a"), answered("b", message={"refusal": "no"}), "refusal"),
        (asked("a"), answered(""), "empty"),
        (asked("a"), {"object": "list"}, "no-choices"),
        (asked("a", temperature=1.5), answered("b"), "temperature"),
        ({"input": "a"}, answered("b"), "no-chat-request"),
        (asked("a", seed=float("nan")), answered("b"), "no-chat-request"),
        (asked("a"), answered("x" * (2 << 20)), "too-large"),
    ],
)
def test_what_a_proxy_would_not_store(
    directory: Path, tmp_path: Path, request_: Any, response: Any, reason: str
) -> None:
    good = {"request": asked("good"), "response": answered("yes")}
    found = invoke_json("cache", "warm", log(tmp_path, {"request": request_, "response": response}, good))
    assert (found["calls"], found["stored"], found["skipped"]) == (2, 1, {reason: 1})


def test_what_has_expired(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_PROXY_CACHE_TTL_S", "3600")
    lines = [{"request": asked("old"), "response": answered("b")}]
    lines += [
        {"request": asked(f"now {created}"), "response": answered("b", created=created)} for created in (None, 1 << 60)
    ]
    found = invoke_json("cache", "warm", log(tmp_path, *lines))
    assert (found["stored"], found["skipped"]) == (2, {"expired": 1})


def test_what_is_not_worth_its_place(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed(directory, entry(1, is_pinned=True))
    monkeypatch.setenv("LLM_PROXY_CACHE_MAX_ENTRIES", "1")
    found = invoke_json("cache", "warm", log(tmp_path, {"request": asked("a"), "response": answered("b")}))
    assert found["skipped"] == {"refused": 1}


def test_batch_files(directory: Path, tmp_path: Path) -> None:
    asks = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": asked(f"q{number}")}
        for number in range(4)
    ]
    answers = [
        {"custom_id": "1", "response": {"status_code": 200, "body": answered("one")}, "error": None},
        {"custom_id": "0", "response": {"status_code": 200, "body": answered("zero")}, "error": None},
        {"custom_id": "2", "response": {"status_code": 500, "body": {"error": {}}}, "error": None},
        {"custom_id": "9", "response": {"status_code": 200, "body": answered("nine")}, "error": None},
    ]
    files = [log(tmp_path, *asks, name="in.jsonl"), log(tmp_path, *answers, name="out.jsonl")]
    result = invoke("cache", "warm", *files, code=1)
    assert "Stored 2 answers of 3 calls" in result.stdout
    assert "left out 1 error, 1 broken, 1 unanswered" in result.stdout
    assert "line 4: it has no request" in result.stderr
    assert {entry.text: entry.completion for entry in entries(directory)}["q1"] == json.dumps(answered("one")).encode()


def test_a_batch_that_was_not_answered(directory: Path, tmp_path: Path) -> None:
    lines = [
        {"custom_id": "1", "body": asked("a"), "response": None, "error": {"code": "batch_expired"}},
        {"request": asked("a")},
    ]
    found = invoke_json("cache", "warm", log(tmp_path, *lines), code=1)
    assert (found["skipped"], found["first_broken"][0]["fault"]) == ({"error": 1, "broken": 1}, "it has no response")


def test_lines_that_can_not_be_read(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_proxy.cache.transfer.MOST_LINE_BYTES", 2_000)
    good = {"request": asked("a"), "response": answered("b"), "latency_s": "long"}
    found = invoke_json(
        "cache", "warm", log(tmp_path, "{", "[]", "", "x" * 5_000, "[" * 1_999, "{}", "\x1b", good), code=1
    )
    assert (found["stored"], found["skipped"]) == (1, {"broken": 6})
    assert [fault["line"] for fault in found["first_broken"]] == [1, 2, 4, 5, 6]
    assert found["first_broken"][2]["fault"] == "it is too long"


LINE = {"request": asked("a"), "response": answered("b")}


class TestWhoAsks:
    def test_another_key_is_another_tenant(
        self, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MY_KEY", "other")
        invoke("cache", "warm", log(tmp_path, LINE), "--tenant-key-env", "MY_KEY")
        backend = FakeBackend("asked")
        assert ask(backend, "a").choices[0].message.content == "asked"
        assert ask(backend, "a", client={"api_key": "other"}).choices[0].message.content == "b"

    def test_account_and_address_are_those_of_the_client(
        self, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_ORG_ID", "org")
        monkeypatch.setenv("OPENAI_BASE_URL", "https://example.test/v1/")
        invoke("cache", "warm", log(tmp_path, LINE))
        backend = FakeBackend("asked")
        assert ask(backend, "a").choices[0].message.content == "b"
        invoke("cache", "warm", log(tmp_path, LINE), "--base-url", "https://another.test/v1")
        assert ask(backend, "a", client={"base_url": "https://another.test/v1"}).choices[0].message.content == "b"
        assert backend.requests == []

    def test_a_configured_backend(self, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LLM_PROXY_BACKENDS_B_BASE_URL", "https://b.test/v1")
        invoke("cache", "warm", log(tmp_path, LINE))
        assert entries(directory)[0].backend == "b"

    def test_headers(self, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OPENAI_API_KEY")
        file = log(tmp_path, LINE)
        said = invoke("cache", "warm", file, code=2).stderr
        assert "answers are kept apart by API key: set OPENAI_API_KEY" in said
        assert "must be NAME:VALUE" in invoke("cache", "warm", file, "--header", "nothing", code=2).stderr
        assert not directory.exists()
        invoke("cache", "warm", file, "--header", "Authorization: Bearer k")
        assert ask(FakeBackend("asked"), "a", client={"api_key": "k"}).choices[0].message.content == "b"

    def test_tenants_by_another_rule_need_no_key(
        self, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("OPENAI_API_KEY")
        monkeypatch.setenv("LLM_PROXY_CACHE_TENANT", "fixed:us")
        assert invoke_json("cache", "warm", log(tmp_path, LINE))["stored"] == 1


def test_without_an_encoder(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_PROXY_CACHE_SEMANTIC", "false")
    found = invoke_json("cache", "warm", log(tmp_path, {"request": asked("a"), "response": answered("b")}))
    assert (found["stored"], found["vectors"]) == (1, 0)


@pytest.mark.parametrize("url", ["notaurl", "ftp://x.example/v1", "http://"])
def test_an_address_must_be_a_url(directory: Path, url: str) -> None:
    result = invoke("cache", "warm", log(directory.parent, {}), "--base-url", url, code=2)
    assert "--base-url must be an http or https URL" in result.stderr


def test_other_kinds_of_files_are_refused_whole(directory: Path) -> None:
    export = log(directory.parent, '{"format":"llm-proxy-cache","version":1}', "{}")
    assert "llm-proxy cache import FILE" in invoke("cache", "warm", export, code=2).stderr
    file = directory.parent / "calls.jsonl.gz"
    file.write_bytes(b"\x1f\x8b\x08\0")
    result = invoke("cache", "warm", str(file), code=2)
    assert "gunzip -c FILE" in result.stderr


def test_a_fault_names_its_file_among_several(directory: Path) -> None:
    files = [log(directory.parent, "{}", name=name) for name in ("a.jsonl", "b.jsonl")]
    result = invoke("cache", "warm", *files, code=1)
    assert f"({files[1]})" in result.stderr
    assert "calls to https://api.openai.com/v1" in result.stdout
