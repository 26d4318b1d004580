"""The soak of the proxy, for a moment; and that each of its checks can fail."""

from __future__ import annotations

import argparse
import os
import random
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("numpy")
pytest.importorskip("aiohttp")

from tests.faces.soak import questions
from tests.faces.soak.judge import Sample, judged, sample
from tests.faces.soak.tally import Reply, Tally

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")

SERVER = """
import os, socket, sys, threading
kept, is_leaking = [], sys.argv[1] == "leaks"
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        connection.recv(100)
        part = bytearray(os.urandom(512 << 10)), os.open("/dev/null", os.O_RDONLY), threading.Event()
        thread = threading.Thread(target=part[2].wait, daemon=True)
        thread.start()
        if is_leaking:
            kept.append(part)
        else:
            os.close(part[1])
            part[2].set()
            thread.join()
        connection.send(b"done")
        connection.close()
"""


def flat(values: list[float]) -> bool:
    samples = [Sample(float(second), value, 50, 20) for second, value in enumerate(values)]
    return judged(samples)["rss_mib"].is_flat


def test_the_rule() -> None:
    chance = random.Random(1)
    noise = [chance.gauss(200, 5) for _ in range(1800)]
    assert flat(noise)
    assert flat([value + min(second, 600) for second, value in enumerate(noise)])  # it may grow while it warms up
    assert flat([value - second / 10 for second, value in enumerate(noise)])
    assert not flat([value + second / 40 for second, value in enumerate(noise)])
    assert not flat([value + 30 * (second > 1790 - 60) for second, value in enumerate(noise)])  # a step at the end
    assert not flat([value + 30 * (second > 1500) for second, value in enumerate(noise)])  # one some minutes before
    files = [Sample(float(second), 200.0, 50 + second // 200, 20) for second in range(1800)]
    assert {name for name, row in judged(files).items() if not row.is_flat} == {"fds"}


def test_the_rule_for_what_goes_up_and_down() -> None:
    chance = random.Random(2)
    minutes = [chance.gauss(27, 1.6) for _ in range(30)]
    minutes[10], minutes[29] = 26.0, 29.0  # the first after the warm-up, and the last

    def threads(add: list[float]) -> dict[str, bool]:
        found = [Sample(float(s), 200.0, 50, round(minutes[s // 60] + add[s])) for s in range(1800)]
        return {name: row.is_flat for name, row in judged(found).items()}

    assert threads([0.0] * 1800)["threads"], "no growth"
    assert not threads([s / 300 for s in range(1800)])["threads"], "one more in five minutes"
    assert not threads([6.0 * (s >= 1740) for s in range(1800)])["threads"], "six in the last minute"


def test_the_rule_for_threads_at_rest() -> None:
    def grown(more: int) -> set[str]:
        rests = {1: range(600, 630), 2: range(1768, 1798)}
        found = []
        for s in range(1800):
            rest = next((number for number, seconds in rests.items() if s in seconds), 0)
            threads = 20 + s // 180 if not rest else 20 + (s % 30 < 15) * 5 + more * (rest == 2)
            found.append(Sample(float(s), 200.0, 50 - 30 * bool(rest), threads, rest=rest))
        return {name for name, row in judged(found).items() if not row.is_flat}

    assert grown(2) == set(), "under load ten more, at rest two"
    assert grown(3) == {"threads"}


@pytest.mark.parametrize("kind", ["leaks", "does not"])
def test_a_server_that_leaks(kind: str) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVER, kind], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            samples = []
            for call in range(120):
                with socket.create_connection(("127.0.0.1", port)) as connection:
                    connection.sendall(b"x")
                    assert connection.recv(10) == b"done"
                samples.append(sample(process.pid, float(call), call))
        finally:
            process.kill()
    grown = {name for name, row in judged(samples).items() if not row.is_flat}
    assert grown == ({"rss_mib", "fds", "threads"} if kind == "leaks" else set())


def test_connections_that_callers_hold_are_not_counted() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    caller = socket.create_connection(("127.0.0.1", port))
    kept, _ = listener.accept()
    with listener, kept:
        both = sample(os.getpid(), 0.0).fds
        assert sample(os.getpid(), 0.0, port=port).fds == both - 1
        caller.close()
        assert sample(os.getpid(), 0.0, port=port).fds == both - 1, "the caller's end is gone, and the other one counts"


def test_questions_have_one_answer() -> None:
    asked = [questions.number(12), questions.story(12), questions.make(random.Random(1))]
    subjects = [questions.subject_of(text) for text in asked]
    assert subjects[:2] == ["number 12", "story 12"]
    assert all(subjects)
    for subject in subjects:
        answer = questions.answer_to(subject, 7)
        assert questions.serial_in(answer, subject) == 7
        assert questions.serial_in(answer, "number 13") is None
        assert questions.serial_in(answer[:-1], subject) is None
        assert questions.serial_in(answer.replace("word3", "word4"), subject) is None


def test_an_answer_of_another_tenant() -> None:
    tally = Tally()
    for tenant in ("alpha", "alpha", "beta"):
        tally.own(7, tenant)
    assert tally.problems == ["answer 7 of tenant alpha went to beta"]


def booked(*calls: tuple[str, str, int]) -> Tally:
    """A tally of calls: number, ``cache-status``, status."""
    tally = Tally()
    for call, said, status in calls:
        tally.book(call, Reply(status, {"cache-status": said}, b'{"error": {"code": null}}'), times=1, is_call=True)
    return tally


def test_what_the_provider_counted() -> None:
    calls = ("1", "llm-proxy; fwd=uri-miss", 200), ("2", 'llm-proxy; hit; detail="exact"', 200)
    tally = booked(*calls)
    tally.left = {"1"}
    tally.against_provider({"asked": {"1": 1}, "left": ["1"]})
    assert tally.problems == []
    tally.against_provider({"asked": {"2": 1, "3": 1}, "left": []})
    assert sorted(tally.problems) == [
        "call 1 was sent 0 times, not 1",
        "call 1 went on upstream although its caller had left",
        "call 2 was sent 1 times, not 0",
        "the provider was asked for 3, which nobody asked",
    ]


REFUSED = ("refused", "", None, None, None, 0.0)


def test_what_the_ledger_says(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE calls (status, kind, prompt_tokens, completion_tokens, cost_usd, latency_s)")
    rows = [("miss", "", 10, 20, 0.5, 0.1), ("hit", "exact", None, None, None, 0.1), ("miss", "", None, None, 0.0, 0.1)]
    connection.executemany("INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?)", [*rows, REFUSED])
    connection.commit()
    connection.close()
    calls = (
        ("1", "llm-proxy; fwd=uri-miss", 200),
        ("2", 'llm-proxy; hit; detail="exact"', 200),
        ("3", "llm-proxy; fwd=uri-miss; collapsed", 200),
    )
    tally = booked(*calls)
    tally.book("4", Reply(413, {}, b""), times=0, is_call=False)
    tally.used(10, 20, (10_000, 20_000))
    found = tally.against_ledger(path)
    assert (tally.problems, found["ledger"]) == ([], found["seen"])
    tally = booked(*calls[:2], ("3", 'llm-proxy; hit; detail="semantic; similarity=0.9"', 200))
    tally.against_ledger(path)
    assert [problem.partition(":")[0] for problem in tally.problems] == [
        "semantic", "prompt_tokens", "completion_tokens", "cost_usd", "upstream", "refused",
    ]  # fmt: skip


def test_what_is_refused_is_not_booked() -> None:
    tally = Tally()
    for code in ("too_many_connections", "rate_limit_exceeded"):
        raw = b'{"error": {"code": "%s"}}' % code.encode()
        assert not tally.book(code, Reply(503, {}, raw), times=1, is_call=True)
    full = Reply(429, {"cache-status": "llm-proxy; fwd=uri-miss"}, b'{"error": {"code": "queue_full"}}')
    assert not tally.book("full", full, times=1, is_call=True)
    assert (tally.calls, tally.forwarded, tally.unsent) == (1, 0, 1)
    assert set(tally.sent.values()) == {0}


def test_a_short_one(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from tests.faces.soak.__main__ import soak

    options = argparse.Namespace(seconds=15.0, callers=24, pause_ms=50.0, workers=1, seed=2, reload_s=5.0, crowd_s=6.0)
    options.budget_bytes = 1 << 20
    began_s = time.monotonic()
    verdict, samples = soak(options, tmp_path)
    assert (verdict.problems, verdict.wrong) == ([], 0)
    assert verdict.hits.keys() == {"exact", "semantic"}
    assert min(verdict.evicted, verdict.crowded, verdict.left, verdict.reloads) > 0
    assert verdict.sums["ledger"]["upstream"] > 100
    assert 5 < len(samples) < time.monotonic() - began_s
