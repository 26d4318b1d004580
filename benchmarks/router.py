"""How well a trained router chooses: ``python -m benchmarks.router --train FILE --weak NAME --strong NAME``.

It learns from ``--train`` as ``llm-proxy route train`` does, and is measured on ``--test``, or on the fifth of the
prompts of ``--train`` that it does not learn from. Beside it on the same rows: the length of the prompt, TF-IDF with a
logistic regression, the router trained without the group of each question (``group_out_*``), and what one could say
who knew how all other models of the set did on it (``others_known_apgr``): a mark that the reading of a question hardly
passes. With ``--shipped`` the head in router_models is measured, without training: the models that are named
stand for its weak and its strong tier.
``--train`` may be left out then, and with it what is learnt from it.

``--candidates A,B,C --prices A=IN/OUT,...`` (dollars per million tokens) measures a choice among several: its settings
are chosen on the training part, by predictions of models that did not see the row.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llm_proxy.errors import LLMProxyError
from llm_proxy.route import metrics
from llm_proxy.route.train.baselines import length_scores, word_scores
from llm_proxy.route.train.evaluate import Encoded
from llm_proxy.route.train.measure import measure

from ._candidates import OPTIONS as SEVERAL
from ._candidates import several
from ._candidates import table as several_table
from ._heads import call_times, encodings, group_out, shipped, trained
from ._hindsight import others_known_apgr
from ._outcomes import OPTIONS, asked_all, entry_of, finite, sides
from ._quality_cost import draw
from ._report import arguments, report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_proxy.route.base import Head

_PARTS = (0.125, 0.25, 0.5)


def main() -> None:
    """Run and report."""
    options = arguments(
        "router",
        __doc__,
        **OPTIONS,
        weak=(str, "", "the model that is asked where it is good enough"),
        strong=(str, "", "the model that is asked otherwise"),
        draws=(int, 1000, "draws of the bootstrap over test rows"),
        shipped=(_flag, False, "measure the heads in router_models, without training", "?"),
        curve=(_flag, False, "also train on an eighth, a quarter and a half of the rows", "?"),
        folds=(int, 0, "also cross-validate over the rows to learn from, as llm-proxy route train does"),
        **SEVERAL,
    )
    try:
        if options.candidates:
            figures = finite(several(options))
            if options.plot:
                draw(figures, options.plot)
            report(
                "router", figures, options, table=several_table(figures), entry=entry_of(options, options.candidates)
            )
        else:
            entry = entry_of(options, f"{options.weak} or {options.strong}")
            report("router", figures := finite(_pair(options)), options, table=_table(figures), entry=entry)
    except LLMProxyError as exc:
        sys.exit(str(exc))


def _flag(text: str) -> bool:
    return text.lower() in {"1", "true", "yes"}


def _pair(options: Namespace) -> dict[str, Any]:
    if not options.weak or not options.strong:
        sys.exit("name two models: --weak NAME --strong NAME; or several: --candidates A,B,C")
    train, whole = sides(options)
    pair = options.weak, options.strong
    if len(train.outcomes):
        asked_all(train, *pair)
    test = asked_all(whole, *pair)
    weak, strong = test.outcomes.scores.T
    found: dict[str, Any] = {
        "weak": options.weak,
        "strong": options.strong,
        "n_train": len(train.outcomes),
        "n_test": len(test.outcomes),
        "weak_score": float(weak.mean()),
        "strong_score": float(strong.mean()),
        "sha256_train": train.outcomes.sha256 if len(train.outcomes) else None,
        "sha256_test": test.outcomes.sha256,
    }
    if options.shipped is not False:
        head, score, p_good = _shipped(options, test)
    else:
        head = trained(train, *pair)
        p_good, _ = train.fit(pair).predict(test.inputs)
        score = p_good[:, 1] - p_good[:, 0]
    found |= _figures(score, p_good, test, options.draws)
    found |= _baselines(train, test)
    if len(train.outcomes):
        found["others_known_apgr"] = others_known_apgr(train, whole, *pair)
    if options.shipped is False:
        found |= _group_out(train, test)
        if options.curve is not False:
            found["learning_curve"] = [*_curve(train, test), [len(train.outcomes), found["apgr"]]]
        if options.folds:
            found["cross_validated"] = asdict(measure(train, options.weak, options.strong, folds=options.folds).pair)
    times = call_times(head, test)
    return found | {"head": head.name, "route_us_p50": times["p50"], "route_us_p99": times["p99"]}


def _figures(score: NDArray[np.float32], p_good: NDArray[np.float32], test: Encoded, draws: int) -> dict[str, Any]:
    weak, strong = test.outcomes.scores.T
    low, high = metrics.apgr_interval(score, weak, strong, draws=draws)
    bins = metrics.reliability(p_good[:, 0], weak)
    return {
        "apgr": metrics.apgr(score, weak, strong),
        "apgr_low95": low,
        "apgr_high95": high,
        "cpt50": metrics.cpt(0.5, score, weak, strong),
        "cpt80": metrics.cpt(0.8, score, weak, strong),
        "pgr": metrics.pgr(score, weak, strong).tolist(),
        "auc_weak_correct": metrics.auc(p_good[:, 0], weak >= 0.5),
        "auc_strong_correct": metrics.auc(p_good[:, 1], strong >= 0.5),
        "calibration_error_weak": metrics.calibration_error(bins),
        "reliability_weak": [list(one) for one in bins],
    }


def _baselines(train: Encoded, test: Encoded) -> dict[str, float | None]:
    weak, strong = test.outcomes.scores.T
    words = None
    if len(train.outcomes):
        both = asked_all(train, *test.outcomes.models).outcomes
        words = word_scores(both.prompts, both.scores[:, 1] - both.scores[:, 0], test.outcomes.prompts)
    return {
        "random_apgr": metrics.apgr([0.0] * len(weak), weak, strong),
        "oracle_apgr": metrics.apgr(strong - weak, weak, strong),
        "length_apgr": metrics.apgr(length_scores(test.outcomes.prompts), weak, strong),
        "tfidf_apgr": None if words is None else metrics.apgr(words, weak, strong),
    }


def _group_out(train: Encoded, test: Encoded) -> dict[str, Any]:
    """The same rows, each scored by a model that saw no question of its group; None where there are no groups."""
    found = group_out(train, test, test.outcomes.models)
    if found is None:
        return {"group_out_apgr": None, "group_out_auc_weak_correct": None, "groups": 0}
    p_good, _, folds = found
    weak, strong = test.outcomes.scores.T
    score = p_good[:, 1] - p_good[:, 0]
    return {
        "group_out_apgr": metrics.apgr(score, weak, strong),
        "group_out_auc_weak_correct": metrics.auc(p_good[:, 0], weak >= 0.5),
        # Each fold has a learner of its own, and these differ in level: inside a fold only the order counts.
        "group_out_within_apgr": _within(score, test, folds),
        "length_within_apgr": _within(length_scores(test.outcomes.prompts), test, folds),
        "groups": len(set(test.outcomes.groups)),
    }


def _within(score: NDArray[Any], test: Encoded, folds: list[NDArray[np.intp]]) -> float | None:
    """Mean APGR inside each fold of groups, by its rows; None where no fold has a gap."""
    found = []
    for rows in folds:
        area = metrics.apgr(score[rows], *test.outcomes.scores[rows].T)
        if area == area:
            found.append((area, len(rows)))
    return sum(area * n for area, n in found) / sum(n for _, n in found) if found else None


def _curve(train: Encoded, test: Encoded) -> list[list[float]]:
    import numpy

    order = numpy.random.default_rng(0).permutation(len(train.outcomes))
    weak, strong = test.outcomes.scores.T
    found = []
    for part in _PARTS:
        some = train.rows(order[: max(2, int(part * len(order)))])
        p_good, _ = some.fit(test.outcomes.models).predict(test.inputs)
        found.append([len(some.outcomes), metrics.apgr(p_good[:, 1] - p_good[:, 0], weak, strong)])
    return found


def _shipped(options: Namespace, test: Encoded) -> tuple[Head, NDArray[np.float32], NDArray[np.float32]]:
    import numpy

    head = shipped()
    names = (options.weak, options.strong)
    if not set(names) <= set(head.models):
        names = (head.models[0], head.models[-1])  # weakest first
    calls = zip(test.outcomes.prompts, encodings(test), strict=True)
    found = [head.predict(text, encoding) for text, encoding in calls]
    p_good = numpy.array([[one[name].p_good for name in names] for one in found], numpy.float32)
    return head, p_good[:, 1] - p_good[:, 0], p_good


def _table(found: dict[str, Any]) -> list[list[str]]:
    def row(name: str, *keys: str) -> list[str]:
        return [name, *(_shown(found.get(key)) for key in keys)]

    return [
        [f"{found['weak']} -> {found['strong']}", f"{found['n_train']} to learn from, {found['n_test']} to measure on"],
        ["scores of the two", f"{found['weak_score']:.3f} {found['strong_score']:.3f}"],
        row("APGR", "apgr"),
        ["  95 % interval", f"{_shown(found['apgr_low95'])} to {_shown(found['apgr_high95'])}"],
        row("  group of the question not seen", "group_out_apgr"),
        row("    within its group, prompt length", "group_out_within_apgr", "length_within_apgr"),
        row("  prompt length", "length_apgr"),
        row("  TF-IDF, logistic regression", "tfidf_apgr"),
        row("  knowing how all other models did", "others_known_apgr"),
        row("  chance, perfect knowledge", "random_apgr", "oracle_apgr"),
        row("CPT50, CPT80", "cpt50", "cpt80"),
        row("AUC weak answer right", "auc_weak_correct"),
        row("calibration error, weak", "calibration_error_weak"),
        ["time, us (p50, p99)", f"{found['route_us_p50']:.0f} {found['route_us_p99']:.0f}"],
    ]


def _shown(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


if __name__ == "__main__":
    main()
