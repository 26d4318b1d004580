"""A checkpoint as an ONNX graph in int8, written node by node with the parts of `router_models.encoder.recipe`.

``input_ids``, ``marks`` (int64, 1 x tokens) to ``logit``, ``cosine`` (float32, 1): one pair at a time, without padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import load_file

from router_models.encoder.recipe.graph import (
    CONTRIB,
    EPSILON,
    Array,
    Graph,
    Product,
    float_product,
    quantised_rows,
    refer,
)
from router_models.encoder.recipe.quantise import Channels, int8_product

from .net import HEADS, LONGEST

__all__ = ["beside_encoder", "export"]

_PRODUCTS = ("qkv", "out", "up", "down")


def export(weights: Path, state: dict[str, Array], n_layers: int, rows: Sequence[tuple[list[int], list[int]]]) -> bytes:
    """The model's bytes.

    Args:
        weights: ``model.safetensors`` of all-MiniLM-L6-v2, for the table of words.
        state: Parameters of `net.PairModel`, float32.
        n_layers: How many layers it has.
        rows: Ids and marks of pairs to calibrate int8 on.
    """
    words = load_file(str(weights))["embeddings.word_embeddings.weight"]
    seen = _seen(_graph(words, state, n_layers, float_product), n_layers, rows)
    graph = _graph(words, state, n_layers, int8_product(seen))
    return bytes(_model(graph).SerializeToString(deterministic=True))


def beside_encoder(graph: bytes, encoder: bytes) -> bytes:
    """The same model without its table of words: ONNX Runtime maps the encoder's, in the same folder, into memory.

    Args:
        graph: What `export` gives.
        encoder: Bytes of the encoder's ``model.onnx``, whose table is the same.
    """
    model = onnx.load_from_string(graph)
    (words,) = [tensor for tensor in model.graph.initializer if tensor.name == "words"]
    refer(words, encoder)
    return bytes(model.SerializeToString(deterministic=True))


def _seen(graph: Graph, n_layers: int, rows: Sequence[tuple[list[int], list[int]]]) -> dict[str, Channels]:
    import onnxruntime as ort

    run = ort.InferenceSession(_model(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [f"{layer}.{name}" for layer in range(n_layers) for name in _PRODUCTS]
    largest = {name: np.zeros(1) for name in names}
    total = {name: np.zeros(1) for name in names}
    for row in rows:
        for name, value in zip(names, run.run(graph.extra_outputs, feeds(*row)), strict=True):
            largest[name] = np.maximum(largest[name], np.abs(value[0]).max(axis=0))
            total[name] = total[name] + value[0].mean(axis=0, dtype=np.float64)
    return {name: Channels(largest[name].astype(np.float64), total[name] / len(rows)) for name in names}


def feeds(ids: list[int], marks: list[int]) -> dict[str, Array]:
    """Inputs of the graph for one pair."""
    return {"input_ids": np.array([ids], np.int64), "marks": np.array([marks], np.int64)}


def _graph(words: Array, state: dict[str, Array], n_layers: int, product: Product) -> Graph:
    g = Graph()
    q, scale = quantised_rows(words)
    found = g.op(
        "Mul",
        g.op("Cast", g.op("Gather", g.constant("words", q), "input_ids"), to=TensorProto.FLOAT),
        g.op("Gather", g.constant("words.scale", scale), "input_ids"),
    )
    zero = g.constant("zero", np.array([0]))
    length = g.op("Shape", "input_ids", start=1, end=2)
    places = g.op("Slice", g.constant("places", state["places.weight"][:LONGEST]), zero, length, zero)
    marks = g.op("Gather", g.constant("marks.table", state["marks.weight"]), "marks")
    x = _normed(g, state, "norm", g.op("Add", g.op("Add", found, places), marks))
    for layer in range(n_layers):
        x = _layer(g, state, layer, x, product)
    return _head(g, state, x)


def _layer(g: Graph, state: dict[str, Array], layer: int, x: str, product: Product) -> str:
    prefix = f"layers.{layer}."

    def linear(name: str, source: str) -> str:
        return product(g, f"{layer}.{name}", source, state[f"{prefix}{name}.weight"], state[f"{prefix}{name}.bias"])

    names = tuple(f"{layer}.{part}" for part in ("query", "key", "value"))
    g.ops("Split", linear("qkv", x), names=names, axis=-1, num_outputs=3)
    attended = g.op("MultiHeadAttention", *names, domain=CONTRIB, num_heads=HEADS)
    x = _normed(g, state, prefix + "norm_1", g.op("Add", linear("out", attended), x))
    hidden = g.op("Gelu", linear("up", x), domain=CONTRIB)
    return _normed(g, state, prefix + "norm_2", g.op("Add", linear("down", hidden), x))


def _head(g: Graph, state: dict[str, Array], x: str) -> Graph:
    one = g.constant("axis_1", np.array([1]))
    first = g.op("Squeeze", g.op("Gather", x, g.constant("first", np.array([0])), axis=1), one)
    mean = g.op("ReduceMean", x, one, keepdims=0)
    differs = g.op("Cast", g.op("GreaterOrEqual", "marks", g.constant("two", np.array([2]))), to=TensorProto.FLOAT)
    column = g.op("Unsqueeze", differs, g.constant("axis_2", np.array([2])))
    count = g.op("Max", g.op("ReduceSum", differs, one, keepdims=1), g.constant("least", np.array([1], np.float32)))
    apart = g.op("Div", g.op("ReduceSum", g.op("Mul", x, column), one, keepdims=0), count)
    pooled = g.op("Concat", first, mean, apart, axis=1)
    hidden = g.op("Gelu", _dense(g, state, "head.0", pooled), domain=CONTRIB)
    both = _dense(g, state, "head.3", hidden)
    g.ops("Split", both, names=("logit.column", "cosine.raw"), axis=-1, num_outputs=2)
    g.op("Squeeze", "logit.column", one, name="logit")
    scaled = g.op("Mul", g.op("Squeeze", "cosine.raw", one), g.constant("quarter", np.array([0.25], np.float32)))
    g.op("Add", scaled, g.constant("middle", np.array([0.7], np.float32)), name="cosine")
    return g


def _dense(g: Graph, state: dict[str, Array], name: str, source: str) -> str:
    matrix, bias = state[name + ".weight"].T, state[name + ".bias"]
    return g.op("Add", g.op("MatMul", source, g.constant(name, matrix)), g.constant(name + ".bias", bias))


def _normed(g: Graph, state: dict[str, Array], name: str, source: str) -> str:
    gain, shift = (g.constant(f"{name}.{part}", state[f"{name}.{part}"]) for part in ("weight", "bias"))
    return g.op("LayerNormalization", source, gain, shift, axis=-1, epsilon=EPSILON)


def _model(graph: Graph) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [1, "tokens"]) for name in ("input_ids", "marks")]
    outputs: list[Any] = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("logit", "cosine")]
    outputs += [helper.make_empty_tensor_value_info(name) for name in graph.extra_outputs]
    made = helper.make_graph(graph.nodes, "pair", inputs, outputs, list(graph.constants.values()))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(CONTRIB, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9, producer_name="llm-proxy recipe")
