"""The engine behind a face, imported with the first face that is made: to import a client takes next to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_proxy.forking import heed_forks, working

if TYPE_CHECKING:
    from llm_proxy.runtime import Runtime, Settings

__all__ = ["runtime_for"]


def runtime_for(settings: Settings = None) -> Runtime:
    """See `llm_proxy.runtime.runtime_for`.

    Raises:
        ConfigError: A setting is wrong.
    """
    heed_forks()
    with working:  # a fork waits: a child can't finish what its parent had half imported
        from llm_proxy import runtime

        return runtime.runtime_for(settings)
