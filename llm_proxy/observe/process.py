"""Memory, files and time of this process, by the names that Prometheus's own libraries use."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["process_figures"]

_BYTES_PER_KIB = 1024


def process_figures(pid: int) -> Iterator[tuple[str, str, str, float]]:
    """Name, kind, meaning and value of each figure; those that the system does not tell are left out.

    Args:
        pid: This process.

    Source: prometheus.io/docs/instrumenting/writing_clientlibs, process metrics; proc(5).
    """
    yield "process_cpu_seconds_total", "counter", "Processor time.", time.process_time()
    yield "process_threads", "gauge", "Threads of Python.", threading.active_count()
    folder = Path("/proc") / str(pid)
    try:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        resident = int(status["VmRSS"].split()[0]) * _BYTES_PER_KIB
        files = len(os.listdir(folder / "fd"))
    except (OSError, KeyError, ValueError):
        return  # not Linux, or a kernel that hides it
    yield "process_resident_memory_bytes", "gauge", "Memory that is in RAM.", resident
    yield "process_open_fds", "gauge", "Open files and connections.", files
