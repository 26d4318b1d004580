"""A choice among several models at their prices: what a trained router reaches, beside each model and each pair.

Of each setting two values are chosen, both on the training part: the cheapest that keeps ``--accuracy-share`` of the
best single model's accuracy, and (``*_within_cost``) the one that keeps it and stays within ``--cost-share`` of that
model's cost, both as surely as can be: the less sure of the two by the most standard errors. ``group_out`` has the
same settings where each row is predicted by a learner that saw no question of its group.
"""

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

from ._heads import group_out
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
    "cost_share": (float, 0.35, "of the best single model's cost, within which *_within_cost is to stay"),
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
    learnt, measured, unseen = _sides(train, test, names, prices)
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
        "cost_share_wanted": options.cost_share,
        **_operating_points(knobs, learnt, measured, best, options),
        "curve": [list(measured.result(knobs["by_worth"][0](measured.p_good, measured.expected, value)))
                  for value in knobs["by_worth"][1]],
        "curve_by_quality": [list(measured.result(knobs["by_quality"][0](measured.p_good, measured.expected, value)))
                  for value in knobs["by_quality"][1]],
        **_beside(knobs, measured, names, options.draws),
        "group_out": unseen and {
            **_operating_points(knobs, learnt, unseen, best, options),
            **_beside(knobs, unseen, names, options.draws),
        },
    }  # fmt: skip


def table(found: dict[str, Any]) -> list[list[str]]:
    """Rows for people."""
    best_usd, best = found["best_single_usd"], found["best_single_accuracy"]
    rows = [["", "accuracy", "of the best", "usd a call", "of its cost"]]

    def row(name: str, score: float, usd: float) -> None:
        rows.append([name, f"{score:.3f}", f"{score / best:.1%}", f"{usd:.6f}", f"{usd / best_usd:.1%}"])

    for one in sorted(found["singles"], key=lambda one: -one["accuracy"]):
        row(one["model"], one["accuracy"], one["usd"])
    for name in (f"{way}{more}" for more in ("", "_within_cost") for way in ("by_quality", "by_worth")):
        one, within_cost = found[name], f", within {found['cost_share_wanted']:.0%} of the cost"
        said = f"{name.split('_')[1]} {one['setting']:.4g}{within_cost if name.endswith('cost') else ''}"
        row(f"router, {said}", one["accuracy"], one["usd"])
        if found["group_out"]:
            unseen = found["group_out"][name]
            row("  group of the question not seen", unseen["accuracy"], unseen["usd"])

    def between(one: dict[str, Any]) -> str:
        return f"{one['low95']:+.3f} to {one['high95']:+.3f}"

    singles = [
        [f"at the cost of {one['model']}", f"{one['margin']:+.3f}", between(one)] for one in found["beside_singles"]
    ]
    pairs = [
        [f"against {' + '.join(one['models'])}", f"mean {one['mean']:+.3f}", between(one), f"least {one['least']:+.3f}"]
        for one in found["beside_pairs"]
    ]
    chance = found["beside_mixtures_by_chance"]
    mixed = [["against any two mixed by chance", f"mean {chance['mean']:+.3f}", f"least {chance['least']:+.3f}"]]
    return [*rows, *singles, *mixed, *pairs]


def _sides(
    train: Encoded, test: Encoded, names: Sequence[str], prices: Sequence[tuple[float, float]]
) -> tuple[_Side, _Side, _Side | None]:
    """What the settings are chosen on, what they are measured on, and that by learners that saw no such question."""
    usual = mean_tokens(train.outcomes.of(*names))
    out = out_of_fold(train, prompt_folds(train.outcomes.prompts, _FOLDS), names)
    rows = train.outcomes.of(*names).asked()

    def side(log: Encoded, p_good: NDArray[np.float32], log_tokens: NDArray[np.float32]) -> _Side:
        usd = true_usd(log.outcomes, prices, usual)
        expected = foreseen_usd(log.outcomes, log_tokens, prices) if prices else usd.mean(axis=0)[None] + 0 * usd
        return _Side(log.outcomes.scores, p_good, expected, usd)

    unseen = group_out(train, test, names)
    return (
        side(asked_all(train, *names), *(one[rows] for one in out)),
        side(test, *train.fit(names).predict(test.inputs)),
        None if unseen is None else side(test, *unseen[:2]),
    )


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


