"""``llm-proxy doctor``: each line, on a machine that is well and on one that isn't."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import date
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.backends.discover import LocalServer
from llm_proxy.cache.build import ENTRIES_NAME, SNAPSHOT_NAME, build
from llm_proxy.config import Config, load
from llm_proxy.errors import CacheError, MissingDependencyError
from llm_proxy.faces.cli import _checks as checks
from llm_proxy.faces.cli import _checks_cache as cache_checks
from llm_proxy.faces.cli._findings import Finding
from llm_proxy.runtime import LEDGER_NAME, SystemClock
from tests.faces.cli_kit import entry, invoke, seed, settled
from tests.privileges import unprivileged

SECRET = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(checks, "discover", lambda: ())
    with settled(monkeypatch) as folder:
        yield folder


def doctor(*arguments: str, code: int = 0) -> list[Finding]:
    """The findings; the table must say the same."""
    result = invoke(*arguments, "doctor", "--json", code=code)
    report = json.loads(result.stdout)
    findings = [Finding(**row) for row in report["findings"]]
    assert report["problems"] == sum(finding.state == "problem" for finding in findings)
    assert (report["problems"] > 0) == (code == 1)
    shown = " ".join(invoke(*arguments, "doctor", code=code).stdout.split())
    for finding in findings:
        assert " ".join(finding.message.split())[:60] in shown or finding.topic in ("encoder", "guard")
    return findings


def of(topic: str, findings: Any) -> list[Finding]:
    return [finding for finding in findings if finding.topic == topic]


def installed(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Make packages have these versions, or be absent."""
    real = checks.version
    wanted = {name.replace("_", "-"): number for name, number in versions.items()}

    def version(name: str) -> str:
        number = wanted.get(name, "") if name in wanted else real(name)
        if number is None:
            raise PackageNotFoundError(name)
        return number

    monkeypatch.setattr(checks, "version", version)


def test_a_machine_that_is_well(directory):
    findings = doctor()
    assert {finding.state for finding in findings} == {"ok"}
    assert {finding.topic for finding in findings} == {
        "python", "packages", "openai", "extras", "settings", "keys", "encoder", "guard", "cache", "ledger",
        "local server", "prices", "proxy",
    }  # fmt: skip
    assert not directory.exists(), "looking makes nothing"


class TestPackages:
    def test_what_is_missing(self, monkeypatch):
        installed(monkeypatch, diskcache=None, faiss_cpu=None, onnxruntime=None)
        findings = list(checks.packages())
        assert Finding("packages", "problem", "diskcache not installed", "pip install diskcache") in findings
        assert "diskcache" not in of("packages", findings)[1].message
        (extras, rest) = of("extras", findings)
        assert extras.state == "warning"
        assert extras.message.startswith("faiss-cpu, onnxruntime not installed: only repeated questions")
        assert extras.remedy == 'pip install "llm-proxy[cpu]"'
        assert "tokenizers" in rest.message

    def test_no_extra_at_all(self, monkeypatch):
        installed(monkeypatch, faiss_cpu=None, onnxruntime=None, tokenizers=None, numpy=None)
        (extras,) = of("extras", checks.packages())
        assert extras.state == "warning"

    def test_the_proxy_s_extra_may_be_missing(self, monkeypatch):
        installed(monkeypatch, aiohttp="3.11", httptools=None, uvloop="0.21")
        (finding,) = checks.optional(Config())
        assert finding == Finding(
            "proxy", "ok", "httptools not installed: the proxy serves without, slower", 'pip install "llm-proxy[proxy]"'
        )
        installed(monkeypatch, aiohttp="3.11", httptools="0.6", uvloop="0.21")
        assert list(checks.optional(Config())) == [Finding("proxy", "ok", "aiohttp 3.11, httptools 0.6, uvloop 0.21")]

    def test_opentelemetry_is_looked_for_where_it_is_asked_for(self, monkeypatch):
        config = Config(observe={"otel": True})
        installed(monkeypatch, opentelemetry_api=None)
        finding = list(checks.optional(config))[1]
        assert (finding.topic, finding.state, finding.remedy) == ("otel", "problem", 'pip install "llm-proxy[otel]"')
        installed(monkeypatch, opentelemetry_api="1.30")
        assert list(checks.optional(config))[1] == Finding("otel", "ok", "opentelemetry-api 1.30")

    def test_both_onnx_runtimes(self, monkeypatch):
        installed(monkeypatch, onnxruntime="1.20", onnxruntime_gpu="1.20")
        (extras, _) = of("extras", checks.packages())
        assert extras.state == "problem"
        assert extras.remedy.startswith("pip uninstall -y onnxruntime onnxruntime-gpu")

    def test_the_gpu_runtime_alone_is_well(self, monkeypatch):
        installed(monkeypatch, onnxruntime=None, onnxruntime_gpu="1.20")
        (extras,) = of("extras", checks.packages())
        assert (extras.state, "onnxruntime-gpu 1.20" in extras.message) == ("ok", True)

    @pytest.mark.parametrize(("number", "state"), [("1.99", "warning"), ("4.0", "warning"), ("2.1", "ok")])
    def test_versions_of_openai(self, monkeypatch, number, state):
        installed(monkeypatch, openai=number)
        assert of("openai", checks.packages())[0].state == state

    def test_openai_or_its_family_is_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "llm_proxy.faces._http", None)
        (finding,) = of("openai", checks.packages())
        assert (finding.state, finding.remedy) == ("problem", "pip install --force-reinstall openai")
        installed(monkeypatch, openai=None)
        assert of("openai", checks.packages()) == []
        assert of("packages", checks.packages())[0].remedy == "pip install openai"

    def test_an_old_python(self, monkeypatch):
        monkeypatch.setattr(sys, "version_info", (3, 10, 1))
        assert of("python", checks.packages())[0].remedy == "use Python 3.11 or later"


