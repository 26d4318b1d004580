from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.wire.splice import Form, Sent, Splice, body_for_rest, may_be_continued
from llm_proxy.wire.sse import SSEDecoder

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
DONE = b"data: [DONE]\n\n"
FORMS: tuple[Form, ...] = ("continue_final_message", "trailing", "prefix", "prefix_echoed")


def chunk(
    content: str | None = None, *, id: str = "c1", model: str = "m", end: str | None = None, **more: Any
) -> bytes:
    """One event; ``more`` goes into the delta."""
    delta = {**({} if content is None else {"content": content}), **more}
    row = {"id": id, "object": "chat.completion.chunk", "created": 1, "model": model}
    choices = [{"index": 0, "delta": delta, "finish_reason": end}]
    return b"data: " + json.dumps({**row, "choices": choices}).encode() + b"\n\n"


def raw(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


ROLE = chunk("", role="assistant")


def splice(*pieces: bytes, limit_bytes: int = 1 << 20) -> Splice:
    made = Splice(limit_bytes=limit_bytes, prompt_tokens=10)
    for piece in pieces:
        made.feed(piece)
    return made


def resumed(text: str, form: Form = "trailing") -> Splice:
    """A stream of this text that broke off, and goes on."""
    made = splice(ROLE, chunk(text))
    sent = made.sent()
    assert sent is not None
    made.resume(sent, form)
    return made


def chunks(data: bytes) -> list[Any]:
    return [json.loads(event.data) for event in SSEDecoder().feed(data) if event.data != "[DONE]"]


def text_of(data: bytes) -> str:
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks(data) if c["choices"])


class TestRequests:
    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({}, True),
            ({"n": 1, "tools": [], "response_format": {"type": "text"}}, True),
            ({"n": 2}, False),
            ({"tools": [{}]}, False),
            ({"functions": [{}]}, False),
            ({"logprobs": True}, False),
            ({"audio": {"voice": "x"}}, False),
            ({"response_format": {"type": "json_object"}}, False),
            ({"response_format": "odd"}, False),
            ({"messages": [{"role": "assistant", "content": "My"}]}, False),
            ({"messages": []}, False),
            ({"messages": "odd"}, False),
        ],
    )
    def test_text_alone_may_be_continued(self, fields: dict[str, Any], expected: bool) -> None:
        assert may_be_continued({**ASKED, **fields}) is expected

    @pytest.mark.parametrize("form", FORMS)
    def test_the_request_for_the_rest(self, form: Form) -> None:
        rest = body_for_rest({**ASKED, "max_tokens": 9}, Sent("All is \n", 3, {}, True), form)
        last = {"role": "assistant", "content": "All is"}
        if form.startswith("prefix"):
            last["prefix"] = True  # type: ignore[assignment]
        assert rest["messages"] == [*ASKED["messages"], last]
        assert rest["max_tokens"] == 6
        told = {name: rest[name] for name in ("continue_final_message", "add_generation_prompt") if name in rest}
        is_told = form == "continue_final_message"
        assert told == ({"continue_final_message": True, "add_generation_prompt": False} if is_told else {})

    def test_at_least_one_token_is_left(self) -> None:
        body = {**ASKED, "max_completion_tokens": 2}
        assert body_for_rest(body, Sent("a", 5, {}, True), "trailing")["max_completion_tokens"] == 1

    def test_without_text_it_is_the_same(self) -> None:
        assert body_for_rest(ASKED, Sent(" ", 1, {}, True), "prefix") == ASKED


