"""The encoder as an ONNX graph, written node by node, with the way of multiplying left open."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIM, WINDOW, LAYERS, HEADS, EPSILON = 384, 256, 6, 12, 1e-12
INNER = (3, 5)  # layers whose means come out beside the vector
CONTRIB = "com.microsoft"
PRODUCTS = {  # name of a product: the weights that it is made of
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "out": ("attention.output.dense",),
    "up": ("intermediate.dense",),
    "down": ("output.dense",),
}
Array = np.ndarray[Any, Any]
Product = Callable[["Graph", str, str, Array, Array], str]
"""``(graph, name such as "3.up", input, weights (n, k), bias (n,)) -> output``."""


@dataclass
class Graph:
    """An ONNX graph under construction; every method returns the name of a tensor."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    extra_outputs: list[str] = field(default_factory=list)

    def constant(self, name: str, value: Array) -> str:
        """Add a constant once; the same name stands for the same value."""
        self.constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, name: str = "", domain: str = "", **attributes: Any) -> str:
        """Add a node with one output."""
        return self.ops(kind, *inputs, names=(name or f"{kind}_{len(self.nodes)}",), domain=domain, **attributes)[0]

    def ops(
        self, kind: str, *inputs: str, names: tuple[str, ...], domain: str = "", **attributes: Any
    ) -> tuple[str, ...]:
        """Add a node with several outputs."""
        self.nodes.append(
            helper.make_node(kind, inputs, names, name=f"node_{len(self.nodes)}", domain=domain, **attributes)
        )
        return names

    def model(self) -> onnx.ModelProto:
        """The checked model: ``input_ids``, ``attention_mask`` in, ``vector`` and ``layers`` out."""
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ]
        widths = {"vector": DIM, "layers": DIM * len(INNER)}
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name, width in widths.items()
        ]
        outputs += [helper.make_empty_tensor_value_info(name) for name in self.extra_outputs]
        graph = helper.make_graph(self.nodes, "encoder", inputs, outputs, list(self.constants.values()))
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="llm-proxy recipe")


def quantised_rows(weights: Array) -> tuple[Array, Array]:
    """Int8 with one scale a row: ``(q (n, k) int8, scale (n, 1) float32)``."""
    scale = np.abs(weights).max(axis=1, keepdims=True) / 127
    return np.rint(weights / scale).astype(np.int8), scale.astype(np.float32)


def transformer(weights: dict[str, Array], product: Product, *, word_bits: int = 8, has_padding: bool = True) -> Graph:
    """The whole encoder: embedding, six layers, mean over the tokens of the mask, unit length.

    Without ``has_padding`` the mask counts for the mean only: attention is to all tokens, which is the same for texts
    that are run one by one, and takes a tenth less time for long ones.

    Token types are all zero, so their vector is added to the position table here. The mean's division by the
    number of tokens is left out: the normalisation that follows undoes any factor.

    Beside it, the means of the layers of `INNER`, not normalised: what is still known of the text's form there is
    gone at the end, and routing heads can use it.
    """
    g = Graph()
    x = _embedding(g, weights, word_bits)
    if has_padding:
        beyond = ("", g.op("Cast", "attention_mask", to=TensorProto.INT32))
    else:
        # Says that nothing comes before the text. Without a mask ONNX Runtime would else attend block by block, which
        # is no faster here, and sums in another order: the last bits differ, and rounding to int8 makes much of them.
        beyond = ("", "", "", "", "", g.constant("past", np.array([0], np.int32)))
    inner: list[str] = []
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}."

        def linear(name: str, source: str, prefix: str = prefix, layer: int = layer) -> str:
            parts = [prefix + part for part in PRODUCTS[name]]
            matrix = np.concatenate([weights[part + ".weight"] for part in parts])
            bias = np.concatenate([weights[part + ".bias"] for part in parts])
            return product(g, f"{layer}.{name}", source, matrix, bias)

        packed = linear("qkv", x)
        names = tuple(f"{layer}.{part}" for part in ("query", "key", "value"))
        g.ops("Split", packed, names=names, axis=-1, num_outputs=3)
        attended = g.op("MultiHeadAttention", *names, *beyond, domain=CONTRIB, num_heads=HEADS)
        x = _normed(g, weights, prefix + "attention.output.LayerNorm", g.op("Add", linear("out", attended), x))
        hidden = g.op("Gelu", linear("up", x), domain=CONTRIB)
        x = _normed(g, weights, prefix + "output.LayerNorm", g.op("Add", linear("down", hidden), x))
        inner += [x] if layer + 1 in INNER else []
    floats = g.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    row = g.op("Unsqueeze", floats, g.constant("axis_1", np.array([1])))
    total = g.op("Squeeze", g.op("MatMul", row, x), "axis_1")
    norm = g.op("ReduceL2", total, "axis_1", keepdims=1)
    g.op("Div", total, g.op("Max", norm, g.constant("tiny", np.array(1e-12, np.float32))), name="vector")
    sums = [g.op("Squeeze", g.op("MatMul", row, found), "axis_1") for found in inner]
    count = g.op("ReduceSum", floats, "axis_1", keepdims=1)
    g.op("Div", g.op("Concat", *sums, axis=1), count, name="layers")
    return g


