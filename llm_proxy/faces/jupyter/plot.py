"""Small drawings in SVG, without a library: they take the page's own colour, so they suit dark and light."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from llm_proxy._figures import milliseconds
from llm_proxy._shown import COLOURS

if TYPE_CHECKING:
    from .tally import Point

__all__ = ["area", "bar", "latencies"]

_WIDTH, _HEIGHT = 300, 64
_FLOOR_S, _CEILING_S = 1e-4, 60.0  # ends of the logarithmic scale of latencies
_OPEN = '<svg viewBox="0 0 {width} {height}" width="100%" role="img" aria-label="{label}" style="max-width:{width}px">'
_BASE = f'<line x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}" stroke="currentColor" stroke-opacity=".4"/>'


def area(values: Sequence[float], colour: str, label: str) -> str:
    """A sum that grows: an area under a line.

    Args:
        values: Its values, >= 0, oldest first.
        colour: Of line and area.
        label: Read aloud to those who don't see it.
    """
    top = max([*values, 0.0])
    if not values or not math.isfinite(top) or top <= 0:
        return _framed("", label)
    step = _WIDTH / max(1, len(values) - 1)
    points = [(index * step, _HEIGHT - (_HEIGHT - 4) * value / top) for index, value in enumerate(values)]
    if len(points) == 1:
        points.append((float(_WIDTH), points[0][1]))
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    filled = f'<polygon points="0,{_HEIGHT} {line} {_WIDTH},{_HEIGHT}" fill="{colour}" fill-opacity=".25"/>'
    return _framed(f'{filled}<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>', label)


def latencies(points: Sequence[Point], label: str) -> str:
    """One bar a call, its height the logarithm of its latency, its colour its kind.

    Args:
        points: The calls, oldest first.
        label: Read aloud to those who don't see it.
    """
    if not points:
        return _framed("", label)
    width = min(12.0, _WIDTH / len(points))
    scale = math.log(_CEILING_S / _FLOOR_S)
    bars = []
    for index, point in enumerate(points):
        latency_s = min(max(point.latency_s, _FLOOR_S * 1.5), _CEILING_S)
        height = _HEIGHT * math.log(latency_s / _FLOOR_S) / scale
        told = f"<title>{escape(point.kind)}, {milliseconds(point.latency_s)}</title>"
        place = f'x="{index * width:.1f}" y="{_HEIGHT - height:.1f}" width="{width * 0.8:.1f}" height="{height:.1f}"'
        bars.append(f'<rect {place} fill="{COLOURS[point.kind]}">{told}</rect>')
    return _framed("".join(bars), label)


def bar(share: float, colour: str) -> str:
    """A share of a whole as a bar.

    Args:
        share: In [0, 1].
        colour: Of the part that is filled.
    """
    filled = f'<rect width="{100 * share:.1f}" height="10" rx="2" fill="{colour}"/>'
    track = '<rect width="100" height="10" rx="2" fill="currentColor" fill-opacity=".12"/>'
    return f'<svg viewBox="0 0 100 10" width="100" height="10" aria-hidden="true">{track}{filled}</svg>'


def _framed(drawing: str, label: str) -> str:
    opening = _OPEN.format(width=_WIDTH, height=_HEIGHT, label=escape(label, quote=True))
    return f"{opening}<title>{escape(label)}</title>{_BASE}{drawing}</svg>"
