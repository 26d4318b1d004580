"""The figures of the card: each set by a head that saw none of it, nor a question like one of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from llm_proxy.route import metrics
from llm_proxy.route.train.baselines import length_scores, word_scores

from .data import PAIRS, Rated
from .model import fit

_ALIKE = 0.93  # cosine: sets share questions, in other words or with other options
_CHUNK = 1000


def left_out(sets: list[Rated], show: Callable[[str], None]) -> None:
    """Print a row of a table for each pair."""
    show("| left out | pair | rows | head (95 %) | length | TF-IDF | not learnt from |")
    show("|---|---|--:|--:|--:|--:|--:|")
    means: list[list[float]] = []
    for left in sets:
        others = [unlike(one, left) for one in sets if one is not left]
        p_good, _ = fit(others).predict(left.log.inputs)
        words = _words(others, left)
        dropped = sum(len(one) for one in sets if one is not left) - sum(map(len, others))
        for weak, strong in PAIRS[left.name]:
            scores = left.log.outcomes.of(weak, strong).scores
            rows = np.flatnonzero(~np.isnan(scores).any(axis=1))
            ends = scores[rows].T
            gain = (p_good[:, -1] - p_good[:, 0])[rows]
            low, high = metrics.apgr_interval(gain, *ends, draws=500)
            lengths = length_scores([left.log.outcomes.prompts[row] for row in rows])
            figures = [metrics.apgr(said, *ends) for said in (gain, lengths, words[rows])]
            means.append(figures)
            show(
                f"| {left.name} | {weak} / {strong} | {len(rows)} | {figures[0]:.3f} ({low:.3f} to {high:.3f}) |"
                f" {figures[1]:.3f} | {figures[2]:.3f} | {dropped} |"
            )
    head, length, words_mean = np.mean(means, axis=0)
    show(f"| mean | | | {head:.3f} | {length:.3f} | {words_mean:.3f} | |")


def unlike(one: Rated, left: Rated) -> Rated:
    """The questions of a set that are like none of another's."""
    vectors, others = one.log.inputs.vectors, left.log.inputs.vectors
    nearest = [(vectors[at : at + _CHUNK] @ others.T).max(axis=1) for at in range(0, len(vectors), _CHUNK)]
    return one.rows(np.flatnonzero(np.concatenate(nearest) < _ALIKE))


def _words(others: list[Rated], left: Rated) -> NDArray[np.float64]:
    known = [~np.isnan(one.weak + one.strong) for one in others]
    prompts = [
        prompt
        for one, rows in zip(others, known, strict=True)
        for prompt, is_known in zip(one.log.outcomes.prompts, rows, strict=True)
        if is_known
    ]
    gain = np.concatenate([(one.strong - one.weak)[rows] for one, rows in zip(others, known, strict=True)])
    return word_scores(prompts, gain.astype(np.float32), left.log.outcomes.prompts)
