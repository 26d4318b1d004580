"""Who holds a key that the proxy has issued, and what that key may do."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple

__all__ = ["Holder"]


class Holder(NamedTuple):
    """The holder of an issued key, as the face that admitted the call knows it.

    Attributes:
        id: The first eight hexadecimal digits of the key's SHA-256: names the key in ledgers and accounts.
        name: What people call it.
        tenant: Whose cache it has: keys of one tenant share one, those of two never do.
        models: Names of models, routes and aliases that it may ask, or patterns (``gpt-*``); empty: all.
        requests_per_minute: Most requests in any 60 seconds; None: any number.
        usd_per_day: Dollars on one day (UTC); None: as many as there are.
        usd_per_month: Dollars in one month (UTC); likewise.
        may_pass: Whether it may use paths that are only passed on.
        may_watch: Whether it may see the dashboard and the metrics, which show the calls of all tenants.
        expires_s: Unix time from which it is no longer taken; None: never.
    """

    id: str
    name: str
    tenant: str
    models: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None
    may_pass: bool = True
    may_watch: bool = False
    expires_s: float | None = None

    @property
    def has_budget(self) -> bool:
        """Whether what it spends is bounded."""
        return self.usd_per_day is not None or self.usd_per_month is not None

    def may_ask(self, *names: str) -> bool:
        """Whether it may ask a model by one of these names; capitals matter, and ``*`` stands for ``/`` as well."""
        return not self.models or any(fnmatchcase(name, pattern) for name in names for pattern in self.models)
