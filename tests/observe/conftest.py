"""Fixtures of the ledger's tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.observe.ledger_kit import Bench


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A ledger in a folder that is not there yet."""
    return Bench(tmp_path / "cache" / "ledger.sqlite3")
