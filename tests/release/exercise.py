"""Uses an installed llm-proxy as people do, against a simulated provider, and prints what it did as one line of JSON.

usage: python exercise.py [EXTRA ...]

The provider is `llm_proxy.testing.FakeBackend`, served on loopback. Nothing but the installed packages is imported, so
that a file which the wheel lacks is missed here. Exits non-zero at the first thing that is not as it should be.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

QUESTION = "How do I reset my password?"
REWORDED = "How can I reset my password?"
START_S = 30.0


@contextmanager
def provider() -> Iterator[tuple[str, Any]]:
    """A simulated provider and its address."""
    import socket

    import uvicorn

    from llm_proxy.testing import FakeBackend

    backend = FakeBackend("Open the settings, then choose Reset password.")
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(backend, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", backend
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def ask(client: Any, question: str) -> Any:
    """The outcome of a call, or the headers where it came over the proxy."""
    messages = [{"role": "user", "content": question}]
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=messages)
    assert "Reset password" in raw.parse().choices[0].message.content
    return raw.http_response.extensions.get("llm_proxy") or raw.headers


def swapped(base_url: str, backend: Any) -> dict[str, Any]:
    """The client: a miss, an exact hit, a streamed hit, and with an encoder a semantic one."""
    from llm_proxy import OpenAI

    settings = {"cache": {"store": "memory"}, "encoder": {"wait_s": START_S, "turn_s": START_S}}
    client = OpenAI(api_key="any", base_url=base_url, llm_proxy=settings)
    assert ask(client, QUESTION).status == "miss"
    assert ask(client, QUESTION).kind == "exact"
    stream = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": QUESTION}], stream=True
    )
    assert "Reset password" in "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    reworded = ask(client, REWORDED)
    is_semantic = find_spec("faiss") is not None
    assert (reworded.status, reworded.kind) == (("hit", "semantic") if is_semantic else ("miss", ""))
    assert len(backend.requests) == (1 if is_semantic else 2)
    return {"client": reworded.kind or reworded.status}


def command(*arguments: str, variables: dict[str, str], folder: str) -> str:
    """What ``llm-proxy`` prints."""
    ended = subprocess.run(
        [sys.executable, "-m", "llm_proxy", *arguments],
        env={**os.environ, **variables}, cwd=folder, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, (arguments, ended.stdout, ended.stderr)
    return ended.stdout


def served(variables: dict[str, str], folder: str) -> dict[str, Any]:
    """The proxy as a process of its own: a miss and a hit through the plain openai client."""
    import openai

    process = subprocess.Popen(
        [sys.executable, "-m", "llm_proxy", "serve", "--port", "0", "--json"],
        env={**os.environ, **variables}, cwd=folder, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        client = openai.OpenAI(api_key="any", base_url=facts["base_url"])
        statuses = [ask(client, "What is the capital of France?")["cache-status"] for _ in range(2)]
        assert "llm-proxy; hit" in statuses[1], statuses
        return {"serve": statuses[1], "semantic": facts["semantic"]}
    finally:
        process.terminate()
        process.wait(START_S)


def commands(variables: dict[str, str], folder: str) -> dict[str, Any]:
    """The commands of the first minute."""
    command("init", variables=variables, folder=folder)
    (Path(folder) / "llm-proxy.toml").unlink()  # the provider of this program is not in it
    findings = json.loads(command("doctor", "--json", variables=variables, folder=folder))["findings"]
    demo = json.loads(command("demo", "--provider", "simulated", "--json", variables=variables, folder=folder))
    assert demo["errors"] == demo["wrong_answers"] == 0, demo
    warnings = [row["message"] for row in findings if row["state"] != "ok"]
    return {"demo": {name: demo[name] for name in ("exact_hits", "semantic_hits")}, "doctor": warnings}


def extras(names: list[str], variables: dict[str, str], folder: str) -> dict[str, Any]:
    """What single extras bring."""
    said: dict[str, Any] = {}
    if "otel" in names:
        traced = {**variables, "LLM_PROXY_OBSERVE_OTEL": "true"}
        rows = json.loads(command("doctor", "--json", variables=traced, folder=folder))["findings"]
        (said["otel"],) = [row["message"] for row in rows if row["topic"] == "otel" and row["state"] == "ok"]
    if "train" in names:
        log = Path(folder) / "outcomes.jsonl"
        rows = [
            {"prompt": f"{'Prove theorem' if number % 2 else 'Say the word'} {number}", "group": str(number % 4),
             "scores": {"small": float(number % 2 == 0), "large": 1.0}}
            for number in range(120)
        ]  # fmt: skip
        log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        train = ("route", "train", str(log), "--weak", "small", "--strong", "large", "--force")
        report = command(*train, "--to", f"{folder}/heads", "--json", variables=variables, folder=folder)
        said["train"] = json.loads(report)["installed"]
    return said


def main(names: list[str]) -> None:
    """Try everything that these extras promise."""
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, provider() as (base_url, backend):
        variables = {"OPENAI_API_KEY": "any", "XDG_CACHE_HOME": f"{folder}/cache"}
        report = swapped(base_url, backend)
        report |= served(variables | {"LLM_PROXY_BACKENDS_SIMULATED_BASE_URL": base_url}, folder)
        report |= commands(variables, folder)
        report |= extras(names, variables, folder)
    said = {"extras": names, **report, "seconds": round(time.monotonic() - started_s, 1)}
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
