"""The learner finds what is there and nothing else, its files say what it says, and the card says how good it is."""

from __future__ import annotations

import json
import math
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_proxy.encode.onnx import OnnxEncoder
from llm_proxy.errors import ConfigError, MissingDependencyError
from llm_proxy.route.heads import OnnxHead
from llm_proxy.route.metrics import Bin
from llm_proxy.route.outcomes import Outcomes, read_outcomes
from llm_proxy.route.train import make as module
from llm_proxy.route.train.baselines import length_scores, word_scores
from llm_proxy.route.train.card import Origin, card, verdict
from llm_proxy.route.train.choice import choice_of
from llm_proxy.route.train.evaluate import Encoded, group_folds, out_of_fold, prompt_folds
from llm_proxy.route.train.export import to_onnx
from llm_proxy.route.train.make import encode, ends, head_files, make, ready
from llm_proxy.route.train.measure import measure, model_figures, pair_figures
from llm_proxy.route.train.plot import reliability_svg
from tests.route.route_kit import TopicEncoder, lines, log_of, written

ORIGIN = Origin("own", "log.jsonl", "topics-8", "llm-proxy route train log.jsonl", "2026-01-31")
PRICES = [(1.0, 1.0), (10.0, 10.0)]


def outcomes(folder: Path, *args: Any, **options: Any) -> Outcomes:
    return read_outcomes(written(folder / "log.jsonl", lines(*args, **options)))


@pytest.fixture
def log(tmp_path: Path) -> Encoded:
    return log_of(outcomes(tmp_path))


class TestFit:
    def test_it_learns_what_is_there(self, log: Encoded) -> None:
        p_good, log_tokens = log.fit().predict(log.inputs)
        easy = np.array([prompt.startswith("easy") for prompt in log.outcomes.prompts])
        assert p_good[easy, 0].mean() > 0.8
        assert p_good[~easy, 0].mean() < 0.25
        assert p_good[:, 1].min() > 0.6
        assert p_good.min() >= 0
        assert p_good.max() <= 1
        assert np.exp(log_tokens[easy, 0]).mean() == pytest.approx(20, rel=0.1)
        assert np.exp(log_tokens[~easy, 0]).mean() == pytest.approx(63, rel=0.1)

    def test_noise_teaches_nothing(self, tmp_path: Path) -> None:
        log = log_of(outcomes(tmp_path, 400, is_random=True))
        p_good, _ = out_of_fold(log, prompt_folds(log.outcomes.prompts, 5))
        assert p_good.std(axis=0).max() < 0.1, "the largest penalty wins"

    def test_models_that_were_asked_in_some_rows_only(self, log: Encoded) -> None:
        scores, tokens = log.outcomes.scores.copy(), log.outcomes.tokens.copy()
        scores[::3, 0], tokens[:, 1] = np.nan, np.nan
        partly = replace(log, outcomes=replace(log.outcomes, scores=scores, tokens=tokens))
        fitted = partly.fit()
        p_good, log_tokens = fitted.predict(partly.inputs)
        assert np.isnan(log_tokens[:, 1]).all()
        assert np.isfinite(log_tokens[:, 0]).all()
        whole, _ = log.fit().predict(log.inputs)
        assert np.abs(p_good - whole).max() < 0.25

    def test_a_model_that_was_never_asked(self, log: Encoded) -> None:
        scores = log.outcomes.scores.copy()
        scores[:, 0] = np.nan
        p_good, _ = replace(log, outcomes=replace(log.outcomes, scores=scores)).fit().predict(log.inputs)
        assert (p_good[:, 0] == 0).all(), "nothing speaks for it"

    def test_one_score_for_all(self, log: Encoded) -> None:
        even = replace(log, outcomes=replace(log.outcomes, scores=np.ones_like(log.outcomes.scores)))
        assert even.fit().predict(even.inputs)[0] == pytest.approx(np.ones((120, 2)), abs=1e-6)


