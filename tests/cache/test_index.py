"""The vector index: one contract, and what FAISS behind it must not show."""

from __future__ import annotations

import builtins
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.cache.index.base import Block, VectorIndex
from llm_proxy.cache.index.faiss import FaissIndex
from llm_proxy.errors import CacheError, MissingDependencyError

from .helpers import DIM, unit, vector_of


@pytest.fixture
def index() -> VectorIndex:
    return FaissIndex(DIM)


def keys(index: VectorIndex, scope: str, vector: Any, k: int = 8) -> list[str]:
    return [neighbour.key for neighbour in index.search(scope, vector, k)]


def test_an_empty_index(index: VectorIndex) -> None:
    assert (len(index), index.scopes, index.dim) == (0, 0, DIM)
    assert index.search("s", unit(1), 8) == []
    assert list(index.blocks()) == []
    index.remove("a")


def test_best_first_with_their_cosines(index: VectorIndex) -> None:
    index.add("far", "s", unit(0, 1))
    index.add("near", "s", unit(1, 0.1))
    index.add("opposite", "s", unit(-1))
    found = index.search("s", unit(1), 8)
    assert [neighbour.key for neighbour in found] == ["near", "far", "opposite"]
    assert [neighbour.similarity for neighbour in found] == pytest.approx([1 / 1.01**0.5, 0.0, -1.0], abs=1e-3)
    assert keys(index, "s", unit(1), 1) == ["near"]


def test_scopes_do_not_see_each_other(index: VectorIndex) -> None:
    index.add("a", "s", unit(1))
    index.add("b", "t", unit(1))
    assert keys(index, "s", unit(1)) == ["a"]
    assert keys(index, "t", unit(1)) == ["b"]
    assert keys(index, "u", unit(1)) == []
    assert index.scopes == 2


def test_adding_again_replaces_and_may_move(index: VectorIndex) -> None:
    index.add("a", "s", unit(1))
    index.add("a", "s", unit(0, 1))
    assert index.search("s", unit(1), 8)[0].similarity == pytest.approx(0.0, abs=1e-3)
    index.add("a", "t", unit(1))
    assert keys(index, "s", unit(1)) == []
    assert (len(index), index.scopes, "a" in index) == (1, 1, True)


def test_a_flat_scope_that_outgrows_a_shared_shelf(index: VectorIndex) -> None:
    for number in range(300):
        index.add(str(number), "s", vector_of(number))
        index.add(f"other {number}", f"t{number}", vector_of(number))
    assert all(keys(index, "s", vector_of(number), 1) == [str(number)] for number in range(0, 300, 7))
    for number in range(299):
        index.remove(str(number))
        index.remove(f"other {number}")
    assert keys(index, "s", vector_of(5)) == ["299"]
    assert keys(index, "t299", vector_of(5)) == ["other 299"]
    assert (len(index), index.scopes) == (2, 2)
    index.remove("299")
    index.add("5", "t5", vector_of(5))
    assert keys(index, "t5", vector_of(1)) == ["5"]


@pytest.mark.parametrize("gone", range(5))
def test_removal_is_effective_at_once(index: VectorIndex, gone: int) -> None:
    for number in range(5):
        index.add(str(number), "s", vector_of(number))
    index.remove(str(gone))
    rest = {str(number) for number in range(5)} - {str(gone)}
    assert set(keys(index, "s", vector_of(gone))) == rest
    for key in rest:
        assert keys(index, "s", vector_of(int(key)), 1) == [key]
    assert str(gone) not in index


@pytest.mark.parametrize(
    "vector",
    [np.ones(DIM, np.float32), np.zeros(DIM, np.float32), np.full(DIM, np.nan, np.float32), unit(1, dim=DIM + 1)],
)
def test_other_than_unit_vectors_are_refused(index: VectorIndex, vector: Any) -> None:
    with pytest.raises(CacheError, match="vector of"):
        index.add("a", "s", vector)
    with pytest.raises(CacheError, match="vector of"):
        index.search("s", vector, 1)
    assert len(index) == 0


