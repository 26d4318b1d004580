"""How an outcome looks in a notebook: one sentence of plain text, and the same as a small card.

What is named ``outcome`` here is an `llm_proxy.types.Outcome`, which takes these functions as its methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ._figures import age, dollars

__all__ = ["COLOURS", "html_of", "kind_of", "pretty_of", "sentence_of", "sf_string"]

COLOURS = {
    "exact": "#2e9e6b",
    "semantic": "#3f7fd9",
    "miss": "#c98a1b",
    "bypass": "#8a8f98",
    "refused": "#a866c9",
    "error": "#cf4a4a",
}
"""Colour of each kind of call: each has a contrast of at least 3:1 on white and on the usual dark backgrounds."""

_CARD = (
    '<div style="display:inline-block;padding:2px 10px;border-left:4px solid {colour};'
    'background:rgba(128,128,128,.12);font-size:90%">{text}</div>'
)


def html_of(outcome: Any) -> str:
    """The card; IPython asks for it as ``_repr_html_``."""
    from html import escape

    return _CARD.format(colour=COLOURS[kind_of(outcome)], text=escape(sentence_of(outcome)))


def pretty_of(outcome: Any, printer: Any, cycle: bool) -> None:
    """Write the sentence; IPython asks for it as ``_repr_pretty_``."""
    printer.text(sentence_of(outcome))


def kind_of(outcome: Any) -> str:
    """The kind of a call, one of `COLOURS` but ``error``."""
    kind: str = outcome.kind or ("exact" if outcome.status == "hit" else outcome.status)
    return kind


def sentence_of(outcome: Any) -> str:
    """What became of a call, in one line, e.g. ``semantic hit (similarity 0.971), 3 min old, saved $0.0004``."""
    parts = _hit(outcome) if outcome.status == "hit" else _asked(outcome)
    return "llm-proxy: " + ", ".join(parts)


def _hit(outcome: Any) -> Iterator[str]:
    facts = [] if outcome.kind != "semantic" else [f"similarity {outcome.similarity or 0.0:.3f}"]
    if outcome.p_wrong is not None:
        facts.append(f"wrong with probability {outcome.p_wrong:.3f}")
    yield f"{outcome.kind} hit" + (f" ({', '.join(facts)})" if facts else "")
    yield f"{age(outcome.age_s)} old" if outcome.age_s >= 1 else "of this moment"
    if outcome.saved_usd:
        yield f"saved {dollars(outcome.saved_usd)}"


def _asked(outcome: Any) -> Iterator[str]:
    yield outcome.status + (f" ({outcome.detail})" if outcome.detail else "")
    if outcome.status == "refused":
        return
    asked = f"asked {outcome.model or 'upstream'}"
    yield asked + (f" at {outcome.backend}" if outcome.backend else "")
    if outcome.route:
        yield f"by route {outcome.route}" + (f" ({outcome.reason})" if outcome.reason else "")
    if outcome.is_shared:
        yield "shared with an equal call"
    if outcome.is_stored is not None:
        yield "stored" if outcome.is_stored else "not stored"
    if outcome.cost_usd:
        yield f"cost {dollars(outcome.cost_usd)}"


def sf_string(text: str) -> str:
    """A quoted string as a structured field takes it: printable ASCII only. Source: RFC 8941 section 3.3.3."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:  # the usual case, at once
        return f'"{text}"'
    printable = "".join(char if " " <= char <= "~" else "?" for char in text)
    return '"' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"'
