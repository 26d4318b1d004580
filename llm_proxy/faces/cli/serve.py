"""``llm-proxy serve``: the reverse proxy in the foreground."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.encode.extras import exact_only

from ._format import SHARED
from ._keyless import say_keyless
from ._shared import Json, Shared, emit, say, settings, visible

if TYPE_CHECKING:
    from llm_proxy.config import Config

__all__ = ["serve"]


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to bind; any but loopback needs server.keys.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to bind; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Processes that serve.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file.")] = None,
    as_json: Json = False,
) -> None:
    """Run the reverse proxy until Ctrl-C.

    Any OpenAI client, in any language, uses it by its base URL. Without
    backends in the settings, calls go to OpenAI with the caller's key.
    SIGHUP has the settings read anew while calls go on.

    Examples:
        llm-proxy serve
        llm-proxy serve --port 0 --json
        llm-proxy serve --workers 4
        llm-proxy --config proxy.toml serve --host 0.0.0.0
    """
    from llm_proxy.config import load
    from llm_proxy.faces.serve import serve as run_server
    from llm_proxy.faces.serve import server_config

    if config is not None:
        context.obj = Shared(config)
    resolved = settings(context)
    if workers is not None:
        resolved = load(resolved, server={"workers": workers})
    warning = exact_only(resolved)

    def ready(bound_host: str, bound_port: int) -> None:
        # Where it really listens: a backend on the configured port may be another server.
        bound = load(resolved, server={"host": bound_host, "port": bound_port})
        facts = _facts(server_config(bound), bound_host, bound_port, is_semantic=not warning)
        with contextlib.suppress(OSError):  # nobody reads: the server is there all the same
            emit(facts) if as_json else _greet(facts)
            say_keyless(resolved)

    if warning:
        say(warning)
    if resolved.observe.log != "off":
        _show_calls()
    run_server(resolved, host=host, port=port, ready=ready, reread=partial(_reread, context.obj.config, workers))


def _reread(path: Path | None, workers: int | None) -> Config:
    """The settings as they are now."""
    from llm_proxy.config import load

    found = load(path)
    return found if workers is None else load(found, server={"workers": workers})


def _show_calls() -> None:
    """Have the line of each call written to stderr, as it is, unless somebody has said where it goes."""
    import logging

    from llm_proxy.observe.lines import LOGGER_NAME

    logger = logging.getLogger(LOGGER_NAME)
    if not logger.hasHandlers():
        logger.addHandler(logging.StreamHandler())
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _facts(config: Config, host: str, port: int, *, is_semantic: bool) -> dict[str, Any]:
    from llm_proxy.limits import keys_file

    authority = f"[{host}]" if ":" in host else host
    cache, path = config.cache, keys_file(config)
    has_keys = path is not None and path.is_file()
    return {
        "url": f"http://{authority}:{port}",
        "base_url": f"http://{authority}:{port}/v1",
        "dashboard": f"http://{authority}:{port}/" if config.server.dashboard else None,
        "host": host,
        "port": port,
        "workers": config.server.workers,
        "needs_key": bool(config.server.keys) or has_keys,
        "cache": "off" if not cache.enabled else cache.store,
        "directory": str(cache.directory) if cache.enabled and cache.store == "disk" else None,
        "semantic": cache.enabled and cache.semantic and is_semantic,
        "is_shared": cache.enabled and cache.tenant.startswith("fixed:"),
        "backends": {name: backend.base_url for name, backend in config.backends.items()},
        "routes": list(config.routes),
    }


def _greet(facts: dict[str, Any]) -> None:
    where = f" in {facts['directory']}" if facts["directory"] else ""
    kinds = "exact and semantic hits" if facts["semantic"] else "exact hits"
    cache = "off" if facts["cache"] == "off" else f"{facts['cache']}{where}: {kinds}"
    backends = ", ".join(f"{name} ({url})" for name, url in facts["backends"].items())
    lines = [f"llm-proxy listens on {facts['url']}", f"  backends  {backends}"]
    lines += [f"  workers   {facts['workers']}"] if facts["workers"] > 1 else []
    lines += [f"  routes    {', '.join(facts['routes'])}"] if facts["routes"] else []
    lines += [f"  cache     {cache}"]
    lines += [f"            {SHARED}"] if facts["is_shared"] else []
    lines += [f"  dashboard {facts['dashboard']}"] if facts["dashboard"] else []
    lines += [f"  clients   export OPENAI_BASE_URL={facts['base_url']}"]
    lines += ["            export OPENAI_API_KEY=<a key of this proxy>"] if facts["needs_key"] else []
    typer.echo("\n".join([*map(visible, lines), "Ctrl-C ends it."]))
