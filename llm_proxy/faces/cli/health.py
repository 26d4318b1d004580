"""``llm-proxy health``: whether the proxy of these settings answers, for what watches containers and services."""

from __future__ import annotations

import http.client
import json
from typing import Annotated, Any

import typer

from ._shared import Json, emit, one_line, say, settings

__all__ = ["health"]

_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
_MOST_BYTES = 65_536


def health(
    context: typer.Context,
    *,
    host: Annotated[str | None, typer.Option(help="Address instead of server.host.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port instead of server.port.")] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, help="Longest wait, seconds.")] = 3.0,
    as_json: Json = False,
) -> None:
    """Ask a running proxy whether it takes calls; exit code 1 where it does not.

    It needs no key. Cache and encoder may still be loading: calls go on
    without them.

    Examples:
        llm-proxy health
        llm-proxy health --port 9000 --json
    """
    server = settings(context).server
    name = server.host if host is None else host
    try:
        found = _asked(_ANYWHERE.get(name, name), server.port if port is None else port, timeout_s)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        say(f"llm-proxy: no proxy answers at {one_line(name)}: {one_line(str(exc) or type(exc).__name__)}")
        raise typer.Exit(1) from exc
    if as_json:
        emit(found)
    else:
        typer.echo(", ".join(one_line(f"{part} {state}") for part, state in found.items()))


def _asked(host: str, port: int, timeout_s: float) -> dict[str, Any]:
    """What the proxy says of itself.

    Raises:
        ValueError: It is not ready, or no proxy of ours.
    """
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        # The name of this machine: without keys others are refused more than the state.
        connection.request("GET", "/readyz", headers={"host": f"localhost:{port}"})
        response = connection.getresponse()
        body = response.read(_MOST_BYTES)
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"it answered with the status {response.status}")
    found = json.loads(body)
    if not isinstance(found, dict) or found.get("status") != "ok":
        raise ValueError("it is another server")
    return {name: state for name, state in found.items() if name != "troubles"}
