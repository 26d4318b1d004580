"""Pages that are walked: what they have people type and write is done in their order, against a simulated provider.

A walk is one shell, one folder and one environment: `toml` blocks become llm-proxy.toml, `python` blocks are run, `sh`
blocks are typed. Only the installation is left out, and the port of the proxy is a free one.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llm_proxy.config import environment_for_child
from llm_proxy.testing import FakeBackend
from tests.faces.cli_kit import entry, seed

from .servers import Served, serving

DOCS = Path(__file__).parent.parent / "docs"
WALKED = (
    "index", "tutorial", "how-to", "migrate-from-gptcache", "migrate-from-litellm", "cache", "routing", "observability",
    "queues-and-budgets", "verified-hits",
)  # fmt: skip
BLOCK = re.compile(r"^```(sh|python|toml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NEEDS_SHELL = pytest.mark.skipif(
    shutil.which("bash") is None or shutil.which("curl") is None, reason="needs bash and curl"
)


@dataclass(frozen=True)
class Walk:
    """What came of a page."""

    printed: str
    asked: list[str]


@pytest.fixture
def provider() -> Iterator[Served]:
    with serving(FakeBackend(lambda body: f"Simulated: {body['messages'][-1]['content']}")) as served:
        yield served


def script(page: str, provider: Served, port: int) -> str:
    """The page as one program of the shell."""
    parts = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT"]
    for number, (language, text) in enumerate(BLOCK.findall(page)):
        text = text.replace("https://api.openai.com/v1", f"{provider.url}/v1").replace(":8080", f":{port}")
        parts.append(f"echo '== {language} {number}'")
        if language == "sh":
            parts += [line for line in text.splitlines() if not line.startswith("pip install ")]
            continue
        name = "llm-proxy.toml" if language == "toml" else f"block_{number}.py"
        parts.append(f"cat > {name} <<'END_OF_BLOCK'\n{text}END_OF_BLOCK")
        if language == "python":
            parts.append(f"python {name}")
    return "\n".join(parts)


def lay_out_logs(folder: Path) -> None:
    """The logs of past calls that pages speak of: our own form, and OpenAI's batches."""
    request = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Which river is the longest?"}]}
    _, _, (raw,) = FakeBackend("The Nile.").respond(json.dumps(request).encode())
    call = {"request": request, "response": json.loads(raw)}
    asked = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": request}
    answered = {"custom_id": "1", "response": {"status_code": 200, "body": json.loads(raw)}, "error": None}
    for name, line in (("calls", call), ("batch_input", asked), ("batch_output", answered)):
        (folder / f"{name}.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")


def walk(name: str, provider: Served, folder: Path) -> Walk:
    """Do all that a page says."""
    programs = folder / "bin"
    programs.mkdir()
    for program, module in {"python": "", "llm-proxy": " -m llm_proxy"}.items():
        (programs / program).write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
        (programs / program).chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    seed(folder / "cache" / "llm-proxy", entry(1, key="3f9a01c2" + "ab" * 28))
    lay_out_logs(folder)
    shell = subprocess.Popen(
        ["bash", "-c", script((DOCS / f"{name}.md").read_text(encoding="utf-8"), provider, port)],
        env=environment_for_child({
            "PATH": f"{programs}:{environment_for_child({})['PATH']}", "OPENAI_API_KEY": "k",
            "OPENAI_BASE_URL": f"{provider.url}/v1", "XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder),
            "LLM_PROXY_SERVER_PORT": str(port), "LLM_PROXY_ENCODER_WAIT_S": "20", "LLM_PROXY_ENCODER_TURN_S": "20",
            "LLM_PROXY_BACKENDS_OPENAI_BASE_URL": f"{provider.url}/v1",
        }),
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        printed, _ = shell.communicate(timeout=100)
    finally:
        shell.kill()
        shell.wait()
    assert shell.returncode == 0, printed
    return Walk(printed, [body["messages"][-1]["content"] for body in provider.app.requests])


@NEEDS_SHELL
@pytest.mark.parametrize("name", [name for name in WALKED if name != "tutorial"])
def test_a_page_does_what_it_says(name: str, provider: Served, tmp_path: Path) -> None:
    walked = walk(name, provider, tmp_path)
    assert walked.printed.count("== ") == len(BLOCK.findall((DOCS / f"{name}.md").read_text(encoding="utf-8")))


@NEEDS_SHELL
def test_the_tutorial_ends_where_it_says(provider: Served, tmp_path: Path) -> None:
    walked = walk("tutorial", provider, tmp_path)
    said = re.findall(r"(?i)(?:cache-status: )?(llm-proxy; .*)", walked.printed)
    short = [re.sub(r"=[\d.]+|; detail=\"refused.*", "", line.split(" |")[0].strip()) for line in said]
    assert short == [
        "llm-proxy; fwd=uri-miss; stored",
        'llm-proxy; hit; detail="exact"',
        "llm-proxy; fwd=uri-miss; stored",
        'llm-proxy; hit; detail="semantic; similarity; p_wrong"',
        "llm-proxy; fwd=uri-miss; stored",
        "llm-proxy; fwd=request; stored",
    ]
    assert walked.asked == [
        "How do I reset my password?", "How do I cancel my order?", "How do I cancel my subscription?",
        "How do I reset my password?",
    ]  # fmt: skip


def test_no_new_page_is_left_out() -> None:
    """Blocks of all pages are loaded, compiled or checked by tests/test_docs.py; these are walked besides."""
    assert {path.stem for path in DOCS.glob("migrate-*.md")} <= set(WALKED)
    assert all((DOCS / f"{name}.md").is_file() for name in WALKED)


class TestJson:
    @pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.stem)
    def test_every_block_is_json(self, path: Path) -> None:
        for block in re.findall(r"^```json\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            for line in block.splitlines() if not block.startswith(("{\n", "[\n")) else [block]:
                json.loads(line)