class TestFolds:
    def test_of_prompts(self) -> None:
        prompts = [f"prompt {at}" for at in range(1_000)]
        found = prompt_folds(prompts, 5)
        assert np.bincount(found).min() > 150
        assert prompt_folds(prompts[::-1], 5).tolist() == found[::-1].tolist()

    def test_of_groups(self) -> None:
        assert group_folds(["a"] * 5 + ["b"] * 3 + ["c"] * 2 + ["d"], 3) == [{"a"}, {"b"}, {"c", "d"}]
        assert group_folds(["", "a"], 5) == [{""}, {"a"}]
        assert group_folds(["a", "a"]) == []

    def test_no_row_is_seen_by_its_learner(self, log: Encoded) -> None:
        """The scores of one fold are turned round: its own predictions must not follow."""
        fold = prompt_folds(log.outcomes.prompts, 4)
        scores = log.outcomes.scores.copy()
        scores[fold == 1] = 1 - scores[fold == 1]
        turned = replace(log, outcomes=replace(log.outcomes, scores=scores))
        one, other = (out_of_fold(side, fold)[0] for side in (log, turned))
        assert np.array_equal(one[fold == 1], other[fold == 1])
        assert not np.array_equal(one[fold == 0], other[fold == 0])

    def test_one_fold_only(self, log: Encoded) -> None:
        assert np.isnan(out_of_fold(log, np.zeros(120, np.intp))[0]).all()


class TestBaselines:
    def test_words(self) -> None:
        prompts = [f"{'easy' if at % 2 else 'hard'} thing {at}" for at in range(40)]
        gain = np.array([at % 2 for at in range(40)], np.float32)
        assert (word_scores(prompts, gain, ["easy one", "hard one"]) > 0.5).tolist() == [True, False]
        assert word_scores(prompts, gain * 0, ["easy one"]).tolist() == [0.5]
        assert length_scores(["ab", ""]).tolist() == [2, 0]

    @pytest.mark.parametrize("say", [lambda at: chr(0x4E00 + at) * 5, lambda at: "\U0001f600" * (at + 1)])
    def test_no_words_to_learn_from(self, say: Callable[[int], str]) -> None:
        """Of sentences without spaces between words no two share one."""
        gain = np.array([at % 2 for at in range(120)], np.float32)
        assert word_scores([say(at) for at in range(120)], gain, ["easy one", "x"]).tolist() == [0.5, 0.5]

    def test_without_scikit_learn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
        with pytest.raises(MissingDependencyError, match=r'pip install "llm-proxy\[train\]"'):
            word_scores([], np.zeros(0, np.float32), [])


class TestMeasure:
    def test_a_log_with_something_in_it(self, log: Encoded) -> None:
        steps: list[int] = []
        found = measure(log, "weak", "strong", folds=4, step=steps.append)
        assert steps == [1, 2, 3, 4, 5, 6, 7], "four folds of rows, three groups"
        pair = found.pair
        assert pair.is_worth_it
        assert pair.apgr_low95 < pair.apgr < pair.apgr_high95
        assert pair.apgr > 0.65 > pair.length_apgr
        assert pair.random_apgr == pytest.approx(0.5)
        assert pair.tfidf_apgr > 0.65, "the first word tells it"
        assert pair.group_out_apgr > 0.65
        assert pair.cpt50 < pair.cpt80 < 0.8
        weak, strong = found.models
        assert weak.auc > 0.8
        assert weak.group_out_auc > 0.8
        assert weak.length_tau > 0.4
        assert weak.calibration_error < 0.2
        assert (strong.n, strong.model) == (120, "strong")

    def test_a_log_with_nothing_in_it(self, tmp_path: Path) -> None:
        found = measure(log_of(outcomes(tmp_path, 300, is_random=True, seed=5)), "weak", "strong")
        assert not found.pair.is_worth_it
        assert "does not beat the length of the prompt" in verdict(found.pair)

    def test_without_groups_and_lengths(self, log: Encoded) -> None:
        bare = replace(log.outcomes, groups=("",) * 120, tokens=np.full_like(log.outcomes.tokens, np.nan))
        found = measure(replace(log, outcomes=bare), "weak", "strong")
        assert math.isnan(found.pair.group_out_apgr)
        assert math.isnan(found.models[0].group_out_auc)
        assert math.isnan(found.models[0].length_tau)
        assert 'names no kinds ("group")' in card(ORIGIN, bare, found, None)

    def test_one_fold_leaves_nothing_to_learn_words_from(self, log: Encoded) -> None:
        fold = np.zeros(120, np.intp)
        found = pair_figures(log.outcomes, log.outcomes.scores, "weak", "strong", fold=fold)
        assert found.tfidf_apgr == pytest.approx(0.5)

    def test_no_gap(self, log: Encoded) -> None:
        pair = pair_figures(log.outcomes, log.outcomes.scores, "strong", "weak")
        assert math.isnan(pair.apgr)
        assert not pair.is_worth_it
        assert "every call can go to the first" in verdict(pair)

    @pytest.mark.parametrize(("weak", "strong"), [("weak", "weak"), ("weak", "other")])
    def test_two_models_that_are_not_two(self, log: Encoded, weak: str, strong: str) -> None:
        with pytest.raises(ConfigError):
            measure(log, weak, strong)

    def test_too_few(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="19 different prompts are too few to learn from: 20 are the least"):
            make(log_of(outcomes(tmp_path, 19)), ORIGIN)

    def test_a_model_without_scores(self, log: Encoded) -> None:
        scores = log.outcomes.scores.copy()
        scores[:, 1] = np.nan
        found = model_figures(replace(log.outcomes, scores=scores), log.outcomes.scores, log.outcomes.tokens)
        assert found[1].n == 0
        assert math.isnan(found[1].score)
        assert found[1].bins == ()


