from __future__ import annotations

import pytest

from llm_proxy.config import Config
from llm_proxy.encode import extras


@pytest.fixture(autouse=True)
def _nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)


def test_what_is_missing_and_how_to_get_it() -> None:
    said = extras.exact_only(Config())
    assert said.startswith("llm-proxy: numpy, faiss, onnxruntime, tokenizers not installed: only repeated")
    assert said.endswith('pip install "llm-proxy[cpu]"')


def test_each_encoder_has_its_own_extra() -> None:
    said = extras.exact_only(Config(encoder={"kind": "sentence-transformers"}))
    assert "numpy, faiss, sentence_transformers not installed" in said
    assert said.endswith('pip install "llm-proxy[sentence-transformers]"')


@pytest.mark.parametrize("cache", [{"semantic": False}, {"enabled": False}])
def test_nothing_is_missing_where_nothing_is_needed(cache: dict[str, bool]) -> None:
    assert extras.exact_only(Config(cache=cache)) == ""


def test_nothing_is_missing_where_all_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: name)
    assert extras.exact_only(Config()) == ""
