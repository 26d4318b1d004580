"""Keys that the proxy issues: the file they are kept in, how it is changed, and how a running proxy follows it.

::

    {"format": 1, "keys": [{"id": "1a2b3c4d", "name": "ci", "tenant": "ci", "sha256": "...", "models": [], ...}]}

A key is ``lp-`` and 256 random bits, shown once. The file has its SHA-256: a slow hash makes guessing dear, and
there is nothing to guess in random bits. A key that was taken back keeps its row, without the hash, so that what it did
keeps its name.

Writers take turns by a lock beside the file and put a new file in its place. Readers look once a second whether it is
another one. A file that is there means that callers need a key, whatever is in it; one that vanished or can't be read
admits nobody new, and never everybody.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from llm_proxy.errors import ConfigError
from llm_proxy.holders import Holder

try:
    import fcntl
except ImportError:  # a system without it: whoever changes keys there does so alone
    fcntl = None  # type: ignore[assignment]

__all__ = ["NAME", "KeyBook", "KeyRecord", "add", "read", "remove"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What names of keys and tenants are made of."""

_PREFIX, _BYTES, _ID_CHARS = "lp-", 32, 8
_FORMAT = 1
_LOOK_EVERY_S = 1.0
_MOST_BYTES = 16 << 20


class KeyRecord(NamedTuple):
    """A row of the file: the holder, and what only the file needs.

    Attributes:
        holder: Who holds the key, and what it may do.
        sha256: Of the key, hexadecimal; empty once it was taken back.
        created_s: Unix time.
        removed_s: Unix time at which it was taken back; None while it holds.
    """

    holder: Holder
    sha256: str
    created_s: float
    removed_s: float | None = None


def read(path: Path) -> list[KeyRecord]:
    """All keys of a file, those that were taken back included; empty where there is no file.

    Raises:
        ConfigError: It can't be read as one.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise ConfigError(f"the file of keys {path} can't be read: {exc.strerror}") from exc
    try:
        found = json.loads(raw)
        if found["format"] != _FORMAT:
            raise ValueError("of another version")
        return [_record(row) for row in found["keys"]]
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise ConfigError(f"{path} is no file of keys of this version ({type(exc).__name__})") from exc


def add(path: Path, holder: Holder, *, now_s: float) -> tuple[str, KeyRecord]:
    """Issue a key; returns it, for the only time, and its record.

    Args:
        path: The file; made, readable by its owner only, with its folder where they are not there.
        holder: Who gets it; its ``id`` is filled in here.
        now_s: Unix time.

    Raises:
        ConfigError: A key of this name holds already, or the file can't be read or written.
    """
    with _changing(path) as records:
        if any(record.holder.name == holder.name and record.removed_s is None for record in records):
            raise ConfigError(f"a key named {holder.name!r} is there already; take it back first: llm-proxy keys rm")
        taken = {record.holder.id for record in records}
        while True:
            key = _PREFIX + secrets.token_urlsafe(_BYTES)
            digest = hashlib.sha256(key.encode()).hexdigest()
            if digest[:_ID_CHARS] not in taken:
                break
        made = KeyRecord(holder._replace(id=digest[:_ID_CHARS]), digest, now_s)
        records.append(made)
    return key, made


def remove(path: Path, name: str, *, now_s: float) -> KeyRecord:
    """Take a key back; returns what it was.

    Args:
        path: The file.
        name: The key's name or id.
        now_s: Unix time.

    Raises:
        ConfigError: There is no such key, or the file can't be read or written.
    """
    if not path.is_file():
        raise ConfigError(f"no keys were issued: there is no {path}")
    with _changing(path) as records:
        for place, record in enumerate(records):
            if record.removed_s is None and name in {record.holder.name, record.holder.id}:
                records[place] = record._replace(sha256="", removed_s=now_s)
                return record
    raise ConfigError(f"no key has the name or id {name!r}; llm-proxy keys ls shows them")


class KeyBook:
    """The keys of a file as a running proxy knows them: at most a second old. For one thread at a time.

    Args:
        path: The file; None: no keys are issued.
        time: Unix time, seconds.
        monotonic: A clock for how often it is looked at.
        note: Takes what goes wrong while it is followed.

    Raises:
        ConfigError: The file is there and can't be read.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        time: Callable[[], float],
        monotonic: Callable[[], float],
        note: Callable[[Exception], object],
    ) -> None:
        self._path, self._time, self._monotonic, self._note = path, time, monotonic, note
        self._known: Mapping[str, KeyRecord] = {}
        self._seen = _sign(path)
        self._looked_s = monotonic()
        self.is_managed = self._seen is not None
        """Whether callers need a key; once they do, they do until the process ends."""
        if path is not None and self.is_managed:
            self._known = _by_id(read(path))

    def find(self, secret: bytes) -> Holder | None:
        """Whose key this is; None for one that was not issued, or taken back, or whose time is over.

        What is compared in a time that depends on the secret is only its public name, the beginning of its hash.
        """
        self.refresh()
        digest = hashlib.sha256(secret).hexdigest()
        record = self._known.get(digest[:_ID_CHARS])
        is_it = hmac.compare_digest(digest, record.sha256 if record is not None else "0" * len(digest))
        if record is None or not is_it or not secret.startswith(_PREFIX.encode()):
            return None
        expires_s = record.holder.expires_s
        return None if expires_s is not None and self._time() >= expires_s else record.holder

    def named(self) -> Mapping[str, Holder]:
        """All holders by id, former ones included; from any thread."""
        return {key_id: record.holder for key_id, record in self._known.items()}

    def refresh(self, *, is_due: bool = False) -> None:
        """Follow the file, at most once a second unless it is due; never raises."""
        now_s = self._monotonic()
        if self._path is None or not (is_due or now_s - self._looked_s >= _LOOK_EVERY_S):
            return
        self._looked_s = now_s
        seen = _sign(self._path)
        if seen == self._seen:
            return
        try:
            found = _by_id(read(self._path))
        except ConfigError as exc:  # what is known holds on
            self._note(exc)
            return
        self._known, self._seen = found, seen
        self.is_managed = self.is_managed or seen is not None


