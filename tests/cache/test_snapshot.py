"""The snapshot file: what is written comes back, and what is damaged is refused."""

from __future__ import annotations

import json
import os
import struct
import sys
import time
import zlib
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_proxy.cache import snapshot
from llm_proxy.cache.index import Block
from llm_proxy.cache.snapshot import Snapshot
from llm_proxy.errors import CacheCorruptError, CacheError
from tests.privileges import unprivileged


def example() -> Snapshot:
    rows = np.arange(12, dtype=np.float16).reshape(3, 4)
    return Snapshot(
        store="name",
        sequence=7,
        encoder="e",
        dim=4,
        keys=["a", "b", "c", "d\n\u20ac"],
        sizes=array("q", [1, 2, 3, 4]),
        costs=array("d", [0.1, 0.2, 0.3, 0.0]),
        hits=array("q", [0, 1, 2, 3]),
        blocks=[Block("s", ["a", "b"], rows[:2]), Block("t", ["c"], rows[2:])],
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "index.snapshot"
    assert snapshot.save(path, example())
    return path


def test_round_trip(path: Path) -> None:
    found, expected = snapshot.load(path), example()
    for name in ("store", "sequence", "encoder", "dim", "keys", "sizes", "costs", "hits"):
        assert getattr(found, name) == getattr(expected, name)
    for one, other in zip(found.blocks, expected.blocks, strict=True):
        assert (one.scope, list(one.keys)) == (other.scope, list(other.keys))
        assert (one.rows == other.rows).all()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_empty_one(tmp_path: Path) -> None:
    snapshot.save(tmp_path / "x", Snapshot("name", 0))
    found = snapshot.load(tmp_path / "x")
    assert (found.keys, found.blocks, found.dim) == ([], [], 0)


def test_the_head_alone(path: Path, tmp_path: Path) -> None:
    assert snapshot.sequence_of(path, "name") == 7
    assert snapshot.sequence_of(path, "another") == -1
    assert snapshot.sequence_of(tmp_path / "absent", "name") == -1
    path.write_bytes(b"LPX1")
    assert snapshot.sequence_of(path, "name") == -1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_any_altered_byte_is_noticed(path: Path, at: int, flip: int) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= flip
    other = path.with_name("other")
    other.write_bytes(data)
    with pytest.raises(CacheCorruptError):
        snapshot.load(other)


def test_a_cut_file_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    for length in (0, 1, 3, 4, 8, 11, 12, 50, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(CacheCorruptError):
            snapshot.load(path)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        snapshot.load(tmp_path / "absent")


@pytest.mark.timeout(10)
def test_a_pipe_in_its_place_is_not_waited_for(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CacheCorruptError, match="no regular file"):
        snapshot.load(path)
    assert snapshot.sequence_of(path, "name") == -1
    assert snapshot.save(path, example())
    assert snapshot.load(path).sequence == 7


def test_a_device_in_its_place_is_not_read(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(CacheCorruptError, match="no regular file"):
        snapshot.load(path)


def forged(path: Path, **changes: Any) -> None:
    """The example with another head and a good checksum."""
    data = path.read_bytes()
    _, length = struct.unpack_from("=4sI", data)
    head = {**json.loads(data[8 : 8 + length]), **changes}
    encoded = json.dumps(head).encode()
    body = struct.pack("=4sI", b"LPX1", len(encoded)) + encoded + data[8 + length : -4]
    path.write_bytes(body + struct.pack("=I", zlib.crc32(body)))


@pytest.mark.parametrize(
    "changes",
    [
        {"byteorder": "middle"},
        {"entries": 3},
        {"entries": 5},
        {"entries": -1},
        {"entries": "x"},
        {"keys_bytes": 3},
        {"scopes_bytes": 1 << 40},
        {"dim": 3},
        {"dim": 0},
        {"dim": 12},
        {"dim": None},
    ],
    ids=str,
)
def test_a_head_that_lies(path: Path, changes: dict[str, Any]) -> None:
    forged(path, **changes)
    with pytest.raises(CacheCorruptError):
        snapshot.load(path)


def test_another_format(path: Path) -> None:
    for body in (b"LPX9" + path.read_bytes()[4:-4], struct.pack("=4sI", b"LPX1", 1 << 30) + b"{}"):
        path.write_bytes(body + struct.pack("=I", zlib.crc32(body)))
        with pytest.raises(CacheCorruptError, match="another format"):
            snapshot.load(path)


def test_a_file_that_another_process_is_writing(path: Path) -> None:
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_bytes(b"half")
    assert not snapshot.save(path, example())
    assert unfinished.read_bytes() == b"half"
    old_s = time.time() - 100
    os.utime(unfinished, (old_s, old_s))
    assert snapshot.save(path, example())
    assert not unfinished.exists()


def test_a_claim_that_is_lost_twice(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: object) -> int:
        raise FileExistsError

    monkeypatch.setattr(os, "open", taken)  # made again by others as fast as it is removed
    assert not snapshot.save(path, example())


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with unprivileged(), pytest.raises(CacheError, match="cannot be written"):
        snapshot.save(tmp_path / "x", example())
    tmp_path.chmod(0o755)


def test_a_disk_that_fills_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CacheError, match="No space left"):
        snapshot.save(path, example())
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert sys.byteorder in before.decode("latin1")
