"""What a head begins with: the shipped one's word, which fades as rows grow in number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from llm_proxy.encode.onnx import OnnxEncoder
from llm_proxy.errors import MissingDependencyError
from llm_proxy.route.heads import OnnxHead
from llm_proxy.route.outcomes import read_outcomes
from llm_proxy.route.tiers import shipped_head
from llm_proxy.route.train import prior as module
from llm_proxy.route.train.card import card
from llm_proxy.route.train.evaluate import Encoded
from llm_proxy.route.train.export import to_onnx
from llm_proxy.route.train.fit import _scaled
from llm_proxy.route.train.make import encode, head_files
from llm_proxy.route.train.measure import measure
from llm_proxy.route.train.prior import Prior, shipped_prior
from tests.route.route_kit import TopicEncoder, lines, written
from tests.route.test_train import ORIGIN

DIM, LAYERS = 384, 768


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    """A log of outcomes by chance: nothing can be learnt from it."""
    path = tmp_path_factory.mktemp("prior") / "log.jsonl"
    return encode(read_outcomes(written(path, lines(40, is_random=True))), OnnxEncoder())


def test_it_is_the_shipped_head(log: Encoded) -> None:
    assert log.prior is not None
    assert log.prior.name == "tiers"
    x = _scaled(log.inputs, *_scale(log))
    weights, bias = log.prior.lines(x, _scale(log)[1], np.array([0.2, 0.8]))
    added = x @ weights + bias
    head = OnnxHead(shipped_head())
    good, _ = head.run(log.inputs.vectors, log.inputs.features, log.inputs.layers)
    assert np.corrcoef(-added[:, 0], good[:, -1] - good[:, 0])[0, 1] > 0.95, "but for what is clipped"
    assert added[:, 1].tolist() == pytest.approx([0.0] * len(added))
    assert added[:, 0].mean() == pytest.approx(0.0, abs=1e-4)
    assert added[:, 0].std() == pytest.approx(0.06 * 100 / 140, rel=1e-3)


def _scale(log: Encoded) -> tuple[Any, Any]:
    facts = np.concatenate([log.inputs.layers, log.inputs.features], axis=1)
    return facts.mean(axis=0), facts.std(axis=0) + np.float32(1e-6)


@pytest.mark.parametrize(
    ("means", "slopes"), [([0.9, 0.1, 0.5], [0.0, 1.0, 0.5]), ([0.5], [1.0]), ([0.2, 0.8], [1.0, 0.0])]
)
def test_the_weakest_is_moved_the_most(means: list[float], slopes: list[float]) -> None:
    one = Prior("p", np.array([1.0, 2.0], np.float32), np.array([4.0], np.float32))
    x = np.array([[0.0, 1.0], [1.0, -1.0]], np.float32)
    weights, bias = one.lines(x, np.array([2.0], np.float32), np.array(means))
    added = x @ weights + bias
    said = x @ np.array([1.0, 1.0]) - 0.5
    expected = -0.06 * 100 / 102 * np.outer(said / said.std(), slopes)
    assert added == pytest.approx(expected, abs=1e-5)
    assert weights.dtype == bias.dtype == np.float32


def test_it_fades(log: Encoded) -> None:
    many = log.rows(np.arange(len(log.outcomes)).repeat(30))
    moved = []
    for some in (log, many):
        with_prior, without = some.fit(), replace(some, prior=None).fit()
        assert with_prior.scores.prior is not None
        assert without.scores.prior is None
        assert (with_prior.scores.weights == without.scores.weights).all()
        moved.append(np.abs(with_prior.scores.prior[0]).max())
    assert moved[1] < 0.2 * moved[0]


@pytest.mark.parametrize("times", [1, 10])
def test_the_graph_says_the_same(log: Encoded, times: int) -> None:
    some = log.rows(np.arange(len(log.outcomes)).repeat(times))
    fitted = some.fit()
    assert (fitted.scores.forest is not None) == (times == 10)
    session = onnxruntime.InferenceSession(to_onnx(fitted, dim=DIM, layers=LAYERS))
    feed = {"vector": log.inputs.vectors, "features": log.inputs.features, "layers": log.inputs.layers}
    (said,) = session.run(["p_good"], feed)
    assert said == pytest.approx(fitted.predict(log.inputs)[0], abs=1e-5)


def test_the_head_and_its_card(log: Encoded, tmp_path: Path) -> None:
    for name, content in head_files(log, name="own", encoder=OnnxEncoder().name).items():
        (tmp_path / name).write_bytes(content)
    assert OnnxHead(tmp_path).models == log.outcomes.models
    measured = measure(log, *log.outcomes.models[:2], folds=2)
    assert "| beginning | the shipped head `tiers`" in card(ORIGIN, log.outcomes, measured, None, prior="tiers")
    assert "beginning" not in card(ORIGIN, log.outcomes, measured, None)


class TestNone:
    def test_of_another_encoder(self, tmp_path: Path) -> None:
        assert shipped_prior("topics-8", dim=DIM, layers=LAYERS) is None
        assert shipped_prior(OnnxEncoder().name, dim=DIM, layers=0) is None
        log = encode(read_outcomes(written(tmp_path / "log.jsonl", lines(40))), TopicEncoder())
        assert log.prior is None

    def test_without_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "find_spec", lambda name: None)
        assert shipped_prior(OnnxEncoder().name, dim=DIM, layers=LAYERS) is None

    def test_without_the_head(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def absent() -> Path:
            raise MissingDependencyError("no model")

        monkeypatch.setattr(module, "shipped_head", absent)
        assert shipped_prior(OnnxEncoder().name, dim=DIM, layers=LAYERS) is None
