"""The shared suite of clients, by the openai package of npm: `make test-clients` installs it and says where."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import environment_for_child

from .conftest import Running

HERE = Path(__file__).parent
MODULES = os.environ.get("LLM_PROXY_NODE_MODULES", "")
NAMES = [case["name"] for case in json.loads((HERE / "cases.json").read_text(encoding="utf-8"))]

pytestmark = [pytest.mark.clients, pytest.mark.skipif(not MODULES, reason="needs npm packages: make test-clients")]


@pytest.fixture(scope="module")
def found(proxy: Running) -> dict[str, str]:
    """What went wrong in each case; empty where nothing did."""
    node = shutil.which("node")
    assert node, "node is not installed"
    ended = subprocess.run(
        [node, str(HERE / "suite.mjs"), proxy.base_url, proxy.upstream.url],
        env=environment_for_child({"NODE_PATH": MODULES}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    rows: list[dict[str, Any]] = [json.loads(line) for line in ended.stdout.splitlines()]
    return {row["name"]: row["trouble"] for row in rows}


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, found: dict[str, str]) -> None:
    assert found[name] == ""
