"""Which optional packages the encoder needs, and which extra brings them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from llm_proxy.config import Config

__all__ = ["exact_only", "missing", "pip_line"]

_NEEDED = {
    "onnx": ("numpy", "faiss", "onnxruntime", "tokenizers"),
    "sentence-transformers": ("numpy", "faiss", "sentence_transformers"),
}
_EXTRA = {"onnx": "cpu", "sentence-transformers": "sentence-transformers"}


def exact_only(config: Config) -> str:
    """Why only repeated questions will be answered and not equivalent ones, with the remedy; empty when both will."""
    if not config.cache.enabled or not config.cache.semantic:
        return ""
    absent = missing(config.encoder.kind)
    if not absent:
        return ""
    return (
        f"llm-proxy: {', '.join(absent)} not installed: only repeated questions are answered from the cache, "
        f"not equivalent ones; {pip_line(config)}"
    )


def missing(kind: Literal["onnx", "sentence-transformers"] = "onnx") -> tuple[str, ...]:
    """The modules that an encoder of this kind needs and that are not installed."""
    return tuple(name for name in _NEEDED[kind] if find_spec(name) is None)


def pip_line(config: Config) -> str:
    """The command that installs what the configured encoder needs."""
    return f'pip install "llm-proxy[{_EXTRA[config.encoder.kind]}]"'
