"""`benchmarks.encoder` and what it shares with the others; times are not asserted here."""

import gzip
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _report
from benchmarks import encoder as benchmark
from benchmarks._queries import read_texts, sample

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.jsonl", '{"text": "x\u2028y", "intent": "i"}\n\n{"text": "z"}\n', ["x\u2028y", "z"]),
        ("a.jsonl", '{"id": 1, "prompt": "p"}', ["p"]),
        ("a.tsv", 'Date\tQuery\tScore\n1\tsay "hi\t3\n2\tb\t4\n', ['say "hi', "b"]),
        ("a.csv", 'question,n\n"one, two\nlines",1\n', ["one, two\nlines"]),
        ("a.json", '["a", "b", "a"]', ["a", "b"]),
        ("a.txt", "one\ntwo\n", ["one", "two"]),
    ],
)
@pytest.mark.parametrize("is_packed", [False, True])
def test_texts_of_every_kind_of_file(
    tmp_path: Path, name: str, content: str, texts: list[str], is_packed: bool
) -> None:
    path = tmp_path / (name + ".gz" * is_packed)
    path.write_bytes(gzip.compress(content.encode()) if is_packed else content.encode())
    assert read_texts(path) == texts


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", b'{"id": 1}'), ("a.jsonl", b"{"), ("a.tsv", b"a\tb\n1\t2\n"), ("a.json", b"[1]"), ("a.gz", b"no")],
)
def test_files_without_texts_end_the_run(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit, match="no texts"):
        read_texts(tmp_path / name)


def test_a_sample_is_even_and_repeatable(tmp_path: Path) -> None:
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path, count in zip(paths, (2, 100), strict=True):
        path.write_text("\n".join(f"{path.stem}{number}" for number in range(count)))
    drawn = sample(paths, 20)
    assert len(drawn) == 20
    assert {"a0", "a1"} <= set(drawn)
    assert drawn == sample(paths, 20)


def test_a_report_prints_records_and_ends_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_report, "RESULTS", tmp_path / "results")
    table = [("name", 1), ("longer name", "2 ms", "note")]
    _report.report("try", {"p50": 1.5}, Namespace(json=True, record=True), table=table)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["name         1", "longer name  2 ms  note"]
    result = json.loads(lines[-1])
    assert result["p50"] == 1.5
    assert {"processor", "python", "packages", "commit", "date"} <= set(result["machine"])
    assert json.loads((tmp_path / "results" / "try.json").read_text()) == result


def test_options_have_defaults_and_may_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--json", "--cache-fraction", "0.5", "--files", "a", "b"])
    options = _report.arguments(
        "try", "What: more.", cache_fraction=(float, 0.1, "share"), files=(Path, [], "files", "+"), seed=(int, 3, "s")
    )
    assert (options.json, options.record, options.cache_fraction, options.seed) == (True, False, 0.5, 3)
    assert options.files == [Path("a"), Path("b")]


def test_the_encoder_benchmark_gives_its_keys() -> None:
    command = [sys.executable, "-m", "benchmarks.encoder", "--provider", "cpu", "--runs", "1", "--json"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures = json.loads(run.stdout.splitlines()[-1])
    assert figures["provider"] == "CPUExecutionProvider"
    assert figures["cosine_to_reference"] >= 0.99
    assert figures["model_bytes"] <= 24_000_000
    assert 0 < figures["encode_p50"] < figures["encode_256_p50"]
    assert figures["texts_per_s"] > 0


@pytest.mark.parametrize("provider", ["cuda", "tpu"])
def test_a_provider_that_is_not_there_ends_the_run(provider: str) -> None:
    import onnxruntime

    if f"{provider.upper()}ExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip(f"{provider} is there")
    command = [sys.executable, "-m", "benchmarks.encoder", "--provider", provider]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert provider.upper() in run.stderr.upper()


def test_decisions_are_the_nearest_text_and_the_first_model_that_is_good_enough() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]], np.float32)
    assert benchmark.hits(vectors, 0.9).tolist() == [[1, 0], [3, 1], [3, 0], [1, 1]]
    p_good = np.array([[0.5, 0.6], [0.58, 0.6], [0.6, 0.1]], np.float32)
    assert benchmark.choices(p_good).tolist() == [1, 0, 0]


def test_an_accelerator_s_decisions_are_counted_against_the_processor_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The processor plays the accelerator, so all are equal."""
    queries = tmp_path / "a.txt"
    queries.write_text("\n".join(f"question number {number} about the sea" for number in range(12)))
    monkeypatch.setattr(benchmark, "_provider", lambda name: "CPUExecutionProvider")
    monkeypatch.setattr(benchmark, "_CALLS", 1)
    monkeypatch.setattr(
        sys, "argv", ["encoder", "--provider", "cuda", "--queries", str(queries), "--runs", "1", "--json"]
    )
    benchmark.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["decisions"], figures["decisions_equal"]) == (12, 12)
    assert "routes_equal" not in figures
