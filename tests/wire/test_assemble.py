"""What the transcripts of `test_recorder` don't show: the odd ways of some servers, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.wire.assemble import Assembler, Text

JSON = dict[str, Any]


def assembled(*chunks: JSON) -> JSON:
    assembler = Assembler()
    for chunk in chunks:
        assembler.add(chunk)
    return assembler.completion()


def choice_of(*choices: JSON) -> JSON:
    """The only choice of a stream whose chunks hold these choices."""
    (choice,) = assembled(*({"choices": [choice]} for choice in choices))["choices"]
    assert isinstance(choice, dict)
    return choice


def message_of(*deltas: JSON) -> JSON:
    message = choice_of(*({"index": 0, "delta": delta} for delta in deltas))["message"]
    assert isinstance(message, dict)
    return message


def calls_of(*calls: JSON) -> list[JSON]:
    found = message_of(*({"tool_calls": [call]} for call in calls))["tool_calls"]
    assert isinstance(found, list)
    return found


def call(index: int | None, id: str | None, name: str | None, arguments: Any) -> JSON:
    function = {"arguments": arguments} if name is None else {"name": name, "arguments": arguments}
    head = {} if index is None else {"index": index}
    return {**head, **({} if id is None else {"id": id}), "function": function}


@pytest.mark.parametrize("count", [255, 256, 257, 258, 600, 1025])
def test_many_pieces_of_text_are_few(count: int) -> None:
    pieces = [f"{number} " for number in range(count)]
    assert message_of(*({"content": piece} for piece in pieces))["content"] == "".join(pieces)
    text = Text()
    for piece in pieces:
        text.grow(piece)
    assert "".join(text) == "".join(pieces)
    assert len(text) <= count // 256 + 255


def test_the_fields_come_in_the_order_of_openai() -> None:
    chunk = {
        "x_new": 1,
        "usage": {"prompt_tokens": 1},
        "model": "m",
        "choices": [{"delta": {"content": "a"}, "stop_reason": 2, "finish_reason": "stop", "logprobs": None}],
        "created": 5,
        "id": "i",
    }
    completion = assembled(chunk)
    assert list(completion) == ["id", "object", "created", "model", "choices", "usage", "x_new"]
    (choice,) = completion["choices"]
    assert list(choice) == ["index", "message", "logprobs", "finish_reason", "stop_reason"]
    assert list(choice["message"]) == ["role", "content"]


def test_an_empty_stream_and_an_empty_choice() -> None:
    assert assembled() == {"object": "chat.completion", "choices": []}
    empty = {"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": None}
    assert choice_of({}) == choice_of({"index": None, "delta": None}) == choice_of({"delta": []}) == empty


def test_finished_needs_a_reason_of_every_choice() -> None:
    assembler = Assembler()
    assert not assembler.is_finished
    assembler.add({"choices": [{"index": 0, "finish_reason": "stop"}, {"index": 1, "finish_reason": ""}]})
    assert not assembler.is_finished
    assembler.add({"choices": [{"index": 1, "finish_reason": "stop"}]})
    assert assembler.is_finished


def test_nothing_never_wipes_out_something() -> None:
    something = {"id": "i", "created": 5, "model": "m", "list": [1], "count": 2, "said": None}
    nothing = {"id": "", "created": 0, "model": None, "list": [], "count": 0, "said": None, "usage": 7}
    completion = assembled(something, nothing)
    assert completion == {
        "id": "i", "created": 5, "model": "m", "list": [], "count": 0, "said": None,
        "object": "chat.completion", "choices": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        ([None, "stop", None], "stop"),
        (["", "stop", ""], "stop"),
        (["tool_calls", "stop"], "tool_calls"),
        (["stop", "length"], "length"),
        (["stop", "content_filter", "stop"], "content_filter"),
        ([], None),
    ],
)
def test_the_finish_reason(reasons: list[str | None], expected: str | None) -> None:
    choices: list[JSON] = [{"delta": {}}, *({"finish_reason": reason} for reason in reasons)]
    assert choice_of(*choices)["finish_reason"] == expected


def test_text_after_the_end_is_no_answer() -> None:
    choice = choice_of({"finish_reason": "stop", "delta": {"content": "a"}}, {"delta": {"content": ""}}, {"delta": {}})
    assert choice["message"]["content"] == "a"
    with pytest.raises(ValueError, match="after the end"):
        choice_of({"finish_reason": "stop", "delta": {"content": "a"}}, {"delta": {"content": "b"}})


def test_unknown_fields_of_a_choice() -> None:
    choice = choice_of(
        {"token_ids": [1], "filters": {"a": 1}, "note": "x", "none": None, "delta": {"content": "a"}},
        {"token_ids": [2], "filters": {"b": 2}, "note": "y", "none": None, "message": {"content": "repeated"}},
        {"token_ids": None, "filters": {}, "note": None, "none": 1, "message": None},
    )
    assert choice["message"]["content"] == "a"
    del choice["message"], choice["index"], choice["finish_reason"]
    assert choice == {"token_ids": [1, 2], "filters": {"a": 1, "b": 2}, "note": "y", "none": 1}


def test_log_probabilities_of_any_kind() -> None:
    choice = choice_of(
        {"logprobs": {"tokens": ["a"], "content": None, "refusal": None}},
        {"logprobs": {"tokens": ["b"], "content": [{"token": "b"}], "refusal": None, "note": 1}},
        {"logprobs": None},
        {"logprobs": {"tokens": None, "note": 2}},
    )
    assert choice["logprobs"] == {
        "tokens": ["a", "b"], "content": [{"token": "b"}], "refusal": None, "note": 2,
    }  # fmt: skip


def test_fields_of_a_delta() -> None:
    message = message_of(
        {"role": "", "content": None, "thought": "a", "flag": False, "list": [1], "format": "", "mixed": 1},
        {"role": "assistant", "content": "x", "thought": "b", "flag": True, "list": [2], "format": "f"},
        {"role": "tool", "content": "y", "thought": None, "list": None, "format": "g", "mixed": "now text"},
        {"role": "", "content": "z", "mixed": {"now": "an object"}},
    )
    assert message == {
        "role": "assistant", "content": "xyz", "thought": "ab", "flag": True, "list": [1, 2], "format": "f",
        "mixed": {"now": "an object"},
    }  # fmt: skip


def test_lists_of_objects_merge_by_index() -> None:
    message = message_of(
        {"parts": [{"index": 0, "text": "a"}, {"index": 0, "text": "other"}, {"index": 1, "type": "t", "n": 1}]},
        {"parts": [{"index": 1, "type": "t", "n": 2}, {"index": 1, "type": "u"}, {"text": "no index"}, 5]},
        {"parts": [{"index": 0, "text": "b"}]},
    )
    assert message["parts"] == [
        {"index": 0, "text": "ab"},
        {"index": 0, "text": "other"},
        {"index": 1, "type": "t", "n": 2},
        {"index": 1, "type": "u"},
        {"text": "no index"},
        5,
    ]


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        # the book
        ([(0, "a", "f", ""), (0, None, None, "{"), (0, None, None, "}")], [("a", "f", "{}")]),
        # the name and the id are repeated
        ([(0, "a", "f", "{"), (0, "a", "f", "}")], [("a", "f", "{}")]),
        # the name comes in pieces
        ([(0, "a", "get_", ""), (0, None, "weather", "{}")], [("a", "get_weather", "{}")]),
        # a new id each time
        ([(0, "a", "f", "{"), (0, "b", None, "}")], [("a", "f", "{}")]),
        # one index for all calls
        ([(0, "a", "f", "1"), (0, "b", "f", "2"), (0, None, None, "3")], [("a", "f", "1"), ("b", "f", "23")]),
        # no index, ids
        ([(None, "a", "f", "1"), (None, "b", "f", "2"), (None, "a", None, "3")], [("a", "f", "13"), ("b", "f", "2")]),
        # no index, no ids
        (
            [(None, None, "f", "1"), (None, None, None, "2"), (None, None, "f", "3")],
            [(None, "f", "12"), (None, "f", "3")],
        ),
        ([(None, None, None, "1")], [(None, None, "1")]),
        # out of order
        ([(1, "b", "g", "2"), (0, "a", "f", "1")], [("a", "f", "1"), ("b", "g", "2")]),
        # arguments as an object
        ([(0, "a", "f", {"x": 1})], [("a", "f", {"x": 1})]),
    ],
)  # fmt: skip
def test_tool_calls(deltas: list[tuple[Any, ...]], expected: list[tuple[Any, ...]]) -> None:
    calls = calls_of(*(call(*delta) for delta in deltas))
    assert calls == [call(None, id, name, arguments) for id, name, arguments in expected]


def test_a_custom_tool_call_and_an_empty_list_of_calls() -> None:
    calls = calls_of(
        {"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": ""}},
        {"index": 0, "custom": {"input": "select"}},
        {"index": 0, "custom": {"input": " 1"}},
    )
    assert calls == [{"id": "c", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}]
    assert message_of({"tool_calls": []})["tool_calls"] == []


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": 5},
        {"choices": ["a"]},
        {"choices": [{"index": "0"}]},
        {"choices": [{"index": [0]}]},
        {"choices": [{"delta": "text"}]},
        {"choices": [{"delta": {"tool_calls": {"0": {}}}}]},
        {"choices": [{"delta": {"tool_calls": [None]}}]},
        {"choices": [{"logprobs": [1]}]},
    ],
)
def test_what_is_not_the_protocol_is_refused(chunk: JSON) -> None:
    with pytest.raises(ValueError, match=r"is not|are not"):
        assembled(chunk)
