"""Who is next: by length, by arrival once due, among tenants; and that every slot comes back."""

from __future__ import annotations

import gc
import math
import random
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.backends.queue import PATIENCE, Place, Queue
from llm_proxy.errors import LimitReached
from llm_proxy.testing import FakeClock


class Desk:
    """A queue on a clock that is moved, and who was called in which order."""

    def __init__(self, *, slots: int = 1, bound_s: float = math.inf, length: int = 1000) -> None:
        self.clock = FakeClock(0.0)
        self.queue = Queue(slots=slots, bound_s=bound_s, length=length, monotonic=self.clock.monotonic)
        self.called: list[str] = []
        self.places: dict[str, Place] = {}

    def enter(self, name: str, tokens: float | None = 100.0, tenant: str = "a") -> Place:
        place = self.places[name] = self.queue.enter(tokens, tenant)
        self.queue.when_called(place, lambda: self.called.append(name))
        return place

    def leave(self, name: str, after_s: float = 0.0) -> None:
        self.clock.advance(after_s)
        self.queue.leave(self.places[name])

    def warm(self, count: int = 500) -> Desk:
        """Have it learn that an answer takes a second."""
        for at in range(count):
            self.enter(f"warm {at}", 60.0)
            self.leave(f"warm {at}", 1.0)
        self.called.clear()
        return self

    def serve_all(self, service_s: float = 1.0) -> list[str]:
        """Everybody is served, one after the other; who was called in which order."""
        while not self.places[self.called[-1]].is_over:
            for name in self.called:
                if not self.places[name].is_over:
                    self.leave(name, service_s)
        return self.called


def test_the_shortest_is_next() -> None:
    desk = Desk()
    for name, tokens in {"first": 500, "long": 300, "short": 10, "middle": 100, "none": None}.items():
        desk.enter(name, tokens)
    assert desk.called == ["first"]
    assert (desk.queue.waiting, desk.queue.under_way) == (4, 1)
    # Of whom nothing is known is taken for usual: the median of 500, 300, 10 and 100.
    assert desk.serve_all() == ["first", "short", "middle", "none", "long"]
    assert (desk.queue.waiting, desk.queue.under_way) == (0, 0)


def test_equals_go_by_arrival() -> None:
    desk = Desk(slots=2)
    for name in "abcdef":
        desk.enter(name, None)
    assert desk.serve_all() == list("abcdef")


def test_a_bound_of_zero_is_the_order_of_arrival() -> None:
    desk = Desk(bound_s=0.0)
    for at in range(20):
        desk.enter(str(at), tokens=20.0 - at)
    assert desk.serve_all() == [str(at) for at in range(20)]


def test_who_is_due_is_overtaken_by_nobody() -> None:
    desk = Desk(bound_s=30.0)
    desk.enter("0", 60.0)
    desk.enter("long", 400.0)
    for at in range(1, 40):  # one that is shorter comes each second, just before the one before it is over
        desk.enter(str(at), 60.0)
        desk.leave(desk.called[-1], 1.0)
    assert desk.called[:32] == [*map(str, range(30)), "long", "30"]


def test_a_jam_makes_the_bound_longer() -> None:
    """In a jam everybody waits longer than any bound: the shortest still goes first."""
    desk = Desk(bound_s=1.0)
    for at in range(100):
        desk.enter(str(at), tokens=60.0 * (1 + (at * 37) % 100))
    desk.leave("0", 10.0)
    assert desk.called[1] == min((str(at) for at in range(1, 100)), key=lambda name: desk.places[name].tokens)


def test_a_jam_is_as_long_as_many_wait_not_as_long_as_is_predicted_of_them() -> None:
    """The longest are left where the shortest go first: that is no reason to let them wait longer."""
    called_as = []
    for tokens in (61.0, 60_000.0):
        desk = Desk(bound_s=1.0).warm()
        desk.enter("first", 60.0)
        for at in range(10):
            desk.enter(str(at), tokens)
        for at in range(200):
            desk.enter(f"short {at}", 60.0)
            desk.leave(desk.called[-1], 1.0)
            if "0" in desk.called:
                break
        called_as.append(desk.called.index("0"))
    assert 11 * PATIENCE < called_as[0] == called_as[1] < 40


def overtaking(*, before: int, after: int) -> int:
    """How many short calls go before a long one that comes among so many; then one comes for each that is over."""
    desk = Desk(bound_s=1.0).warm()
    desk.enter("first", 1.0)
    for at in range(before):
        desk.enter(f"before {at}", 1.0)
    while desk.queue.waiting > 1:
        desk.leave(desk.called[-1], 1.0)
    desk.enter("long", 100.0)
    gone = len(desk.called)
    for at in range(after):
        desk.enter(f"beside {at}", 1.0)
    while desk.queue.waiting > 2:
        desk.leave(desk.called[-1], 1.0)
    while "long" not in desk.called:
        desk.enter(f"later {len(desk.called)}", 1.0)
        desk.leave(desk.called[-1], 1.0)
    return desk.called.index("long") - gone


