"""The semantic benchmark: its keys, its arithmetic, and that "served" is what a real call gets."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks._pairs import Pair, read_pairs
from benchmarks._served import ShippedCache, encode_all, shipped_encoder
from benchmarks.semantic import auc, judge, measure
from llm_proxy import OpenAI
from llm_proxy.config import CacheConfig
from llm_proxy.encode.lazy import LazyEncoder
from llm_proxy.testing import FakeBackend

ROOT = Path(__file__).parents[2]
LONG = "Some words that fill the window of the encoder, and more of them. " * 40
PAIRS = [
    Pair("How do I reset my password?", "How can I reset my password?", is_equal=True),
    Pair("What's the capital of France?", "what is the capital of france", is_equal=True),
    Pair("Turn on the kitchen lights", "Please turn the kitchen lights on", is_equal=True),
    Pair("How do I boil an egg?", "What is the recommended procedure for egg boiling?", is_equal=True),
    Pair("Turn on the kitchen lights", "Turn off the kitchen lights", is_equal=False),
    Pair("What's the capital of France?", "What's the capital of Spain?", is_equal=False),
    Pair("Who won?", "How do I bake bread?", is_equal=False),
    Pair(f"{LONG} What is one plus one?", f"{LONG} What is one plus two?", is_equal=False),
    Pair(f"{LONG} What is one plus one?", f"{LONG.replace('Some', 'some')} What is one plus one?", is_equal=True),
]


@pytest.fixture(scope="module")
def encoder() -> LazyEncoder:
    return shipped_encoder()


def written(path: Path, pairs: list[Pair]) -> Path:
    rows = [{"a": pair.a, "b": pair.b, "label": int(pair.is_equal), "kind": "any"} for pair in pairs]
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def run(*arguments: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.semantic", *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended


def test_the_keys(tmp_path: Path, encoder: LazyEncoder) -> None:
    both, alike = written(tmp_path / "both.jsonl.gz", PAIRS), written(tmp_path / "alike.jsonl.gz", PAIRS[:2])
    *table, last = run("--pairs", both, alike, "--json").stdout.splitlines()
    found = json.loads(last)
    assert found["benchmark"] == "semantic"
    assert len(table) == 4
    first, second = found["files"]
    assert first["file"].endswith("/both.jsonl.gz")
    assert (first["n_equal"], first["n_different"]) == (5, 4)
    judged = list(judge(PAIRS, encode_all((text for pair in PAIRS for text in (pair.a, pair.b)), encoder), encoder))
    assert first["served_equal"] == sum(not row.refusal for row in judged if row.is_equal) / 5 > 0
    assert first["served_different"] == first["refused_different"].get("", 0) == 0
    assert first["cosine_served_equal"] >= first["served_equal"]
    assert first["cosine_threshold"] <= 1
    for key in ("auc", "cosine_auc", "decide_p50", "decide_p99", "cosine_decide_p50", "cosine_decide_p99"):
        assert first[key] > 0
    assert sum(first["refused_different"].values()) == 4
    assert first["refused_different"]["unseen"] == 1, "the parts that the encoder did not see differ"
    assert (second["n_different"], second["served_different"], second["auc"]) == (0, None, None)


def test_a_draw(tmp_path: Path) -> None:
    path = written(tmp_path / "pairs.jsonl.gz", PAIRS)
    found = json.loads(run("--pairs", path, "--limit", 4, "--json").stdout.splitlines()[-1])
    assert found["files"][0]["n_equal"] + found["files"][0]["n_different"] == 4
    drawn = read_pairs(path, limit=4)
    assert drawn == read_pairs(path, limit=4) != read_pairs(path, limit=4, seed=1)
    assert read_pairs(path, limit=100) == read_pairs(path) == PAIRS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--pairs: name at least one file"),
        (("--pairs", "absent.jsonl"), "absent.jsonl: no pairs"),
        (("--pairs", "absent.jsonl", "--limit", -1), "--limit -1: 0 for all"),
    ],
)
def test_what_cannot_run(arguments: tuple[Any, ...], said: str) -> None:
    assert said in run(*arguments, code=1).stderr


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"a":"x","b":"y","label":1}\n\n{"a":"x","b":"z","label":0}\n'),
        ("a.tsv", "a\tb\tlabel\nx\ty\t1\nx\tz\t0"),
        ("a.csv", 'a,b,label\n"x",y,1\nx,z,0\n'),
    ],
)
def test_kinds_of_files(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert read_pairs(tmp_path / name) == [Pair("x", "y", is_equal=True), Pair("x", "z", is_equal=False)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no pairs"),
        ("x", "no pairs"),
        ("3", "no pairs"),
        ('{"a":"x","b":"y"}', "'label'"),
        ('{"a":"x","b":"y","label":2}', "neither 0 nor 1"),
        ('{"a":"x","b":3,"label":1}', "not all of them are texts"),
    ],
)
def test_files_without_pairs(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(SystemExit, match=said):
        read_pairs(tmp_path / "a.jsonl")


def test_auc() -> None:
    assert auc([3, 2], [1, 0]) == 1
    assert auc([0], [1, 2]) == 0
    assert auc([1], [1]) == 0.5
    assert auc([2, 0], [1]) == 0.5
    assert auc([], [1]) is None


def test_served_is_what_a_call_gets(encoder: LazyEncoder) -> None:
    """Each pair through the client face, with the shipped encoder: a semantic hit exactly where the benchmark says."""
    encoded = encode_all((text for pair in PAIRS for text in (pair.a, pair.b)), encoder)
    for pair, judged in zip(PAIRS, judge(PAIRS, encoded, encoder), strict=True):
        backend = FakeBackend()
        settings = {"cache": {"store": "memory"}, "encoder": {"wait_s": 60}}
        with OpenAI(api_key="any", http_client=backend.client(), llm_proxy=settings) as client:
            for text in (pair.a, pair.b):
                raw = client.chat.completions.with_raw_response.create(
                    model="any", messages=[{"role": "user", "content": text}]
                )
        outcome = raw.http_response.extensions["llm_proxy"]
        assert (outcome.kind == "semantic") == (not judged.refusal), pair
        assert outcome.kind != "exact"


def test_served_at_other_rates_is_what_such_a_cache_serves(encoder: LazyEncoder) -> None:
    found = {one["max_error_rate"]: one for one in measure("any", PAIRS, encoder)["served_at"]}
    assert found[0.001]["served_equal"] < found[0.2]["served_equal"]
    encoded = encode_all((text for pair in PAIRS for text in (pair.a, pair.b)), encoder)
    for rate, shares in found.items():
        cache = ShippedCache(encoder, CacheConfig(store="memory", max_error_rate=rate))
        served = {True: 0, False: 0}
        for at, pair in enumerate(PAIRS):
            cache.store(pair.a, encoded[pair.a], tenant=f"pair-{at}")
            seen = cache.ask(pair.b, encoded[pair.b], tenant=f"pair-{at}")
            served[pair.is_equal] += seen is not None and seen.entry is not None
        assert (shares["served_equal"], shares["served_different"]) == (served[True] / 5, served[False] / 4), rate
        cache.close()


def test_a_blank_text_is_never_matched(encoder: LazyEncoder) -> None:
    pairs = [Pair(" ", "  ", is_equal=True)]
    found = measure("blank", pairs, encoder)
    assert (found["served_equal"], found["decide_p50"]) == (0, None)
    assert found["refused_equal"] == {"unseen": 1}


def test_tenants_are_apart(encoder: LazyEncoder) -> None:
    text, other = PAIRS[0].a, PAIRS[0].b
    encoded = encode_all([text, other], encoder)
    cache = ShippedCache(encoder)
    cache.store(text, encoded[text], tenant="one")
    ask: Callable[..., Any] = cache.ask
    assert ask(other, encoded[other], tenant="one").entry.text == text
    assert ask(other, encoded[other], tenant="two").entry is None
    cache.close()
