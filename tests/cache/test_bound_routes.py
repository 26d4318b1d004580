"""One bound for each route: shared by threads, and through the store by processes."""

from __future__ import annotations

import json
import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.cache.bound import ErrorLimits, RouteBounds, routes
from llm_proxy.cache.cache import Cache
from llm_proxy.cache.evidence import Observation
from llm_proxy.cache.stores.base import Store
from llm_proxy.cache.stores.disk import DiskStore
from llm_proxy.cache.stores.memory import MemoryStore
from llm_proxy.cache.weighed import Decision, Weighed
from llm_proxy.errors import CacheError

from .helpers import entry_of, find, key_of, new_cache, unit

CHECKED = ErrorLimits(0.05, {"auto": 0.05, "sure": 0.001}, check_share=0.5)


def bounds_of(store: Store | None = None, limits: ErrorLimits = CHECKED, chance: float = 0.5) -> RouteBounds:
    return RouteBounds(store or MemoryStore(), limits, chance=lambda: chance)


def decide(bounds: RouteBounds, p_same: float = 0.999, *, route: str = "", **more: Any) -> Weighed:
    return bounds.decide("k", "why?", 0.9, p_same, route=route, **more)


def be_right(bounds: RouteBounds, times: int = 60, *, route: str = "") -> None:
    for _ in range(times):
        weighed = decide(bounds, route=route)
        bounds.note_hit(weighed)
        bounds.learn(weighed, "shadow", is_same=True)


class TestRoutes:
    def test_each_has_its_rate_and_others_that_of_no_route(self) -> None:
        bounds = bounds_of()
        assert [bounds.limit(route) for route in ("", "auto", "sure", "unknown")] == pytest.approx(
            [0.02, 0.02, 0.0004, 0.02]
        )
        assert decide(bounds, 0.999, route="auto").decision.is_served
        assert decide(bounds, 0.999, route="sure").decision.reason == "unsure"

    def test_each_learns_for_itself(self) -> None:
        bounds = bounds_of()
        be_right(bounds, route="auto")
        assert bounds.limit("auto") > 0.04
        assert bounds.limit("") == pytest.approx(0.02)

    @pytest.mark.parametrize("limits", [ErrorLimits(0.0), ErrorLimits(0.1, {"a": 1.0}), ErrorLimits(explore_share=2)])
    def test_numbers_out_of_range(self, limits: ErrorLimits) -> None:
        with pytest.raises(ValueError, match="it must be"):
            bounds_of(limits=limits)


class TestLearning:
    @pytest.mark.parametrize("source", ["shadow", "undo", "explore"])
    def test_what_was_wrong_narrows_the_limit(self, source: Any) -> None:
        bounds = bounds_of(limits=ErrorLimits(0.05))
        weighed = decide(bounds, 0.999)
        before = bounds.limit("")
        if source == "explore":
            weighed = replace(weighed, decision=Decision(False, 0.001, 0.2, "explored"))
        else:
            bounds.note_hit(weighed)
        bounds.learn(weighed, source, is_same=False)
        assert bounds.limit("") < before

    def test_one_question_is_asked_upstream_now_and_then(self) -> None:
        bounds = bounds_of(limits=ErrorLimits(0.01))
        reasons = []
        for _ in range(20):
            weighed = decide(bounds, 0.9965)
            reasons.append(weighed.decision.reason)
            if weighed.decision.is_served:
                bounds.note_hit(weighed)
        assert reasons == (["", "", "", "repeated"] * 5)
        assert bounds.decide("k", "how?", 0.9, 0.9965, route="").decision.is_served, "another question is not"

    def test_not_where_that_may_not_be(self) -> None:
        bounds = bounds_of(limits=ErrorLimits(0.01, explore_share=1.0), chance=0.0)
        for _ in range(13):
            weighed = decide(bounds, 0.9992, may_explore=False)
            assert weighed.decision.is_served
            bounds.note_hit(weighed)
        assert decide(bounds, 0.9992).decision.reason == "repeated"
        assert decide(bounds, 0.9992).decision.reason == "explored"

    def test_a_question_that_was_compared_counts_anew(self) -> None:
        bounds = bounds_of(limits=ErrorLimits(0.01))
        for _ in range(9):
            weighed = decide(bounds, 0.9965)
            assert weighed.decision.is_served
            bounds.note_hit(weighed)
            bounds.learn(weighed, "shadow", is_same=True)

    def test_so_many_questions_are_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(routes, "_MOST_UNCHECKED", 2)
        bounds = bounds_of(limits=ErrorLimits(0.01))
        for question in ("a", "b", "a", "c", "a"):
            bounds.note_hit(bounds.decide("k", question, 0.9, 0.9965, route=""))
        assert bounds.decide("k", "a", 0.9, 0.9965, route="").decision.reason == "repeated"
        assert len(bounds._unchecked) <= 2

    @pytest.mark.parametrize(
        ("limits", "is_comparing"),
        [(ErrorLimits(), False), (ErrorLimits(check_share=0.1), True), (ErrorLimits(explore_share=0.1), True)],
    )
    def test_whether_anything_is_compared(self, limits: ErrorLimits, is_comparing: bool) -> None:
        assert bounds_of(limits=limits).is_comparing is is_comparing


