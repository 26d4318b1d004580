"""What a beginning with the head is worth to who has a small log: learning curves with it and from nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from llm_proxy.route import metrics
from llm_proxy.route.train.evaluate import Encoded, prompt_folds
from llm_proxy.route.train.prior import Prior

from .data import PAIRS, Rated
from .measure import unlike
from .model import fit

_SIZES = (50, 100, 200, 500, 1000)
_DRAWS, _PARTS = 8, 5


def curves(sets: list[Rated], show: Callable[[str], None]) -> None:
    """Print a row of a table for each pair; the head saw nothing of its set."""
    show(f"| pair | {' | '.join(f'{size:,} rows' for size in _SIZES)} |")
    show(f"|---|{'--:|' * len(_SIZES)}")
    found = []
    for left in sets:
        others = fit([unlike(one, left) for one in sets if one is not left])
        weights = others.scores.weights
        prior = Prior("others", weights[:, -1] - weights[:, 0], others.deviation)
        for weak, strong in PAIRS[left.name]:
            outcomes = left.log.outcomes.of(weak, strong)
            log = Encoded(outcomes, left.log.inputs).rows(outcomes.asked())
            held = prompt_folds(log.outcomes.prompts, _PARTS) == 0
            rows = [_at(log, held, size, prior) for size in _SIZES]
            found.append(rows)
            cells = ["-" if nothing != nothing else f"{nothing:.3f} → {with_it:.3f}" for nothing, with_it in rows]
            show(f"| {weak} / {strong} | {' | '.join(cells)} |")
    means = np.nanmean(np.array(found), axis=0)
    show(f"| mean | {' | '.join(f'{nothing:.3f} → {with_it:.3f}' for nothing, with_it in means)} |")


def _at(log: Encoded, held: NDArray[np.bool_], size: int, prior: Prior) -> tuple[float, float]:
    """APGR from nothing, and with the prior: means over draws; NaN where there are too few rows."""
    pool, test = np.flatnonzero(~held), log.rows(np.flatnonzero(held))
    if len(pool) < size:
        return float("nan"), float("nan")
    areas = []
    for seed in range(_DRAWS):
        some = log.rows(np.random.default_rng(seed).permutation(pool)[:size])
        both = []
        for one in (some, replace(some, prior=prior)):
            p_good, _ = one.fit().predict(test.inputs)
            both.append(metrics.apgr(p_good[:, 1] - p_good[:, 0], *test.outcomes.scores.T))
        areas.append(both)
    nothing, with_it = np.mean(areas, axis=0)
    return float(nothing), float(with_it)
