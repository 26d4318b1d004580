"""The public interface is what was promised: names and signatures, and each name has a docstring."""

from __future__ import annotations

import difflib
import inspect

import pytest

import llm_proxy
from tests.public_api import FROZEN, described


def test_names_and_signatures_are_those_promised() -> None:
    frozen, today = FROZEN.read_text(encoding="utf-8"), described()
    changed = "\n".join(difflib.unified_diff(frozen.splitlines(), today.splitlines(), "promised", "today", lineterm=""))
    remedy = "If this is meant: python -m tests.public_api --write, and a line in CHANGELOG.md for whoever it breaks."
    assert frozen == today, f"the public interface has changed:\n{changed}\n{remedy}"


@pytest.mark.parametrize("name", [name for name in llm_proxy.__all__ if name != "__version__"])
def test_every_public_name_explains_itself(name: str) -> None:
    value = getattr(llm_proxy, name)
    assert inspect.getdoc(value)
    assert value.__doc__, f"{name} has only the docstring of what it is made from"


def test_a_change_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrap(client: object) -> object:
        return client

    monkeypatch.setattr(llm_proxy, "wrap", wrap)
    gone = set(FROZEN.read_text(encoding="utf-8").splitlines()) - set(described().splitlines())
    assert [line.split("(")[0] for line in gone] == ["def llm_proxy.wrap"]
