"""Settings of what limits calls: the queue of a backend, how long a route lets calls wait, and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from .base import Frozen

__all__ = ["AMOUNTS", "BudgetConfig", "BudgetLimit", "Hurried", "Queued"]

AMOUNTS = ("usd_per_day", "usd_per_month", "tokens_per_day", "tokens_per_month")
"""What a limit can be on."""


class Queued(Frozen):
    """How many calls a backend answers at a time, and how others wait."""

    concurrency: int | None = Field(
        None,
        gt=0,
        description="Answers that it works on at a time, of this process; further calls wait in a queue, the one with "
        "the shortest predicted answer first. Unset: any number.",
    )
    queue_length: int = Field(
        1000, ge=0, description="Most calls that wait for `concurrency`; further ones are refused with 429."
    )
    queue_wait_s: float = Field(
        60.0,
        ge=0,
        description="A call that has waited so long, and 1.7 times as long as all who waited in the longest jam since "
        "it came would take at their usual, is overtaken by none that came later; 0: none ever is.",
    )
    cold_start_s: float = Field(
        120.0,
        ge=0,
        description="Longest wait for a server on this machine that answers 503 since it loads its model; 0: none.",
    )


class Hurried(Frozen):
    """How long a route lets calls wait."""

    max_wait_s: float | None = Field(
        None,
        ge=0,
        description="Where a call is predicted to wait longer than this for its backend, another candidate is asked; "
        "unset: it waits.",
    )


class BudgetLimit(Frozen):
    """What may be spent; of every call it is for, all of its amounts must have room."""

    per: Literal["total", "key", "route", "backend"] = Field(
        "total", description="What has the amounts for itself: all calls, or each key (`cache.tenant`), route, backend."
    )
    only: tuple[str, ...] = Field(
        (), description="Names of keys, routes or backends that it is for; empty: each. `llm-proxy budget` shows them."
    )
    usd_per_day: float | None = Field(None, ge=0, description="Dollars on one day (UTC).")
    usd_per_month: float | None = Field(None, ge=0, description="Dollars in one month (UTC).")
    tokens_per_day: int | None = Field(None, ge=0, description="Tokens of prompts and answers on one day (UTC).")
    tokens_per_month: int | None = Field(None, ge=0, description="Tokens of prompts and answers in one month (UTC).")

    @model_validator(mode="after")
    def _limits_something(self) -> BudgetLimit:
        if self.per == "total" and self.only:
            raise ValueError("only must be left out where per is 'total', which is for all calls")
        if all(getattr(self, name) is None for name in AMOUNTS):
            raise ValueError(f"one of {', '.join(AMOUNTS)} must be set")
        return self


class BudgetConfig(Frozen):
    """What may be spent on answers; hits cost nothing, and models known to be free are not held up."""

    limits: Mapping[str, BudgetLimit] = Field(
        default_factory=dict, description="Limits by name, which refusals mention; none: nothing is counted."
    )
    strict: bool = Field(
        False, description="Whether calls are refused while the budget's file can't be used, instead of sent uncounted."
    )
    unpriced_usd_per_mtok: float = Field(
        0.0, ge=0, description="What a million tokens of a model without a known price count for, dollars."
    )