def _embedding(g: Graph, weights: dict[str, Array], word_bits: int) -> str:
    words = weights["embeddings.word_embeddings.weight"]
    places = weights["embeddings.position_embeddings.weight"][:WINDOW]
    places = places + weights["embeddings.token_type_embeddings.weight"][0]
    if word_bits == 8:
        q, scale = quantised_rows(words)
        rows = g.op("Cast", g.op("Gather", g.constant("words", q), "input_ids"), to=TensorProto.FLOAT)
        found = g.op("Mul", rows, g.op("Gather", g.constant("words.scale", scale), "input_ids"))
    else:
        found = g.op("Gather", g.constant("words", words), "input_ids")
    length = g.op("Shape", "input_ids", start=1, end=2)
    zero = g.constant("zero", np.array([0]))
    return _normed(
        g,
        weights,
        "embeddings.LayerNorm",
        g.op("Add", found, g.op("Slice", g.constant("places", places), zero, length, zero)),
    )


def _normed(g: Graph, weights: dict[str, Array], name: str, source: str) -> str:
    gain = g.constant(name + ".gain", weights[name + ".weight"])
    shift = g.constant(name + ".shift", weights[name + ".bias"])
    return g.op("LayerNormalization", source, gain, shift, axis=-1, epsilon=EPSILON)


def float_product(g: Graph, name: str, source: str, matrix: Array, bias: Array) -> str:
    """The product as published, its input shown as an output of the graph for calibration."""
    g.extra_outputs.append(source)
    return g.op("Add", g.op("MatMul", source, g.constant(name, matrix.T)), g.constant(name + ".bias", bias))


def float_twin(padded: onnx.ModelProto, data: bytes) -> onnx.ModelProto:
    """A graph in float arithmetic on the shipped int8 weights, which stay in ``model.onnx``: for GPUs.

    int8 matrices become references to the bytes inside ``model.onnx``, expanded once when a session starts.

    Args:
        padded: The shipped graph with padding, for batches.
        data: The shipped graph's bytes.
    """
    twin = onnx.ModelProto()
    twin.CopyFrom(padded)
    nodes = [part for node in twin.graph.node for part in _in_float(node)]
    del twin.graph.node[:]
    twin.graph.node.extend(nodes)
    for tensor in twin.graph.initializer:
        if tensor.data_type == TensorProto.INT8:
            refer(tensor, data)
    helper.set_model_props(twin, {"weights_sha256": hashlib.sha256(data).hexdigest()})
    return twin


def refer(tensor: TensorProto, data: bytes) -> None:
    """Have a tensor be read out of ``model.onnx``, which must hold its bytes exactly once, in place of its own.

    Args:
        tensor: Changed.
        data: The shipped graph's bytes.
    """
    raw = tensor.raw_data
    place = data.find(raw)
    if place < 0 or data.find(raw, place + 1) >= 0:
        raise SystemExit(f"the bytes of {tensor.name} are not in model.onnx exactly once")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "model.onnx"), ("offset", place), ("length", len(raw))):
        tensor.external_data.add(key=key, value=str(value))


def _in_float(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    if node.op_type != "DynamicQuantizeMatMul":
        return [node]
    source, q, scale, _, bias = node.input
    wide, matrix, result = q + ".wide", q + ".float", q + ".product"
    return [
        helper.make_node("Cast", [q], [wide], to=TensorProto.FLOAT),
        helper.make_node("Mul", [wide, scale], [matrix]),
        helper.make_node("MatMul", [source, matrix], [result]),
        helper.make_node("Add", [result, bias], [node.output[0]]),
    ]
