"""The reliability plot: of the pairs that get some P, the share that is the same question."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from llm_proxy.cache.guard.probability import JUDGED

from .evaluate import Measured

__all__ = ["write_plot"]

_EDGES = (0.0, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 0.996, 1.0001)
_SIDE, _MARGIN = 320, 48
_FEW = 10  # pairs: less say nothing


def write_plot(sets: Mapping[str, Measured], path: Path) -> None:
    """Write an SVG over all pairs that the rules leave open."""
    p = np.concatenate([found.p[_open(found)] for found in sets.values()])
    label = np.concatenate([found.label[_open(found)] for found in sets.values()])
    points = []
    for low, high in pairwise(_EDGES):
        is_in = (p >= low) & (p < high)
        if is_in.sum() >= _FEW:
            points.append((float(p[is_in].mean()), float(label[is_in].mean()), int(is_in.sum())))
    path.write_text(_svg(points), encoding="utf-8")
    for mean, share, n in points:
        print(f"P {mean:.3f}  same {share:.3f}  of {n}")


def _open(found: Measured) -> list[int]:
    return [at for at, reason in enumerate(found.reason) if reason in JUDGED]


def _svg(points: list[tuple[float, float, int]]) -> str:
    whole = _SIDE + 2 * _MARGIN

    def at(x: float, y: float) -> tuple[float, float]:
        return _MARGIN + x * _SIDE, _MARGIN + (1 - y) * _SIDE

    marks = []
    for x, y, n in points:
        left, top = at(x, y)
        marks.append(
            f'<circle cx="{left:.1f}" cy="{top:.1f}" r="4"/><text x="{left + 7:.1f}" y="{top + 4:.1f}">{n}</text>'
        )
    line = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y, _ in points)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} {whole}" font-family="sans-serif" font-size="11">
<rect width="{whole}" height="{whole}" fill="white"/>
<rect x="{_MARGIN}" y="{_MARGIN}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#888"/>
<line x1="{_MARGIN}" y1="{whole - _MARGIN}" x2="{whole - _MARGIN}" y2="{_MARGIN}" stroke="#bbb" stroke-dasharray="4"/>
<polyline points="{line}" fill="none" stroke="#1f6feb"/>
<g fill="#1f6feb">{"".join(marks)}</g>
<text x="{whole / 2}" y="{whole - 12}" text-anchor="middle">P(same) that the guard says</text>
<text x="16" y="{whole / 2}" text-anchor="middle" transform="rotate(-90 16 {whole / 2})">share that is the same</text>
<text x="{_MARGIN}" y="{_MARGIN - 14}">numbers: pairs in each bin</text>
</svg>
"""
