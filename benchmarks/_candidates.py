"""A choice among several models at their prices: what a trained router reaches, beside each model and each pair."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_proxy.route.calibrate import mean_tokens, read_prices, true_usd, within, worth
from llm_proxy.route.train.choice import foreseen_usd
from llm_proxy.route.train.evaluate import Encoded, out_of_fold, prompt_folds

from ._outcomes import asked_all, sides
from ._quality_cost import hull

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["OPTIONS", "several", "table"]

OPTIONS: dict[str, tuple[Any, ...]] = {
    "candidates": (str, "", "names of models, separated by commas: a choice among all of them"),
    "prices": (str, "", "NAME=IN/OUT,... in dollars per million tokens, or a JSON file {NAME: [IN, OUT]}"),
    "plot": (Path, None, "SVG file to draw accuracy against cost into"),
    "accuracy_share": (float, 0.95, "of the best single model's accuracy, that the settings are chosen for"),
}
_FOLDS = 5
_STEPS = 200


@dataclass(frozen=True, slots=True)
class _Side:
    """Rows with predictions by models that did not see them, and what each answer cost and is expected to."""

    scores: NDArray[np.float32]
    p_good: NDArray[np.float32]
    expected: NDArray[np.float64]
    usd: NDArray[np.float64]

    def of(self, places: Sequence[int]) -> _Side:
        """The same with some candidates only."""
        at = list(places)
        return _Side(self.scores[:, at], self.p_good[:, at], self.expected[:, at], self.usd[:, at])

    def result(self, chosen: NDArray[np.intp]) -> tuple[float, float]:
        """Mean dollars and mean score of a choice."""
        rows = range(len(chosen))
        return float(self.usd[rows, chosen].mean()), float(self.scores[rows, chosen].mean())


Knob = tuple["Callable[[NDArray[np.float32], NDArray[np.float64], float], NDArray[np.intp]]", "list[float]"]


def several(options: Namespace) -> dict[str, Any]:
    """All figures of a choice among several.

    Raises:
        SystemExit: An option is wrong.
    """
    names = [name.strip() for name in options.candidates.split(",") if name.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        sys.exit("--candidates needs two different models or more, separated by commas")
    prices = read_prices(options.prices, names) if options.prices else []
    train, test = sides(options)
    test = asked_all(test, *names)
    learnt, measured = _sides(train, test, names, prices)
    knobs = _knobs(learnt)
    singles = [measured.result(_all(measured, at)) for at in range(len(names))]
    best = max(range(len(names)), key=lambda at: (_mean(learnt, at)[1], -_mean(learnt, at)[0]))
    return {
        "candidates": names,
        "prices_usd_per_mtok": [list(price) for price in prices],
        "n_train": len(train.outcomes),
        "n_test": len(test.outcomes),
        "lengths_known": (~_unknown(test)).tolist(),
        "best_single": names[best],
        "best_single_accuracy": singles[best][1],
        "best_single_usd": singles[best][0],
        "singles": [
            {"model": name, "accuracy": score, "usd": usd} for name, (usd, score) in zip(names, singles, strict=True)
        ],
        "accuracy_share_wanted": options.accuracy_share,
        **{
            name: _operating_point(knob, learnt, measured, best, options.accuracy_share) for name, knob in knobs.items()
        },
        "curve": [list(measured.result(knobs["by_worth"][0](measured.p_good, measured.expected, value)))
                  for value in knobs["by_worth"][1]],
        "curve_by_quality": [list(measured.result(knobs["by_quality"][0](measured.p_good, measured.expected, value)))
                  for value in knobs["by_quality"][1]],
        **_beside(knobs, measured, names),
    }  # fmt: skip


def table(found: dict[str, Any]) -> list[list[str]]:
    """Rows for people."""
    best_usd, best = found["best_single_usd"], found["best_single_accuracy"]
    rows = [["", "accuracy", "of the best", "usd a call", "of its cost"]]

    def row(name: str, score: float, usd: float) -> None:
        rows.append([name, f"{score:.3f}", f"{score / best:.1%}", f"{usd:.6f}", f"{usd / best_usd:.1%}"])

    for one in sorted(found["singles"], key=lambda one: -one["accuracy"]):
        row(one["model"], one["accuracy"], one["usd"])
    for name in ("by_quality", "by_worth"):
        one = found[name]
        row(f"router, {name.removeprefix('by_')} {one['setting']:.4g}", one["accuracy"], one["usd"])
    singles = [[f"at the cost of {one['model']}", f"{one['margin']:+.3f}"] for one in found["beside_singles"]]
    pairs = [
        [f"against {' + '.join(one['models'])}", f"mean {one['mean']:+.3f}", f"least {one['least']:+.3f}"]
        for one in found["beside_pairs"]
    ]
    chance = found["beside_mixtures_by_chance"]
    mixed = [["against any two mixed by chance", f"mean {chance['mean']:+.3f}", f"least {chance['least']:+.3f}"]]
    return [*rows, *singles, *mixed, *pairs]


def _sides(
    train: Encoded, test: Encoded, names: Sequence[str], prices: Sequence[tuple[float, float]]
) -> tuple[_Side, _Side]:
    usual = mean_tokens(train.outcomes.of(*names))
    fold = prompt_folds(train.outcomes.prompts, _FOLDS)
    p_good, log_tokens = out_of_fold(train, fold, names)
    of_test = train.fit(names).predict(test.inputs)
    asked = asked_all(train, *names)
    rows = train.outcomes.of(*names).asked()
    train, of_train = asked, (p_good[rows], log_tokens[rows])
    sides = []
    for side, (p_good, log_tokens) in ((train, of_train), (test, of_test)):
        usd = true_usd(side.outcomes, prices, usual)
        expected = foreseen_usd(side.outcomes, log_tokens, prices) if prices else usd.mean(axis=0)[None] + 0 * usd
        sides.append(_Side(side.outcomes.scores, p_good, expected, usd))
    return sides[0], sides[1]


def _unknown(side: Encoded) -> NDArray[np.bool_]:
    import numpy

    found: NDArray[np.bool_] = numpy.isnan(side.outcomes.tokens).all(axis=0)
    return found


def _knobs(learnt: _Side) -> dict[str, Knob]:
    import numpy

    # The most that a better answer can cost, and the least that can matter.
    dear = float(learnt.expected.max()) * 1000
    values = numpy.geomspace(dear / 1e8, dear, _STEPS).tolist()
    tolerances = [*numpy.linspace(0, 0.7, 36).tolist(), *numpy.linspace(0.705, 1, 60).tolist()]
    return {"by_quality": (within, tolerances), "by_worth": (worth, values)}


def _operating_point(knob: Knob, learnt: _Side, measured: _Side, best: int, share: float) -> dict[str, Any]:
    """The cheapest setting that keeps the share of accuracy on the training part, and what it does on the test part.

    Kept is the share where it is reached even with one standard error less: of settings that reach it by luck, the
    cheapest would be taken.
    """
    choose, settings = knob
    usd_best, score_best = _mean(learnt, best)
    seen = [(*learnt.result(choose(learnt.p_good, learnt.expected, value)), value) for value in settings]
    enough = [
        one for one in seen if _surely(learnt, choose(learnt.p_good, learnt.expected, one[2]), best, share) >= 0.0
    ] or [max(seen, key=lambda one: one[1])]
    seen_usd, seen_score, setting = min(enough)
    chosen = choose(measured.p_good, measured.expected, setting)
    usd, score = measured.result(chosen)
    usd_single, score_single = _mean(measured, best)
    hindsight = [measured.result(choose(measured.p_good, measured.expected, value)) for value in settings]
    shares = [usd / usd_single for usd, score in hindsight if score >= share * score_single]
    return {
        "setting": setting,
        "accuracy": score,
        "usd": usd,
        "accuracy_share": score / score_single,
        "cost_share": usd / usd_single,
        "calls": [float((chosen == at).mean()) for at in range(measured.scores.shape[1])],
        "accuracy_share_in_training": seen_score / score_best,
        "cost_share_in_training": seen_usd / usd_best,
        "cost_share_in_hindsight": min(shares) if shares else None,
    }


def _surely(side: _Side, chosen: NDArray[np.intp], best: int, share: float) -> float:
    """How much a choice scores beyond a share of the best model's score, one standard error less, by row."""
    more = side.scores[range(len(chosen)), chosen] - share * side.scores[:, best]
    return float(more.mean() - more.std() / len(more) ** 0.5)


