"""Imports point one way, the engine is pure, and importing is free."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import llm_proxy

PACKAGE = Path(llm_proxy.__file__).parent

# Each layer sees those above it; parts of one line see each other nowhere but where `BESIDE` says so.
LAYERS = [
    {"_figures"},
    {"_shown"},
    {"holders", "values"},
    {"_spans"},
    {"types", "errors", "forking", "clocks", "__version__"},
    {"shipped"},
    {"settings"},
    {"config"},
    {"cache", "route", "encode", "backends", "draft", "wire", "observe"},
    {"engine"},
    {"pull", "beside", "boarding", "handover", "hold", "mend", "metered", "race", "standing"},
    {"drive", "checks", "drafts", "limits", "backfill", "learning", "logged"},
    {"sinks"},
    {"runtime"},
    {"faces", "testing"},
    {"__init__", "__main__"},
]
BESIDE = {("draft", "wire"), ("route", "encode"), ("route", "backends"), ("testing", "faces"), ("faces", "testing")}
ENGINE_SEES = {
    "backends.base", "backends.delays", "backends.openai_compatible", "backends.retry", "cache.base", "cache.entry",
    "cache.evidence", "cache.near", "cache.turns", "cache.weighed", "config", "draft.confirmed", "draft.examples",
    "draft.goodput", "draft.greedy", "draft.prediction", "draft.template", "encode.base", "errors", "holders",
    "observe.events", "route.base", "route.looks", "types", "values", "wire.apis", "wire.chat", "wire.drafted",
    "wire.failure", "wire.recorder", "wire.replay", "wire.responses", "wire.scored", "wire.splice",
}  # fmt: skip
PURE = {
    "__future__", "collections", "contextlib", "dataclasses", "functools", "hashlib", "json", "math", "numpy", "re",
    "typing", "weakref",
}  # fmt: skip
HEAVY = {
    "numpy",
    "faiss",
    "onnxruntime",
    "tokenizers",
    "genai_prices",
    "sentence_transformers",
    "torch",
    "onnx",
    "sklearn",
}
FACES_ONLY = {"starlette", "uvicorn", "typer", "rich", "diskcache", "IPython", "pandas"}


def imports(path: Path) -> Iterator[str]:
    """Dotted names of what a file imports, wherever in it."""
    package = ["llm_proxy", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    rank = {part: index for index, layer in enumerate(LAYERS) for part in layer}
    for name in imports(path):
        other = name.split(".")[1] if name.startswith("llm_proxy.") else own
        is_down = rank[other] < rank[own]
        assert other == own or is_down or (own, other) in BESIDE, f"{own} must not import {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "engine").glob("*.py")), ids=lambda path: path.name)
def test_the_engine_is_pure(path: Path) -> None:
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "llm_proxy":
            assert parts[0] in PURE, f"{name} may act; the engine only decides"
        elif parts[1] != "engine":
            assert {parts[1], ".".join(parts[1:3])} & ENGINE_SEES, f"{name} is no protocol and no value"
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert [call.id for call in calls if isinstance(call, ast.Name) and call.id in ("open", "print", "input")] == []


SPY = """
import collections, json, os, pkgutil, socket, sys, threading
import openai, httpx, anyio, pydantic, sqlite3, asyncio, concurrent.futures.thread, importlib.metadata  # not ours
try:
    import httpx2
except ImportError:
    pass

found = {"env": [], "acts": []}


class Environment(dict):
    def _note(self, key):
        frame = sys._getframe(2)
        while frame and frame.f_code.co_filename in (os.__file__, collections.abc.__file__):
            frame = frame.f_back
        if frame and os.sep + "llm_proxy" + os.sep in frame.f_code.co_filename:
            found["env"].append(str(key))

    def __getitem__(self, key):
        self._note(key)
        return super().__getitem__(key)

    def get(self, key, default=None):
        self._note(key)
        return super().get(key, default)


def audit(name, args):
    is_write = name == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if is_write or name.split(".")[0] in ("socket", "subprocess", "sqlite3", "urllib"):
        found["acts"].append(f"{name} {args[:2]!r}")