def test_a_jam_is_remembered_for_who_was_in_it() -> None:
    """Only two wait as it ends: there is time for the long ones then, so they need not go first before."""
    assert overtaking(before=1, after=20) > 20 * PATIENCE


def test_a_jam_is_forgotten_for_who_came_later() -> None:
    assert overtaking(before=20, after=1) < 5 * PATIENCE


def test_a_full_queue_refuses_and_says_when_to_come_again() -> None:
    desk = Desk(slots=2, length=2)
    for name in "abcd":
        desk.enter(name, 60.0)
    with pytest.raises(LimitReached, match="2 calls wait already") as caught:
        desk.enter("e", 60.0)
    assert caught.value.code == "queue_full"
    assert caught.value.retry_after_s == pytest.approx(2.0), "two slots for four answers of a second"
    desk.clock.advance(0.5)
    with pytest.raises(LimitReached) as caught:
        desk.enter("e", 60.0)
    assert caught.value.retry_after_s == pytest.approx(1.5)
    desk.leave("a")
    desk.enter("e", 60.0)


def test_no_length_is_no_waiting() -> None:
    desk = Desk(length=0)
    desk.enter("a")
    with pytest.raises(LimitReached):
        desk.enter("b")


def test_the_wait_is_foretold() -> None:
    desk = Desk()
    assert desk.queue.expected_wait_s(None) == 0.0
    desk.enter("a", 120.0)
    assert desk.queue.expected_wait_s(None) == pytest.approx(2.0)
    desk.enter("b", 60.0)
    desk.enter("c", 600.0)
    assert desk.queue.expected_wait_s(300.0) == pytest.approx(3.0), "the longer one comes later"
    desk.clock.advance(100.0)
    assert desk.queue.expected_wait_s(60.0) == pytest.approx(1.0), "what takes longer than foretold may end at once"


def test_the_speed_is_learnt() -> None:
    desk = Desk()
    for at in range(200):
        desk.enter(str(at), 60.0)
        desk.leave(str(at), 3.0)
    desk.enter("a", 60.0)
    assert desk.queue.expected_wait_s(60.0) == pytest.approx(3.0, rel=0.01)


def test_leaving_twice_frees_one_slot() -> None:
    desk = Desk()
    for name in "abc":
        desk.enter(name)
    desk.leave("a")
    desk.leave("a")
    assert desk.called == ["a", "b"]
    desk.leave("c")
    desk.leave("c")
    desk.leave("b")
    assert (desk.queue.waiting, desk.queue.under_way, desk.called) == (0, 0, ["a", "b"])


def test_who_leaves_before_its_turn_is_passed_over() -> None:
    desk = Desk(bound_s=1.0)
    for name in ("first", "short", "long"):
        desk.enter(name, len(name) * 1.0)
    desk.leave("short")
    desk.leave("first", 50.0)
    assert desk.called == ["first", "long"]


def test_a_turn_that_nobody_takes_goes_to_the_next() -> None:
    desk = Desk()
    desk.enter("a")
    gone = desk.queue.enter(1.0, "a")

    def closed() -> None:
        raise RuntimeError("Event loop is closed")

    desk.queue.when_called(gone, closed)
    desk.enter("b")
    desk.leave("a")
    assert desk.called == ["a", "b"]


def test_a_turn_before_anybody_asks_is_not_lost() -> None:
    desk = Desk()
    desk.enter("a")
    place = desk.queue.enter(1.0, "a")
    desk.leave("a")
    desk.queue.when_called(place, lambda: desk.called.append("late"))
    assert desk.called == ["a", "late"]


class TestTenants:
    def test_nobody_is_kept_waiting_by_a_flood(self) -> None:
        desk = Desk()
        desk.enter("first")
        for at in range(200):
            desk.enter(f"flood{at}", 60.0, "flood")
        desk.enter("other", 600.0, "other")
        desk.serve_all()
        # Four usual answers ahead, and what is under way.
        assert desk.called.index("other") <= 7

    def test_two_floods_share(self) -> None:
        desk = Desk()
        desk.enter("first")
        for at in range(100):
            desk.enter(f"a{at}", 60.0, "a")
        for at in range(100):
            desk.enter(f"b{at}", 61.0, "b")
        desk.serve_all()
        half = desk.called[1:101]
        assert 40 <= sum(name.startswith("b") for name in half) <= 60

    def test_what_took_longer_than_foretold_counts(self) -> None:
        desk = Desk()
        desk.enter("first")
        for at in range(20):
            desk.enter(f"a{at}", 10.0, "a")  # they say 10, and take a minute each
            desk.enter(f"b{at}", 60.0, "b")
        order = []
        for _ in range(20):
            name = desk.called[-1]
            desk.leave(name, 60.0 if name.startswith("a") else 1.0)
            order.append(name[0])
        assert order.count("b") > order.count("a")

    def test_nobody_saves_up(self) -> None:
        desk = Desk()
        desk.enter("first")
        for at in range(50):
            desk.enter(f"a{at}", 60.0, "a")
        for _ in range(20):
            desk.leave(desk.called[-1], 1.0)
        for at in range(50):
            desk.enter(f"b{at}", 60.0, "b")
        before = len(desk.called)
        desk.serve_all()
        assert 8 <= sum(name.startswith("b") for name in desk.called[before : before + 20]) <= 13

    def test_the_table_of_tenants_stays_small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("llm_proxy.backends.queue._MOST_TENANTS", 10)
        desk = Desk()
        desk.enter("first")
        desk.enter("stays", 1e9, "stays")
        for at in range(100):
            desk.enter(str(at), 1.0, str(at))
            desk.leave(desk.called[-1], 0.01)
        assert len(desk.queue._tenants) <= 12
        assert "stays" in desk.queue._tenants


