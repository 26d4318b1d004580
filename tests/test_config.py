"""Settings: where they come from, which wins, and what is said when one is wrong."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from llm_proxy._variables import kind_of, tables_of, variables_of
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
        "encoder.wait_s": ("0.1", 0.1), "default_backend": ("a", "a"), "server.host": ("::1", "::1"),
        "cache.context": ("similar", "similar"), "cache.max_error_rate": ("0.02", 0.02), "server.port": ("0", 0),
        "server.keys": ("one, two,", (SecretStr("one"), SecretStr("two"))),
        "server.max_body_bytes": ("9", 9), "observe.ledger": ("no", False), "observe.ledger_rows": ("10", 10),
        "observe.outcomes": ("false", False), "observe.outcome_rows": ("11", 11), "observe.outcome_days": ("1.5", 1.5),
        "observe.outcome_bytes": ("2000000", 2_000_000), "observe.prompts": ("true", True),
        "aliases": ('{"gpt-4o": "a/m"}', {"gpt-4o": "a/m"}),
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
        }.items():  # fmt: skip
            monkeypatch.setenv(f"LLM_PROXY_BACKENDS_LOCAL_{name}", text)
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


class TestWrong:
    def test_what_is_no_table_stays_wrong_under_a_variable(self, tmp_path, monkeypatch):
        file = tmp_path / "llm-proxy.toml"
        file.write_text("cache = 5\n", encoding="utf-8")
        monkeypatch.setenv("LLM_PROXY_CACHE_STORE", "memory")
        with pytest.raises(ConfigError, match="cache must be a table"):
            load(file)

    @pytest.mark.parametrize(
        ("sections", "sentence"),
        [
            ({"cache": {"treshold": 1}}, "cache.treshold is not a setting; did you mean cache.threshold?"),
            ({"chache": {}}, "chache is not a setting; did you mean cache?"),
            ({"threshold": 0.9}, "threshold is not a setting; did you mean cache.threshold?"),
            ({"cache": {"zzz": 1}}, "cache.zzz is not a setting; known are enabled, store, directory,"),
            ({"draft": {}}, "draft is not a setting; known are cache, encoder,"),
            ({"money": {"usd": 1}}, "money is not a setting; known are cache,"),
            ({"backends": {"a": {**LOCAL, "urll": 1}}}, "backends.a.urll is not a setting; known are base_url,"),
            ({"cache": 3}, "cache must be a table"),
            ({"backends": [1]}, "backends must be a table"),
            ({"aliases": 3}, "aliases must be a table"),
            ({"server": {"keys": "abc"}}, "server.keys must be a list"),
            ({"backends": {"a": {}}}, "backends.a.base_url is missing"),
            ({"cache": {"budget_bytes": "ten"}}, "cache.budget_bytes must be a valid integer, not 'ten'"),
            ({"cache": {"budget_bytes": True}}, "cache.budget_bytes must not be true or false"),
            ({"server": {"port": False}}, "server.port must not be true or false"),
            ({"cache": {"threshold": True}}, "cache.threshold must not be true or false"),
            ({"cache": {"budget_bytes": 0}}, "cache.budget_bytes must be greater than or equal to 1048576, not 0"),
            ({"cache": {"store": "redis"}}, "cache.store must be 'disk' or 'memory', not 'redis'"),
            ({"cache": {"store": "x" * 90}}, "cache.store must be 'disk' or 'memory'"),
            ({"cache": {"ttl_s": float("nan")}}, "cache.ttl_s must be a finite number, not nan"),
            ({"cache": {"tenant": "header:"}}, "cache.tenant must be api_key, user, header:NAME or fixed:NAME, not"),
            ({"cache": {"directory": ""}}, "cache.directory must be the path of a folder"),
            ({"cache": {"directory": "a\0b"}}, "cache.directory must be the path of a folder"),
            ({"cache": {"directory": "~no-such-user-here/x"}}, "cache.directory can't be resolved"),
            ({"server": {"port": 70000}}, "server.port must be less than or equal to 65535, not 70000"),
            ({"routes": {"r": {"candidates": []}}}, "routes.r.candidates must have at least 1 item"),
            ({"default_backend": "x"}, "default_backend must be configured under [backends], not 'x'"),
            ({"backends": {"a": LOCAL}, "default_backend": "x"}, "default_backend must be one of ['a'], not 'x'"),
            ({"backends": {"a b": LOCAL}}, "backends name 'a b' must be letters, digits and . _ - only"),
            ({"aliases": {"x": "y", "y": "z"}}, "aliases.x must name a model or a route, not the alias 'y'"),
        ],
    )  # fmt: skip
    def test_one_clear_sentence(self, sections, sentence):
        said = complaint(**sections)
        assert said.startswith(f"wrong setting: {sentence}")
        assert "\n" not in said

    @pytest.mark.parametrize("candidate", ["x", "x/", "b/m", "/m"])
    def test_candidates_name_a_backend_and_a_model(self, candidate):
        said = complaint(backends={"a": LOCAL}, routes={"r": {"candidates": [candidate]}})
        assert said == (
            f"wrong setting: routes.r.candidates must be BACKEND/MODEL with BACKEND one of ['a'], not {candidate!r}"
        )

    def test_names_of_a_head_s_models_are_those_of_candidates(self):
        route = {"candidates": ["a/x", "a/y"], "known_as": {"a/z": "Z"}}
        said = complaint(backends={"a": LOCAL}, routes={"r": route})
        assert said == "wrong setting: routes.r.known_as must name one of ['a/x', 'a/y'], not 'a/z'"

    def test_what_a_model_can_do_is_a_number_or_true_or_false(self):
        assert "context_tokens must not be true or false" in complaint(
            backends={"a": {**LOCAL, "limits": {"x": {"context_tokens": True}}}}
        )
        limits = Config(backends={"a": {**LOCAL, "limits": {"x": {"has_tools": True}}}}).backends["a"].limits
        assert (limits["x"].has_tools, limits["x"].has_images) == (True, None)

    @pytest.mark.parametrize(
        ("setting", "value"), [("quality", 0.0), ("quality", 1.1), ("usd_per_good_answer", 0.0), ("objective", "both")]
    )
    def test_a_route_s_terms_have_bounds(self, setting, value):
        said = complaint(backends={"a": LOCAL}, routes={"r": {"candidates": ["a/x"], setting: value}})
        assert said.startswith(f"wrong setting: routes.r.{setting} must")

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"candidates": ["a/x"], "cascade": True}, "routes.r.cascade needs two candidates or more"),
            (
                {"cascade_judge": "b/x"},
                "routes.r.cascade_judge must be BACKEND/MODEL with BACKEND one of ['a'], not 'b/x'",
            ),
            ({"cascade_agree_with": "a/"}, "routes.r.cascade_agree_with must be BACKEND/MODEL with BACKEND one of"),
            ({"cascade_steps": 1}, "routes.r.cascade_steps must be greater than or equal to 2, not 1"),
        ],
    )
    def test_a_cascade_needs_whom_it_asks(self, settings, said):
        route = {"candidates": ["a/x", "a/y"], **settings}
        assert said in complaint(backends={"a": LOCAL}, routes={"r": route})

    @pytest.mark.parametrize(
        "url", ["localhost:8000", "ftp://h", "http://", "", "http://h:0/", "http://h:99999/v1", "http://h/ v1",
                "http://h\n/v1", "http://[::1", "http://hé/v1", "http://h/v1?x=1", "http://h/v1#x"],
    )  # fmt: skip
    def test_a_base_url_is_absolute_and_plain(self, url):
        assert complaint(backends={"a": {"base_url": url}}).startswith("wrong setting: backends.a.base_url must ")

    @pytest.mark.parametrize("url", ["http://h/v1", "https://h:1/v1/", "http://[::1]:8000/v1", "https://h/@cf/v1"])
    def test_good_base_urls(self, url):
        assert Config(backends={"a": {"base_url": url}}).backends["a"].base_url == url.rstrip("/")

    def test_several_faults_are_told_at_once(self):
        said = complaint(cache={"store": 1, "policy": 1}, server={"port": -1})
        assert said.count(";") == 2
        many = complaint(cache={f"x{number}": 1 for number in range(9)})
        assert many.endswith("; and 4 more")

    def test_where_a_wrong_value_came_from(self, tmp_path, monkeypatch):
        path = write(tmp_path / "llm-proxy.toml", "[cache]\nttl_s = -1\n[server]\nport = -1\n[zzz]\na = 1\n")
        monkeypatch.setenv("LLM_PROXY_SERVER_PORT", "-2")
        with pytest.raises(ConfigError) as caught:
            load(path, cache={"threshold": 7})
        assert f"cache.ttl_s must be greater than 0, not -1 (from {path})" in str(caught.value)
        assert "port must be greater than or equal to 0, not '-2' (from LLM_PROXY_SERVER_PORT)" in str(caught.value)
        assert "cache.threshold must be less than or equal to 1, not 7;" in str(caught.value)
        assert str(caught.value).endswith(f"(from {path})"), "the unknown section too"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[cache", "is not TOML"),
            ("[cache]\nstore = 'a'\nstore = 'b'", "is not TOML"),
            ("a = 1\n" * 2, "is not TOML"),
        ],
    )
    def test_a_file_that_is_not_toml(self, tmp_path, text, said):
        path = write(tmp_path / "x.toml", text)
        with pytest.raises(ConfigError, match=said) as caught:
            load(path)
        assert str(path) in str(caught.value)

    def test_a_file_that_is_not_text_is_not_there_or_is_a_folder(self, tmp_path):
        (tmp_path / "x.toml").write_bytes(b"\xff\xfe[")
        with pytest.raises(ConfigError, match="is not TOML"):
            load(tmp_path / "x.toml")
        with pytest.raises(ConfigError, match="can't be read: No such file"):
            load(tmp_path / "absent.toml")
        with pytest.raises(ConfigError, match="can't be read: Is a directory"):
            load(tmp_path)

    def test_a_byte_order_mark_does_no_harm(self, tmp_path):
        (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbf[server]\nport = 5\n")
        assert load(tmp_path / "x.toml").server.port == 5

    @given(
        st.dictionaries(st.text(max_size=12), st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=9)))
    )
    def test_any_nonsense_is_a_config_error(self, section):
        with contextlib.suppress(ConfigError):
            Config(cache=section)


class TestHome:
    def test_the_default_directory(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert Config().cache.directory == tmp_path / ".cache" / "llm-proxy"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert Config().cache.directory == tmp_path / "xdg" / "llm-proxy"

    def test_directories_are_absolute_and_know_home(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert Config(cache={"directory": "~/x"}).cache.directory == tmp_path / "x"
        assert Config(cache={"directory": "x"}).cache.directory == Path.cwd() / "x"

    def test_no_home_at_all(self, monkeypatch):
        def homeless() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", homeless)
        with pytest.raises(ConfigError, match=r"no home folder .* set cache.directory \(LLM_PROXY_CACHE_DIRECTORY\)"):
            Config()
        assert Config(cache={"directory": "/x"}).cache.directory == Path("/x")


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
