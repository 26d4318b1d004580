"""The models that ship with llm-proxy: where they lie, and how any graph is run by ONNX Runtime."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

from .errors import MissingDependencyError

__all__ = [
    "CPU",
    "REINSTALL",
    "libraries",
    "model_folder",
    "onnxruntime_errors",
    "session",
    "silence_onnxruntime",
    "tokenizer_of",
]

CPU = "CPUExecutionProvider"
"""ONNX Runtime's name for the processor."""

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


def libraries(what: str, *names: str) -> tuple[Any, ...]:
    """Libraries of the extra ``cpu``, ONNX Runtime among them, imported where that has not been done.

    Args:
        what: What needs them, for the message.
        names: Of their modules.

    Raises:
        MissingDependencyError: One is not installed.
    """
    silence_onnxruntime()
    try:
        return tuple(import_module(name) for name in names)
    except ImportError as exc:
        raise MissingDependencyError(f'{what} needs {exc.name}: pip install "llm-proxy[cpu]"') from exc


def session(
    onnxruntime: Any,
    graph: bytes | Path,
    providers: Sequence[str] = (CPU,),
    *,
    is_fused: bool = False,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """An ``InferenceSession`` on one thread: the one place where llm-proxy makes any.

    Args:
        onnxruntime: The module.
        graph: The graph; or its file, for a large one (ONNX Runtime's Python part keeps bytes as long as the session)
            and for one that reads others beside it.
        providers: Execution providers in order of preference, by ONNX Runtime's names.
        is_fused: Whether the graph is fused as it should be; further fusions pick slower kernels for Add and
            LayerNormalization.
        given: Arrays that the graph says are in other files, by name; they must live as long as the session.

    Raises:
        Exception: One of `onnxruntime_errors`.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if is_fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # Texts of every length come by: an arena keeps the largest buffers for ever and saves no time.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = 3
    if given:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in given.values()]
        options.add_external_initializers(list(given), values)
    source = graph if isinstance(graph, bytes) else str(graph)
    # Without the fallback of ONNX Runtime, which prints.
    return onnxruntime.InferenceSession(source, options, providers=list(providers), enable_fallback=0)


def onnxruntime_errors(onnxruntime: Any) -> tuple[type[Exception], ...]:
    """Everything that ONNX Runtime raises: its classes share no base but Exception."""
    classes = vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
    own = [kind for kind in classes if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError, MemoryError)


_tokenizers: WeakValueDictionary[tuple[str, int], Any] = WeakValueDictionary()
_making = threading.RLock()


def tokenizer_of(tokenizers: Any, text: str, most_tokens: int) -> Any:
    """A tokenizer without padding; those who ask for the same share one, which takes 6 MB.

    Args:
        tokenizers: The module.
        text: What ``tokenizer.json`` holds.
        most_tokens: Tokens after which it cuts a text, > 0.

    Raises:
        Exception: The text is no tokenizer; tokenizers raises nothing narrower.
    """
    wanted = hashlib.sha256(text.encode()).hexdigest(), most_tokens
    with _making:  # encoder and pair model load side by side
        found = _tokenizers.get(wanted)
        if found is None:
            found = tokenizers.Tokenizer.from_str(text)
            found.no_padding()
            found.enable_truncation(most_tokens)
            _tokenizers[wanted] = found
    return found