def _by_id(records: list[KeyRecord]) -> dict[str, KeyRecord]:
    return {record.holder.id: record for record in records}


def _sign(path: Path | None) -> tuple[int, ...] | None:
    """What tells one version of a file from another; None where there is none."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:  # of a folder that may not be entered: what is beside it is nobody's
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


@contextmanager
def _changing(path: Path) -> Iterator[list[KeyRecord]]:
    """The records of a file, to be changed in place; written at the end of the block, by one process at a time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            records = read(path)
            yield records
            _write(path, records)
        finally:
            os.close(lock)
    except OSError as exc:
        raise ConfigError(f"the file of keys {path} can't be written: {exc.strerror}") from exc


def _write(path: Path, records: list[KeyRecord]) -> None:
    text = json.dumps({"format": _FORMAT, "keys": [_row(record) for record in records]}, indent=1)
    before = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    with os.fdopen(os.open(before, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        try:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
            _keep_owner(path, before)
            before.replace(path)
        except BaseException:
            before.unlink(missing_ok=True)
            raise


def _keep_owner(path: Path, before: Path) -> None:
    """Leave a file to whom it belonged: root may issue keys of a proxy that is somebody else."""
    with suppress(OSError, AttributeError):
        found = (path if path.exists() else path.parent).stat()
        if stat.S_ISREG(found.st_mode) or os.getuid() == 0:
            os.chown(before, found.st_uid, found.st_gid)


def _row(record: KeyRecord) -> dict[str, Any]:
    rest = {name: value for name, value in record._asdict().items() if name != "holder"}
    return {**record.holder._asdict(), **rest}


def _record(row: Mapping[str, Any]) -> KeyRecord:
    """A row of the file, checked.

    Raises:
        ValueError: It is none.
        KeyError: It lacks something.
        TypeError: Something in it is of another kind.
    """
    values = {name: row[name] for name in Holder._fields}
    models = values["models"]
    if not isinstance(models, list) or not all(isinstance(one, str) for one in (*models, values["id"])):
        raise TypeError("models")
    if not NAME.fullmatch(values["name"]) or not NAME.fullmatch(values["tenant"]):
        raise ValueError("name")
    numbers = ("requests_per_minute", "usd_per_day", "usd_per_month", "expires_s")
    if any(values[name] is not None and not float(values[name]) >= 0 for name in numbers):
        raise ValueError("amount")
    if not isinstance(row["sha256"], str):
        raise TypeError("sha256")
    removed_s = row["removed_s"]
    holder = Holder(**{**values, "models": tuple(models)})
    return KeyRecord(holder, row["sha256"], float(row["created_s"]), None if removed_s is None else float(removed_s))
