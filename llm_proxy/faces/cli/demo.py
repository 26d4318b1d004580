"""``llm-proxy demo``: two hundred questions through the real client, engine, encoder, index and disk store.

With ``OPENAI_API_KEY`` set, or a model server on this machine, it asks that; else a simulated provider, and the first
line of the output says so.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llm_proxy.config import OPENAI_BASE_URL, Config, environment
from llm_proxy.errors import BackendError, ConfigError, LLMProxyError
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeBackend
from llm_proxy.types import Outcome

from .demo_questions import Question, schedule

if TYPE_CHECKING:
    from rich.console import Console

    from llm_proxy.observe.events import CallEvent

__all__ = ["DemoResult", "Provider", "as_json", "choose_provider", "run_demo", "show"]

MODEL = "gpt-4o-mini"
SIMULATED_LATENCY_S = 0.45
_CALLERS = 4
# Short answers, and room for them: one that is cut off at the limit is not stored, and nothing repeats.
_SYSTEM = "Answer in one short sentence."
_MAX_TOKENS = 100
_EXACT_ONLY = (
    'Exact hits only: pip install "llm-proxy[cpu]" adds hits on equivalent questions. llm-proxy doctor says what is '
    "missing."
)


@dataclass(frozen=True, slots=True)
class Provider:
    """Who answers: ``kind`` is ``simulated``, ``openai`` or ``local``."""

    kind: str
    base_url: str
    model: str
    api_key: str

    @property
    def sentence(self) -> str:
        """The first line of the demo."""
        if self.kind == "simulated":
            latency_ms = int(SIMULATED_LATENCY_S * 1000)
            return (
                f"Simulated provider: no model is asked. Prices of {self.model}, {latency_ms} ms an answer (a usual "
                "time for a short answer of it). Set OPENAI_API_KEY or start a local server for real ones."
            )
        return f"Real answers of {self.model} at {self.base_url}."


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo measured; times in milliseconds, money in dollars.

    ``not_stored`` are answers that were cut off, refused or empty; ``traps_refused`` are traps that were asked
    upstream; ``wrong_answers`` are hits on the answer to another question, those of a trap included.
    """

    provider: str
    model: str
    calls: int
    exact_hits: int
    semantic_hits: int
    misses: int
    not_stored: int
    errors: int
    repeats: int
    repeats_served: int
    wordings: int
    wordings_served: int
    traps: int
    traps_refused: int
    wrong_answers: int
    usd_spent: float
    usd_saved: float
    seconds_saved: float
    p50_without_ms: float
    p50_with_ms: float
    mean_without_ms: float
    mean_with_ms: float
    p50_exact_hit_ms: float
    p50_semantic_hit_ms: float
    is_semantic: bool


def choose_provider(kind: str = "auto") -> Provider:
    """The provider to use.

    Args:
        kind: ``auto`` (a key first, then a local server, then the simulation), ``openai``, ``local`` or
            ``simulated``.

    Raises:
        ConfigError: The kind asked for is not there.
    """
    from llm_proxy.backends.discover import discover

    key = environment("OPENAI_API_KEY")
    if kind in {"auto", "openai"} and key:
        return Provider("openai", environment("OPENAI_BASE_URL") or OPENAI_BASE_URL, MODEL, key)
    if kind in {"auto", "local"}:
        for server in discover():
            if server.models:
                return Provider("local", server.base_url, server.models[0], "unused")
    if kind in {"auto", "simulated"}:
        return Provider("simulated", "", MODEL, "simulated")
    raise ConfigError(f"no {kind} provider: set OPENAI_API_KEY, start a local server, or use --provider simulated")


def run_demo(provider: Provider, console: Console) -> DemoResult:
    """Ask all questions and measure; the cache is a fresh disk store in a temporary directory.

    Raises:
        BackendError: The provider answered none of the first questions.
    """
    events: list[CallEvent] = []
    questions = schedule()
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-proxy-demo-"))
        if provider.kind == "simulated":
            base_url = stack.enter_context(_simulated_provider())
            provider = Provider("simulated", base_url, provider.model, provider.api_key)
        runtime = Runtime(_config(provider, directory), sinks=(events.append,))
        stack.callback(runtime.close)
        runtime.start()
        is_semantic = _has_encoder(runtime, console)
        rows = _ask_all(questions, provider, runtime, console)
    return _result(provider, rows, events, is_semantic=is_semantic)


