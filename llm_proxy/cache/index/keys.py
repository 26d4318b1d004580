"""Keys in memory and on disk: the 64 hexadecimal digits of a fingerprint as the 32 bytes they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

__all__ = ["HEX_DIGITS", "KEY_BYTES", "HexKeys", "Packed", "compact", "packed", "unpacked"]

KEY_BYTES = 32
HEX_DIGITS = 2 * KEY_BYTES

Packed = bytes | str
"""A key as it is kept: its bytes where it is 64 lower-case hexadecimal digits, else itself."""


def packed(key: str) -> Packed:
    """The form in which a key is kept; `unpacked` undoes it."""
    if len(key) == HEX_DIGITS:
        try:
            raw = bytes.fromhex(key)
        except ValueError:
            return key
        if raw.hex() == key:  # capitals and blanks are taken by fromhex, and would make one of two keys
            return raw
    return key


def unpacked(kept: Packed) -> str:
    """The key of a kept form."""
    return kept.hex() if isinstance(kept, bytes) else kept


class HexKeys(Sequence[str]):
    """Keys that lie one after the other as 32 bytes each; each is made a string when it is asked for.

    Args:
        raw: All keys, ``32 * n`` bytes.
    """

    def __init__(self, raw: bytes | memoryview) -> None:
        self.raw = raw

    def __len__(self) -> int:
        return len(self.raw) // KEY_BYTES

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> HexKeys: ...

    def __getitem__(self, at: int | slice) -> str | HexKeys:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step != 1:
                raise ValueError("keys are cut without steps")
            return HexKeys(self.raw[start * KEY_BYTES : stop * KEY_BYTES])
        at = range(len(self))[at]
        return self.raw[at * KEY_BYTES : (at + 1) * KEY_BYTES].hex()

    def __iter__(self) -> Iterator[str]:
        raw = self.raw
        return (raw[start : start + KEY_BYTES].hex() for start in range(0, len(raw), KEY_BYTES))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]


def compact(keys: Iterable[Packed]) -> Sequence[str]:
    """Kept keys as a sequence of strings: `HexKeys` where that is possible."""
    found = list(keys)
    raws = [key for key in found if isinstance(key, bytes)]
    return HexKeys(b"".join(raws)) if len(raws) == len(found) else [unpacked(key) for key in found]
