"""The soak, for a moment: three processes at a small budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import soak


def test_a_short_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["--processes", "3", "--seconds", "3", "--budget-bytes", "4000000", "--every-s", "0.1", "--ttl-s", "1"]
    picture = tmp_path / "soak.png"
    soak.main([*arguments, "--directory", str(tmp_path / "cache"), "--plot", str(picture)])
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["errors"], verdict["findings"], verdict["views_agree"]) == ([], [], True)
    assert verdict["counts"]["stored"] > 0
    assert verdict["entries"] > 100
    assert verdict["most_of_budget"] <= soak.MOST_OVER
    assert picture.stat().st_size > 10_000


def test_a_slope() -> None:
    seconds = [float(second) for second in range(100)]
    assert soak.slope_per_minute(seconds, [100.0] * 100) == pytest.approx(0)
    rising = [100.0] * 50 + [100.0 + second / 60 for second in range(50)]
    assert soak.slope_per_minute(seconds, rising) == pytest.approx(0.01, rel=0.01)