def test_blocks_carry_everything(index: VectorIndex) -> None:
    for number in range(7):
        index.add(str(number), f"s{number % 3}", vector_of(number))
    other = FaissIndex(DIM)
    other.add("5", "s2", vector_of("newer"))
    for block in index.blocks():
        assert [rows.dtype for rows in block.rows] == [np.float16]
        other.add_block(block)
    assert len(other) == 7
    for number in range(7):
        if number != 5:  # known already, and newer
            assert keys(other, f"s{number % 3}", vector_of(number), 1) == [str(number)]
    assert other.search("s2", vector_of("newer"), 1)[0].similarity > 0.99
    other.add_block(Block("s2", ["5"], [np.zeros((1, DIM), np.float16)]))
    assert len(other) == 7


def test_a_block_that_is_more_than_a_shared_shelf_takes(index: VectorIndex) -> None:
    rows = np.stack([vector_of(number) for number in range(200)]).astype(np.float16)
    index.add_block(Block("s", [*map(str, range(200))], [rows]))
    assert all(keys(index, "s", vector_of(number), 1) == [str(number)] for number in range(200))


def test_a_block_of_another_shape(index: VectorIndex) -> None:
    with pytest.raises(CacheError, match="shape"):
        index.add_block(Block("s", ["a"], [np.zeros((1, DIM + 1), np.float16)]))
    with pytest.raises(CacheError, match="shape"):
        index.add_block(Block("s", ["a", "b"], [np.zeros((1, DIM), np.float16)]))


def test_faiss_keeps_its_threads(index: VectorIndex) -> None:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(before + 1)
    index.add("a", "s", unit(1))
    index.search("s", unit(1), 1)
    assert faiss.omp_get_max_threads() == before + 1
    faiss.omp_set_num_threads(before)


def test_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "faiss":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pip install .llm-proxy\[cpu\]."):
        FaissIndex(DIM)


def test_threads_search_add_and_remove_together(index: VectorIndex) -> None:
    for number in range(100):
        index.add(f"stays {number}", "s", vector_of(number))
    stop = threading.Event()
    wrong: list[object] = []

    def change(name: str) -> None:
        for count in range(300):
            index.add(f"{name} {count % 10}", "s", vector_of((name, count)))
            index.remove(f"{name} {(count + 5) % 10}")

    def search() -> None:
        for number in itertools.cycle(range(0, 100, 7)):
            found = index.search("s", vector_of(number), 3)
            if found[0].key != f"stays {number}" or found[0].similarity < 0.99:
                wrong.append(found)
            if stop.is_set():
                return

    changing = [threading.Thread(target=change, args=(name,)) for name in "abc"]
    searching = [threading.Thread(target=search) for _ in range(2)]
    run_all(changing, beside=searching, then=stop.set)
    assert wrong == []


def run_all(threads: list[threading.Thread], *, beside: list[threading.Thread], then: Callable[[], None]) -> None:
    for thread in (*beside, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    then()
    for thread in beside:
        thread.join()


class Exhaustive:
    """The contract, by looking at every vector."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[str, Any]] = {}

    def search(self, scope: str, vector: Any, k: int) -> Sequence[float]:
        found = [float(row.astype(np.float16) @ vector) for name, row in self.rows.values() if name == scope]
        return sorted(found, reverse=True)[:k]


@settings(deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.sampled_from("abcdefgh"), st.sampled_from("st"), st.integers(0, 20)), max_size=60
    )
)
def test_like_looking_at_every_vector(steps: list[tuple[bool, str, str, int]]) -> None:
    index, model = FaissIndex(DIM), Exhaustive()
    for is_added, key, scope, number in steps:
        if is_added:
            index.add(key, scope, vector_of(number))
            model.rows[key] = (scope, vector_of(number))
        else:
            index.remove(key)
            model.rows.pop(key, None)
        assert len(index) == len(model.rows)
        assert index.scopes == len({name for name, _ in model.rows.values()})
    for scope in "st":
        for number in (0, 7):
            found = index.search(scope, vector_of(number), 4)
            assert [one.similarity for one in found] == pytest.approx(
                model.search(scope, vector_of(number), 4), abs=2e-3
            )
            for one in found:
                assert model.rows[one.key][0] == scope
                assert float(model.rows[one.key][1] @ vector_of(number)) == pytest.approx(one.similarity, abs=2e-3)
