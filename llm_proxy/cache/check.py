"""Compares everything with everything: records, the store's structure, the view, and the snapshot."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from llm_proxy.errors import CacheCorruptError, CacheError

from . import snapshot
from .entry import decode_entry, encode_entry, readable
from .evidence import decode_evidence
from .index.base import is_unit
from .results import CheckReport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .stores.base import Store
    from .view import View

__all__ = ["check"]


def check(
    store: Store, view: View, snapshot_path: Path | None, *, catch_up: Callable[[], None], repair: bool = False
) -> CheckReport:
    """Look for faults. In this process nothing may be written meanwhile; others may go on.

    Args:
        store: The store.
        view: What this process knows of it.
        snapshot_path: File of the snapshot, or None.
        catch_up: Brings the view up to the store.
        repair: Remove rows and files that are damaged, and vectors of a wrong length. Have the view read the store
            again after that.

    Raises:
        CacheError: The store cannot be read, or the repair cannot be written.
    """
    mute = _mute(store)  # before the store drops odd rows
    findings = list(store.check(repair=repair))
    refused = store.refused
    entries, damaged = _records(store)
    if store.refused > refused:
        findings.append(f"{store.refused - refused} row(s) were passed over as not written by this store")
    if damaged:
        findings.append(f"{len(damaged)} record(s) cannot be read")
    mute = _mute(store) if mute is None else mute  # it may be readable only now
    unsaid = [key for key in entries if key in (mute or ())]
    if unsaid:
        findings.append(f"{len(unsaid)} entr(ies) have evidence that cannot be read")
    catch_up()
    findings += _differences(store, view, entries, damaged)
    problem = _snapshot_problem(snapshot_path)
    if problem:
        findings.append(problem)
    dim = _usual_dim(view, entries)
    odd = [key for key, kind in entries.items() if kind.encoder == view.encoder != "" and kind.dim != dim]
    if odd:
        findings.append(f"{len(odd)} entr(ies) have a vector of another length than most of {view.encoder}")
    if repair:
        store.remove([*damaged, *unsaid])  # without it, what was found wrong would be served again
        _drop_vectors(store, odd, dim)
        if dim:
            view.adopt(view.encoder, dim)
        if problem and snapshot_path is not None:
            with suppress(OSError):  # one that can't be removed, such as a directory, is found again
                snapshot_path.unlink()
    return CheckReport(len(entries) + len(damaged), len(damaged), tuple(findings))


def _mute(store: Store) -> set[str] | None:
    """Keys of entries whose evidence can't be read; None where the store can't be."""
    with suppress(CacheError):
        keys = store.keys()
        return {key for key in keys if not _has_readable_evidence(store, key)}
    return None


def _has_readable_evidence(store: Store, key: str) -> bool:
    try:
        decode_evidence(store.evidence(key))
    except CacheCorruptError:
        return False
    return True


class _Kind(NamedTuple):
    """Whose vector a record has: empty and 0 without one."""

    encoder: str
    dim: int


_NO_VECTOR = _Kind("", 0)


def _usual_dim(view: View, entries: dict[str, _Kind]) -> int:
    """The length that most vectors of the view's encoder have, the index's own where as many have that; 0: none has."""
    counts = Counter(kind.dim for kind in entries.values() if kind.encoder == view.encoder != "")
    own = view.index.dim if view.index is not None else 0
    return max(counts, key=lambda dim: (counts[dim], dim == own), default=0)


def _drop_vectors(store: Store, keys: list[str], dim: int) -> None:
    """Take vectors of another length off: the entries are served on exact keys, and may be encoded again."""
    for key in keys:
        with store.writing():
            record = store.get(key)
            entry = None if record is None else readable(record)
            if entry is not None and entry.vector is not None and len(entry.vector) != dim:
                store.put(key, encode_entry(replace(entry, vector=None, encoder="", seen_chars=0)))


def _records(store: Store) -> tuple[dict[str, _Kind], list[str]]:
    """Of each good record the kind of its vector; and the keys of the damaged ones."""
    entries, damaged = {}, []
    known: dict[_Kind, _Kind] = {}  # a million entries have two or three
    for row in store.scan():
        kind = _kind(row.key, row.record)
        if kind is None:
            damaged.append(row.key)
        else:
            entries[row.key] = known.setdefault(kind, kind)
    return entries, damaged


def _kind(key: str, record: bytes) -> _Kind | None:
    """The kind of a record's vector; None when the record is damaged."""
    try:
        entry = decode_entry(record)
    except CacheCorruptError:
        return None
    if entry.key != key or (entry.vector is not None and not is_unit(entry.vector)):
        return None
    return _Kind(entry.encoder, len(entry.vector)) if entry.text and entry.vector is not None else _NO_VECTOR


def _differences(store: Store, view: View, entries: dict[str, _Kind], damaged: list[str]) -> list[str]:
    keys = {*view.keys(), *entries}.difference(damaged)
    suspects = [key for key in keys if _fault(view, key, entries.get(key))]
    faults: dict[str, int] = {}
    for key in suspects:
        # Another process may have written since the record was read: look again before calling it a fault.
        record = store.get(key)
        fault = _fault(view, key, None if record is None else _kind(key, record))
        if fault:
            faults[fault] = faults.get(fault, 0) + 1
    return [f"{count} {fault}" for fault, count in sorted(faults.items())]


def _fault(view: View, key: str, kind: _Kind | None) -> str:
    """What is wrong between a record with a vector of this kind (None: no record) and the view."""
    index = view.index
    is_indexed = index is not None and key in index
    if kind is None:
        return "entr(ies) in memory are not in the store" if key in view or is_indexed else ""
    if key not in view:
        return "entr(ies) of the store are not known in memory"
    if is_indexed == (index is not None and kind == (view.encoder, index.dim) and kind.encoder != ""):
        return ""
    return "vector(s) in the index belong to no entry" if is_indexed else "entr(ies) with a vector are not in the index"


def _snapshot_problem(path: Path | None) -> str:
    try:
        if path is not None and not snapshot.is_of_other_version(path):
            snapshot.load(path)
    except FileNotFoundError:
        pass
    except (CacheCorruptError, OSError) as exc:
        return str(exc)
    return ""
