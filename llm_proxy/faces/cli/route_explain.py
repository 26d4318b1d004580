"""``llm-proxy route explain``: every candidate with its figures, and which is asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_proxy.errors import ConfigError, LLMProxyError

from ._format import amount, dollars, seconds
from ._shared import Json, console, emit, one_line, settings, table, visible

if TYPE_CHECKING:
    from llm_proxy.config import Config
    from llm_proxy.encode.base import Encoding
    from llm_proxy.route.explain import Explanation, Option
    from llm_proxy.runtime import Runtime
    from llm_proxy.types import ChatRequest

__all__ = ["explain"]

_NO_ROUTES = """\
[backends.openai]
base_url = "https://api.openai.com/v1"
api_key_env = "OPENAI_API_KEY"

[routes.auto]
candidates = ["openai/gpt-4o-mini", "openai/gpt-4o"] # weakest and cheapest first
"""
_COLUMNS = ("tokens", "expected", "latency", "health")


def explain(
    context: typer.Context,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What would be asked.")],
    route: Annotated[str, typer.Option(metavar="NAME", help="The route; the first one when there is no auto.")] = "",
    system: Annotated[str, typer.Option(metavar="TEXT", help="A system message before the question.")] = "",
    tools: Annotated[bool, typer.Option("--tools", help="Offer a tool, as agents do.")] = False,
    as_json: Json = False,
) -> None:
    """Show how a route would choose for a question, and ask nobody.

    Every candidate is shown with what is expected of it: probability of a
    good answer where a head is trained, tokens, dollars and seconds as learnt
    from the ledger. Failures and conversations are known only to the process
    that saw them.

    Examples:
        llm-proxy route explain "What is the capital of France?"
        llm-proxy route explain "Prove it." --route auto --tools --json
    """
    config = settings(context)
    name = _route_named(config, route)
    found, trouble = _explained(config, _body(name, question, system, has_tools=tools), name)
    if as_json:
        emit({**found.as_data(), "trouble": trouble})
    else:
        _show(found, trouble)


def _route_named(config: Config, name: str) -> str:
    """The route that is meant.

    Raises:
        ConfigError: There is none, or not this one.
    """
    if not config.routes:
        typer.echo(_NO_ROUTES, err=True)
        raise ConfigError("the settings have no route; lines like these, in llm-proxy.toml, make one")
    if not name:
        return "auto" if "auto" in config.routes else next(iter(config.routes))
    target = config.aliases.get(name, name)
    if target not in config.routes:
        raise ConfigError(f"--route must be one of {list(config.routes)}, not {name!r}")
    return target


def _body(model: str, question: str, system: str, *, has_tools: bool) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system else []
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    return {
        "model": model,
        "messages": [*messages, {"role": "user", "content": question}],
        **({"tools": [tool]} if has_tools else {}),
    }


def _explained(config: Config, body: dict[str, Any], route: str) -> tuple[Explanation, str]:
    """What the engine would decide, and what went wrong on the way there; empty when nothing did."""
    from llm_proxy.runtime import Runtime
    from llm_proxy.wire.chat import parse_request

    request = parse_request(json.dumps(body).encode(), headers={}, endpoint="")
    runtime = Runtime(config)
    try:
        runtime.prepare()
        encoding, trouble = _encoded(runtime, request, route)
        found = runtime.selector.explain(request, runtime.selector.resolve(request), encoding)
    finally:
        runtime.close()
    return found, trouble


def _encoded(runtime: Runtime, request: ChatRequest, route: str) -> tuple[Encoding | None, str]:
    from llm_proxy.encode.extras import pip_line

    encoder = runtime.encoder
    if not runtime.selector.wants_vector(route):
        return None, ""
    if encoder is None:
        return None, f"no encoder is installed; {pip_line(runtime.config)}"
    try:
        return encoder.encode(request.question), ""
    except LLMProxyError as exc:
        return None, str(exc)


def _show(found: Explanation, trouble: str) -> None:
    from rich.text import Text

    rows = table()
    rows.add_column("candidate")
    rows.add_column("")
    has_head = any(option.p_good is not None for option in found.options)
    for column in (*(["p_good"] if has_head else []), *_COLUMNS):
        rows.add_column(column, justify="right")
    for option in found.options:
        cells = [visible(option.candidate), _state(option)]
        cells += ["-" if option.p_good is None else f"{option.p_good:.3f}"] if has_head else []
        rows.add_row(*map(Text, (*cells, *_figures(option))), style="bold" if option.is_chosen else "")
    screen = console()
    screen.print(rows)
    screen.print(Text(_sentence(found)))
    if found.least_p_good is not None:
        screen.print(Text(f"Good enough is a p_good of {found.least_p_good:.3f} or more."))
    if found.way:
        screen.print(Text(f"In which way: {one_line(found.way)}."))
    if found.without_head or trouble:
        screen.print(Text(f"The rules decided: {one_line(trouble or found.without_head)}."))


def _state(option: Option) -> str:
    if option.is_chosen:
        return "asked"
    return option.why_not or ("good enough" if option.is_good_enough else "")


def _figures(option: Option) -> tuple[str, ...]:
    return (
        "-" if option.completion_tokens is None else amount(option.completion_tokens),
        "-" if option.expected_usd is None else dollars(option.expected_usd),
        "-" if option.latency_s is None else seconds(option.latency_s),
        f"rests {seconds(option.resting_s)}" if option.resting_s else "well",
    )


def _sentence(found: Explanation) -> str:
    strength = f"how strong a model it needs: {found.score:.2f}"
    return f"{visible(found.chosen)} is asked ({strength}): {visible(found.reason)}."
