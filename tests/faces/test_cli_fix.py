"""``llm-proxy doctor --fix``: it mends what can be mended without harm, says so, and leaves all else alone."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.cache.build import SNAPSHOT_NAME, build
from llm_proxy.config import load
from llm_proxy.faces.cli import _checks as checks
from llm_proxy.runtime import SystemClock
from tests.faces.cli_kit import entry, invoke, settled


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(checks, "discover", lambda: ())
    with settled(monkeypatch) as folder:
        yield folder


@pytest.fixture
def ailing(directory: Path) -> Path:
    """A cache of three answers whose folder is open to all and whose snapshot is damaged."""
    cache = build(load().cache, clock=SystemClock())
    for number in range(3):
        cache.admit(entry(number))
    cache.close()
    (directory / SNAPSHOT_NAME).write_bytes(b"nonsense")
    directory.chmod(0o755)
    return directory


def states(report: str) -> set[str]:
    return {row["state"] for row in json.loads(report)["findings"]}


def test_it_mends_rights_and_snapshot_and_keeps_the_answers(ailing: Path) -> None:
    assert "; llm-proxy doctor --fix mends 2" in invoke("doctor").stdout
    said = invoke("doctor", "--fix").stdout
    assert f"fixed: {ailing} is for its owner only" in said
    assert f"fixed: {ailing / SNAPSHOT_NAME} is gone" in said
    assert "0 problem(s), 0 warning(s)" in said
    assert "--fix mends" not in said
    assert stat.S_IMODE(ailing.stat().st_mode) == 0o700
    assert not (ailing / SNAPSHOT_NAME).exists()
    assert len(json.loads(invoke("cache", "ls", "--json").stdout)["entries"]) == 3


def test_a_second_time_there_is_nothing_to_do(ailing: Path) -> None:
    first = json.loads(invoke("doctor", "--fix", "--json").stdout)
    assert len(first["fixed"]) == 2
    assert {row["fix"] for row in first["findings"]} == {""}
    assert json.loads(invoke("doctor", "--fix", "--json").stdout)["fixed"] == []


def test_looking_alone_mends_nothing(ailing: Path) -> None:
    report = invoke("doctor", "--json").stdout
    assert "fixed" not in json.loads(report)
    assert sorted(row["fix"] for row in json.loads(report)["findings"] if row["fix"]) == ["rights", "snapshot"]
    assert (ailing / SNAPSHOT_NAME).read_bytes() == b"nonsense"
    assert stat.S_IMODE(ailing.stat().st_mode) == 0o755


def test_what_can_not_be_mended_is_said(ailing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "chmod", refuse)
        said = invoke("doctor", "--fix").stdout
    assert f"not fixed: chmod 700 {ailing}: not done: Operation not permitted" in said
    assert "other users may look into" in said
    assert "fixed: " in said.replace("not fixed: ", ""), "the snapshot was mended all the same"


def test_with_wrong_settings_nothing_is_touched(ailing: Path) -> None:
    (ailing.parent / "llm-proxy.toml").write_text("[cache]\ntreshold = 1\n")
    said = invoke("doctor", "--fix", code=1).stdout
    assert "not fixed: nothing, until the settings are right" in said
    assert (ailing / SNAPSHOT_NAME).exists()


def test_two_runtimes_are_named_with_the_pip_line_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "version", lambda name: "2.9")
    report = json.loads(invoke("doctor", "--fix", "--json", code=1).stdout)
    (finding,) = [row for row in report["findings"] if "overwrite each other's files" in row["message"]]
    assert finding["remedy"].startswith("pip uninstall -y onnxruntime onnxruntime-gpu, then pip install")
    assert report["fixed"] == []