def show(result: DemoResult, console: Console) -> None:
    """Print the table a person reads."""
    from rich.table import Table

    table = Table(title=f"{result.calls} calls, {result.provider} provider, {result.model}", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in _lines(result):
        table.add_row(name, value)
    console.print(table)
    if not result.is_semantic:
        console.print(_EXACT_ONLY, markup=False, soft_wrap=True)


def _lines(result: DemoResult) -> Iterator[tuple[str, str]]:
    yield "exact hits", f"{result.exact_hits} (of {result.repeats} repeated questions)"
    yield "semantic hits", f"{result.semantic_hits} ({result.wordings_served} of {result.wordings} other wordings)"
    yield "traps refused", f"{result.traps_refused} of {result.traps}"
    yield "wrong answers", f"{result.wrong_answers}"
    yield "asked upstream", f"{result.misses}"
    if result.not_stored:
        yield "not stored", f"{result.not_stored} (cut off, refused or empty)"
    if result.errors:
        yield "errors", f"{result.errors}"
    without_usd = result.usd_spent + result.usd_saved
    if without_usd:
        share = result.usd_saved / without_usd
        yield "money", f"${result.usd_spent:.6f} spent, ${result.usd_saved:.6f} saved ({share:.0%})"
    yield "time saved", f"{result.seconds_saved:.1f} s"
    yield "without", f"p50 {result.p50_without_ms:.0f} ms, mean {result.mean_without_ms:.0f} ms"
    yield "with", f"p50 {result.p50_with_ms:.0f} ms, mean {result.mean_with_ms:.0f} ms"
    semantic = f", {result.p50_semantic_hit_ms:.1f} ms semantic" if result.semantic_hits else ""
    yield "p50 of a hit", f"{result.p50_exact_hit_ms:.1f} ms exact{semantic}"


def _config(provider: Provider, directory: str) -> Config:
    backend: dict[str, Any] = {"base_url": provider.base_url, "auth": "caller", "models": [provider.model]}
    if provider.kind == "simulated":
        backend["prices"] = {provider.model: _list_prices(provider.model)}
    return Config(cache={"directory": directory}, backends={"demo": backend})


def _list_prices(model: str) -> Mapping[str, float]:
    from llm_proxy.backends.prices import Prices
    from llm_proxy.types import Usage

    prices, million = Prices({}), 1_000_000
    return {
        "input_usd_per_mtok": prices.cost_usd(Usage(million, 0), model=model, base_url=OPENAI_BASE_URL) or 0.0,
        "output_usd_per_mtok": prices.cost_usd(Usage(0, million), model=model, base_url=OPENAI_BASE_URL) or 0.0,
    }


def _simulated_provider() -> AbstractContextManager[str]:
    """The simulated provider on a free loopback port; gives its base URL."""

    def answer(body: Mapping[str, Any]) -> str:
        return f"(simulated) Here is what you should know about this: {body['messages'][-1]['content']}"

    return FakeBackend(answer, latency_s=SIMULATED_LATENCY_S).serving()


def _has_encoder(runtime: Runtime, console: Console) -> bool:
    """Whether equivalent questions can be found; waits until the encoder has loaded, or has failed to."""
    if runtime.encoder is None:
        return False
    with console.status("loading the encoder"):
        try:
            runtime.encoder.encode("ready?")
        except LLMProxyError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Row:
    """One question asked: what became of it, or why nothing did."""

    question: Question
    seconds: float
    outcome: Outcome | None
    error: str = ""

    @property
    def is_hit(self) -> bool:
        return self.outcome is not None and self.outcome.status == "hit"

    @property
    def is_miss(self) -> bool:
        return self.outcome is not None and self.outcome.status == "miss"


def _ask_all(questions: list[Question], provider: Provider, runtime: Runtime, console: Console) -> list[_Row]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from llm_proxy.faces.client import OpenAI

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    client = OpenAI(api_key=provider.api_key, base_url=provider.base_url, llm_proxy=runtime, max_retries=1)
    firsts = [question for question in questions if question.kind == "first"]
    rows: list[_Row] = []
    with client, Progress(*columns, console=console) as progress, ThreadPoolExecutor(_CALLERS) as pool:
        task = progress.add_task("asking", total=len(questions))
        # All first questions are answered before any other is asked: the schedule promises what can be a hit.
        for part in (firsts, questions[len(firsts) :]):
            for row in pool.map(lambda question: _ask(client, provider.model, question), part):
                rows.append(row)
                progress.advance(task)
            if not any(row.outcome for row in rows):
                raise BackendError(f"{provider.model} at {provider.base_url} answered nothing: {rows[0].error}")
    return rows


def _ask(client: Any, model: str, question: Question) -> _Row:
    import openai

    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question.text}]
    started = time.perf_counter()
    try:
        raw = client.chat.completions.with_raw_response.create(
            model=model, messages=messages, temperature=0, max_tokens=_MAX_TOKENS
        )
        raw.parse()
    except openai.OpenAIError as exc:
        return _Row(question, time.perf_counter() - started, None, f"{type(exc).__name__}: {exc}")
    return _Row(question, time.perf_counter() - started, raw.http_response.extensions["llm_proxy"])


