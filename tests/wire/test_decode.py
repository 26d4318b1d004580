from __future__ import annotations

import gzip
import importlib
import sys
import zlib
from types import SimpleNamespace

import brotli
import pytest
import zstandard

from llm_proxy.errors import WireError
from llm_proxy.wire.decode import BodyDecoder, decoder_for

TEXT = b'{"choices": [' + b'{"text": "some text that repeats"},' * 300 + b"]}"


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


CODINGS = {
    "": TEXT,
    "identity": TEXT,
    "gzip": gzip.compress(TEXT),
    "X-GZip": gzip.compress(TEXT[:500]) + gzip.compress(TEXT[500:]),
    "deflate": zlib.compress(TEXT),
    " Deflate ": raw_deflate(TEXT),
    "br": brotli.compress(TEXT),
    "zstd": zstandard.compress(TEXT),
    "zstd, ": zstandard.compress(TEXT[:700]) + zstandard.compress(TEXT[700:]),
    "gzip, identity, br": brotli.compress(gzip.compress(TEXT)),
}


def decoder(encoding: str, limit_bytes: int = len(TEXT)) -> BodyDecoder:
    found = decoder_for(encoding, limit_bytes=limit_bytes)
    assert found is not None
    return found


def decode(encoding: str, data: bytes, step: int, limit_bytes: int = len(TEXT)) -> bytes | None:
    reader = decoder(encoding, limit_bytes)
    parts = []
    for start in range(0, len(data), step):
        part = reader.feed(data[start : start + step])
        if part is None:
            return None
        parts.append(part)
    assert reader.is_finished
    return b"".join(parts)


@pytest.mark.parametrize("encoding", CODINGS)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_codings(encoding: str, step: int) -> None:
    assert decode(encoding, CODINGS[encoding], step) == TEXT


@pytest.mark.parametrize("encoding", [name for name in CODINGS if name.strip() not in {"", "identity"}])
def test_a_cut_body_is_not_finished(encoding: str) -> None:
    reader = decoder(encoding)
    assert reader.is_finished  # nothing has begun
    reader.feed(CODINGS[encoding][:-3])
    assert not reader.is_finished


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
def test_what_is_not_of_the_coding_is_damage(encoding: str) -> None:
    with pytest.raises(WireError, match="not of its content-encoding"):
        decoder(encoding).feed(b"<html>not compressed at all</html>" * 20)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_bytes_after_the_end_are_damage(encoding: str) -> None:
    with pytest.raises(WireError):
        decoder(encoding).feed(CODINGS[encoding] + b"trailing garbage")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_is_given_up_early(encoding: str) -> None:
    bomb = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "br": brotli.compress,
        "zstd": zstandard.compress,
    }[encoding](bytes(64 << 20))
    reader = decoder(encoding, 1 << 20)
    assert reader.feed(bomb) is None
    assert decode(encoding, CODINGS[encoding], 5, len(TEXT) - 1) is None


def test_an_inner_bomb_is_given_up_too() -> None:
    assert decode("gzip, br", brotli.compress(gzip.compress(bytes(8 << 20))), 100, 1 << 20) is None


@pytest.mark.parametrize("encoding", ["compress", "gzip, rot13", "gzip,gzip,gzip,gzip,gzip", "aws-chunked"])
def test_unknown_codings(encoding: str) -> None:
    assert decoder_for(encoding, limit_bytes=10) is None


def test_without_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("brotli", "brotlicffi", "zstandard", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    assert decoder_for("br", limit_bytes=10) is None
    assert decoder_for("zstd", limit_bytes=10) is None
    assert decoder_for("gzip", limit_bytes=10) is not None


def test_a_brotli_that_cannot_bound_its_output_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "brotli", SimpleNamespace(Decompressor=object))
    monkeypatch.setitem(sys.modules, "brotlicffi", None)
    assert decoder_for("br", limit_bytes=10) is None
    monkeypatch.setitem(sys.modules, "brotlicffi", brotli)
    assert decode("br", CODINGS["br"], 9) == TEXT


def test_each_zstd_library(monkeypatch: pytest.MonkeyPatch) -> None:
    standard = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    library = importlib.import_module(standard)  # Python's own, or its backport
    monkeypatch.setitem(sys.modules, "compression.zstd", library)
    for step in (1, 7, 1 << 20):
        assert decode("zstd", CODINGS["zstd"], step) == TEXT
        assert decode("zstd", CODINGS["zstd, "], step) == TEXT
    with pytest.raises(WireError):
        decoder("zstd").feed(b"<html>" * 20)
    assert decoder("zstd", 1 << 20).feed(zstandard.compress(bytes(64 << 20))) is None
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    assert decode("zstd", CODINGS["zstd"], 7) == TEXT
