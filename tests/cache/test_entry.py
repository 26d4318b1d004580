"""The record of an entry."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.cache.entry import Entry, decode_entry, encode_entry
from llm_proxy.errors import CacheCorruptError

from .helpers import entry_of


def same(one: Entry, other: Entry) -> bool:
    fields = set(Entry.__slots__) - {"vector"}
    return all(getattr(one, name) == getattr(other, name) for name in fields) and (
        one.vector is other.vector is None
        or (one.vector is not None and other.vector is not None and bool((one.vector == other.vector).all()))
    )


@given(
    text=st.text(st.characters()) | st.just("\ud800 lone"),
    completion=st.binary(),
    expires_s=st.none() | st.floats(0, 1e12),
    vector=st.none() | st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=9),
)
def test_round_trip(text: str, completion: bytes, expires_s: float | None, vector: list[float] | None) -> None:
    array = None if vector is None else np.array(vector, np.float32)
    entry = entry_of("a", text=text, completion=completion, expires_s=expires_s, vector=array)
    assert same(decode_entry(encode_entry(entry)), entry)


@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_any_altered_byte_is_noticed(at: int, flip: int) -> None:
    record = bytearray(encode_entry(entry_of("a")))
    record[at % len(record)] ^= flip
    with pytest.raises(CacheCorruptError):
        decode_entry(bytes(record))


def test_lengths_that_move_the_borders_are_noticed() -> None:
    record = bytearray(encode_entry(entry_of("a")))
    for at in (8, 12):
        altered = bytearray(record)
        altered[at] ^= 4
        with pytest.raises(CacheCorruptError):
            decode_entry(bytes(altered))


@given(length=st.integers(0, 400))
def test_a_cut_record_is_noticed(length: int) -> None:
    record = encode_entry(entry_of("a"))
    with pytest.raises(CacheCorruptError):
        decode_entry(record[: min(length, len(record) - 1)])


def forged(head: object, vector_bytes: int = 0) -> bytes:
    """A record with a good checksum and a head of the forger's choice."""
    data = head if isinstance(head, bytes) else json.dumps(head).encode()
    tail = data + b"\0" * vector_bytes
    crc = zlib.crc32(struct.pack("<II", len(data), vector_bytes), zlib.crc32(tail))
    return struct.pack("<4sIII", b"LPE1", crc, len(data), vector_bytes) + tail


GOOD: dict[str, Any] = {
    "key": "k", "scope": "s", "text": "", "created_s": 1, "expires_s": None, "model": "", "backend": "",
    "cost_usd": 0, "wait_usd": 0, "latency_s": 0, "has_usage": False, "encoder": "", "seen_chars": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    "record",
    [
        forged(b"{not json"),
        forged(b"\xff\xfe"),
        forged([1, 2]),
        forged({"key": "k"}),
        forged({**GOOD, "created_s": "yesterday"}),
        forged({**GOOD, "created_s": 10**400}),
        forged({**GOOD, "expires_s": -(10**400)}),
        forged({**GOOD, "has_usage": 1}),
        forged({**GOOD, "key": None}),
        forged(b'{"key":' + b"[" * 100_000),
        forged(GOOD, vector_bytes=3),
    ],
    ids=["json", "utf8", "list", "missing", "number", "long", "negative", "bool", "null", "deep", "vector"],
)
def test_forged_heads_are_refused(record: bytes) -> None:
    with pytest.raises(CacheCorruptError):
        decode_entry(record)


def test_whole_numbers_are_numbers() -> None:
    assert decode_entry(forged(GOOD)).created_s == 1


def test_age_and_expiry() -> None:
    entry = entry_of("a", created_s=100.0, expires_s=200.0)
    assert (entry.age_s(150.0), entry.age_s(50.0)) == (50.0, 0.0)
    assert (entry.is_expired(199.9), entry.is_expired(200.0)) == (False, True)
    assert not entry_of("a").is_expired(1e12)
