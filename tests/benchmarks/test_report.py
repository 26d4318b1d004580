"""Files of record: one result, or several beside each other."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import _report


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_report, "RESULTS", tmp_path)
    return tmp_path


def told(figure: int, *, entry: str = "", as_json: bool = False) -> None:
    options = argparse.Namespace(record=True, json=as_json)
    _report.report("own", {"figure": figure}, options, table=[["figure", figure]], entry=entry)


def test_one_result_is_the_file(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(1)
    told(2, as_json=True)
    found = json.loads((results / "own.json").read_text())
    assert (found["benchmark"], found["figure"]) == ("own", 2)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found


def test_entries_are_kept_beside_each_other(results: Path) -> None:
    for entry, figure in (("b", 1), ("a", 2), ("b", 3)):
        told(figure, entry=entry)
    runs = json.loads((results / "own.json").read_text())["runs"]
    assert [(name, run["figure"]) for name, run in runs.items()] == [("a", 2), ("b", 3)]


def test_an_option_without_a_value_is_given_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, expected in (([], False), (["--pinned"], True)):
        monkeypatch.setattr("sys.argv", ["own", "--rounds", "2", *given])
        options = _report.arguments("own", __doc__, pinned=(bool, False, "one core"), rounds=(int, 3, "times"))
        assert (options.pinned, options.rounds) == (expected, 2)
