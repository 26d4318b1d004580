from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import WireError
from llm_proxy.types import Controls, Usage
from llm_proxy.wire.chat import (
    MAX_DEPTH,
    error_body,
    model_of,
    parse_controls,
    parse_request,
    response_says_no_store,
    usage_of,
    without_prediction,
)

MESSAGES = [{"role": "user", "content": "hi"}]


def body(**fields: object) -> bytes:
    return json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode()


def nested(levels: int) -> bytes:
    """A request of exactly ``levels`` levels: the object, and a field of nested lists."""
    return b'{"model":"m","messages":[{}],"x":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_a_request_keeps_what_came() -> None:
    raw = body(stream=True, stream_options={"include_usage": True}, new_field={"a": [1]})
    headers = {"cache-control": "no-cache", "x-other": "1"}
    request = parse_request(raw, headers=headers, endpoint="https://a/v1", received_s=5.0, timeout_s=2.0)
    assert request.raw is raw
    assert request.body["new_field"] == {"a": [1]}
    assert (request.model, request.messages) == ("m", MESSAGES)
    assert request.is_stream
    assert request.wants_usage
    assert (request.endpoint, request.received_s, request.timeout_s) == ("https://a/v1", 5.0, 2.0)
    assert request.headers is headers
    assert request.controls == Controls(no_cache=True)
    assert parse_request(raw, headers={}).controls == Controls()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"model":"\xff"}', "byte 0xff at offset 10"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"model":"m"} x', "not JSON"),
        (b'{"model":"m","messages":[{}],"n":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"model":"m","messages":[{}],"temperature":NaN}', "NaN"),
        (b'{"model":"m","messages":[{}],"temperature":-Infinity}', "-Infinity"),
        (b'{"model":"m","messages":[{}],"temperature":1e999}', "the number 1e999"),
        (b'{"model":"m","messages":[{}],"a":[-1e9' + b"9" * 500 + b"]}", "too large"),
        (b'{"model":"m","messages":[{}],"a":{"k":1,"k":1}}', "'k' twice"),
        (b'{"model":"m","messages":[{}],"model":"m"}', "'model' twice"),
        (b'{"model":"m","messages":[{}],"\\ud800":1,"\\ud800":1}', r"'\\ud800' twice"),
        (b"[]", "JSON list"),
        (b"null", "JSON null"),
        (b"1.5", "JSON number"),
        (b'"text"', "JSON string"),
        (b"true", "JSON boolean"),
        (b"{}", "'model' is absent or null"),
        (b'{"model":7,"messages":[{}]}', "'model' is 7"),
        (b'{"model":"","messages":[{}]}', "'model' is ''"),
        (b'{"model":["m"],"messages":[{}]}', "'model' is list"),
        (b'{"model":"m"}', "'messages' is absent or null"),
        (b'{"model":"m","messages":[]}', "'messages' is empty"),
        (b'{"model":"m","messages":{}}', "'messages' is empty"),
        (b'{"model":"m","messages":{"role":"user"}}', "'messages' is dict"),
        (b'{"model":"m","messages":[{},"hi"]}', r"messages\[1\] is 'hi'"),
        (b'{"model":"m","messages":["' + b"x" * 500 + b'"]}', r"x\.\.\.; send an object"),
        (nested(MAX_DEPTH + 1), "more than 200 levels"),
        (b'{"model":' + b"[" * 200_000, "more than 200 levels"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(raw: bytes, said: str) -> None:
    with pytest.raises(WireError, match=said) as caught:
        parse_request(raw, headers={})
    assert len(str(caught.value)) < 300


def test_nesting_up_to_the_limit_and_many_shallow_objects_are_read() -> None:
    assert parse_request(nested(MAX_DEPTH), headers={}).model == "m"
    assert parse_request(body(tools=[{"a": [{}]} for _ in range(300)]), headers={}).model == "m"


def test_lone_surrogates_are_legal() -> None:
    raw = b'{"model":"m","messages":[{"role":"user","content":"\\ud800 \\ude00"}]}'
    assert parse_request(raw, headers={}).messages[0]["content"] == "\ud800 \ude00"


@given(st.binary())
def test_random_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        parse_request(raw, headers={})


@pytest.mark.parametrize(
    ("value", "controls"),
    [
        ("", Controls()),
        ("no-store", Controls(no_store=True)),
        ("No-Cache, ONLY-IF-CACHED", Controls(no_cache=True, only_if_cached=True)),
        (" max-age = 60 ,no-store", Controls(no_store=True, max_age_s=60.0)),
        ('max-age="60"', Controls(max_age_s=60.0)),
        ("max-age=0, max-age=9", Controls(max_age_s=0.0)),
        ("max-age=soon, max-age=-1, max-age=, max-age, max-age=1.5, max-age=²", Controls()),
        ("max-age=" + "9" * 5000, Controls(max_age_s=float("inf"))),
        ("max-stale=5, no-transform, ,=,x", Controls()),
        ('community="a, no-store, \\", no-cache", only-if-cached', Controls(only_if_cached=True)),
        ('x="unterminated, no-store', Controls()),
        ('x="\\', Controls()),
    ],
)
def test_controls(value: str, controls: Controls) -> None:
    assert parse_controls(value) == controls


@given(st.text(alphabet='ab"\\,=; -', max_size=200))
def test_controls_of_any_text(value: str) -> None:
    assert parse_controls(value) == Controls()


def test_no_store_in_a_response() -> None:
    assert response_says_no_store([("cache-control", "private"), ("cache-control", "max-age=0, No-Store")])
    assert not response_says_no_store([("cache-control", "no-cache"), ("x", "no-store")])
    assert not response_says_no_store([])


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ("many", None),
        ({}, None),
        ({"prompt_tokens": "4", "completion_tokens": True}, None),
        ({"prompt_tokens": -1, "completion_tokens": 2.0}, None),
        ({"prompt_tokens": 4}, Usage(4, 0)),
        ({"prompt_tokens": 10**9, "completion_tokens": 10**300}, Usage(10**9, 0)),
        ({"prompt_tokens": 10**9 + 1, "completion_tokens": float("nan")}, None),
        ({"prompt_tokens": None, "completion_tokens": 0}, Usage(0, 0)),
        (
            {
                "prompt_tokens": 4,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(4, 5, 2, 3),
        ),
        (
            {
                "prompt_tokens": 4,
                "completion_tokens": 5,
                "prompt_tokens_details": [],
                "completion_tokens_details": {"reasoning_tokens": "3"},
            },
            Usage(4, 5),
        ),
    ],
)
def test_usage(usage: object, expected: Usage | None) -> None:
    assert usage_of({"usage": usage}) == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 7, "audio_tokens": 5},
                "completion_tokens_details": {
                    "reasoning_tokens": 20,
                    "audio_tokens": 3,
                    "accepted_prediction_tokens": 4,
                    "rejected_prediction_tokens": 6,
                },
            },
            Usage(100, 50, 60, 20, 7, 5, 3, 4, 6),
        ),
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 8}, Usage(9, 0, 8)),
        (
            {"prompt_tokens": 9, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 3},
            Usage(9, 0, 4, cache_write_tokens=3),
        ),
        (
            {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": -1}, "prompt_cache_hit_tokens": 8},
            Usage(9, 0, 8),
        ),
    ],
)
def test_usage_in_detail(usage: object, expected: Usage) -> None:
    assert usage_of({"usage": usage}) == expected