def _operating_points(
    knobs: dict[str, Knob], learnt: _Side, measured: _Side, best: int, options: Namespace
) -> dict[str, dict[str, Any]]:
    """By each setting: the cheapest that keeps the accuracy, and the surest that keeps the cost too."""
    share, found = options.accuracy_share, {}
    for name, knob in knobs.items():
        surest = _surest(knob, learnt, best, share, options.cost_share)
        found[name] = _operating_point(knob, _cheapest(knob, learnt, best, share), learnt, measured, best, share)
        found[f"{name}_within_cost"] = _operating_point(knob, surest, learnt, measured, best, share)
    return found


def _cheapest(knob: Knob, learnt: _Side, best: int, share: float) -> float:
    """The cheapest setting that keeps the share of accuracy on the training part.

    Kept is the share where it is reached even with one standard error less: of settings that reach it by luck, the
    cheapest would be taken.
    """
    choose, settings = knob
    seen = [(*learnt.result(choose(learnt.p_good, learnt.expected, value)), value) for value in settings]
    enough = [
        one for one in seen if _surely(learnt, choose(learnt.p_good, learnt.expected, one[2]), best, share) >= 0.0
    ]
    return min(enough or [max(seen, key=lambda one: one[1])])[2]


def _surest(knob: Knob, learnt: _Side, best: int, share: float, cost_share: float) -> float:
    """The setting that keeps both shares on the training part most surely: by how many standard errors, by row."""
    choose, settings = knob

    def sure(value: float) -> float:
        rows, chosen = range(len(learnt.scores)), choose(learnt.p_good, learnt.expected, value)
        more = learnt.scores[rows, chosen] - share * learnt.scores[:, best]
        less = cost_share * learnt.usd[:, best] - learnt.usd[rows, chosen]
        return min(float(one.mean() / (one.std() + 1e-12)) for one in (more, less))

    return max(settings, key=sure)


def _operating_point(
    knob: Knob, setting: float, learnt: _Side, measured: _Side, best: int, share: float
) -> dict[str, Any]:
    """What a setting does on the test part, and on the training part by predictions of rows not seen."""
    choose, settings = knob
    chosen = choose(measured.p_good, measured.expected, setting)
    usd, score = measured.result(chosen)
    usd_single, score_single = _mean(measured, best)
    hindsight = [measured.result(choose(measured.p_good, measured.expected, value)) for value in settings]
    shares = [usd / usd_single for usd, score in hindsight if score >= share * score_single]
    seen_usd, seen_score = learnt.result(choose(learnt.p_good, learnt.expected, setting))
    usd_best, score_best = _mean(learnt, best)
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
        **_intervals(measured, chosen, best),
    }


def _intervals(side: _Side, chosen: NDArray[np.intp], best: int, draws: int = 1000) -> dict[str, float]:
    """95 % intervals of both shares, by a bootstrap over rows."""
    import numpy

    weights, rows = _weights(len(chosen), draws), range(len(chosen))
    found = {}
    for name, values in (("accuracy", side.scores), ("cost", side.usd)):
        drawn = (values[rows, chosen] @ weights) / (values[:, best] @ weights)
        found[f"{name}_share_low95"], found[f"{name}_share_high95"] = numpy.percentile(drawn, (2.5, 97.5)).tolist()
    return found


def _weights(rows: int, draws: int) -> NDArray[np.float64]:
    """What each row counts in each draw of a bootstrap, shape ``(rows, draws)``; the columns sum to 1."""
    import numpy

    return numpy.random.default_rng(0).multinomial(rows, [1 / rows] * rows, draws).T / rows


