"""``llm-proxy demo``: what it asks, whom, and that what it says of the cache is so."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from llm_proxy.backends import discover
from llm_proxy.cache.guard import Guard, Judgement
from llm_proxy.config import EncoderConfig
from llm_proxy.errors import BackendError, CacheError, ConfigError
from llm_proxy.faces.cli import demo
from llm_proxy.faces.cli.app import app
from llm_proxy.faces.cli.demo import DemoResult, Provider, as_json, choose_provider, run_demo, show
from llm_proxy.faces.cli.demo_questions import FAMILIES, schedule
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeBackend
from tests.servers import serving

SIMULATED = Provider("simulated", "", "gpt-4o-mini", "simulated")
PATIENT = EncoderConfig(wait_s=60)


class ModelServer:
    """A simulated local server: a list of models beside the answers."""

    def __init__(self, *models: str) -> None:
        self.answers = FakeBackend()
        self.models = models

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/v1/chat/completions":
            await self.answers(scope, receive, send)
            return
        found = scope["path"] == "/v1/models"
        body = json.dumps(
            {"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]}
        ).encode()
        await send({"type": "http.response.start", "status": 200 if found else 404, "headers": []})
        await send({"type": "http.response.body", "body": body if found else b"{}"})


def look_at(monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    """Make discovery look at these servers only."""
    ports = {int(url.rpartition(":")[2]): "Ollama" for url in urls}
    monkeypatch.setattr(discover, "discover", partial(discover.discover, ports))


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


class TestQuestions:
    def test_two_hundred_and_each_of_its_kind(self) -> None:
        counts = Counter(question.kind for question in schedule())
        wordings = sum(len(family.wordings) for family in FAMILIES)
        assert counts["first"] == counts["trap"] == len(FAMILIES)
        assert counts["wording"] == wordings
        assert counts["repeat"] >= 50
        assert counts.total() == 200

    def test_first_ones_come_first(self) -> None:
        kinds = [question.kind for question in schedule()]
        assert set(kinds[: len(FAMILIES)]) == {"first"}
        assert "first" not in kinds[len(FAMILIES) :]

    def test_no_text_is_of_two_kinds(self) -> None:
        texts = [question.text for question in schedule() if question.kind != "repeat"]
        assert len(set(texts)) == len(texts)
        assert {question.text for question in schedule() if question.kind == "repeat"} <= set(texts)

    def test_families(self) -> None:
        for question in schedule():
            family = FAMILIES[question.family]
            expected = {"wording": family.wordings, "trap": (family.trap,)}.get(question.kind, (family.question,))
            assert question.text in expected

    def test_the_seed_decides(self) -> None:
        assert schedule() == schedule(0) != schedule(1)


class TestProvider:
    def test_a_key_comes_first_and_nothing_is_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving(ModelServer("m")) as local:
            look_at(monkeypatch, local.url)
            monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
            assert choose_provider() == Provider("openai", "https://api.openai.com/v1", "gpt-4o-mini", "sk-1")
            monkeypatch.setenv("OPENAI_BASE_URL", f"{local.url}/v1")
            assert choose_provider("openai").base_url == f"{local.url}/v1"
            assert local.app.answers.requests == []

    def test_then_a_local_server_with_a_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with serving(ModelServer()) as empty, serving(ModelServer("llama3.2", "other")) as local:
            look_at(monkeypatch, empty.url, local.url)
            expected = Provider("local", f"{local.url}/v1", "llama3.2", "unused")
            assert choose_provider() == choose_provider("local") == expected
            assert expected.sentence == f"Real answers of llama3.2 at {local.url}/v1."
            monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
            assert choose_provider("local") == expected

    def test_else_the_simulation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        look_at(monkeypatch)
        assert choose_provider() == choose_provider("simulated") == SIMULATED
        assert SIMULATED.sentence.startswith("Simulated provider: no model is asked. Prices of gpt-4o-mini, 450 ms")

    @pytest.mark.parametrize("kind", ["openai", "local"])
    def test_what_was_asked_for_is_not_there(self, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        look_at(monkeypatch)
        with pytest.raises(ConfigError, match=f"no {kind} provider: set OPENAI_API_KEY"):
            choose_provider(kind)


@pytest.fixture(scope="module")
def result() -> DemoResult:
    settings = demo._config
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SIMULATED_LATENCY_S", 0.0)
        # What is served must not depend on how busy the machine is: a vector that comes late is a miss.
        patch.setattr(demo, "_config", lambda *args: settings(*args).model_copy(update={"encoder": PATIENT}))
        return run_demo(SIMULATED, quiet())


class TestRun:
    """The whole of it, with the shipped encoder; the simulated provider answers at once."""

    def test_repeats_are_served_and_traps_are_not(self, result: DemoResult) -> None:
        assert result.is_semantic
        assert (result.calls, result.errors, result.not_stored) == (200, 0, 0)
        assert result.repeats_served == result.repeats == result.exact_hits
        assert result.traps_refused == result.traps == len(FAMILIES)
        assert result.wrong_answers == 0

    def test_other_wordings_are_served(self, result: DemoResult) -> None:
        assert result.semantic_hits == result.wordings_served
        assert 0.8 * result.wordings <= result.wordings_served <= result.wordings

    def test_it_adds_up(self, result: DemoResult) -> None:
        assert result.exact_hits + result.semantic_hits + result.misses == result.calls
        assert result.misses == len(FAMILIES) + result.traps_refused + result.wordings - result.wordings_served
        per_call = (result.usd_spent + result.usd_saved) / result.calls
        assert 0.000005 < per_call < 0.00005, "prices of gpt-4o-mini, some tens of tokens"
        assert 0.3 < result.usd_saved / (result.usd_spent + result.usd_saved) < 0.7
        assert result.seconds_saved >= 0
        for time_ms in (
            result.p50_without_ms,
            result.mean_with_ms,
            result.p50_exact_hit_ms,
            result.p50_semantic_hit_ms,
        ):
            assert time_ms > 0

    def test_what_is_shown(self, result: DemoResult) -> None:
        screen = quiet()
        show(result, screen)
        said = screen.file.getvalue()  # type: ignore[attr-defined]
        assert "200 calls, simulated provider, gpt-4o-mini" in said
        assert f"{result.exact_hits} (of {result.repeats} repeated questions)" in said
        assert f"{result.traps} of {result.traps}" in said
        assert f"${result.usd_saved:.6f} saved" in said
        assert "pip install" not in said
        for absent in ("errors", "not stored"):
            assert absent not in said

    def test_as_data(self, result: DemoResult) -> None:
        assert as_json(result)["traps_refused"] == result.traps
        assert DemoResult(**json.loads(json.dumps(as_json(result)))) == result


class TestTrouble:
    def run(self, backend: FakeBackend | None = None) -> tuple[DemoResult, FakeBackend]:
        backend = backend or FakeBackend()
        with serving(backend) as served:
            return run_demo(Provider("local", f"{served.url}/v1", "tiny", "unused"), quiet()), backend

    @pytest.fixture(autouse=True)
    def _few_questions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        every = schedule()
        few = [question for question in every if question.family < 3]
        monkeypatch.setattr(demo, "schedule", lambda: few)

    def test_a_provider_that_answers_nothing(self) -> None:
        with pytest.raises(BackendError, match=r"tiny at http.* answered nothing: AuthenticationError: .*401"):
            self.run(FakeBackend(status=401))

    def test_answers_that_are_cut_off(self) -> None:
        def cut(body: Mapping[str, Any]) -> Mapping[str, Any]:
            message = {"role": "assistant", "content": "Well, first"}
            choice = {"index": 0, "message": message, "finish_reason": "length"}
            return {"id": "c", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice]}

        result, _ = self.run(FakeBackend(cut))
        assert result.not_stored == result.misses == result.calls
        assert result.traps_refused == 3
        assert f"{result.calls} (cut off, refused or empty)" in self.shown(result)

    def test_errors_are_no_refusals(self) -> None:
        class FailsAtTraps(FakeBackend):
            def respond(self, raw: bytes) -> tuple[int, dict[str, str], list[bytes]]:
                is_trap = json.loads(raw)["messages"][-1]["content"] in {family.trap for family in FAMILIES}
                return (400, {"content-type": "application/json"}, [b"{}"]) if is_trap else super().respond(raw)

        result, _ = self.run(FailsAtTraps())
        assert (result.traps, result.errors, result.traps_refused, result.wrong_answers) == (3, 3, 0, 0)
        assert re.search(r"errors\W+3\W", self.shown(result))

    def test_a_free_model_has_no_money_row(self) -> None:
        result, backend = self.run()
        assert (result.usd_spent, result.usd_saved, result.provider, result.model) == (0, 0, "local", "tiny")
        assert "money" not in self.shown(result)
        assert {body["model"] for body in backend.requests} == {"tiny"}
        assert len(backend.requests) == result.misses

    def test_an_answer_to_another_question_is_wrong(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Guard, "judge", lambda *pair: Judgement("", 1.0))
        monkeypatch.setattr(demo, "_config", partial(self.lax, demo._config))
        result, _ = self.run()
        assert result.wrong_answers >= result.traps - result.traps_refused > 0

    def lax(self, made: Any, provider: Provider, directory: str) -> Any:
        config = made(provider, directory)
        return config.model_copy(update={"cache": config.cache.model_copy(update={"threshold": 0.0})})

    @pytest.mark.parametrize("has_extras", [True, False])
    def test_exact_hits_only(self, monkeypatch: pytest.MonkeyPatch, has_extras: bool) -> None:
        class Broken:
            is_open, is_ready = False, False

            def __getattr__(self, name: str) -> Any:
                return lambda *_: None

            def encode(self, text: str) -> Any:
                raise CacheError("damaged")

        monkeypatch.setattr(Runtime, "_open_encoder", lambda self: Broken() if has_extras else None)
        result, _ = self.run()
        assert (result.is_semantic, result.semantic_hits) == (False, 0)
        assert result.repeats_served == result.repeats > 0
        said = self.shown(result)
        assert 'pip install "llm-proxy[cpu]" adds hits on equivalent questions' in said
        assert "ms semantic" not in said

    def shown(self, result: DemoResult) -> str:
        screen = quiet()
        show(result, screen)
        return str(screen.file.getvalue())  # type: ignore[attr-defined]


class TestCommand:
    @pytest.fixture(autouse=True)
    def _fast(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(demo, "SIMULATED_LATENCY_S", 0.0)
        look_at(monkeypatch)
        few = [question for question in schedule() if question.family < 4]
        monkeypatch.setattr(demo, "schedule", lambda: few)

    def test_the_first_line_says_that_it_is_simulated(self) -> None:
        result = CliRunner().invoke(app, ["demo"], catch_exceptions=False)
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert lines[0].startswith("Simulated provider: no model is asked.")
        assert "traps refused" in result.stdout

    def test_json(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(app, ["demo", "--provider", "simulated", "--json"], catch_exceptions=False)
        assert result.exit_code == 0
        assert result.stdout.count("\n") == 1
        figures = json.loads(result.stdout)
        assert (figures["provider"], figures["traps_refused"], figures["errors"]) == ("simulated", 4, 0)
        assert result.stderr.startswith("Simulated provider")
        assert not (tmp_path / "cache-home").exists(), "the user's own cache is left alone"

    def test_no_such_provider(self) -> None:
        result = CliRunner().invoke(app, ["demo", "--provider", "openai"], catch_exceptions=False)
        assert result.exit_code == 2
        assert "no openai provider" in result.stderr
