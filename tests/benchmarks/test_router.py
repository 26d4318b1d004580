"""``benchmarks.router`` and ``benchmarks.length`` on made-up outcomes: what is there is found, what is wrong said."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import _candidates, _outcomes, length, router
from benchmarks._quality_cost import hull
from llm_proxy.encode.base import Encoding
from llm_proxy.route.base import Prediction
from tests.benchmarks.test_contract import figures, run
from tests.route.route_kit import TopicEncoder, lines, written

PRICES = "weak=1/1,strong=10/10"
KEYS = {
    "apgr", "apgr_low95", "apgr_high95", "cpt50", "cpt80", "length_apgr", "tfidf_apgr", "auc_weak_correct",
    "route_us_p50", "group_out_apgr", "random_apgr",
}  # fmt: skip


class Topics(TopicEncoder):
    """The encoder of the benchmarks, without its model."""

    def encode_layers(self, texts: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        found = [self.encode(text) for text in texts]
        return np.array([one.vector for one in found]), np.array([one.layers for one in found])


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return written(tmp_path / "train.jsonl", lines(200))


@pytest.fixture
def _topics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outcomes, "OnnxEncoder", Topics)


def options(**changes: Any) -> Namespace:
    plain: dict[str, Any] = {
        "train": None, "test": None, "models": None, "vectors_cache": None, "weak": "weak", "strong": "strong",
        "draws": 50, "shipped": False, "curve": False, "folds": 0, "candidates": "", "prices": "",
        "accuracy_share": 0.95, "cost_share": 0.35,
    }  # fmt: skip
    return Namespace(**{**plain, **changes})


@pytest.mark.usefixtures("_topics")
class TestPair:
    def test_what_there_is_to_learn(self, train: Path) -> None:
        found = router._pair(options(train=train, curve=None, folds=3))
        assert set(found) >= KEYS
        assert found["n_train"] + found["n_test"] == 200
        assert 25 < found["n_test"] < 60
        assert found["apgr"] > 0.65 > found["length_apgr"]
        assert found["random_apgr"] == pytest.approx(0.5)
        assert found["group_out_apgr"] > 0.65
        assert found["group_out_within_apgr"] > 0.65 > found["length_within_apgr"]
        assert found["oracle_apgr"] > found["apgr"]
        assert found["cross_validated"]["apgr"] > 0.65
        assert found["cross_validated"]["n"] == found["n_train"]
        assert [n for n, _ in found["learning_curve"]] == sorted(n for n, _ in found["learning_curve"])
        assert found["learning_curve"][-1] == [found["n_train"], found["apgr"]]
        assert router._table(found)[2][1] == f"{found['apgr']:.3f}"

    def test_knowing_how_others_did(self, train: Path, tmp_path: Path) -> None:
        rows = lines(600, is_random=True)  # of which the question tells nothing
        for at, row in enumerate(rows):
            row["scores"] |= {"twin": row["scores"]["weak"], "other": at % 3 // 2}
            if at % 5 == 0:
                del row["scores"]["twin"]
        found = router._pair(options(train=written(tmp_path / "x.jsonl", rows)))
        assert found["others_known_apgr"] > 0.7 > found["apgr"] + 0.1
        assert router._pair(options(train=train))["others_known_apgr"] is None, "there are no others"

    def test_another_file_to_measure_on(self, train: Path, tmp_path: Path) -> None:
        rows = [{**row, "group": "", "prompt": f"{row['prompt']}!"} for row in lines(50, seed=2)]
        found = router._pair(options(train=train, test=written(tmp_path / "test.jsonl", rows)))
        assert (found["n_train"], found["n_test"]) == (200, 50)
        assert found["group_out_apgr"] is None
        assert found["sha256_train"] != found["sha256_test"]

    def test_no_group_has_a_gap(self, train: Path) -> None:
        test = _outcomes.sides(options(train=train))[1]
        even = replace(test.outcomes, scores=np.ones_like(test.outcomes.scores))
        assert router._within(np.zeros(len(even)), replace(test, outcomes=even), [np.arange(5)]) is None

    def test_nothing_to_learn(self, tmp_path: Path) -> None:
        found = router._pair(options(train=written(tmp_path / "x.jsonl", lines(600, is_random=True))))
        assert found["apgr_low95"] < 0.5 < found["apgr_high95"]

    def test_the_same_rows_are_held_out_whatever_the_order(self, train: Path, tmp_path: Path) -> None:
        turned = written(tmp_path / "turned.jsonl", lines(200)[::-1])
        one, other = (_outcomes.sides(options(train=path))[1].outcomes.prompts for path in (train, turned))
        assert sorted(one) == sorted(other)

    def test_vectors_are_kept(self, train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cached = options(train=train, vectors_cache=tmp_path / "vectors")
        one = _outcomes.sides(cached)[0].inputs.vectors
        monkeypatch.setattr(Topics, "encode_layers", None)
        assert np.array_equal(_outcomes.sides(cached)[0].inputs.vectors, one)

    def test_the_shipped_head(self, train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Tiers:
            name, models = "tiers", ("small", "middle", "large")

            def predict(self, text: str, encoding: Encoding) -> dict[str, Prediction]:
                p_good = {"small": float(text.startswith("easy")), "middle": 0.5, "large": 0.9}
                return {name: Prediction(p) for name, p in p_good.items()}

        monkeypatch.setattr(router, "shipped", Tiers)
        found = router._pair(options(train=train, shipped=None))
        assert found["apgr"] > 0.65
        assert found["head"] == "tiers"
        assert "group_out_apgr" not in found
        assert router._table(found)
        alone = router._pair(options(test=train, shipped=None))
        assert (alone["n_train"], alone["n_test"], alone["tfidf_apgr"], alone["sha256_train"]) == (0, 200, None, None)
        assert router._table(alone)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"train": None}, "name a file of outcomes"),
            ({"weak": ""}, "name two models"),
            ({"strong": "nobody"}, "no outcomes of 'nobody'"),
            ({"candidates": "weak"}, "needs two different models"),
            ({"candidates": "weak,strong", "prices": "weak=1/1"}, "no price of 'strong'"),
            ({"candidates": "weak,strong"}, "no prices: name them"),
        ],
    )
    def test_wrong(self, train: Path, changes: dict[str, Any], said: str) -> None:
        given = options(**{"train": train, **changes})
        with pytest.raises((SystemExit, ValueError), match=said):
            _candidates.several(given) if given.candidates else router._pair(given)

    def test_no_row_has_both(self, tmp_path: Path) -> None:
        rows = [{"prompt": f"p{at}", "model": "weak" if at % 2 else "strong", "score": at % 3 / 2} for at in range(20)]
        with pytest.raises(SystemExit, match="no row has scores of weak and strong"):
            router._pair(options(train=written(tmp_path / "x.jsonl", rows)))

    def test_too_few_to_hold_out(self, tmp_path: Path) -> None:
        with pytest.raises(SystemExit, match="name --test FILE"):
            router._pair(options(train=written(tmp_path / "x.jsonl", lines(2))))


@pytest.mark.usefixtures("_topics")
class TestSeveral:
    def test_two_topics_and_a_useless_dear_model(self, tmp_path: Path) -> None:
        rows = lines(400, noise=0.02)
        for row in rows:
            row["scores"]["dear"] = 0
            row["tokens"]["dear"] = 50
        given = options(
            train=written(tmp_path / "x.jsonl", rows), candidates="weak, strong,dear", prices=f"{PRICES},dear=50/50"
        )
        found = _candidates.several(given)
        assert found["best_single"] == "strong"
        for way in ("by_quality", "by_worth"):
            assert found[way]["accuracy_share"] > 0.9
            assert found[way]["cost_share"] < 0.75
            assert found[way]["calls"][2] == 0
            assert found[way]["cost_share_in_hindsight"] <= 1
        margins = {one["model"]: one["margin"] for one in found["beside_singles"]}
        assert margins["dear"] > 0.8
        assert abs(margins["weak"]) < 0.05, "for that money there is nothing else"
        assert {tuple(one["models"]): round(one["mean"], 2) for one in found["beside_pairs"]}[("weak", "strong")] == 0
        assert found["lengths_known"] == [True] * 3
        assert found["beside_mixtures_by_chance"]["mean"] > 0.05
        text = "\n".join(" ".join(row) for row in _candidates.table(found))
        assert text.count("group of the question not seen") == 4
        assert "router, quality" in text
        assert "at the cost of dear" in text

    def test_groups_not_seen_tell_less(self, tmp_path: Path) -> None:
        rows = lines(400, noise=0.02)
        for row in rows:
            row["group"] = "hard" if row["scores"]["weak"] < 0.5 else "easy"
        given = options(train=written(tmp_path / "x.jsonl", rows), candidates="weak,strong", prices=PRICES)
        found = _candidates.several(given)
        unseen = found["group_out"]
        assert unseen["by_quality"]["setting"] == found["by_quality"]["setting"]
        assert unseen["by_quality"]["accuracy_share"] < found["by_quality"]["accuracy_share"] - 0.1
        assert {one["model"] for one in unseen["beside_singles"]} == {"weak", "strong"}

    def test_without_groups_there_is_no_such_figure(self, tmp_path: Path) -> None:
        rows = [{**row, "group": ""} for row in lines(200)]
        given = options(train=written(tmp_path / "x.jsonl", rows), candidates="weak,strong", prices=PRICES)
        found = _candidates.several(given)
        assert found["group_out"] is None
        assert "not seen" not in "\n".join(" ".join(row) for row in _candidates.table(found))

    def test_by_the_log_s_own_costs(self, tmp_path: Path) -> None:
        rows = [{**row, "usd": {"weak": 1, "strong": 10}} for row in lines(200)]
        found = _candidates.several(options(train=written(tmp_path / "x.jsonl", rows), candidates="weak,strong"))
        assert found["best_single_usd"] == pytest.approx(10)
        assert 0.4 < found["by_quality"]["cost_share"] < 1

    def test_the_surest_that_keeps_both_shares(self, tmp_path: Path) -> None:
        train = written(tmp_path / "train.jsonl", lines(800))
        given = options(train=train, candidates="weak,strong", prices=PRICES, accuracy_share=0.8, cost_share=0.9)
        found = _candidates.several(given)
        for way in ("by_quality", "by_worth"):
            cheapest, surest = found[way], found[f"{way}_within_cost"]
            assert cheapest["cost_share_in_training"] <= surest["cost_share_in_training"] < 0.9
            assert surest["accuracy_share_in_training"] > 0.85
            assert surest["accuracy_share_low95"] < surest["accuracy_share"] < surest["accuracy_share_high95"]
            assert surest["cost_share_low95"] < surest["cost_share"] < surest["cost_share_high95"]
        assert "within 90% of the cost" in "\n".join(" ".join(row) for row in _candidates.table(found))

    def test_margins_have_intervals(self, tmp_path: Path) -> None:
        rows = lines(400)
        for row in rows:
            row["scores"]["poor"] = 0
        names, prices = "weak,strong,poor", f"{PRICES},poor=3/3"
        train = written(tmp_path / "x.jsonl", rows)
        found = _candidates.several(options(train=train, candidates=names, prices=prices, draws=200))
        margins = {one["model"]: one for one in found["beside_singles"]}
        assert 0.3 < margins["poor"]["low95"] < margins["poor"]["margin"] < margins["poor"]["high95"] < 1
        pairs = {tuple(one["models"]): one for one in found["beside_pairs"]}
        assert pairs["strong", "poor"]["low95"] < pairs["strong", "poor"]["mean"] < pairs["strong", "poor"]["high95"]
        assert pairs["strong", "poor"]["low95"] > 0.1
        chance = found["beside_mixtures_by_chance"]
        assert chance["least"] < chance["low95"] < chance["mean"] < chance["high95"]

    def test_a_share_that_nothing_keeps(self, tmp_path: Path) -> None:
        train = written(tmp_path / "train.jsonl", lines(800))
        found = _candidates.several(options(train=train, candidates="weak,strong", prices=PRICES, accuracy_share=5.0))
        assert found["by_quality"]["accuracy_share"] > 0.9, "the most there is"
        assert found["by_quality"]["cost_share_in_hindsight"] is None


@pytest.mark.usefixtures("_topics")
class TestLength:
    def test_what_there_is_to_learn(self, train: Path) -> None:
        found = length._measure(Namespace(**vars(options(train=train)), model="weak"))
        assert set(found) >= {"kendall_tau", "length_of_prompt_tau", "predict_us_p50"}
        assert found["kendall_tau"] > 0.4
        assert found["group_out_tau"] > 0.4
        assert length._table(found)

    @pytest.mark.parametrize("n", [120, 400], ids=["regression only", "with trees"])
    def test_lengths_without_scores_and_groups(self, tmp_path: Path, n: int) -> None:
        rows = [{"prompt": row["prompt"], "model": "m", "otok": row["tokens"]["weak"]} for row in lines(n)]
        found = length._measure(Namespace(**vars(options(train=written(tmp_path / "x.jsonl", rows))), model="m"))
        assert found["kendall_tau"] > 0.4
        assert found["group_out_tau"] is None

    def test_a_group_that_is_all_there_is_to_learn_from(self, train: Path, tmp_path: Path) -> None:
        rows = [{**row, "prompt": f"{row['prompt']}!", "group": "kind 0"} for row in lines(40)]
        one_kind = [{**row, "group": "kind 0"} for row in lines(40)]
        mixed = [*rows, {**rows[0], "prompt": "hard to say", "group": "other"}]
        given = options(train=written(tmp_path / "one.jsonl", one_kind), test=written(tmp_path / "test.jsonl", mixed))
        assert length._measure(Namespace(**vars(given), model="weak"))["group_out_tau"] is None

    @pytest.mark.parametrize(
        ("model", "said"),
        [("", "name a model"), ("nobody", "no outcomes of 'nobody'"), ("x", "there are no two lengths")],
    )
    def test_wrong(self, tmp_path: Path, model: str, said: str) -> None:
        rows = lines(60)
        rows[0]["scores"]["x"] = 1
        path = written(tmp_path / "x.jsonl", rows)
        with pytest.raises((SystemExit, ValueError), match=said):
            length._measure(Namespace(**vars(options(train=path)), model=model))


class TestHull:
    def test_only_what_mixtures_reach(self) -> None:
        points = [(1.0, 0.2), (2.0, 0.1), (2.0, 0.5), (3.0, 0.55), (4.0, 0.9), (9.0, 0.8), (8.0, 1.0)]
        assert hull(points) == [(1.0, 0.2), (2.0, 0.5), (4.0, 0.9), (8.0, 1.0)]
        assert hull([(0.0, 0.3), (0.0, 0.4)]) == [(0.0, 0.4)]


class TestCommands:
    def test_router(self, train: Path) -> None:
        found = figures("router", "--train", train, "--weak", "weak", "--strong", "strong", "--draws", 20)
        assert set(found) >= KEYS
        assert math.isfinite(found["apgr"])

    def test_several(self, train: Path, tmp_path: Path) -> None:
        plot = tmp_path / "curve.svg"
        options = ("--candidates", "weak,strong", "--prices", PRICES, "--plot", plot)
        assert figures("router", "--train", train, *options)["curve"]
        assert "<svg" in plot.read_text()

    def test_what_is_no_number_is_null(self, train: Path) -> None:
        found = figures("router", "--train", train, "--weak", "strong", "--strong", "weak", "--draws", 20)
        assert (found["apgr"], found["cpt50"], found["length_apgr"]) == (None, None, None)
        assert found["pgr"] == [None] * 11

    def test_length(self, train: Path) -> None:
        command = ("length", "--train", train, "--model", "strong", "--json")
        found = json.loads(run(*command).stdout.splitlines()[-1])
        assert -1 <= found["kendall_tau"] <= 1

    def test_wrong(self, tmp_path: Path) -> None:
        assert "name a file" in run("router", "--weak", "a", "--strong", "b", code=1).stderr
        assert "can't be read" in run("length", "--model", "a", "--train", tmp_path / "none.jsonl", code=1).stderr
