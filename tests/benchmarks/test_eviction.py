"""The eviction benchmark at a small size: its keys, its trace, and what it says when something is missing."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks._ceilings import KNOWING
from benchmarks._traces import Trace, trace
from benchmarks.eviction import replay
from llm_proxy.cache.policies.gdsf import GDSF
from llm_proxy.cache.policies.lru import LRU

ROOT = Path(__file__).parents[2]
THEIRS = ["LRU", "SIEVE", "S3-FIFO", "W-TinyLFU", "ARC", "GDSF"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two hundred queries, few of them popular, and token counts and costs for them."""
    rows = "".join(f"1\tquery {number}\t{max(1, 300 // (number + 1))}\n" for number in range(200))
    (tmp_path / "queries.tsv").write_text(f"Date\tQuery\tPopularityScore\n{rows}2\tquery 199\t50\n")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(9)))
    azure, arena = tmp_path / "trace_azure_llm_2023", tmp_path / "router_arena809"
    azure.mkdir()
    arena.mkdir()
    tokens = "".join(f"now,{100 * number},{10 * number}\n" for number in range(1, 30))
    (azure / "conv.csv.gz").write_bytes(gzip.compress(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{tokens}".encode()))
    answers = [{"cost": [0.002, 0.001 + number / 1e4], "otok": [50, 100 + number]} for number in range(20)]
    (arena / "rows.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, answers)).encode()))
    return tmp_path


def made(data: Path, name: str = "queries.tsv", **changes: Any) -> Trace:
    options: dict[str, Any] = {"costs": "fleet", "data": data, "requests": 3_000, "seed": 0, **changes}
    return trace(data / name, **options)


def run(data: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.eviction", "--data", str(data), *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


@pytest.mark.parametrize("costs", ["fleet", "arena809"])
def test_the_keys(data: Path, costs: str) -> None:
    pytest.importorskip("libcachesim")
    options = ("--queries", data / "queries.tsv", "--costs", costs, "--requests", 3_000, "--entries", 2_000, "--json")
    *table, last = run(data, *options, "--cache-fraction", 0.2).stdout.splitlines()
    found = json.loads(last)
    assert found["benchmark"] == "eviction"
    assert [row["name"] for row in found["policies"] if not row["ours"]] == THEIRS
    ours = {row["name"]: row for row in found["policies"] if row["ours"]}
    theirs = {row["name"]: row for row in found["policies"] if not row["ours"]}
    assert set(ours) == {"gdsf", "lec", "lfu", "lru"}
    for row in found["policies"]:
        assert all(0 <= row[key] <= 1 for key in ("hit_ratio", "byte_hit_ratio", "cost_saved_ratio"))
        assert row["us_per_request"] > 0
    same = ("hit_ratio", "byte_hit_ratio", "cost_saved_ratio")
    assert [ours["lru"][key] for key in same] == pytest.approx([theirs["LRU"][key] for key in same])
    assert found["best_cost_blind_ratio"] < found["hindsight_cost_saved_ratio"] < 1
    assert ours["gdsf"]["cost_saved_ratio"] > found["best_cost_blind_ratio"]
    assert found["us_per_request_1m"] > 0
    assert found["entries"] == 2_000
    assert len(table) >= 12
    ceilings = found["ceilings"]
    assert [row["name"] for row in ceilings[:2]] == list(KNOWING)
    for row in [*ours.values(), ceilings[0], ceilings[1]]:
        assert row["cost_saved_ratio"] <= ceilings[2]["cost_saved_ratio"]
        gap = found["hindsight_cost_saved_ratio"] - found["best_cost_blind_ratio"]
        assert row["gap_closed"] * gap == pytest.approx(row["cost_saved_ratio"] - found["best_cost_blind_ratio"])


def test_many_seeds(data: Path) -> None:
    pytest.importorskip("libcachesim")
    options = (
        "--queries",
        data / "queries.tsv",
        "--requests",
        2_000,
        "--entries",
        0,
        "--cache-fraction",
        0.2,
        "--json",
    )
    *table, last = run(data, *options, "--seeds", 3).stdout.splitlines()
    found = json.loads(last)["over_seeds"]
    names = ["gdsf", *KNOWING, "any policy"]
    assert (found["seeds"], list(found["gap_closed"]), list(found["gdsf_behind"])) == (3, names, names[1:])
    singly = [json.loads(run(data, *options, "--seed", seed).stdout.splitlines()[-1]) for seed in range(3)]
    ours = [next(row for row in one["policies"] if row["name"] == "gdsf")["gap_closed"] for one in singly]
    most = [one["ceilings"][2]["gap_closed"] for one in singly]
    assert found["gap_closed"]["gdsf"]["mean"] == pytest.approx(sum(ours) / 3)
    assert found["gap_closed"]["gdsf"]["least"] == pytest.approx(min(ours))
    assert found["gap_closed"]["gdsf"]["at_nine_tenths"] == pytest.approx(sum(gap >= 0.9 for gap in ours) / 3)
    assert found["gdsf_behind"]["any policy"]["mean"] == pytest.approx(sum(most) / 3 - sum(ours) / 3)
    assert any(line.startswith("gdsf behind: any policy") for line in table)


def test_nobody_knows_popularities_that_change_hands(data: Path) -> None:
    pytest.importorskip("libcachesim")
    options = ("--queries", data / "queries.tsv", "--requests", 2_000, "--entries", 0, "--drift", 0.5, "--json")
    found = json.loads(run(data, *options).stdout.splitlines()[-1])
    assert [row["name"] for row in found["ceilings"]] == ["any policy"]


def test_it_draws(data: Path) -> None:
    pytest.importorskip("libcachesim")
    pytest.importorskip("matplotlib")
    options = ("--queries", data / "queries.tsv", "--requests", 500, "--entries", 0)
    assert "drawn into cost.svg" in run(data, *options, "--plot", data / "cost.svg").stdout
    assert "<svg" in (data / "cost.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a file of queries: --queries FILE"),
        (("--queries", "x", "--requests", "0"), "how many to ask"),
        (("--queries", "x", "--costs", "moon"), "--costs moon: there is only arena809 and fleet"),
        (("--queries", "x", "--cache-fraction", "0"), "--cache-fraction must be above 0"),
        (("--queries", "x", "--cache-fraction", "nan"), "--cache-fraction must be above 0"),
        (("--queries", "x", "--drift", "2"), "--drift at least 0"),
        (("--queries", "x", "--entries", "-1"), "--entries -1 must be 0 or more"),
        (("--queries", "x", "--seeds", "0"), "--seeds 0 at least 1"),
        (("--queries", "x", "--plot", "absent/x.svg"), "--plot absent/x.svg: there is no such folder"),
        (("--queries", "absent.tsv"), "absent.tsv can't be read"),
        (("--queries", "absent.txt"), "absent.txt: no texts"),
    ],
)
def test_what_is_missing(data: Path, arguments: tuple[str, ...], said: str) -> None:
    pytest.importorskip("libcachesim")
    ended = run(data, *arguments, code=1).stderr
    assert said in ended
    assert ended.count("\n") == 1, "one line, and no traceback"


def test_costs_lie_beside_the_folder_of_the_queries(data: Path) -> None:
    pytest.importorskip("libcachesim")
    (data / "mine").mkdir()
    named = (data / "queries.tsv").rename(data / "mine" / "queries.tsv")
    options = ["--queries", str(named), "--requests", "500", "--entries", "0"]
    command = [sys.executable, "-m", "benchmarks.eviction", *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=110)
    assert "best in hindsight" in ended.stdout
    (data / "trace_azure_llm_2023" / "conv.csv.gz").unlink()
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "name the folder of the data sets with --data FOLDER" in ended.stderr


def test_a_cache_without_room(data: Path) -> None:
    pytest.importorskip("libcachesim")
    options = ("--queries", data / "queries.tsv", "--cache-fraction", "1e-9")
    assert "no room for one byte" in run(data, *options, code=1).stderr


class TestTrace:
    def test_popular_queries_are_asked_often(self, data: Path) -> None:
        found = made(data)
        assert len(found.requests) == 3_000
        assert found.counts.most_common(1)[0][0] == 0
        assert found.counts[199] > 3 * found.counts[150], "scores of equal queries add up"
        assert found.requests == made(data).requests != made(data, seed=1).requests

    def test_sizes_and_costs_belong_together(self, data: Path) -> None:
        found = made(data)
        prices = set()
        for size, cost_usd in zip(found.sizes, found.costs_usd, strict=True):
            generated = (size - 1_000) // 4
            prices.add(round(cost_usd * 1e6 / generated - 1e-9, 6))
        assert prices == {2.1, 35.0, 210.0}, "ten tokens of the question for each one of the answer, at three tiers"
        near = made(data, costs="arena809")
        assert max(near.costs_usd) == 0.002
        assert min(near.sizes) >= 1_200

    def test_popularity_changes_hands(self, data: Path) -> None:
        still, drifting = made(data), made(data, drift=0.5)
        assert still.requests[:1_500] == drifting.requests[:1_500]
        assert Trace(drifting.requests[1_500:], [], []).counts.most_common(1)[0][0] != 0
        assert still.costs_usd == drifting.costs_usd

    def test_any_queries_will_do(self, data: Path) -> None:
        counts = made(data, "texts.jsonl").counts
        assert len(counts) == 9
        assert max(counts.values()) < 2 * min(counts.values())

    def test_no_queries(self, data: Path) -> None:
        (data / "none.tsv").write_text("Query\tPopularityScore\n")
        with pytest.raises(SystemExit, match="holds no queries"):
            made(data, "none.tsv")

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("empty.tsv", b"", "no texts"),
            ("columns.csv", b"a,b\n1,2\n", "no texts"),
            ("word.tsv", b"Query\tPopularityScore\nx\tmany\n", "can't be read"),
            ("negative.tsv", b"Query\tPopularityScore\nx\t-1\n", "PopularityScore -1.0"),
            ("short.tsv", b"Query\tPopularityScore\nx\n", "can't be read"),
            ("nothing.tsv", b"Query\tPopularityScore\nx\t0\n", "holds no queries"),
            ("binary.tsv", b"\xff\xfe\x00", "can't be read"),
            ("not.tsv.gz", b"Query", "can't be read"),
            ("cut.tsv.gz", gzip.compress(b"Query\tPopularityScore\nx\t1\n")[:-9], "can't be read"),
            ("list.jsonl", b"[1]\n", "no texts"),
        ],
    )
    def test_files_that_are_something_else(self, data: Path, name: str, content: bytes, said: str) -> None:
        (data / name).write_bytes(content)
        with pytest.raises(SystemExit, match=said):
            made(data, name)

    @pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"TIMESTAMP,ContextTokens,GeneratedTokens\n"])
    def test_costs_that_are_something_else(self, data: Path, content: bytes) -> None:
        (data / "trace_azure_llm_2023" / "conv.csv.gz").write_bytes(gzip.compress(content))
        with pytest.raises(SystemExit, match="no costs for --costs fleet"):
            made(data)

    def test_no_costs(self, data: Path) -> None:
        elsewhere = data / "elsewhere"
        with pytest.raises(SystemExit, match="--data FOLDER"):
            trace(data / "queries.tsv", costs="fleet", data=elsewhere, requests=1, seed=0)


class TestReplay:
    """Two queries in turn, the second one dear and large, and a third."""

    found = Trace([0, 1, 0, 2, 1, 0, 1], [1.0, 10.0, 0.1], [100, 300, 100])

    def test_the_best_in_hindsight(self) -> None:
        assert self.found.cost_usd == pytest.approx(33.1)
        assert self.found.hindsight(300) == pytest.approx(20 / 33.1)
        assert self.found.hindsight(400) == pytest.approx(22 / 33.1)
        assert self.found.hindsight(299) == pytest.approx(2 / 33.1)
        assert self.found.capacity(0.5) == 250
        assert self.found.bytes_requested == 3 * 100 + 3 * 300 + 100

    def test_hits(self) -> None:
        assert list(replay(LRU(), self.found, 400)) == [False, False, True, False, False, False, True]
        assert list(replay(GDSF(), self.found, 400)) == [False, False, True, False, True, True, True]
        assert list(replay(GDSF(), self.found, 99)) == [False] * 7
