"""The drawing of accuracy against cost: a router over several models, each model alone, and mixtures by chance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

__all__ = ["draw", "hull"]

Point = tuple[float, float]


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the figures of `benchmarks._candidates.several` as SVG.

    Args:
        found: The figures.
        path: File to write.
    """
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    singles = [(1000 * one["usd"], one["accuracy"]) for one in found["singles"]]
    lines = {
        "routed by usd_per_good_answer": (_thousand(found["curve"]), "-"),
        "routed by quality": (_thousand(found["curve_by_quality"]), "-"),
        "best mixture of two by chance": (_drawn(hull(singles)), "k--"),
    }
    with plt.rc_context({"svg.hashsalt": "router", "font.size": 9}):
        figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
        for label, (points, style) in lines.items():
            axes.plot(*zip(*points, strict=True), style, linewidth=1.2, label=label)
        axes.plot(*zip(*singles, strict=True), "o", color="black", markersize=4)
        for one, place in zip(found["singles"], singles, strict=True):
            axes.annotate(one["model"], place, xytext=(4, -10), textcoords="offset points", fontsize=8)
        costs = [usd for usd, _ in singles]
        if min(costs) > 0:
            axes.set_xscale("log")
            axes.set_xlim(min(costs) / 1.3, max(costs) * (max(costs) / min(costs)) ** 0.4)  # room for names
            ticks = [digit * 10**power for power in range(-6, 4) for digit in (1, 2, 5)]
            shown = [tick for tick in ticks if min(costs) / 1.3 <= tick <= 1.3 * max(costs)]
            axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
            axes.minorticks_off()
        axes.set(xlabel="dollars for 1,000 calls", ylabel="mean score")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        figure.savefig(path, format="svg", metadata={"Date": None})
        plt.close(figure)
    print(f"drawn into {path.name}")


def hull(points: Sequence[Point]) -> list[Point]:
    """What mixtures by chance reach at best: the upper hull of points (cost, score), while the score rises."""
    best: list[Point] = []
    for point in sorted(points, key=lambda one: (one[0], -one[1])):
        if best and point[1] <= best[-1][1]:
            continue
        while len(best) > 1 and _slope(best[-2], best[-1]) <= _slope(best[-1], point):
            best.pop()
        best.append(point)
    return best


def _thousand(points: Sequence[Point]) -> list[Point]:
    return sorted((1000 * usd, score) for usd, score in points)


def _drawn(points: list[Point]) -> list[Point]:
    """A line through points that stays one on an axis of logarithms."""
    found = points[:1]
    for (x, y), (to_x, to_y) in pairwise(points):
        found += [(x + (to_x - x) * part / 50, y + (to_y - y) * part / 50) for part in range(1, 51)]
    return found


def _slope(one: Point, other: Point) -> float:
    return (other[1] - one[1]) / max(other[0] - one[0], 1e-12)
