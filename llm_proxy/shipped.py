"""The models that ship with llm-proxy: where they lie, and what to do before they are run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from .errors import MissingDependencyError

__all__ = ["REINSTALL", "model_folder", "onnxruntime_errors", "silence_onnxruntime"]

REINSTALL = 'reinstall it: pip install --force-reinstall "llm-proxy[cpu]"'
"""The remedy for a model that is absent or damaged."""

_PACKAGE = Path(__file__).resolve().parent


def model_folder(name: str) -> Path:
    """The folder of a shipped model: inside the package when installed, beside it in a checkout.

    Args:
        name: Name of the model, e.g. ``encoder``.

    Raises:
        MissingDependencyError: This installation came without it.
    """
    for root in (_PACKAGE, _PACKAGE.parent):
        folder = root / "router_models" / name
        if folder.is_dir():
            return folder
    raise MissingDependencyError(f"this installation of llm-proxy has no model {name!r}; {REINSTALL}")


def silence_onnxruntime() -> None:
    """Have ONNX Runtime, from 1.29 on, send no usage data; without effect once it is imported.

    It would do so from a thread of its own, begun by the import, which a forked child waits for in vain at its end.
    """
    if "onnxruntime" not in sys.modules:
        os.putenv("ORT_DISABLE_TELEMETRY", "1")  # its C++ part reads it


def onnxruntime_errors(onnxruntime: Any) -> tuple[type[Exception], ...]:
    """Everything that ONNX Runtime raises: its classes share no base but Exception."""
    classes = vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    own = [kind for kind in classes if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError, MemoryError)
