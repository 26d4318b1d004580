"""Questions out of logs of any form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.route import traffic
from llm_proxy.route.traffic import read_prompts

MESSAGES = [
    {"role": "user", "content": "first"},
    {"role": "assistant", "content": "no"},
    {"role": "user", "content": "last"},
]


@pytest.mark.parametrize(
    ("line", "question"),
    [
        ("a text", "a text"),
        ({"prompt": "p", "text": "t"}, "p"),
        ({"query": "q"}, "q"),
        ({"request": {"messages": MESSAGES}, "response": {}}, "last"),
        ({"custom_id": 1, "body": {"messages": MESSAGES}}, "last"),
        ({"messages": MESSAGES}, "last"),
    ],
)
def test_a_line(tmp_path: Path, line: Any, question: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f"{json.dumps(line)}\n{json.dumps(line)}\n")
    assert read_prompts(path) == [question]


@pytest.mark.parametrize("line", [3, {}, {"messages": 1}, {"messages": [3, {"role": "user", "content": []}]}, " "])
def test_no_question(tmp_path: Path, line: Any) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(line))
    with pytest.raises(ConfigError, match="has no questions"):
        read_prompts(path)


def test_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('"fine"\nnot\n')
    with pytest.raises(ConfigError, match="line 2: not JSON"):
        read_prompts(path)
    path.write_text('"fine"\n')
    monkeypatch.setattr(traffic, "_MOST_TEXT_CHARS", 3)
    with pytest.raises(ConfigError, match="characters: use a part of it"):
        read_prompts(path)
