"""Names of processes, by which others on the same machine see whether they are gone."""

from __future__ import annotations

import os
import socket
from functools import lru_cache
from pathlib import Path

__all__ = ["is_gone", "owner"]

_PROC = Path("/proc")


def owner() -> str:
    """The name of this process: its machine, its number there, and when it began, as numbers are used again."""
    return _name(os.getpid())


def is_gone(name: str) -> bool:
    """Whether a process is gone for sure; of another machine, or where the system does not say, nobody is."""
    machine, number, began = name.rsplit("|", 2)
    if os.name != "posix" or machine != _machine():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's: it is there, but perhaps not the same one
        pass
    now = _began(int(number))
    return now != "" and now != began


@lru_cache(maxsize=1)
def _name(pid: int) -> str:
    return f"{_machine()}|{pid}|{_began(pid)}"


def _machine() -> str:
    """The machine, and the part of it that counts its processes by itself."""
    try:
        part = str((_PROC / "self/ns/pid").stat().st_ino)
    except OSError:
        part = ""
    return f"{socket.gethostname()}|{part}"


def _began(pid: int) -> str:
    """When a process began, in the system's ticks; empty where that is not known, ``dead`` where it only seems alive.

    Source: proc_pid_stat(5).
    """
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "dead" if fields[0] == "Z" else fields[19]