@settings(max_examples=60, deadline=None)
@given(
    slots=st.integers(1, 3),
    bound_s=st.sampled_from([0.0, 5.0, math.inf]),
    steps=st.lists(
        st.tuples(st.sampled_from(["enter", "leave", "wait"]), st.integers(0, 50), st.sampled_from("xyz")), max_size=120
    ),
)
def test_slots_are_neither_lost_nor_doubled(slots: int, bound_s: float, steps: list[tuple[str, int, str]]) -> None:
    desk = Desk(slots=slots, bound_s=bound_s, length=20)
    inside: list[str] = []
    for number, (what, value, tenant) in enumerate(steps):
        if what == "wait":
            desk.clock.advance(value)
        elif what == "leave" and inside:
            desk.leave(inside.pop(value % len(inside)))
        elif what == "enter":
            try:
                desk.enter(str(number), value + 1.0, tenant)
                inside.append(str(number))
            except LimitReached:
                assert desk.queue.waiting == 20
        begun = [name for name in inside if desk.places[name].begun_s is not None]
        assert desk.queue.under_way == len(begun) == min(slots, len(inside))
        assert desk.queue.waiting == len(inside) - len(begun)
        assert set(begun) <= set(desk.called)
    while inside:
        desk.leave(inside.pop())
    assert (desk.queue.waiting, desk.queue.under_way) == (0, 0)
    assert len(desk.called) == len(set(desk.called)), "nobody is called twice"


def test_many_threads() -> None:
    queue = Queue(slots=3, bound_s=0.01, length=1000, monotonic=FakeClock(0.0).monotonic)
    lock, inside, most, done = threading.Lock(), 0, 0, 0

    def work(seed: int) -> None:
        nonlocal inside, most, done
        rng = random.Random(seed)
        for _ in range(100):
            place = queue.enter(rng.random() + 0.1, str(seed % 3))
            called = threading.Event()
            queue.when_called(place, called.set)
            if not called.is_set() and rng.random() < 0.2:
                queue.leave(place)
                continue
            assert called.wait(20)
            with lock:
                inside, done = inside + 1, done + 1
                most = max(most, inside)
            with lock:
                inside -= 1
            queue.leave(place)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert most <= 3
    assert done > 500
    assert (queue.waiting, queue.under_way) == (0, 0)


def test_a_place_may_be_given_up_by_the_collector_inside_the_queue() -> None:
    """Whoever is inside sees to it on the way out: no lock is waited for, and nothing is lost."""
    queue: Any = None
    held: list[Place] = []

    class Clock:
        def monotonic(self) -> float:
            while held:
                queue.leave(held.pop())  # as a finalizer may, at any allocation
            return 0.0

    queue = Queue(slots=1, bound_s=1.0, length=10, monotonic=Clock().monotonic)
    held.append(queue.enter(1.0, "a"))
    waiting = queue.enter(1.0, "a")
    assert waiting.begun_s is not None or queue.under_way == 1
    queue.leave(waiting)
    gc.collect()
    assert (queue.waiting, queue.under_way) == (0, 0)


class TestLeavingMeanwhile:
    """Who leaves on another thread while the lock is held is seen off by whoever holds it."""

    @pytest.mark.parametrize("verb", ["when_called", "expected_wait_s", "enter"])
    def test_the_slot_is_not_lost(self, verb: str) -> None:
        queue = Queue(slots=1, bound_s=60.0, length=1, monotonic=lambda: 0.0)
        first, second = queue.enter(10, "x"), queue.enter(10, "x")
        called = threading.Event()
        if verb != "when_called":
            queue.when_called(second, called.set)
        queue._lock = Held(queue._lock, lambda: queue.leave(first))
        if verb == "when_called":
            queue.when_called(second, called.set)
        elif verb == "enter":
            with pytest.raises(LimitReached):
                queue.enter(5, "x")
        else:
            queue.expected_wait_s(5)
        assert called.is_set()
        assert (queue.waiting, queue.under_way) == (0, 1)


class Held:
    """A lock during whose first holding somebody else does something, on a thread of its own."""

    def __init__(self, lock: Any, meanwhile: Any) -> None:
        self._lock, self._meanwhile = lock, [meanwhile]

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._meanwhile:
            thread = threading.Thread(target=self._meanwhile.pop())
            thread.start()
            thread.join()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()

    def acquire(self, blocking: bool = True) -> bool:
        return bool(self._lock.acquire(blocking))

    def release(self) -> None:
        self._lock.release()
