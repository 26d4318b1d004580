"""``llm-proxy init``: a first settings file, made from what is found on this machine."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from llm_proxy.errors import ConfigError

from ._shared import Json, emit, visible

if TYPE_CHECKING:
    from ._starting import Found

__all__ = ["init"]

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_KEY = "OPENAI_API_KEY"
_FORCE = "name another file, or add --force to replace it"


def init(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="File to write; otherwise --config, LLM_PROXY_CONFIG, llm-proxy.toml."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a settings file with comments, from what is found here.

    Looked for are model servers on the usual loopback ports, OPENAI_API_KEY
    (whether it is set; the key is never written), and the extras that are
    installed. The file loads as it is, and asks for nothing that is not there.

    Examples:
        llm-proxy init
        llm-proxy init proxy.toml
        llm-proxy init --force --json
    """
    from llm_proxy.config import FILE_NAME, environment

    from ._starting import backend_names, settings_text

    place = file or context.obj.config or Path(environment("LLM_PROXY_CONFIG") or FILE_NAME)
    if place.exists() and not force:
        raise ConfigError(f"{place} is there already: {_FORCE}")
    found = _found()
    _write(place, settings_text(found), is_new=not force)
    if as_json:
        names = backend_names(found.servers)
        servers = [
            {"backend": name, "base_url": server.base_url, "models": list(server.models)}
            for name, server in zip(names, found.servers, strict=True)
        ]
        emit({"file": str(place), "has_key": found.has_key, "servers": servers, "missing": list(found.missing)})
    else:
        _say(place, found)


def _found() -> Found:
    from llm_proxy.backends.discover import discover
    from llm_proxy.config import OPENAI_BASE_URL, environment
    from llm_proxy.encode.extras import missing

    from ._starting import Found

    return Found(
        has_key=environment(_KEY) is not None,
        base_url=_usable(environment("OPENAI_BASE_URL")) or OPENAI_BASE_URL,
        servers=discover(),
        missing=missing(),
    )


def _usable(url: str | None) -> str:
    """An address that may stand in a file: not one with a password in it, and not that of a proxy on this machine."""
    from llm_proxy.config import BackendConfig

    try:
        address = BackendConfig(base_url=url or "").base_url
    except ValueError:  # pydantic's own
        return ""
    return "" if urlsplit(address).hostname in _LOOPBACK else address


def _write(place: Path, text: str, *, is_new: bool) -> None:
    """Put the whole file in its place, or nothing; with ``is_new`` never over another that came meanwhile."""
    try:
        with ExitStack() as on_failure:
            descriptor, name = tempfile.mkstemp(prefix=f".{place.name[:100]}.", dir=place.parent)
            on_failure.callback(Path(name).unlink, missing_ok=True)
            with os.fdopen(descriptor, "w", encoding="utf-8") as target:
                target.write(text)
            if is_new:
                os.link(name, place)
            else:
                os.replace(name, place)
    except FileExistsError as exc:
        raise ConfigError(f"{place} is there already: {_FORCE}") from exc
    except OSError as exc:
        raise ConfigError(f"{place} can't be written: {exc.strerror}; name a file in a folder of yours") from exc


def _say(place: Path, found: Found) -> None:
    from llm_proxy.config import load

    typer.echo(f"Wrote {visible(str(place))}.")
    typer.echo(f"  {_KEY}: {'set; the file names it and does not hold it' if found.has_key else 'not set'}")
    for server in found.servers:
        models = f"{len(server.models)} model(s)" if server.models else "no model loaded"
        typer.echo(f"  {server.name} at {server.base_url}: {models}")
    if not found.servers:
        typer.echo("  no model server on the usual loopback ports")
    if found.missing:
        typer.echo(f'  {", ".join(found.missing)} not installed: pip install "llm-proxy[cpu]" adds semantic hits')
    load(place)  # what is written loads; a variable of the environment may still be wrong, and says so here
    typer.echo("Next: llm-proxy doctor, then llm-proxy demo")
