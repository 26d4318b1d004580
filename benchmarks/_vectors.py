"""Unit vectors to search among, like those of an encoder, and questions with their true answers."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._queries import sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Questions", "ask", "isotropic", "seeds", "vectors"]

_BATCH = 20_000
_NEIGHBOURS = 12
_HELD_OUT = 10  # of so many real vectors one is a question
_MOST_TEXTS = 30_000
_FEWEST = 100  # real vectors: a tenth of them is held out, and the rest have neighbours
_TOPICS_FOR = 60_000


@dataclass(frozen=True)
class Questions:
    """Questions of one kind.

    Attributes:
        vectors: Shape ``(queries, dim)``, float32, unit norm.
        nearest: Number of the vector nearest to each.
        cosines: Its cosine.
    """

    vectors: NDArray[np.float32]
    nearest: NDArray[np.int64]
    cosines: NDArray[np.float32]


def seeds(options: Namespace) -> tuple[NDArray[np.float32], str]:
    """Real vectors to start from: of a file, of texts that are encoded here, or none, shape ``(m, dim)``.

    Returns:
        The vectors in random order, and where they come from.
    """
    import numpy as np

    rng = np.random.default_rng(options.seed)
    if options.vectors is not None:
        rows = _loaded(options.vectors, options.dim)
        return _unit(rows[rng.permutation(len(rows))].astype(np.float32)), f"{len(rows)} of {options.vectors.name}"
    if options.texts:
        rows = _encoded(options.texts, options.seed)
        if rows.shape[1] != options.dim:
            raise SystemExit(f"the encoder's vectors have length {rows.shape[1]}; --dim says {options.dim}")
        return rows, f"texts of {len(options.texts)} file(s), encoded here"
    return np.empty((0, options.dim), np.float32), "drawn: topics in topics, with an encoder's spectrum"


def _loaded(path: Path, dim: int) -> NDArray[np.floating[Any]]:
    import numpy as np

    try:
        rows = np.load(path, mmap_mode="r")
    except (OSError, EOFError, ValueError) as exc:
        raise SystemExit(f"{path}: no vectors ({exc}); expected one array, as numpy.save writes it") from exc
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != dim or rows.dtype.kind != "f":
        shape = getattr(rows, "shape", "none")
        raise SystemExit(f"{path} has vectors of shape {shape}; --dim says {dim}, and floats are expected")
    if len(rows) < _FEWEST:
        raise SystemExit(f"{path} has {len(rows)} vectors; at least {_FEWEST} are needed")
    norms = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    if not (np.isfinite(norms).all() and norms.min() > 0):
        raise SystemExit(f"{path} has a vector that is zero or not finite")
    return rows


def vectors(real: NDArray[np.float32], options: Namespace) -> Iterator[NDArray[np.float16]]:
    """``n`` vectors, some thousand at a time.

    Around real ones, each is a real vector moved towards one of its 12 nearest, by the difference of two of them and
    by a third of the difference of any two: so it has the local and the global shape of the real ones. The factors
    were chosen so that a flat k-means index finds the nearest of held-out real vectors as often as among real ones.
    """
    import numpy as np

    rng = np.random.default_rng(options.seed + 1)
    draw = _Grown(real, rng).draw if len(real) else _Drawn(options.n, options.dim, options.seed).draw
    for start in range(0, options.n, _BATCH):
        yield draw(min(_BATCH, options.n - start), rng).astype(np.float16)


def held_out(real: NDArray[np.float32]) -> int:
    """How many of the real vectors are kept for questions."""
    return len(real) // _HELD_OUT


def ask(path: Path, real: NDArray[np.float32], options: Namespace) -> dict[str, Questions]:
    """Questions with the answers that a search of all vectors gives.

    ``unrelated`` are texts nobody asked before: held-out real vectors, or more of the same kind. ``near`` are vectors
    of the index turned by a random difference to a cosine between .8 and .99, as paraphrases are.
    """
    import numpy as np

    rng = np.random.default_rng(options.seed + 2)
    rows = np.load(path, mmap_mode="r")
    count = options.queries
    drawn = _Drawn(options.n, options.dim, options.seed)
    new = real[: held_out(real)][:count] if len(real) else drawn.draw(count, rng)
    near = _turned(rows[np.sort(rng.integers(0, len(rows), count))].astype(np.float32), rows, rng)
    return {"unrelated": _answered(new, rows), "near": _answered(near, rows)}


def isotropic(n: int, options: Namespace) -> tuple[NDArray[np.float32], Questions]:
    """Vectors without any order, the worst case of an index of lists, and questions of the same kind."""
    import numpy as np

    rng = np.random.default_rng(options.seed + 3)
    rows = _unit(rng.standard_normal((n, options.dim), dtype=np.float32))
    return rows, _answered(_unit(rng.standard_normal((options.queries, options.dim), dtype=np.float32)), rows)


class _Grown:
    def __init__(self, real: NDArray[np.float32], rng: np.random.Generator) -> None:
        import faiss

        self._real = real[held_out(real) :]
        quantizer = faiss.IndexFlatIP(real.shape[1])
        index = faiss.IndexIVFFlat(quantizer, real.shape[1], max(1, len(self._real) // 400), faiss.METRIC_INNER_PRODUCT)
        index.train(self._real[rng.permutation(len(self._real))[:_MOST_TEXTS]])
        index.add(self._real)
        index.nprobe = 6
        self._near = index.search(self._real, _NEIGHBOURS + 1)[1][:, 1:].clip(min=0)

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        real = self._real
        from_ = rng.integers(0, len(real), count)
        one, two, three = (real[self._near[from_, rng.integers(0, _NEIGHBOURS, count)]] for _ in range(3))
        any_ = real[rng.integers(0, len(real), count)] - real[rng.integers(0, len(real), count)]
        share = rng.uniform(0, 0.6, (count, 1)).astype("f4")
        return _unit(real[from_] + share * (one - real[from_]) + 0.5 * (two - three) + 0.35 * any_)


class _Drawn:
    """Topics in topics in topics, and vectors more or less far from the last ones.

    Variances fall as those of 20,000 real questions do. The distances were chosen so that, among 60,000, the nearest
    is as near as among real vectors (.50, .69, .90 at the 5th, 50th and 95th percentile; real .46, .69, .96), and is
    found about as often in 8 of 234 lists of a flat k-means index (.93; real .91).
    """

    def __init__(self, n: int, dim: int, seed: int) -> None:
        import numpy as np

        rng = np.random.default_rng(seed)
        self._scale = np.sqrt((8.0 + np.arange(dim)) ** -0.85).astype("f4")
        n = min(n, _TOPICS_FOR)  # more vectors are more of the same topics
        self._topics = self._noise(max(1, n // 6**4), rng)
        for power, away in ((3, 1.2), (2, 1.1), (1, 1.0)):
            count = max(1, n // 6**power)
            above = (len(self._topics) * rng.random(count) ** 1.2).astype("i8")  # some topics are larger than others
            self._topics = _unit(self._topics[above] + np.float32(away) * self._noise(count, rng))

    def _noise(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        return _unit(rng.standard_normal((count, len(self._scale)), dtype="f4") * self._scale)

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
        away = rng.uniform(0.25, 1.45, (count, 1)).astype("f4")
        return _unit(self._topics[rng.integers(0, len(self._topics), count)] + away * self._noise(count, rng))


def _encoded(files: list[Path], seed: int) -> NDArray[np.float32]:
    import numpy as np

    from llm_proxy.encode.onnx import OnnxEncoder

    texts = sample(files, _MOST_TEXTS, seed)
    if len(texts) < _FEWEST:
        raise SystemExit(f"--texts: {len(texts)} different texts in all; at least {_FEWEST} are needed")
    encoder = OnnxEncoder(providers=["CPUExecutionProvider"])
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))  # alike lengths together: nothing is padded
    rows = np.empty((len(texts), encoder.dim), np.float32)
    for start in range(0, len(order), 64):
        batch = order[start : start + 64]
        rows[batch] = encoder.encode_batch([texts[at] for at in batch])
    return rows[np.random.default_rng(seed).permutation(len(rows))]


def _turned(rows: NDArray[np.float32], all_: NDArray[np.float16], rng: np.random.Generator) -> NDArray[np.float32]:
    import numpy as np

    one, two = (all_[np.sort(rng.integers(0, len(all_), len(rows)))].astype(np.float32) for _ in range(2))
    away = one - rng.permutation(two)
    same = ~away.any(axis=1)  # both may be one vector, which has no direction
    away[same] = np.random.default_rng(len(rows)).standard_normal((int(same.sum()), rows.shape[1]))
    rows = _unit(rows)
    away = _unit(away - (away * rows).sum(axis=1, keepdims=True) * rows)
    cosines = rng.uniform(0.8, 0.99, (len(rows), 1)).astype(np.float32)
    return _unit(cosines * rows + np.sqrt(1 - cosines**2).astype(np.float32) * away)


def _answered(queries: NDArray[np.float32], rows: NDArray[np.float16] | NDArray[np.float32]) -> Questions:
    import numpy as np

    best, nearest = np.full(len(queries), -2.0, np.float32), np.zeros(len(queries), np.int64)
    for start in range(0, len(rows), _BATCH):
        cosines = queries @ rows[start : start + _BATCH].astype(np.float32).T
        found = cosines.argmax(axis=1)
        values = cosines[np.arange(len(queries)), found]
        is_better = values > best
        best[is_better], nearest[is_better] = values[is_better], start + found[is_better]
    return Questions(np.ascontiguousarray(queries), nearest, best)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy as np

    return rows / np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]  # type: ignore[no-any-return]