class TestFirstPart:
    def test_whole_events_pass_as_they_came(self) -> None:
        made = Splice(limit_bytes=1 << 20)
        data = ROLE + chunk("a") + b": kept alive\n\n" + chunk(end="stop") + DONE
        out = b"".join(made.feed(data[at : at + 7]) for at in range(0, len(data), 7))
        assert out + (made.end() or b"") == data

    @pytest.mark.parametrize("mark", [b"\n\n", b"\r\n\r\n", b"\r\r"])
    def test_an_unfinished_event_is_kept_back(self, mark: bytes) -> None:
        made = Splice(limit_bytes=1 << 20)
        line = b'data: {"choices": []}'
        assert made.feed(line + mark + line[:9]) == line + mark
        assert made.feed(line[9:]) == b""
        assert made.kept() == line
        assert made.kept() == b""

    @pytest.mark.parametrize(
        ("pieces", "is_whole"),
        [
            ((chunk("a"), chunk(end="stop"), DONE), True),
            ((chunk("a"), b"data: [DONE]"), True),
            ((chunk("a"), b"data:[DONE]\n\n"), True),
            ((chunk("a"), chunk(end="stop")), True),
            ((chunk("a"),), False),
            ((ROLE, chunk("a")[:20]), False),
            ((b"data: {oops\n\n",), True),
            ((chunk("data: [DONE]"),), False),
        ],
    )
    def test_its_end(self, pieces: tuple[bytes, ...], is_whole: bool) -> None:
        made = splice(*pieces)
        last = made.end()
        assert (last is not None) is is_whole

    def test_what_is_kept_at_an_early_end_is_not_lost(self) -> None:
        made = splice(chunk("a"), b"data: {")
        assert made.end() is None
        assert made.kept() == b"data: {"

    def test_what_was_sent(self) -> None:
        made = splice(ROLE, chunk("All "), chunk("is"), raw(choices=[], x=1), chunk("lost")[:30])
        sent = made.sent()
        assert sent is not None
        assert (sent.text, sent.pieces, sent.has_role) == ("All is", 2, True)
        assert sent.top == {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "x": 1}

    @pytest.mark.parametrize(
        "piece",
        [
            chunk(end="stop"),
            chunk(end="stop") + DONE,
            chunk(tool_calls=[{"index": 0}]),
            chunk("a", reasoning_content="hm"),
            chunk("a", refusal="no"),
            raw(choices=[{"index": 1, "delta": {"content": "b"}}]),
            raw(choices=[{"index": 0, "delta": {"content": "b"}, "logprobs": {"content": []}}]),
            raw(choices=[{"index": 0, "delta": {"content": ["b"]}}]),
            raw(choices=7),
            b"data: 7\n\n",
            b"data: {oops\n\n",
            b'data: {"choices": [], "x": "\xff"}\n\n',
        ],
    )
    def test_what_can_not_be_continued(self, piece: bytes) -> None:
        assert splice(ROLE, chunk("a"), piece).sent() is None

    def test_a_stream_that_is_too_long(self) -> None:
        made = splice(*[chunk("word")] * 9, limit_bytes=300)
        assert made.sent() is None
        assert made.end() == b""

    @pytest.mark.parametrize("bad", [raw(error={"message": "no"}), b"event: error\ndata: oops\n\n"])
    def test_an_error_in_the_place_of_the_rest_is_kept_back(self, bad: bytes) -> None:
        made = Splice(limit_bytes=1 << 20)
        assert made.feed(ROLE) == ROLE
        assert made.feed(chunk("a") + bad + DONE) == chunk("a")
        assert made.is_broken
        sent = made.sent()
        assert sent is not None
        assert sent.text == "a"
        assert made.kept() == bad + DONE

    def test_an_error_alone(self) -> None:
        made = splice(chunk("a"), raw(error="no"))
        assert made.is_broken
        assert made.kept() == raw(error="no")

    @pytest.mark.parametrize("text", ['"error"', "event: error"])
    def test_text_about_errors_is_none(self, text: str) -> None:
        made = splice(chunk(text), b'data: "error" oops\n\n')
        assert not made.is_broken


