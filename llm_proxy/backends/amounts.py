"""What a call is counted on: the amounts of limits and of issued keys, by day and month."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from llm_proxy.config import BudgetLimit
    from llm_proxy.holders import Holder

    from .base import Ask

__all__ = ["PICO", "Check", "account_of", "checks_of", "day_of", "month_of", "whole"]

PICO = 10**12
"""Dollars are counted in whole parts of so many."""


class Check(NamedTuple):
    """One amount of one limit, in dollars of 10^-12 or tokens."""

    limit: str
    account: tuple[str, str]
    unit: str
    most: int


def account_of(key_id: str) -> str:
    """The name of the account of an issued key; see `llm_proxy.holders.Holder`."""
    return f"issued {key_id}"


def checks_of(limits: Mapping[str, BudgetLimit], ask: Ask, moment: datetime) -> Iterator[Check]:
    """What must have room for a call."""
    whose = {"total": "", "key": ask.tenant, "route": ask.route, "backend": ask.backend}
    for name, limit in limits.items():
        who = whose[limit.per]
        is_meant = limit.per == "total" or (who != "" and (not limit.only or who in limit.only))
        if not is_meant or (ask.is_free and not (limit.per == "backend" and limit.only)):
            continue
        account = f"{limit.per} {who}".strip()
        for unit, most, period in (
            ("usd", limit.usd_per_day, day_of(moment)),
            ("usd", limit.usd_per_month, month_of(moment)),
            ("tokens", limit.tokens_per_day, day_of(moment)),
            ("tokens", limit.tokens_per_month, month_of(moment)),
        ):
            if most is not None and not (ask.is_free and unit == "usd"):
                yield Check(name, (account, period), unit, whole(most) if unit == "usd" else int(most))
    if ask.holder is not None and not ask.is_free:
        yield from _own_checks(ask.holder, moment)


def _own_checks(holder: Holder, moment: datetime) -> Iterator[Check]:
    """What must have room in the budget of an issued key."""
    account = account_of(holder.id)
    for most, period in ((holder.usd_per_day, day_of(moment)), (holder.usd_per_month, month_of(moment))):
        if most is not None:
            yield Check(f"of key {holder.name}", (account, period), "usd", whole(most))


def whole(usd: float) -> int:
    """Dollars as a whole number of 10^-12."""
    return round(usd * PICO)


def day_of(moment: datetime) -> str:
    """The name of a day."""
    return moment.strftime("%Y-%m-%d")


def month_of(moment: datetime) -> str:
    """The name of a month."""
    return moment.strftime("%Y-%m")