class TestKeeping:
    def test_another_process_goes_on_from_there(self, tmp_path: Path) -> None:
        store = DiskStore(tmp_path)
        one = bounds_of(store)
        be_right(one)
        one.keep()
        store.close()
        again = DiskStore(tmp_path)
        assert bounds_of(again).limit("") == one.limit("") > 0.04
        again.close()

    def test_what_several_learn_adds_up(self) -> None:
        store = MemoryStore()
        one, other = bounds_of(store), bounds_of(store)
        for bounds in (one, other):
            be_right(bounds, 30)
        one.keep()
        other.keep()
        one.keep()
        assert one.limit("") == other.limit("")
        hits = json.loads(store.note("bounds"))[":0.05"]["hits"]
        assert hits == pytest.approx(60, rel=0.05)

    def test_what_was_learnt_before_the_store_was_read_counts(self) -> None:
        store = MemoryStore()
        one, late = bounds_of(store), bounds_of(store)
        be_right(one)
        one.keep()
        late.learn(Weighed("k", 0, 0.9, 0.999, "", decide(one).decision), "undo", is_same=False)
        assert late.limit("") < one.limit("")
        late.keep()
        one.keep()
        assert one.limit("") == late.limit("")

    def test_nothing_is_written_where_nothing_was_learnt(self) -> None:
        store = MemoryStore()
        bounds = bounds_of(store)
        bounds.limit("")
        bounds.keep()
        assert store.note("bounds") == b""

    def test_another_rate_begins_anew_and_the_old_one_is_kept(self) -> None:
        store = MemoryStore()
        be_right(one := bounds_of(store))
        one.keep()
        other = bounds_of(store, ErrorLimits(0.02))
        assert other.limit("") == pytest.approx(0.008)
        be_right(other, 3)
        other.keep()
        assert set(json.loads(store.note("bounds"))) >= {":0.05", ":0.02"}

    @pytest.mark.parametrize(
        "note", [b"{", b"[]", b"[" * 100_000, b'{":0.05": 1}', b'{":0.05": {"hits": -1}}', b'{":0.05": {}}', b"\xff"]
    )
    def test_what_no_bound_wrote_is_nothing(self, note: bytes) -> None:
        store = MemoryStore()
        store.put_note("bounds", note)
        bounds = bounds_of(store)
        assert bounds.limit("") == pytest.approx(0.02)
        be_right(bounds, 3)
        bounds.keep()
        assert bounds_of(store).limit("") == bounds.limit("")

    def test_an_emptied_store_leaves_nothing_below_zero(self) -> None:
        store = MemoryStore()
        bounds = bounds_of(store)
        be_right(bounds, 3_000)
        bounds.keep()
        store.put_note("bounds", b"")
        be_right(bounds, 1)
        bounds.keep()
        assert json.loads(store.note("bounds"))[":0.05"]["hits"] >= 0.0

    def test_a_store_that_fails_loses_nothing(self) -> None:
        class Failing(MemoryStore):
            fails = True

            def put_note(self, name: str, note: bytes) -> None:
                if self.fails:
                    raise CacheError("full")
                super().put_note(name, note)

        store = Failing()
        bounds = bounds_of(store)
        be_right(bounds)
        with pytest.raises(CacheError, match="full"):
            bounds.keep()
        store.fails = False
        bounds.keep()
        assert bounds_of(store).limit("") == bounds.limit("") > 0.04

    def test_who_reads_it_second_changes_nothing(self) -> None:
        store = MemoryStore()
        be_right(one := bounds_of(store))
        one.keep()
        late = bounds_of(store)
        stored = json.loads(store.note("bounds"))
        late._take_up(stored)
        late._take_up(stored)
        assert late.limit("") == one.limit("")

    def test_threads(self) -> None:
        store = MemoryStore()
        bounds = bounds_of(store)

        def work() -> None:
            for _ in range(50):
                be_right(bounds, 2)
                bounds.keep()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        hits = json.loads(store.note("bounds"))[":0.05"]["hits"]
        assert hits == pytest.approx(400 * (1 - 400 / 2_000 / 2), rel=0.05), "each once, and the old ones faded"