@pytest.mark.parametrize(("total", "completion"), [(115, 15), (112, 12), (100, 12), (None, 12)])
def test_reasoning_beside_the_answer_is_seen_by_the_total(total: int | None, completion: int) -> None:
    details = {"reasoning_tokens": 3}
    usage = {"prompt_tokens": 100, "completion_tokens": 12, "total_tokens": total, "completion_tokens_details": details}
    assert usage_of({"usage": usage}) == Usage(100, completion, 0, 3)


@pytest.mark.parametrize(
    ("tier", "expected"), [("flex", "flex"), ("batch", "batch"), ("default", ""), (None, ""), (["flex"], ""), ("x", "")]
)
def test_the_terms_of_service(tier: object, expected: str) -> None:
    found = usage_of({"usage": {"prompt_tokens": 1}, "service_tier": tier})
    assert found is not None
    assert found.service_tier == expected


def test_only_for_a_prompt_of_known_length_is_a_missing_count_estimated() -> None:
    answer = {"choices": [{"message": {"content": "x" * 9}}], "usage": {"prompt_tokens": 1}}
    assert usage_of(answer) == Usage(1, 0)
    assert usage_of(answer, prompt_tokens=5) == Usage(1, 3)
    assert usage_of({**answer, "usage": {"completion_tokens": 2}}, prompt_tokens=5) == Usage(5, 2)
    assert usage_of({**answer, "usage": {"prompt_tokens": -1}}, prompt_tokens=5) is None, "it says nothing"
    vectors = {"data": [{"embedding": [0.5] * 99}], "usage": {"prompt_tokens": 6, "total_tokens": 6}}
    assert usage_of(vectors, prompt_tokens=5) == Usage(6, 0), "of vectors no answer is billed"


