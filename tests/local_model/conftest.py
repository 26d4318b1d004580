from __future__ import annotations

import os
from typing import TYPE_CHECKING

import openai
import pytest

from .server import MISSING, LocalModelServer, is_installed

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUIRED = "LLM_PROXY_REQUIRE_LOCAL_MODEL"


def serve() -> Iterator[LocalModelServer]:
    """Start the server, or say how to install it: as a failure where it is required, else as a skip."""
    if not is_installed():
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(MISSING, pytrace=False)
        pytest.skip(MISSING)
    with LocalModelServer() as server:
        yield server


@pytest.fixture
def anyio_backend() -> str:
    """Asyncio only: under trio the SDK leaves its stream's generators open, which warns, and warnings are errors."""
    return "asyncio"


@pytest.fixture(scope="session")
def local_model() -> Iterator[LocalModelServer]:
    """The running server, one for the whole session."""
    yield from serve()


@pytest.fixture
def client(local_model: LocalModelServer) -> Iterator[openai.OpenAI]:
    """The SDK's own client, straight to the server."""
    with openai.OpenAI(base_url=local_model.base_url, api_key="none", max_retries=0) as client:
        yield client
