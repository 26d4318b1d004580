"""Settings of what is shown and told about calls while they go on; `llm_proxy.config` has their sections."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Frozen

__all__ = ["PageConfig", "TellConfig"]


class PageConfig(Frozen):
    """What the reverse proxy shows of itself; part of `llm_proxy.config.ServerConfig`."""

    dashboard: bool = Field(
        True, description="Show the dashboard at `/`, to browsers, and its data below `/llm-proxy/`; else both pass on."
    )
    metrics: bool = Field(True, description="Answer `/metrics` for Prometheus; else it passes on to the backend.")


class TellConfig(Frozen):
    """Where calls are told of, beside the ledger; part of `llm_proxy.config.ObserveConfig`."""

    log: Literal["off", "text", "json"] = Field(
        "off", description="One line a call (no prompts, no keys) at INFO on the logger `llm_proxy.calls`."
    )
    otel: bool = Field(
        False,
        description="Make OpenTelemetry spans and metrics of calls, for the SDK that your program sets up; needs the "
        "extra `otel`.",
    )
