from __future__ import annotations

from llm_proxy.backends.delays import AT_LEAST, Delays

KEY = ("main", "m", False)


def known(share: float = 0.05, count: int = AT_LEAST) -> Delays:
    delays = Delays(share)
    for number in range(count):
        delays.note(KEY, number / 10)
    return delays


def test_nothing_is_said_of_few() -> None:
    assert known(count=AT_LEAST - 1).rival_after_s(KEY) is None
    assert known().rival_after_s(("main", "m", True)) is None


def test_the_95th_percentile() -> None:
    delays = known(1.0)
    assert delays.rival_after_s(KEY) == 1.8
    assert delays.rival_after_s(KEY) == 1.8
    delays.note(KEY, 99.0)
    assert delays.rival_after_s(KEY) == 1.9


def test_no_more_than_the_share() -> None:
    delays = known()
    rivals = 0
    for _ in range(5_000):
        if delays.rival_after_s(KEY) is not None:
            delays.rivalled(KEY)
            rivals += 1
    assert 200 <= rivals <= 251


def test_none_at_all() -> None:
    assert known(0.0).rival_after_s(KEY) is None


def test_memory_is_bounded() -> None:
    delays = Delays(1.0)
    for number in range(2_000):
        delays.note(("main", f"m{number}", False), 1.0)
    delays.rivalled(KEY)
    assert len(delays._known) == 1_024


def test_a_long_name_is_not_kept() -> None:
    delays, key = Delays(1.0), ("main", "m" * 1_000_000, False)
    for _ in range(AT_LEAST):
        delays.note(key, 1.0)
    assert delays.rival_after_s(key) == 1.0
    delays.rivalled(key)
    assert [len(model) for _, model, _ in delays._known] == [200]
