"""How many equal questions are served from the cache, and how many different ones: ``python -m benchmarks.semantic``.

Of each pair ``a`` is stored and ``b`` is asked, by a tenant of its own, through the cache as it ships (`_served`): no
option touched. ``served_equal`` and ``served_different`` are the shares of pairs whose stored answer was served.

``auc`` is of what decides: the guard's probability that one answer serves both, and where that is 0, or a part that the
encoder did not see differs, the cosine less 2; so what a rule forbids stands below all that none does.
``refused_equal`` and ``refused_different`` count the reasons of those that were not served.
``served_at`` has both shares for other values of ``cache.max_error_rate``, while nothing is compared.

``decide_p50`` is the time of `Cache.nearest` after encoding, in ms: in a scope with the ``a`` of the pair and the seven
of the same file that are nearest to it, each pair asked once, so that nothing of it is remembered.

``cosine_*`` are of the bare encoder: a hit is a cosine above ``cosine_threshold``, the highest threshold that serves as
many equal pairs. Its time is that of the same index and the comparison.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_proxy.cache.bound.bound import Bound
from llm_proxy.cache.guard import Guard, load_shipped
from llm_proxy.cache.guard.probability import JUDGED
from llm_proxy.config import CacheConfig
from llm_proxy.errors import LLMProxyError

from ._pairs import Pair, read_pairs
from ._report import arguments, report
from ._served import ShippedCache, encode_all, shipped_encoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.encode.base import Encoding
    from llm_proxy.encode.lazy import LazyEncoder

_IN_ONE_CACHE = 2000  # pairs: memory stays small
_NEIGHBOURS = 8
_TIMED, _WARM_UP = 300, 20
_RATES = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # values of cache.max_error_rate
_FORBIDDEN = 2.0  # what the cosine of a pair is lowered by that no probability speaks for


def main() -> None:
    """Run and report."""
    options = arguments(
        "semantic",
        __doc__,
        pairs=(Path, [], "files of pairs: columns a, b, label; .jsonl, .tsv, .csv, also .gz", "+"),
        limit=(int, 0, "pairs to draw from each file; 0: all"),
        seed=(int, 0, "seed of the draw"),
    )
    if not options.pairs:
        sys.exit("--pairs: name at least one file")
    if options.limit < 0:
        sys.exit(f"--limit {options.limit}: 0 for all pairs, or how many")
    files = [(path, read_pairs(path, limit=options.limit, seed=options.seed)) for path in options.pairs]
    try:
        encoder = shipped_encoder()
        measured = [measure(f"{path.parent.name}/{path.name}", pairs, encoder, options.seed) for path, pairs in files]
    except LLMProxyError as exc:
        sys.exit(str(exc))
    figures = {"files": measured, "encoder": encoder.name, "limit": options.limit, "seed": options.seed}
    report("semantic", figures, options, table=_table(measured, options))


@dataclass(frozen=True, slots=True)
class _Judged:
    """One pair: its label, the bare cosine, the score that ranks, and why it was not served (empty: it was)."""

    is_equal: bool
    cosine: float
    score: float
    refusal: str


def measure(name: str, pairs: Sequence[Pair], encoder: LazyEncoder, seed: int = 0) -> dict[str, Any]:
    """All figures of one file.

    Args:
        name: What to call it.
        pairs: Its pairs, at least one.
        encoder: From `shipped_encoder`.
        seed: Seed of which pairs are timed.
    """
    encoded = encode_all((text for pair in pairs for text in (pair.a, pair.b)), encoder)
    judged = list(judge(pairs, encoded, encoder))
    equal = [row for row in judged if row.is_equal]
    different = [row for row in judged if not row.is_equal]
    served = sum(not row.refusal for row in equal)
    threshold = _threshold([row.cosine for row in equal], served)
    neighbourhoods = list(_neighbourhoods(pairs, encoded, seed))
    return {
        "file": name,
        "n_equal": len(equal),
        "n_different": len(different),
        "served_equal": _share(equal, lambda row: not row.refusal),
        "served_different": _share(different, lambda row: not row.refusal),
        "served_at": [_served_at(rate, equal, different) for rate in _RATES],
        "auc": auc([row.score for row in equal], [row.score for row in different]),
        **_percentiles("decide", _decided_ms(neighbourhoods, encoded, encoder)),
        "cosine_threshold": threshold,
        "cosine_served_equal": _share(equal, lambda row: row.cosine >= threshold),
        "cosine_served_different": _share(different, lambda row: row.cosine >= threshold),
        "cosine_auc": auc([row.cosine for row in equal], [row.cosine for row in different]),
        **_percentiles("cosine_decide", _searched_ms(neighbourhoods, encoded, threshold)),
        "refused_equal": dict(Counter(row.refusal for row in equal if row.refusal).most_common()),
        "refused_different": dict(Counter(row.refusal for row in different if row.refusal).most_common()),
    }


def judge(pairs: Sequence[Pair], encoded: dict[str, Encoding], encoder: LazyEncoder) -> Iterator[_Judged]:
    """Store and ask each pair, apart from all others."""
    guard = Guard(load_shipped)
    guard.load()
    for start in range(0, len(pairs), _IN_ONE_CACHE):
        cache = ShippedCache(encoder)
        for at, pair in enumerate(pairs[start : start + _IN_ONE_CACHE]):
            tenant = f"pair-{at}"
            cache.store(pair.a, encoded[pair.a], tenant=tenant)
            found = cache.ask(pair.b, encoded[pair.b], tenant=tenant)
            cosine = min(1.0, float(encoded[pair.a].vector @ encoded[pair.b].vector))
            if found is None or (found.entry is None and not found.refused):
                yield _Judged(pair.is_equal, cosine, cosine - _FORBIDDEN, "unseen")
                continue
            refusal = "" if found.entry is not None else found.refusal
            judged = guard.judge_closely(pair.b, pair.a, cosine, guard.judge(pair.b, pair.a, cosine))
            yield _Judged(pair.is_equal, cosine, judged.p_same or cosine - _FORBIDDEN, refusal)
        cache.close()


def auc(above: Sequence[float], below: Sequence[float]) -> float | None:
    """How often one of the first stands above one of the second, in [0, 1]; a tie is half. None without either."""
    import numpy as np

    if not above or not below:
        return None
    ordered = np.sort(np.asarray(below))
    left, right = (np.searchsorted(ordered, above, side) for side in ("left", "right"))
    return float((left + right).mean() / 2 / len(ordered))


def _threshold(cosines: list[float], served: int) -> float:
    """The highest threshold that at least so many of the cosines reach; above all of them for none."""
    return sorted(cosines, reverse=True)[served - 1] if served else 1.01


def _share(rows: list[_Judged], counts: Callable[[_Judged], bool]) -> float | None:
    return sum(map(counts, rows)) / len(rows) if rows else None


def _served_at(rate: float, equal: list[_Judged], different: list[_Judged]) -> dict[str, float | None]:
    least, reasons = 1.0 - Bound(rate).limit, JUDGED | {"similarity"}  # no other reason depends on the rate
    threshold = CacheConfig().threshold

    def is_served(row: _Judged) -> bool:
        return row.refusal in reasons and row.cosine >= threshold and row.score >= least

    shares = {"served_equal": _share(equal, is_served), "served_different": _share(different, is_served)}
    return {"max_error_rate": rate, **shares}


# -- times -------------------------------------------------------------------------------------------------------

_Neighbourhood = tuple[str, list[str]]  # a question, and what is stored


def _neighbourhoods(pairs: Sequence[Pair], encoded: dict[str, Encoding], seed: int) -> Iterator[_Neighbourhood]:
    import numpy as np

    stored = list(dict.fromkeys(pair.a for pair in pairs))
    vectors = np.stack([encoded[text].vector for text in stored])
    rng = random.Random(seed)
    drawn = rng.sample(pairs, min(len(pairs), _TIMED + _WARM_UP))
    for number in range(_TIMED + _WARM_UP):
        pair = drawn[number % len(drawn)]
        order = np.argsort(-(vectors @ encoded[pair.a].vector), kind="stable")[:_NEIGHBOURS]
        near = [stored[at] for at in order if stored[at] != pair.a]
        yield pair.b, [pair.a, *near[: _NEIGHBOURS - 1]]


def _decided_ms(
    neighbourhoods: Sequence[_Neighbourhood], encoded: dict[str, Encoding], encoder: LazyEncoder
) -> list[float]:
    cache = ShippedCache(encoder)
    for number, (_, stored) in enumerate(neighbourhoods):
        for text in stored:
            cache.store(text, encoded[text], tenant=f"tenant-{number}")
    times = []
    for number, (text, _) in enumerate(neighbourhoods):
        question = cache.question(text, encoded[text], tenant=f"tenant-{number}")
        if question is not None:
            times.append(_ms(lambda question=question, text=text: cache.decide(question, encoded[text])))
    cache.close()
    return times


def _searched_ms(
    neighbourhoods: Sequence[_Neighbourhood], encoded: dict[str, Encoding], threshold: float
) -> list[float]:
    from llm_proxy.cache.index.faiss import FaissIndex

    index = FaissIndex(len(next(iter(encoded.values())).vector))
    for number, (_, stored) in enumerate(neighbourhoods):
        for at, text in enumerate(stored):
            index.add(f"{number}-{at}", str(number), encoded[text].vector)

    def is_hit(scope: str, vector: NDArray[np.float32]) -> bool:
        return any(near.similarity >= threshold for near in index.search(scope, vector, 1))

    return [
        _ms(lambda number=number, text=text: is_hit(str(number), encoded[text].vector))
        for number, (text, _) in enumerate(neighbourhoods)
    ]


def _ms(call: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started_s)


def _percentiles(name: str, times_ms: list[float]) -> dict[str, float | None]:
    times_ms = sorted(times_ms[_WARM_UP:])
    if not times_ms:  # nothing but blank texts, which are never matched
        return {f"{name}_p50": None, f"{name}_p99": None}
    return {f"{name}_p50": statistics.median(times_ms), f"{name}_p99": times_ms[int(0.99 * len(times_ms))]}


# -- the table ---------------------------------------------------------------------------------------------------


def _table(files: list[dict[str, Any]], options: Namespace) -> Iterator[list[str]]:
    yield ["", "equal", "", "different", "", "", "decide", "", "cosine alone:", "different", ""]
    yield ["file", "pairs", "served", "pairs", "served", "auc", "p50 ms", "p99 ms", "threshold", "served", "auc"]
    for row in files:
        yield [
            row["file"],
            str(row["n_equal"]),
            _cell(row["served_equal"]),
            str(row["n_different"]),
            _cell(row["served_different"], 4),
            _cell(row["auc"]),
            _cell(row["decide_p50"]),
            _cell(row["decide_p99"]),
            _cell(row["cosine_threshold"]),
            _cell(row["cosine_served_different"], 4),
            _cell(row["cosine_auc"]),
        ]
    if options.limit:
        yield [f"at most {options.limit} pairs of each file, seed {options.seed}"]


def _cell(share: float | None, digits: int = 3) -> str:
    return "-" if share is None else f"{share:.{digits}f}"


if __name__ == "__main__":
    main()