class TestEnds:
    def test_lowest_and_highest(self, tmp_path: Path) -> None:
        path = written(tmp_path / "log.jsonl", [{"prompt": "p", "scores": {"b": 1, "a": 0.2, "c": 0.4}}])
        found = read_outcomes(path)
        assert ends(found) == ("a", "b")
        assert ends(found, weak="c") == ("c", "b")
        assert ends(found, strong="c") == ("a", "c")
        assert ends(found, "b", "c") == ("b", "c")
        for names in (("a", "a"), ("x", ""), ("", "x")):
            with pytest.raises(ConfigError):
                ends(found, *names)

    def test_there_is_one_only(self, tmp_path: Path) -> None:
        path = written(tmp_path / "log.jsonl", [{"prompt": "p", "scores": {"a": 0.2}, "tokens": {"b": 2}}])
        path.write_text(path.read_text() + '{"prompt": "q", "model": "a", "score": 1}\n')
        with pytest.raises(ConfigError, match="two different models are needed"):
            ends(read_outcomes(path, lengths_only=True))


class TestExport:
    @pytest.mark.parametrize("n", [120, 400], ids=["regression only", "with trees"])
    def test_the_graph_says_what_the_learner_says(self, n: int, tmp_path: Path) -> None:
        log = log_of(outcomes(tmp_path, n))
        for name, content in head_files(log, name="own", encoder="topics-8").items():
            (tmp_path / name).write_bytes(content)
        head = OnnxHead(tmp_path)
        p_good, log_tokens = log.fit().predict(log.inputs)
        for at in range(0, 120, 7):
            prompt = log.outcomes.prompts[at]
            found = head.predict(prompt, TopicEncoder().encode(prompt))
            assert [found[name].p_good for name in head.models] == pytest.approx(p_good[at].tolist(), abs=1e-5)
            lengths = [found[name].completion_tokens for name in head.models]
            assert lengths == pytest.approx(np.expm1(log_tokens[at]).tolist(), rel=1e-4)
        settings = json.loads((tmp_path / "config.json").read_bytes())
        assert settings["trained_on"] == {"sha256": log.outcomes.sha256, "rows": n}
        assert settings["encoder"] == "topics-8"

    def test_the_same_log_gives_the_same_bytes(self, log: Encoded) -> None:
        assert to_onnx(log.fit(), dim=8, layers=3) == to_onnx(log.fit(), dim=8, layers=3)

    @pytest.mark.parametrize("package", ["onnx", "sklearn"])
    def test_without_the_extra_nothing_is_begun(
        self, log: Encoded, package: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == package else name)
        with pytest.raises(MissingDependencyError, match=rf"training needs {package}: pip install"):
            ready(log.outcomes)

    def test_without_onnx(self, log: Encoded, monkeypatch: pytest.MonkeyPatch) -> None:
        fitted = log.fit()
        monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(MissingDependencyError, match=r'pip install "llm-proxy\[train\]"'):
            to_onnx(fitted, dim=8, layers=3)


