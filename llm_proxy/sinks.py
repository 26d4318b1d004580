"""Who is told of every call, as the settings say: the ledger, log lines, OpenTelemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .checks import LEDGER_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from .config import Config
    from .engine.ports import Clock
    from .observe.events import Sink, Troubles
    from .observe.ledger import Ledger

__all__ = ["ledger_for", "ledger_path", "may_show_questions", "sinks_for"]


def ledger_path(config: Config) -> Path | None:
    """Where the ledger of these settings is; None where they keep none."""
    is_kept = config.observe.ledger and config.cache.store == "disk"
    return config.cache.directory / LEDGER_NAME if is_kept else None


def ledger_for(config: Config, clock: Clock, troubles: Troubles) -> Ledger | None:
    """The ledger of these settings, or None where they keep none."""
    path = ledger_path(config)
    if path is None:
        return None
    from .observe.ledger import Ledger

    return Ledger(path, monotonic=clock.monotonic, max_rows=config.observe.ledger_rows, troubles=troubles)


def sinks_for(config: Config, ledger: Ledger | None) -> tuple[Sink, ...]:
    """What is told of every call.

    Args:
        config: Settings.
        ledger: The open ledger, if one is kept.

    Raises:
        MissingDependencyError: ``observe.otel`` is set and OpenTelemetry's API is not installed.
    """
    sinks: list[Sink] = [] if ledger is None else [ledger]
    if config.observe.log != "off":
        from .observe.lines import Lines

        sinks.append(Lines(config.observe.log))
    if config.observe.otel:
        from .observe.tracing import Telemetry

        sinks.append(Telemetry({name: backend.base_url for name, backend in config.backends.items()}))
    return tuple(sinks)


def may_show_questions(config: Config) -> bool:
    """Whether what was asked may be kept in memory and shown."""
    return config.observe.prompts
