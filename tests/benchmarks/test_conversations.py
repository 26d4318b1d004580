"""What staying saves is what the providers' caches do, and the same turns are drawn for both ways."""

from __future__ import annotations

import pytest

from benchmarks.conversations import SETTINGS, Setting, measure
from tests.benchmarks.test_contract import figures, run


def test_without_a_discount_staying_is_the_same() -> None:
    setting = Setting("", (1.0, 4.0, 1.0), (2.0, 8.0, 2.0))
    found = measure(setting, 6, n=10, seeds=1, system_tokens=4_000)
    assert (found["saved"], found["stay_moves"]) == (0.0, found["each_moves"])


def test_where_moving_saves_next_to_nothing_it_stays() -> None:
    found = measure(SETTINGS[0], 3, n=20, seeds=1, system_tokens=8_000)
    assert found["stay_moves"] < found["each_moves"]
    assert found["saved"] > 0.05


def test_what_is_spent_by_hand() -> None:
    """Two easy turns at the weak one, of 1,300 and 1,850 tokens, 1,300 of the second cached; 250 of answer each."""
    found = measure(Setting("", (1.0, 4.0, 0.1), (9.0, 9.0, 9.0), 0.0), 2, n=3, seeds=2, system_tokens=1_000)
    assert found["stay_usd"] == pytest.approx((1_300 + 550 + 130 + 2 * 1_000) / 1e6)
    assert (found["stay_moves"], found["each_usd"]) == (0.0, found["stay_usd"])


def test_the_command() -> None:
    found = figures("conversations", "--n", 3, "--seeds", 1)
    assert [row["turns"] for row in found["rows"]] == [3, 12] * 3
    assert "at least 1" in run("conversations", "--n", 0, code=1).stderr
