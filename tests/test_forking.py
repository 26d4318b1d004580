"""A process may fork at any moment: its children answer calls and end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import Config
from llm_proxy.encode.lazy import LazyEncoder
from llm_proxy.forking import Gate, Process, process, working
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeClock, FakeEncoder

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

CHILDREN = """
import logging, multiprocessing, sys, time, warnings
warnings.simplefilter("ignore")  # of a fork among threads: that is what is tested
logging.disable(logging.CRITICAL)
from llm_proxy import OpenAI
from llm_proxy.testing import FakeBackend

def ask(text):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.with_raw_response.create(model="m", messages=messages).headers["cache-status"]

def work(number):
    assert "stored" in ask(f"question {number}")
    assert "hit" in ask(f"question {number}")

client = OpenAI(
    api_key="k", base_url="http://127.0.0.1/v1", http_client=FakeBackend().client(),
    llm_proxy={"cache": {"directory": sys.argv[1], "semantic": sys.argv[2] == "semantic"}},
)
context = multiprocessing.get_context("fork")
children = [context.Process(target=work, args=(number,)) for number in range(4)]
for child in children:
    time.sleep(float(sys.argv[3]))
    child.start()
for child in children:
    child.join(20)
print([child.exitcode for child in children], flush=True)
for child in children:
    child.kill()
assert "hit" in ask("question 3")
"""

EXIT = """
import os, sys, time, warnings
warnings.simplefilter("ignore")
from llm_proxy.config import EncoderConfig
from llm_proxy.encode.lazy import build
encoder = build(EncoderConfig())
encoder.encode("before")
child = os.fork()
if child == 0:
    encoder.encode("after")
    sys.exit(7)
for _ in range(200):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        print(os.waitstatus_to_exitcode(status))
        break
    time.sleep(0.05)
else:
    os.kill(child, 9)
    print("hung")
"""

END = """
import atexit, sys, threading, time
from llm_proxy import runtime
from llm_proxy.forking import working

runtime.runtime_for({"cache": {"store": "memory", "semantic": False}, "observe": {"ledger": False}})
is_inside = threading.Event()

def work():
    with working:
        is_inside.set()
        time.sleep(float(sys.argv[1]))
        print("done", flush=True)
    with working:
        print("in again", flush=True)

threading.Thread(target=work, daemon=True).start()
is_inside.wait(10)
"""

LATE = """
import atexit, threading
from llm_proxy.forking import working

def late():
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()

def work():
    for _ in range(3):
        with working:
            print("in", flush=True)

atexit.register(late)  # what came first is called last
from llm_proxy import runtime
runtime.runtime_for({"cache": {"store": "memory", "semantic": False}, "observe": {"ledger": False}})
"""


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("pause_s", ["0", "0.05"])
@pytest.mark.parametrize("kind", ["exact", "semantic"])
def test_children_forked_while_all_is_loading(tmp_path: Path, kind: str, pause_s: str) -> None:
    assert run(CHILDREN, str(tmp_path), kind, pause_s) == "[0, 0, 0, 0]"


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs onnxruntime")
def test_a_child_ends_although_the_parent_has_loaded_a_model() -> None:
    """ONNX Runtime's thread for usage data, were it there, would be waited for in vain."""
    assert run(EXIT) == "7"


def test_the_end_of_a_process_waits_for_who_is_inside() -> None:
    """A thread that is in a compiled library when Python ends it takes the process with it: ``abort``."""
    assert run(END, "0.5") == "done"


def test_the_end_of_a_process_is_not_held_up_for_ever() -> None:
    began_s = time.monotonic()
    assert run(END, "60") == ""
    assert time.monotonic() - began_s < 30


def test_a_thread_that_is_waited_for_at_the_end_is_let_in() -> None:
    """By what was registered with `atexit` before llm-proxy: it would wait half a minute for each step."""
    began_s = time.monotonic()
    assert run(LATE) == "in\nin\nin"
    assert time.monotonic() - began_s < 20


