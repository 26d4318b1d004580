"""A simulation of the order of work at a busy local model: ``python -m benchmarks.schedule --trace FILE --slots 2``.

Its queue is a proxy's, `llm_proxy.backends.queue.Queue`, on a clock that jumps from event to event. Requests come when
those of the trace came, all intervals stretched by one factor, so that the backend would be busy for ``--loads`` of the
time. Who is answered has a slot for as long as its tokens take at ``--tokens-per-second`` (a model with the shape of
Qwen2.5-0.5B gave 10 a second in bfloat16 on two cores); reading prompts takes no time. Each request is one of the
prompts of ``--test``, or of the fifth of ``--train`` (if none is named: of router_zeroeval beside the trace's folder)
that is not learnt from, drawn by chance. The length of its answer is ``--model``'s, and what is predicted comes
from a head that was trained on the other prompts. With ``--folds`` it is one of those that are learnt from, each
predicted by a head that was trained on the other folds: `llm_proxy.backends.queue.PATIENCE` was chosen so, by
``--patience`` and some ``--seed``, and what is reported is of prompts that had no part in it.

``first_come``: in order of arrival. ``predicted``: shortest predicted first, ``bounded`` with ``--bound``. ``perfect``:
shortest first, by the real lengths, no bound. ``ceiling``: the best that the real lengths give with ``--bound`` where
the queue may be more or less patient, its p99 is at most 1.5 times that in order of arrival, and nobody waits past the
bound. Latencies go from arrival to the last token. As nobody can wait less than
in order of arrival where all come at once, ``past_bound`` counts the requests that waited longer than ``--bound``, or
than twice the longest wait in order of arrival where that is more, and the longest answer together.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import heapq
import io
import math
import operator
import random
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_proxy.backends.queue import PATIENCE, Place, Queue
from llm_proxy.config import BackendConfig
from llm_proxy.errors import LLMProxyError
from llm_proxy.route.metrics import kendall_tau
from llm_proxy.testing import FakeClock

from ._outcomes import OPTIONS, entry_of, finite, known_lengths, sides
from ._report import arguments, report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.route.train.evaluate import Encoded

_MODEL = "Meta-Llama-3.1-8B-Instruct"
_LOADS = (0.7, 0.9, 1.2)
_POLICIES = ("first_come", "predicted", "bounded", "perfect", "ceiling")
_PATIENCES = (1.5, PATIENCE, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 12.0, 20.0)
_MOST_P99 = 1.5


class Job(NamedTuple):
    """A request: when it comes, how long its answer is, and how long that was predicted to be, in tokens."""

    arrives_s: float
    tokens: float
    predicted: float


class Ended(NamedTuple):
    """What became of requests, in the order of their arrival; seconds."""

    arrived_s: list[float]
    begun_s: list[float]
    over_s: list[float]


def main() -> None:
    """Run and report."""
    bound_s = BackendConfig.model_fields["queue_wait_s"].default
    options = arguments(
        "schedule",
        __doc__,
        **OPTIONS,
        trace=(Path, None, "when requests come: a table with TIMESTAMP"),
        slots=(int, 2, "answers at a time"),
        model=(str, _MODEL, "whose lengths of answers are meant"),
        bound=(float, bound_s, "seconds of waiting after which a request may be due"),
        tokens_per_second=(float, 10.0, "speed of one slot"),
        loads=(float, _LOADS, "shares of the time for which all slots would be busy", "+"),
        seed=(int, 0, "of what is drawn"),
        patience=(float, PATIENCE, "the queue's"),
        folds=(int, 0, "measure on the prompts that are learnt from, in so many folds; 0: on the others"),
    )
    if options.folds and options.record:
        sys.exit("what is recorded is measured on prompts that had no part in any choice: leave --folds out")
    if options.train is None and options.trace is not None:
        options.train = options.trace.resolve().parent.parent / "router_zeroeval" / "rows.jsonl.gz"
    try:
        figures = finite(_measure(options))
    except LLMProxyError as exc:
        sys.exit(str(exc))
    report("schedule", figures, options, table=_table(figures), entry=entry_of(options, options.model))


def run(
    jobs: Sequence[Job],
    *,
    slots: int,
    bound_s: float,
    tokens_per_second: float,
    is_perfect: bool = False,
    patience: float = PATIENCE,
) -> Ended:
    """Have the jobs pass through a queue, on a clock of their own.

    Args:
        jobs: In the order of their arrival.
        slots: Answers at a time.
        bound_s: The queue's.
        tokens_per_second: Speed of one slot.
        is_perfect: Whether the queue is told the real lengths.
        patience: The queue's.
    """
    clock = FakeClock(0.0)
    queue = Queue(slots=slots, bound_s=bound_s, length=len(jobs), monotonic=clock.monotonic, patience=patience)
    begun_s, over_s = [math.nan] * len(jobs), [math.nan] * len(jobs)
    ends: list[tuple[float, int, Place]] = []

    def begin(at: int, place: Place) -> None:
        begun_s[at] = clock.monotonic()
        over_s[at] = begun_s[at] + jobs[at].tokens / tokens_per_second
        heapq.heappush(ends, (over_s[at], at, place))

    def leave_until(until_s: float) -> None:
        while ends and ends[0][0] <= until_s:
            ended_s, _, place = heapq.heappop(ends)
            clock.advance(ended_s - clock.monotonic())
            queue.leave(place)

    for at, job in enumerate(jobs):
        leave_until(job.arrives_s)
        clock.advance(job.arrives_s - clock.monotonic())
        place = queue.enter(job.tokens if is_perfect else job.predicted, "one")
        queue.when_called(place, lambda at=at, place=place: begin(at, place))  # type: ignore[misc]
    leave_until(math.inf)
    return Ended([job.arrives_s for job in jobs], begun_s, over_s)


def _measure(options: Namespace) -> dict[str, Any]:
    train, test = (known_lengths(side, options.model) for side in sides(options, lengths_only=True))
    if len(train.outcomes) < 2 or len(test.outcomes) < 2:
        sys.exit(f"there are no two lengths of answers of {options.model} on either side")
    if options.folds:
        test, predicted = train, _by_folds(train, options)
    else:
        predicted = _predicted(train, test, options)
    real = test.outcomes.of(options.model).tokens[:, 0]
    arrivals_s = _arrivals(options.trace)
    loads = {
        f"{load:g}": _side_by_side(_jobs(arrivals_s, real, predicted, load, options), options) for load in options.loads
    }
    return {
        "model": options.model,
        "slots": options.slots,
        "bound_s": options.bound,
        "patience": options.patience,
        "tokens_per_second": options.tokens_per_second,
        "n_requests": len(arrivals_s),
        "n_train": len(train.outcomes),
        "n_test": len(test.outcomes),
        "kendall_tau": kendall_tau(predicted, real),
        "service_mean_s": float(real.mean()) / options.tokens_per_second,
        "loads": loads,
        "sha256_train": train.outcomes.sha256,
        "sha256_test": test.outcomes.sha256,
    }


def _predicted(train: Encoded, test: Encoded, options: Namespace) -> NDArray[np.float32]:
    """Tokens, as a queue is told them."""
    import numpy

    return numpy.expm1(train.fit([options.model]).predict(test.inputs)[1][:, 0])


def _by_folds(side: Encoded, options: Namespace) -> NDArray[np.float32]:
    import numpy

    digests = (hashlib.sha256(prompt.encode()).hexdigest() for prompt in side.outcomes.prompts)
    folds = numpy.array([int(digest[8:16], 16) % options.folds for digest in digests])
    predicted = numpy.zeros(len(folds), numpy.float32)
    for fold in range(options.folds):
        inside = numpy.flatnonzero(folds == fold)
        predicted[inside] = _predicted(side.rows(numpy.flatnonzero(folds != fold)), side.rows(inside), options)
    return predicted


def _side_by_side(jobs: Sequence[Job], options: Namespace) -> dict[str, Any]:
    slots, speed = options.slots, options.tokens_per_second
    shared = {"slots": slots, "bound_s": options.bound, "tokens_per_second": speed}
    ended = {
        "first_come": run(jobs, slots=slots, bound_s=0.0, tokens_per_second=speed),
        "predicted": run(jobs, slots=slots, bound_s=math.inf, tokens_per_second=speed),
        "bounded": run(jobs, patience=options.patience, **shared),
        "perfect": run(jobs, slots=slots, bound_s=math.inf, tokens_per_second=speed, is_perfect=True),
    }
    longest_s = max(map(operator.sub, ended["first_come"].begun_s, ended["first_come"].arrived_s))
    bound_s = max(options.bound, 2.0 * longest_s) + max(job.tokens for job in jobs) / speed
    found = {policy: _figures(one, bound_s) for policy, one in ended.items()}
    tried = (
        {**_figures(run(jobs, patience=patience, is_perfect=True, **shared), bound_s), "patience": patience}
        for patience in _PATIENCES
    )
    most_p99 = _MOST_P99 * found["first_come"]["p99"]
    allowed = [one for one in tried if one["p99"] <= most_p99 and not one["past_bound"]]
    return {**found, "ceiling": min(allowed, key=operator.itemgetter("mean"), default=found["first_come"])}


def _figures(ended: Ended, bound_s: float) -> dict[str, float]:
    import numpy

    arrived_s, begun_s, over_s = (numpy.array(times) for times in ended)
    latency_s, wait_s = over_s - arrived_s, begun_s - arrived_s
    p50_s, p99_s = numpy.percentile(latency_s, [50, 99])
    return {
        "mean": 1e3 * float(latency_s.mean()),
        "p50": 1e3 * float(p50_s),
        "p99": 1e3 * float(p99_s),
        "throughput_rps": len(latency_s) / float(over_s.max() - arrived_s.min()),
        "longest_wait_s": float(wait_s.max()),
        "past_bound": int((wait_s > bound_s).sum()),
    }


def _arrivals(path: Path | None) -> list[float]:
    """Seconds since the first, sorted."""
    if path is None:
        sys.exit("name a trace: --trace FILE")
    try:
        packed = path.read_bytes()
        text = (gzip.decompress(packed) if path.suffix == ".gz" else packed).decode()
        stamps = sorted(datetime.fromisoformat(row["TIMESTAMP"][:26]) for row in csv.DictReader(io.StringIO(text)))
    except (OSError, EOFError, ValueError, KeyError, csv.Error) as exc:
        sys.exit(f"{path} is no trace with TIMESTAMP: {exc}")
    if len(stamps) < 2 or stamps[0] == stamps[-1]:
        sys.exit(f"{path} has not two requests at two times")
    return [(stamp - stamps[0]).total_seconds() for stamp in stamps]


def _jobs(
    arrivals_s: Sequence[float],
    real: NDArray[np.float32],
    predicted: NDArray[np.float32],
    load: float,
    options: Namespace,
) -> list[Job]:
    drawn = random.Random(options.seed).choices(range(len(real)), k=len(arrivals_s))
    work_s = sum(float(real[row]) for row in drawn) / options.tokens_per_second
    stretch = work_s / options.slots / load / arrivals_s[-1]
    return [
        Job(at_s * stretch, float(real[row]), max(1.0, float(predicted[row])))
        for at_s, row in zip(arrivals_s, drawn, strict=True)
    ]


def _table(found: dict[str, Any]) -> list[list[str]]:
    rows = [
        [found["model"], f"{found['n_requests']} requests, {found['n_test']} prompts, tau {found['kendall_tau']:.2f}"],
        ["load", "order", "mean s", "p50 s", "p99 s", "rps", "longest wait s", "past bound"],
    ]
    for load, policies in found["loads"].items():
        for policy in _POLICIES:
            row = policies[policy]
            times = [f"{row[name] / 1e3:.1f}" for name in ("mean", "p50", "p99")]
            rest = [f"{row['throughput_rps']:.3f}", f"{row['longest_wait_s']:.1f}", str(row["past_bound"])]
            rows.append([load, policy, *times, *rest])
    return rows


if __name__ == "__main__":
    main()
