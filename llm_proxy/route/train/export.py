"""A fitted head as an ONNX graph: ``vector``, ``features`` and perhaps ``layers`` to ``p_good`` and ``log_tokens``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_proxy.errors import MissingDependencyError

from .fit import LIMIT
from .forest import tree_attributes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .fit import Fitted, Side

__all__ = ["to_onnx"]

_OPSET, _TREES_OPSET = 18, 3
_IR_VERSION = 9  # of opset 18: older ONNX Runtimes refuse newer ones
_TREES_DOMAIN = "ai.onnx.ml"


def to_onnx(fitted: Fitted, *, dim: int, layers: int) -> bytes:
    """The graph that computes what `Fitted.predict` does.

    Args:
        fitted: What was learnt.
        dim: Length of the vectors.
        layers: Length of the inner layers' means; 0 leaves that input out.

    Raises:
        MissingDependencyError: The package onnx is not installed.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as exc:
        raise MissingDependencyError(f'writing a head needs {exc.name}: pip install "llm-proxy[train]"') from exc
    graph = _Graph()
    models, features = len(fitted.models), len(fitted.mean) - layers
    facts = graph.op("Concat", "layers", "features", axis=1) if layers else "features"
    centered = graph.op("Sub", facts, graph.constant("mean", fitted.mean))
    scaled = graph.op("Div", centered, graph.constant("deviation", fitted.deviation))
    scaled = graph.op("Clip", scaled, graph.constant("low", -LIMIT), graph.constant("high", LIMIT))
    direction = graph.op("Mul", "vector", graph.constant("stretch", dim**0.5))
    x = graph.op("Concat", direction, scaled, axis=1)
    good = graph.side("scores", fitted.scores, x, models)
    graph.op("Clip", good, graph.constant("zero", 0.0), graph.constant("one", 1.0), name="p_good")
    # Of lengths that nobody saw, nothing is known: NaN.
    hidden = [0.0 if is_there else float("nan") for is_there in fitted.has_tokens]
    known = good if fitted.lengths is None else graph.side("lengths", fitted.lengths, x, models)
    graph.op("Add", known, graph.constant("hidden", hidden), name="log_tokens")
    inputs = {"vector": dim, **({"layers": layers} if layers else {}), "features": features}
    return graph.serialised(inputs, {"p_good": models, "log_tokens": models})


class _Graph:
    """An ONNX graph under construction; every method returns the name of a tensor."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._tensors: dict[str, Any] = {}

    def constant(self, name: str, value: NDArray[np.float32] | list[float] | float) -> str:
        """Add a constant, float32."""
        import numpy
        from onnx import numpy_helper

        self._tensors[name] = numpy_helper.from_array(numpy.asarray(value, numpy.float32), name)
        return name

    def op(self, kind: str, *inputs: str, name: str = "", domain: str = "", **attributes: Any) -> str:
        """Add a node with one output."""
        from onnx import helper

        name = name or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=f"to {name}", domain=domain, **attributes))
        return name

    def side(self, name: str, side: Side, x: str, models: int) -> str:
        """Scores or lengths of the models."""
        import numpy

        product = self.op("MatMul", x, self.constant(f"{name}.weights", side.weights))
        linear = self.op("Add", product, self.constant(f"{name}.bias", side.bias))
        places = self.constant(f"{name}.models", numpy.eye(len(side.bias), models, dtype=numpy.float32))
        found = self.op("MatMul", linear, places)
        if side.forest is not None:
            seen = self.op("Concat", "features", linear, axis=1)
            trees = self.op("TreeEnsembleRegressor", seen, domain=_TREES_DOMAIN, **tree_attributes(side.forest))
            more = self.op("Mul", self.op("Sub", trees, found), self.constant(f"{name}.trust", side.trust))
            found = self.op("Add", found, more)
        if side.prior is None:
            return found
        weights, bias = side.prior
        known = self.op("MatMul", x, self.constant(f"{name}.prior", weights))
        return self.op("Add", found, self.op("Add", known, self.constant(f"{name}.prior bias", bias)))

    def serialised(self, inputs: dict[str, int], outputs: dict[str, int]) -> bytes:
        """The model, the same bytes for the same graph."""
        from onnx import TensorProto, helper

        given, wanted = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in side.items()]
            for side in (inputs, outputs)
        )
        graph = helper.make_graph(self._nodes, "head", given, wanted, list(self._tensors.values()))
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_TREES_DOMAIN, _TREES_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="llm-proxy")
        return bytes(model.SerializeToString(deterministic=True))
