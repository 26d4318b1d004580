"""The section ``[encoder]`` of the settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import Frozen

__all__ = ["EncoderConfig"]


class EncoderConfig(Frozen):
    """What turns questions into vectors."""

    kind: Literal["onnx", "sentence-transformers"] = Field("onnx", description="Which library runs it.")
    model: str = Field("", description="Folder of the model, or a sentence-transformers name; empty: the shipped one.")
    device: Literal["auto", "cpu", "cuda", "tensorrt", "migraphx", "rocm", "directml", "coreml", "openvino"] = Field(
        "auto",
        description="Where `onnx` runs it. `auto`: on the first of `cuda`, `migraphx`, `rocm`, `directml`, `coreml` "
        "that gives the processor's vectors and is no slower; else on the processor, which also stands in for a device "
        "that is named and does not work.",
    )
    wait_s: float = Field(0.05, gt=0, description="Longest wait for a vector; after it the call goes on as a miss.")
    turn_s: float = Field(
        0.25,
        ge=0,
        description="Longest wait for its turn before that, where many calls come at once: it costs less than asking "
        "upstream. 0: it is part of `wait_s`.",
    )
