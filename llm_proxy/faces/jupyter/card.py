"""``%llm_proxy``: what the engine has done for this kernel, as a card with plots and as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from llm_proxy._figures import amount, dollars, seconds, share
from llm_proxy._shown import COLOURS, sentence_of
from llm_proxy.errors import CacheError
from llm_proxy.observe.totals import totals

from .plot import area, bar, latencies

if TYPE_CHECKING:
    from .session import Session
    from .tally import Point, Sums

__all__ = ["Card"]

_MOST_ROUTES = 6
_NAMES = {
    "exact": "exact hits",
    "semantic": "semantic hits",
    "miss": "misses",
    "bypass": "bypasses",
    "refused": "refused",
    "error": "errors",
}
_STYLE = """
<style>
.llm-proxy-card{display:inline-block;max-width:680px;padding:10px 14px;border:1px solid rgba(128,128,128,.4);
border-radius:6px;font:13px/1.45 system-ui,sans-serif;color:inherit;background:transparent}
.llm-proxy-card b{font-weight:600}
.llm-proxy-card .llm-proxy-row{display:flex;flex-wrap:wrap;gap:6px 26px;margin:4px 0 8px}
.llm-proxy-card .llm-proxy-big{font-size:20px;font-weight:600;display:block;line-height:1.2}
.llm-proxy-card .llm-proxy-plot{flex:1 1 190px;min-width:150px}
.llm-proxy-card .llm-proxy-dot{display:inline-block;width:9px;height:9px;border-radius:2px;margin-right:5px}
.llm-proxy-card .llm-proxy-faint{opacity:.75}
</style>
"""


class Card:
    """The state of a session at one moment; shows itself.

    Args:
        session: The session; asked once, when the card is made.
    """

    def __init__(self, session: Session) -> None:
        self._sums, self._points = session.tally.now()
        self._where = _where(session)
        self._last = None if session.last is None else sentence_of(session.settled(session.last.outcome))
        self._all = _all_programs(session)

    def _repr_html_(self) -> str:
        faint = [self._where, *([self._all] if self._all else [])]
        last = [] if self._last is None else [f"<div>last call, {escape(self._last)}</div>"]
        lines = "".join(f'<div class="llm-proxy-faint">{escape(line)}</div>' for line in faint)
        body = "".join(
            [_tiles(self._sums), _kinds(self._sums), _plots(self._points), _routes(self._sums), *last, lines]
        )
        return f'{_STYLE}<div class="llm-proxy-card"><b>llm-proxy</b> in this kernel{body}</div>'

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("\n".join(self._lines()))

    def _lines(self) -> Iterator[str]:
        sums = self._sums
        yield f"llm-proxy in this kernel: {amount(sums.calls)} calls, {share(sums.hits, sums.calls)} hits"
        yield f"  saved {dollars(sums.saved_usd)} and {seconds(sums.saved_s)}, spent {dollars(sums.cost_usd)}"
        yield "  " + ", ".join(f"{amount(sums.kinds[kind])} {name}" for kind, name in _NAMES.items())
        for name, count in _named(sums):
            yield f"  {name}: {amount(count)}"
        if self._last is not None:
            yield f"  last call, {self._last}"
        yield f"  {self._where}"
        if self._all:
            yield f"  {self._all}"


def _tiles(sums: Sums) -> str:
    tiles = {
        "saved": dollars(sums.saved_usd),
        "time saved": seconds(sums.saved_s),
        "hits": share(sums.hits, sums.calls),
        "calls": amount(sums.calls),
        "spent": dollars(sums.cost_usd),
    }
    cells = (f'<div><span class="llm-proxy-big">{escape(value)}</span>{name}</div>' for name, value in tiles.items())
    return f'<div class="llm-proxy-row">{"".join(cells)}</div>'


def _kinds(sums: Sums) -> str:
    cells = (
        f'<span><span class="llm-proxy-dot" style="background:{COLOURS[kind]}"></span>'
        f"{amount(sums.kinds[kind])} {name}</span>"
        for kind, name in _NAMES.items()
        if sums.kinds[kind] or kind in ("exact", "semantic", "miss")
    )
    return f'<div class="llm-proxy-row">{"".join(cells)}</div>'


def _plots(points: Sequence[Point]) -> str:
    if not points:
        return '<div class="llm-proxy-row">No call yet: make an openai client, or try %%chat.</div>'
    drawn = {
        "dollars saved": area([point.saved_usd for point in points], COLOURS["exact"], "dollars saved, call by call"),
        "seconds saved": area([point.saved_s for point in points], COLOURS["semantic"], "seconds saved, call by call"),
        "latency of each call (log)": latencies(points, "latency of each call, on a logarithmic scale"),
    }
    cells = (f'<div class="llm-proxy-plot">{drawing}<div>{name}</div></div>' for name, drawing in drawn.items())
    return f'<div class="llm-proxy-row">{"".join(cells)}</div>'


def _routes(sums: Sums) -> str:
    rows = _named(sums)
    if not rows:
        return ""
    whole = sum(sums.answered.values())
    cells = (
        f"<div>{bar(count / whole, COLOURS['miss'])} {escape(name)}: {amount(count)}</div>" for name, count in rows
    )
    return f'<div style="margin-bottom:8px">asked upstream{"".join(cells)}</div>'


def _named(sums: Sums) -> list[tuple[str, int]]:
    """What was asked upstream, most first."""
    return [
        (f"{route} → {model}" if route else model or "upstream", count)
        for (route, model), count in sums.answered.most_common(_MOST_ROUTES)
    ]


def _where(session: Session) -> str:
    cache = session.config.cache
    if not cache.enabled:
        return "cache off"
    kinds = "exact and semantic hits" if session.runtime.encoder is not None and cache.semantic else "exact hits"
    place = f" in {cache.directory}" if cache.store == "disk" else ", gone with this kernel"
    return f"cache: {cache.store}{place}; {kinds}"


def _all_programs(session: Session) -> str:
    """What the ledger says of all programs with these settings; nothing where there is none, or it can't be read."""
    ledger = session.runtime.ledger
    if session.ledger is None or ledger is None:
        return ""
    ledger.drain()
    try:
        found: Mapping[str, float] = totals(session.ledger)
    except CacheError as exc:
        session.runtime.troubles.note("ledger", exc)
        return ""
    saved = f"{dollars(found['saved_usd'])} and {seconds(found['saved_s'])} saved"
    return f"all programs with these settings: {amount(found['calls'])} calls, {saved}"
