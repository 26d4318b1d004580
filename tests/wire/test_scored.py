"""What servers say of texts that they are given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.types import Usage
from llm_proxy.wire.scored import Scored, Token, read_chat, read_echo

USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


def echoed(tokens: list[Any], logprobs: list[Any], tops: list[Any], **more: Any) -> bytes:
    logged = {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": tops}
    choice = {"text": "a b c d", "logprobs": logged, "finish_reason": "length"}
    known = {"id": "cmpl-1", "model": "m", "created": 7}
    return json.dumps({**known, "choices": [choice], "usage": USAGE, **more}).encode()


def scored(text: str, logprob: float | None, tops: Any) -> Token:
    """The second of three tokens."""
    raw = echoed(["a", text, "c", "d"], [None, logprob, -1.0, -1.0], [None, tops, {}, {}])
    found = read_echo(raw, "a b c")
    assert found is not None
    return found.tokens[1]


class TestEcho:
    def test_a_text_and_what_came_after_it(self) -> None:
        tops = [None, {" b": -0.1, " x": -3.0, " y": -4.0}, {" c": -0.1, " x": -3.0, " y": -4.0}, {" d": -0.1}]
        raw = echoed(["a", " b", " c", " d"], [None, -0.1, -0.1, -0.1], tops)
        tokens = (Token("a"), Token(" b", True), Token(" c", True), Token(" d", True))
        assert read_echo(raw, "a b c") == Scored(tokens, 1, " d", False, Usage(3, 1), "cmpl-1", "m", 7)

    @pytest.mark.parametrize(
        ("logprob", "tops", "found"),
        [
            (-0.1, {" b": -0.1, " x": -3.0, " y": -4.0}, Token(" b", True)),
            (-1.2, {" b": -1.2, " x": -1.3, " y": -4.0}, Token(" b", True)),
            (-3.0, {" x": -0.1, " b": -3.0, " y": -4.0}, Token(" b", top=" x")),
            (-9.0, {" x": -1.0, " y": -1.1, " z": -1.2, " b": -9.0}, Token(" b", top=" x")),
            (-1.0, {" b": -1.0, " x": -1.0, " y": -4.0}, Token(" b")),
            (-9.0, {" x": -1.0, " y": -1.0, " z": -1.2, " b": -9.0}, Token(" b")),
            (-0.1, {}, Token(" b")),
            (None, {" x": -0.1}, Token(" b")),
            (-9.0, {"</s>": -0.1, " x": -2.5, " y": -3.0, " b": -9.0}, Token(" b")),
            (-9.0, {"\ufffd": -0.1, " x": -2.5, " y": -3.0, " b": -9.0}, Token(" b")),
        ],
        ids=["top", "barely", "second", "not-among", "draw", "draw-of-others", "none", "first", "end", "part"],
    )
    def test_what_it_would_have_chosen(self, logprob: Any, tops: Any, found: Token) -> None:
        assert scored(" b", logprob, tops) == found

    @pytest.mark.parametrize(
        ("logprob", "tops"),
        [(-8.9, {" ": -8.9}), (-9.5, {" ": -9.5, "x": -9.1}), (-9.5, {" ": -9.5, "x": -9.1, "y": -9.2})],
    )
    def test_a_token_that_hides_another_of_the_same_text_is_not_taken_for_the_top(
        self, logprob: float, tops: Any
    ) -> None:
        assert scored(" ", logprob, tops) == Token(" ")

    def test_one_that_has_most_of_the_probability_is_the_top_whatever_is_hidden(self) -> None:
        assert scored(" ", -0.5, {" ": -0.5}) == Token(" ", True)

    @pytest.mark.parametrize("text", ["\ufffd", "x\ufffd", "bytes:\\xe2"])
    def test_parts_of_characters_have_no_text(self, text: str) -> None:
        assert scored(text, -0.1, {text: -0.1}).text == ""

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"[]",
            b"{}",
            b'{"choices": []}',
            echoed(["a"], [], []),
            echoed(["a"], [None], [None], usage=None),
            echoed([], [], []),
            echoed(["a", "b"], [None, "x"], [None, {"b": "x"}]),
            echoed([1, "b"], [None, -1.0], [None, {}]),
            b"[" * 100_000,
        ],
    )
    def test_anything_else_is_no_score(self, raw: bytes) -> None:
        assert read_echo(raw, "a b c") is None

    def test_another_text_is_no_score(self) -> None:
        assert read_echo(echoed(["a"], [None], [None]), "x") is None


def chatted(rows: Any, content: Any = " d", said: Any = ({"token": " d"},), **more: Any) -> bytes:
    logged = None if said is None else {"content": list(said)}
    choice = {"message": {"content": content}, "logprobs": logged, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": USAGE, "prompt_logprobs": rows, **more}).encode()


class TestChat:
    def test_a_chat_and_what_came_after_it(self) -> None:
        rows = [
            None,
            {"1": {"logprob": -0.1, "rank": 1, "decoded_token": " b"}},
            {
                "2": {"logprob": -3.0, "rank": 5, "decoded_token": " c"},
                "9": {"logprob": -0.1, "rank": 1, "decoded_token": " x"},
            },
        ]
        tokens = (Token(""), Token(" b", True), Token(" c", top=" x"), Token(" d"))
        assert read_chat(chatted(rows)) == Scored(tokens, 1, " d", True, Usage(3, 1))

    @pytest.mark.parametrize("top", ["<|im_end|>", "\ufffd"])
    def test_what_may_be_the_end_is_not_told(self, top: str) -> None:
        row = {
            "2": {"logprob": -3.0, "rank": 5, "decoded_token": " c"},
            "9": {"logprob": -0.1, "rank": 1, "decoded_token": top},
        }
        found = read_chat(chatted([row]))
        assert found is not None
        assert found.tokens[0] == Token(" c")

    def test_a_rank_without_the_likeliest_tells_nothing_else(self) -> None:
        found = read_chat(chatted([{"2": {"logprob": -3.0, "rank": 5, "decoded_token": " c"}}]))
        assert found is not None
        assert found.tokens[0] == Token(" c")

    def test_an_end_without_a_text(self) -> None:
        none = {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}
        found = read_chat(chatted([None], None, None, usage=none))
        assert found == Scored((Token(""),), 0, "", True, Usage(3, 0))

    @pytest.mark.parametrize("raw", [b"", b"{}", chatted(None), chatted([{"1": {}}]), chatted([], usage=None)])
    def test_anything_else_is_no_score(self, raw: bytes) -> None:
        assert read_chat(raw) is None
