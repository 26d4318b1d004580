"""Fuzzes the proxy's own endpoints by its document, with schemathesis: ``python -m tests.faces.fuzz_openapi``.

A real ``llm-proxy serve`` on loopback, before a simulated provider, with calls for its dashboard to show. The stream of
events is left out: it has no end to wait for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm_proxy.faces._http import httpx
from llm_proxy.testing import FakeBackend
from tests.servers import serving

WAIT_S = 60.0
# On `/` any other method, and any other reader than a browser, is the backend's to answer.
_PARTS = (
    ("--exclude-operation-id", "events", "--exclude-operation-id", "page"),
    ("--include-operation-id", "page", "--exclude-checks", "unsupported_method,negative_data_rejection"),
)


@contextmanager
def proxy(folder: Path, base_url: str) -> Iterator[str]:
    """A running proxy; its URL."""
    settings = folder / "llm-proxy.toml"
    settings.write_text(
        f'[cache]\ndirectory = "{folder}/cache"\nsemantic = false\n[backends.simulated]\nbase_url = "{base_url}"\n'
        '[routes.auto]\ncandidates = ["simulated/m", "simulated/n"]\n'
    )
    command = [sys.executable, "-m", "llm_proxy", "--config", str(settings), "serve", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
            process.wait(WAIT_S)


def main() -> int:
    """Run it; schemathesis's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200, help="most requests for each kind of test and endpoint")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        serving(FakeBackend()) as provider,
        proxy(Path(name), f"{provider.url}/v1") as url,
    ):
        for seed in range(3):
            body = {"model": "auto", "seed": seed, "messages": [{"role": "user", "content": "hi"}]}
            httpx.post(f"{url}/v1/chat/completions", json=body, timeout=WAIT_S).raise_for_status()
        command = [
            sys.executable, "-m", "schemathesis.cli", "run", f"{url}/llm-proxy/openapi.json",
            "--max-examples", str(options.examples), "--seed", str(options.seed), "--request-timeout", "20",
            "--generation-database", "none",
        ]  # fmt: skip
        code = sum(subprocess.run([*command, *part], check=False, cwd=name).returncode for part in _PARTS)
        alive = httpx.get(f"{url}/readyz").json()
        print(json.dumps(alive))  # noqa: T201
        return code or bool({"server", "dashboard"} & set(alive["troubles"]))


if __name__ == "__main__":
    sys.exit(main())
