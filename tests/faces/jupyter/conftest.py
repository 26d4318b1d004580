"""An IPython shell, and a simulated provider that its environment names; both are gone after the test."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.testing import FakeBackend
from tests.servers import Served, serving

# Without the extra notebook there is nothing to test.
collect_ignore_glob = [] if find_spec("IPython") else ["test_*.py"]


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A simulated provider that says what it was asked."""
    with serving(FakeBackend(lambda body: f"simulated: {body['messages'][-1]['content']}")) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{served.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setenv("LLM_PROXY_CACHE_SEMANTIC", "false")
        yield served


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A plain IPython shell: no kernel, no page, no history file."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    from llm_proxy.faces.jupyter.extension import unload

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)  # else IPython warns of one that is not this Python's
    config = Config()
    config.HistoryManager.enabled = False
    made = InteractiveShell.instance(config=config)
    yield made
    unload(made)
    InteractiveShell.clear_instance()


@pytest.fixture
def loaded(shell: Any, provider: Served) -> Any:
    """The shell with the extension."""
    shell.run_line_magic("load_ext", "llm_proxy")
    yield shell
    shell.run_line_magic("unload_ext", "llm_proxy")


def ran(shell: Any, code: str) -> Any:
    """Run a cell; its value, and any error raised again."""
    result = shell.run_cell(code)
    result.raise_error()
    return result.result


def completed(shell: Any, line: str) -> list[str]:
    """What Tab offers at the end of a line."""
    from IPython.core.completer import provisionalcompleter

    with provisionalcompleter():
        return sorted({found.text for found in shell.Completer.completions(line, len(line))})