class TestRest:
    def test_one_id_one_model_one_role(self) -> None:
        made = resumed("All is")
        out = made.feed(chunk("", id="c2", model="other", role="assistant") + chunk(" well", id="c2", model="other"))
        out += made.feed(chunk(end="stop", id="c2")) + made.feed(DONE)
        assert {(c["id"], c["model"]) for c in chunks(out)} == {("c1", "m")}
        assert text_of(out) == " well"
        assert [c["choices"][0]["finish_reason"] for c in chunks(out)] == [None, "stop"]
        assert (out.endswith(DONE), made.end()) == (True, b"")
        assert made.sent() is None

    def test_nobody_need_send_a_role(self) -> None:
        made = splice(chunk("All"))
        sent = made.sent()
        assert sent is not None
        made.resume(sent, "trailing")
        assert text_of(made.feed(chunk(" is"))) == " is"

    def test_the_role_is_sent_where_it_was_not(self) -> None:
        made = splice(chunk("All"))
        sent = made.sent()
        assert sent is not None
        made.resume(sent, "trailing")
        out = made.feed(chunk("", role="assistant") + chunk(" is", role="assistant"))
        assert [c["choices"][0]["delta"].get("role") for c in chunks(out)] == ["assistant", None]

    @given(
        st.text("ab \n", min_size=1, max_size=8),
        st.text("ab \n", max_size=12),
        st.lists(st.integers(1, 4), max_size=12),
    )
    def test_an_echo_is_cut_off(self, before: str, after: str, sizes: list[int]) -> None:
        said, out = before + after, b""
        made = resumed(before, "prefix_echoed")
        for size in [*sizes, 99]:
            out += made.feed(chunk(said[:size]))
            said = said[size:]
        out += made.feed(chunk(end="stop"))
        assert text_of(out) == after

    def test_a_server_that_does_not_echo_is_believed(self) -> None:
        made = resumed("All is", "prefix_echoed")
        assert text_of(made.feed(chunk("Al") + chunk("so well") + chunk(end="stop"))) == "Also well"
        made = resumed("All is", "prefix_echoed")
        assert text_of(made.feed(chunk("Al") + chunk(end="stop"))) == "Al"

    @pytest.mark.parametrize(
        ("before", "after", "expected"),
        [
            ("All ", " is", "is"),
            ("All ", "is", "is"),
            ("All \n", " \nis", "is"),
            ("All \n", " is", "is"),
            ("All", " is", " is"),
        ],
    )
    def test_white_space_at_the_seam_comes_once(self, before: str, after: str, expected: str) -> None:
        assert text_of(resumed(before).feed(chunk(after) + chunk(end="stop"))) == expected

    def test_white_space_that_is_all_there_is(self) -> None:
        made = resumed("All \n")
        assert text_of(made.feed(chunk(" ") + chunk(end="stop"))) == ""
        assert made.end() == b""

    def test_from_the_start_where_nothing_was_sent(self) -> None:
        made = resumed("")
        assert text_of(made.feed(chunk("", role="assistant") + chunk("All") + chunk(end="stop"))) == "All"

    def test_counts_are_added_up(self) -> None:
        made = resumed("All is")
        usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15, "prompt_tokens_details": None}
        out = made.feed(raw(id="c2", choices=[], usage=usage) + raw(id="c2", choices=[], usage=None))
        (found,) = chunks(out)
        own = {"prompt_tokens": 22, "completion_tokens": 4, "total_tokens": 26}
        assert found["usage"] == {**usage, **own}
        assert found["id"] == "c1"

    def test_a_chunk_that_says_usage_is_to_come_keeps_saying_so(self) -> None:
        row = {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}], "usage": None}
        (found,) = chunks(resumed("All").feed(raw(**row)))
        assert found["usage"] is None

    def test_odd_counts_are_left(self) -> None:
        (found,) = chunks(resumed("All").feed(raw(choices=[], usage={"prompt_tokens": "many"})))
        assert found["usage"] == {"prompt_tokens": "many"}

    def test_it_may_break_off_again(self) -> None:
        made = resumed("All ")
        made.feed(chunk(" is") + chunk(" we")[:20])
        sent = made.sent()
        assert sent is not None
        assert (sent.text, sent.pieces) == ("All is", 2)
        assert made.end() is None
        made.resume(sent, "trailing")
        usage = {"prompt_tokens": 13, "completion_tokens": 1, "total_tokens": 14}
        out = made.feed(chunk(" well") + chunk(end="stop") + raw(choices=[], usage=usage) + DONE)
        assert text_of(out) == " well"
        assert chunks(out)[-1]["usage"]["prompt_tokens"] == 33

    @pytest.mark.parametrize(
        "bad", [raw(error={"message": "no"}), b"data: {oops\n\n", b"event: error\ndata: {}\n\n", b"data: 7\n\n"]
    )
    def test_an_error_in_it_is_another_break(self, bad: bytes) -> None:
        made = resumed("All")
        assert text_of(made.feed(chunk(" is") + bad)) == " is"
        assert made.is_broken

    def test_what_is_not_text_passes(self) -> None:
        out = resumed("All").feed(chunk(reasoning_content="hm") + chunk() + chunk(refusal=None))
        assert [c["choices"][0]["delta"] for c in chunks(out)] == [{"reasoning_content": "hm"}]


@given(st.text(min_size=1, max_size=30), st.data())
def test_no_character_is_lost_or_repeated(text: str, data: st.DataObject) -> None:
    """Whatever the text, wherever it breaks, however the bytes come."""
    at = data.draw(st.integers(0, len(text)))
    stream = ROLE + b"".join(chunk(char) for char in text[:at])
    cut = data.draw(st.integers(0, len(chunk("x")) - 1))
    made = Splice(limit_bytes=1 << 20)
    out = made.feed(stream + (chunk("x"))[:cut])
    sent = made.sent()
    assert sent is not None
    made.resume(sent, "trailing")
    kept = len(sent.text.rstrip())
    rest = b"".join(chunk(char, id="c2") for char in text[kept:]) + chunk(end="stop") + DONE
    size = data.draw(st.integers(1, 200))
    out += b"".join(made.feed(rest[at : at + size]) for at in range(0, len(rest), size))
    assert text_of(out) == text
    assert made.end() == b""
