"""Trains the scorer of answers and writes ``model.onnx`` and ``config.json``, or measures it for the card.

::

    python3 -m venv .venv-recipe
    .venv-recipe/bin/pip install scikit-learn==1.9.1 onnx==1.23.2 onnxruntime==1.31.1 tokenizers==0.23.3 numpy pydantic
    OMP_NUM_THREADS=1 .venv-recipe/bin/python -m router_models.answers.recipe build router_zeroeval router_mmlu_pro
    OMP_NUM_THREADS=1 .venv-recipe/bin/python -m router_models.answers.recipe measure router_zeroeval router_mmlu_pro

``build`` trains on all answers of the folders that are named and fails where the graph says anything else than what
was fitted, or is too large. ``measure`` trains on four fifths of the questions, and prints what the card says of the
others. Each folder holds ``rows.jsonl.gz`` and ``weak_responses.jsonl.gz``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort

from llm_proxy.encode.models import ModelFolder
from llm_proxy.encode.onnx import OnnxEncoder
from llm_proxy.route.answers import FEATURES

from .data import Marked, read
from .export import DIM, graph
from .measure import adapted, held_out, left_out
from .model import Scorer, fit

FOLDER = Path(__file__).parent.parent
MAX_BYTES, MOST_OFF = 4_000_000, 1e-3


def main() -> None:
    """Build or measure."""
    parser = argparse.ArgumentParser(prog="python -m router_models.answers.recipe", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("build", "measure"))
    parser.add_argument("folders", type=Path, nargs="+", help="folders of marked answers")
    parser.add_argument("--vectors", type=Path, help="folder that keeps vectors for the next run")
    options = parser.parse_args()
    rows = read(options.folders, options.vectors)
    if options.what == "build":
        write(fit(rows), rows)
        return
    held_out(rows, lambda line: print(line, flush=True))
    print(flush=True)
    left_out(rows, lambda line: print(line, flush=True))
    adapted(rows, lambda line: print(line, flush=True))


def write(scorer: Scorer, rows: Marked) -> None:
    """Write the files, once the graph was seen to say what was fitted."""
    content = graph(scorer).SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    some = rows.rows(np.arange(0, len(rows), 7))
    line = scorer.line(some)
    hidden = some.questions.copy()
    hidden[::3], line[::3] = np.nan, np.nan
    feed = {"features": some.features, "question": hidden, "answer": some.answers}
    off = np.abs(session.run(["logit"], feed)[0][:, 0] - scorer.logits(some.features, line))
    print(
        f"{len(content)} bytes; off by {off.max():.2e} at most, {np.mean(off > MOST_OFF):.2%} by more than {MOST_OFF}"
    )
    # A threshold between two neighbours among float32 numbers may fall on the other side in float arithmetic.
    if np.mean(off > MOST_OFF) > 0.001 or len(content) > MAX_BYTES:
        raise SystemExit("the graph is too large, or says something else than what was fitted")
    (FOLDER / "model.onnx").write_bytes(content)
    settings = {
        "name": "answers",
        "graph": "model.onnx",
        "encoders": [OnnxEncoder().name, _float_name()],
        "dim": DIM,
        "features": list(FEATURES),
        "sha256": {"model.onnx": hashlib.sha256(content).hexdigest()},
    }
    (FOLDER / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _float_name() -> str:
    """Name of the shipped encoder where it runs its float graph, whose vectors are the same up to rounding."""
    folder = ModelFolder.read(None)
    return f"{folder.name}-float@{folder.sha256[folder.graphs['float']][:12]}"


main()