class TestGuard:
    def test_a_pair_model_that_does_not_load(self, monkeypatch):
        def load():
            raise MissingDependencyError("no model here")

        monkeypatch.setattr("llm_proxy.cache.guard.load_shipped", load)
        (guard,) = of("guard", doctor(code=1))
        assert (guard.state, guard.message) == ("problem", "no model here: semantic hits go by rules alone")
        assert guard.remedy.startswith("pip install")


class TestSettings:
    def test_a_file(self, directory):
        (directory.parent / "llm-proxy.toml").write_text("[server]\nport = 1\n")
        assert of("settings", doctor()) == [Finding("settings", "ok", "llm-proxy.toml")]

    def test_a_wrong_one_does_not_stop_the_rest(self, directory):
        (directory.parent / "llm-proxy.toml").write_text("[cache]\ntreshold = 1\n")
        findings = doctor(code=1)
        (finding,) = of("settings", findings)
        assert (finding.state, "did you mean cache.threshold?" in finding.message) == ("problem", True)
        assert of("prices", findings)

    def test_one_that_is_not_there(self):
        (finding,) = of("settings", doctor("--config", "absent.toml", code=1))
        assert "absent.toml can't be read" in finding.message


class TestKeys:
    def test_are_named_and_never_shown(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", f"{SECRET}\n")
        monkeypatch.setenv("MY_KEY", SECRET)
        for name, settings in {"A": {"API_KEY_ENV": "MY_KEY"}, "B": {"API_KEY": SECRET}, "C": {}}.items():
            for field, value in {"BASE_URL": "http://127.0.0.1:1/v1", **settings}.items():
                monkeypatch.setenv(f"LLM_PROXY_BACKENDS_{name}_{field}", value)
        result = invoke("doctor", "--json")
        assert SECRET not in result.stdout + result.stderr + invoke("doctor").stdout
        said = [row["message"] for row in json.loads(result.stdout)["findings"] if row["topic"] == "keys"]
        assert said == [
            "OPENAI_API_KEY is set",
            "AZURE_OPENAI_API_KEY is set, with white space around it",
            "backend a: MY_KEY is set",
            "backend b: key set in the settings",
            "backend c: key not configured",
        ]

    def test_one_that_is_asked_for_and_absent(self):
        config = Config(backends={"a": {"base_url": "http://h/v1", "api_key_env": "NO_SUCH_KEY"}})
        finding = list(checks.keys(config))[-1]
        assert (finding.state, finding.remedy) == ("problem", "export NO_SUCH_KEY=...")

    def test_a_backend_that_callers_keys_no_longer_reach(self, tmp_path):
        backend = {"base_url": "https://h/v1", "auth": "caller"}
        assert {finding.state for finding in checks.keys(Config(backends={"a": backend}))} == {"ok"}
        warned = list(checks.keys(Config(backends={"a": backend}, server={"keys": ["s" * 32]})))[-1]
        assert (warned.state, warned.remedy) == ("warning", "set backends.a.api_key_env")
        own = Config(backends={"a": {**backend, "api_key": SECRET}}, server={"keys": ["s" * 32]})
        assert {finding.state for finding in checks.keys(own)} == {"ok"}
        file = tmp_path / "keys.json"
        file.write_text("{}")
        issued = Config(backends={"a": backend}, server={"keys_file": file})
        assert [finding.state for finding in checks.keys(issued)][-1] == "warning"


def test_local_servers(monkeypatch):
    found = (
        LocalServer("Ollama", "http://127.0.0.1:11434/v1", ("a", "b", "c", "d", "e")),
        LocalServer("LM Studio", "http://127.0.0.1:1234/v1", ()),
    )
    monkeypatch.setattr(checks, "discover", lambda: found)
    assert [finding.message for finding in checks.servers()] == [
        "Ollama at http://127.0.0.1:11434/v1: a, b, c and 2 more",
        "LM Studio at http://127.0.0.1:1234/v1: no model loaded",
    ]


def test_prices(monkeypatch):
    (finding,) = checks.prices(date(2100, 1, 1))
    assert (finding.state, finding.remedy) == ("warning", "pip install -U genai-prices")
    (finding,) = checks.prices(date(1990, 1, 1))
    assert "no date" in finding.message
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    (finding,) = checks.prices(date(2026, 1, 1))
    assert finding.state == "problem"


class TestEncoder:
    def test_each_provider_encodes_a_text(self):
        (finding,) = [row for row in cache_checks.encoder(load()) if "CPUExecutionProvider" in row.message]
        assert finding.state == "ok"
        assert finding.message.endswith(" ms a text")

    def test_not_asked_for_or_not_installed(self, monkeypatch):
        for section in ({"semantic": False}, {"enabled": False}):
            assert [finding.state for finding in cache_checks.encoder(load(cache=section))] == ["ok"]
        monkeypatch.setattr(cache_checks, "exact_only", lambda config: "numpy not installed")
        assert [finding.state for finding in cache_checks.encoder(load())] == ["warning"]

    def test_a_folder_that_holds_no_model(self, directory):
        config = load(encoder={"model": str(directory / "nowhere")})
        (finding,) = cache_checks.encoder(config)
        assert (finding.state, finding.remedy) == ("problem", "correct encoder.model")

    def test_accelerators_that_are_not_used(self, monkeypatch):
        from llm_proxy.encode import onnx

        class Fallen:
            provider, name = "CPUExecutionProvider", "fallen"
            passed_over = (("CUDAExecutionProvider", "it did not start"), ("DmlExecutionProvider", "it is slower"))

            def __init__(self, folder: object, *, device: str) -> None:
                pass

            def encode(self, text: str) -> None:
                pass

        providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)
        monkeypatch.setattr(onnx, "OnnxEncoder", Fallen)
        used, cuda, directml, tensorrt = cache_checks.encoder(load())
        assert [one.state for one in (used, cuda, directml, tensorrt)] == ["ok", "warning", "warning", "ok"]
        assert used.message.startswith("fallen on CPUExecutionProvider: ")
        assert cuda.message == "CUDAExecutionProvider is not used: it did not start"
        assert 'pip install "llm-proxy[gpu]"' in cuda.remedy
        assert directml.message == "DmlExecutionProvider is not used: it is slower"
        assert 'only where encoder.device = "tensorrt"' in tensorrt.message
        assert len(list(cache_checks.encoder(load(encoder={"device": "cuda"})))) == 3

    @pytest.mark.parametrize(
        ("error", "remedy"),
        [("MissingDependencyError", "pip install --force-reinstall"), ("CacheError", "report it")],
    )
    def test_one_that_fails(self, monkeypatch, error, remedy):
        import llm_proxy
        from llm_proxy.encode import onnx

        def broken(folder: object, *, device: str) -> None:
            raise getattr(llm_proxy, error)("it fails")

        monkeypatch.setattr(onnx, "OnnxEncoder", broken)
        finding = list(cache_checks.encoder(load()))[-1]
        assert finding.state == "problem"
        assert finding.message.endswith("it fails")
        assert finding.remedy.startswith(remedy)

    def test_a_sentence_transformers_model(self, monkeypatch):
        from llm_proxy.testing import FakeEncoder

        monkeypatch.setattr(cache_checks, "exact_only", lambda config: "")
        config = load(encoder={"kind": "sentence-transformers"})
        monkeypatch.setattr("llm_proxy.encode.lazy.build", lambda settings: FakeEncoder())
        (finding,) = cache_checks.encoder(config)
        assert (finding.state, finding.message.startswith("fake-64: ")) == ("ok", True)
        monkeypatch.setattr("llm_proxy.encode.lazy.build", lambda settings: FakeEncoder(error=CacheError("it fails")))
        (finding,) = cache_checks.encoder(config)
        assert (finding.state, finding.message) == ("problem", "it fails")


