"""The learner's parts: what the regressions say of rows that they did not see, gaps, trees, and the graph of it all."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llm_proxy.errors import MissingDependencyError
from llm_proxy.route.features import FEATURES
from llm_proxy.route.outcomes import Outcomes
from llm_proxy.route.train.export import to_onnx
from llm_proxy.route.train.fit import Fitted, Inputs, fit
from llm_proxy.route.train.forest import Forest
from llm_proxy.route.train.ridge import Ridge

_DIM, _LAYERS = 8, 6


def inputs(n: int, *, layers: int = _LAYERS, seed: int = 0) -> Inputs:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(n, _DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    features = random.normal(size=(n, len(FEATURES))).astype(np.float32)
    return Inputs(vectors, features, random.normal(size=(n, layers)).astype(np.float32))


def outcomes(scores: Any, tokens: Any = None) -> Outcomes:
    scores = np.asarray(scores, np.float32)
    tokens = np.full_like(scores, np.nan) if tokens is None else np.asarray(tokens, np.float32)
    n, models = scores.shape
    names = tuple(f"m{at}" for at in range(models))
    prompts = tuple(f"question {at}" for at in range(n))
    nothing = np.full_like(scores, np.nan)
    return Outcomes(names, prompts, scores, tokens, nothing, np.ones(n, np.float32), ("",) * n, n, "")


def hard(seen: Inputs) -> NDArray[np.float32]:
    """How hard each question is: by its vector, and by a feature that no straight line follows."""
    found: NDArray[np.float32] = seen.vectors[:, 0] - (np.abs(seen.features[:, 2]) > 0.7)
    return found


class TestRidge:
    def test_without_is_what_a_fit_on_the_other_rows_says(self) -> None:
        random = np.random.default_rng(1)
        x = random.normal(size=(60, 3)).astype(np.float32)
        y = x @ np.array([[1.0], [-2.0], [0.5]]) + random.normal(size=(60, 1)) * 0.1
        found = Ridge(x).fit(y)
        for row in (0, 17, 59):
            others = np.arange(60) % 10 != row % 10
            middle_x, middle_y = x[others].mean(axis=0), y[others].mean(axis=0)
            gram = (x[others] - middle_x).T @ (x[others] - middle_x)
            # The penalty that was chosen is the smallest: the signal is strong.
            weights = np.linalg.solve(gram + 30.0 * np.eye(3), (x[others] - middle_x).T @ (y[others] - middle_y))
            # The closed form keeps the inputs' means of all rows, hence not exactly.
            assert found.without[row, 0] == pytest.approx((x[row] - middle_x) @ weights[:, 0] + middle_y[0], abs=0.02)

    def test_what_has_no_signal_does_not_give_itself_away(self) -> None:
        """A mean of all other rows is high where the one left out is low: trees would read the target from it."""
        random = np.random.default_rng(5)
        y = random.normal(size=(300, 1))
        found = Ridge(random.normal(size=(300, 5)).astype(np.float32)).fit(y)
        inside = [np.corrcoef(found.without[fold::10, 0], y[fold::10, 0])[0, 1] for fold in range(10)]
        assert abs(np.mean(inside)) < 0.25

    def test_each_target_has_its_own_penalty(self) -> None:
        random = np.random.default_rng(2)
        x = random.normal(size=(300, 40)).astype(np.float32)
        y = np.stack([x[:, 0].astype(float), random.normal(size=300)], axis=1)
        found = Ridge(x).fit(y)
        assert found.weights[0, 0] > 0.85
        assert np.abs(found.weights[:, 1]).max() < 0.05, "noise is learnt hardly at all"


class TestForest:
    def test_it_follows_what_is_not_linear(self) -> None:
        seen = inputs(2_000)
        y = (np.abs(seen.features[:, 2]) > 0.7).astype(float)[:, None]
        found = Forest(seen.features, y, leaves=64, least_rows=5).predict(seen.features)
        assert np.corrcoef(found[:, 0], y[:, 0])[0, 1] > 0.85

    def test_without_scikit_learn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
        with pytest.raises(MissingDependencyError, match=r"llm-proxy\[train\]"):
            Forest(np.zeros((2, 1), np.float32), np.zeros((2, 1)), leaves=2, least_rows=1)


class TestFit:
    def test_other_models_tell_how_hard_a_question_is(self) -> None:
        """One noisy model alone teaches little; twenty others, that nobody is sent to, teach what is hard."""
        random = np.random.default_rng(3)
        seen, test = inputs(400, seed=4), inputs(2_000, seed=5)
        rule = hard(seen)[:, None] + random.normal(size=(400, 21)) * 1.5
        scores = (rule < np.median(rule)).astype(float)
        alone = fit(outcomes(scores[:, :1]), seen).predict(test)[0]
        together = fit(outcomes(scores), seen, ["m0"]).predict(test)[0]
        assert together.shape == (2_000, 1)
        gained = [abs(np.corrcoef(found[:, 0], hard(test))[0, 1]) for found in (alone, together)]
        assert gained[1] > gained[0] + 0.05

    def test_gaps(self) -> None:
        """Each model is learnt from the rows that it was asked, also where no row has all of them."""
        seen = inputs(900)
        scores = np.stack([(hard(seen) < -0.3).astype(float), (hard(seen) > -0.3).astype(float)], axis=1)
        scores[:450, 0] = scores[450:, 1] = np.nan
        p_good, logs = fit(outcomes(scores), seen).predict(seen)
        assert np.corrcoef(p_good[:, 0], hard(seen))[0, 1] < -0.6
        assert np.corrcoef(p_good[:, 1], hard(seen))[0, 1] > 0.6
        assert np.isnan(logs).all()

    def test_a_model_that_was_never_asked(self) -> None:
        seen = inputs(30)
        scores = np.stack([np.arange(30) % 2, np.full(30, np.nan)], axis=1)
        p_good, _ = fit(outcomes(scores), seen).predict(seen)
        assert np.isfinite(p_good).all()

    def test_lengths(self) -> None:
        seen = inputs(600)
        tokens = np.exp(5 + hard(seen))[:, None] * np.array([1.0, 2.0])
        tokens[:, 1] = np.nan
        _, logs = fit(outcomes(np.ones((600, 2)), tokens), seen).predict(seen)
        assert np.corrcoef(logs[:, 0], hard(seen))[0, 1] > 0.8
        assert np.exp(logs[:, 0]).mean() == pytest.approx(float(tokens[:, 0].mean()), rel=0.2)
        assert np.isnan(logs[:, 1]).all()

    def test_a_constant_score_is_learnt_as_such(self) -> None:
        p_good, _ = fit(outcomes(np.full((50, 1), 0.25)), inputs(50)).predict(inputs(9, seed=1))
        assert p_good == pytest.approx(0.25, abs=1e-5)


class TestToOnnx:
    @pytest.mark.parametrize("layers", [0, _LAYERS])
    @pytest.mark.parametrize("n", [50, 500])
    def test_the_graph_says_what_was_fitted(self, layers: int, n: int) -> None:
        onnxruntime = pytest.importorskip("onnxruntime")
        seen, test = inputs(n, layers=layers), inputs(200, layers=layers, seed=9)
        scores = np.stack([(hard(seen) < -0.3), np.ones(n)], axis=1)
        tokens = np.stack([np.exp(5 + hard(seen)), np.full(n, np.nan)], axis=1)
        fitted = fit(outcomes(scores, tokens), seen)
        assert (fitted.scores.forest is None) == (n == 50)
        feed = {"vector": test.vectors, "features": test.features, **({"layers": test.layers} if layers else {})}
        found = self._run(onnxruntime, fitted, feed, layers)
        for one, wanted in zip(found, fitted.predict(test), strict=True):
            np.testing.assert_allclose(one, wanted, atol=1e-5, equal_nan=True)

    def test_the_same_bytes_each_time(self) -> None:
        made = [to_onnx(fit(outcomes(np.eye(2).repeat(150, 0)), inputs(300)), dim=_DIM, layers=_LAYERS) for _ in "12"]
        assert made[0] == made[1]

    def test_without_onnx(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fitted = fit(outcomes(np.ones((4, 1))), inputs(4))
        monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(MissingDependencyError, match=r"llm-proxy\[train\]"):
            to_onnx(fitted, dim=_DIM, layers=_LAYERS)

    @staticmethod
    def _run(onnxruntime: Any, fitted: Fitted, feed: dict[str, Any], layers: int) -> list[Any]:
        session = onnxruntime.InferenceSession(
            to_onnx(fitted, dim=_DIM, layers=layers), providers=["CPUExecutionProvider"]
        )
        found: list[Any] = session.run(["p_good", "log_tokens"], feed)
        return found
