from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from llm_proxy.backends.retry import Attempt, Failure, Tries, asked_wait_s, failed, failed_by, pause_s
from llm_proxy.errors import BackendTimeout, BackendUnavailable, ConfigError, LimitReached
from llm_proxy.faces._http import httpx
from llm_proxy.types import Head

NOW_S = 1_700_000_000.0
MAIN, SPARE, OTHER = ("main", "m"), ("spare", "m"), ("other", "m")
AGAIN = Failure(ValueError(), "outage", True, 500)
NEVER = Failure(ValueError(), "context_length", False, 400)


def head(status: int, **headers: str) -> Head:
    return Head(status, [(name.replace("_", "-"), value) for name, value in headers.items()], ())


class TestFailed:
    @pytest.mark.parametrize(
        ("status", "said", "cause", "may_repeat"),
        [
            (500, {}, "outage", True),
            (503, {}, "outage", True),
            (529, {}, "outage", True),
            (409, {}, "outage", True),
            (408, {}, "timeout", True),
            (504, {}, "timeout", True),
            (429, {}, "rate_limit", True),
            (429, {"code": "insufficient_quota"}, "rate_limit", False),
            (429, {"kind": "insufficient_quota"}, "rate_limit", False),
            (402, {}, "rate_limit", False),
            (400, {"code": "context_length_exceeded"}, "context_length", False),
            (400, {"kind": "exceed_context_size_error"}, "context_length", False),
            (400, {"message": "this model's maximum context length is 4096 tokens"}, "context_length", False),
            (413, {"message": "the prompt is too long"}, "context_length", False),
            (500, {"message": "lost the context window"}, "outage", True),
            (400, {"code": "content_filter"}, "content_policy", False),
            (400, {"code": "responsibleaipolicyviolation"}, "content_policy", False),
            (400, {}, "", False),
            (401, {}, "", False),
            (404, {"code": "model_not_found"}, "", False),
            (200, {"code": "server_error"}, "outage", True),
            (200, {"code": "insufficient_quota"}, "rate_limit", False),
        ],
    )
    def test_what_a_refusal_means(self, status: int, said: dict[str, str], cause: str, may_repeat: bool) -> None:
        found = failed(head(status), **said)
        assert (found.cause, found.may_repeat, found.status) == (cause, may_repeat, status)

    @pytest.mark.parametrize(("status", "said", "may_repeat"), [(500, "false", False), (400, "true", True)])
    def test_the_server_may_say_it_itself(self, status: int, said: str, may_repeat: bool) -> None:
        assert failed(head(status, x_should_retry=said)).may_repeat is may_repeat

    @pytest.mark.parametrize(
        ("error", "cause", "is_refused", "words"),
        [
            (httpx.ConnectError("x"), "outage", True, "refused"),
            (httpx.ConnectTimeout("x"), "timeout", True, "refused"),
            (httpx.ReadTimeout("x"), "timeout", False, "timeout"),
            (httpx.ReadError("x"), "outage", False, "broken"),
            (httpx.RemoteProtocolError("x"), "outage", False, "broken"),
            (BackendTimeout("x"), "timeout", False, "timeout"),
            (ConnectionResetError("x"), "outage", False, "broken"),
        ],
    )
    def test_what_an_exception_means(self, error: Exception, cause: str, is_refused: bool, words: str) -> None:
        found = failed_by(error)
        assert found is not None
        assert (found.cause, found.is_refused, found.may_repeat, found.words) == (cause, is_refused, True, words)
        assert found.brought is error

    def test_ours_tells_what_it_was_made_of(self) -> None:
        try:
            raise BackendUnavailable("x") from httpx.ConnectError("refused")
        except BackendUnavailable as exc:
            found = failed_by(exc)
        assert found is not None
        assert found.is_refused

    @pytest.mark.parametrize("error", [ValueError("x"), ConfigError("x"), httpx.InvalidURL("x")])
    def test_other_exceptions_are_nobodys_failure(self, error: Exception) -> None:
        assert failed_by(error) is None

    def test_words(self) -> None:
        assert (AGAIN.words, failed(head(200)).words) == ("500", "error")

    @pytest.mark.parametrize(
        ("code", "word"),
        [
            ("queue_full", "busy"),
            ("queue_timeout", "busy"),
            ("budget_exceeded", "over-budget"),
            ("budget_unavailable", "over-budget"),
        ],
    )
    def test_a_limit_in_a_word(self, code: str, word: str) -> None:
        assert Failure(LimitReached("no", code=code), "rate_limit", False).words == word


class TestWait:
    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ({}, None),
            ({"retry_after": "3"}, 3.0),
            ({"retry_after": "1.5"}, 1.5),
            ({"retry_after_ms": "250", "retry_after": "3"}, 0.25),
            ({"retry_after": "-1"}, None),
            ({"retry_after": "soon"}, None),
            ({"retry_after": "nan"}, None),
            ({"retry_after": "1e400"}, 86_400.0),
            ({"retry_after": format_datetime(datetime.fromtimestamp(NOW_S + 5, UTC), usegmt=True)}, 5.0),
            ({"retry_after": format_datetime(datetime.fromtimestamp(NOW_S - 5, UTC), usegmt=True)}, 0.0),
            ({"x_ratelimit_reset_requests": "1m2s", "x_ratelimit_remaining_requests": "0"}, 62.0),
            ({"x_ratelimit_reset_requests": "20ms", "x_ratelimit_remaining_requests": "0"}, 0.02),
            ({"x_ratelimit_reset_requests": "20ms", "x_ratelimit_remaining_requests": "7"}, None),
            ({"x_ratelimit_reset_tokens": "odd", "x_ratelimit_remaining_tokens": "0"}, None),
            ({"ratelimit_reset": "4"}, 4.0),
        ],
    )
    def test_what_the_headers_ask(self, headers: dict[str, str], expected: float | None) -> None:
        found = asked_wait_s(head(429, **headers).headers, NOW_S)
        assert found == (expected if expected is None else pytest.approx(expected))

    @pytest.mark.parametrize(("earlier", "expected"), [(0, 0.5), (1, 1.0), (3, 4.0), (4, 8.0), (1000, 8.0)])
    def test_the_pause_doubles_up_to_eight_seconds(self, earlier: int, expected: float) -> None:
        assert pause_s(earlier, 0.0) == expected
        assert pause_s(earlier, 1.0) == pytest.approx(expected * 0.75)


