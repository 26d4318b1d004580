"""``llm-proxy route train``, ``calibrate`` and ``eval``: a head that is worth it is installed, another one is not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.faces.cli import _route_log
from llm_proxy.faces.cli._route_log import known_to, plain
from llm_proxy.route.metrics import Bin
from tests.faces.cli_kit import entry, invoke, invoke_json, seed, settled
from tests.route.route_kit import TopicEncoder, lines, written

PRICES = ("--prices", "weak=1/1,strong=10/10")


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("llm_proxy.encode.onnx.OnnxEncoder", lambda folder, **options: TopicEncoder())
    with settled(monkeypatch) as folder:
        yield folder


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(written(tmp_path / "log.jsonl", lines()))


class TestTrain:
    def test_installed_and_again(self, log: str, directory: Path) -> None:
        said = invoke("route", "train", log, *PRICES).stdout
        assert "The head beats the length of the prompt and chance" in said
        assert "routed, quality 0.95" in said
        assert "prompt length" in said
        assert f"Installed in {directory / 'heads' / 'v0001'}" in said
        assert {path.name for path in (directory / "heads" / "v0001").iterdir()} == {
            "model.onnx", "config.json", "card.md", "reliability.svg",
        }  # fmt: skip
        assert (directory / "heads" / "current").read_text() == "v0001\n"
        found = invoke_json("route", "train", log, *PRICES, "--name", "second")
        assert (found["installed"], Path(found["version"]).name) == (True, "v0002")
        assert found["measured"]["pair"]["apgr"] > 0.6
        assert found["choice"]["best"] == "strong"
        assert "files" not in found

    def test_not_worth_it(self, tmp_path: Path, directory: Path) -> None:
        log = str(written(tmp_path / "log.jsonl", lines(200, is_random=True, seed=5)))
        result = invoke("route", "train", log, "--to", str(tmp_path / "heads"), code=1)
        assert "does not beat the length of the prompt" in result.stdout
        assert "It was not installed." in result.stdout
        assert "No costs: not all prices are known" in result.stderr
        assert not (tmp_path / "heads").exists()
        found = invoke_json("route", "train", log, "--to", str(tmp_path / "heads"), "--force")
        assert (found["installed"], found["choice"]) == (True, None)
        assert not directory.exists()

    def test_the_card_tells_no_folder_of_this_machine(
        self, log: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.argv", ["llm-proxy", "route", "train", log, "--to", str(tmp_path / "heads")])
        invoke("route", "train", log, "--to", str(tmp_path / "heads"))
        text = (tmp_path / "heads" / "v0001" / "card.md").read_text()
        assert "by `llm-proxy route train log.jsonl --to heads`" in text
        assert str(tmp_path) not in text

    def test_what_is_wrong_is_said_before_anything_is_encoded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(TopicEncoder, "encode", None)
        rows = [{"prompt": f"p{at}", "model": "ab"[at % 2], "score": at % 3 / 2} for at in range(40)]
        said = invoke("route", "train", str(written(tmp_path / "x.jsonl", rows)), code=2).stderr
        assert "no prompt has scores of both" in said
        said = invoke("route", "train", str(written(tmp_path / "y.jsonl", lines(10))), code=2).stderr
        assert "10 different prompts are too few" in said

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("absent.jsonl",), "absent.jsonl can't be read"),
            (("LOG", "--weak", "nobody"), "no outcomes of 'nobody'"),
            (("LOG", "--prices", "weak=1/1"), "no price of 'strong'"),
            (("LOG", "--models", "absent.json"), "absent.json can't be read"),
            (("LOG", "--folds", "1"), "--folds"),
        ],
    )
    def test_wrong(self, log: str, arguments: tuple[str, ...], said: str) -> None:
        given = [log if one == "LOG" else one for one in arguments]
        assert said in invoke("route", "train", *given, code=2).stderr

    def test_a_head_that_can_not_be_loaded_is_never_in_use(
        self, log: str, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(folder: Path) -> None:
            raise ConfigError("no head at all")

        monkeypatch.setattr("llm_proxy.route.heads.OnnxHead", broken)
        assert "no head at all" in invoke("route", "train", log, code=2).stderr
        assert not (directory / "heads" / "current").exists()


class TestCalibrate:
    @pytest.fixture(autouse=True)
    def _head(self, log: str) -> None:
        invoke("route", "train", log, *PRICES)

    def test_a_share(self, log: str) -> None:
        said = invoke("route", "calibrate", "--strong-share", "0.5", "--log", log, *PRICES).stdout
        assert "By 120 questions" in said
        rows = [line.split() for line in said.splitlines() if line.startswith("calls to strong")]
        assert rows == [["calls", "to", "strong", "50.0%", "50.0%"]]
        toml = said[said.index("[routes.auto]") :].splitlines()
        found = invoke_json("route", "calibrate", "--strong-share", "0.5", "--log", log, *PRICES)
        tolerance, worth = found["quality"], found["usd_per_good_answer"]
        assert toml == [
            "[routes.auto]",
            f"quality = {tolerance['value']:g}",
            f"# or: usd_per_good_answer = {worth['value']:g}",
        ]
        assert tolerance["shares"] == worth["shares"] == [0.5, 0.5]
        assert 0 < tolerance["value"] < 1
        assert tolerance["usd"] < tolerance["best_usd"]

    def test_a_quality(self, log: str) -> None:
        found = invoke_json("route", "calibrate", "--quality-of-best", "0.9", "--log", log, *PRICES)["quality"]
        assert found["score"] >= 0.9 * found["best_score"]
        assert found["shares"][1] < 0.6

    def test_on_the_cached_questions_of_a_configured_route(self, directory: Path) -> None:
        seed(directory, *(entry(at, f"{'easy' if at % 4 else 'hard'} one {at}") for at in range(8)), entry(9, " "))
        (directory.parent / "llm-proxy.toml").write_text(
            '[backends.b]\nbase_url = "http://127.0.0.1:9/v1"\n'
            '[routes.cheap]\ncandidates = ["b/weak", "b/strong-2024-08-06"]\n'
            '[routes.one]\ncandidates = ["b/weak"]\n'
            '[routes.odd]\ncandidates = ["b/tiny", "b/strong"]\nknown_as = {"b/tiny" = "weak"}\n'
        )
        found = invoke_json("route", "calibrate", "--strong-share", "0.2")
        assert (found["route"], found["questions"]) == ("cheap", 8)
        assert found["candidates"] == ["b/weak", "b/strong-2024-08-06"]
        assert found["quality"]["usd"] == found["quality"]["best_usd"] == 0, "both are on this machine"
        assert "of its cost" in invoke("route", "calibrate", "--strong-share", "0.2").stdout
        few = invoke_json("route", "calibrate", "--strong-share", "0.2", "--limit", "3", "--route", "cheap")
        assert few["questions"] == 3
        odd = invoke_json("route", "calibrate", "--strong-share", "0.2", "--route", "odd")
        assert odd["quality"]["shares"] == found["quality"]["shares"]
        for route, said in (
            ("none", "there is no route 'none'; there is cheap, one, odd"),
            ("one", "has one candidate only"),
        ):
            assert said in invoke("route", "calibrate", "--strong-share", "0", "--route", route, code=2).stderr

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ((), "say one of --strong-share and --quality-of-best"),
            (("--strong-share", "0.5", "--quality-of-best", "0.9"), "say one of"),
            (("--strong-share", "0.5"), "no question is cached yet"),
            (("--strong-share", "0.5", "--head", "elsewhere"), "elsewhere has no head"),
            (("--strong-share", "0.5", "--log", "LOG"), "not all prices are known"),
        ],
    )
    def test_wrong(self, log: str, arguments: tuple[str, ...], said: str) -> None:
        given = [log if one == "LOG" else one for one in arguments]
        assert said in invoke("route", "calibrate", *given, code=2).stderr


class TestEval:
    @pytest.fixture(autouse=True)
    def _head(self, log: str) -> None:
        invoke("route", "train", log, *PRICES)

    def test_another_log(self, tmp_path: Path) -> None:
        rows = [{**row, "prompt": f"{row['prompt']} later"} for row in lines(60, seed=3)]
        for row in rows:
            row["scores"]["unheard of"] = 0
        later = str(written(tmp_path / "later.jsonl", rows))
        found = invoke_json("route", "eval", later, *PRICES)
        assert not found["is_trained_on_this"]
        assert found["pair"]["apgr"] > 0.6 > found["pair"]["length_apgr"]
        assert found["pair"]["tfidf_apgr"] is None
        assert [one["model"] for one in found["models"]] == ["weak", "strong"]
        assert found["choice"]["routed"][0]["score"] > 0.8
        said = invoke("route", "eval", later).stdout
        assert "prompt length" in said
        assert "of its cost" not in said

    def test_the_log_that_it_learnt_from(self, log: str) -> None:
        result = invoke("route", "eval", log, *PRICES)
        assert "learnt from this very file" in result.stderr
        assert "of its cost" in result.stdout
        assert invoke_json("route", "eval", log)["is_trained_on_this"]

    def test_a_head_of_another_encoder(self, log: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(TopicEncoder, "name", "topics-9")
        said = invoke("route", "eval", log, code=2).stderr
        assert "reads vectors of topics-8, but the settings have the encoder topics-9: train one for it" in said

    def test_models_that_the_head_does_not_know(self, tmp_path: Path) -> None:
        rows = [{"prompt": "p", "scores": {"x": 0, "strong": 1}}]
        said = invoke("route", "eval", str(written(tmp_path / "x.jsonl", rows)), code=2).stderr
        assert "the head knows weak, strong; the log is of x, strong" in said


class TestParts:
    def test_names_of_candidates(self) -> None:
        models = ("gpt-4o", "b/x", "claude-3-haiku-20240307")
        assert known_to(models, "openai/gpt-4o-2024-08-06") == "gpt-4o"
        assert known_to(models, "b/x") == "b/x"
        assert known_to(models, "any/claude-3-haiku") == "claude-3-haiku-20240307"
        with pytest.raises(ConfigError, match="knows nothing of 'openai/gpt-4'"):
            known_to(models, "openai/gpt-4")

    def test_figures_as_data(self) -> None:
        value: Any = {"a": (Bin(0.5, math.nan, 3), math.inf), "b": [1.5, None, "x"]}
        assert plain(value) == {"a": [[0.5, None, 3], None], "b": [1.5, None, "x"]}

    def test_prices_by_the_settings(self, tmp_path: Path, directory: Path) -> None:
        from llm_proxy.config import load

        settings = tmp_path / "llm-proxy.toml"
        settings.write_text(
            'default_backend = "far"\n'
            '[backends.near]\nbase_url = "http://127.0.0.1:9/v1"\nmodels = ["small"]\n'
            '[backends.far]\nbase_url = "https://models.example/v1"\n'
            "[backends.far.prices.big]\ninput_usd_per_mtok = 2\noutput_usd_per_mtok = 8\n"
            '[routes.auto]\ncandidates = ["near/tiny", "far/big"]\n'
        )
        config = load(settings)
        found = _route_log.configured_prices(config, ["small", "tiny", "big", "far/big"])
        assert found == [(0, 0), (0, 0), (2, pytest.approx(8)), (2, pytest.approx(8))]
        assert _route_log.configured_prices(config, ["unheard of"]) is None
        listed = _route_log.configured_prices(load(), ["gpt-4o-mini"])
        assert listed == [(pytest.approx(0.15), pytest.approx(0.6))]

    def test_the_log_s_own_prices(self, tmp_path: Path) -> None:
        from llm_proxy.config import load

        rows = [{"prompt": "p", "scores": {"a": 0, "b": 1}, "usd": {"a": 1, "b": 2}}]
        found = _route_log.read_log(written(tmp_path / "x.jsonl", rows), None, clip=False)
        assert _route_log.prices_for(load(), found, "") == []
        partly = replace(found, usd=np.full_like(found.usd, np.nan))
        assert _route_log.prices_for(load(), partly, "") is None


def test_json_is_json(log: str) -> None:
    assert json.loads(invoke("route", "train", log, "--json").stdout)["choice"] is None
