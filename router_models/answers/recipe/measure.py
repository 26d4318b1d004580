"""What the card says: areas under the ROC curve, calibration, and what a bar saves, on questions not trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from llm_proxy.route import adapt
from llm_proxy.route.answers import FEATURES

from .data import STRONG, TEST_SHARE, Marked
from .model import P_GOOD, Floats, Scorer, fit, foretold

CHARS = FEATURES.index("chars")
Mask = NDArray[np.bool_]
Say = Callable[[str], None]


def split(rows: Marked) -> tuple[Marked, Marked]:
    """Those trained on, and those that no choice was made on."""
    return rows.rows(rows.places >= TEST_SHARE), rows.rows(rows.places < TEST_SHARE)


def auc(is_good: NDArray[np.int64], score: Floats) -> float:
    """Area under the ROC curve; NaN where all are good, or none."""
    return float(roc_auc_score(is_good, score)) if 0 < is_good.sum() < len(is_good) else float("nan")


def held_out(rows: Marked, say: Say) -> Scorer:
    """The split by questions: the scorer with all it may have, and with less."""
    known, other = split(rows)
    scorer = fit(known)
    line, p_good = scorer.line(other), foretold(known, other)
    with_p_good = other.features.copy()
    with_p_good[:, P_GOOD] = p_good
    scores = {
        "scorer": scorer.logits(other.features, line),
        "and p_good": scorer.logits(with_p_good, line),
        "no vectors": scorer.logits(other.features, np.full(len(other), np.nan)),
        "question": p_good,
        "length": -other.features[:, CHARS],
    }
    say("| | n | right | " + " | ".join(scores) + " |\n|---|--:|--:|" + "--:|" * len(scores))
    for name, chosen in _groups(other):
        cells = [f"{auc(other.is_good[chosen], score[chosen]):.3f}" for score in scores.values()]
        say(f"| {name} | {chosen.sum()} | {other.is_good[chosen].mean():.3f} | " + " | ".join(cells) + " |")
    reliability(other.is_good, scores["scorer"], say)
    bars(other, scores["scorer"], say)
    cascades(other, scores["scorer"], p_good, say)
    return scorer


def left_out(rows: Marked, say: Say) -> None:
    """One set, model or task is left out of training, and measured on the questions held out."""
    known, other = split(rows)
    say("| left out | scorer | question | length |\n|---|--:|--:|--:|")
    for field in ("sources", "models", "tasks"):
        for name in np.unique(getattr(rows, field)):
            own, rest = other.rows(getattr(other, field) == name), known.rows(getattr(known, field) != name)
            scorer = fit(rest)
            score = auc(own.is_good, scorer.logits(own.features, scorer.line(own)))
            asked = auc(own.is_good, _strength(rest, own))
            say(f"| {name} | {score:.3f} | {asked:.3f} | {auc(own.is_good, -own.features[:, CHARS]):.3f} |")


def adapted(rows: Marked, say: Say) -> None:
    """A set is left out of training, and some of its answers correct the scorer: means of five draws."""
    known, other = split(rows)
    say("\n| left out | own answers | area | calibration error |\n|---|--:|--:|--:|")
    for source in np.unique(rows.sources):
        own, test = known.rows(known.sources == source), other.rows(other.sources == source)
        scorer = fit(known.rows(known.sources != source))
        said, before = scorer.logits(test.features, scorer.line(test)), scorer.logits(own.features, scorer.line(own))
        say(f"| {source} | 0 | {auc(test.is_good, said):.3f} | {calibration_error(test.is_good, said):.3f} |")
        for count in (50, 100, 300, 1000):
            found = []
            for seed in range(5):
                some = np.random.default_rng(seed).choice(len(own), count, replace=False)
                made = adapt.fit("", before[some], own.features[some].astype(float), own.is_good[some].astype(bool))
                after = np.array([made.logit(*pair) for pair in zip(said, test.features.tolist(), strict=True)])
                found.append((auc(test.is_good, after), calibration_error(test.is_good, after)))
            area, error = np.mean(found, axis=0)
            say(f"| {source} | {count} | {area:.3f} | {error:.3f} |")


def calibration_error(is_good: NDArray[np.int64], logits: Floats) -> float:
    """Mean distance between what was said and what was right, by tenths."""
    said = 1 / (1 + np.exp(-logits))
    tenth = np.minimum((said * 10).astype(int), 9)
    parts = [tenth == place for place in np.unique(tenth)]
    return float(sum(part.mean() * abs(said[part].mean() - is_good[part].mean()) for part in parts))


def reliability(is_good: NDArray[np.int64], logits: Floats, say: Say) -> None:
    """What share of answers was right, by what the scorer said of them; and the expected calibration error."""
    said = 1 / (1 + np.exp(-logits))
    tenth = np.minimum((said * 10).astype(int), 9)
    say("\n| said | answers | mean said | right |\n|---|--:|--:|--:|")
    for place in np.unique(tenth):
        chosen = tenth == place
        row = f"{chosen.sum()} | {said[chosen].mean():.3f} | {is_good[chosen].mean():.3f}"
        say(f"| {place / 10:.1f} to {place / 10 + 0.1:.1f} | {row} |")
    error = calibration_error(is_good, logits)
    say(f"\nExpected calibration error {error:.3f}, Brier score {np.mean((said - is_good) ** 2):.3f}.")


def bars(rows: Marked, logits: Floats, say: Say) -> None:
    """What a bar does: share of answers kept, and how many of these, and of those given up, are right."""
    said = 1 / (1 + np.exp(-logits))
    say("\n| bar | kept | right of those kept | right of those given up |\n|--:|--:|--:|--:|")
    for bar in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        kept = said >= bar
        right, lost = rows.is_good[kept].mean(), rows.is_good[~kept].mean()
        say(f"| {bar} | {kept.mean():.2f} | {right:.3f} | {lost:.3f} |")


def cascades(rows: Marked, logits: Floats, p_good: Floats, say: Say) -> None:
    """Right answers where a strong model answers what looks worst, by three ways to look."""
    say("\n| cheap, strong | cheap | strong | asked | by the answer | by the question | by chance |")
    say("|---|--:|--:|--:|--:|--:|--:|")
    for source in np.unique(rows.sources):
        for model in np.unique(rows.models[rows.sources == source]):
            chosen = (rows.sources == source) & (rows.models == model) & ~np.isnan(rows.strong)
            own = rows.rows(chosen)
            weak, strong = own.is_good.mean(), own.strong.mean()
            for share in (0.1, 0.2, 0.3, 0.5):
                found = [_escalated(own, score[chosen], share) for score in (logits, p_good)]
                cells = " | ".join(f"{value:.3f}" for value in (*found, weak + share * (strong - weak)))
                say(f"| {model}, {STRONG[model]} | {weak:.3f} | {strong:.3f} | {share:.0%} | {cells} |")


def _escalated(rows: Marked, score: Floats, share: float) -> float:
    given_up = np.argsort(score, kind="stable")[: round(share * len(rows))]
    final = rows.is_good.astype(float)
    final[given_up] = rows.strong[given_up]
    return float(final.mean())


def _groups(rows: Marked) -> list[tuple[str, Mask]]:
    found: list[tuple[str, Mask]] = []
    for source in np.unique(rows.sources):
        own = rows.sources == source
        found.append((f"**{source}**", own))
        found += [(str(model), own & (rows.models == model)) for model in np.unique(rows.models[own])]
        found += [(str(task), own & (rows.tasks == task)) for task in np.unique(rows.tasks[own])]
    return found


def _strength(known: Marked, other: Marked) -> Floats:
    from sklearn.linear_model import Ridge

    found: Any = Ridge(10.0).fit(known.questions, known.is_good).predict(other.questions)
    return np.asarray(found, np.float64)
