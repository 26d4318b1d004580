"""Large scopes: lists that are cut, tidied, dissolved and made flat again show nothing but the contract."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_proxy.cache.index import faiss as index_module
from llm_proxy.cache.index import lists as index_lists
from llm_proxy.cache.index.base import Block, Layout
from llm_proxy.cache.index.codes import Codec, finer_bytes, learn
from llm_proxy.cache.index.faiss import FaissIndex
from llm_proxy.cache.index.flat import Flat
from llm_proxy.cache.index.lists import Lists
from llm_proxy.errors import CacheError

from .test_index import run_all

DIM = 64


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which a test of some hundred vectors goes through everything."""
    monkeypatch.setattr(index_module, "FLAT_MOST", 60)
    monkeypatch.setattr(index_module, "FLAT_AGAIN", 30)
    for name, value in {"_CUT_ABOVE": 24, "_DISSOLVE_BELOW": 4, "_REGROUPED_MOST": 48, "_GROUP": 3}.items():
        monkeypatch.setattr(index_lists, name, value)


def drawn(count: int, seed: int = 0) -> Any:
    rows = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def filled(rows: Any, scope: str = "s") -> FaissIndex:
    index = FaissIndex(DIM)
    for number, row in enumerate(rows):
        index.add(str(number), scope, row)
    return index


def lists_of(index: FaissIndex, scope: str = "s") -> Lists:
    found = index._scopes[scope]
    assert isinstance(found, Lists)
    return found


def sound(index: FaissIndex, scope: str = "s") -> None:
    """Every vector lies where its number says, and all lists add up."""
    lists = lists_of(index, scope)
    numbers = []
    for place in range(lists.count):
        ids = lists.list_ids(place).tolist()
        assert len(ids) == lists._sizes[place]
        assert (lists._sums[place] == lists.list_codes(place).sum(axis=0, dtype=np.int32)).all()
        for offset, number in enumerate(ids):
            assert (index._places.lists[number], index._places.offsets[number]) == (place, offset)
            assert index._homes[number] is lists
        numbers += ids
    assert len(numbers) == len(set(numbers)) == len(lists)
    assert lists._sizes[lists.count :].sum() == 0
    assert lists._centres.size(0) == lists.count


def test_a_scope_that_grows_and_shrinks_again() -> None:
    rows = drawn(600)
    index = filled(rows)
    lists = lists_of(index)
    assert 20 < lists.count < 100
    assert max(lists._sizes) <= 25
    sound(index)
    for number in range(0, 600, 7):
        best, *_ = index.search("s", rows[number], 8)
        assert best.key == str(number)
        assert best.similarity == pytest.approx(1.0, abs=index.similarity_error)
    for number in range(560):
        index.remove(str(number))
        assert str(number) not in [one.key for one in index.search("s", rows[number], 8)]
        assert len(index) == 599 - number
        if number < 569 - 30:
            sound(index)
    assert lists.count < 20
    for number in range(200):
        index.add(str(number), "s", rows[number])
    sound(index)
    for number in (*range(200), *range(560, 580)):
        index.remove(str(number))
    assert isinstance(index._scopes["s"], Flat)
    assert [index.search("s", rows[number], 1)[0].key for number in range(580, 600)] == [*map(str, range(580, 600))]
    for number in range(580, 600):
        index.remove(str(number))
    assert (len(index), index.scopes) == (0, 0)
    index.add("again", "s", rows[0])
    assert index.search("s", rows[0], 8)[0].key == "again"


def test_a_centre_follows_what_comes_into_its_list() -> None:
    index = filled(drawn(400))
    lists = lists_of(index)
    for number, row in enumerate(drawn(10, seed=5)):
        index.add(f"new {number}", "s", row)
        place = index._places.lists[index._numbers[f"new {number}"]]
        total = lists.codec.decode(lists.list_codes(place)).sum(axis=0)
        centre = lists.codec.decode(lists.centres()[place])
        assert centre @ total >= 0.9998 * np.linalg.norm(centre) * np.linalg.norm(total)  # it is coded itself


