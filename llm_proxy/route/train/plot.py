"""The reliability plot of a head: of the questions that get some ``p_good``, the share whose answers were good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from llm_proxy.route.metrics import Bin

__all__ = ["reliability_svg"]

_SIDE, _MARGIN, _LINE = 320, 48, 16
_COLOURS = ("#1f6feb", "#d1242f", "#2da44e", "#9a6700", "#8250df", "#0a7ea4", "#bf3989", "#57606a")
_MOST_MODELS = len(_COLOURS)


def reliability_svg(models: Mapping[str, Sequence[Bin]]) -> str:
    """A drawing with one line a model, at most eight, each point with a size by its rows.

    Args:
        models: Bins by the model's name.
    """
    shown = list(models.items())[:_MOST_MODELS]
    width, height = _SIDE + 2 * _MARGIN, _SIDE + 2 * _MARGIN + _LINE * len(shown)
    most = max((one.n for _, bins in shown for one in bins), default=1)
    drawn = [_line(at, name, bins, most) for at, (name, bins) in enumerate(shown)]
    bottom = _MARGIN + _SIDE
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" \
font-size="11">
<rect width="{width}" height="{height}" fill="white"/>
<rect x="{_MARGIN}" y="{_MARGIN}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#888"/>
<line x1="{_MARGIN}" y1="{bottom}" x2="{_MARGIN + _SIDE}" y2="{_MARGIN}" stroke="#bbb" stroke-dasharray="4"/>
{"".join(drawn)}
{"".join(_label(value) for value in (0.0, 0.5, 1.0))}
<text x="{width / 2}" y="{bottom + 30}" text-anchor="middle">p_good that the head says</text>
<text x="12" y="{_MARGIN + _SIDE / 2}" text-anchor="middle" transform="rotate(-90 12 {_MARGIN + _SIDE / 2})">\
mean score that came</text>
<text x="{_MARGIN}" y="{_MARGIN - 14}">questions that the head had not seen</text>
</svg>
"""


def _line(place: int, name: str, bins: Sequence[Bin], most: int) -> str:
    colour = _COLOURS[place]
    points = [(*_at(one.predicted, one.observed), 2 + 3 * (one.n / most) ** 0.5) for one in bins]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>' for x, y, size in points)
    below = _MARGIN + _SIDE + 34 + _LINE * (place + 1)
    return (
        f'<g fill="{colour}"><polyline points="{line}" fill="none" stroke="{colour}"/>{circles}'
        f'<text x="{_MARGIN}" y="{below}">{escape(name)}</text></g>\n'
    )


def _label(value: float) -> str:
    x, y = _at(value, value)
    bottom = _MARGIN + _SIDE + 14
    return (
        f'<text x="{x:.0f}" y="{bottom}" text-anchor="middle">{value:g}</text>'
        f'<text x="{_MARGIN - 6}" y="{y + 4:.0f}" text-anchor="end">{value:g}</text>'
    )


def _at(x: float, y: float) -> tuple[float, float]:
    return _MARGIN + x * _SIDE, _MARGIN + (1 - y) * _SIDE
