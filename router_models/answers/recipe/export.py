"""The fitted scorer as an ONNX graph: ``features``, ``question``, ``answer`` to ``logit``."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from llm_proxy.route.answers import FEATURES

from .model import Scorer

DIM = 384
_OPSET = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]


def graph(scorer: Scorer) -> onnx.ModelProto:
    """The graph; any batch size."""
    half = scorer.weights[:, None].astype(np.float32)
    constants = {
        "of_question": half[:DIM],
        "of_answer": half[DIM:],
        "bias": np.array([scorer.bias], np.float32),
        "slope": np.array([scorer.slope], np.float32),
        "offset": np.array([scorer.offset], np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["question", "of_question"], ["asked"]),
        helper.make_node("MatMul", ["answer", "of_answer"], ["said"]),
        helper.make_node("Add", ["asked", "said"], ["both"]),
        helper.make_node("Add", ["both", "bias"], ["line"]),
        helper.make_node("Concat", ["features", "line"], ["known"], axis=1),
        helper.make_node("TreeEnsembleRegressor", ["known"], ["grown"], domain="ai.onnx.ml", **_trees(scorer)),
        helper.make_node("Mul", ["grown", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["logit"]),
    ]
    inputs = [("features", len(FEATURES)), ("question", DIM), ("answer", DIM)]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "answers",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in inputs],
            [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n", 1])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        opset_imports=_OPSET,
        ir_version=8,
    )
    onnx.checker.check_model(model)
    return model


def _trees(scorer: Scorer) -> dict[str, Any]:
    """The attributes of ``TreeEnsembleRegressor``. Source: ONNX operators, ai.onnx.ml, version 3."""
    places = [*scorer.columns, len(FEATURES)]
    nodes: dict[str, list[Any]] = {
        name: []
        for name in (
            *("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids"),
            "missing_value_tracks_true",
        )
    }
    target: dict[str, list[Any]] = {"treeids": [], "nodeids": [], "ids": [], "weights": []}
    for tree, (predictor,) in enumerate(scorer.trees._predictors):
        for place, node in enumerate(predictor.nodes):
            is_leaf = bool(node["is_leaf"])
            values = {
                "treeids": tree,
                "nodeids": place,
                "featureids": 0 if is_leaf else places[node["feature_idx"]],
                "values": 0.0 if is_leaf else float(np.float32(node["num_threshold"])),
                "modes": "LEAF" if is_leaf else "BRANCH_LEQ",
                "truenodeids": 0 if is_leaf else int(node["left"]),
                "falsenodeids": 0 if is_leaf else int(node["right"]),
                "missing_value_tracks_true": 0 if is_leaf else int(node["missing_go_to_left"]),
            }
            for name, value in values.items():
                nodes[name].append(value)
            if is_leaf:
                for name, value in (
                    ("treeids", tree),
                    ("nodeids", place),
                    ("ids", 0),
                    ("weights", float(node["value"])),
                ):
                    target[name].append(value)
    return {
        "n_targets": 1,
        "base_values": [float(np.ravel(scorer.trees._baseline_prediction)[0])],
        **{f"nodes_{name}": values for name, values in nodes.items()},
        **{f"target_{name}": values for name, values in target.items()},
    }
