"""What is known before a log says anything: harder and longer questions need the stronger model, by the shipped head.

::

    score(m) += k / (n + k) * slope(m) * h          k = 100, n = rows of the log
    slope(m)  = -.06 for the weakest model of the log, 0 for the best, between them by their order
    h         = what the shipped head says the strong tier gains over the weak one, of unit deviation in the log

Few rows teach little, and what a regression makes of them is small beside this; a thousand rows leave a tenth of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from llm_proxy.errors import LLMProxyError
from llm_proxy.route.features import FEATURES
from llm_proxy.route.heads import HeadConfig
from llm_proxy.route.tiers import shipped_head

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Prior", "shipped_prior"]

_ROWS = 100.0
_SLOPE = 0.06


@dataclass(frozen=True, slots=True)
class Prior:
    """A line over scaled inputs, see `llm_proxy.route.train.fit`.

    Attributes:
        name: Of the head that it comes from.
        weights: Shape ``(d + k + F,)``, float32.
        deviation: Of layers and features where it was learnt, shape ``(k + F,)``, float32, > 0.
    """

    name: str
    weights: NDArray[np.float32]
    deviation: NDArray[np.float32]

    def lines(
        self, x: NDArray[np.float32], deviation: NDArray[np.float32], means: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What to add to the scores of ``M`` models.

        Args:
            x: Scaled inputs of the log, shape ``(n, d + k + F)``, float32.
            deviation: By which layers and features are scaled there, shape ``(k + F,)``, float32.
            means: Mean score of each model, shape ``(M,)``.

        Returns:
            Weights, shape ``(d + k + F, M)``, and bias, shape ``(M,)``, float32: of mean 0 in the log.
        """
        import numpy

        scale = numpy.ones(len(self.weights), numpy.float32)
        scale[len(scale) - len(deviation) :] = deviation / self.deviation
        weights = self.weights * scale
        said = x @ weights
        places = numpy.argsort(numpy.argsort(means))
        share = _ROWS / (len(x) + _ROWS)
        slopes = -_SLOPE * share * (1.0 - places / max(1, len(means) - 1)) / (said.std() + 1e-9)
        lines, bias = numpy.outer(weights, slopes), -said.mean() * slopes
        return lines.astype(numpy.float32), bias.astype(numpy.float32)


def shipped_prior(encoder: str, *, dim: int, layers: int) -> Prior | None:
    """The shipped head as a prior; None where it is not there, reads other vectors, or the package onnx is absent.

    Args:
        encoder: Identity of the encoder of the log.
        dim: Length of its vectors.
        layers: Length of its inner layers.
    """
    if find_spec("onnx") is None:
        return None
    import onnx
    from onnx import numpy_helper

    try:
        folder = shipped_head()
        config = HeadConfig.read(folder)
        if (config.encoder, config.dim, config.layers, config.features) != (encoder, dim, layers, FEATURES):
            return None
        graph = onnx.load(folder / config.graph).graph
    except (LLMProxyError, OSError):
        return None
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = tensors["scores.weights"]
    return Prior(config.name, weights[:, -1] - weights[:, 0], tensors["deviation"])
