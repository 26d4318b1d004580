"""Keys in their short form, and the lock that readers share."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.cache.index.keys import HexKeys, compact, packed, unpacked
from llm_proxy.cache.index.lock import SharedLock

HEX = "00ff" * 16


@given(st.one_of(st.text(), st.text("0123456789abcdefABF \n", min_size=64, max_size=64), st.just(HEX)))
def test_any_key_comes_back(key: str) -> None:
    assert unpacked(packed(key)) == key


@pytest.mark.parametrize("key", ["", "a", "A" * 64, " " + HEX[:62] + " ", "x" * 64, HEX[:62], HEX + "00"])
def test_only_64_small_digits_are_shortened(key: str) -> None:
    assert packed(key) == key
    assert packed(HEX) == bytes.fromhex(HEX)


def test_many_keys() -> None:
    keys = [f"{number:064x}" for number in range(5)]
    short = compact(map(packed, keys))
    assert isinstance(short, HexKeys)
    assert short == keys
    assert short != [*keys[:4], HEX]
    assert short != keys[:4]
    assert short != 5
    assert list(short) == keys
    assert (short[1], short[-1]) == (keys[1], keys[4])
    assert list(short[1:3]) == keys[1:3]
    assert list(short[4:2]) == []
    with pytest.raises(IndexError):
        short[5]
    with pytest.raises(ValueError, match="without steps"):
        short[::2]
    assert compact(["a", packed(HEX)]) == ["a", HEX]


def test_readers_share_and_a_writer_is_alone() -> None:
    lock, seen = SharedLock(), []
    inside, release, wrote = threading.Event(), threading.Event(), threading.Event()

    def read() -> None:
        with lock.reading():
            inside.set()
            assert release.wait(10)
            seen.append("read")

    def write() -> None:
        with lock.writing():
            seen.append("write")
        wrote.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert inside.wait(10)
    with lock.reading():  # beside the other reader
        writer = threading.Thread(target=write)
        writer.start()
        assert not wrote.wait(0.05)
    assert not wrote.wait(0.05)  # one reader is left
    release.set()
    for thread in (reader, writer):
        thread.join()
    assert seen == ["read", "write"]
