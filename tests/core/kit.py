"""What the tests of the bare core share: asking, running a command, and records as another installation writes them."""

from __future__ import annotations

import json
import struct
import sys
import zlib
from array import array
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from llm_proxy.cache.build import ENTRIES_NAME
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.faces.cli.app import app

PIP_LINE = 'pip install "llm-proxy[cpu]"'
ENCODER = "all-MiniLM-L6-v2-int8@0123456789ab"
DIM = 384


def ask(client: Any, text: str, **options: Any) -> tuple[str, Any]:
    """The text of a plain answer, and its outcome (the client) or headers (the proxy)."""
    messages = [{"role": "user", "content": text}]
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=messages, **options)
    said = raw.parse().choices[0].message.content
    return said, raw.http_response.extensions.get("llm_proxy") or raw.headers


def stream(client: Any, text: str) -> tuple[str, Any]:
    """The same of a streamed answer."""
    messages = [{"role": "user", "content": text}]
    create = client.chat.completions.with_streaming_response.create
    with create(model="gpt-4o-mini", messages=messages, stream=True) as raw:
        said = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse())
        return said, raw.http_response.extensions.get("llm_proxy") or raw.headers


def command(*arguments: str, code: int = 0) -> Any:
    """Run ``llm-proxy`` in this process."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
    return result


def command_json(*arguments: str, code: int = 0) -> Any:
    """What a command prints with ``--json``."""
    return json.loads(command(*arguments, "--json", code=code).stdout)


def give_vectors(directory: Path) -> dict[str, bytes]:
    """Make every record of a directory what an installation with extras writes, its snapshot too.

    The bytes are packed by hand: this installation can't make them.
    """
    store = DiskStore(directory / ENTRIES_NAME)
    records = {row.key: _with_vector(row.record) for row in store.scan()}
    for key, record in records.items():
        store.put(key, record)
    changes = store.changes(0)
    store.close()
    (directory / "index.snapshot").write_bytes(_snapshot(changes.store, changes.sequence, records))
    return records


def records_of(directory: Path) -> dict[str, bytes]:
    """All records of a directory."""
    store = DiskStore(directory / ENTRIES_NAME)
    try:
        return {row.key: row.record for row in store.scan()}
    finally:
        store.close()


def _with_vector(record: bytes) -> bytes:
    magic, _, head_bytes, vector_bytes = struct.unpack_from("<4sIII", record)
    assert (magic, vector_bytes) == (b"LPE1", 0)
    head = json.loads(record[16 : 16 + head_bytes])
    head |= {"encoder": ENCODER, "seen_chars": len(head["text"])}
    values = array("f", [1.0, *[0.0] * (DIM - 1)])
    if sys.byteorder == "big":
        values.byteswap()
    parts = (json.dumps(head).encode(), values.tobytes(), record[16 + head_bytes :])
    lengths = struct.pack("<II", len(parts[0]), len(parts[1]))
    tail = b"".join(parts)
    return struct.pack("<4sI", magic, zlib.crc32(lengths, zlib.crc32(tail))) + lengths + tail


def _snapshot(store: str, sequence: int, records: dict[str, bytes]) -> bytes:
    keys = json.dumps(list(records)).encode()
    head_bytes = struct.unpack_from("<I", next(iter(records.values())), 8)[0]
    scope = json.loads(next(iter(records.values()))[16 : 16 + head_bytes])["scope"]
    scopes = json.dumps([[scope, len(records)]]).encode()
    facts = {"store": store, "sequence": sequence, "encoder": ENCODER, "dim": DIM, "entries": len(records)}
    facts |= {"byteorder": sys.byteorder, "keys": "json", "keys_bytes": len(keys), "scopes_bytes": len(scopes)}
    head = json.dumps(facts).encode()
    columns = [array("q", map(len, records.values())), array("d", [0.0] * len(records)), array("q", [0] * len(records))]
    columns.append(array("b", [0] * len(records)))
    rows = struct.pack(f"={DIM}e", 1.0, *[0.0] * (DIM - 1)) * len(records)
    body = struct.pack("=4sI", b"LPX3", len(head)) + head + keys + scopes + b"".join(map(bytes, columns)) + rows
    return body + struct.pack("=I", zlib.crc32(body))
