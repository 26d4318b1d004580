"""The examples of frameworks, with the real packages: what they print, and that no question is asked upstream twice.

Each framework has an environment of its own: ``make test-frameworks`` makes them and says here which one it is in.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import running
from tests.clients.upstream import SimulatedProvider, said_by

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "frameworks"
CHOSEN = os.environ.get("LLM_PROXY_FRAMEWORK", "")
MODULES = os.environ.get("LLM_PROXY_NODE_MODULES", "")

pytestmark = [pytest.mark.frameworks, pytest.mark.skipif(not CHOSEN, reason="make test-frameworks")]

PLAIN = "plain: simulated: What is the tallest mountain in Europe?"
STREAM = "stream: simulated: Name a river."
TRIP = "structured: Trip(city='Paris', days=3)"
TOLD = "told: simulated: sunny in Paris"
JSON_TRIP = 'structured: {"city":"Paris","days":3}'
MISS, HIT = "[llm-proxy; fwd=uri-miss; stored]", '[llm-proxy; hit; detail="exact"]'


@dataclass(frozen=True)
class Example:
    """An example: its file, what it prints in each of two rounds, and how many questions a round has.

    Attributes:
        file: Below ``examples/frameworks``.
        lines: What every round prints.
        questions: How many requests reach the upstream in all.
        has_engine: Whether the engine is inside the program, which says then what became of its calls; else the
            program asks ``llm-proxy serve``.
        marks: What the line of the plain answer ends with, in the first and in the second round.
    """

    file: str
    lines: tuple[str, ...]
    questions: int
    has_engine: bool = False
    marks: tuple[str, str] = ("", "")


def told_in_fields(body: Mapping[str, Any]) -> str:
    """Answers to DSPy, whose prompts name the fields of an answer."""
    asked = body["messages"][-1]["content"]
    _, _, form = asked.rpartition("Respond with the corresponding output fields")
    names = [name for name in re.findall(r"\[\[ ## (\w+) ## \]\]", form) if name != "completed"]
    tool = "finish" if "observation_0" in asked else "get_weather"
    known = {"days": "3", "next_tool_name": tool, "next_tool_args": "{}" if tool == "finish" else '{"city": "Paris"}'}
    fields = [f"[[ ## {name} ## ]]\n{known.get(name, 'simulated answer')}\n" for name in names]
    return "\n".join([*fields, "[[ ## completed ## ]]"]) if names else said_by(body)


EXAMPLES_OF = {
    "langchain": Example(
        "langchain_openai_chat.py",
        (PLAIN, STREAM, "tools: get_weather {'city': 'Paris'}", "structured: city='Paris' days=3"),
        4,
        has_engine=True,
    ),
    "llamaindex": Example(
        "llamaindex.py", (PLAIN, STREAM, "tools: get_weather {'city': 'Paris'}", TRIP), 4, has_engine=True
    ),
    "pydantic-ai": Example(
        "pydantic_ai_agent.py", (PLAIN, STREAM, "tools: get_weather Paris", TOLD, TRIP), 5, has_engine=True
    ),
    "openai-agents": Example(
        "openai_agents.py", (PLAIN, STREAM, "tools: get_weather Paris", TOLD, TRIP), 5, has_engine=True
    ),
    "instructor": Example(
        "instructor_models.py",
        (PLAIN, "tools: Trip(city='Paris', days=3)", TRIP, "stream: Trip(city='Paris', days=3)"),
        4,
        has_engine=True,
    ),
    "dspy": Example(
        "dspy_program.py",
        ("plain: simulated answer", "stream: simulated answer", "structured: 3", "tools: sunny in Paris"),
        6,
    ),
    "litellm": Example(
        "litellm_sdk.py",
        (PLAIN, STREAM, 'tools: get_weather {"city": "Paris"}', TRIP),
        4,
        marks=(MISS, HIT),
    ),
    "llm": Example("llm_tool.py", (PLAIN, STREAM, "tools: get_weather Paris", TOLD, TRIP), 5),
    "openai-node": Example(
        "openai_node.mjs",
        (PLAIN, STREAM, 'tools: get_weather {"city": "Paris"}', JSON_TRIP),
        4,
        marks=(MISS, HIT),
    ),
    "vercel-ai": Example(
        "vercel_ai.mjs",
        (PLAIN, STREAM, 'tools: get_weather {"city":"Paris"}', JSON_TRIP),
        4,
        marks=(MISS, HIT),
    ),
}


def command_for(file: str, folder: Path) -> list[str]:
    """How an example is started; modules of npm are looked for beside the file, so it is put beside them."""
    if not file.endswith(".mjs"):
        return [sys.executable, str(EXAMPLES / file)]
    node = shutil.which("node")
    assert node, "node is not installed"
    shutil.copy(EXAMPLES / file, folder / file)
    (folder / "node_modules").symlink_to(MODULES, target_is_directory=True)
    return [node, str(folder / file)]


@pytest.mark.parametrize("name", [name for name in EXAMPLES_OF if name == CHOSEN] or ["none"])
def test_example(name: str, tmp_path: Path) -> None:
    example = EXAMPLES_OF[name]
    with running(tmp_path, SimulatedProvider(told_in_fields)) as proxy:
        ended = subprocess.run(
            command_for(example.file, tmp_path),
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "XDG_CACHE_HOME": str(tmp_path / "own"),
                "OPENAI_API_KEY": "k",
                "OPENAI_BASE_URL": f"{proxy.upstream.url}/v1" if example.has_engine else proxy.base_url,
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        first, second = example.marks
        rounds = [[f"{example.lines[0]} {mark}".strip(), *example.lines[1:]] for mark in (first, second)]
        said = ended.stdout.splitlines()
        assert [line for line in said if not line.startswith("calls: ")] == [*rounds[0], *rounds[1]]
        calls = [line for line in said if line.startswith("calls: ")]
        expected = ["calls: " + " ".join(["miss"] * example.questions + ["hit"] * example.questions)]
        assert calls == (expected if example.has_engine else [])
        assert proxy.calls == example.questions


def test_every_example_is_in_the_table() -> None:
    assert {example.file for example in EXAMPLES_OF.values()} == {path.name for path in EXAMPLES.glob("*.*")}
