"""Troubles are counted each and logged once a kind."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from llm_proxy.observe.events import Troubles


def test_the_first_of_a_kind_is_logged(caplog):
    troubles = Troubles()
    with caplog.at_level(logging.WARNING, "llm_proxy"):
        for _ in range(3):
            troubles.note("cache", OSError("disk full"))
        troubles.note("encoder", ValueError("no"))
    assert troubles.counts == {"cache": 3, "encoder": 1}
    assert [record.getMessage() for record in caplog.records] == [
        "llm-proxy: cache is in trouble, calls go on without it (OSError: disk full)",
        "llm-proxy: encoder is in trouble, calls go on without it (ValueError: no)",
    ]


def test_threads_lose_no_count(caplog):
    troubles = Troubles()
    error = OSError("x")

    def work() -> None:
        for _ in range(2000):
            troubles.note("cache", error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles.counts["cache"] == 16_000
    assert len(caplog.records) == 1


def test_many_things_lost_by_one_trouble():
    troubles = Troubles()
    troubles.note("ledger", OSError("disk full"), count=7)
    troubles.note("ledger", OSError("disk full"))
    assert troubles.counts == {"ledger": 8}


def test_a_trouble_while_one_is_noted():
    """A dropped call that the garbage collector ends in there has troubles, too."""
    troubles = Troubles()

    class Nesting(Counter):  # type: ignore[type-arg]
        def __contains__(self, kind: object) -> bool:
            if kind == "cache":
                troubles.note("sink", ValueError("no"))
            return super().__contains__(kind)

    troubles.counts = Nesting()
    noting = threading.Thread(target=troubles.note, args=("cache", OSError("x")), daemon=True)
    noting.start()
    noting.join(10)
    assert not noting.is_alive(), "it waits for itself"
    assert troubles.counts == {"cache": 1, "sink": 1}