class TestGate:
    def test_a_fork_waits_for_who_is_inside(self) -> None:
        gate, is_inside, may_leave = Gate(), threading.Event(), threading.Event()
        quiet: list[bool] = []

        def work() -> None:
            with gate, gate:
                is_inside.set()
                assert may_leave.wait(10)

        worker = threading.Thread(target=work)
        worker.start()
        assert is_inside.wait(10)
        forking = threading.Thread(target=lambda: (gate.shut(10), quiet.append(not gate._inside)))
        forking.start()
        assert forking.is_alive()
        may_leave.set()
        forking.join(10)
        worker.join(10)
        assert quiet == [True]

    def test_nobody_enters_before_the_fork_is_done(self) -> None:
        gate, entered = Gate(), threading.Event()
        gate.shut(0)

        def work() -> None:
            with gate:
                entered.set()

        worker = threading.Thread(target=work)
        worker.start()
        assert not entered.wait(0.05)
        gate.open()
        assert entered.wait(10)
        worker.join(10)

    def test_who_is_inside_may_enter_again_and_may_fork(self) -> None:
        gate = Gate()
        with gate:
            gate.shut(0.01)
            with gate:
                pass
            assert gate.forget()
        assert not gate._inside

    def test_a_fork_is_not_held_up_for_ever(self) -> None:
        gate, is_inside, may_leave = Gate(), threading.Event(), threading.Event()

        def work() -> None:
            with gate:
                is_inside.set()
                assert may_leave.wait(10)

        worker = threading.Thread(target=work)
        worker.start()
        assert is_inside.wait(10)
        gate.shut(0.01)
        assert list(gate._inside) == [worker.ident]
        gate.open()
        may_leave.set()
        worker.join(10)
        assert not gate._inside

    def test_calls_are_inside_while_they_compute_only(self) -> None:
        runtime = Runtime(Config(cache={"store": "memory", "semantic": False}))
        me = threading.get_ident()

        def flow() -> Any:
            assert me in working._inside
            return "done"
            yield

        assert runtime.driver.run(flow()) == "done"
        assert me not in working._inside
        assert runtime.pool().submit(lambda: threading.get_ident() in working._inside).result(10)
        runtime.close()


class TestChild:
    """What `Runtime.after_fork` leaves; called here without a fork."""

    def test_parts_are_new_and_a_loaded_encoder_stays(self, tmp_path: Path) -> None:
        runtime = Runtime(Config(cache={"directory": tmp_path}), encoder=LazyEncoder(lambda: FakeEncoder()))
        assert runtime.encoder is not None
        runtime.encoder.encode("text")
        had = (runtime.cache, runtime.engine, runtime.driver, runtime.ledger, runtime.troubles)
        runtime._lock.acquire()
        runtime.after_fork(is_quiet=True)
        now = (runtime.cache, runtime.engine, runtime.driver, runtime.ledger, runtime.troubles)
        assert not any(one is other for one, other in zip(had, now, strict=True))
        assert runtime.encoder.is_ready
        assert runtime.pool() is runtime.pool()
        runtime.close()

    def test_a_given_cache_stays(self) -> None:
        clock = FakeClock()
        first = Runtime(Config(cache={"store": "memory", "semantic": False}), clock=clock)
        runtime = Runtime(first.config, clock=clock, cache=first.cache)
        runtime.after_fork(is_quiet=True)
        assert runtime.cache is first.cache
        runtime.close()

    def test_after_a_fork_in_the_midst_of_it_calls_pass(self, caplog: pytest.LogCaptureFixture) -> None:
        runtime = Runtime(Config(cache={"store": "memory"}))
        runtime.after_fork(is_quiet=False)
        assert (runtime.cache, runtime.encoder) == (None, None)
        assert "make the client in the child" in caplog.text
        runtime.close()

    def test_a_closed_runtime_stays_closed(self) -> None:
        runtime = Runtime(Config(cache={"store": "memory", "semantic": False}))
        runtime.close()
        runtime.after_fork(is_quiet=True)
        with pytest.raises(RuntimeError, match="closed"):
            runtime.pool()


def test_a_child_knows_its_own_number():
    assert process.id == os.getpid()
    reading, writing = os.pipe()
    with working:  # as the gate has it, no other thread is inside
        child = os.fork()
        if child == 0:
            os.write(writing, b"same" if process.id == os.getpid() else b"another")
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"same"
    assert process.id == os.getpid()
    for end in (reading, writing):
        os.close(end)


def test_a_system_without_forks_is_asked_each_time(monkeypatch):
    monkeypatch.delattr(os, "register_at_fork")
    monkeypatch.setattr(os, "getpid", lambda: 7)
    assert Process().id == 7
    monkeypatch.setattr(os, "getpid", lambda: 8)
    assert Process().id == 8