def tries(most: int = 4, *, before: int = 0, wait_s: float = 20.0, deadline_s: float = 100.0, **retries: int) -> Tries:
    return Tries(most, retries, longest_wait_s=wait_s, deadline_s=deadline_s, before=before)


class TestTries:
    def test_a_fallback_comes_before_a_retry_and_at_once(self) -> None:
        made = tries(main=2)
        made.note(MAIN, AGAIN, 0.0)
        assert made.next([MAIN, SPARE], 0.0, 0.0) == Attempt(*SPARE)
        made.note(SPARE, AGAIN, 0.1)
        assert made.next([MAIN, SPARE], 0.1, 0.0) == Attempt(*MAIN, 0.4)

    def test_retries_wait_longer_each_time_and_end(self) -> None:
        made = tries(10, main=2)
        waits = []
        for _ in range(2):
            made.note(MAIN, AGAIN, 1.0)
            attempt = made.next([], 1.0, 0.0)
            assert attempt is not None
            waits.append(attempt.wait_s)
        made.note(MAIN, AGAIN, 1.0)
        assert (waits, made.next([], 1.0, 0.0), made.is_used_up) == ([0.5, 1.0], None, True)

    def test_the_budget_is_one_for_all(self) -> None:
        made = tries(2, main=5)
        made.note(MAIN, AGAIN, 0.0)
        assert made.next([SPARE], 0.0, 0.0) == Attempt(*SPARE)
        made.note(SPARE, AGAIN, 0.0)
        assert made.next([OTHER], 0.0, 0.0) is None
        assert made.is_used_up

    def test_what_the_caller_sent_before_counts(self) -> None:
        made = tries(3, before=2, main=5)
        made.note(MAIN, AGAIN, 0.0)
        assert made.next([SPARE], 0.0, 0.0) is None
        assert made.is_used_up

    @pytest.mark.parametrize(("before", "is_used_up"), [(0, False), (1, True)])
    def test_the_caller_may_go_on_while_the_budget_lasts(self, before: int, is_used_up: bool) -> None:
        made = tries(4, before=before)
        made.note(MAIN, AGAIN, 0.0)
        made.next([SPARE], 0.0, 0.0)
        made.note(SPARE, AGAIN, 0.0)
        assert made.next([SPARE], 0.0, 0.0) is None
        assert made.is_used_up is is_used_up

    def test_one_request_is_nothing_to_be_used_up(self) -> None:
        made = tries(1, before=3)
        made.note(MAIN, NEVER, 0.0)
        assert made.next([], 0.0, 0.0) is None
        assert not made.is_used_up

    def test_what_the_backend_asks_for_is_waited(self) -> None:
        made = tries(main=1)
        made.note(MAIN, Failure(ValueError(), "rate_limit", True, 429, 7.0), 0.0)
        assert made.next([], 2.0, 0.0) == Attempt(*MAIN, 5.0)

    def test_but_not_longer_than_may_be(self) -> None:
        made = tries(main=1, wait_s=6.0)
        made.note(MAIN, Failure(ValueError(), "rate_limit", True, 429, 7.0), 0.0)
        assert made.next([], 2.0, 0.0) is None
        assert not made.is_used_up, "the caller may have more patience"

    def test_nothing_begins_after_the_deadline(self) -> None:
        made = tries(main=1, deadline_s=0.4)
        made.note(MAIN, AGAIN, 0.0)
        assert made.next([], 0.0, 0.0) is None
        made.note(MAIN, AGAIN, 0.5)
        assert made.next([SPARE], 0.5, 0.0) is None

    def test_who_can_be_asked_soonest_is(self) -> None:
        made = tries(6, main=1, spare=1)
        made.note(MAIN, Failure(ValueError(), "rate_limit", True, 429, 9.0), 0.0)
        made.next([SPARE], 0.0, 0.0)
        made.note(SPARE, AGAIN, 0.0)
        assert made.next([], 0.0, 0.0) == Attempt(*SPARE, 0.5)

    def test_what_can_not_be_repeated_is_not(self) -> None:
        made = tries(main=3)
        made.note(MAIN, NEVER, 0.0)
        assert made.next([], 0.0, 0.0) is None
        assert (made.first, made.said_first) == (MAIN, NEVER)

    def test_the_last_word_of_the_first_is_kept(self) -> None:
        made = tries(main=1)
        made.note(MAIN, AGAIN, 0.0)
        made.next([SPARE], 0.0, 0.0)
        made.note(SPARE, AGAIN, 0.0)
        made.note(MAIN, NEVER, 1.0)
        assert (made.first, made.said_first) == (MAIN, NEVER)
