"""What may be spent, and what was: exact among threads and processes, by one transaction a reservation.

::

    reserve   of every limit that is for the call, and of its day and its month:
                spent + reserved + what the call may take <= limit     else `LimitReached`, and nothing is reserved
    settle    what it took is spent; what was reserved for it is free again

SQLite runs one writing transaction at a time, so whoever asks sees all that was reserved before. What is settled waits
in memory until the next reservation of this process, or a moment, whichever comes first: no event loop waits for it. A
call may take more than was reserved for it, where nobody set a limit to its answer: that is spent all the same, and the
next one has less.

A reservation of a process that has died, or that is an hour old, is free again as soon as room is short; what it took
after all is not known. Amounts count on the day (UTC) on which they were reserved. Dollars are whole numbers of
10^-12, so that sums are exact.

A model known to be free is held up by no limit, but for one of tokens that names its backend.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_proxy.errors import CacheError, LimitReached
from llm_proxy.forking import working

from .amounts import PICO, Check, checks_of, day_of, month_of, whole
from .owners import is_gone, owner

if TYPE_CHECKING:
    from llm_proxy.config import BudgetLimit

    from .base import Ask

__all__ = ["Account", "Budget", "Reservation", "accounts"]

APPLICATION_ID = 0x4C50_4231  # "LPB1": tells a budget from any other SQLite file. Source: sqlite.org/fileformat.html
_SCHEMA = (
    """CREATE TABLE accounts (
      name TEXT NOT NULL, period TEXT NOT NULL, usd INTEGER NOT NULL, tokens INTEGER NOT NULL,
      held_usd INTEGER NOT NULL, held_tokens INTEGER NOT NULL, PRIMARY KEY (name, period)) WITHOUT ROWID""",
    """CREATE TABLE holds (
      reservation TEXT NOT NULL, name TEXT NOT NULL, period TEXT NOT NULL, usd INTEGER NOT NULL,
      tokens INTEGER NOT NULL, owner TEXT NOT NULL, since_s REAL NOT NULL,
      PRIMARY KEY (reservation, name, period)) WITHOUT ROWID""",
    f"PRAGMA application_id = {APPLICATION_ID}",
)
_OPEN_ACCOUNT = "INSERT OR IGNORE INTO accounts VALUES (?, ?, 0, 0, 0, 0)"
_HOLD = "UPDATE accounts SET held_usd = held_usd + ?, held_tokens = held_tokens + ? WHERE name = ? AND period = ?"
_SPEND = "UPDATE accounts SET usd = usd + ?, tokens = tokens + ? WHERE name = ? AND period = ?"
_BUSY_S, _PAUSE_S = 2.0, 0.02  # longest wait for other processes, and between two tries
_LEASE_S = 3600.0


class Account(NamedTuple):
    """What one key, route, backend, or all, spent on a day or in a month.

    Attributes:
        name: ``total``, ``key NAME``, ``route NAME``, ``backend NAME``, or ``issued ID`` of an issued key.
        period: ``2026-01-31`` or ``2026-01``, UTC.
        usd: Spent, dollars.
        tokens: Spent.
        held_usd: Reserved for calls under way, dollars.
        held_tokens: Likewise.
    """

    name: str
    period: str
    usd: float
    tokens: int
    held_usd: float
    held_tokens: int


class Reservation(NamedTuple):
    """What was set aside for a call, and on which accounts it counts."""

    number: str
    accounts: tuple[tuple[str, str], ...]


class Budget:
    """The budgets of one configuration; thread-safe.

    Args:
        path: The SQLite file; made, with its folder, on first use, readable by its owner only. None: in memory, for
            this process alone.
        limits: What may be spent, by name.
        time: Unix time, seconds.
        later: Has a function called some time soon, elsewhere.
        note: Takes what went wrong while something was settled.
    """

    def __init__(
        self,
        path: Path | None,
        limits: Mapping[str, BudgetLimit],
        *,
        time: Callable[[], float],
        later: Callable[[Callable[[], Any]], object],
        note: Callable[[Exception], object],
    ) -> None:
        self._limits, self._time, self._later, self._note = limits, time, later, note
        self._file = _File(path)
        self._lock = threading.Lock()
        self._settled: deque[tuple[Reservation, int, int]] = deque()
        self._is_due = self._is_closed = False

    def reserve(self, ask: Ask) -> Reservation | None:
        """Set aside what a call may take; see `llm_proxy.engine.ports.Purse`.

        Returns:
            To `settle` it by; None where no limit is for the call.

        Raises:
            LimitReached: There is not so much left.
            CacheError: The file can't be used.
        """
        checks = list(checks_of(self._limits, ask, datetime.fromtimestamp(self._time(), UTC)))
        if not checks:
            return None
        asked = {"usd": whole(ask.usd), "tokens": ask.tokens}
        reservation = Reservation(secrets.token_hex(8), tuple(dict.fromkeys(check.account for check in checks)))
        with self._transaction() as connection:
            for account in reservation.accounts:
                connection.execute(_OPEN_ACCOUNT, account)
            short = _short(connection, checks, asked)
            if short is not None and _free_stale(connection, self._time() - _LEASE_S):
                short = _short(connection, checks, asked)
            if short is None:
                self._hold(connection, reservation, asked)
            refused = None if short is None else _refusal(connection, short, asked)
        if refused is not None:  # only now: what was settled meanwhile stays written
            raise refused
        return reservation

    def settle(self, reservation: Reservation, usd: float, tokens: int) -> None:
        """Put what a call took in place of what was set aside; see `llm_proxy.engine.ports.Purse`."""
        self._settled.append((reservation, whole(usd), tokens))
        if self._is_closed:
            self.flush()
        elif not self._is_due:
            self._is_due = True
            self._later(self.flush)

    def flush(self) -> None:
        """Write what was settled; never raises."""
        self._is_due = False
        if not self._settled:
            return
        try:
            with self._transaction():
                pass
        except CacheError as exc:
            self._note(exc)

    def close(self) -> None:
        """Write what was settled and release the file; calling it again is safe, as is a late `settle`."""
        self._is_closed = True
        self.flush()
        with self._lock:
            self._file.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Writes what was settled, then what is done with the connection."""
        with working, self._lock:  # in this order: a child of a fork must not find the lock taken
            try:
                connection = self._file.connection()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    settled = tuple(self._settled)
                    for row in settled:
                        _settle(connection, *row)
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            except (sqlite3.Error, OSError) as exc:
                raise CacheError(f"budget {self._file.path or 'in memory'} can't be used: {exc}") from exc
            for _ in settled:
                self._settled.popleft()

    def _hold(self, connection: sqlite3.Connection, reservation: Reservation, asked: Mapping[str, int]) -> None:
        for account in reservation.accounts:
            amounts = asked["usd"], asked["tokens"]
            connection.execute(_HOLD, (*amounts, *account))
            row = (reservation.number, *account, *amounts, owner(), self._time())
            connection.execute("INSERT INTO holds VALUES (?, ?, ?, ?, ?, ?, ?)", row)


