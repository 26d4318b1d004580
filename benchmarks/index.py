"""How fast, how right and how large the vector index is: ``python -m benchmarks.index``.

All vectors go one by one into one scope of an index in a process of its own, as a cache grows. Questions are asked
then (``untended_*``), and again once the index has done what `Cache.maintain` has it do from time to time: searches,
recall and memory without a prefix are those of this index, in the process that grew it. Then vectors are removed.
Half of the questions are near a vector, half are not (benchmarks/_vectors.py). ``recall_at_1`` is over both kinds: how
often the vector is found that a comparison with all of them finds.

``restart_*`` are of a fresh process that loads the snapshot; its file was just written and lies in the page cache, as
the libraries do. Small scopes are then put beside the large one. ``cache_*`` are of another one, which loads the whole
memory of a cache (`View` with GDSF).

The vectors are grown from real ones where ``--vectors`` or ``--texts`` gives some, else drawn. Memory is resident
memory of the whole process, its libraries and the keys (64 digits each) included.
"""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import sys
import tempfile
import time
from argparse import Namespace
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._report import arguments, report
from ._vectors import Questions, ask, isotropic, seeds, vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.cache.index.faiss import FaissIndex

_K = 8  # neighbours asked for, as the cache does
_LAST = 10  # insertions are timed over the last tenth
_DELETED = 20_000
_SCOPES, _IN_SCOPE = 1000, 100
_WARM_UP = 50


def main() -> None:
    """Run and report."""
    options = arguments(
        "index",
        __doc__,
        n=(int, 1_000_000, "vectors in the large scope"),
        dim=(int, 384, "length of each"),
        vectors=(Path, None, "real unit vectors to grow them from: .npy, shape (m, dim)"),
        texts=(Path, [], "or files of texts, which the shipped encoder encodes (30,000 at most)", "+"),
        queries=(int, 1000, "questions of each kind"),
        worst=(int, 100_000, "vectors without any order, for the worst case; 0: none"),
        seed=(int, 0, "seed of all that is random"),
    )
    _check(options)
    with tempfile.TemporaryDirectory() as folder:
        figures = _measure(Path(folder), options)
    report("index", figures, options, table=_table(figures))


def _check(options: Namespace) -> None:
    """End with one line on what is out of range."""
    least = {"n": _WARM_UP, "dim": 2, "queries": 1, "worst": 0, "seed": 0}
    for name, bound in least.items():
        if getattr(options, name) < bound:
            sys.exit(f"--{name} {getattr(options, name)}: at least {bound}")
    if 0 < options.worst < _WARM_UP:
        sys.exit(f"--worst {options.worst}: 0, or at least {_WARM_UP}")


def _measure(folder: Path, options: Namespace) -> dict[str, Any]:
    import numpy as np

    real, source = seeds(options)
    rows = np.lib.format.open_memmap(folder / "rows.npy", mode="w+", dtype=np.float16, shape=(options.n, options.dim))
    start = 0
    for batch in vectors(real, options):
        rows[start : start + len(batch)] = batch
        start += len(batch)
    del rows
    questions = ask(folder / "rows.npy", real, options)
    figures: dict[str, Any] = {"n": options.n, "dim": options.dim, "vectors": source, "seed": options.seed}
    for kind, asked in questions.items():
        low, middle, high = np.percentile(asked.cosines, [5, 50, 95]).round(3).tolist()
        figures |= {f"{kind}_nearest_p5": low, f"{kind}_nearest_p50": middle, f"{kind}_nearest_p95": high}
    figures |= _apart(_grow, folder, options, questions)
    figures |= _apart(_restart, folder, options, questions)
    figures |= _apart(_restart_all, folder, options, questions)
    if options.worst:
        figures |= _apart(_worst, options)
    return figures