@pytest.mark.parametrize("dim", [1, 3, 4, 10])
def test_quarters_of_any_dimension(dim: int) -> None:
    rows = np.random.default_rng(0).standard_normal((30, dim)).astype(np.float32)
    codec = learn(rows)
    codes, finer = codec.encode(rows)
    assert finer.shape == (30, finer_bytes(dim))
    away = abs(codec.decode_finely(codes, finer) - rows)
    assert (away <= codec.step / 8 + 1e-6).all()
    assert (away <= codec.step / 8 - 1e-6).mean() > 0.5  # the quarters differ: none is the same for all
    assert len(np.unique(finer)) > 1


def test_a_block_without_what_its_codes_leave_out_is_refused() -> None:
    block = next(filled(drawn(400)).blocks())
    with pytest.raises(CacheError, match="leave out"):
        FaissIndex(DIM).add_block(Block("s", block.keys, block.rows, block.layout))


def test_similarities_are_off_by_no_more_than_it_says() -> None:
    rows, queries = drawn(400), drawn(50, seed=1)
    index = filled(rows)
    assert 0.001 < index.similarity_error < 0.1
    for query in queries:
        found = index.search("s", query, 8)
        assert len(found) == 8
        assert [one.similarity for one in found] == sorted((one.similarity for one in found), reverse=True)
        for one in found:
            assert abs(one.similarity - float(rows[int(one.key)] @ query)) <= index.similarity_error + 1e-6
        assert found[0].key == str(int((rows @ query).argmax()))  # so few vectors are all looked at


def test_a_vector_unlike_the_first_ones_counts_in_the_error() -> None:
    index = filled(drawn(200))
    before = index.similarity_error
    odd = np.eye(DIM, dtype=np.float32)[3]
    index.add("odd", "s", odd)
    assert index.similarity_error > before
    found = index.search("s", odd, 1)[0]
    assert found.key == "odd"
    assert abs(found.similarity - 1.0) <= index.similarity_error


@pytest.mark.parametrize("kinds", [1, 2, 3])
def test_vectors_that_are_all_the_same(kinds: int) -> None:
    rows = np.repeat(drawn(kinds), 400 // kinds, axis=0)
    index = filled(rows)
    sound(index)
    assert max(lists_of(index)._sizes) <= 60
    assert index.search("s", rows[0], 1)[0].similarity == pytest.approx(1.0, abs=index.similarity_error)


def test_a_scope_without_room_for_more_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_lists, "LISTS_MOST", 8)
    rows = drawn(500)
    index = filled(rows)
    assert lists_of(index).count == 8
    sound(index)
    assert index.search("s", rows[499], 1)[0].key == "499"


def test_only_so_many_vectors_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn(500)
    index = filled(rows)
    lists = lists_of(index)
    place = lists._nearest_lists(lists.codec.query(rows[0]))[0][0]
    monkeypatch.setattr(index_lists, "_LOOKED_AT_FIRST", 1)
    assert len(index.search("s", rows[0], 500)) == lists._sizes[place]  # found: no need to go on
    assert len(index.search("s", -rows[0], 500)) > 300
    monkeypatch.setattr(index_lists, "_LOOKED_AT", 1)
    assert len(index.search("s", -rows[0], 500)) <= 25


def test_tending_goes_on_where_it_stopped() -> None:
    index = filled(drawn(400))
    index.add("small", "t", drawn(1)[0])
    assert index.tend(0.0)
    assert not index.tend(60.0)
    assert not index.tend(60.0)
    sound(index)
    assert len(index) == 401


def test_a_scope_that_goes_while_it_is_tended(monkeypatch: pytest.MonkeyPatch) -> None:
    index = filled(drawn(400))
    lists = lists_of(index)
    monkeypatch.setattr(index, "_scopes", Vanishing({"s": lists}))
    assert index.tend(60.0)
    assert lists.is_stale


