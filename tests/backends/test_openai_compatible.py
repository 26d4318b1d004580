from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.backends.openai_compatible import HOP_BY_HOP, credentials_of, headers_for, outgoing_for
from llm_proxy.config import BackendConfig, Config
from llm_proxy.errors import BackendUnavailable
from llm_proxy.types import ChatRequest
from llm_proxy.wire.chat import parse_request
from tests.fakes import request

CALLER = [("authorization", "Bearer theirs"), ("cookie", "c"), ("openai-organization", "o"), ("x-title", "t")]
OWN = ("authorization", "Bearer own")


def backend(**fields: Any) -> BackendConfig:
    return BackendConfig(base_url="https://cloud.test/v1", **fields)


@pytest.mark.parametrize(
    ("fields", "is_default", "expected"),
    [
        ({}, True, CALLER),
        ({}, False, CALLER[3:]),
        ({"api_key": "own"}, True, [CALLER[3], OWN]),
        ({"api_key": "own"}, False, [CALLER[3], OWN]),
        ({"auth": "key", "api_key": "own"}, True, [CALLER[3], OWN]),
        ({"auth": "key"}, True, CALLER[3:]),
        ({"auth": "none", "api_key": "own"}, True, CALLER[3:]),
        ({"auth": "caller"}, False, CALLER),
        ({"auth": "caller", "api_key": "own"}, False, CALLER),
    ],
)
def test_credentials_go_only_where_they_may(fields: dict[str, Any], is_default: bool, expected: list[Any]) -> None:
    assert list(headers_for(backend(**fields), CALLER, is_default=is_default)) == expected


@pytest.mark.parametrize("name", ["authorization", "api-key", "x-api-key"])
def test_a_caller_without_a_key_gets_the_backends(name: str) -> None:
    both = backend(auth="caller", api_key="own")
    assert list(headers_for(both, [("x-title", "t")], is_default=False)) == [("x-title", "t"), OWN]
    assert list(headers_for(both, [(name, "theirs")], is_default=False)) == [(name, "theirs")]


def test_a_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_KEY", "own")
    assert list(headers_for(backend(api_key_env="CLOUD_KEY"), CALLER, is_default=False)) == [CALLER[3], OWN]


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP))
def test_what_concerns_one_hop_ends_there(name: str) -> None:
    assert list(headers_for(backend(), [(name, "x"), ("accept-encoding", "gzip")], is_default=True)) == [
        ("accept-encoding", "gzip")
    ]


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, ()),
        ({"authorization": "", "api-key": " "}, ()),
        ({"authorization": "Bearer  k ", "x-api-key": "x"}, (("authorization", "k"), ("x-api-key", "x"))),
        ({"authorization": "Basic k"}, (("authorization", "Basic k"),)),
        ({"authorization": "k"}, (("authorization", "k "),)),
        ({"authorization": "Bearer"}, ()),
        ({"cookie": "c", "api-key": "a"}, (("api-key", "a"),)),
    ],
)
def test_the_secrets_of_a_request(headers: dict[str, str], found: Any) -> None:
    assert credentials_of(headers) == found


class TestOutgoing:
    BACKENDS = Config(backends={"cloud": {"base_url": "https://cloud.test/v1/", "timeout_s": 7}}).backends

    def test_the_body_goes_as_it_came(self) -> None:
        call = request()
        for model in ("", call.model):
            outgoing = outgoing_for(call, name="cloud", backends=self.BACKENDS, default="cloud", model=model)
            assert (outgoing.url, outgoing.body is call.raw) == ("https://cloud.test/v1/chat/completions", True)
            assert (outgoing.backend, outgoing.model, outgoing.timeout_s) == ("cloud", call.model, 7)
            assert outgoing.headers == [("authorization", "Bearer k")]

    def test_another_model_changes_nothing_else(self) -> None:
        call = request("\ud800 é", unknown={"kept": True})
        outgoing = outgoing_for(call, name="cloud", backends=self.BACKENDS, default="", model="other")
        assert json.loads(outgoing.body) == {**call.body, "model": "other"}
        assert (outgoing.model, outgoing.headers) == ("other", [])

    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            (b'{"model":"a","messages":[{}]}', b'{"model":"b","messages":[{}]}'),
            (
                b' {"x":{"model":"a"},\t"seed": 0.10000000000000000555, "messages":[{"model":1}]\n, "model" : "a" } ',
                b' {"x":{"model":"a"},\t"seed": 0.10000000000000000555, "messages":[{"model":1}]\n, "model" : "b" } ',
            ),
            (b'{"m\\u006fdel":"a","messages":[{}]}', b'{"m\\u006fdel":"b","messages":[{}]}'),
            (
                '{"é":"\\ud800","messages":[{}],"model":"a"}'.encode(),
                '{"é":"\\ud800","messages":[{}],"model":"b"}'.encode(),
            ),
        ],
    )
    def test_no_other_byte_differs(self, raw: bytes, expected: bytes) -> None:
        assert parse_request(raw, headers={}).raw_for("b") == expected

    @pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"x":1}', b"7"])
    def test_bytes_that_are_not_the_body(self, raw: bytes) -> None:
        with pytest.raises(ValueError, match="Expecting"):
            ChatRequest({"model": "a"}, raw, {}).raw_for("b")

    @pytest.mark.parametrize("name", ["", "nobody"])
    def test_an_unknown_backend(self, name: str) -> None:
        with pytest.raises(BackendUnavailable, match=r"no backend serves the model 'gpt-4o-mini'; configure one"):
            outgoing_for(request(), name=name, backends=self.BACKENDS, default="", model="")
