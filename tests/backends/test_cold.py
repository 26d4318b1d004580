"""What says that a model is being loaded, and which backends may be at it."""

from __future__ import annotations

import pytest

from llm_proxy.backends.cold import ColdStarts, is_loading
from llm_proxy.config import Config


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (503, b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}', True),
        (503, b'{"error":"Model a/b is currently loading","estimated_time":20.0}', True),
        (500, b'{"error":{"message":"Loading model"}}', False),
        (503, b'{"error":{"message":"overloaded"}}', False),
        (503, b'{"error":{"message":["loading"]}}', False),
        (503, b'{"error":null}', False),
        (503, b'{"detail":"loading"}', False),
        (503, b'["loading"]', False),
        (503, b"loading", False),
        (503, b"[" * 100_000, False),
    ],
)
def test_is_loading(status: int, body: bytes, expected: bool) -> None:
    assert is_loading(status, body) is expected


def test_those_on_this_machine_until_they_answer() -> None:
    backends = {
        "local": {"base_url": "http://127.0.0.1:9/v1", "cold_start_s": 7.0},
        "never": {"base_url": "http://127.0.0.1:9/v1", "cold_start_s": 0.0},
        "far": {"base_url": "https://far.test/v1"},
    }
    starts = ColdStarts(Config(backends=backends).backends)

    def waits() -> list[float]:
        return [starts.wait_s(name) for name in ("local", "never", "far", "")]

    assert waits() == [7.0, 0.0, 0.0, 0.0]
    starts.saw("local", 503)
    assert waits() == [7.0, 0.0, 0.0, 0.0]
    starts.saw("local", 200)
    assert waits() == [0.0] * 4
    for name in ("local", "never", "far"):
        starts.saw(name, 503)
    assert waits() == [7.0, 0.0, 0.0, 0.0]
