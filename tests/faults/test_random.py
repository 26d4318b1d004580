"""The runs of `random_faults` and `flapping`, small."""

from __future__ import annotations

import logging

import pytest

from . import flapping, random_faults


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def test_nothing_is_lost_repeated_or_mixed_up() -> None:
    report = random_faults.run(300)
    assert report.calls == 300
    assert report.faults > 40
    assert (report.wrong, report.lost) == ([], 0)
    assert report.right + sum(report.errors.values()) == 300
    assert report.right >= 270
    assert report.upstream_usd > 0.01
    assert report.ledger_usd == pytest.approx(report.upstream_usd, abs=1e-9)


def test_streams_that_go_on_elsewhere_are_whole() -> None:
    report = random_faults.run(300, seed=8, can_prefill="trailing")
    assert (report.wrong, report.lost) == ([], 0)
    assert report.right >= 290


def test_a_backend_that_flaps_fails_no_call() -> None:
    report = flapping.run(300, is_flapping=True)
    assert report.failing_requests > 0
    assert report.succeeded == 300
