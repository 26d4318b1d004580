"""``llm-proxy cache replay``: weak answers that are served often are asked again, within what may be spent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.cache.entry import Entry
from llm_proxy.config import load
from llm_proxy.engine.fingerprint import fingerprint
from llm_proxy.faces._http import httpx
from llm_proxy.faces.cli._replay import Replay
from llm_proxy.observe.totals import bypass_reasons, totals
from llm_proxy.route.select import Selector
from llm_proxy.runtime import LEDGER_NAME, SystemClock, close_all
from llm_proxy.testing import FakeBackend
from llm_proxy.types import Fingerprint
from llm_proxy.wire.chat import parse_request
from tests.faces.cli_kit import entry, invoke, invoke_json, seed, settled
from tests.faces.test_cli_warm import entries
from tests.servers import serving

PRICE = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1000.0}  # a token is a tenth of a cent
POOR, BETTER = "a poor answer", "a better answer it is"
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with settled(monkeypatch) as folder:
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setenv("LLM_PROXY_CACHE_SEMANTIC", "0")
        yield folder
        close_all()


@pytest.fixture
def cloud(directory: Path) -> Iterator[FakeBackend]:
    """A simulated strong model, whose answers have five tokens, and the settings that lead to it."""
    backend = FakeBackend(BETTER)
    with serving(backend) as served:
        lines = [
            "[backends.local]", 'base_url = "http://127.0.0.1:9/v1"',
            "[backends.cloud]", f'base_url = "{served.url}/v1"', 'api_key = "secret"',
            "[backends.cloud.prices.big]", *(f"{name} = {value}" for name, value in PRICE.items()),
            "[routes.auto]", 'candidates = ["local/tiny", "cloud/big"]', "usd_per_good_answer = 0.1",
        ]  # fmt: skip
        Path("llm-proxy.toml").write_text("\n".join(lines) + "\n")
        yield backend


def key_of(body: Mapping[str, Any]) -> str:
    config = load()
    call = parse_request(json.dumps(body).encode(), headers={"authorization": "Bearer k"})
    found = fingerprint(call, destination=Selector(config).resolve(call).identity, settings=config.cache)
    assert isinstance(found, Fingerprint)
    return found.key


def asked(text: str, *before: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [*before, {"role": "user", "content": text}], **fields}


def weak(text: str, *before: Mapping[str, Any], **changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "backend": "local",
        "model": "tiny",
        "answer": POOR,
        "vector": None,
        "encoder": "",
    }
    return replace(entry(1, text, **{**fields, **changes}), key=key_of(asked(text, *before)))


def often(*stored: Entry, hits: int = 1000) -> dict[str, int]:
    return {one.key: hits for one in stored}


def replay(*options: str, code: int = 0) -> Any:
    return invoke_json("cache", "replay", "--rise", "0.5", *options, code=code)


def said(directory: Path) -> dict[str, str]:
    return {one.text: json.loads(one.completion)["choices"][0]["message"]["content"] for one in entries(directory)}


def fresh(one: Entry) -> Entry:
    """As if it were a day old."""
    return replace(one, created_s=SystemClock().time() - 86_400)


def test_what_is_served_often_is_asked_again(directory: Path, cloud: FakeBackend) -> None:
    stored = [fresh(weak(text)) for text in ("popular?", "seldom?", "strong?")]
    stored[2] = replace(stored[2], backend="cloud", model="big")
    seed(directory, *stored, hits={stored[0].key: 50, stored[1].key: 0, stored[2].key: 50})
    found = replay("--budget", "1.0")
    assert (found["weak"], found["planned"], found["asked"], found["replaced"], found["failed"]) == (1, 1, 1, 1, 0)
    assert found["spent_usd"] == pytest.approx(0.005)
    assert said(directory) == {
        "popular?": BETTER,
        "seldom?": POOR,
        "strong?": POOR,
    }
    (body,) = cloud.requests
    assert (body["model"], body["messages"]) == ("big", [{"role": "user", "content": "popular?"}])
    renewed = next(one for one in entries(directory) if one.text == "popular?")
    assert (renewed.backend, renewed.model, renewed.key) == ("cloud", "big", stored[0].key)
    assert replay("--budget", "1.0")["weak"] == 0, "it is no weak one any more"


def test_the_plan_asks_nobody(directory: Path, cloud: FakeBackend) -> None:
    one = fresh(weak("popular?"))
    seed(directory, one, hits=often(one))
    found = replay("--budget", "1.0", "--dry-run")
    (planned,) = found["plan"]
    assert planned["key"] == one.key
    assert planned["gain_usd"] == pytest.approx(1000 * 30 * 0.5 * 0.1, rel=0.01)
    assert planned["cost_usd"] == pytest.approx(0.004), "as many tokens as the answer has"
    assert (found["asked"], cloud.requests) == (0, [])
    shown = invoke("cache", "replay", "--rise", "0.5", "--budget", "1", "--dry-run").stdout
    assert "popular?" in shown
    assert "1 of 1 answers of weaker candidates are worth asking again" in shown
    assert "Asked" not in shown


@pytest.mark.parametrize("budget", [0.0, 0.004, 0.0101, 0.03, 1.0])
def test_the_budget_is_never_exceeded(directory: Path, cloud: FakeBackend, budget: float) -> None:
    stored = [fresh(weak(f"question {number}?")) for number in range(5)]
    seed(directory, *stored, hits=often(*stored))
    found = replay("--budget", str(budget))
    billed = sum(min(5, body["max_tokens"]) for body in cloud.requests) * 0.001
    assert billed <= budget + 1e-9
    assert found["spent_usd"] <= budget + 1e-9 or any(body["max_tokens"] < 5 for body in cloud.requests)
    assert all(body["max_tokens"] * 0.001 <= budget + 1e-9 for body in cloud.requests)
    assert found["asked"] + found["left"] == found["planned"]


def test_the_request_may_be_that_of_a_log(directory: Path, cloud: FakeBackend, tmp_path: Path) -> None:
    one = fresh(weak("brief?", SYSTEM))
    seed(directory, one, hits=often(one))
    assert replay("--budget", "1")["unknown"] == 1
    log = tmp_path / "calls.jsonl"
    log.write_text('no json\n[]\n{"request": {"model": 1}}\n' + json.dumps({"request": asked("brief?", SYSTEM)}) + "\n")
    assert replay("--budget", "1", str(log))["replaced"] == 1
    assert cloud.requests[0]["messages"][0] == SYSTEM
    assert "can't be read" in invoke("cache", "replay", "--budget", "1", "absent", code=1).stderr


def test_how_much_better_answers_get_decides(directory: Path, cloud: FakeBackend) -> None:
    one = fresh(weak("popular?"))
    seed(directory, one, hits=often(one))
    assert replay("--budget", "1", "--dry-run", "--rise", "0.0")["planned"] == 0
    assert replay("--budget", "1", "--dry-run")["planned"] == 1


@pytest.mark.parametrize("status", [500, 400])
def test_an_error_leaves_what_was_there(directory: Path, cloud: FakeBackend, status: int) -> None:
    cloud.status = status
    one = fresh(weak("popular?"))
    seed(directory, one, hits=often(one))
    found = replay("--budget", "1")
    assert (found["asked"], found["replaced"], found["failed"]) == (1, 0, 1)
    assert said(directory) == {"popular?": POOR}


def test_what_it_spends_is_in_the_ledger(directory: Path, cloud: FakeBackend) -> None:
    stored = [fresh(weak(text)) for text in ("one?", "two?")]
    seed(directory, *stored, hits=often(*stored))
    found = replay("--budget", "1.0")
    booked = totals(directory / LEDGER_NAME)
    assert (booked["calls"], booked["bypasses"]) == (2, 2)
    assert bypass_reasons(directory / LEDGER_NAME) == {"replay": 2}
    assert booked["cost_usd"] == pytest.approx(found["spent_usd"])
    assert found["spent_usd"] == pytest.approx(0.01)
    assert replay("--budget", "1.0", "--dry-run")["asked"] == 0
    assert totals(directory / LEDGER_NAME)["calls"] == 2, "the plan asks nobody"


@pytest.mark.parametrize(("failure", "is_billed"), [(httpx.ReadTimeout, True), (httpx.ConnectError, False)])
def test_a_request_whose_answer_is_lost_is_booked_at_its_most(
    directory: Path, cloud: FakeBackend, monkeypatch: pytest.MonkeyPatch, failure: type[Exception], is_billed: bool
) -> None:
    def fail(self: Any, *given: Any, **more: Any) -> None:
        raise failure("gone")

    stored = fresh(weak("one?"))
    seed(directory, stored, hits=often(stored))
    monkeypatch.setattr(httpx.Client, "post", fail)
    found = replay("--budget", "1.0")
    booked = totals(directory / LEDGER_NAME)
    assert (booked["calls"], booked["errors"], found["failed"]) == (1, 1, 1)
    assert booked["cost_usd"] == pytest.approx(found["spent_usd"])
    assert (found["spent_usd"] > 0) is is_billed


def test_one_that_says_the_same_is_told(directory: Path, cloud: FakeBackend) -> None:
    cloud.answer = "A poor answer."
    one = fresh(weak("popular?"))
    seed(directory, one, hits=often(one))
    assert replay("--budget", "1")["same"] == 1
    assert "Asked 0" in invoke("cache", "replay", "--rise", "0.5", "--budget", "1").stdout


def test_an_interrupted_run_loses_nothing(directory: Path, cloud: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = [fresh(weak(f"question {number}?")) for number in range(3)]
    seed(directory, *stored, hits=often(*stored))
    answered = Replay._answered

    def interrupted(self: Replay, ask: Any, answer: Any) -> None:
        answered(self, ask, answer)
        if self._count.replaced == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Replay, "_answered", interrupted)
    found = replay("--budget", "1", code=130)
    assert (found["replaced"], found["left"]) == (2, 1)
    assert list(said(directory).values()).count(BETTER) == 2


@pytest.mark.parametrize(
    ("toml", "words"),
    [("", "no route has a weaker and a stronger candidate"), ("[cache]\nenabled = false\n", "no route")],
)
def test_what_is_missing(directory: Path, toml: str, words: str) -> None:
    Path("llm-proxy.toml").write_text(toml)
    assert words in invoke("cache", "replay", "--budget", "1", code=2).stderr


def test_without_the_key_of_the_calls(cloud: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "--tenant-key-env" in invoke("cache", "replay", "--budget", "1", code=2).stderr
