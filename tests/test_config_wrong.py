"""Settings that are wrong, and what is said of them; and where the home directory is."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.config import (
    Config,
    environment_for_child,
    load,
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
            ({"sketch": {}}, "sketch is not a setting; known are cache, encoder,"),
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
            (f"a = {'9' * 5000}", "is not TOML"),
            (f"a = {'[' * 5000}{']' * 5000}", "is not TOML"),
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
