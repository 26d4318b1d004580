"""These tests are for an installation without extras: `scripts/test` makes one and runs them there."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

HEAVY = ("numpy", "faiss", "onnxruntime", "tokenizers", "sentence_transformers")


@pytest.fixture(autouse=True)
def _no_extras() -> None:
    installed = [name for name in HEAVY if find_spec(name) is not None]
    if installed:
        pytest.skip(f"{', '.join(installed)} installed: these tests are for the bare core")
