"""Whose budget and turn a call takes."""

from __future__ import annotations

import pytest

from llm_proxy.engine.fingerprint import payer_of, tenant_of
from llm_proxy.types import ChatRequest


class TestPayer:
    KEYS = frozenset({"one", "two"})

    @pytest.mark.parametrize(
        "more", [{}, {"openai-organization": "x"}, {"openai-project": "x"}, {"x-api-key": "invented"}]
    )
    def test_of_a_proxy_with_keys_it_is_the_key(self, more: dict[str, str]) -> None:
        mine = payer_of(ChatRequest({}, b"", headers={"authorization": "Bearer one", **more}), "api_key", self.KEYS)
        assert mine == payer_of(ChatRequest({}, b"", headers={"authorization": "Bearer one"}), "api_key", self.KEYS)
        assert mine != payer_of(ChatRequest({}, b"", headers={"authorization": "Bearer two"}), "api_key", self.KEYS)

    def test_else_it_is_the_tenant(self) -> None:
        call = ChatRequest({}, b"", headers={"authorization": "Bearer other", "x-team": "a"})
        assert payer_of(call, "api_key", self.KEYS) == tenant_of(call, "api_key")
        keyed = ChatRequest({}, b"", headers={"authorization": "Bearer one", "x-team": "a"})
        assert payer_of(keyed, "header:x-team", self.KEYS) == "header:a"
