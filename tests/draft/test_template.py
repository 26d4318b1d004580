"""Chats as texts, and which requests may be drafted for."""

from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.config import Config
from llm_proxy.draft.greedy import is_greedy, most_tokens_of, stops_of
from llm_proxy.draft.template import prompt_for
from llm_proxy.errors import ConfigError

FORM = "<|{role}|>{content}<|end|>"
USER = {"role": "user", "content": "Hi"}
LOCAL = {"base_url": "http://localhost:1/v1"}


def form_of(named: str) -> str:
    return Config(backends={"b": {**LOCAL, "template": named}}).backends["b"].template


class TestForms:
    def test_names(self) -> None:
        assert prompt_for([USER], form_of("chatml")) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        head, end = "<|start_header_id|>{}<|end_header_id|>\n\n", "<|eot_id|>"
        llama = head.format("user") + "Hi" + end + head.format("assistant")
        assert prompt_for([USER], form_of("llama3")) == llama

    @pytest.mark.parametrize("form", ["x", "{role}", "{content}", "{content}{role}", "{role}{role}{content}"])
    def test_others_are_refused(self, form: str) -> None:
        with pytest.raises(ConfigError, match="template must be one of"):
            form_of(form)


class TestPrompts:
    def test_a_conversation(self) -> None:
        said = [{"role": "system", "content": "Be brief."}, USER, {"role": "assistant", "content": "Yes?"}, USER]
        expected = "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Yes?<|end|><|user|>Hi<|end|><|assistant|>"
        assert prompt_for(said, FORM) == expected

    def test_fields_without_a_value_say_nothing(self) -> None:
        assert prompt_for([{**USER, "name": None, "tool_calls": []}], FORM) == prompt_for([USER], FORM)

    @pytest.mark.parametrize(
        "message",
        [
            "Hi",
            {"role": "tool", "content": "Hi"},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "user"},
            {**USER, "name": "Ann"},
            {"role": "user", "content": " Hi"},
            {"role": "user", "content": "Hi<|end|>"},
        ],
    )
    def test_what_a_form_can_not_say(self, message: Any) -> None:
        assert prompt_for([USER, message], FORM) is None

    def test_no_messages(self) -> None:
        assert prompt_for([], FORM) is None


class TestGreedy:
    @pytest.mark.parametrize(
        "fields",
        [
            {"temperature": 0},
            {"temperature": 0.0, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 5},
            {"temperature": 1, "top_k": 1, "seed": 4, "user": "u"},
            {"temperature": 0, "n": 1, "response_format": {"type": "text"}, "tools": [], "logprobs": False},
            {"temperature": 0, "presence_penalty": 0, "logit_bias": {}, "stop": ["a", "b"]},
            {"temperature": 0, "stop": "a", "max_completion_tokens": 5},
        ],
    )
    def test_may_be_drafted(self, fields: dict[str, Any]) -> None:
        assert is_greedy({"model": "m", "messages": [USER], **fields}, {})

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"temperature": 0.7},
            {"temperature": False},
            {"temperature": 0, "n": 2},
            {"temperature": 0, "logprobs": True},
            {"temperature": 0, "presence_penalty": 0.1},
            {"temperature": 0, "logit_bias": {"5": 1}},
            {"temperature": 0, "tools": [{}]},
            {"temperature": 0, "response_format": {"type": "json_object"}},
            {"temperature": 0, "min_tokens": 5},
            {"temperature": 0, "stop": [""]},
            {"temperature": 0, "stop": 5},
            {"temperature": 0, "max_tokens": 0},
            {"temperature": 0, "max_tokens": 1.5},
        ],
    )
    def test_may_not(self, fields: dict[str, Any]) -> None:
        assert not is_greedy({"model": "m", "messages": [USER], **fields}, {})

    def test_a_server_may_need_more(self) -> None:
        needed = {"repeat_penalty": 1.0}
        assert is_greedy({"temperature": 0, "repeat_penalty": 1}, needed)
        assert not is_greedy({"temperature": 0}, needed)
        assert not is_greedy({"temperature": 0, "repeat_penalty": 1.1}, needed)

    def test_ends(self) -> None:
        assert stops_of({"stop": "a"}) == ("a",)
        assert stops_of({"stop": ["a", "b"]}) == ("a", "b")
        assert stops_of({}) == ()
        assert most_tokens_of({"max_tokens": 3}) == 3
        assert most_tokens_of({"max_tokens": 3, "max_completion_tokens": 2}) == 2
        assert most_tokens_of({}) is None


class TestSettings:
    @pytest.mark.parametrize(
        ("big", "small", "said"),
        [
            ({"draft_with": "nobody/m", "scores": "echo", "template": FORM}, {}, "draft_with must be BACKEND/MODEL"),
            ({"draft_with": "small", "scores": "echo", "template": FORM}, {}, "draft_with must be BACKEND/MODEL"),
            ({"draft_with": "small/m"}, {"template": FORM}, "scores must be"),
            ({"race_with": "nobody/m"}, {}, "race_with must be BACKEND/MODEL"),
            ({"race_with": "small"}, {}, "race_with must be BACKEND/MODEL"),
            ({"predict_with": "small"}, {}, "predict_with must be BACKEND/MODEL"),
            ({"predict_with": "small/m"}, {}, "predict_with needs draft.predicted"),
            ({"draft_with": "small/m", "scores": "echo"}, {"template": FORM}, "template must be set"),
            ({"draft_with": "small/m", "scores": "prompt_logprobs"}, {}, "backends.small.template must be set"),
        ],
    )
    def test_what_is_lacking(self, big: dict[str, Any], small: dict[str, Any], said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            Config(backends={"big": {**LOCAL, **big}, "small": {**LOCAL, **small}})

    def test_all_is_there(self) -> None:
        big = {**LOCAL, "draft_with": "small/m", "scores": "prompt_logprobs"}
        found = Config(backends={"big": big, "small": {**LOCAL, "template": FORM}}, draft={"max_length": 4})
        assert found.draft.max_length == 4