class TestInTheCache:
    QUESTION = entry_of("q", vector=unit(1.0, 0.2), text="what is it")

    @pytest.fixture
    def cache(self) -> Cache:
        cache = new_cache(limits=ErrorLimits(0.01, check_share=0.5))
        cache.admit(entry_of("a", vector=unit(1.0), text="what is it"))
        return cache

    def test_a_popular_question_is_asked_for_once(self, cache: Cache) -> None:
        found = []
        for _ in range(40):
            looked = find(cache, self.QUESTION)
            found.append(looked.refusal)
            if looked.entry is not None:
                cache.note_served(looked.weighed)
            else:
                assert looked.doubted.key == key_of("a"), "it is compared"
        assert found.count("repeated") in range(1, 14)
        assert find(cache, self.QUESTION, may_explore=False).entry is not None

    def test_what_is_learnt_is_evidence_and_the_route_s(self, cache: Cache) -> None:
        weighed = find(cache, self.QUESTION, route="auto").weighed
        assert cache.learn(weighed, "shadow", is_same=False)
        (seen,) = cache.evidence(key_of("a"))
        assert (seen.similarity, seen.p_same) == pytest.approx((weighed.similarity, weighed.p_same), abs=1e-6)
        assert (seen.is_same, seen.source) == (False, "shadow")
        assert find(cache, self.QUESTION).refusal == "evidence"
        assert cache._route_bounds.limit("") < 0.004

    def test_a_hit_is_taken_back_once(self, cache: Cache) -> None:
        weighed = find(cache, self.QUESTION).weighed
        assert cache.learn(weighed, "undo", is_same=False)
        limit = cache._route_bounds.limit("")
        assert limit < 0.004
        assert all(cache.learn(weighed, "undo", is_same=False) for _ in range(10))
        assert cache._route_bounds.limit("") == limit, "it would shut the route for all callers"
        assert len(cache.evidence(weighed.key)) == 1

    def test_hits_taken_back_at_first_do_not_end_them_for_good(self) -> None:
        bounds = bounds_of(limits=ErrorLimits(0.01))
        for _ in range(4):
            bounds.learn(decide(bounds), "undo", is_same=False)
        asked = [decide(bounds, 0.9997).decision.is_served for _ in range(3_000)]
        assert not any(asked[:100])
        assert all(asked[-100:])

    def test_one_that_is_served_again_is_taken_back_again(self, cache: Cache) -> None:
        weighed = find(cache, self.QUESTION).weighed
        for _ in range(2):
            limit = cache._route_bounds.limit("")
            assert cache.learn(weighed, "undo", is_same=False)
            assert cache._route_bounds.limit("") < limit
            for _ in range(16 * 2):
                cache.observe(weighed.key, Observation(1.0, weighed.similarity, 0.999, True, "shadow"))

    def test_one_whose_evidence_cannot_be_read(self, cache: Cache) -> None:
        weighed = find(cache, self.QUESTION).weighed
        limit = cache._route_bounds.limit("")
        cache._store.put_evidence(weighed.key, b"[")
        assert cache.learn(weighed, "undo", is_same=False)
        assert cache._route_bounds.limit("") < limit
        assert [seen.source for seen in cache.evidence(weighed.key)] == ["undo"]

    def test_one_whose_entry_is_gone_tells_nothing(self, cache: Cache) -> None:
        weighed = find(cache, self.QUESTION).weighed
        limit = cache._route_bounds.limit("")
        assert not cache.learn(replace(weighed, key=key_of("gone")), "undo", is_same=False)
        assert cache._route_bounds.limit("") == limit

    def test_it_outlives_the_process(self, tmp_path: Path) -> None:
        cache = new_cache(DiskStore(tmp_path))
        cache.admit(entry_of("a", vector=unit(1.0), text="what is it"))
        looked = find(cache, self.QUESTION)
        cache.note_served(looked.weighed)
        cache.close()
        store = DiskStore(tmp_path)
        assert json.loads(store.note("bounds"))[":0.01"]["hits"] == 1.0
        store.close()

    def test_tend_keeps_it(self) -> None:
        store = MemoryStore()
        cache = new_cache(store)
        cache.admit(entry_of("a", vector=unit(1.0), text="what is it"))
        cache.note_served(find(cache, self.QUESTION).weighed)
        cache.tend()
        assert b"hits" in store.note("bounds")

    def test_by_chance(self) -> None:
        cache = new_cache(limits=ErrorLimits(explore_share=0.1))
        cache._route_bounds._chance = lambda: 0.0
        cache.admit(entry_of("a", vector=unit(1.0), text="what is it"))
        cache.admit(entry_of("b", vector=unit(1.0, 0.5), text="what is it"))
        found = find(cache, entry_of("q", vector=unit(1.0, 0.05), text="what is it"))
        assert (found.entry, found.refusal, found.doubted.key) == (None, "explored", key_of("a"))
        assert len(found.refused) == 1, "nor is another one served"

    def test_a_program_s_own_random_numbers_stay_as_they_are(self, cache: Cache) -> None:
        random.seed(0)
        before = random.getstate()
        assert find(cache, self.QUESTION).entry is not None
        assert random.getstate() == before
