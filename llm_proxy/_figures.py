"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["age", "amount", "dollars", "milliseconds", "seconds", "share", "size"]

_AGES = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def age(seconds: float) -> str:
    """A span as its largest unit, e.g. ``3 d``."""
    for unit_s, unit in _AGES:
        if seconds >= unit_s:
            return f"{int(seconds // unit_s)} {unit}"
    return "now"


def size(count: float) -> str:
    """Bytes, e.g. ``1.5 MiB``."""
    unit = 0
    while count >= 1024 and unit < len(_SIZES) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} {_SIZES[unit]}" if unit == 0 else f"{count:.1f} {_SIZES[unit]}"


def dollars(amount_usd: float) -> str:
    """Money; small amounts keep three significant digits."""
    if amount_usd == 0 or abs(amount_usd) >= 1:
        return f"${amount_usd:,.2f}"
    return f"${amount_usd:.6f}".rstrip("0").rstrip(".") if abs(amount_usd) >= 1e-6 else "<$0.000001"


def amount(count: float) -> str:
    """A whole number with separators."""
    return f"{count:,.0f}"


def seconds(span_s: float) -> str:
    """A sum of seconds, e.g. ``12.3 s`` or ``2.1 h``."""
    if span_s >= 7_200:
        return f"{span_s / 3_600:,.1f} h"
    return f"{span_s / 60:.1f} min" if span_s >= 120 else f"{span_s:.1f} s"


def milliseconds(span_s: float) -> str:
    """A latency in milliseconds, e.g. ``0.42 ms``."""
    span_ms = span_s * 1_000
    return f"{span_ms:,.0f} ms" if span_ms >= 100 else f"{span_ms:.2g} ms" if span_ms < 10 else f"{span_ms:.1f} ms"


def share(part: float, whole: float) -> str:
    """A share in per cent, or a dash where there is nothing to share."""
    return f"{part / whole:.0%}" if whole else "-"
