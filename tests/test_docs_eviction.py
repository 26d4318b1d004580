"""The example of docs/eviction.md prints what the page says, and its order of costs is the page's point."""

from __future__ import annotations

import re
import subprocess
import sys

from .test_docs import ROOT, blocks

PAGE = "docs/eviction.md"


def test_the_example_prints_what_the_page_says() -> None:
    (program,), (said,) = blocks(PAGE, "python"), blocks(PAGE, "text")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == said
    costs = [float(dollars) for dollars in re.findall(r"\$([\d.]+)", said)]
    assert len(costs) == 5
    assert min(costs[:4]) > 2 * costs[4], "both parts apart are not as good as one estimate for both"


def test_hand_computed() -> None:
    """The last line: the proof is kept, and the others are asked of the small model, day by day."""
    translate = 100 * (100 * 0.15 + 50 * 0.60) / 1e6
    summarise = 20 * (8000 * 0.15 + 300 * 0.60) / 1e6
    (said,) = blocks(PAGE, "text")
    assert said.splitlines()[-1].split() == ["one", "estimate", "for", "both", "prove", f"${translate + summarise:.4f}"]


def test_the_plot_is_there() -> None:
    assert "(multiplex.svg)" in (ROOT / PAGE).read_text(encoding="utf-8")
    assert (ROOT / "docs" / "multiplex.svg").read_text(encoding="utf-8").startswith("<?xml")
