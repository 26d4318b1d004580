"""Every example runs, against a simulated provider, and says what its first lines promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from llm_proxy.config import load
from llm_proxy.testing import FakeBackend

from .servers import Served, serving

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def provider() -> Iterator[Served]:
    with serving(FakeBackend(latency_s=0.2)) as served:
        yield served


def run(command: list[str], tmp_path: Path, **variables: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "OPENAI_API_KEY": "any",
        **variables,
    }
    ended = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def example(name: str, provider: Served, tmp_path: Path) -> str:
    return run([sys.executable, str(EXAMPLES / name)], tmp_path, OPENAI_BASE_URL=f"{provider.url}/v1")


def test_swap(provider: Served, tmp_path: Path) -> None:
    output = example("swap.py", provider, tmp_path)
    assert re.search(r"first: .*\n  miss .*\nagain: .*\n  hit exact in", output)
    assert len(provider.app.requests) == 1


def test_streaming(provider: Served, tmp_path: Path) -> None:
    output = example("streaming.py", provider, tmp_path)
    assert "first: This is a simulated answer." in output
    assert output.count('llm-proxy; hit; detail="exact"') == 2
    assert len(provider.app.requests) == 1


def test_async_client_shares_one_call(provider: Served, tmp_path: Path) -> None:
    output = example("async_client.py", provider, tmp_path)
    assert output.count("caller ") == 10
    assert output.count("collapsed") + output.count("hit") == 9
    assert len(provider.app.requests) == 1


@pytest.mark.skipif(find_spec("sklearn") is None or find_spec("onnx") is None, reason="needs the extra train")
def test_train_router(tmp_path: Path) -> None:
    output = run([sys.executable, str(EXAMPLES / "train_router.py")], tmp_path)
    assert "The head beats the length of the prompt and chance" in output
    small, large = (
        [float(p) for p in re.findall(rf"{model}: good with (0\.\d+)", output)] for model in ("small", "large")
    )
    assert small[0] > 0.8
    assert small[1] < 0.4
    assert min(large) > 0.8


@pytest.mark.skipif(find_spec("langchain_openai") is None, reason="langchain-openai is not installed here")
def test_langchain(provider: Served, tmp_path: Path) -> None:
    output = example("langchain_http_client.py", provider, tmp_path)
    assert re.search(r"first: .*fwd=uri-miss.*\nagain: .*hit; detail=\"exact\"", output)
    assert len(provider.app.requests) == 1


def test_curl_through_the_proxy(provider: Served, tmp_path: Path) -> None:
    settings = tmp_path / "llm-proxy.toml"
    settings.write_text(f'[backends.fake]\nbase_url = "{provider.url}/v1"\n')
    command = [sys.executable, "-m", "llm_proxy", "--config", str(settings), "run", "--", str(EXAMPLES / "curl.sh")]
    output = run(command, tmp_path)
    first, again = output.split("again:")
    assert "fwd=uri-miss" in first
    assert "simulated answer" in first
    assert 'hit; detail="exact"' in again
    assert len(provider.app.requests) == 1


def test_configuration_is_valid() -> None:
    config = load(EXAMPLES / "llm-proxy.toml")
    assert config.aliases == {"gpt-4o": "auto"}
