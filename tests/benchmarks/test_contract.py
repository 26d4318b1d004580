"""Each benchmark runs, gives the keys it is to give, and records nothing unless asked to; times are not judged here."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import end_to_end
from benchmarks._report import RESULTS
from benchmarks.end_to_end import draw
from llm_proxy.testing import FakeBackend
from tests.servers import serving

ROOT = Path(__file__).parents[2]
TIMES = {
    "client": {
        "sdk_floor_p50", "direct_p50", "passthrough_p50", "miss_p50", "direct_stream_p50", "passthrough_stream_p50",
        "exact_hit_p50", "exact_hit_stream_p50", "semantic_hit_p50", "import_openai", "import_llm_proxy",
        "client_openai", "client_llm_proxy",
    },
    "encoder": {"encode_p50", "encode_256_p50", "texts_per_s"},
    "end_to_end": {"p50_without", "p50_with"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_is_recorded() -> Iterator[None]:
    def state() -> dict[str, float]:
        return {path.name: path.stat().st_mtime_ns for path in RESULTS.iterdir()}

    before = state()
    yield
    assert state() == before


def run(name: str, *arguments: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


def figures(name: str, *arguments: Any) -> dict[str, Any]:
    """The object in the last line; the figures that are times must be some."""
    *table, last = run(name, *arguments, "--json").stdout.splitlines()
    found: dict[str, Any] = json.loads(last)
    assert found["benchmark"] == name
    assert {"processor", "python", "packages", "commit", "date"} <= set(found["machine"])
    assert all(found[key] > 0 for key in TIMES.get(name, ()))
    assert len(table) >= 6, "people get a table"
    return found


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Forty questions to be asked once each, and a search box where nearly all ask the same."""
    questions = tmp_path / "questions.jsonl.gz"
    rows = [{"text": f"What is question {number} about?", "intent": "any"} for number in range(40)]
    questions.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    searches = tmp_path / "searches.tsv"
    searches.write_text("Date\tQuery\tPopularityScore\n1\tthe news\t100\n1\tsay \"hi\t1\n1\twhat's new\t1\n")
    return [questions, searches]


@pytest.mark.slow
def test_client() -> None:
    found = figures("client", "--calls", 20)
    assert found["exact_hit_p50"] < found["semantic_hit_p50"]


@pytest.mark.slow
def test_proxy() -> None:
    found = figures("proxy", "--rounds", 1, "--seconds", 1)
    assert {"exact_hit_p50", "passthrough_added_p50", "stream_added_p50"} <= set(found)
    assert all(found[key] > 0 for key in ("upstream_rps", "passthrough_rps", "exact_hit_rps", "semantic_hit_rps"))
    assert found["rss_mib"] > 50
    assert found["troubles"] == {}
    assert found["cores"] == "any"


def test_encoder() -> None:
    found = figures("encoder", "--runs", 1)
    assert found["provider"] == "CPUExecutionProvider"
    assert 0.99 <= found["cosine_to_reference"] <= 1


def test_draft() -> None:
    quick = ("--calls", 6, "--tokens", 12, "--pass-ms", 10, "--network-ms", 5, "--race-calls", 120)
    rows = figures("draft", *quick, "--acceptances", 0, 0.5, 0.9, "--full", 0)["rows"]
    keys = {"way", "load", "latency_ratio", "accepted_share", "cost_ratio", "chosen_length"}
    assert all(keys <= set(row) for row in rows)
    assert [(row["way"], row["load"]) for row in rows] == [
        ("verified", "alone"), ("verified", "alone"), ("verified", "alone"), ("verified", "full"), ("race", "alone")
    ]  # fmt: skip
    assert [row["wrong_answers"] for row in rows] == [0] * 5
    assert rows[-1]["p99_ratio"] > 0
    assert 0 < rows[-1]["accepted_share"] < 0.2


def test_near() -> None:
    found = figures("near", "--calls", 60, "--words", 100, "--word-ms", 0.05)["predicted"]
    assert set(found) == {"same form", "a third new", "half new", "nearly new", "all new"}
    for row in found.values():
        assert {"latency_ratio", "accepted_share", "cost_ratio", "chosen_length"} <= set(row)
        assert 0 <= row["accepted_share"] <= row["sent_share"] <= 1
        assert 1 <= row["cost_ratio"] <= 1.25 + 1e-9
    assert found["same form"]["accepted_share"] > 0.5


