"""The snapshot file: what is written comes back, and what is damaged is refused."""

from __future__ import annotations

import json
import mmap
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
from llm_proxy.cache.index.base import Block, Layout
from llm_proxy.cache.index.codes import Codec
from llm_proxy.cache.index.faiss import FaissIndex
from llm_proxy.cache.policies.gdsf import GDSF
from llm_proxy.cache.snapshot import Snapshot
from llm_proxy.cache.view import View
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
        blocks=[Block("s", ["a", "b"], [rows[:2]]), Block("t", ["c"], [rows[2:]])],
        pinned=array("b", [0, 1, 0, 1]),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "index.snapshot"
    assert snapshot.save(path, example())
    return path


def test_round_trip(path: Path) -> None:
    found, expected = snapshot.load(path), example()
    for name in ("store", "sequence", "encoder", "dim", "keys", "sizes", "costs", "hits", "pinned"):
        assert getattr(found, name) == getattr(expected, name)
    for one, other in zip(found.blocks, expected.blocks, strict=True):
        assert (one.scope, list(one.keys)) == (other.scope, list(other.keys))
        assert one.layout is None
        assert (np.concatenate(one.rows) == np.concatenate(other.rows)).all()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_empty_one(tmp_path: Path) -> None:
    snapshot.save(tmp_path / "x", Snapshot("name", 0))
    found = snapshot.load(tmp_path / "x")
    assert (list(found.keys), list(found.blocks), found.dim) == ([], [], 0)


def large() -> Snapshot:
    """Hexadecimal keys, and a scope of four lists, one of them empty, between two flat ones."""
    codes = np.arange(36, dtype=np.uint8).reshape(9, 4)
    rest = np.arange(100, 109, dtype=np.uint8).reshape(9, 1)
    left_out = [rest[:4], rest[4:6], rest[:0], rest[6:]]
    codec = Codec(np.arange(4, dtype=np.float32), np.full(4, 0.5, np.float32), 0.25)
    layout = Layout(codec, np.arange(16, dtype=np.uint8).reshape(4, 4))
    keys = [f"{number:064x}" for number in range(12)]
    half = np.ones((1, 4), np.float16)
    blocks = [
        Block("s", keys[:1], [half]),
        Block("t", keys[1:10], [codes[:4], codes[4:6], codes[:0], codes[6:]], layout, 0, left_out.__getitem__),
        Block("u", keys[10:11], [half]),
    ]
    columns = (array("q", [1] * 12), array("d", [0.5] * 12), array("q", [2] * 12), blocks, array("b", [0] * 12))
    return Snapshot("name", 3, "e", 4, keys, *columns)


@pytest.mark.parametrize("size", [1, 5, 4096])
def test_a_large_scope_comes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(snapshot, "_KEYS_A_BLOCK", size)
    assert snapshot.save(tmp_path / "x", large())
    found, expected = snapshot.load(tmp_path / "x"), list(large().blocks)
    assert list(found.keys) == list(large().keys)
    first, *parts, last = found.blocks
    assert (list(first.keys), list(last.keys)) == (large().keys[:1], large().keys[10:11])
    assert [key for part in parts for key in part.keys] == list(expected[1].keys)
    assert [len(rows) for part in parts for rows in part.rows] == [4, 2, 0, 3]
    assert (np.concatenate([rows for part in parts for rows in part.rows]) == np.concatenate(expected[1].rows)).all()
    left_out = [part.finer(at).ravel().tolist() for part in parts for at in range(len(part.rows))]
    assert left_out == [[100, 101, 102, 103], [104, 105], [], [106, 107, 108]]
    assert [part.first for part in parts] == {1: [0, 1, 2], 5: [0, 2], 4096: [0]}[size]
    for part in parts:
        assert part.layout is parts[0].layout is not None
        assert part.layout.codec.error == 0.25
        assert expected[1].layout is not None
        assert (part.layout.codec.middle == expected[1].layout.codec.middle).all()
        assert (part.layout.codec.step == 0.5).all()
        assert (part.layout.centres == expected[1].layout.centres).all()


def test_no_image_is_made_of_a_vector_whose_entry_is_not_known() -> None:
    view = View(GDSF(), FaissIndex)
    index = view.adopt("e", 8)
    assert index is not None
    index.add("a", "s", np.eye(8, dtype=np.float32)[0])
    with pytest.raises(CacheError, match="check --repair"):
        view.image("name", 1)


def test_a_map_whose_pages_cannot_be_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(mmap, "MADV_DONTNEED")
    assert snapshot.save(tmp_path / "x", large())
    assert len(list(snapshot.load(tmp_path / "x").blocks)) == 3


