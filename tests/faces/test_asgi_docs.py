"""docs/proxy.md: its examples print what it says, its settings load, its table of errors is that of the code."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.testing import FakeBackend
from tests.faces.asgi_kit import Raw, RawUpstream, proxied, raw_response

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "proxy.md").read_text()
EXAMPLE = re.compile(r"```sh\n(curl .*?)```\n\n```text\n(.*?)```", re.DOTALL)


def provider(models: list[str]):
    backend = FakeBackend("Rivers carry salt into it.")

    def handler(request: Raw) -> None:
        if request.target.endswith("/chat/completions"):
            status, headers, pieces = backend.respond(request.body)
            request.send(raw_response(b"".join(pieces), status=f"{status} OK", content_type=headers["content-type"]))
        elif request.target.endswith("/models"):
            rows = [{"id": model, "object": "model"} for model in models]
            request.send(raw_response(json.dumps({"object": "list", "data": rows}).encode()))
        else:
            request.send(raw_response(b'{"object": "list", "data": []}'))

    return handler


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here")
def test_the_examples_print_what_the_page_says():
    settings = tomllib.loads(re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1])
    examples = EXAMPLE.findall(PAGE)
    assert len(examples) == PAGE.count("```sh\ncurl") == 6
    with RawUpstream(provider(["gpt-4o"])) as openai, RawUpstream(provider(["llama3.2:1b"])) as local:
        settings["backends"]["openai"]["base_url"] = openai.url
        settings["backends"]["local"]["base_url"] = local.url
        with proxied(**settings) as proxy:
            for command, promised in examples:
                command = command.replace("http://127.0.0.1:8080", proxy.url)
                printed = subprocess.run(
                    ["sh", "-euc", command], env={"OPENAI_API_KEY": "k", "PATH": "/usr/bin:/bin"},
                    capture_output=True, text=True, timeout=20, check=True,
                ).stdout  # fmt: skip
                for line in promised.splitlines():
                    pattern = ".*".join(map(re.escape, line.split("…")))
                    assert re.search(rf"^{pattern}\r?$", printed, re.MULTILINE), f"{line}\nnot in\n{printed}"


def refusals(path: Path) -> Iterator[tuple[str, str]]:
    """Status and code of all that a file refuses; not what only the dashboard says."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refused":
            more = {word.arg: word.value for word in node.keywords}
            code = more["code"].value if "code" in more else ""
            status = getattr(node.args[0], "value", "any")  # a backend's own status is any
            if code != "not_allowed":
                yield str(status), code


def test_the_table_of_errors_is_that_of_the_code():
    documented = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", PAGE, re.MULTILINE))
    faces = ROOT / "llm_proxy" / "faces"
    names = ("asgi.py", "_asgi_io.py", "_upstream.py", "admission.py", "paths.py")
    source = "".join((faces / name).read_text() for name in names)
    own = [row for name in names for row in refusals(faces / name)]
    mapped = re.findall(r'(\d{3}), "(upstream_\w+)"', source)
    connections = (faces / "_connections.py").read_text()
    own += [(status, "") for status in re.findall(r"_refuse\((\d{3}), (?!_CROWDED)", connections)]
    assert '"status": 503' in connections
    assert 'code="too_many_connections"' in connections
    refusing = (ROOT / "llm_proxy" / "engine" / "refusing.py").read_text()
    assert "Ready(400," in refusing
    assert 'code="route_not_possible"' in refusing
    other = [
        ("504", "not_cached"),
        ("400", "route_not_possible"),
        ("503", "too_many_connections"),
        ("any", "websocket_refused"),
    ]
    assert documented | {other[-1]} == {(status, code or "null") for status, code in (*own, *mapped)} | {*other}
    assert "`websocket_refused`" in PAGE
    assert "stream_interrupted" in source
    assert "`stream_interrupted`" in PAGE


def test_the_application_of_ones_own_is_made_as_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llm-proxy.toml").write_text('[cache]\nstore = "memory"\nsemantic = false\n')
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
    names: dict[str, object] = {}
    exec(code, names)
    assert callable(names["app"])
