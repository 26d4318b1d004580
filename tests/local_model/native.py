"""llama.cpp's own server, which goes on with a text, answers several at once, and says so while it loads its model.

The package xllamacpp carries it, compiled. Started as a program, by the interpreter that has the package, this file is
the server: ``native.py --model FILE --port N``.
"""

from __future__ import annotations

import argparse
import importlib
import signal
from pathlib import Path
from typing import Any

__all__ = ["SLOW_START", "main"]

SLOW_START = 400_000
"""An ``n_ctx`` for which most of a second is spent on clearing memory (0.8 GB) before the model is there."""


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--model_alias", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--n_ctx", type=int, default=512)
    parser.add_argument("--n_parallel", type=int, default=1)
    chosen = parser.parse_args()
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = str(Path(chosen.model)), {chosen.model_alias}
    params.hostnames, params.port = [chosen.host], chosen.port
    params.n_ctx, params.n_parallel = chosen.n_ctx, chosen.n_parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup, params.endpoint_metrics = False, True
    server = xllamacpp.Server(params)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server


if __name__ == "__main__":
    main()