def _beside(knobs: dict[str, Knob], measured: _Side, names: Sequence[str]) -> dict[str, Any]:
    """Accuracy at equal cost: the router's less that of each single model, and of each pair routed the same way."""
    import numpy

    choose, settings = knobs["by_worth"]

    def curve(side: _Side) -> NDArray[np.float64]:
        points = [side.result(choose(side.p_good, side.expected, value)) for value in settings]
        return numpy.array(sorted(points)).T

    usd, score = curve(measured)
    singles, pairs = [], []
    for at, name in enumerate(names):
        own_usd, own = _mean(measured, at)
        reached = float(numpy.interp(own_usd, usd, score))
        singles.append({"model": name, "usd": own_usd, "accuracy": own, "margin": reached - own})
    for places in combinations(range(len(names)), 2):
        pair_usd, pair_score = curve(measured.of(places))
        grid = numpy.linspace(max(usd[0], pair_usd[0]), min(usd[-1], pair_usd[-1]), 101)
        margins = numpy.interp(grid, usd, score) - numpy.interp(grid, pair_usd, pair_score)
        two = [names[at] for at in places]
        pairs.append({"models": two, "mean": float(margins.mean()), "least": float(margins.min())})
    mixed_usd, mixed = numpy.array(hull([_mean(measured, at) for at in range(len(names))])).T
    margins = numpy.interp(grid := numpy.linspace(mixed_usd[0], mixed_usd[-1], 101), usd, score)
    margins -= numpy.interp(grid, mixed_usd, mixed)
    by_chance = {"mean": float(margins.mean()), "least": float(margins.min()), "most": float(margins.max())}
    return {"beside_singles": singles, "beside_pairs": pairs, "beside_mixtures_by_chance": by_chance}


def _mean(side: _Side, at: int) -> tuple[float, float]:
    return side.result(_all(side, at))


def _all(side: _Side, at: int) -> NDArray[np.intp]:
    import numpy

    return numpy.full(len(side.scores), at, numpy.intp)
