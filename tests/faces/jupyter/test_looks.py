"""What is shown: nothing that a model says runs, plots hold their numbers, outcomes say what happened."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest
from IPython.lib.pretty import pretty

from llm_proxy._shown import COLOURS
from llm_proxy.faces.jupyter import screen as screens
from llm_proxy.faces.jupyter.plot import area, bar, latencies
from llm_proxy.faces.jupyter.screen import Live, harmless, show
from llm_proxy.faces.jupyter.tally import MOST_POINTS, Point, Tally
from llm_proxy.observe.events import CallEvent
from llm_proxy.types import Outcome

B = "\u200b"


class TestHarmless:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("a < b and 3<4", "a < b and 3<4"),
            ("<script>x</script>", f"<{B}script>x<{B}/script>"),
            ("`<img src=x>`", f"`<{B}img src=x>`"),
            ("<!-- --> <?x", f"<{B}!-- --> <{B}?x"),
            ("```html\n<b>\n```\n<b>", f"```html\n<b>\n```\n<{B}b>"),
            ("~~~\n<b>\n```\n<b>\n~~~~\n<i>", f"~~~\n<b>\n```\n<b>\n~~~~\n<{B}i>"),
            ("````\n```\n<b>\n````\n<b>", f"````\n```\n<b>\n````\n<{B}b>"),
            ("    ```\n<b>", f"    ```\n<{B}b>"),
            ("```a`b\n<b>", f"```a`b\n<{B}b>"),
            ("text ```\n<b>", f"text ```\n<{B}b>"),
            ("[x](https://a.test)", "[x](https://a.test)"),
            ("[x](javascript:alert(1))", f"[x]{B}(javascript:alert(1))"),
            ("[x]( JavaScript&colon;alert(1))", f"[x]{B}( JavaScript&colon;alert(1))"),
            ("[x]: data:text/html,x", f"[x]{B}: data:text/html,x"),
            ("[x]: <https://a.test>", f"[x]: <{B}https://a.test>"),
            ("", ""),
        ],
    )
    def test_it_looks_the_same_and_runs_nothing(self, text: str, shown: str) -> None:
        assert harmless(text) == shown
        assert harmless(text).replace(B, "") == text


class Notebook:
    """What a page would have: every display, and every update of one."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def display(self, value: Any, *, display_id: bool = False) -> Any:
        self.shown.append(value)
        return self

    def update(self, value: Any) -> None:
        self.shown.append(value)


class TestLive:
    def test_it_grows_and_ends_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(screens, "_EVERY_S", 0.0)
        page = Notebook()
        screen = Live(page.display, str)
        assert show(["a", "", "b<i>"], screen) == "ab<i>"
        screen.end("over", "card")
        assert page.shown == ["", "a", f"ab<{B}i>", "card"]

    def test_updates_are_few(self) -> None:
        page = Notebook()
        screen = Live(page.display, str)
        show(["x"] * 1000, screen)
        screen.end("over")
        assert page.shown[-1] == "x" * 1000
        assert len(page.shown) < 10


class TestPlots:
    @pytest.mark.parametrize("values", [[], [0.0], [1.0], [0.0, 0.5, 2.0], [float("inf")]])
    def test_an_area_is_whole_svg(self, values: list[float]) -> None:
        drawn = ET.fromstring(area(values, "#123456", 'a "label" <x>'))
        assert drawn.attrib["aria-label"] == 'a "label" <x>'
        lines = drawn.findall("polyline")
        assert len(lines) == (len(values) > 0 and 0 < max(values) < float("inf"))

    def test_an_area_grows_to_the_top(self) -> None:
        drawn = ET.fromstring(area([0.0, 1.0, 4.0], "#123456", "x"))
        (line,) = drawn.findall("polyline")
        assert line.attrib["points"].split() == ["0.0,64.0", "150.0,49.0", "300.0,4.0"]

    def test_one_bar_a_call(self) -> None:
        points = [Point("exact", 0.001, 0, 0), Point("miss", 1.0, 0, 0), Point("error", 1e9, 0, 0)]
        bars = ET.fromstring(latencies(points, "x")).findall("rect")
        assert [bar.attrib["fill"] for bar in bars] == [COLOURS["exact"], COLOURS["miss"], COLOURS["error"]]
        heights = [float(bar.attrib["height"]) for bar in bars]
        assert heights == sorted(heights)
        assert heights[-1] == 64.0
        assert len(ET.fromstring(latencies([], "x")).findall("rect")) == 0

    def test_a_share(self) -> None:
        assert 'width="25.0"' in bar(0.25, "#123456")


class TestTally:
    def test_sums(self) -> None:
        tally = Tally()
        hit = Outcome("hit", kind="exact", key="k", saved_usd=0.5)
        tally(CallEvent(1.0, hit, 0.001, saved_s=2.0))
        tally(CallEvent(2.0, Outcome("miss", model="m", route="auto", cost_usd=0.25), 1.0))
        tally(CallEvent(3.0, Outcome("bypass", model="m"), 1.0))
        tally(CallEvent(4.0, Outcome("miss", model="m"), 1.0, http_status=500))
        tally(CallEvent(5.0, Outcome("refused", forward="", model="m"), 0.001, http_status=429))
        sums, points = tally.now()
        assert dict(sums.kinds) == {"exact": 1, "miss": 1, "bypass": 1, "error": 1, "refused": 1}
        assert (sums.calls, sums.hits, sums.saved_usd, sums.saved_s, sums.cost_usd) == (5, 1, 0.5, 2.0, 0.25)
        assert dict(sums.answered) == {("auto", "m"): 1, ("", "m"): 2}
        assert [point.kind for point in points] == ["exact", "miss", "bypass", "error", "refused"]
        assert tally.newest("k") is None

    def test_it_is_bounded(self) -> None:
        tally = Tally()
        for number in range(500):
            tally(CallEvent(1.0, Outcome("miss", model=f"m{number}"), 1.0))
        sums, points = tally.now()
        assert len(points) == MOST_POINTS
        assert sum(sums.answered.values()) == 500
        assert len(sums.answered) == 51


class TestOutcomes:
    @pytest.mark.parametrize(
        ("outcome", "said"),
        [
            (Outcome("hit", kind="exact", age_s=180.0, saved_usd=0.25), "exact hit, 3 min old, saved $0.25"),
            (
                Outcome("hit", kind="semantic", similarity=0.97, p_wrong=0.002),
                "semantic hit (similarity 0.970, wrong with probability 0.002), of this moment",
            ),
            (Outcome("miss", model="m", is_stored=False), "miss, asked m, not stored"),
            (
                Outcome("miss", model="m", backend="b", route="auto", reason="short", cost_usd=0.1, is_stored=True),
                "miss, asked m at b, by route auto (short), stored, cost $0.1",
            ),
            (Outcome("bypass", detail="no-store"), "bypass (no-store), asked upstream"),
            (Outcome("refused", forward="", detail="budget-usd", model="m"), "refused (budget-usd)"),
            (Outcome("miss", model="m", is_shared=True), "miss, asked m, shared with an equal call"),
        ],
    )
    def test_a_sentence(self, outcome: Outcome, said: str) -> None:
        assert pretty(outcome) == f"llm-proxy: {said}"
        assert said in outcome._repr_html_()

    def test_nothing_in_it_is_html(self) -> None:
        shown = Outcome("bypass", model="<img src=x>", detail="<script>")._repr_html_()
        assert "<img" not in shown
        assert "<script" not in shown
