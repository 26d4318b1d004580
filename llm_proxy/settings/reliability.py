"""Settings of what is done when a backend fails: parts of the sections that `llm_proxy.config` makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from .base import Frozen

__all__ = ["CAUSES", "AttemptsConfig", "BackendAttempts", "Fallbacks", "WithAttempts"]

CAUSES = ("rate_limit", "context_length", "content_policy", "outage", "timeout")
"""Why a backend gave no answer, as far as another one may give it; ``any`` in the settings stands for all of them."""

Table = Mapping[str, tuple[str, ...]]


def _by_cause(value: Any) -> Any:
    """A table of lists by cause; a list stands for all causes."""
    if isinstance(value, (list, tuple)):
        return {"any": value}
    unknown = sorted(map(str, set(value) - {"any", *CAUSES})) if isinstance(value, Mapping) else []
    if unknown:
        raise ValueError(f"must be a table by cause (any, {', '.join(CAUSES)}), not {unknown[0]!r}")
    return value


class AttemptsConfig(Frozen):
    """How often one call may be sent."""

    most: int = Field(
        4, gt=0, description="Most requests that one call is sent as: the first, retries and fallbacks together."
    )
    longest_wait_s: float = Field(
        20.0, ge=0, description="Longest wait before a retry; where a backend asks for more, it is not asked again."
    )
    hedge_share: float = Field(
        0.05, ge=0, le=1, description="Largest share of a backend's calls that get a second request beside the first."
    )


class Fallbacks(Frozen):
    """Who is asked instead."""

    fallbacks: Annotated[Table, BeforeValidator(_by_cause)] = Field(
        default_factory=dict,
        description="Who is asked where no answer came: `BACKEND/MODEL` names (or `BACKEND`, for the same model), in "
        "turn; a list, or a table of lists by cause: `any`, `rate_limit`, `context_length`, `content_policy`, "
        "`outage`, `timeout`. Empty: the other candidates of the route, but never after `content_policy`.",
    )


class BackendAttempts(Fallbacks):
    """What one backend is asked more than once for, and how."""

    retries: int | None = Field(
        None,
        ge=0,
        description="How often a call is sent to it again. Unset: twice for calls through the proxy, never for those "
        "of clients, which retry by themselves.",
    )
    hedge: bool = Field(
        False,
        description="Send a second request beside one that takes longer than nearly all (the 95th percentile of at "
        "least 20), and take the first answer. It may be paid for twice.",
    )
    can_prefill: Literal["no", "continue_final_message", "trailing", "prefix", "prefix_echoed"] = Field(
        "no",
        description="How it is asked to go on with an answer that broke off: `continue_final_message` (vLLM, "
        "llama.cpp's own server), `trailing` (it goes on with a last message of the assistant by itself: llama.cpp's "
        "own server), `prefix` (DeepSeek), `prefix_echoed` (Mistral, which repeats the beginning). `no` for "
        "llama-cpp-python's server and `transformers serve`, which only begin anew.",
    )


class WithAttempts(Frozen):
    """What the whole configuration has of these settings."""

    attempts: AttemptsConfig = Field(default_factory=AttemptsConfig, description="How often a call is sent.")

    @model_validator(mode="after")
    def _fallbacks_exist(self) -> WithAttempts:
        backends: Mapping[str, Fallbacks] = getattr(self, "backends", {})
        for section in ("backends", "routes"):
            for name, settings in getattr(self, section, {}).items():
                for named in {one for row in settings.fallbacks.values() for one in row}:
                    if named.partition("/")[0] not in backends:
                        raise ValueError(
                            f"{section}.{name}.fallbacks must be BACKEND/MODEL with BACKEND one of {sorted(backends)}, "
                            f"not {named!r}"
                        )
        return self