class TestEndToEnd:
    def test_against_recorded_latencies(self, files: list[Path], tmp_path: Path) -> None:
        latencies = tmp_path / "latencies.txt"
        latencies.write_text("0.002\n0.004\n")
        options = ("--n", 40, "--queries", *files, "--upstreams", "recorded", "--latencies", latencies)
        found = figures("end_to_end", *options)
        assert (found["n"], found["errors"], found["first_errors"]) == (40, 0, [])
        assert [name.split("/")[1] for name in found["files"]] == [path.name for path in files]
        assert 0.3 < found["hit_rate_exact"] < 0.5, "half of the queries are nearly all the same one"
        assert found["hit_rate_semantic"] == 0, "other numbers are other questions"
        assert 0 < found["usd_with"] < found["usd_without"]
        assert found["recorded"]["p50_with"] == found["p50_with"]

    @pytest.mark.local_model
    def test_against_the_local_model(self, files: list[Path]) -> None:
        found = figures("end_to_end", "--n", 40, "--queries", *files, "--upstreams", "local-model", "recorded")
        assert found["errors"] == found["local-model"]["errors"] == 0
        assert found["local-model"]["hit_rate_exact"] > 0.3
        direct = (found["recorded"]["mean_without"], found["local-model"]["mean_without"])
        assert direct[0] == pytest.approx(direct[1], rel=0.5), "the recorded one takes as long as the real one did"

    def test_without_latencies(self, files: list[Path], tmp_path: Path) -> None:
        options = ("--queries", *files, "--upstreams", "recorded", "--latencies", tmp_path / "absent.txt")
        said = run("end_to_end", *options, code=1).stderr
        assert "absent.txt is not there: record it first, with --upstreams local-model recorded --record" in said

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((), "name files of queries: --queries FILE"),
            (("--queries", "x", "--n", "0"), "how many to ask"),
            (("--queries", "x", "--upstreams", "moon"), "--upstreams moon: there is only local-model and recorded"),
            (("--queries", "absent.tsv", "--upstreams", "local-model"), "absent.tsv can't be read"),
            (("--queries", "absent.txt", "--upstreams", "local-model"), "absent.txt: no texts"),
        ],
    )
    def test_what_is_missing(self, arguments: tuple[str, ...], said: str) -> None:
        assert said in run("end_to_end", *arguments, code=1).stderr

    def test_an_upstream_that_answers_nothing(self) -> None:
        with serving(FakeBackend(status=500)) as broken, pytest.raises(SystemExit) as caught:
            end_to_end._compare(f"{broken.url}/v1", ["one", "two"], 2)
        assert "answered nothing: InternalServerError" in str(caught.value)


class TestDraw:
    def test_it_is_even_and_repeatable(self, files: list[Path]) -> None:
        drawn = draw(files, 31, 0)
        assert sum("question" in text for text in drawn) == 16
        assert len(drawn) == 31
        assert drawn == draw(files, 31, 0) != draw(files, 31, 1)

    def test_popular_ones_repeat_and_the_others_do_not(self, files: list[Path]) -> None:
        counts = Counter(draw(files, 60, 0))
        assert counts["the news"] >= 25
        assert {count for text, count in counts.items() if "question" in text} == {1}

    def test_more_than_there_are(self, files: list[Path]) -> None:
        drawn = draw(files[:1], 100, 0)
        assert len(drawn) == 100
        assert len(set(drawn)) <= 40

    def test_other_files(self, tmp_path: Path) -> None:
        lines, table = tmp_path / "a.txt", tmp_path / "b.csv.gz"
        lines.write_text("one\ntwo\n")
        table.write_bytes(gzip.compress(b'Query,PopularityScore\n"three, four",5\n'))
        assert set(draw([lines, table], 4, 0)) == {"one", "two", "three, four"}

    def test_a_file_without_queries(self, tmp_path: Path) -> None:
        (tmp_path / "a.tsv").write_text("Query\tPopularityScore\n")
        with pytest.raises(SystemExit, match="holds no queries"):
            draw([tmp_path / "a.tsv"], 2, 0)
