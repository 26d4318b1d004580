"""What the tests of the command line share: running it, and a directory with entries."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from llm_proxy.cache.build import ENTRIES_NAME
from llm_proxy.cache.entry import Entry, encode_entry
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.config import environment_for_child
from llm_proxy.faces.cli.app import app

__all__ = ["NOW_S", "entry", "invoke", "invoke_json", "seed", "settled", "spawn"]

NOW_S = 1_700_000_000.0


@contextmanager
def settled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A clean environment, and a place for the cache that every user can reach, with nothing made in it yet."""
    for name in environment_for_child({}):
        if name.startswith(("LLM_PROXY_", "OPENAI_", "AZURE_OPENAI_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    monkeypatch.setenv("LLM_PROXY_CACHE_DIRECTORY", str(folder / "cache"))
    monkeypatch.chdir(folder)
    yield folder / "cache"
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


def invoke(*arguments: str, code: int = 0, stdin: str | None = None) -> Any:
    """Run a command in this process; any exception but an exit is raised."""
    result = CliRunner().invoke(app, list(arguments), input=stdin, catch_exceptions=False)
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
    return result


def invoke_json(*arguments: str, code: int = 0) -> Any:
    """The value that a command prints; nothing else may be on stdout."""
    result = invoke(*arguments, "--json", code=code)
    assert result.stdout.count("\n") == 1
    return json.loads(result.stdout)


def spawn(*arguments: str, variables: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start ``python -m llm_proxy`` as its own process."""
    return subprocess.Popen(
        [sys.executable, "-m", "llm_proxy", *arguments],
        env=environment_for_child(variables or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def entry(number: int, text: str = "What is the capital of France?", **changes: Any) -> Entry:
    """An entry whose key begins with its number, four digits."""
    answer = changes.pop("answer", "Paris.")
    message = answer if isinstance(answer, dict) else {"role": "assistant", "content": answer}
    completion = {"object": "chat.completion", "choices": [{"index": 0, "message": message}]}
    vector = np.zeros(4, np.float32)
    vector[number % 4] = 1.0
    facts: dict[str, Any] = {
        "key": f"{number:04d}{'ab' * 30}",
        "scope": "5" * 64,
        "text": text,
        "completion": json.dumps(completion).encode(),
        "created_s": NOW_S + number,
        "model": "gpt-4o-mini",
        "cost_usd": 0.001 * number,
        "latency_s": 0.5,
        "encoder": "fake-4",
        "vector": vector,
    }
    return Entry(**{**facts, **changes})


def seed(directory: Path, *entries: Entry, hits: Mapping[str, int] | None = None) -> None:
    """Write entries into the cache of a directory."""
    store = DiskStore(directory / ENTRIES_NAME)
    for one in entries:
        store.put(one.key, encode_entry(one))
    if hits:
        store.touch(hits)
    store.close()