def _result(provider: Provider, rows: list[_Row], events: list[CallEvent], *, is_semantic: bool) -> DemoResult:
    outcomes = [row.outcome for row in rows if row.outcome is not None]
    kinds = Counter(row.question.kind for row in rows)
    served = Counter(row.question.kind for row in rows if row.is_hit)

    def times_ms(*, status: str = "", kind: str = "") -> list[float]:
        times = [
            1000 * row.seconds
            for row in rows
            if row.outcome is not None and status in ("", row.outcome.status) and kind in ("", row.outcome.kind)
        ]
        return times or [0.0]

    return DemoResult(
        provider=provider.kind,
        model=provider.model,
        calls=len(rows),
        exact_hits=sum(outcome.kind == "exact" for outcome in outcomes),
        semantic_hits=sum(outcome.kind == "semantic" for outcome in outcomes),
        misses=sum(row.is_miss for row in rows),
        not_stored=sum(row.is_miss and not row.outcome.is_stored for row in rows if row.outcome is not None),
        errors=len(rows) - len(outcomes),
        repeats=kinds["repeat"],
        repeats_served=served["repeat"],
        wordings=kinds["wording"],
        wordings_served=served["wording"],
        traps=kinds["trap"],
        traps_refused=sum(row.question.kind == "trap" and row.is_miss for row in rows),
        wrong_answers=_wrong_answers(rows),
        usd_spent=sum(outcome.cost_usd or 0.0 for outcome in outcomes),
        usd_saved=sum(outcome.saved_usd for outcome in outcomes),
        seconds_saved=sum(event.saved_s for event in events),
        p50_without_ms=statistics.median(times_ms(status="miss")),
        p50_with_ms=statistics.median(times_ms()),
        mean_without_ms=statistics.fmean(times_ms(status="miss")),
        mean_with_ms=statistics.fmean(times_ms()),
        p50_exact_hit_ms=statistics.median(times_ms(kind="exact")),
        p50_semantic_hit_ms=statistics.median(times_ms(kind="semantic")),
        is_semantic=is_semantic,
    )


def _wrong_answers(rows: list[_Row]) -> int:
    """Hits on an entry that no question of the same meaning wrote."""
    own: dict[int, set[str]] = {}
    for row in rows:
        if row.is_miss and row.outcome is not None and row.question.kind != "trap":
            own.setdefault(row.question.family, set()).add(row.outcome.key)
    return sum(
        row.question.kind == "trap" or row.outcome.key not in own.get(row.question.family, ())
        for row in rows
        if row.outcome is not None and row.is_hit
    )


def as_json(result: DemoResult) -> dict[str, Any]:
    """The result as plain data."""
    return asdict(result)
