"""The head that ships: its file, what it says, and who is weak and strong to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import Config
from llm_proxy.encode.onnx import OnnxEncoder
from llm_proxy.errors import MissingDependencyError
from llm_proxy.route import tiers as module
from llm_proxy.route.heads import OnnxHead
from llm_proxy.route.lazy import heads_for
from llm_proxy.route.plan import Route
from llm_proxy.route.tiers import SHIPPED, TIERS, shipped_head, tier_of

MAX_BYTES = 4_000_000
EASY = "What is the capital of France?"
HARD = (
    "Let $a, b, c$ be positive reals with $abc = 1$. Prove that $\\sum \\frac{1}{a^3 (b + c)} \\ge \\frac{3}{2}$, and "
    "find all triples for which equality holds. Then determine the least $k$ such that the sum stays above $k$."
)


def config(tmp_path: Path, *candidates: str, **route: Any) -> Config:
    routes = {"auto": {"candidates": [f"b/{name}" for name in candidates], **route}}
    backends = {"b": {"base_url": "https://b.test/v1"}}
    return Config(backends=backends, routes=routes, cache={"directory": tmp_path})


def test_the_file_is_the_one_that_the_card_describes() -> None:
    folder = shipped_head()
    content, settings = (folder / "model.onnx").read_bytes(), json.loads((folder / "config.json").read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    assert settings["sha256"] == digest
    assert digest in (folder / "card.md").read_text(encoding="utf-8")
    assert len(content) < MAX_BYTES
    assert sorted(settings["trained_on"]) == [
        *("router_arena809", "router_llmrouter9", "router_mmlu_pro", "router_routellm", "router_zeroeval"),
    ]


def test_what_it_says() -> None:
    head, encoder = OnnxHead(shipped_head()), OnnxEncoder()
    assert head.models == TIERS
    assert head.encoder == encoder.name
    found = {text: head.predict(text, encoder.encode(text)) for text in (EASY, HARD, "", "x" * 1_000_000)}
    for said in found.values():
        assert all(0.0 <= said[tier].p_good <= 1.0 and said[tier].completion_tokens is None for tier in TIERS)
        assert said["weak"].p_good <= said["middle"].p_good <= said["strong"].p_good
    easy, hard = found[EASY], found[HARD]
    assert hard["strong"].p_good - hard["weak"].p_good > easy["strong"].p_good - easy["weak"].p_good
    assert hard["weak"].p_good < easy["weak"].p_good


@pytest.mark.parametrize(
    ("candidates", "known_as", "names"),
    [
        (("a", "b"), {}, ("weak", "strong")),
        (("a", "b", "c", "d"), {}, ("weak", "middle", "middle", "strong")),
        (("a", "b", "c"), {"b/b": "weak"}, ("weak", "weak", "strong")),
        (("a", "b"), {"b/b": "nobody"}, ("weak", None)),
    ],
)
def test_who_is_which(tmp_path: Path, candidates: tuple[str, ...], known_as: dict[str, str], names: Any) -> None:
    settings = config(tmp_path, *candidates, known_as=known_as)
    route = Route.of("auto", settings.routes["auto"], settings)
    assert route.names_in(TIERS) == names
    assert route.names_in(("weak", "strong")) == (None,) * len(candidates) or known_as


def test_a_place_is_a_tier() -> None:
    assert [tier_of(place, 3) for place in range(3)] == list(TIERS)


def test_a_route_that_names_it_has_it(tmp_path: Path) -> None:
    heads = heads_for(
        config(tmp_path, "a", "b", head=SHIPPED),
        encoder=OnnxEncoder,
        submit=lambda call: call(),
        note=lambda part, exc: pytest.fail(f"{part}: {exc}"),
        monotonic=lambda: 0.0,
    )
    heads.load()
    head = heads("auto")
    assert head is not None
    assert head.models == TIERS


def test_an_installation_without_it_goes_by_the_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Path:
        raise MissingDependencyError(f"no model {name!r}")

    monkeypatch.setattr(module, "model_folder", absent)
    noted: list[str] = []

    def submit(call: Callable[[], None]) -> None:  # as a pool, which drops what is raised
        with suppress(MissingDependencyError):
            call()

    heads = heads_for(
        config(tmp_path, "a", "b", head=SHIPPED),
        encoder=lambda: None,
        submit=submit,
        note=lambda part, exc: noted.append(f"{part}: {exc}"),
        monotonic=lambda: 0.0,
    )
    heads.start(submit)
    assert heads("auto") is None
    assert noted == ["router: no model 'heads'"]
