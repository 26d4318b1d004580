"""Undoes ``Content-Encoding`` piece by piece, and never builds more than a limit allows."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol

from llm_proxy.errors import WireError

__all__ = ["BodyDecoder", "decoder_for"]

_MAX_CODINGS = 4
_ZSTD_WINDOW_LOG = 23  # 8 MiB: what RFC 9659 lets a sender use on the web
_BROTLI_STEP_BYTES = 1 << 16


class _Member(Protocol):
    """One compressed stream; gzip and zstd bodies may hold several in a row."""

    def decompress(self, data: bytes, /) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


class _Codec(NamedTuple):
    """How to undo one coding.

    Attributes:
        new: Makes the reader of one member.
        slice_bytes: Most input that one step takes: its largest possible output is about 4 MiB.
        errors: What the library raises on bad input.
    """

    new: Callable[[], _Member]
    slice_bytes: int
    errors: tuple[type[Exception], ...]


class BodyDecoder:
    """A chain of codings, undone in reverse order of their application."""

    def __init__(self, stages: list[_Stage]) -> None:
        self._stages = stages

    def feed(self, chunk: bytes) -> bytes | None:
        """Decode further bytes; mutates the decoder.

        Returns:
            The decoded bytes, possibly none yet; None (now and for good) when all of them exceed the limit.

        Raises:
            WireError: The bytes are not of the coding.
        """
        for stage in self._stages:
            data = stage.feed(chunk)
            if data is None:
                return None
            chunk = data
        return chunk

    @property
    def is_finished(self) -> bool:
        """Whether every coding came to its own end, with checksums where it has them."""
        return all(stage.is_finished for stage in self._stages)


def decoder_for(content_encoding: str, *, limit_bytes: int) -> BodyDecoder | None:
    """The decoder for a ``Content-Encoding``; without stages where the body is not encoded.

    Args:
        content_encoding: Value of the header: gzip, deflate, br (``brotli`` or ``brotlicffi`` of 1.2 or later
            installed) and zstd (Python 3.14, or ``zstandard`` installed), or several in order of application.
        limit_bytes: Most bytes that any stage may put out.

    Returns:
        The decoder, or None where a coding is unknown here or there are more than four.

    Source: RFC 9110 section 8.4.1, RFC 8878, RFC 7932.
    """
    names = [name.strip().lower() for name in content_encoding.split(",")]
    names = [name for name in names if name not in {"", "identity"}]
    if len(names) > _MAX_CODINGS:
        return None
    codecs = [_codec(name) for name in reversed(names)]
    stages = [_Stage(codec, limit_bytes) for codec in codecs if codec is not None]
    return BodyDecoder(stages) if len(stages) == len(codecs) else None


class _Stage:
    """Undoes one coding: member after member, in slices so small that no step can fill the memory."""

    def __init__(self, codec: _Codec, limit_bytes: int) -> None:
        self._codec = codec
        self._left = limit_bytes
        self._member: _Member | None = None

    @property
    def is_finished(self) -> bool:
        return self._member is None or self._member.eof

    def feed(self, data: bytes) -> bytes | None:
        size = self._codec.slice_bytes
        parts = []
        try:
            for start in range(0, len(data), size):
                for part in self._steps(data[start : start + size]):
                    parts.append(part)
                    self._left -= len(part)
                    if self._left < 0:
                        return None
        except self._codec.errors as exc:
            raise WireError(f"body is not of its content-encoding: {exc}") from exc
        return b"".join(parts)

    def _steps(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member is None or self._member.eof:
                self._member = self._codec.new()
            member = self._member
            yield member.decompress(data)
            while isinstance(member, _BrotliMember) and member.has_more:
                yield member.decompress(b"")
            data = member.unused_data if member.eof else b""


def _codec(name: str) -> _Codec | None:
    if name in {"gzip", "x-gzip"}:
        return _Codec(lambda: zlib.decompressobj(16 + zlib.MAX_WBITS), 4096, (zlib.error,))
    if name == "deflate":
        return _Codec(_DeflateMember, 4096, (zlib.error,))
    if name == "br":
        return _brotli()
    return _zstd() if name == "zstd" else None


class _DeflateMember:
    """Deflate with the zlib wrapper that the RFC asks for, or without it, as some servers send it."""

    def __init__(self) -> None:
        self._head = b""
        self._inner: Any = None

    def decompress(self, data: bytes, /) -> bytes:
        if self._inner is None:
            self._head += data
            if len(self._head) < 2:
                return b""
            data = self._head
            is_wrapped = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._inner = zlib.decompressobj(zlib.MAX_WBITS if is_wrapped else -zlib.MAX_WBITS)
        return bytes(self._inner.decompress(data))

    @property
    def eof(self) -> bool:
        return self._inner is not None and bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._inner.unused_data)


class _BrotliMember:
    """Brotli's reader in the shape of the others; it has no bytes after its end: such input is an error."""

    unused_data = b""

    def __init__(self, new_reader: Callable[[], Any]) -> None:
        self._reader = new_reader()

    def decompress(self, data: bytes, /) -> bytes:
        return bytes(self._reader.process(data, output_buffer_limit=_BROTLI_STEP_BYTES))

    @property
    def has_more(self) -> bool:
        return not self._reader.can_accept_more_data()

    @property
    def eof(self) -> bool:
        return bool(self._reader.is_finished())


def _brotli() -> _Codec | None:
    for name in ("brotli", "brotlicffi"):
        module = _imported(name)
        # Releases before 1.2 can't bound their output: a few bytes may grow to gigabytes.
        if module is not None and hasattr(module.Decompressor, "can_accept_more_data"):
            return _Codec(partial(_BrotliMember, module.Decompressor), 4096, (module.error,))
    return None


def _zstd() -> _Codec | None:
    # Four bytes may stand for a block of 128 KiB, hence the small slices.
    module = _imported("compression.zstd")
    if module is not None:
        options = {module.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        return _Codec(lambda: module.ZstdDecompressor(options=options), 128, (module.ZstdError,))
    module = _imported("zstandard")
    if module is not None:
        library = module.ZstdDecompressor(max_window_size=1 << _ZSTD_WINDOW_LOG)
        return _Codec(library.decompressobj, 128, (module.ZstdError,))
    return None


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
