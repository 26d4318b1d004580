"""int8 weights for matrix products whose activations are quantised as one tensor.

Such a product takes its activations as uint8 with one scale for all, so a few channels that are twenty times
larger than the rest cost everybody else their resolution. Four things help, in the order in which they are done:

1. Neurons that fire hard in the middle of a layer are split into equal copies, each carrying its part of the
   outgoing weight. Source: Zhao et al., "Outlier channel splitting", arXiv 1901.09504, section 3.
2. Ahead of a product each channel is divided by a factor that its weights are multiplied by.
   Source: Xiao et al., "SmoothQuant", arXiv 2211.10438, section 4; here alpha = 0.8 with a floor.
3. Weights get one scale a column, chosen so that no two neighbours add up to more than 128: processors without
   VNNI add two products in 16 bits, and 255 x 128 is the most that fits.
4. What rounding the weights does to the mean of an output is put right in the bias.
   Source: Nagel et al., "Data-free quantization", arXiv 1906.04721, section 4.2.

Factors and corrections are rounded to coarse steps, so that the last bits of another machine's calibration do not
change the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .graph import CONTRIB, LAYERS, Array, Graph, Product, quantised_rows

ALPHA, FLOOR = 0.8, 0.5
MOST_PER_COPY = 2.0  # a neuron with a factor above this is split
COPIES_STEP = 16  # the number of neurons stays a multiple of this


@dataclass(frozen=True)
class Channels:
    """What the input channels of one product take over the calibration texts, each of shape ``(k,)``.

    Attributes:
        largest: Largest absolute value.
        mean: Mean over all tokens.
    """

    largest: Array
    mean: Array


def quantised_columns(
    weights: Array, *, limit: int = 127, has_pairs: bool = True, has_channels: bool = True
) -> tuple[Array, Array]:
    """Int8 with one scale a column, no two neighbours in a column adding up to more than 128.

    Args:
        weights: Shape ``(k, n)``, k even.
        limit: Largest absolute value of a weight.
        has_pairs: Whether the sum of neighbours is bounded.
        has_channels: Whether each column has a scale of its own.

    Returns:
        ``(q (k, n) int8, scale (n,) float32)``.
    """
    largest = np.abs(weights).max(axis=0)
    if has_pairs:
        largest = np.maximum(largest, np.abs(weights[0::2] + weights[1::2]).max(axis=0))
    if not has_channels:
        largest = np.full_like(largest, largest.max())
    scale = (largest / limit).astype(np.float32)
    return np.rint(weights / scale).astype(np.int8), scale


def channel_factors(channels: Channels, matrix: Array) -> Array:
    """What each input channel is divided by: ``(k,)`` float64, median about 1, powers of 2^(1/4)."""
    factors = channels.largest**ALPHA / np.maximum(np.abs(matrix).max(axis=0), 1e-6) ** (1 - ALPHA)
    factors = np.maximum(factors / np.median(factors), FLOOR)
    return np.asarray(np.exp2(np.rint(np.log2(factors) * 4) / 4))


def split_neurons(
    weights: Mapping[str, Array], seen: Mapping[str, Channels]
) -> tuple[dict[str, Array], dict[str, Channels]]:
    """Weights and channels with hard-firing neurons in equal copies; the function computed stays the same."""
    weights, seen = dict(weights), dict(seen)
    for layer in range(LAYERS):
        up, down = (f"encoder.layer.{layer}.{name}.dense" for name in ("intermediate", "output"))
        matrix, channels = weights[down + ".weight"], seen[f"{layer}.down"]
        factors = channel_factors(channels, matrix)
        copies = np.maximum(np.ceil(factors / MOST_PER_COPY), 1).astype(np.int64)
        for _ in range(-int(copies.sum()) % COPIES_STEP):
            copies[np.argmax(factors / copies)] += 1
        source = np.repeat(np.arange(len(copies)), copies)
        weights[up + ".weight"] = weights[up + ".weight"][source]
        weights[up + ".bias"] = weights[up + ".bias"][source]
        weights[down + ".weight"] = (matrix / copies.astype(np.float32))[:, source]
        seen[f"{layer}.down"] = Channels(channels.largest[source], channels.mean[source])
    return weights, seen


def int8_product(seen: Mapping[str, Channels] | None, **options: Any) -> Product:
    """A product in int8; with ``seen``, channels are rescaled and the mean error goes into the bias."""

    def product(g: Graph, name: str, source: str, matrix: Array, bias: Array) -> str:
        mean = seen[name].mean if seen is not None else np.zeros(matrix.shape[1])
        if seen is not None and not name.endswith("out"):
            factors = channel_factors(seen[name], matrix)
            source = g.op("Mul", source, g.constant(name + ".factor", (1 / factors).astype(np.float32)))
            matrix, mean = matrix * factors, mean / factors
        q, scale = quantised_columns(matrix.T, **options)
        error = mean @ (matrix.T - q * scale)
        bias = (bias + np.rint(error * 4096) / 4096).astype(np.float32)
        constants = g.constant(name, q), g.constant(name + ".scale", scale), "", g.constant(name + ".bias", bias)
        return g.op("DynamicQuantizeMatMul", source, *constants, domain=CONTRIB)

    return product


def block_product(g: Graph, name: str, source: str, matrix: Array, bias: Array) -> str:
    """A product with weights and activations in int8 by blocks of 64; an alternative, not shipped."""
    rows, size = matrix.shape
    q, scale = quantised_rows(matrix.reshape(-1, 64))
    packed = (q.astype(np.int16) + 128).astype(np.uint8).reshape(rows, size // 64, 64)
    constants = g.constant(name, packed), g.constant(name + ".scale", scale.reshape(rows, -1))
    return g.op(
        "MatMulNBits",
        *(source, *constants, "", "", g.constant(name + ".bias", bias)),
        domain=CONTRIB,
        K=size,
        N=rows,
        bits=8,
        block_size=64,
        accuracy_level=4,
    )
