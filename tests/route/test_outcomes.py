"""Every form of a line, and every way in which a log can be wrong, with the line's number."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.route import outcomes as module
from llm_proxy.route import traffic
from llm_proxy.route.outcomes import Graded, collect, models_of, read_outcomes


def written(folder: Path, *lines: Any, name: str = "log.jsonl") -> Path:
    path = folder / name
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


GOOD = {"prompt": "good?", "scores": {"a": 0.5, "b": 1}}


class TestForms:
    def test_by_name(self, tmp_path: Path) -> None:
        more = {"tokens": {"b": 7}, "usd": {"a": 0.25, "nobody": 9}, "prompt_tokens": 9, "group": "g"}
        found = read_outcomes(written(tmp_path, {**GOOD, **more}, {"prompt": "none", "scores": {"b": 0, "c": None}}))
        assert found.models == ("a", "b")
        assert found.prompts == ("good?", "none")
        assert np.array_equal(found.scores, np.array([[0.5, 1], [np.nan, 0]], np.float32), equal_nan=True)
        assert np.array_equal(found.tokens, np.array([[np.nan, 7], [np.nan, np.nan]], np.float32), equal_nan=True)
        assert found.usd[0, 0] == 0.25
        assert found.prompt_tokens.tolist() == [9, 1], "a quarter of the characters where nobody counted"
        assert found.groups == ("g", "")
        assert found.asked().tolist() == [0]

    @pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
    def test_by_list(self, tmp_path: Path, name: str) -> None:
        lines = [
            {"prompt": "one", "score": [1, None], "otok": [5, 6], "ptok": 3, "cost": [0.1, 0.2], "task": "t"},
            {"prompt": "two", "score": [False, True], "models": ["b", "c"]},
        ]
        found = read_outcomes(written(tmp_path, *lines, name=name), models=["a", "b"])
        assert found.models == ("a", "b", "c")
        assert np.array_equal(found.scores, np.array([[1, np.nan, np.nan], [np.nan, 0, 1]], np.float32), equal_nan=True)
        assert found.tokens[0].tolist()[:2] == [5, 6]
        assert found.groups == ("t", "")

    def test_one_answer_a_line(self, tmp_path: Path) -> None:
        lines = [
            {"prompt": "p", "model": "a", "score": 1, "otok": 4},
            {"prompt": "p", "model": "b", "score": 0},
            {"prompt": "p", "model": "a", "score": 0, "otok": 8},
        ]
        found = read_outcomes(written(tmp_path, *lines))
        assert found.scores.tolist() == [[0.5, 0]], "of one prompt the mean"
        assert found.tokens[0, 0] == 6
        assert (len(found), found.lines) == (1, 3)

    def test_a_prompt_of_a_megabyte_and_a_lone_surrogate(self, tmp_path: Path) -> None:
        path = written(tmp_path, {**GOOD, "prompt": "x" * (1 << 20)}, '{"prompt": "\\ud800!", "scores": {"a": 1}}', "")
        assert [len(prompt) for prompt in read_outcomes(path).prompts] == [1 << 20, 2]

    def test_rows_and_models(self, tmp_path: Path) -> None:
        found = read_outcomes(written(tmp_path, GOOD, {"prompt": "q", "scores": {"a": 0, "b": 1}, "group": "g"}))
        assert found.rows([1]).prompts == ("q",)
        assert found.rows(np.array([1])).groups == ("g",)
        assert found.of("b", "a").scores.tolist() == [[1, 0.5], [1, 0]]
        with pytest.raises(ConfigError, match=r"no outcomes of 'x'; there are those of a, b"):
            found.of("a", "x")

    def test_clipped(self, tmp_path: Path) -> None:
        path = written(tmp_path, {"prompt": "p", "scores": {"a": -0.03, "b": 7}})
        assert read_outcomes(path, clip=True).scores.tolist() == [[0, 1]]

    def test_lengths_only(self, tmp_path: Path) -> None:
        path = written(tmp_path, {"prompt": "p", "model": "a", "otok": 3})
        assert read_outcomes(path, lengths_only=True).tokens.tolist() == [[3]]
        with pytest.raises(ConfigError, match="has no score"):
            read_outcomes(path)
        with pytest.raises(ConfigError, match="has no lengths"):
            read_outcomes(written(tmp_path, GOOD), lengths_only=True)

    def test_the_hash_is_that_of_the_file(self, tmp_path: Path) -> None:
        one, other = written(tmp_path, GOOD), written(tmp_path, GOOD, {**GOOD, "prompt": "q"}, name="other.jsonl")
        assert len(read_outcomes(one).sha256) == 64
        assert read_outcomes(one).sha256 != read_outcomes(other).sha256


class TestWrong:
    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("{", "not JSON"),
            ("\udcff", "not JSON"),
            ("[" * 100_000, "not JSON"),
            ([1], "must be an object"),
            ({"scores": {"a": 1}}, '"prompt" must be a text'),
            ({"prompt": " ", "scores": {"a": 1}}, '"prompt" must be a text'),
            ({"prompt": "p"}, "no score"),
            ({"prompt": "p", "scores": {}}, "no score"),
            ({"prompt": "p", "scores": [1]}, '"scores" must be an object'),
            ({"prompt": "p", "scores": {"a": 1.5}}, r"score of 'a' must be in \[0, 1\], not 1.5"),
            ({"prompt": "p", "scores": {"a": -1}}, r"score of 'a' must be in \[0, 1\]"),
            ('{"prompt": "p", "scores": {"a": NaN}}', "scores of 'a' must be a number, not nan"),
            ('{"prompt": "p", "scores": {"a": 1e999}}', "scores of 'a' must be a number, not inf"),
            ({"prompt": "p", "scores": {"a": "x" * 99}}, "must be a number, not 'xxx.*…"),
            ({"prompt": "p", "scores": {"a": 1}, "tokens": {"a": -1}}, "tokens of 'a' must be between 0 and"),
            ({"prompt": "p", "score": [1]}, "name the models in models.json"),
            ({"prompt": "p", "score": [1], "models": [1]}, "name the models in models.json"),
            ({"prompt": "p", "score": [1], "models": []}, "name the models in models.json"),
            ({"prompt": "p", "scores": {" ": 1}}, '"scores": a model without a name'),
            ({"prompt": "p", "model": "", "score": 1}, '"scores": a model without a name'),
            ({"prompt": "p", "score": [1], "models": ["a", "b"]}, '"score" has 1 values, but there are 2 models'),
            ({"prompt": "p", "score": 1}, 'a number beside "model"'),
        ],
    )
    def test_a_line(self, tmp_path: Path, line: Any, said: str) -> None:
        path = tmp_path / "log.jsonl"
        text = line if isinstance(line, str) else json.dumps(line)
        path.write_bytes(f"{json.dumps(GOOD)}\n\n{text}\n".encode(errors="surrogateescape"))
        with pytest.raises(ConfigError, match=rf"log\.jsonl line 3: .*{said}"):
            read_outcomes(path)

    @pytest.mark.parametrize(
        ("lines", "said"),
        [
            ([], "has no outcomes"),
            ([GOOD, {"prompt": "q", "scores": {"a": 0.5}}], ""),
            ([{"prompt": "p", "scores": {"a": 1}}, {"prompt": "q", "scores": {"a": 0}}], "scores of 'a' only"),
            ([{"prompt": "p", "scores": {"a": 1, "b": 1}}], "every score is 1: there is nothing to learn"),
        ],
    )
    def test_a_log(self, tmp_path: Path, lines: list[Any], said: str) -> None:
        if not said:
            assert len(read_outcomes(written(tmp_path, *lines))) == 2
            return
        with pytest.raises(ConfigError, match=said):
            read_outcomes(written(tmp_path, *lines))

    def test_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"absent\.jsonl can't be read: No such file"):
            read_outcomes(tmp_path / "absent.jsonl")
        (tmp_path / "plain.jsonl.gz").write_text("{}")
        with pytest.raises(ConfigError, match="can't be read: Not a gzipped file"):
            read_outcomes(tmp_path / "plain.jsonl.gz")
        (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode() * 99)[:-9])
        with pytest.raises(ConfigError, match="can't be read"):
            read_outcomes(tmp_path / "cut.jsonl.gz")

    def test_the_file_goes_away_meanwhile(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="can't be read: No such file"):
            module._sha256(tmp_path / "gone")

    def test_bounds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = written(tmp_path, GOOD, {**GOOD, "prompt": "other"})
        monkeypatch.setattr(module, "_MOST_ROWS", 1)
        with pytest.raises(ConfigError, match="more than 1 lines"):
            read_outcomes(path)
        monkeypatch.setattr(traffic, "_MOST_LINE_BYTES", 10)
        with pytest.raises(ConfigError, match="line 1: longer than"):
            read_outcomes(path)


class TestModels:
    @pytest.mark.parametrize(
        "content",
        [
            ["a", "b"],
            {"models": ["a", "b"]},
            {"models": {"log": ["a", "b"], "other": ["c"]}},
            {"log.jsonl": ["a", "b"]},
        ],
    )
    def test_beside_the_log_or_named(self, tmp_path: Path, content: Any) -> None:
        path = tmp_path / "log.jsonl.gz"
        assert models_of(path) == ()
        (tmp_path / "models.json").write_text(json.dumps(content))
        assert models_of(path) == ("a", "b")
        assert models_of(tmp_path / "elsewhere" / "log.jsonl", tmp_path / "models.json") == ("a", "b")

    @pytest.mark.parametrize("content", ["{", '{"models": []}', '{"models": {"x": ["a"]}}', "[1]", "3", '["a", "a"]'])
    def test_wrong(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "models.json").write_text(content)
        with pytest.raises(ConfigError, match=r"models\.json"):
            models_of(tmp_path / "log.jsonl")

    def test_named_and_absent(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="can't be read"):
            models_of(tmp_path / "log.jsonl", tmp_path / "absent.json")


class TestSource:
    class Ledger:
        """Grades that somebody gave."""

        def __init__(self, *graded: Graded) -> None:
            self._graded = graded

        def graded(self) -> Iterable[Graded]:
            return self._graded

    def test_collected(self) -> None:
        ledger = self.Ledger(Graded("p", {"a": 1.0}, {}, {}), Graded("p", {"b": 0.0}, {"b": 3.0}, {}))
        found = collect(ledger)
        assert found.scores.tolist() == [[1, 0]]
        assert (
            found.sha256
            == collect(ledger).sha256
            != collect(self.Ledger(Graded("p", {"a": 1.0, "b": 0}, {}, {}))).sha256
        )

    def test_nothing_there(self) -> None:
        with pytest.raises(ConfigError, match="the ledger has no outcomes"):
            collect(self.Ledger(), "the ledger")


@pytest.mark.parametrize("field", ['"scores": {"a": %s}', '"scores": {"a": 1}, "tokens": {"a": %s}'])
@pytest.mark.parametrize("number", ["1" * 401, "1e300"])
def test_numbers_that_nothing_can_hold(tmp_path: Path, field: str, number: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"prompt": "p", {field % number}}}\n')
    with pytest.raises(ConfigError, match="line 1"):
        read_outcomes(path)


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.gz"
    content = bytearray(gzip.compress(b'{"prompt": "p", "scores": {"a": 1}}\n' * 2_000))
    content[40:60] = b"\xff" * 20
    path.write_bytes(bytes(content))
    with pytest.raises(ConfigError, match=r"can't be read|not JSON|not UTF"):
        read_outcomes(path)