class _File:
    """The connection of this process to the file; for one thread at a time."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._open: tuple[sqlite3.Connection, tuple[int, ...]] | None = None

    def connection(self) -> sqlite3.Connection:
        """Open, with the tables laid out; opened anew in a child, and where the file was taken away."""
        if self._open is not None:
            if self._open[1] == self._identity():
                return self._open[0]
            if self._open[1][:1] == (os.getpid(),):  # the file was taken away
                self._open[0].close()
            else:
                _left_open.append(self._open)  # a parent's connection must not be closed here
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self.path, os.O_CREAT | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(
            self.path or ":memory:", timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA synchronous = NORMAL")
        _lay_out(connection, self.path)
        self._open = connection, self._identity()
        return connection

    def close(self) -> None:
        if self._open is not None and self._open[1] == self._identity():
            self._open[0].close()
        self._open = None

    def _identity(self) -> tuple[int, ...]:
        try:
            found = self.path.stat() if self.path is not None else None
        except FileNotFoundError:
            return ()
        return (os.getpid(),) if found is None else (os.getpid(), found.st_dev, found.st_ino)


_left_open: list[object] = []


def accounts(path: Path, *, now_s: float) -> list[Account]:
    """What was spent today and this month (UTC), by name; empty where there is no file.

    Raises:
        CacheError: The file can't be read as a budget.
    """
    if not path.is_file():
        return []
    moment = datetime.fromtimestamp(now_s, UTC)
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as connection:
            if not _is_laid_out(connection, path):
                return []
            rows = connection.execute(
                "SELECT * FROM accounts WHERE period IN (?, ?) ORDER BY name, period",
                (day_of(moment), month_of(moment)),
            ).fetchall()
    except sqlite3.Error as exc:
        raise CacheError(f"budget {path} can't be read: {exc}") from exc
    return [
        Account(name, period, usd / PICO, tokens, held_usd / PICO, held_tokens)
        for name, period, usd, tokens, held_usd, held_tokens in rows
    ]


def _lay_out(connection: sqlite3.Connection, path: Path | None) -> None:
    if _is_laid_out(connection, path):
        return
    _set_wal(connection)
    connection.execute("BEGIN IMMEDIATE")
    if not _is_laid_out(connection, path):  # asked again: another process may have been faster
        for statement in _SCHEMA:
            connection.execute(statement)
    connection.execute("COMMIT")


def _set_wal(connection: sqlite3.Connection) -> None:
    """Have the file written ahead; SQLite itself does not wait here for other processes that open it just now."""
    for left in range(int(_BUSY_S / _PAUSE_S), -1, -1):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if not left or exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(_PAUSE_S)


def _is_laid_out(connection: sqlite3.Connection, path: Path | None) -> bool:
    # In this order: another process may lay it out between the two, tables and number at once.
    if not connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
        return False
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise CacheError(f"{path} is not a budget of llm-proxy; move it away or set another cache.directory")
    return True


def _short(connection: sqlite3.Connection, checks: Iterable[Check], asked: Mapping[str, int]) -> Check | None:
    """The first amount that has no room."""
    for check in checks:
        spent, held = _amounts(connection, check)
        if spent + held + asked[check.unit] > check.most:
            return check
    return None


def _amounts(connection: sqlite3.Connection, check: Check) -> tuple[int, int]:
    query = f"SELECT {check.unit}, held_{check.unit} FROM accounts WHERE name = ? AND period = ?"
    spent, held = connection.execute(query, check.account).fetchone()
    return spent, held


def _refusal(connection: sqlite3.Connection, check: Check, asked: Mapping[str, int]) -> LimitReached:
    spent, held = _amounts(connection, check)
    shown = _dollars if check.unit == "usd" else _tokens
    name, period = check.account
    return LimitReached(
        f"limit {check.limit!r} of the budget ({name}, {period} UTC) has no room: of {shown(check.most)} "
        f"{shown(spent)} is spent and {shown(held)} reserved, and this call may take {shown(asked[check.unit])}",
        code="budget_exceeded",
    )


def _settle(connection: sqlite3.Connection, reservation: Reservation, usd: int, tokens: int) -> None:
    _free(connection, "reservation = ?", reservation.number)
    for account in reservation.accounts:
        connection.execute(_OPEN_ACCOUNT, account)
        connection.execute(_SPEND, (usd, tokens, *account))


def _free_stale(connection: sqlite3.Connection, before_s: float) -> bool:
    """Free what is reserved for processes that are gone, and what is too old; whether there was any."""
    owners = [row[0] for row in connection.execute("SELECT DISTINCT owner FROM holds")]
    freed = _free(connection, "since_s < ?", before_s)
    for name in owners:
        if is_gone(name):
            freed += _free(connection, "owner = ?", name)
    return freed > 0


def _free(connection: sqlite3.Connection, condition: str, value: object) -> int:
    rows = connection.execute(f"SELECT usd, tokens, name, period FROM holds WHERE {condition}", (value,)).fetchall()
    for usd, tokens, name, period in rows:
        connection.execute(_HOLD, (-usd, -tokens, name, period))
    connection.execute(f"DELETE FROM holds WHERE {condition}", (value,))
    return len(rows)


def _dollars(amount: int) -> str:
    return f"${amount / PICO:,.6f}".rstrip("0").rstrip(".")


def _tokens(amount: int) -> str:
    return f"{amount:,} tokens"