class TestCache:
    def check(self) -> list[Finding]:
        return list(cache_checks.cache(load()))

    def test_entries_and_snapshot(self, directory):
        cache = build(load().cache, clock=SystemClock())
        for number in range(3):
            cache.admit(entry(number))
        cache.close()
        directory.chmod(0o700)
        findings = doctor()
        assert of("cache", findings)[0].message.startswith(f"{directory}: 3 entries, ")
        assert of("index", findings)[0].message.startswith("snapshot of 3 vectors, ")

    @pytest.mark.parametrize("absent", [("faiss",), ("faiss", "numpy")])
    def test_a_snapshot_that_is_of_no_use_here(self, directory, monkeypatch, absent):
        cache = build(load().cache, clock=SystemClock())
        cache.admit(entry(0))
        cache.close()
        monkeypatch.setattr(cache_checks, "find_spec", lambda name: None if name in absent else name)
        message = of("index", self.check())[0].message
        assert message.startswith("snapshot of ")
        assert message.endswith(f"which is of use with {' and '.join(absent)} only")

    def test_many_are_not_all_counted(self, directory, monkeypatch):
        monkeypatch.setattr(cache_checks, "_ENOUGH", 2)
        seed(directory, *(entry(number) for number in range(4)))
        assert "more than 2 entries" in of("cache", self.check())[-1].message
        assert of("index", self.check())[0].message == "no snapshot yet: built from the entries at start"

    def test_what_it_means_to_share_it(self):
        shared, _ = cache_checks.cache(load(cache={"store": "memory", "tenant": "fixed:all"}))
        assert (shared.state, "one another's answers" in shared.message) == ("warning", True)

    def test_off_and_in_memory(self):
        assert [row.state for row in cache_checks.cache(load(cache={"enabled": False}))] == ["warning"]
        assert [row.state for row in cache_checks.cache(load(cache={"store": "memory"}))] == ["ok"]

    def test_a_corrupt_one(self, directory):
        (directory / ENTRIES_NAME).mkdir(parents=True, mode=0o700)
        directory.chmod(0o700)
        (directory / ENTRIES_NAME / "cache.db").write_bytes(b"Dear aunt, " * 500)
        (finding,) = self.check()
        assert finding.state == "problem"
        assert finding.remedy.startswith("llm-proxy cache check --repair")

    @pytest.mark.parametrize(
        ("number", "remedy"), [(99, "update llm-proxy, or set another"), ("x", "set another cache.directory")]
    )
    def test_one_that_is_not_for_this_program(self, directory, number, remedy):
        seed(directory, entry(1))
        with closing(sqlite3.connect(directory / ENTRIES_NAME / "cache.db")) as connection:
            connection.execute("UPDATE Cache SET value = ? WHERE key = 'n:schema'", (number,))
            connection.commit()
        (finding,) = [row for row in self.check() if row.state == "problem"]
        assert finding.remedy.startswith(remedy)

    def test_a_damaged_snapshot(self, directory):
        seed(directory, entry(1))
        (directory / SNAPSHOT_NAME).write_bytes(b"nonsense")
        (finding,) = of("index", self.check())
        assert finding.state == "warning"

    def test_no_folder(self, directory):
        directory.write_text("I am a file")
        assert [row.message for row in self.check()] == [f"{directory} is not a folder"]

    def test_a_folder_that_may_not_be_written(self, directory):
        directory.mkdir()
        directory.chmod(0o555)
        with unprivileged():
            findings = self.check()
        assert [row.message for row in findings] == [f"{directory} may not be written"]

    def test_a_folder_that_others_may_read(self, directory):
        directory.mkdir()
        directory.chmod(0o755)
        (finding,) = self.check()
        assert (finding.state, finding.remedy) == ("warning", f"chmod 700 {directory}")

    def test_a_disk_with_little_room(self, monkeypatch):
        monkeypatch.setenv("LLM_PROXY_CACHE_BUDGET_BYTES", str(1 << 60))
        finding = self.check()[0]
        assert (finding.state, "less than cache.budget_bytes" in finding.message) == ("warning", True)


class TestLedger:
    def test_none_is_kept(self):
        assert list(cache_checks.ledger(load(observe={"ledger": False}))) == []

    def test_one_that_can_not_be_read(self, directory):
        directory.mkdir()
        (directory / LEDGER_NAME).write_bytes(b"Dear aunt, " * 500)
        (finding,) = cache_checks.ledger(load())
        assert finding.state == "problem"