@pytest.mark.parametrize(
    "scopes",
    [
        [["s", -1]],
        [["s", 4]],
        [["s", [2, -1], 0.1]],
        [["s", [], 0.1]],
        [["s", "2"]],
        [["s", [9], 0.1]],
        [["s"]],
        [[7, 2]],
        [["s", [2], "x"]],
        [["s", [2], -1.0]],
        [7],
        {},
    ],
    ids=str,
)
def test_scopes_that_lie(path: Path, scopes: Any) -> None:
    forged_scopes(path, scopes)
    with pytest.raises(CacheCorruptError):
        snapshot.load(path)


def test_the_head_alone(path: Path, tmp_path: Path) -> None:
    assert snapshot.sequence_of(path, "name") == 7
    assert snapshot.sequence_of(path, "another") == -1
    assert snapshot.sequence_of(tmp_path / "absent", "name") == -1
    path.write_bytes(b"LPX3")
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
    body = struct.pack("=4sI", b"LPX3", len(encoded)) + encoded + data[8 + length : -4]
    path.write_bytes(body + struct.pack("=I", zlib.crc32(body)))


def forged_scopes(path: Path, scopes: Any) -> None:
    """The example with other scopes and a good checksum."""
    data = path.read_bytes()
    _, length = struct.unpack_from("=4sI", data)
    head = json.loads(data[8 : 8 + length])
    keys_end = 8 + length + head["keys_bytes"]
    rest = data[keys_end + head["scopes_bytes"] : -4]
    encoded_scopes = json.dumps(scopes).encode()
    encoded = json.dumps({**head, "scopes_bytes": len(encoded_scopes)}).encode()
    body = struct.pack("=4sI", b"LPX3", len(encoded)) + encoded + data[8 + length : keys_end] + encoded_scopes + rest
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
        {"keys": "bytes"},
        {"keys": "bytes", "keys_bytes": 128, "scopes_bytes": 0},
        {"scopes_bytes": 1 << 40},
        {"dim": 3},
        {"dim": 0},
        {"dim": 12},
        {"dim": None},
        {"dim": 1 << 40},
        {"store": 7},
        {"encoder": None},
        {"sequence": "7"},
        {"sequence": -1},
        {"sequence": 1 << 80},
    ],
    ids=str,
)
def test_a_head_that_lies(path: Path, changes: dict[str, Any]) -> None:
    forged(path, **changes)
    with pytest.raises(CacheCorruptError):
        snapshot.load(path)


def test_another_format(path: Path) -> None:
    for body in (b"LPX9" + path.read_bytes()[4:-4], struct.pack("=4sI", b"LPX3", 1 << 30) + b"{}"):
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


def altered(**columns: Any) -> Snapshot:
    image = example()
    for name, column in columns.items():
        setattr(image, name, column)
    return image


@pytest.mark.parametrize(
    "columns",
    [
        {"sizes": array("q", [1, 2, 3, 0])},
        {"sizes": array("q", [1, 2, 3, 1 << 60])},
        {"hits": array("q", [0, 0, 0, -1])},
        {"hits": array("q", [0, 0, 0, 1 << 60])},
    ],
    ids=str,
)
def test_rows_that_cannot_be(tmp_path: Path, columns: dict[str, Any]) -> None:
    snapshot.save(tmp_path / "x", altered(**columns))
    with pytest.raises(CacheCorruptError, match="that can't be"):
        snapshot.load(tmp_path / "x")


def test_keys_that_are_no_text(path: Path) -> None:
    data = path.read_bytes()
    body = data[:-4].replace(b'["a", "b",', b'["a", 123,')
    path.write_bytes(body + struct.pack("=I", zlib.crc32(body)))
    with pytest.raises(CacheCorruptError, match="no text"):
        snapshot.load(path)


def test_one_of_another_version_is_no_damage(path: Path) -> None:
    assert not snapshot.is_of_other_version(path)
    data = path.read_bytes()
    path.write_bytes(b"LPX9" + data[4:])
    assert snapshot.is_of_other_version(path)
    for other in (b"LPX", b"", b"XXXX"):
        path.write_bytes(other)
        assert not snapshot.is_of_other_version(path)
    assert snapshot.bytes_of(path) == 4
    assert snapshot.bytes_of(None) == snapshot.bytes_of(path.with_name("absent")) == 0


def test_what_was_abandoned_is_removed(path: Path) -> None:
    unfinished = path.with_name(path.name + ".tmp")
    snapshot.remove_abandoned(path)
    unfinished.write_bytes(b"half")
    snapshot.remove_abandoned(path)
    assert unfinished.exists(), "somebody may be at it"
    old_s = time.time() - 100
    os.utime(unfinished, (old_s, old_s))
    snapshot.remove_abandoned(path)
    assert not unfinished.exists()
