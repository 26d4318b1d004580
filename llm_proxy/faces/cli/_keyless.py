"""Backends that nobody's key reaches: those of callers are the proxy's own, and the settings have none for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._shared import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_proxy.config import Config

__all__ = ["REMEDY", "keyless", "say_keyless", "sentence"]

REMEDY = "set backends.{name}.api_key_env"
"""What to do about a backend without a key."""


def keyless(config: Config) -> Sequence[str]:
    """Names of the backends that would be asked with the caller's key, and are asked with none.

    Args:
        config: Settings as they were given, without those that `llm_proxy.faces.serve.server_config` makes.
    """
    from llm_proxy.faces._backends import backends_of
    from llm_proxy.limits import keys_file

    path = keys_file(config)
    if not config.server.keys and (path is None or not path.is_file()):
        return ()
    return [name for name, one in backends_of(config).items() if one.auth == "caller" and one.key() is None]


def sentence(name: str) -> str:
    """What that means for a backend."""
    return f"backend {name} is asked without a key: those of callers are the proxy's own, and not sent on"


def say_keyless(config: Config) -> None:
    """Say so on stderr, a line for each backend."""
    for name in keyless(config):
        remedy = REMEDY.format(name=name) if name in config.backends else "set OPENAI_API_KEY"
        say(f"{sentence(name)}; {remedy}")