class TestMake:
    def test_a_prompt_of_a_megabyte_is_cut_by_the_encoder(self, tmp_path: Path) -> None:
        rows = [*lines(20), {"prompt": "long " * 200_000, "scores": {"weak": 0, "strong": 1}}]
        log = encode(read_outcomes(written(tmp_path / "log.jsonl", rows)), OnnxEncoder())
        assert log.inputs.vectors.shape == (21, 384)
        assert np.isfinite(log.fit().predict(log.inputs)[0]).all()

    def test_everything_together(self, tmp_path: Path) -> None:
        steps: list[int] = []
        done: list[int] = []
        log = encode(outcomes(tmp_path), TopicEncoder(), step=done.append)
        assert done[-1] == 120
        made = make(log, ORIGIN, prices=PRICES, folds=3, step=steps.append)
        assert steps[-1] == 7
        assert set(made.files) == {"model.onnx", "config.json", "card.md", "reliability.svg"}
        text = made.files["card.md"].decode()
        assert log.outcomes.sha256 in text
        rows = ("**head**", "kind of question not seen", "prompt length", "TF-IDF", "chance", "routed, quality = 0.95")
        assert [row for row in rows if row not in text] == []
        assert made.choice is not None
        assert made.choice.best == "strong"
        best = made.choice.routed[1]
        assert best.quality < made.choice.routed[0].quality == 0.95
        assert best.usd < 0.7 * made.choice.singles[1].usd
        assert best.score > 0.9 * made.choice.singles[1].score
        assert best.score > made.choice.singles[0].score
        assert sum(best.calls) == pytest.approx(1)

    def test_without_prices(self, tmp_path: Path) -> None:
        made = make(log_of(outcomes(tmp_path)), ORIGIN)
        assert made.choice is None
        assert "prices" not in made.files["card.md"].decode()

    def test_names_can_not_break_the_card(self, log: Encoded) -> None:
        odd = replace(log.outcomes, models=("we|ak\n`x`", "strong"))
        text = make(replace(log, outcomes=odd), replace(ORIGIN, source="a`|b"), prices=PRICES).files["card.md"].decode()
        assert "we\\|ak 'x'" in text
        assert "`a'\\|b`" in text


class TestChoice:
    def test_by_the_log_s_own_costs(self, tmp_path: Path) -> None:
        rows = [{**row, "usd": {"weak": 0.001, "strong": 0.01}} for row in lines()]
        log = log_of(read_outcomes(written(tmp_path / "log.jsonl", rows)))
        found = choice_of(log.outcomes, *log.fit().predict(log.inputs), [])
        assert found is not None
        assert [round(one.usd, 6) for one in found.singles] == [0.001, 0.01]

    def test_no_row_has_all(self, log: Encoded) -> None:
        scores = log.outcomes.scores.copy()
        scores[::2, 0], scores[1::2, 1] = np.nan, np.nan
        partly = replace(log.outcomes, scores=scores)
        assert choice_of(partly, *log.fit().predict(log.inputs), PRICES) is None

    def test_lengths_that_are_not_known(self, log: Encoded) -> None:
        p_good, log_tokens = log.fit().predict(log.inputs)
        found = choice_of(log.outcomes, p_good, np.full_like(log_tokens, np.nan), PRICES)
        assert found is not None
        assert found.routed[0].usd > 0


class TestPlot:
    def test_it_is_a_drawing(self) -> None:
        bins = (Bin(0.1, 0.2, 10), Bin(0.9, 0.7, 40))
        root = ET.fromstring(reliability_svg({f"<m{at}> & co": bins for at in range(9)}))
        circles = [one for one in root.iter() if one.tag.endswith("circle")]
        assert len(circles) == 16, "eight models at most"
        assert float(circles[0].attrib["cx"]) == pytest.approx(48 + 32)
        assert float(circles[0].attrib["cy"]) == pytest.approx(48 + 0.8 * 320)
        assert float(circles[0].attrib["r"]) < float(circles[1].attrib["r"])

    def test_nothing_to_draw(self) -> None:
        assert ET.fromstring(reliability_svg({})).tag.endswith("svg")


def test_a_model_that_was_hardly_asked_is_left_out(tmp_path: Path) -> None:
    rows = [*lines(60), {"prompt": "easy once", "scores": {"weak": 1, "seldom": 1}}]
    log = log_of(read_outcomes(written(tmp_path / "log.jsonl", rows)))
    config = json.loads(head_files(log, name="own", encoder="topics-8")["config.json"])
    assert config["models"] == ["weak", "strong"]


def test_length_counts_in_the_direction_that_is_better(tmp_path: Path) -> None:
    """Short questions may be the hard ones: a head that only says so is not worth having."""
    rows = [
        {
            "prompt": "x" * (5 + at % 40 if at % 2 else 60 + at % 40) + f" {at}",
            "scores": {"weak": 1 - at % 2, "strong": 1},
        }
        for at in range(200)
    ]
    read = read_outcomes(written(tmp_path / "log.jsonl", rows))
    length = np.array([len(prompt) for prompt in read.prompts], np.float32)
    noise = np.random.default_rng(0).normal(size=len(read)).astype(np.float32)
    p_good = np.stack([length + noise * 40, np.full_like(length, 200.0)], axis=1)
    found = pair_figures(read, p_good, "weak", "strong")
    assert found.length_apgr < 0.5
    assert not found.is_worth_it
