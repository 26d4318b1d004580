"""The smallest ONNX file there is, without the onnx package: one Identity node, written as protocol buffers."""

from __future__ import annotations

FLOAT = 1


def identity(source: str, target: str) -> bytes:
    """A model that copies one float tensor."""
    node = _text(1, source) + _text(2, target) + _text(4, "Identity")
    graph = _part(1, node) + _text(2, "tiny") + _part(11, _tensor(source)) + _part(12, _tensor(target))
    return _number(1, 8) + _part(7, graph) + _part(8, _text(1, "") + _number(2, 13))


def _tensor(name: str) -> bytes:
    return _text(1, name) + _part(2, _part(1, _number(1, FLOAT)))


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _part(field, value.encode())


def _part(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
