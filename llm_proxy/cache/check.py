"""Compares everything with everything: records, the store's structure, the view, and the snapshot."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheCorruptError

from . import snapshot
from .entry import decode_entry
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
        repair: Remove rows and files that are damaged. The view is not touched: have it read the store again.

    Raises:
        CacheError: The store cannot be read, or the repair cannot be written.
    """
    findings = list(store.check(repair=repair))
    refused = store.refused
    entries, damaged = _records(store)
    if store.refused > refused:
        findings.append(f"{store.refused - refused} row(s) were passed over as not written by this store")
    if damaged:
        findings.append(f"{len(damaged)} record(s) cannot be read")
    catch_up()
    findings += _differences(store, view, entries, damaged)
    problem = _snapshot_problem(snapshot_path)
    if problem:
        findings.append(problem)
    if repair:
        store.remove(damaged)
        if problem and snapshot_path is not None:
            with suppress(OSError):  # one that can't be removed, such as a directory, is found again
                snapshot_path.unlink()
    return CheckReport(len(entries) + len(damaged), len(damaged), tuple(findings))


def _records(store: Store) -> tuple[dict[str, str], list[str]]:
    """Of each good record the encoder of its vector, empty without one; and the keys of the damaged ones."""
    entries, damaged = {}, []
    for row in store.scan():
        encoder = _encoder(row.key, row.record)
        if encoder is None:
            damaged.append(row.key)
        else:
            entries[row.key] = encoder
    return entries, damaged


def _encoder(key: str, record: bytes) -> str | None:
    """The encoder of a record's vector, empty without one; None when the record is damaged."""
    try:
        entry = decode_entry(record)
    except CacheCorruptError:
        return None
    if entry.key != key or (entry.vector is not None and not is_unit(entry.vector)):
        return None
    return entry.encoder if entry.text and entry.vector is not None else ""


def _differences(store: Store, view: View, entries: dict[str, str], damaged: list[str]) -> list[str]:
    keys = {*view.keys(), *entries}.difference(damaged)
    suspects = [key for key in keys if _fault(view, key, entries.get(key))]
    faults: dict[str, int] = {}
    for key in suspects:
        # Another process may have written since the record was read: look again before calling it a fault.
        record = store.get(key)
        fault = _fault(view, key, None if record is None else _encoder(key, record))
        if fault:
            faults[fault] = faults.get(fault, 0) + 1
    return [f"{count} {fault}" for fault, count in sorted(faults.items())]


def _fault(view: View, key: str, encoder: str | None) -> str:
    """What is wrong between a record with a vector of this encoder (None: no record) and the view."""
    index = view.index
    is_indexed = index is not None and key in index
    if encoder is None:
        return "entr(ies) in memory are not in the store" if key in view or is_indexed else ""
    if key not in view:
        return "entr(ies) of the store are not known in memory"
    if is_indexed == (index is not None and encoder == view.encoder != ""):
        return ""
    return "vector(s) in the index belong to no entry" if is_indexed else "entr(ies) with a vector are not in the index"


def _snapshot_problem(path: Path | None) -> str:
    try:
        if path is not None:
            snapshot.load(path)
    except FileNotFoundError:
        pass
    except (CacheCorruptError, OSError) as exc:
        return str(exc)
    return ""