def _apart(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Do it in a fresh process, whose memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _grow(folder: Path, options: Namespace, questions: dict[str, Questions]) -> dict[str, Any]:
    """An index that grows vector by vector: insertions, searches, memory, the snapshot, removals."""
    from llm_proxy.cache import snapshot
    from llm_proxy.cache.index.faiss import FaissIndex

    index, times = FaissIndex(options.dim), []
    began_s = time.perf_counter()
    for number, row in enumerate(_rows(folder, options.n)):
        key, start_s = _key(number), time.perf_counter()
        index.add(key, "large", row)
        if number >= options.n - max(1, options.n // _LAST):
            times.append(time.perf_counter() - start_s)
    figures = {"build_s": time.perf_counter() - began_s, "lists": getattr(index._scopes["large"], "count", 0)}
    figures |= {"insert_us": 1e6 * sum(times) / len(times), "insert_p99_us": 1e6 * _percentile(times, 99)}
    figures |= {f"untended_{name}": value for name, value in _searched(index, questions).items()}
    began_s = time.perf_counter()
    index.tend(600.0)
    figures["tend_s"] = time.perf_counter() - began_s
    figures |= _searched(index, questions)
    gc.collect()
    figures |= {"rss_gib": _rss_gib(), "similarity_error": index.similarity_error}
    blocks = list(index.blocks())
    image = snapshot.Snapshot("benchmark", 1, "encoder", options.dim, blocks[0].keys, blocks=blocks)
    for number in range(options.n):
        image.sizes.append(2_000 + number % 1_000)
        image.costs.append(1e-4 * (1 + number % 97))
        image.hits.append(number % 7)
        image.pinned.append(0)
    began_s = time.perf_counter()
    snapshot.save(folder / "index.snapshot", image)
    figures |= {"save_s": time.perf_counter() - began_s}
    figures["snapshot_mib"] = (folder / "index.snapshot").stat().st_size / 2**20
    del image, blocks
    return figures | _deleted(index, options)


def _deleted(index: FaissIndex, options: Namespace) -> dict[str, Any]:
    times = []
    for number in range(0, options.n, max(1, options.n // _DELETED)):
        key, start_s = _key(number), time.perf_counter()
        index.remove(key)
        times.append(time.perf_counter() - start_s)
    return {"delete_us": 1e6 * sum(times) / len(times), "delete_p99_us": 1e6 * _percentile(times, 99)}


def _restart(folder: Path, options: Namespace, questions: dict[str, Questions]) -> dict[str, Any]:
    """A fresh process: from the file to the first right answer; then small scopes beside the large one."""
    began_s = time.perf_counter()
    from llm_proxy.cache import snapshot
    from llm_proxy.cache.index.faiss import FaissIndex

    index = FaissIndex(options.dim)
    for block in snapshot.load(folder / "index.snapshot").blocks:
        index.add_block(block)
    near = questions["near"]
    answers = (index.search("large", query, _K)[0].key for query in near.vectors)
    keys = (_key(int(number)) for number in near.nearest)
    right = next((number for number, (found, key) in enumerate(zip(answers, keys, strict=True)) if found == key), -1)
    figures = {"restart_s": time.perf_counter() - began_s, "restart_questions": right + 1}
    gc.collect()
    figures |= {"restart_rss_gib": _rss_gib()}
    found = _searched(index, questions)
    figures |= {f"restart_{name}": found[name] for name in ("search_p50", "search_p99", "recall_at_1")}
    return figures | _small_scopes(index, folder, options, near)


def _small_scopes(index: FaissIndex, folder: Path, options: Namespace, near: Questions) -> dict[str, Any]:
    import numpy as np

    count = min(_SCOPES * _IN_SCOPE, options.n)
    for number, row in enumerate(_rows(folder, count)):
        index.add(_key(options.n + number), f"small {number % _SCOPES}", row)
    rng = np.random.default_rng(options.seed)
    small = [f"small {number}" for number in rng.integers(0, min(_SCOPES, count), len(near.vectors))]
    times = _times(index, small, near.vectors)
    large = _times(index, ["large"] * len(small), near.vectors)
    return {
        "scopes": index.scopes,
        "small_search_p50": _percentile(times, 50) * 1000,
        "small_search_p99": _percentile(times, 99) * 1000,
        "large_beside_search_p50": _percentile(large, 50) * 1000,
        "large_beside_search_p99": _percentile(large, 99) * 1000,
        "scopes_rss_gib": _rss_gib(),
    }


def _restart_all(folder: Path, options: Namespace, questions: dict[str, Questions]) -> dict[str, Any]:
    """A fresh process with all that a cache has in memory."""
    began_s = time.perf_counter()
    from llm_proxy.cache import snapshot
    from llm_proxy.cache.index.faiss import FaissIndex
    from llm_proxy.cache.policies.gdsf import GDSF
    from llm_proxy.cache.view import View

    view = View(GDSF(), FaissIndex)
    found = snapshot.load(folder / "index.snapshot")
    for key, size_bytes, cost_usd, hits in zip(found.keys, found.sizes, found.costs, found.hits, strict=True):
        view.restore(key, size_bytes, cost_usd, hits)
    index = view.adopt(found.encoder, found.dim)
    assert index is not None, "the benchmark needs FAISS"
    for block in found.blocks:
        index.add_block(block)
    index.search("large", questions["near"].vectors[0], _K)
    figures = {"cache_restart_s": time.perf_counter() - began_s}
    del found
    gc.collect()
    return figures | {"cache_rss_gib": _rss_gib()}


def _worst(options: Namespace) -> dict[str, Any]:
    from llm_proxy.cache.index.faiss import FaissIndex

    rows, asked = isotropic(options.worst, options)
    index = FaissIndex(options.dim)
    for number, row in enumerate(rows):
        index.add(_key(number), "large", row)
    found = _searched(index, {"isotropic": asked})
    return {"isotropic_n": options.worst, "isotropic_recall_at_1": found["isotropic_recall_at_1"]}


def _searched(index: FaissIndex, questions: dict[str, Questions]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    all_times: list[float] = []
    right = asked = alike = alike_right = 0
    for kind, one in questions.items():
        times = _times(index, ["large"] * len(one.vectors), one.vectors)
        is_right = [
            index.search("large", query, _K)[0].key == _key(int(number))
            for query, number in zip(one.vectors, one.nearest, strict=True)
        ]
        figures[f"{kind}_search_p50"] = _percentile(times, 50) * 1000
        figures[f"{kind}_search_p99"] = _percentile(times, 99) * 1000
        figures[f"{kind}_recall_at_1"] = sum(is_right) / len(is_right)
        all_times += times
        right, asked = right + sum(is_right), asked + len(is_right)
        served = [
            found for found, cosine in zip(is_right, one.cosines, strict=True) if kind == "near" and cosine >= 0.9
        ]
        alike, alike_right = alike + len(served), alike_right + sum(served)
    figures["search_p50"], figures["search_p99"] = (1000 * _percentile(all_times, part) for part in (50, 99))
    figures["recall_at_1"] = right / asked
    if alike:
        figures["recall_at_1_above_90"] = alike_right / alike
    return figures


def _times(index: FaissIndex, scopes: list[str], queries: NDArray[np.float32]) -> list[float]:
    for scope, query in zip(scopes[:_WARM_UP], queries, strict=False):
        index.search(scope, query, _K)
    times = []
    for scope, query in zip(scopes, queries, strict=True):
        start_s = time.perf_counter()
        index.search(scope, query, _K)
        times.append(time.perf_counter() - start_s)
    return times


def _rows(folder: Path, count: int) -> Iterator[NDArray[np.float32]]:
    """The first vectors, read and not mapped: a map would count as memory."""
    import numpy as np

    with open(folder / "rows.npy", "rb") as file:
        version = np.lib.format.read_magic(file)
        assert version == (1, 0)
        (_, dim), _, _ = np.lib.format.read_array_header_1_0(file)
        for start in range(0, count, 1000):
            batch = np.fromfile(file, np.float16, min(1000, count - start) * dim).reshape(-1, dim).astype(np.float32)
            yield from batch / np.sqrt((batch * batch).sum(axis=1, keepdims=True))


def _key(number: int) -> str:
    return hashlib.sha256(number.to_bytes(8, "big")).hexdigest()


def _percentile(times: list[float], part: float) -> float:
    ordered = array("d", sorted(times))
    return ordered[min(len(ordered) - 1, int(len(ordered) * part / 100))]


def _rss_gib() -> float:
    pages = Path("/proc/self/statm")
    if pages.is_file():
        import resource

        return int(pages.read_text().split()[1]) * resource.getpagesize() / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30  # macOS: bytes, the most there was


def _table(figures: dict[str, Any]) -> list[list[object]]:
    units = {"us": "us", "s": "s", "gib": "GiB", "mib": "MiB", "p50": "ms", "p99": "ms"}
    rows: list[list[object]] = [["figure", "value", "unit"]]
    for name, value in figures.items():
        unit = "" if "nearest" in name else units.get(name.rpartition("_")[2], "")
        rows.append([name, f"{value:.4g}" if isinstance(value, float) else value, unit])
    return rows


if __name__ == "__main__":
    main()
