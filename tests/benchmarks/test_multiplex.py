"""The simulation is the paper's: how its numbers are drawn, what costs what, and how it is served."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import multiplex
from benchmarks._multiplex import POLICIES, WAYS, Workload, flops, heard, lambada, missed, serve, static, synthetic
from benchmarks._report import RESULTS
from tests.benchmarks.test_contract import figures, run

PAPER: dict[str, Any] = {"alpha": 0.5, "ratio": 100.0, "requests": 10_000}


def load(
    *asked: int, costs: tuple[tuple[float, float], ...] = ((1.0, 9.0), (8.0, 2.0), (4.0, 4.5)), places: int = 1
) -> Workload:
    chosen = np.array(asked)
    return Workload(chosen, np.array(costs)[chosen], len(costs), places, 0.0, 0.0)


class TestWorkloads:
    def test_popularity_and_means(self) -> None:
        drawn = synthetic(0, **PAPER)
        assert drawn.costs.shape == (10_000, 2)
        share = Counter(drawn.asked.tolist())[0] / 10_000
        assert share == pytest.approx(0.05**0.5, abs=0.015)
        assert drawn.costs.min() >= 0.1
        means = np.array([[drawn.costs[drawn.asked == query, way].mean() for way in WAYS] for query in range(20)])
        assert np.abs(np.minimum(abs(means - 1), abs(means - 101))).max() < 0.4

    def test_a_seed_is_a_workload(self) -> None:
        one, same, other = (synthetic(seed, **PAPER) for seed in (3, 3, 4))
        assert (one.costs == same.costs).all()
        assert (one.costs != other.costs).any()

    def test_the_first_seed_costs_what_it_did_for_the_methods_page(self) -> None:
        """One seed of the hundred whose means METHODS gives: 1.5 and 0.8 are drawn alike."""
        assert (synthetic(0, **PAPER).asked == synthetic(0, **{**PAPER, "ratio": 1.5}).asked).all()
        totals = synthetic(0, **PAPER).costs.sum(axis=0)
        random = np.random.RandomState(0)
        means = [random.binomial(n=1, p=0.5, size=20) * 100.0 + 1 for _ in WAYS]
        asked = (random.power(0.5, 10_000) * 20).astype(int)
        assert totals == pytest.approx([mean[asked].sum() for mean in means], rel=0.01)

    def test_half_of_lambada_fails_and_pays_for_it(self) -> None:
        drawn = lambada(0, alpha=0.8, requests=5_000)
        costs = {query: drawn.costs[at] for at, query in enumerate(drawn.asked.tolist())}
        failed = [cost for cost in costs.values() if cost[0] > cost[1]]
        assert len(costs) == 100
        assert len(failed) == 50
        assert all(cost[0] > 2 * cost[1] for cost in failed)

    def test_operations(self) -> None:
        assert flops(np.array([1.0]), 1, 1)[0] == 8 + 16 + 4
        assert flops(np.array([83.0]), 40, 5120)[0] == pytest.approx(2.093e12, rel=1e-3)

    def test_the_word_is_right_as_often_as_it_is_said_to_be(self) -> None:
        drawn = synthetic(0, **PAPER)
        best = drawn.costs.argmin(axis=1)
        assert (heard(drawn, 1.0, 0) == best).all()
        assert (heard(drawn, 0.8, 0) == best).mean() == pytest.approx(0.8, abs=0.02)


class TestServing:
    def test_what_is_known_in_advance_keeps_the_best(self) -> None:
        drawn = load(0, 0, 0, 1, 1, 2)
        assert static(drawn, "lfu", drawn.costs[:, 0]).tolist() == [False] * 3 + [True] * 3
        assert static(drawn, "lec", drawn.costs[:, 0]).tolist() == [True] * 3 + [False] * 2 + [True]
        assert static(drawn, "lec", drawn.costs[:, 1]).tolist() == [False] * 3 + [True] * 3

    def test_recency(self) -> None:
        assert missed(load(0, 0, 1, 0), "lru").tolist() == [True, False, True, True]

    def test_frequency_is_that_of_all_requests(self) -> None:
        """What is new takes the place of the least frequent; of equals, the one used the longest ago goes."""
        drawn = load(0, 0, 1, 2, 1, 2, 0, places=2)
        assert missed(drawn, "lfu").tolist() == [True, False, True, True, True, True, True]

    def test_what_the_ways_cost(self) -> None:
        drawn = load(0, 1, 2)
        words, all_miss = np.array([0, 1, 1]), np.ones(3, bool)
        assert serve(drawn, "model1", words, accuracy=1.0, cache=all_miss) == 13.0
        assert serve(drawn, "cascade", words, accuracy=1.0, cache=all_miss) == 13.0
        assert serve(drawn, "model2", words, accuracy=1.0, cache=all_miss) == 15.5
        assert serve(drawn, "selector", words, accuracy=0.8, cache=all_miss) == 1.0 + 2.0 + 4.5
        assert serve(drawn, "measured", words, accuracy=0.8, cache=all_miss) == 1.0 + 2.0 + 4.0, "way 0 was cheaper"

    def test_the_bandit_tries_each_way_once_and_keeps_to_the_better(self) -> None:
        drawn = load(*[0] * 9, *[1] * 9)
        words, all_miss = np.zeros(18, int), np.ones(18, bool)
        assert serve(drawn, "selector", words, accuracy=1.0, cache=all_miss) == 1.0 * 8 + 9.0 + 8.0 + 2.0 * 8

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_cache_of_all_asks_once(self, policy: str) -> None:
        drawn = load(0, 1, 2, 0, 1, 2, places=3)
        assert serve(drawn, "model1", np.zeros(6, int), accuracy=1.0, cache=policy) == 13.0


class TestFigures:
    def test_small(self, tmp_path: Path) -> None:
        drawn = tmp_path / "plot.svg"
        found = measured_figures("--seeds", 2, "--requests", 300, "--plot", drawn, "--jobs", 2)
        keys = {"alpha", "ratio", "accuracy", "online", "policy", "selector", "mean", "median", "se"}
        assert all(keys <= set(row) for row in found["rows"])
        assert len(found["rows"]) == 2 * 2 * 2 * 2 * 4 * 5
        assert len(found["lambada"]) == 2 * 2 * 2 * 4 * 4
        assert {row["selector"] for row in found["rows"]} == {"model1", "model2", "cascade", "selector", "measured"}
        assert len(found["trusted"]) == 2 * 2 * 2 * 4
        assert [gain["over_lfu_model2"] > 1 for gain in found["gains"]] == [True] * 4
        assert drawn.read_text(encoding="utf-8").startswith("<?xml")
        assert "LEC + selector" in drawn.read_text(encoding="utf-8")

    def test_one_seed(self) -> None:
        found = measured_figures("--seeds", 1, "--requests", 100)
        assert {row["se"] for row in found["rows"]} == {0.0}

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (("--seeds", 0), "must be at least 1"),
            (("--requests", 0), "must be at least 1"),
            (("--jobs", 0), "must be at least 1"),
            (("--first-seed", -1), "--first-seed at least 0"),
            (("--first-seed", 2**32), "seeds go up to 4294967295"),
            (("--plot", "absent/x.svg"), "there is no such folder"),
        ],
    )
    def test_what_makes_no_sense(self, options: tuple[Any, ...], said: str) -> None:
        ended = run("multiplex", *options, code=1).stderr
        assert said in ended
        assert ended.count("\n") == 1, "one line, and no traceback"


def measured_figures(*options: Any) -> dict[str, Any]:
    before = {path.name: path.stat().st_mtime_ns for path in RESULTS.iterdir()}
    found = figures("multiplex", *options)
    assert {path.name: path.stat().st_mtime_ns for path in RESULTS.iterdir()} == before
    return found


def test_one_seed_of_the_paper_s_hundred() -> None:
    """Offline, LEC and the perfect selector: the twelve queries that are not kept cost their lesser mean."""
    cells = [multiplex.Cells(synthetic(seed, **PAPER), seed) for seed in range(3)]
    found = [cell.cost("lec", "selector", accuracy=1.0, online=False) for cell in cells]
    worst = [cell.cost("lfu", "model2", accuracy=1.0, online=False) for cell in cells]
    assert all(best < 100 < high for best, high in zip(found, worst, strict=True))
    assert cells[0].cost("lec", "model1", accuracy=1.0, online=True) == cells[0].cost(
        "lec", "cascade", accuracy=0.8, online=True
    )


@pytest.mark.parametrize(
    ("policy", "selector", "offline", "online"),
    [
        ("lec", "selector", 80.60332526927668, 85.35945755938),
        ("lec", "measured", 81.21440135725926, 84.72927256465664),
        ("lec", "model2", 137.953200166844, 143.14960329659087),
        ("gdsf", "selector", 80.60332526927668, 84.55340337777588),
        ("lfu", "model2", 235.1710058851554, 256.6938800229106),
    ],
)
def test_the_first_seed_costs_exactly_this(policy: str, selector: str, offline: float, online: float) -> None:
    """Another number here is another decision: of who is asked, of what that is worth, or of what is kept."""
    cells = multiplex.Cells(synthetic(0, **PAPER), 0)
    found = [cells.cost(policy, selector, accuracy=1.0, online=is_online) for is_online in (False, True)]
    assert found == pytest.approx([offline, online], rel=1e-9)
