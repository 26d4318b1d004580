"""Versions are complete before they count, are followed without a restart, and a broken one changes nothing."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from llm_proxy.encode.base import Encoding
from llm_proxy.errors import ConfigError
from llm_proxy.route import versions
from llm_proxy.route.base import Prediction
from llm_proxy.route.versions import HeadFolder, current_version, save_version, use_version
from llm_proxy.testing import FakeClock

ENCODING = Encoding(np.ones(1, np.float32), 1)


class NamedHead:
    """Knows one model, named by its file."""

    def __init__(self, folder: Path) -> None:
        content = (folder / "model.onnx").read_text()
        if content == "broken":
            raise ConfigError("it is broken")
        self.name, self.models = content, (content,)

    def predict(self, text: str, encoding: Encoding) -> Mapping[str, Prediction]:
        return {self.name: Prediction(0.5)}


def installed(directory: Path, content: str) -> Path:
    version = save_version(directory, {"model.onnx": content.encode()})
    use_version(version)
    return version


class TestVersions:
    def test_numbers_rise_and_the_one_in_use_is_named(self, tmp_path: Path) -> None:
        directory = tmp_path / "deep" / "heads"
        assert [installed(directory, name).name for name in "abc"] == ["v0001", "v0002", "v0003"]
        assert current_version(directory) == directory / "v0003"
        use_version(directory / "v0001")
        assert current_version(directory).name == "v0001"
        assert sorted(path.name for path in directory.iterdir()) == ["current", "v0001", "v0002", "v0003"]

    def test_saving_changes_nothing_that_is_in_use(self, tmp_path: Path) -> None:
        installed(tmp_path, "a")
        save_version(tmp_path, {"model.onnx": b"b"})
        assert current_version(tmp_path).name == "v0001"

    def test_a_number_that_another_process_takes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rename, taken = Path.rename, []

        def late(self: Path, target: Path) -> Path:
            if not taken:
                taken.append(target)
                target.mkdir()
                (target / "model.onnx").write_text("theirs")
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", late)
        assert save_version(tmp_path, {"model.onnx": b"ours"}).name == "v0002"
        assert (tmp_path / "v0001" / "model.onnx").read_text() == "theirs"

    def test_what_a_killed_process_left_is_removed_after_a_while(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old_s = time.time() - 2 * versions._LEFT_S
        for name in (".part-old", ".part-young", ".other-old"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "model.onnx").write_text("half")
        (tmp_path / ".current-old").write_text("v0001")
        for path in tmp_path.glob(".*-old"):
            os.utime(path, (old_s, old_s))
        installed(tmp_path, "first")
        assert {path.name for path in tmp_path.iterdir()} == {".part-young", ".other-old", "v0001", "current"}

        def refused(path: Path) -> None:
            raise PermissionError

        (tmp_path / ".part-old").mkdir()
        os.utime(tmp_path / ".part-old", (old_s, old_s))
        monkeypatch.setattr("shutil.rmtree", refused)
        assert installed(tmp_path, "second").name == "v0002"

    def test_what_can_not_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match="can't be written"):
            save_version(tmp_path / "file", {})
        with pytest.raises(ConfigError, match="current can't be written"):
            use_version(tmp_path / "absent" / "v0001")
        monkeypatch.setattr(versions, "_named", lambda part, directory: part.rename(directory / "no" / "where"))
        with pytest.raises(ConfigError, match="can't be written"):
            save_version(tmp_path / "heads", {"model.onnx": b""})
        assert list((tmp_path / "heads").iterdir()) == [], "nothing half done stays"

    def test_a_rename_that_fails_for_another_reason(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(self: Path, target: Path) -> Path:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "rename", full)
        with pytest.raises(ConfigError, match="No space left"):
            save_version(tmp_path, {"model.onnx": b""})

    def test_a_single_head(self, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").touch()
        assert current_version(tmp_path) == tmp_path

    @pytest.mark.parametrize("name", ["", "v1", "../v0001", "v0002", "x" * 99, "v0001/.."])
    def test_no_version(self, tmp_path: Path, name: str) -> None:
        installed(tmp_path, "a")
        (tmp_path / "current").write_text(name)
        with pytest.raises(ConfigError, match="must name a version"):
            current_version(tmp_path)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"has no head: llm-proxy route train FILE --to .*"):
            current_version(tmp_path)
        (tmp_path / "current").mkdir()
        with pytest.raises(ConfigError, match="can't be read"):
            current_version(tmp_path)


class TestHeadFolder:
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def follow(self, tmp_path: Path, clock: FakeClock) -> Callable[..., HeadFolder]:
        installed(tmp_path, "a")

        def made(**options: object) -> HeadFolder:
            return HeadFolder(tmp_path, NamedHead, monotonic=clock.monotonic, **options)  # type: ignore[arg-type]

        return made

    def test_another_version_after_a_second(
        self, tmp_path: Path, clock: FakeClock, follow: Callable[..., HeadFolder]
    ) -> None:
        head = follow()
        assert (head.name, head.models, head.encoder) == ("a", ("a",), "")
        installed(tmp_path, "b")
        clock.advance(0.9)
        assert set(head.predict("", ENCODING)) == {"a"}
        assert head.name == "a"
        clock.advance(0.2)
        assert set(head.predict("", ENCODING)) == {"a"}, "the call that notices it is answered by the one before"
        assert set(head.predict("", ENCODING)) == {"b"}

    def test_back_to_an_older_one(self, tmp_path: Path, clock: FakeClock, follow: Callable[..., HeadFolder]) -> None:
        installed(tmp_path, "b")
        head = follow()
        assert head.name == "b"
        use_version(tmp_path / "v0001")
        clock.advance(1.1)
        head.predict("", ENCODING)
        assert head.name == "a"

    def test_in_the_background(self, tmp_path: Path, clock: FakeClock, follow: Callable[..., HeadFolder]) -> None:
        later: list[Callable[[], None]] = []
        head = follow(submit=later.append)
        installed(tmp_path, "b")
        for _ in range(3):
            clock.advance(1.1)
            head.predict("", ENCODING)
        assert (len(later), head.name) == (1, "a"), "one load at a time"
        later.pop()()
        assert head.name == "b"
        clock.advance(1.1)
        head.predict("", ENCODING)
        assert later == []

    def test_a_child_that_is_forked_off_meanwhile_loads_it_itself(
        self, tmp_path: Path, clock: FakeClock, follow: Callable[..., HeadFolder]
    ) -> None:
        later: list[Callable[[], None]] = []
        head = follow(submit=later.append)
        installed(tmp_path, "b")
        clock.advance(1.1)
        head.predict("", ENCODING)
        head.after_fork()
        clock.advance(1.1)
        head.predict("", ENCODING)
        assert len(later) == 2
        later[1]()
        assert head.name == "b"

    def test_no_thread_to_be_had(self, tmp_path: Path, clock: FakeClock, follow: Callable[..., HeadFolder]) -> None:
        tries = []

        def submit(function: Callable[[], None]) -> None:
            tries.append(function)
            if len(tries) == 1:
                raise RuntimeError("cannot schedule new futures after shutdown")
            function()

        head = follow(submit=submit)
        installed(tmp_path, "b")
        for name in ("a", "b"):
            clock.advance(1.1)
            head.predict("", ENCODING)
            assert head.name == name

    @pytest.mark.parametrize("trouble", ["broken", "no version", "gone"])
    def test_a_broken_one_changes_nothing(
        self,
        tmp_path: Path,
        clock: FakeClock,
        follow: Callable[..., HeadFolder],
        trouble: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        head = follow()
        version = installed(tmp_path, "broken")
        if trouble == "no version":
            (tmp_path / "current").write_text("nonsense")
        elif trouble == "gone":
            (version / "model.onnx").unlink()
        with caplog.at_level(logging.WARNING, "llm_proxy"):
            for _ in range(3):
                clock.advance(1.1)
                assert set(head.predict("", ENCODING)) == {"a"}
        assert caplog.text.count("can't be used, the one before goes on") == 1
        installed(tmp_path, "c")
        clock.advance(1.1)
        head.predict("", ENCODING)
        assert head.name == "c"

    def test_the_folder_goes_away(self, tmp_path: Path, clock: FakeClock, follow: Callable[..., HeadFolder]) -> None:
        head = follow()
        (tmp_path / "current").unlink()
        clock.advance(1.1)
        assert set(head.predict("", ENCODING)) == {"a"}

    def test_another_thread_looked_meanwhile(
        self, tmp_path: Path, clock: FakeClock, follow: Callable[..., HeadFolder]
    ) -> None:
        head = follow()
        installed(tmp_path, "b")
        head._look()
        assert head.name == "a", "it was no second ago"

    def test_nothing_to_begin_with(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="has no head"):
            HeadFolder(tmp_path / "absent", NamedHead)


def test_one_that_is_not_used_is_replaced_all_the_same(tmp_path: Path) -> None:
    """A route passes a head over that lacks a candidate: then only its name is asked for."""
    clock = FakeClock()
    installed(tmp_path, "foreign")
    head = HeadFolder(tmp_path, NamedHead, monotonic=clock.monotonic)
    installed(tmp_path, "good")
    assert head.name == "foreign"
    clock.advance(1.5)
    assert (head.name, head.models) == ("good", ("good",))
