"""What the rules and the model together serve of the pair sets."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm_proxy.cache.guard.compare import agree
from llm_proxy.cache.guard.model import PairModel
from llm_proxy.cache.guard.probability import JUDGED, p_same

from .corpus import is_held
from .data import labelled
from .pools import Pools
from .questions import Questions
from .wordnet import WordNet

__all__ = ["BARS", "SERVED", "Measured", "auc", "measured", "report"]

Array = np.ndarray[Any, Any]
SERVED = 0.996
BARS = {  # most different, least equal
    "pairs_negation": (0.005, 0.0),
    "slots_snips": (0.001, 0.12),
    "slots_hwu64": (0.0, 0.10),
    "pairs_prompt_paraphrase": (0.0, 0.40),
    "pairs_qqp": (0.010, 0.17),
    "general": (0.003, 0.0),
}
_GENERAL = 5_000


@dataclass(frozen=True)
class Measured:
    """A pair set with what is known of each pair.

    Attributes:
        a: First texts.
        b: Second texts.
        label: 1 for the same question.
        reason: What `agree` says.
        cosine: Of the shipped encoder.
        logit: Of the model; NaN where it was not asked or cannot tell.
        p: What `p_same` makes of them.
    """

    a: list[str]
    b: list[str]
    label: Array
    reason: list[str]
    cosine: Array
    logit: Array
    p: Array

    def held(self) -> Measured:
        """Only the pairs of which a text was kept out of training."""
        kept = [at for at, pair in enumerate(zip(self.a, self.b, strict=True)) if any(map(is_held, pair))]
        a, b, reason = ([values[at] for at in kept] for values in (self.a, self.b, self.reason))
        return Measured(a, b, self.label[kept], reason, self.cosine[kept], self.logit[kept], self.p[kept])


def measured(
    data: Path, name: str, encode: Callable[[list[str]], Array], model: PairModel, most: int = 4_000
) -> Measured:
    """A set, or a sample of at most so many pairs; ``general``: questions made of what was kept out of training."""
    pairs = (
        list(Questions(Pools(), WordNet(), 99, held=True).pairs(_GENERAL))
        if name == "general"
        else list(labelled(data, name))
    )
    pairs = random.Random(0).sample(pairs, min(most, len(pairs)))
    a, b = [pair.a for pair in pairs], [pair.b for pair in pairs]
    reason = [agree(pair.a, pair.b) for pair in pairs]
    texts = sorted({text for at, pair in enumerate(pairs) if reason[at] in JUDGED for text in (pair.a, pair.b)})
    vectors = dict(zip(texts, encode(texts), strict=True)) if texts else {}
    cosine, logit, p = np.zeros(len(pairs)), np.full(len(pairs), np.nan), np.zeros(len(pairs))
    for at in range(len(pairs)):
        if reason[at] in JUDGED:
            cosine[at] = float(vectors[a[at]] @ vectors[b[at]])
            found = model.logit(a[at], b[at])
            logit[at] = np.nan if found is None else found
            p[at] = p_same(reason[at], float(cosine[at]), found)
    return Measured(a, b, np.array([pair.label for pair in pairs]), reason, cosine, logit, p)


def report(sets: Mapping[str, Measured]) -> str:
    """One row a set: shares served of different and of equal pairs by rules and old threshold, and by the model."""
    lines = [f"{'':26}{'pairs':>14}{'rules, cosine .95':>20}{'rules and model':>18}{'bar':>14}{'AUC':>7}"]
    for name, found in sets.items():
        rules = np.array([reason == "" for reason in found.reason]) & (found.cosine >= 0.95)
        lines.append(
            f"{name:26}{f'{(found.label == 1).sum()}/{(found.label == 0).sum()}':>14}"
            f"{_shares(found.label, rules):>20}{_shares(found.label, found.p >= SERVED):>18}"
            f"{'{1:.2f} {0:.3f}'.format(*BARS[name]):>14}{_auc_of_judged(found):>7.3f}"
        )
    return "\n".join(lines) + "\nequal pairs before different ones; AUC: of p among the pairs that the rules leave open"


def _shares(label: Array, is_served: Array) -> str:
    equal, different = (float(is_served[label == kind].mean()) if (label == kind).any() else 0.0 for kind in (1, 0))
    return f"{equal:.3f} {different:.4f}"


def _auc_of_judged(found: Measured) -> float:
    is_open = np.array([reason in JUDGED for reason in found.reason])
    return auc(found.label[is_open], found.p[is_open])


def auc(label: Array, score: Array) -> float:
    """Chance that a pair of the same question scores above one of another; pairs of one score in chance order."""
    order = score.argsort(kind="stable").argsort() + 1.0
    n = int((label == 1).sum())
    return float((order[label == 1].sum() - n * (n + 1) / 2) / max(n * (len(label) - n), 1))
