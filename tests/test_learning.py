"""From calls to a better router: feedback, comparisons, `llm-proxy route train`, and what a running proxy gains."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from typer.testing import CliRunner

from llm_proxy import AsyncOpenAI, OpenAI
from llm_proxy.config import Config
from llm_proxy.faces.cli.app import app
from llm_proxy.learning import OUTCOMES_NAME, outcomes_path
from llm_proxy.observe.outcome_rows import calls_of, standings
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeBackend, FakeEncoder
from tests.faces.asgi_kit import until
from tests.learning_kit import DATA, Learns, Right, generated, learning, published
from tests.servers import serving

CALLS, ASKED_AGAIN = 340, 120
PAIR = ("gpt-4o-mini-2024-07-18", "o1-mini-2024-09-12")


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_proxy.faces.feedback.WAIT_S", 30.0)


def toml(table: Mapping[str, Any], above: str = "") -> str:
    """Settings as a file."""
    plain = [f"{name} = {json.dumps(value)}" for name, value in table.items() if not isinstance(value, Mapping)]
    nested = [(name, value) for name, value in table.items() if isinstance(value, Mapping)]
    return "\n".join([*plain, *(f"[{above}{name}]\n{toml(value, f'{above}{name}.')}" for name, value in nested), ""])


def command(folder: Path, *words: str) -> str:
    settings = folder / "llm-proxy.toml"
    settings.write_text(toml(json.loads((folder / "cache.json").read_text())))
    result = CliRunner().invoke(app, ["--config", str(settings), *words])
    assert result.exit_code == 0, result.output
    return result.output


def used(proxy: Learns, questions: Sequence[Right], *, share: float) -> None:
    """Ask, and say of a share of the answers how good they were: some by a header, some by a request."""
    draw, said = random.Random(7), {}
    for one in questions:
        answer = proxy.ask(one.prompt, **said)
        assert answer.headers.get("x-llm-proxy-feedback", "noted") == "noted"
        said = {}
        if draw.random() < share:
            good = one.strong if answer.headers["x-llm-proxy-backend"] == "strong" else one.weak
            call_id = answer.headers["x-llm-proxy-id"]
            if draw.random() < 0.5:
                said = {"x-llm-proxy-feedback": f"{call_id}; {'good' if good else 'bad'}"}
            else:
                assert proxy.tell(call_id, good).status_code == 200
        proxy.until_idle()
    proxy.until_compared()


def lift(measured: tuple[float, float], questions: Sequence[Right]) -> float:
    """How much more is right than if as many calls were sent to the strong model by chance."""
    right, strong = measured
    weak = sum(one.weak for one in questions) / len(questions)
    best = sum(one.strong for one in questions) / len(questions)
    return right - (weak + strong * (best - weak))


def learnt(folder: Path, questions: Sequence[Right], asked_again: Sequence[Right], **route: Any) -> tuple[Any, Any]:
    """What a proxy gets right, and the share of its calls to the strong model: by the rules, and once it has learnt."""
    table = [*questions, *asked_again]
    with learning(folder / "cache", table, compare_share=1.0, compare_usd_per_day=1e6, **route) as proxy:
        used(proxy, questions, share=0.4)
        by_rules = proxy.measured(asked_again)
        assert "Enough" in command(folder, "route", "outcomes")
        assert "Installed in" in command(folder, "route", "train")
        proxy.until_it_uses_the_head()
        by_head = proxy.measured(asked_again)
        assert not proxy.runtime.troubles.counts
    assert "questions" in command(folder, "route", "calibrate", "--quality-of-best", "0.9", "--from-log")
    return by_rules, by_head


@pytest.mark.timeout(600)  # half a minute of its own
def test_a_running_proxy_routes_better_by_what_it_learnt(tmp_path: Path) -> None:
    questions = generated(CALLS + ASKED_AGAIN)
    by_rules, by_head = learnt(tmp_path, questions[:CALLS], questions[CALLS:], quality=0.6)
    path = outcomes_path(Config(cache={"directory": tmp_path / "cache"}))
    assert path is not None
    assert sum(row[3] for row in calls_of(path)) == CALLS, "what was measured left nothing behind"
    assert {one.source for one in standings(path)} == {"feedback", "comparison"}
    asked = questions[CALLS:]
    assert by_head[0] > by_rules[0] + 0.15, (by_rules, by_head)
    assert lift(by_head, asked) > lift(by_rules, asked) + 0.1, (by_rules, by_head)
    assert by_head[1] < 0.8, "not by asking the strong model everything"


@pytest.mark.timeout(600)
@pytest.mark.skipif(not (DATA / "router_zeroeval").is_dir(), reason="the published outcomes are not here")
def test_with_published_questions(tmp_path: Path) -> None:
    questions = published(DATA / "router_zeroeval", *PAIR)[:800]
    by_rules, by_head = learnt(tmp_path, questions[:550], questions[550:], quality=0.85)
    assert lift(by_head, questions[550:]) > lift(by_rules, questions[550:]) + 0.01, (by_rules, by_head)
    assert by_head[0] > by_rules[0] + 0.05, (by_rules, by_head)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_client_compares_beside_its_calls(tmp_path: Path, is_async: bool) -> None:
    """What is asked once an answer has settled goes where the call itself went."""
    prices = {name: {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0} for name in ("small", "large")}
    with serving(FakeBackend("far")) as provider:
        settings = Config(
            cache={"directory": tmp_path},
            backends={"b": {"base_url": f"{provider.url}/v1", "prices": prices}},
            routes={"auto": {"candidates": ["b/small", "b/large"], "compare_share": 1.0}},
        )
        runtime = Runtime(settings, encoder=FakeEncoder())
        options: Any = {"api_key": "k", "base_url": "http://127.0.0.1:1/v1", "llm_proxy": runtime}
        asked: Any = {"model": "auto", "messages": [{"role": "user", "content": "how far?"}]}
        path = tmp_path / OUTCOMES_NAME

        def is_compared() -> bool:
            runtime.learning._log.drain()  # type: ignore[union-attr]
            return len(standings(path)) == 2

        async def ask() -> None:
            async with AsyncOpenAI(**options) as client:
                await client.chat.completions.create(**asked)
                await anyio.to_thread.run_sync(until, is_compared, 60)

        if is_async:
            anyio.run(ask)
        else:
            OpenAI(**options).chat.completions.create(**asked)
            until(is_compared, 60)
        runtime.close()
        assert [request["model"] for request in provider.app.requests] == ["small", "large"]
        assert not runtime.troubles.counts
