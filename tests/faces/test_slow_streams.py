"""Many slow streams at a time: none is lost, and each takes no more memory than docs/proxy.md says."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.faces.slow_streams import BOUND_KIB, seen


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_streams_that_are_read_slowly():
    found = asyncio.run(seen(40, kib=3072, hold_s=0.5, pause_s=0.0))
    assert found.whole == found.streams == 40
    assert found.kib_a_stream < BOUND_KIB < 3072