def _surely(side: _Side, chosen: NDArray[np.intp], best: int, share: float) -> float:
    """How much a choice scores beyond a share of the best model's score, one standard error less, by row."""
    more = side.scores[range(len(chosen)), chosen] - share * side.scores[:, best]
    return float(more.mean() - more.std() / len(more) ** 0.5)


def _beside(knobs: dict[str, Knob], measured: _Side, names: Sequence[str], draws: int) -> dict[str, Any]:
    """Accuracy at equal cost: the router's less that of each single model, and of each pair routed the same way.

    The first column of weights is that of all rows, the others are draws of a bootstrap.
    """
    import numpy

    n, places = len(measured.scores), range(len(names))
    weights = numpy.concatenate([numpy.full((n, 1), 1 / n), _weights(n, draws)], axis=1)
    own, alone = _curves(knobs["by_worth"], measured, weights), (measured.usd.T @ weights, measured.scores.T @ weights)

    def ends(values: list[float]) -> dict[str, float]:
        low, high = numpy.nanpercentile(values[1:], (2.5, 97.5)).tolist()
        return {"low95": low, "high95": high}

    singles, pairs = [], []
    for at, name in enumerate(names):
        usd, score = alone[0][at], alone[1][at]
        gained = [float(numpy.interp(usd[draw], *own[draw]) - score[draw]) for draw in range(len(own))]
        singles.append(
            {"model": name, "usd": float(usd[0]), "accuracy": float(score[0]), "margin": gained[0], **ends(gained)}
        )
    for two in combinations(places, 2):
        others = _curves(knobs["by_worth"], measured.of(two), weights)
        margins = [_margins(mine, other) for mine, other in zip(own, others, strict=True)]
        means = [float(one.mean()) for one in margins]
        found = {"models": [names[at] for at in two], "mean": means[0], "least": float(margins[0].min())}
        pairs.append({**found, **ends(means)})
    points = [list(zip(alone[0][:, draw], alone[1][:, draw], strict=True)) for draw in range(len(own))]
    mixed = [_margins(mine, numpy.array(hull(some)).T, is_whole=True) for mine, some in zip(own, points, strict=True)]
    means = [float(one.mean()) for one in mixed]
    by_chance = {"mean": means[0], "least": float(mixed[0].min()), "most": float(mixed[0].max()), **ends(means)}
    return {"beside_singles": singles, "beside_pairs": pairs, "beside_mixtures_by_chance": by_chance}


def _curves(knob: Knob, side: _Side, weights: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Cost and score of every setting by each column of weights: arrays of shape ``(2, settings)``, by rising cost."""
    import numpy

    choose, settings = knob
    rows = range(len(side.scores))
    chosen = [choose(side.p_good, side.expected, value) for value in settings]
    usd, score = (numpy.array([values[rows, one] for one in chosen]) @ weights for values in (side.usd, side.scores))
    order = numpy.lexsort((score, usd), axis=0)
    both = (numpy.take_along_axis(values, order, axis=0) for values in (usd, score))
    return list(numpy.stack(list(both)).transpose(2, 0, 1))


def _margins(mine: NDArray[np.float64], other: NDArray[np.float64], *, is_whole: bool = False) -> NDArray[np.float64]:
    """How much higher one curve of scores lies than another, at 101 costs: those of the other, or those of both."""
    import numpy

    first, last = other[0][0], other[0][-1]
    grid = numpy.linspace(*((first, last) if is_whole else (max(mine[0][0], first), min(mine[0][-1], last))), 101)
    found: NDArray[np.float64] = numpy.interp(grid, *mine) - numpy.interp(grid, *other)
    return found


def _mean(side: _Side, at: int) -> tuple[float, float]:
    return side.result(_all(side, at))


def _all(side: _Side, at: int) -> NDArray[np.intp]:
    import numpy

    return numpy.full(len(side.scores), at, numpy.intp)
