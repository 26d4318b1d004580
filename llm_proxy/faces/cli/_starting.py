"""The text of a first ``llm-proxy.toml``: what was found on this machine, and beside it what may be wanted next."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_proxy.config import OPENAI_BASE_URL

if TYPE_CHECKING:
    from llm_proxy.backends.discover import LocalServer

__all__ = ["Found", "backend_names", "settings_text"]

OPENAI_NAME = "openai"
_KEY = "OPENAI_API_KEY"
_MOST_MODELS = 20
_SMALL = "gpt-4o-mini"
_LARGE = "gpt-4o"

_HEAD = """\
# Settings of llm-proxy, written by `llm-proxy init` from what it found here.
#
# A line that begins with "# " and a setting is an idea, as a rule the default: take the mark away to use it.
# Keys stay in the environment: no line of this file holds one.
# `llm-proxy doctor` says whether all of it works, `llm-proxy --help` what there is.
"""

_DEFAULT = """
# Whom the proxy asks for a model that no backend lists.
default_backend = {name}
"""

_SEMANTIC = """\
# Equivalent questions are answered, too; a hit may be wrong with this probability at the most.
# max_error_rate = 0.01
"""
_EXACT_ONLY = """\
# Only repeated questions are answered: {missing} not installed.
# Equivalent ones as well, after: pip install "llm-proxy[cpu]"
"""

_CACHE = """
[cache]
{semantic}# Most bytes on disk; what is worth least goes first.
# budget_bytes = 1_073_741_824
# Age in seconds after which an answer is asked for again; a week. Without it, answers do not age.
# ttl_s = 604_800
# Who shares answers: "api_key" (the same key), "user", "header:NAME", "fixed:NAME" (everybody).
# tenant = "api_key"
"""

_ROUTE = """
# A call of model="auto" goes to the cheapest candidate that is good enough; weakest and cheapest first.
{mark}[routes.auto]
{mark}candidates = {candidates}

# Existing code asks the route without a change:
# [aliases]
# "{large}" = "auto"
"""

_TAIL = """
# What may be spent; `llm-proxy budget` shows what is left.
# [budget.limits.all]
# usd_per_day = 5.0

# The proxy of `llm-proxy serve`: loopback only, until it has keys; `llm-proxy keys add NAME` issues one.
[server]
# port = 8080
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What a first file is made from.

    Attributes:
        has_key: Whether ``OPENAI_API_KEY`` is set; the key itself is never read here.
        base_url: What ``OPENAI_BASE_URL`` says, or OpenAI's own address.
        servers: Model servers on this machine.
        missing: Packages of the extra ``cpu`` that are not installed.
    """

    has_key: bool
    base_url: str
    servers: Sequence[LocalServer] = ()
    missing: tuple[str, ...] = ()


def backend_names(servers: Sequence[LocalServer]) -> list[str]:
    """A name of its own for the backend of each server, in their order, e.g. ``llama-cpp`` and ``llama-cpp-8000``."""
    names: list[str] = []
    for server in servers:
        name = re.sub(r"[^a-z0-9]+", "-", server.name.lower()).strip("-") or "local"
        if name in (*names, OPENAI_NAME):
            name = f"{name}-{server.base_url.rpartition(':')[2].partition('/')[0]}"
        names.append(name)
    return names


def settings_text(found: Found) -> str:
    """A settings file that loads as it is, and asks for nothing that was not found."""
    names = backend_names(found.servers)
    backends = [_remote(found), *(_local(name, server) for name, server in zip(names, found.servers, strict=True))]
    default = names[0] if names and not found.has_key else OPENAI_NAME
    semantic = _EXACT_ONLY.format(missing=" and ".join(found.missing)) if found.missing else _SEMANTIC
    head = [_HEAD, _DEFAULT.format(name=_text(default)), _CACHE.format(semantic=semantic)]
    return "".join([*head, *backends, _route(found, names), _TAIL])


def _remote(found: Found) -> str:
    head = f"\n[backends.{OPENAI_NAME}]\nbase_url = {_text(found.base_url)}\n"
    if found.has_key:
        return f"{head}# The proxy sends this key for every caller.\napi_key_env = {_text(_KEY)}\n"
    return f'{head}# {_KEY} is not set: the key of each caller is sent on.\nauth = "caller"\n'


def _local(name: str, server: LocalServer) -> str:
    models = server.models[:_MOST_MODELS]
    more = f" # and {len(server.models) - len(models)} more" if len(server.models) > len(models) else ""
    listed = f"models = {_texts(models)}{more}\n" if models else "# No model is loaded there now.\n# models = []\n"
    return (
        f"\n# {server.name}, found on this machine. Models that are listed are asked there by their bare name.\n"
        f"[backends.{name}]\nbase_url = {_text(server.base_url)}\n{listed}"
        "# Calls at a time; others wait, the shortest expected answer first.\n# concurrency = 2\n"
    )


def _route(found: Found, names: Sequence[str]) -> str:
    candidates = list(_candidates(found, names))
    is_choice = len(candidates) > 1 and found.has_key
    shown = candidates if is_choice else [f"{OPENAI_NAME}/{_SMALL}", f"{OPENAI_NAME}/{_LARGE}"]
    return _ROUTE.format(mark="" if is_choice else "# ", candidates=_texts(shown), large=_LARGE)


def _candidates(found: Found, names: Sequence[str]) -> Iterator[str]:
    for name, server in zip(names, found.servers, strict=True):
        if server.models and "embed" not in server.models[0].lower():  # those that only embed are listed last
            yield f"{name}/{server.models[0]}"
    if found.has_key and found.base_url == OPENAI_BASE_URL:  # what another provider calls its models is not known
        yield from (f"{OPENAI_NAME}/{_SMALL}", f"{OPENAI_NAME}/{_LARGE}")


def _texts(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"


def _text(value: str) -> str:
    # A JSON text is a TOML text wherever every character prints.
    return json.dumps(value, ensure_ascii=False)
