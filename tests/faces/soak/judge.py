"""What a process holds, looked at once a second, and whether that stays flat: memory, open files, threads.

The rule: the first third of a run is to warm up. Of the rest, the rise of its regression line from end to end, and the
mean of its last minute less that of its first one, must both be at most `MOST`. In runs of less than six minutes a
sixth of the run stands for the minute.

So both may also be as high as chance explains: two standard deviations, by what the minutes between the first and the
last one differ by from the line.

A pool of threads grows with what waits at once, so with what else the machine does: by 7 where another load halved the
calls a second. So where the load rested for a while, after the warm-up and before the end, threads are compared at
rest, when the pool has given back what is idle.

Connections that callers hold open are theirs, and not counted: they keep as many as they ever had at once. One that the
proxy keeps when its caller has closed it is counted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

__all__ = ["MOST", "Flatness", "Sample", "family", "judged", "plot", "sample"]

MOST: Mapping[str, float] = {"rss_mib": 24.0, "fds": 4.0, "threads": 2.0}
"""How much each may grow after the warm-up: MiB, files, threads.

The proxy gives memory back once it has grown by 16 MiB, and what the C library keeps for each thread settles slowly,
within some 10 MiB. At 60 calls a second 24 MiB in 20 minutes are 350 bytes a call: what is kept of each call is found.
"""

_WINDOW_S = 60.0
_ESTABLISHED = "01"
_FEW = 10  # minutes between the first and the last: of fewer the spread is not known


@dataclass(frozen=True)
class Sample:
    """What a process and its children hold at a moment.

    Attributes:
        s: Seconds since the load began.
        rss_mib: Memory that is resident, MiB.
        fds: Open files and connections, without those that callers hold open.
        threads: Threads.
        calls: Calls that were answered so far.
        rest: The how manieth rest of the load it is, from 1; 0 under load.
    """

    s: float
    rss_mib: float
    fds: int
    threads: int
    calls: int = 0
    rest: int = 0


@dataclass(frozen=True)
class Flatness:
    """How one of them went after the warm-up.

    Attributes:
        mean: Its mean.
        rise: Of the regression line, from its beginning to its end.
        step: Mean of the last minute less that of the first.
        most: Bound of both.
        chance_rise: What chance explains of the rise: two standard deviations of that of a line through the minutes.
        chance_step: The same of the step: of the difference of two minutes.
    """

    mean: float
    rise: float
    step: float
    most: float
    chance_rise: float = 0.0
    chance_step: float = 0.0

    @property
    def is_flat(self) -> bool:
        """Whether it did not grow; that it shrinks is no fault."""
        return self.rise <= max(self.most, self.chance_rise) and self.step <= max(self.most, self.chance_step)


def family(pid: int) -> list[int]:
    """A process and all below it that are there."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *(one for child in children for one in family(int(child)))]


def sample(pid: int, s: float, calls: int = 0, *, port: int = 0, rest: int = 0) -> Sample:
    """Look at a process and its children. Source: proc(5).

    Args:
        pid: The process.
        s: Seconds since the load began.
        calls: Calls that were answered so far.
        port: That it listens on, if callers hold connections to it.
        rest: The how manieth rest of the load it is.

    Raises:
        OSError: It is not there.
    """
    pages = files = threads = 0
    for one in family(pid):
        folder = Path(f"/proc/{one}")
        pages += int((folder / "statm").read_text().split()[1])
        files += len(os.listdir(folder / "fd"))
        threads += len(os.listdir(folder / "task"))
    files -= _held(port) if port else 0
    return Sample(s, pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), files, threads, calls, rest)


def _held(port: int) -> int:
    """Connections to a port that both sides hold open."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(int(row[1].partition(":")[2], 16) == port and row[3] == _ESTABLISHED for row in rows)


def judged(samples: Sequence[Sample], most: Mapping[str, float] = MOST) -> dict[str, Flatness]:
    """Apply the rule to each quantity of ``most``; at least six samples."""
    import numpy as np

    whole_s = samples[-1].s
    kept = [row for row in samples if row.s >= whole_s / 3 and not row.rest]
    seconds = np.array([row.s for row in kept])
    window_s = min(_WINDOW_S, whole_s / 6)
    is_first, is_last = seconds <= seconds[0] + window_s, seconds >= seconds[-1] - window_s
    found = {}
    for name, bound in most.items():
        values = np.array([float(getattr(row, name)) for row in kept])
        slope, middle = np.polyfit(seconds - seconds[0], values, 1)
        step = float(values[is_last].mean() - values[is_first].mean())
        minute = (seconds - seconds[0]) // window_s
        beside = values - slope * (seconds - seconds[0]) - middle
        means = [beside[minute == one].mean() for one in range(1, int(minute[-1]))]  # neither the first nor the last
        spread = float(np.std(means)) if len(means) >= _FEW else 0.0
        rise = float(slope * (seconds[-1] - seconds[0]))
        chances = 2.0 * (12.0 / max(len(means), 1)) ** 0.5 * spread, 2.0 * 2.0**0.5 * spread
        found[name] = Flatness(float(values.mean()), rise, step, bound, *chances)
    rests = [_at_rest(samples, number) for number in sorted({row.rest for row in samples} - {0})]
    if len(rests) > 1 and "threads" in most:
        grown = rests[-1] - rests[0]
        found["threads"] = Flatness(sum(rests) / len(rests), grown, grown, most["threads"])
    return found


def _at_rest(samples: Sequence[Sample], number: int) -> float:
    """Mean threads in the last quarter of a rest."""
    threads = [row.threads for row in samples if row.rest == number]
    return sum(last := threads[-max(1, len(threads) // 4) :]) / len(last)


def plot(samples: Sequence[Sample], path: Path) -> None:
    """Draw all of it over time, the warm-up in grey."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    seconds = [row.s for row in samples]
    figure, axes = pyplot.subplots(4, 1, sharex=True, figsize=(8, 9))
    for axis, name, label in zip(axes, MOST, ("resident MiB", "open files", "threads"), strict=False):
        axis.plot(seconds, [getattr(row, name) for row in samples], linewidth=0.8)
        axis.set(ylabel=label, ylim=(0, None))
    gaps = list(pairwise(samples))
    rates = [(after.calls - before.calls) / max(after.s - before.s, 1e-9) for before, after in gaps]
    axes[3].plot(seconds[1:], rates, linewidth=0.8)
    axes[3].set(ylabel="calls a second", xlabel="seconds", ylim=(0, None))
    for axis in axes:
        axis.axvspan(0, seconds[-1] / 3, color="0.92")
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
