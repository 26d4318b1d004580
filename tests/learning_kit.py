"""A proxy that learns: two providers whose answers are right or wrong as a table says, and callers who say so."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_proxy.clocks import SystemClock
from llm_proxy.config import Config
from llm_proxy.faces._http import httpx
from llm_proxy.faces.asgi import ProxyApp
from llm_proxy.faces.serve import server_config
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeBackend
from tests.faces.asgi_kit import running, until
from tests.servers import serving

__all__ = ["DATA", "Learns", "MovedClock", "Right", "generated", "learning", "published"]

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
WEAK, STRONG = "weak/small", "strong/large"
PRICES = {"small": (0.5, 0.5), "large": (5.0, 5.0)}


@dataclass(frozen=True)
class Right:
    """A question, and whether each model answers it rightly."""

    prompt: str
    weak: bool
    strong: bool


class MovedClock(SystemClock):
    """The machine's clocks, moved ahead."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


@dataclass
class Learns:
    """A running proxy with two providers."""

    http: Any
    runtime: Runtime
    clock: MovedClock
    table: Mapping[str, Right]

    def ask(self, prompt: str, **headers: str) -> Any:
        body = {"model": "auto", "messages": [{"role": "user", "content": prompt}]}
        head = {"authorization": "Bearer sk-caller", **headers}
        answer = self.http.post("/v1/chat/completions", json=body, headers=head)
        assert answer.status_code == 200, answer.text
        return answer

    def tell(self, call_id: str, good: object, key: str = "sk-caller") -> Any:
        head = {"authorization": f"Bearer {key}"}
        return self.http.post("/llm-proxy/feedback", json={"id": call_id, "good": good}, headers=head)

    def until_idle(self) -> None:
        """Wait until nothing is under way beside calls: how many may be at once is bounded, and others are left out."""
        way = self.runtime.learning.learner._ways["auto"]
        until(lambda: way.allowance._under_way == 0, 60)

    def until_compared(self) -> None:
        """Wait until nothing is under way beside calls, and all is written."""
        self.until_idle()
        assert self.runtime.learning._log is not None
        self.runtime.learning._log.flush()

    def until_it_uses_the_head(self) -> None:
        """Wait until a call is decided by a head: the proxy looks for a first one after half a minute."""
        self.clock.ahead_s += 60.0
        question = next(iter(self.table))

        def is_used() -> bool:
            self.ask(question, **{"cache-control": "no-store"})
            return self.runtime.selector.wants_vector("auto")

        until(is_used, 60)

    def measured(self, questions: Sequence[Right]) -> tuple[float, float]:
        """The share of right answers, and of calls to the strong model."""
        right = strong = 0
        for one in questions:
            answer = self.ask(one.prompt, **{"cache-control": "no-store"})  # nothing is kept, and none is a hit
            is_strong = answer.headers["x-llm-proxy-backend"] == "strong"
            strong += is_strong
            right += one.strong if is_strong else one.weak
        return right / len(questions), strong / len(questions)


@contextmanager
def learning(directory: Path, questions: Sequence[Right], **route: Any) -> Iterator[Learns]:
    """A proxy before a weak and a strong provider, on real sockets, with the shipped encoder."""
    table = {one.prompt: one for one in questions}

    def provider(name: str) -> FakeBackend:
        def said(body: Mapping[str, Any]) -> str:
            one = table[body["messages"][-1]["content"]]
            truth = hashlib.sha256(one.prompt.encode()).hexdigest()[:6]
            return f"It is {truth}." if getattr(one, name) else f"It is {name} {len(one.prompt)}."

        return FakeBackend(said)

    with serving(provider("weak")) as weak, serving(provider("strong")) as strong:
        backends = {
            name: {
                "base_url": f"{served.url}/v1",
                "prices": {model: {"input_usd_per_mtok": PRICES[model][0], "output_usd_per_mtok": PRICES[model][1]}},
            }
            for name, model, served in (("weak", "small", weak), ("strong", "large", strong))
        }
        settings = {
            "cache": {"directory": str(directory), "check_usd_per_day": 0.0},
            "encoder": {"wait_s": 30.0},
            "backends": backends,
            "routes": {"auto": {"candidates": [WEAK, STRONG], **route}},
        }
        (directory.parent / f"{directory.name}.json").write_text(json.dumps(settings))
        clock = MovedClock()
        runtime = Runtime(server_config(Config(**settings)), clock=clock)
        with running(ProxyApp(runtime)) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            assert runtime.encoder is not None
            runtime.encoder.encode("loaded")
            yield Learns(http, runtime, clock, table)


def generated(count: int, seed: int = 0) -> list[Right]:
    """Questions of which the rules can't tell what is hard: long and short ones of kinds that are, and that are not."""
    draw = random.Random(seed)
    names = ("Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana")
    found: dict[str, Right] = {}
    while len(found) < count:
        one, other, number = draw.choice(names), draw.choice(names), draw.randrange(10_000)
        is_hard, is_long = draw.random() < 0.5, draw.random() < 0.4
        if is_hard:
            asked = f"Which remainder does the number {number} leave modulo {draw.randrange(90) + 7}?"
        else:
            asked = f"Write a warm birthday greeting from {one} to {other}, who turns {number % 90}."
        told = f"{one} met {other} at the market, and they spoke about the weather and the price of apples. "
        prompt = told * (draw.randrange(18, 26) if is_long else draw.randrange(2)) + asked
        found[prompt] = Right(prompt, draw.random() < (0.1 if is_hard else 0.95), draw.random() < 0.97)
    return list(found.values())


def published(folder: Path, weak: str, strong: str) -> list[Right]:
    """Real questions and outcomes, in an order of no meaning."""
    models = json.loads((folder / "models.json").read_text())["models"]
    places = [models.index(name) for name in (weak, strong)]
    found = {}
    with gzip.open(folder / "rows.jsonl.gz", "rt") as lines:
        for line in lines:
            row = json.loads(line)
            scores = [row["score"][place] for place in places]
            if None not in scores:
                found[row["prompt"]] = Right(row["prompt"], *(score >= 0.5 for score in scores))
    return sorted(found.values(), key=lambda one: hashlib.sha256(one.prompt.encode()).digest())
