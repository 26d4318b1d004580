"""Settings: where they come from, which wins, and what is said when one is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from llm_proxy.cache.bound import ErrorLimits
from llm_proxy.cache.build import error_limits
from llm_proxy.config import (
    BackendConfig,
    BudgetLimit,
    CacheConfig,
    Config,
    environment,
    environment_for_child,
    load,
    settings_file,
    variable_of,
)
from llm_proxy.errors import ConfigError
from llm_proxy.settings.variables import kind_of, tables_of, variables_of

SECRET = "sk-very-secret-0123456789"


LOCAL = {"base_url": "http://127.0.0.1:11434/v1"}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in environment_for_child({}):
        if name.startswith("LLM_PROXY_") or name == "XDG_CACHE_HOME":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def complaint(**sections: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Config(**sections)
    return str(caught.value)


class TestPrecedence:
    def test_default_then_file_then_environment_then_argument(self, tmp_path, monkeypatch):
        assert load().cache.threshold == 0.65
        write(tmp_path / "llm-proxy.toml", "[cache]\nthreshold = 0.9\nttl_s = 60\n")
        assert load().cache.threshold == 0.9
        monkeypatch.setenv("LLM_PROXY_CACHE_THRESHOLD", "0.8")
        assert load().cache.threshold == 0.8
        assert load(cache={"threshold": 0.7}).cache.threshold == 0.7
        assert load(cache={"threshold": 0.7}).cache.ttl_s == 60, "the rest of the section stays"

    def test_a_named_file_wins_over_the_one_here_and_over_the_variable(self, tmp_path, monkeypatch):
        write(tmp_path / "llm-proxy.toml", "[server]\nport = 1")
        second = write(tmp_path / "second.toml", "[server]\nport = 2")
        third = write(tmp_path / "third.toml", "[server]\nport = 3")
        assert (load().server.port, settings_file()) == (1, Path("llm-proxy.toml"))
        monkeypatch.setenv("LLM_PROXY_CONFIG", str(second))
        assert (load().server.port, settings_file()) == (2, second)
        assert (load(third).server.port, load(str(third)).server.port, settings_file(third)) == (3, 3, third)

    def test_no_file_no_variable(self):
        assert settings_file() is None
        assert load() == Config()

    def test_a_ready_configuration_is_taken_as_it_is(self, monkeypatch):
        config = Config(cache={"store": "memory"})
        monkeypatch.setenv("LLM_PROXY_CACHE_THRESHOLD", "0.8")
        assert load(config) is config
        changed = load(config, cache={"threshold": 0.5}, backends={"a": {**LOCAL, "api_key": SECRET}})
        assert (changed.cache.store, changed.cache.threshold) == ("memory", 0.5)
        assert load(changed, server={"port": 1}).backends["a"].key() == SECRET, "secrets survive the merge"

    def test_sections_given_as_objects_replace_the_section(self, monkeypatch):
        monkeypatch.setenv("LLM_PROXY_CACHE_THRESHOLD", "0.8")
        assert load(cache=CacheConfig(store="memory")).cache == CacheConfig(store="memory")

    def test_importing_reads_no_environment(self, tmp_path):
        code = (
            "import os, llm_proxy.config as c; os.environ['XDG_CACHE_HOME'] = '/elsewhere';"
            "print(c.Config().cache.directory)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "/elsewhere/llm-proxy"


def _samples() -> Iterator[tuple[str, tuple[str, ...], str, Any]]:
    """Every plain setting with a value that is not its default: variable, steps, text, value."""
    values = {
        "cache.enabled": ("false", False), "cache.store": ("memory", "memory"),
        "cache.directory": ("/somewhere", Path("/somewhere")), "cache.policy": ("lru", "lru"),
        "budget.strict": ("1", True), "budget.unpriced_usd_per_mtok": ("2.5", 2.5),
        "budget.limits": ('{"a": {"usd_per_day": 1}}', {"a": BudgetLimit(usd_per_day=1)}),
        "cache.budget_bytes": ("2000000", 2_000_000), "cache.max_entries": ("7", 7), "cache.max_entry_bytes": ("8", 8),
        "cache.ttl_s": ("3.5", 3.5), "cache.obey_no_store": ("false", False),
        "cache.max_temperature": ("0.5", 0.5), "cache.tenant": ("user", "user"),
        "cache.semantic": ("0", False), "cache.threshold": ("0.5", 0.5), "cache.check_share": ("0.25", 0.25),
        "cache.explore_share": ("0.1", 0.1),
        "cache.check_usd_per_day": ("2", 2.0), "cache.judge": ("similar", "similar"),
        "encoder.kind": ("sentence-transformers", "sentence-transformers"), "encoder.model": ("m", "m"),
        "encoder.device": ("cuda", "cuda"),
        "encoder.wait_s": ("0.1", 0.1), "encoder.turn_s": ("0.2", 0.2),
        "default_backend": ("a", "a"), "server.host": ("::1", "::1"),
        "cache.context": ("similar", "similar"), "cache.max_error_rate": ("0.02", 0.02), "server.port": ("0", 0),
        "server.keys": ("one, two,", (SecretStr("one"), SecretStr("two"))),
        "observe.outcomes": ("false", False), "observe.outcome_rows": ("11", 11), "observe.outcome_days": ("1.5", 1.5),
        "observe.outcome_bytes": ("2000000", 2_000_000), "observe.prompts": ("true", True),
        "aliases": ('{"gpt-4o": "a/m"}', {"gpt-4o": "a/m"}), "attempts.most": ("7", 7),
        "draft.max_length": ("4", 4), "draft.max_extra_cost": ("0.1", 0.1), "draft.wait_s": ("1.5", 1.5),
        "attempts.longest_wait_s": ("3", 3.0), "attempts.hedge_share": ("0.1", 0.1),
        "server.max_body_bytes": ("9", 9), "server.workers": ("2", 2), "server.client": ("httpx", "httpx"),
        "server.drain_s": ("9", 9), "server.max_connections": ("9", 9), "server.max_head_bytes": ("2048", 2048),
        "server.max_headers": ("9", 9), "server.idle_s": ("9", 9), "server.head_s": ("9", 9.0),
        "server.body_s": ("9", 9.0), "server.stalled_s": ("9", 9.0), "server.body_total_s": ("9", 9.0),
        "server.max_unfinished_bytes": ("9", 9), "server.keys_file": ("/keys.json", Path("/keys.json")),
        "observe.ledger": ("no", False),
        "observe.ledger_rows": ("10", 10),
        "server.dashboard": ("false", False), "server.metrics": ("0", False), "observe.log": ("json", "json"),
        "observe.otel": ("true", True),
        "draft.predicted": ("true", True), "draft.near_similarity": ("0.4", 0.4), "draft.near_misses": ("2", 2),
        "draft.least_accepted": ("0.5", 0.5),
    }  # fmt: skip
    for path, (text, value) in values.items():
        yield variable_of(*path.split(".")), tuple(path.split(".")), text, value


class TestEnvironment:
    @pytest.mark.parametrize(("variable", "steps", "text", "value"), list(_samples()), ids=lambda value: str(value))
    def test_every_plain_setting_has_a_variable(self, monkeypatch, variable, steps, text, value):
        monkeypatch.setenv(variable, text)
        found: Any = load(backends={"a": LOCAL})
        for step in steps:
            found = getattr(found, step)
        assert found == value

    def test_the_samples_are_all_there_are(self):
        known = {steps for _, steps, _, _ in _samples()} | {("backends",), ("routes",)}
        assert set(variables_of(Config).values()) == known

    def test_settings_of_named_tables(self, monkeypatch):
        for name, text in {
            "BASE_URL": "http://h/v1", "API_KEY": SECRET, "API_KEY_ENV": "OTHER", "AUTH": "caller", "MODELS": "x, y",
            "CONTEXT_TOKENS": "8", "HAS_TOOLS": "false", "HAS_IMAGES": "0", "TIMEOUT_S": "2", "USD_PER_SECOND": "0.1",
            "PRICES": '{"x": {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}}',
            "LIMITS": '{"x": {"context_tokens": 9, "has_tools": true}}', "MAX_OUTPUT_TOKENS": "7", "CONCURRENCY": "3",
            "HAS_JSON_SCHEMA": "0", "HAS_JSON_OBJECT": "1", "QUEUE_LENGTH": "4", "QUEUE_WAIT_S": "5",
            "COLD_START_S": "6",
            "RETRIES": "3", "HEDGE": "true", "CAN_PREFILL": "trailing", "TAKES_PREDICTION": "1",
            "PREDICT_WITH": "local/tiny",
            "FALLBACKS": '{"any": ["local/y"]}', "DRAFT_WITH": "local/tiny", "SCORES": "echo", "TEMPLATE": "chatml",
            "GREEDY_WHEN": '{"repeat_penalty": 1}', "RACE_WITH": "local/tiny", "RACE_AFTER_S": "0", "RACE_BAR": "0.5",
        }.items():  # fmt: skip
            monkeypatch.setenv(f"LLM_PROXY_BACKENDS_LOCAL_{name}", text)
        monkeypatch.setenv("LLM_PROXY_DRAFT_PREDICTED", "1")
        monkeypatch.setenv("LLM_PROXY_ROUTES_AUTO_CANDIDATES", "local/x,local/y")
        monkeypatch.setenv("LLM_PROXY_ROUTES_AUTO_LONG_PROMPT_CHARS", "5")
        config = load()
        backend = config.backends["local"]
        assert backend.key() == SECRET
        assert (backend.models, backend.has_tools, backend.prices["x"].output_usd_per_mtok) == (("x", "y"), False, 2)
        assert backend.model_fields_set >= set(BackendConfig.model_fields)
        assert (config.routes["auto"].candidates, config.routes["auto"].long_prompt_chars) == (
            ("local/x", "local/y"),
            5,
        )

    def test_a_route_may_have_an_error_rate_of_its_own(self, monkeypatch):
        monkeypatch.setenv("LLM_PROXY_ROUTES", '{"auto": {"candidates": ["a/x"]}, "sure": {"candidates": ["a/x"]}}')
        monkeypatch.setenv("LLM_PROXY_ROUTES_SURE_MAX_ERROR_RATE", "0.001")
        config = load(backends={"a": LOCAL}, cache={"max_error_rate": 0.02, "explore_share": 0.1, "check_share": 0.3})
        assert error_limits(config.cache, config.routes) == ErrorLimits(0.02, {"auto": 0.02, "sure": 0.001}, 0.1, 0.3)

    def test_a_name_is_spelt_as_in_the_file(self, tmp_path, monkeypatch):
        write(tmp_path / "llm-proxy.toml", '[backends.my-GPU]\nbase_url = "http://h/v1"\nmodels = ["x"]\n')
        monkeypatch.setenv("LLM_PROXY_BACKENDS_MY_GPU_MODELS", "z")
        assert load().backends["my-GPU"].models == ("z",)

    def test_tables_as_json(self, monkeypatch):
        monkeypatch.setenv("LLM_PROXY_BACKENDS", json.dumps({"a": LOCAL}))
        monkeypatch.setenv("LLM_PROXY_ROUTES", '{"auto": {"candidates": ["a/x"]}}')
        assert load().routes["auto"].candidates == ("a/x",)

    def test_an_empty_variable_is_an_unset_one(self, monkeypatch):
        monkeypatch.setenv("LLM_PROXY_CACHE_STORE", "")
        monkeypatch.setenv("LLM_PROXY_SERVER_KEYS", "")
        assert load() == Config()

    @pytest.mark.parametrize("text", ["gpt-4o=auto", "[1]", "{", SECRET])
    def test_a_table_that_is_not_json(self, monkeypatch, text):
        monkeypatch.setenv("LLM_PROXY_ALIASES", text)
        with pytest.raises(ConfigError, match=r"^wrong setting: LLM_PROXY_ALIASES must be a JSON object") as caught:
            load()
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize(
        ("variable", "hint"),
        [
            ("LLM_PROXY_CACHE_TRESHOLD", "did you mean LLM_PROXY_CACHE_THRESHOLD?"),
            ("LLM_PROXY_CAHCE_STORE", "did you mean LLM_PROXY_CACHE_STORE?"),
            ("LLM_PROXY_CONFIGG", "did you mean LLM_PROXY_CONFIG?"),
            ("LLM_PROXY_BACKENDS_LOCAL_URL", "LLM_PROXY_BACKENDS_NAME_... ends with BASE_URL, API_KEY,"),
            ("LLM_PROXY_SERVER_ZZZZ", "which is not a setting"),
        ],
    )
    def test_a_misspelt_variable_is_refused(self, monkeypatch, variable, hint):
        monkeypatch.setenv(variable, SECRET)
        with pytest.raises(ConfigError) as caught:
            load()
        assert variable in str(caught.value)
        assert hint in str(caught.value)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize(
        "variable",
        ["URL", "FOO", "PORT", "SERVICE_HOST", "SERVICE_PORT", "PORT_8080_TCP", "PORT_8080_TCP_ADDR", "CACHE_PORT",
         "CACHE_SERVICE_HOST", "SERVICE_PORT_HTTP"],
    )  # fmt: skip
    def test_variables_of_others_are_left_alone(self, monkeypatch, variable):
        """What ``llm-proxy run`` and Kubernetes put into the environment must not stop a program."""
        monkeypatch.setenv(f"LLM_PROXY_{variable}", "tcp://10.0.0.1:8080")
        assert load() == Config()

    def test_reading_and_handing_on(self, monkeypatch):
        monkeypatch.setenv("LLM_PROXY_TEST", "")
        assert environment("LLM_PROXY_TEST") is None
        monkeypatch.setenv("LLM_PROXY_TEST", "x")
        assert environment("LLM_PROXY_TEST") == "x"
        child = environment_for_child({"LLM_PROXY_TEST": "y", "OTHER": "z"})
        assert (child["LLM_PROXY_TEST"], child["OTHER"]) == ("y", "z")
        assert child["PATH"] == environment("PATH")
        assert environment("OTHER") is None


class TestSecrets:
    def test_are_never_shown(self):
        config = Config(backends={"a": {**LOCAL, "api_key": SECRET}}, server={"keys": [SECRET]})
        shown = (repr(config), str(config), config.model_dump_json(), json.dumps(config.model_dump(mode="json")))
        assert not any(SECRET in text for text in shown)
        assert config.backends["a"].key() == SECRET

    @pytest.mark.parametrize(
        "sections",
        [
            {"server": {"keys": SECRET}},
            {"server": {"keys": [[SECRET]]}},
            {"backends": {"a": {"api_key": SECRET}}},
            {"backends": {"a": {**LOCAL, "api_key": [SECRET]}}},
            {"backends": {"a": {**LOCAL, "api_key_env": SECRET}}},
            {"backends": {"a": {**LOCAL, "api_kye": SECRET}}},
            {"backends": {"a": {"base_url": f"http://user:{SECRET}@h/v1"}}},
            {"backends": {"a": {"base_url": f"htp://user:{SECRET}@h/v1"}}},
            {"api_key": SECRET},
        ],
    )
    def test_are_not_in_errors(self, sections):
        with pytest.raises(ConfigError) as caught:
            Config(**sections)
        assert SECRET not in str(caught.value)
        assert SECRET not in str(caught.value.__cause__)

    def test_a_key_by_name(self, monkeypatch):
        backend = BackendConfig(**LOCAL, api_key_env="MY_KEY")
        assert backend.key() is None
        monkeypatch.setenv("MY_KEY", SECRET)
        assert backend.key() == SECRET
        assert BackendConfig(**LOCAL).key() is None


class TestEquality:
    """Runtimes are shared by equal settings."""

    def test_equal_however_given(self, tmp_path, monkeypatch):
        path = write(tmp_path / "x.toml", f'[server]\nport = 8080\nkeys = ["{SECRET}"]\n[cache]\ndirectory = "c"\n')
        monkeypatch.setenv("LLM_PROXY_CACHE_DIRECTORY", str(tmp_path / "c"))
        monkeypatch.setenv("LLM_PROXY_SERVER_KEYS", SECRET)
        assert load(path) == load() == load(cache={"directory": tmp_path / "c"}, server={"keys": [SECRET]})
        assert load() != load(server={"keys": ["other"]})

    def test_frozen(self):
        with pytest.raises(ValueError, match="frozen"):
            Config().server.port = 1


def test_tables_whose_names_the_user_chooses():
    assert set(tables_of(Config)) == {"backends", "routes"}
    assert kind_of(Config, ("cache", "nothing")) is None
    assert kind_of(Config, ("cache", "store", "more")) is None


class TestCompareJudge:
    @pytest.mark.parametrize("judge", ["exact", "normalised", "similar", "a/judge"])
    def test_is_a_way_or_a_model(self, judge):
        route = {"candidates": ["a/m"], "compare_judge": judge}
        assert load(backends={"a": LOCAL}, routes={"auto": route}).routes["auto"].compare_judge == judge

    @pytest.mark.parametrize("judge", ["", "gpt-4o", "b/judge", "a/"])
    def test_is_nothing_else(self, judge):
        route = {"candidates": ["a/m"], "compare_judge": judge}
        with pytest.raises(ConfigError, match=r"routes\.auto\.compare_judge must be exact, normalised, similar or"):
            load(backends={"a": LOCAL}, routes={"auto": route})
