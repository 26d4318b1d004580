"""Forests of trees with random cuts, for what is not linear: how long, how many numbers, what kind of question.

Source: Geurts, Ernst & Wehenkel, "Extremely randomized trees", Machine Learning 63, 2006; scikit-learn grows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_proxy.errors import MissingDependencyError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Forest", "tree_attributes"]

_TREES = 100
_SHARE_OF_INPUTS = 0.5


class Forest:
    """Trees over some inputs for several targets at once.

    Args:
        inputs: Shape ``(n, p)``, float32, finite.
        targets: Shape ``(n, K)``, finite.
        leaves: Of each tree, at most.
        least_rows: Rows that a leaf stands for, at least.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """

    def __init__(
        self, inputs: NDArray[np.float32], targets: NDArray[np.float64], *, leaves: int, least_rows: int
    ) -> None:
        try:
            from sklearn.ensemble import ExtraTreesRegressor
        except ImportError as exc:
            raise MissingDependencyError(f'training needs {exc.name}: pip install "llm-proxy[train]"') from exc
        self._size = targets.shape[1]
        self._trees = ExtraTreesRegressor(
            _TREES,
            max_leaf_nodes=leaves,
            max_features=_SHARE_OF_INPUTS,
            min_samples_leaf=least_rows,
            random_state=0,
        ).fit(inputs, targets if self._size > 1 else targets[:, 0])

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mean of the trees, shape ``(n, K)``."""
        found: NDArray[np.float64] = self._trees.predict(inputs).reshape(len(inputs), self._size)
        return found

    @property
    def trees(self) -> list[Any]:
        """The trees, as scikit-learn documents ``tree_``."""
        return [estimator.tree_ for estimator in self._trees.estimators_]


def tree_attributes(forest: Forest) -> dict[str, Any]:
    """The attributes of ONNX's TreeEnsembleRegressor (ai.onnx.ml) that computes what `Forest.predict` does."""
    import numpy

    names = ("treeids", "nodeids", "featureids", "values", "truenodeids", "falsenodeids", "modes")
    nodes: dict[str, list[Any]] = {name: [] for name in names}
    targets: dict[str, list[Any]] = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}
    trees = forest.trees
    for place, tree in enumerate(trees):
        leaf = tree.children_left < 0
        # scikit-learn compares float32 with float64: the next float32 below sends every float32 the same way.
        cuts = tree.threshold.astype(numpy.float32)
        cuts = numpy.where(cuts > tree.threshold, numpy.nextafter(cuts, numpy.float32(-numpy.inf)), cuts)
        columns = {
            "treeids": numpy.full(tree.node_count, place),
            "nodeids": numpy.arange(tree.node_count),
            "featureids": numpy.where(leaf, 0, tree.feature),
            "values": numpy.where(leaf, 0, cuts),
            "truenodeids": numpy.where(leaf, 0, tree.children_left),
            "falsenodeids": numpy.where(leaf, 0, tree.children_right),
            "modes": numpy.where(leaf, "LEAF", "BRANCH_LEQ"),
        }
        for name, column in columns.items():
            nodes[name] += column.tolist()
        values = tree.value[leaf, :, 0] / len(trees)
        at, target = numpy.meshgrid(numpy.flatnonzero(leaf), numpy.arange(values.shape[1]), indexing="ij")
        for name, column in (("nodeids", at), ("ids", target), ("weights", values)):
            targets[name] += column.ravel().tolist()
        targets["treeids"] += [place] * values.size
    size = int(trees[0].value.shape[1])
    return {
        **{f"nodes_{name}": column for name, column in nodes.items()},
        **{f"target_{name}": column for name, column in targets.items()},
        "n_targets": size,
        "aggregate_function": "SUM",
        "post_transform": "NONE",
    }
