"""Trains the head of tiers and writes ``model.onnx`` and ``config.json``, or measures it for the card.

::

    python3 -m venv .venv-recipe
    .venv-recipe/bin/pip install scikit-learn==1.9.1 onnx==1.23.2 onnxruntime==1.31.1 tokenizers==0.23.3 numpy pydantic
    OMP_NUM_THREADS=1 .venv-recipe/bin/python -m router_models.heads.tiers.recipe build FOLDER...
    OMP_NUM_THREADS=1 .venv-recipe/bin/python -m router_models.heads.tiers.recipe measure FOLDER...
    OMP_NUM_THREADS=1 .venv-recipe/bin/python -m router_models.heads.tiers.recipe curve FOLDER...

The folders are router_routellm, router_mmlu_pro, router_zeroeval, router_arena809 and router_llmrouter9. ``build``
fails where the graph says anything else than what was fitted, or is too large.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime as ort

from llm_proxy.encode.onnx import OnnxEncoder
from llm_proxy.route.features import FEATURES
from llm_proxy.route.heads import FORMAT, HeadConfig
from llm_proxy.route.train.export import to_onnx

from .curve import curves
from .data import Rated, read
from .measure import left_out
from .model import fit

FOLDER = Path(__file__).parent.parent
MAX_BYTES, MOST_OFF = 4_000_000, 1e-4


def main() -> None:
    """Build, measure, or measure what a beginning with the head is worth."""
    parser = argparse.ArgumentParser(
        prog="python -m router_models.heads.tiers.recipe", description=__doc__.splitlines()[0]
    )
    parser.add_argument("what", choices=("build", "measure", "curve"))
    parser.add_argument("folders", type=Path, nargs="+", help="folders of outcomes")
    parser.add_argument("--vectors", type=Path, help="folder that keeps vectors for the next run")
    options = parser.parse_args()
    sets = read(options.folders, options.vectors)
    if options.what == "build":
        write(sets)
    elif options.what == "curve":
        curves(sets, lambda line: print(line, flush=True))
    else:
        left_out(sets, lambda line: print(line, flush=True))


def write(sets: list[Rated]) -> None:
    """Write the files, once the graph was seen to say what was fitted."""
    fitted, inputs = fit(sets), sets[0].log.inputs
    dim, layers = inputs.vectors.shape[1], inputs.layers.shape[1]
    content = to_onnx(fitted, dim=dim, layers=layers)
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    feed = {"vector": inputs.vectors, "features": inputs.features, "layers": inputs.layers}
    off = np.abs(session.run(["p_good"], feed)[0] - fitted.predict(inputs)[0]).max()
    print(f"{len(content)} bytes; off by {off:.2e} at most")
    if off > MOST_OFF or len(content) > MAX_BYTES:
        raise SystemExit("the graph is too large, or says something else than what was fitted")
    config = HeadConfig(
        name="tiers",
        encoder=OnnxEncoder().name,
        dim=dim,
        layers=layers,
        features=FEATURES,
        models=fitted.models,
        graph="model.onnx",
        sha256=hashlib.sha256(content).hexdigest(),
    )
    (FOLDER / "model.onnx").write_bytes(content)
    source = {one.name: {"sha256": one.log.outcomes.sha256, "rows": len(one)} for one in sets}
    settings = {"format": FORMAT, **asdict(config), "trained_on": source}
    (FOLDER / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    print(f"sha256 {config.sha256}")


main()
