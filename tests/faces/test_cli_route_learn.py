"""``llm-proxy route`` on the log of outcomes: what there is, training, measuring, calibrating; and marked answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.learning import OUTCOMES_NAME
from llm_proxy.observe.events import GradeEvent, RoutedEvent, Troubles
from llm_proxy.observe.outcomes import Kept, OutcomeLog
from llm_proxy.route.adapt import OWN_NAME, Adaptation
from llm_proxy.route.features import text_features
from llm_proxy.runtime import SystemClock
from tests.faces.cli_kit import invoke, invoke_json, settled
from tests.route.route_kit import TopicEncoder, lines, written

PRICES = ("--prices", "weak=1/1,strong=10/10")


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("llm_proxy.encode.onnx.OnnxEncoder", lambda folder, **options: TopicEncoder())
    with settled(monkeypatch) as folder:
        yield folder


def kept(
    directory: Path,
    rows: list[dict[str, Any]],
    *,
    both: int = 10_000,
    route: str = "auto",
    start: int = 0,
    others: tuple[str, ...] = ("weak",),
) -> None:
    """Log calls with what became of them; the first ``both`` of the strong model and another, the rest of one."""
    clock, encoder = SystemClock(), TopicEncoder()
    log = OutcomeLog(
        directory / OUTCOMES_NAME,
        Kept(10_000, 30.0, 1 << 30),
        clock=clock,
        troubles=Troubles(),
        features=text_features,
    )
    now_s = clock.time()
    for at, row in enumerate(rows, start):
        encoding = encoder.encode(row["prompt"])
        names = ("b/weak", "b/strong")
        event = RoutedEvent(now_s, f"r{at}", "o", route, names, "b", "weak", row["prompt"], encoder.name)
        fields = {name: getattr(event, name) for name in event.__slots__}
        log(RoutedEvent(**{**fields, "vector": encoding.vector, "layers": encoding.layers}))
        models = (others[at // 2 % len(others)], "strong") if at - start < both else (("weak", "strong")[at % 2],)
        for model in models:
            log(
                GradeEvent(now_s, f"r{at}", route, "b", model, "comparison", row["scores"][model], row["tokens"][model])
            )
    log.close()


class TestOutcomes:
    def test_nothing_yet(self) -> None:
        assert "Nothing is known of any answer yet" in invoke("route", "outcomes").stdout
        assert invoke_json("route", "outcomes")["is_enough"] is False

    @pytest.mark.parametrize(
        ("both", "said"),
        [
            (0, "Too little to train: 0 calls tell of two models"),
            (30, "Enough to try llm-proxy route train: 30 calls tell of both b/strong and b/weak"),
            (320, "Enough for llm-proxy route train: 320 calls"),
        ],
    )
    def test_whether_it_is_enough(self, directory: Path, both: int, said: str) -> None:
        kept(directory, lines(320), both=both)
        shown = invoke("route", "outcomes").stdout
        assert said in shown
        assert "comparison" in shown
        found = invoke_json("route", "outcomes")
        assert found["calls"] == [{"route": "auto", "backend": "b", "model": "weak", "calls": 320, "with_vector": 320}]
        assert found["is_enough"] is (both >= 20)

    def test_of_a_route_and_a_time(self, directory: Path) -> None:
        kept(directory, lines(30))
        (directory.parent / "llm-proxy.toml").write_text(
            '[backends.b]\nbase_url = "http://127.0.0.1:9/v1"\n'
            '[routes.auto]\ncandidates = ["b/weak", "b/strong"]\ncompare_share = 0.5\n'
        )
        assert "Comparisons of auto took $0" in invoke("route", "outcomes", "--since", "1h").stdout
        assert invoke_json("route", "outcomes", "--route", "other")["outcomes"] == []

    def test_where_none_are_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LLM_PROXY_OBSERVE_OUTCOMES", "false")
        for words in (("outcomes",), ("train",)):
            assert "no outcomes are kept with these settings" in invoke("route", *words, code=2).stderr


class TestTrain:
    def test_from_what_was_kept(self, directory: Path) -> None:
        kept(directory, lines(200), both=120)
        said = invoke("route", "train", *PRICES).stdout
        assert "The head beats the length of the prompt and chance" in said
        assert "120 rows" in said
        card = (directory / "heads" / "v0001" / "card.md").read_text()
        assert "No prompts were kept" in card
        assert "the log of outcomes" in card
        settings = json.loads((directory / "heads" / "v0001" / "config.json").read_text())
        assert settings["models"] == ["strong", "weak"]
        assert settings["trained_on"]["until_s"] > 0

    def test_three_models_of_which_a_call_tells_of_two(self, directory: Path) -> None:
        rows = lines(200)
        for row in rows:
            row["scores"]["middle"], row["tokens"]["middle"] = row["scores"]["weak"], 30
        kept(directory, rows, others=("weak", "middle"))
        result = invoke("route", "train", "--prices", "weak=1/1,middle=2/2,strong=10/10")
        assert "No costs: no prompt has scores of all models." in result.stderr
        settings = json.loads((directory / "heads" / "v0001" / "config.json").read_text())
        assert sorted(settings["models"]) == ["middle", "strong", "weak"]

    def test_of_one_route(self, directory: Path) -> None:
        kept(directory, lines(100))
        kept(directory, lines(40, seed=1), route="other", start=1000)
        assert invoke_json("route", "train", "--route", "auto", "--force")["measured"]["pair"]["n"] == 100

    def test_nothing_yet(self) -> None:
        assert "no outcomes yet: they come from feedback" in invoke("route", "train", code=2).stderr

    def test_a_router_that_asks_one_model_learns_nothing_of_the_other(self, directory: Path) -> None:
        kept(directory, lines(200), both=0)
        assert "routes.NAME.compare_share does" in invoke("route", "train", code=2).stderr

    def test_few_questions_of_both_prove_nothing(self, directory: Path) -> None:
        kept(directory, lines(200), both=5)
        assert "5 prompts have scores of both" in invoke("route", "train", code=2).stderr


class TestUsed:
    @pytest.fixture(autouse=True)
    def _head(self, directory: Path) -> None:
        kept(directory, lines(200))
        invoke("route", "train", *PRICES)

    def test_measured_by_what_came_since(self, directory: Path) -> None:
        assert "no outcomes since the head was trained yet" in invoke("route", "eval", code=2).stderr
        later = [{**row, "prompt": f"{row['prompt'][:-4]}{9000 + at}"} for at, row in enumerate(lines(80, seed=9))]
        kept(directory, later, start=5000)
        found = invoke_json("route", "eval", *PRICES)
        assert (found["pair"]["n"], found["is_trained_on_this"]) == (80, False)
        assert found["pair"]["apgr"] > 0.6
        assert "prompt length" in invoke("route", "eval").stdout

    def test_calibrated_by_what_was_asked(self, directory: Path) -> None:
        found = invoke_json("route", "calibrate", "--strong-share", "0.5", "--from-log", "--limit", "50", *PRICES)
        assert (found["questions"], found["quality"]["shares"]) == (50, [0.5, 0.5])

    def test_where_all_is_free_no_worth_is_made_up(self, directory: Path) -> None:
        (directory.parent / "llm-proxy.toml").write_text(
            '[backends.b]\nbase_url = "http://127.0.0.1:9/v1"\n[routes.auto]\ncandidates = ["b/weak", "b/strong"]\n'
        )
        words = ("route", "calibrate", "--strong-share", "0.5", "--from-log")
        assert "usd_per_good_answer" not in invoke(*words).stdout
        assert "usd_per_good_answer" not in invoke_json(*words)

    def test_by_a_head_of_another_encoder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(TopicEncoder, "name", "topics-9")
        words = ("route", "calibrate", "--strong-share", "0.5", "--log", "x")
        Path("x").write_text('{"prompt": "easy"}\n')
        assert "train one for it" in invoke(*words, code=2).stderr


class Scorer:
    """Says the same of every answer."""

    name, encoders = "scorer@1", ("topics-8",)

    def logit(self, shown: Any, *, asked: Any, said: Any) -> float:
        return 0.5


class TestAnswers:
    @pytest.fixture(autouse=True)
    def _scorer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("llm_proxy.route.scorer.AnswerScorer", Scorer)

    def marked(self, path: Path, count: int = 30) -> str:
        rows = [{"question": f"easy {at}", "answer": f"it is {at}", "good": at % 3 > 0} for at in range(count)]
        return str(written(path, rows))

    def test_the_scorer_is_corrected(self, tmp_path: Path, directory: Path) -> None:
        said = invoke("route", "train", "--answers", self.marked(tmp_path / "m.jsonl")).stdout
        assert "By 30 answers, 67% of them right" in said
        assert Adaptation.load(directory / OWN_NAME).scorer == "scorer@1"
        found = invoke_json("route", "train", "--answers", self.marked(tmp_path / "m.jsonl"))
        assert (found["answers"], found["right"], found["path"]) == (30, 20, str(directory / OWN_NAME))

    def test_too_few(self, tmp_path: Path, directory: Path) -> None:
        marked = self.marked(tmp_path / "m.jsonl", 3)
        assert "3 marked answers" in invoke("route", "train", "--answers", marked, code=1).stderr
        assert not (directory / OWN_NAME).exists()

    def test_another_encoder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Scorer, "encoders", ("others",))
        marked = self.marked(tmp_path / "m.jsonl")
        assert "the scorer reads vectors of others" in invoke("route", "train", "--answers", marked, code=2).stderr

    def test_a_place_that_can_not_be_written(self, tmp_path: Path, directory: Path) -> None:
        directory.write_text("a file")
        marked = self.marked(tmp_path / "m.jsonl")
        assert "can't be written" in invoke("route", "train", "--answers", marked, code=2).stderr