class Vanishing(dict[str, Lists]):
    """A scope that is listed, and is another by the time it is looked up."""

    def get(self, key: str, default: object = None) -> Any:
        return default


def test_tidying_puts_vectors_where_their_nearest_centre_is() -> None:
    index = filled(drawn(300))
    lists = lists_of(index)
    target = lists.count - 1
    ids, codes = lists.list_ids(0).copy(), lists.list_codes(0).copy()
    lists.extend(target, ids, codes, lists.list_finer(0))  # the whole of one list, in the wrong one
    with lists.lock.writing():
        lists._empty(0)
    lists._tidy(0, 99)  # empty: nothing to do
    lists._tidy(target, 99)
    sound(index)
    lists.missing = 1
    before = lists._sizes.copy()
    lists._tidy(target, 99)  # not while a snapshot is taken in
    assert (lists._sizes == before).all()


def test_a_list_all_of_whose_vectors_would_go_stays() -> None:
    index = filled(drawn(300))
    lists = lists_of(index)
    with lists.lock.writing():
        lists._centres.codes(0)[0] = lists.codec.encode_centres(-lists.codec.decode(lists.centres()[:1]))[0]
    before = lists._sizes.copy()
    lists._tidy(0, 99)
    assert (lists._sizes == before).all()


def restored(index: FaissIndex, into: FaissIndex, parts: int = 1) -> FaissIndex:
    """What a snapshot does, with a large scope in several parts."""
    for block in index.blocks():
        if block.layout is None:
            into.add_block(block)
            continue
        layout = Layout(
            Codec(*map(np.copy, (block.layout.codec.middle, block.layout.codec.step)), 0.5), block.layout.centres
        )
        step, start = -(-len(block.rows) // parts), 0
        for first in range(0, len(block.rows), step):
            rows = block.rows[first : first + step]
            stop = start + sum(map(len, rows))
            assert block.finer is not None
            finer = [*map(block.finer, range(first, first + len(rows)))].__getitem__
            into.add_block(Block(block.scope, block.keys[start:stop], rows, layout, first, finer))
            start = stop
    return into


@pytest.mark.parametrize("parts", [1, 3])
def test_blocks_carry_the_lists_as_they_are(parts: int) -> None:
    rows = drawn(400)
    index = filled(rows)
    index.add("small", "t", rows[0])
    other = restored(index, FaissIndex(DIM), parts)
    assert (len(other), other.scopes, other.similarity_error) == (401, 2, 0.5)
    assert lists_of(other).count == lists_of(index).count
    assert lists_of(other).missing == 0
    sound(other)
    for query in drawn(20, seed=2):
        assert other.search("s", query, 8) == index.search("s", query, 8)


def test_vectors_that_came_before_the_snapshot() -> None:
    rows = drawn(400)
    index, other = filled(rows), FaissIndex(DIM)
    other.add("7", "s", rows[300])  # newer than the snapshot
    other.add("new", "s", rows[301])
    restored(index, other, 4)
    sound(other)
    assert len(other) == 401
    assert {one.key for one in other.search("s", rows[300], 2)} == {"7", "300"}
    assert {one.key for one in other.search("s", rows[301], 2)} == {"new", "301"}


def test_a_scope_that_has_grown_large_before_the_snapshot() -> None:
    rows = drawn(400)
    index, other = filled(rows), FaissIndex(DIM)
    for number in range(200):
        other.add(f"new {number}", "s", rows[number])
    restored(index, other, 4)
    other.add_block(Block("s", ["half"], [rows[:1].astype(np.float16)]))
    sound(other)
    assert len(other) == 601
    assert {"5", "new 5"} == {one.key for one in other.search("s", rows[5], 2)}


def test_a_flat_block_may_make_a_scope_large() -> None:
    rows = drawn(100)
    index = FaissIndex(DIM)
    index.add_block(Block("s", [*map(str, range(100))], [rows.astype(np.float16)]))
    lists_of(index)
    assert [index.search("s", rows[number], 1)[0].key for number in range(100)] == [*map(str, range(100))]


def test_an_unfinished_snapshot_is_no_harm() -> None:
    rows = drawn(400)
    index, other = filled(rows), FaissIndex(DIM)
    block = next(index.blocks())
    assert block.layout is not None
    other.add_block(Block("s", block.keys[: len(block.rows[0])], block.rows[:1], block.layout, 0, block.finer))
    for number in range(100):
        other.add(f"new {number}", "s", rows[number])
    for number in range(100):
        other.remove(f"new {number}")
    sound(other)
    assert lists_of(other).missing == len(block.rows) - 1
    for key in block.keys:
        other.remove(key)
    assert (len(other), other.scopes) == (0, 0)


def test_a_block_of_known_keys_leaves_no_empty_scope() -> None:
    index = filled(drawn(2), "t")
    index.add_block(Block("s", ["0", "1"], [np.zeros((2, DIM), np.float16)]))
    assert (len(index), index.scopes) == (2, 1)


def test_threads_while_lists_are_cut_and_dissolved() -> None:
    rows = drawn(700)
    index = filled(rows[:100])
    stop, wrong = threading.Event(), []

    def change(first: int) -> None:
        for turn in range(2):
            for number in range(first, 700, 3):
                index.add(f"{turn} {number}", "s", rows[number])
            for number in range(first, 700, 3):
                index.remove(f"{turn} {number}")

    def search() -> None:
        for number in itertools.cycle(range(0, 100, 7)):
            found = index.search("s", rows[number], 3)
            if found[0].key != str(number):
                wrong.append(found)
            if stop.is_set():
                return

    changing = [threading.Thread(target=change, args=(first,)) for first in (100, 101, 102)]
    run_all(changing, beside=[threading.Thread(target=search) for _ in range(2)], then=stop.set)
    assert wrong == []
    assert len(index) == 100


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["add", "add", "remove"]), st.integers(0, 150), st.integers(1, 60)), max_size=25
    )
)
def test_like_a_dictionary_of_vectors(steps: list[tuple[str, int, int]]) -> None:
    rows = drawn(211, seed=3)
    index, model = FaissIndex(DIM), {}
    for action, first, count in steps:
        for number in range(first, first + count):
            if action == "add":
                index.add(str(number), "s", rows[number])
                model[str(number)] = rows[number]
            else:
                index.remove(str(number))
                model.pop(str(number), None)
    assert len(index) == len(model)
    if model:
        names, matrix = list(model), np.stack(list(model.values()))
        for query in rows[[0, 50, 100]]:
            found = index.search("s", query, 5)
            expected = np.sort(matrix @ query)[::-1][:5]
            assert [one.similarity for one in found] == pytest.approx(
                expected.tolist(), abs=index.similarity_error + 1e-5
            )
            for one in found:
                assert abs(matrix[names.index(one.key)] @ query - one.similarity) <= index.similarity_error + 1e-6


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 10.0))
def test_codes_stand_for_what_was_coded(seed: int, scale: float) -> None:
    rows = drawn(50, seed)
    codec = learn(rows * np.float32(scale))
    coded = rows[::2] * np.float32(scale)
    codes, finer = codec.encode(coded)
    back = codec.decode_finely(codes, finer)
    assert np.linalg.norm(back - coded, axis=1).max() <= codec.error + 1e-5 * scale
    reached = abs(coded - codec.middle) <= 127 * codec.step
    slack = 1e-5 * scale
    assert (abs(codec.decode(codes) - coded) <= codec.step / 2 + slack)[reached].all()
    assert (abs(back - coded) <= codec.step / 8 + slack)[reached].all()
    query = codec.query(rows[1])
    assert (query == query.round()).all()
    assert abs(query).max() == 127


def test_a_codec_of_one_vector_has_steps_and_a_query_of_zeros_is_one() -> None:
    codec = learn(drawn(1))
    assert (codec.step > 0).all()
    assert (codec.query(np.zeros(DIM, np.float32)) == 0).all()