def test_usage_may_be_absent() -> None:
    assert usage_of({}) is None


def test_errors_have_the_shape_of_openai() -> None:
    raw = error_body("no such \ud800 model", type="invalid_request_error", code="model_not_found", param="model")
    assert json.loads(raw) == {
        "error": {
            "message": "no such \ud800 model",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }
    assert json.loads(error_body("m", type="t"))["error"]["code"] is None


@pytest.mark.parametrize(
    ("raw", "model"),
    [
        (b'{"model": "m", "input": 1}', "m"),
        (b'{"Model": "m"}', ""),
        (b'{"model": "m", "Model": "n"}', ""),
        (b'{"model": 7}', ""),
        (b'{"input": 1}', ""),
        (b'["model"]', ""),
    ],
)
def test_the_model_that_any_body_names(raw: bytes, model: str) -> None:
    assert model_of(raw) == model


def test_a_body_of_which_no_model_can_be_told() -> None:
    for raw in (b"", b'{"model": "m", "model": "n"}', b"\xff"):
        with pytest.raises(WireError):
            model_of(raw)


class TestWithoutPrediction:
    def test_the_counts_are_those_of_the_answer(self) -> None:
        details = {"accepted_prediction_tokens": 4, "rejected_prediction_tokens": 3, "reasoning_tokens": 1}
        usage = {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15, "completion_tokens_details": details}
        completion = {"id": "c", "usage": usage}
        found = json.loads(without_prediction(completion))
        assert completion["usage"] is usage
        assert details["rejected_prediction_tokens"] == 3, "what was given is left as it is"
        assert found["usage"] == {
            "prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12,
            "completion_tokens_details": {
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0, "reasoning_tokens": 1,
            },
        }  # fmt: skip

    @pytest.mark.parametrize(
        "usage",
        [None, {}, {"completion_tokens": 7}, {"completion_tokens": 7, "completion_tokens_details": None},
         {"completion_tokens_details": {"rejected_prediction_tokens": "3"}}],
    )  # fmt: skip
    def test_where_nothing_is_said_nothing_changes(self, usage: object) -> None:
        found = json.loads(without_prediction({"id": "c", "usage": usage}))
        details = (usage or {}).get("completion_tokens_details") if isinstance(usage, dict) else None
        if details:
            assert found["usage"] == {"completion_tokens_details": {"rejected_prediction_tokens": 0}}
        else:
            assert found == {"id": "c", "usage": usage}
