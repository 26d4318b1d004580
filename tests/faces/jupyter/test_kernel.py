"""A real kernel of Jupyter, driven over its protocol: streamed Markdown, cards, top-level await, a clean end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.config import environment_for_child
from tests.servers import Served

manager_module = pytest.importorskip("jupyter_client.manager", reason="needs a kernel of Jupyter")
pytest.importorskip("ipykernel", reason="needs a kernel of Jupyter")

WAIT_S = 60

pytestmark = pytest.mark.filterwarnings("default")  # of the libraries that drive the kernel


@pytest.fixture
def kernel(provider: Served, tmp_path: Path) -> Iterator[Any]:
    """A started kernel and its client."""
    environment = environment_for_child({
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "HOME": str(tmp_path),
    })  # fmt: skip
    manager = manager_module.KernelManager(kernel_name="python3")
    manager.start_kernel(env=environment, cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=WAIT_S)
    yield manager, client
    client.stop_channels()
    if manager.is_alive():
        manager.shutdown_kernel(now=True)
    manager.cleanup_resources()


def run(client: Any, code: str) -> list[tuple[str, Any]]:
    """Run a cell; its messages as pairs of type and content, in order."""
    sent = client.execute(code)
    found = []
    while True:
        message = client.get_iopub_msg(timeout=WAIT_S)
        if message["parent_header"].get("msg_id") != sent:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "status" and content["execution_state"] == "idle":
            return found
        found.append((kind, content))


def said(messages: list[tuple[str, Any]]) -> str:
    """What a cell printed; fails where it ended with an error."""
    for kind, content in messages:
        assert kind != "error", "\n".join(content["traceback"])
    return "".join(content["text"] for kind, content in messages if kind == "stream")


def shown(messages: list[tuple[str, Any]], kind: str, form: str) -> list[str]:
    """The data of one kind of message in one form."""
    return [content["data"][form] for found, content in messages if found == kind and form in content["data"]]


def test_a_session_of_somebody(kernel: Any, provider: Served) -> None:
    """One kernel for all of it: to start one takes seconds."""
    _, client = kernel
    said(run(client, "from openai import OpenAI, AsyncOpenAI\n%load_ext llm_proxy"))

    provider.app.latency_s = 0.2
    chat = run(client, "%%chat --model m\nhello <b>you</b>")
    (begun,) = shown(chat, "display_data", "text/markdown")
    grown = shown(chat, "update_display_data", "text/markdown")
    assert begun == ""
    assert grown[-1] == "simulated: hello <\u200bb>you<\u200b/b>"
    displays = [content["transient"]["display_id"] for kind, content in chat if kind == "update_display_data"]
    assert len(set(displays)) == 1, "one display that grows"
    assert "miss, asked m, stored" in shown(chat, "display_data", "text/html")[-1]

    ask = 'messages=[{"role": "user", "content": "What is it?"}], model="m"'
    plain = f"""
for _ in range(2):
    raw = OpenAI().chat.completions.with_raw_response.create({ask})
raw.http_response.extensions["llm_proxy"]
"""
    (card,) = shown(run(client, plain), "execute_result", "text/html")
    assert "exact hit" in card
    awaited = f"r = await AsyncOpenAI().chat.completions.create({ask})\nprint(r.choices[0].message.content)"
    assert said(run(client, awaited)) == "simulated: What is it?\n"
    assert len(provider.app.requests) == 2

    status = run(client, "%llm_proxy")
    (html,) = shown(status, "execute_result", "text/html")
    (text,) = shown(status, "execute_result", "text/plain")
    assert html.count("<svg") >= 3
    assert "4 calls, 50% hits" in text
    reply = client.complete("%%chat --mo", reply=True, timeout=WAIT_S)
    assert "--model" in reply["content"]["matches"]

    threads = "import threading; print([t.name for t in threading.enumerate() if 'llm-proxy' in t.name])"
    assert "llm-proxy" in said(run(client, threads))
    said(run(client, "%unload_ext llm_proxy"))
    assert said(run(client, threads)) == "[]\n"


def test_a_stream_that_is_interrupted_keeps_what_came(kernel: Any, provider: Served) -> None:
    manager, client = kernel
    said(run(client, "%load_ext llm_proxy"))
    provider.app.latency_s = 30.0
    client.execute("%%chat --model m\nhello", stop_on_error=False)
    deadline = time.monotonic() + WAIT_S
    time.sleep(1.0)  # the call is under way; nothing tells when
    manager.interrupt_kernel()
    found = ""
    while "KeyboardInterrupt" not in found and time.monotonic() < deadline:
        message = client.get_iopub_msg(timeout=WAIT_S)
        found = message["content"].get("ename", "")
    assert found == "KeyboardInterrupt"
    provider.app.latency_s = 0.0
    assert "simulated: once more" in str(run(client, "%%chat --model m\nonce more"))


def test_it_ends_when_it_is_told_to(kernel: Any, provider: Served) -> None:
    """With the extension loaded and its threads at work; nobody kills it."""
    manager, client = kernel
    said(run(client, "%load_ext llm_proxy"))
    said(run(client, "%%chat --model m\nhello"))
    pid = int(said(run(client, "import os; print(os.getpid())")))
    client.shutdown()
    deadline = time.monotonic() + 15
    while manager.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not manager.is_alive()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)
