"""`llm-proxy serve` as a process of its own, in front of the simulated provider."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from llm_proxy.config import environment_for_child
from tests.clients.upstream import SimulatedProvider
from tests.servers import Served, serving

__all__ = ["Running", "running"]


@dataclass(frozen=True)
class Running:
    """A proxy and its upstream."""

    base_url: str
    upstream: Served

    @property
    def calls(self) -> int:
        """Requests that reached the upstream."""
        return len(self.upstream.app.requests)


@contextmanager
def running(folder: Path, provider: SimulatedProvider | None = None) -> Iterator[Running]:
    """Serve with a cache in a folder, exact hits only, and one backend; end it with the block."""
    settings = folder / "llm-proxy.toml"
    with serving(provider or SimulatedProvider()) as upstream:
        settings.write_text(
            f"[cache]\ndirectory = '{folder / 'cache'}'\nsemantic = false\n"
            f'[backends.simulated]\nbase_url = "{upstream.url}/v1"\n'
        )
        command = [sys.executable, "-m", "llm_proxy", "--config", str(settings), "serve", "--port", "0", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment_for_child({}), cwd=folder)
        try:
            assert process.stdout is not None
            yield Running(json.loads(process.stdout.readline())["base_url"], upstream)
        finally:
            process.terminate()
            process.communicate(timeout=30)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One proxy for a module; its cases ask different things."""
    with running(tmp_path_factory.mktemp("proxy")) as started:
        yield started