sys.dont_write_bytecode = True
os.environ = Environment(os.environ)
before = set(sys.modules)
sys.addaudithook(audit)
{statements}
found["modules"] = sorted({name.split(".")[0] for name in set(sys.modules) - before})
found["threads"] = threading.active_count()
print(json.dumps(found))
"""
EVERY_NAME = "import llm_proxy\nfor name in llm_proxy.__all__:\n    getattr(llm_proxy, name)"
EVERY_MODULE = """
import llm_proxy
for module in pkgutil.walk_packages(llm_proxy.__path__, "llm_proxy."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
"""


@pytest.mark.parametrize(
    ("statements", "absent"),
    [
        ("import llm_proxy", HEAVY | FACES_ONLY),
        (EVERY_NAME, HEAVY | FACES_ONLY),
        ("import llm_proxy.testing", HEAVY | FACES_ONLY),
        (EVERY_MODULE, HEAVY),
    ],
    ids=["the package", "its names", "testing", "its modules"],
)
def test_importing_is_free(statements: str, absent: set[str], tmp_path: Path) -> None:
    script = SPY.replace("{statements}", statements)
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["env"] == []
    assert found["acts"] == []
    assert found["threads"] == 1
    assert set(found["modules"]) & absent == set()
    assert list(tmp_path.iterdir()) == []


def loaded_by(statements: str) -> set[str]:
    """The modules of ours that a fresh process has loaded after these."""
    script = f"{statements}\nimport sys; print(*(name for name in sys.modules if name.startswith('llm_proxy.')))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return {name.removeprefix("llm_proxy.") for name in ended.stdout.split()}


def test_a_client_is_imported_without_the_engine() -> None:
    loaded = loaded_by("from llm_proxy import AsyncOpenAI, AzureOpenAI, OpenAI, ProxyTransport, feedback, wrap")
    assert "faces.client" in loaded
    assert {name.split(".")[0] for name in loaded} & {"runtime", "config", "drive", "engine", "cache", "route"} == set()


MADE = """
from llm_proxy import OpenAI
client = OpenAI(api_key="k", llm_proxy={{"cache": {{"store": "memory", "semantic": False}}, {more}}})
"""
OPTIONAL = {
    "cache.check", "cache.guard.compare", "cache.index.faiss", "cache.stores.disk", "draft.examples",
    "draft.prediction", "backends.queue", "engine.cascade", "engine.exemplars", "engine.racing", "observe.outcomes",
    "route.answers", "route.explain", "route.fallback", "route.plan", "route.scorer", "route.ways",
}  # fmt: skip


def test_what_settings_do_not_ask_for_is_not_imported() -> None:
    loaded = loaded_by(MADE.format(more=""))
    assert "engine.flow" in loaded
    assert loaded & OPTIONAL == set()
    asked = '"backends": {"a": {"base_url": "http://127.0.0.1:9/v1", "concurrency": 1}},'
    asked += '"routes": {"auto": {"candidates": ["a/small", "a/large"], "cascade": True, "examples": 1}}'
    wanted = {"backends.queue", "draft.examples", "engine.cascade", "route.plan", "route.scorer", "route.ways"}
    assert wanted <= loaded_by(MADE.format(more=asked))


@pytest.mark.skipif(importlib.util.find_spec("httpx2") is None, reason="needs httpx2")
def test_no_half_imported_httpx_is_ever_seen() -> None:
    """A later import, by the price library in a thread, would break the constructors of openai 2 meanwhile."""
    script = "import sys; from llm_proxy import OpenAI; assert sys.modules['httpx2'].AsyncClient"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_names_of_the_package() -> None:
    assert llm_proxy.__all__ == sorted(llm_proxy.__all__)
    assert dir(llm_proxy) == llm_proxy.__all__
    assert all(getattr(llm_proxy, name) is not None for name in llm_proxy.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'unheard_of'"):
        llm_proxy.unheard_of  # noqa: B018
