"""How many reworded prompts a rule serves, and how many of those with a fault: from one extreme to the other.

The prompts are those of pairs_prompt_paraphrase; a fault of each kind (`prompt_faults`) is put into each rewording. The rules
see those whose two wordings the encoder sees whole and whose cosine the cache lets pass; all shares are of all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from llm_proxy.cache.guard import Guard, load_shipped
from llm_proxy.encode.onnx import OnnxEncoder

from .data import labelled
from .prompt_faults import PROMPT_FAULTS
from .prompt_words import EXACT, NAMES, Contexts, Prompt, Words, features
from .wordnet import WordNet

__all__ = ["Asked", "asked", "report"]

Array = np.ndarray[Any, Any]
_NAME = "pairs_prompt_paraphrase"
_SERVED_AT = 0.996  # of P, by the default of ``max_error_rate``
_LEAST_COSINE = 0.65  # the default of ``cache.threshold``
_MOST_OF_ALL, _MOST_OF_KIND = 0.01, 0.02  # faulty ones that may be served
_SHARES = (0.05, 0.10, 0.20, 0.40)
_FOLDS = 8


@dataclass(frozen=True)
class Asked:
    """A reworded prompt, with or without a fault.

    Attributes:
        pair: Number of the pair.
        stored: The prompt as it was.
        text: The rewording.
        kind: Of the fault; empty where it has none.
    """

    pair: int
    stored: str
    text: str
    kind: str


def asked(data: Path, net: WordNet, *, seed: int = 0) -> list[Asked]:
    """All rewordings, and each once with a fault of every kind that can be put into it.

    Args:
        data: Folder of the data sets.
        net: WordNet.
        seed: The same seed puts in the same faults.
    """
    found = []
    for at, pair in enumerate(pair for pair in labelled(data, _NAME) if pair.label == 1):
        found.append(Asked(at, pair.a, pair.b, ""))
        for kind, fault in PROMPT_FAULTS.items():
            made = fault(pair.b, random.Random(f"{seed}-{at}-{kind}"), net)
            if made and made != pair.b:
                found.append(Asked(at, pair.a, made, kind))
    return found


@dataclass(frozen=True)
class _Table:
    """What is known of the rows that the rules see: their kinds, their pairs, their features; and how many all are."""

    kinds: Array
    pairs: Array
    values: Array
    n_pairs: int
    n_faulty: dict[str, int]

    def column(self, name: str) -> Array:
        found: Array = self.values[:, NAMES.index(name)]
        return found


def report(data: Path, encoder: Path) -> Iterator[str]:
    """What ships, and a line for each rule.

    Args:
        data: Folder of the data sets.
        encoder: Folder of the shipped encoder.
    """
    net = WordNet()
    rows = asked(data, net)
    yield _shipped(rows, encoder)
    table = _read(rows, net, encoder)
    n_open = int((table.kinds == "").sum())
    yield f"{n_open} rewordings within the window and the cosine, {len(table.kinds) - n_open} with a fault\n"
    shares = " | ".join(f"at {share:.2f}" for share in _SHARES)
    yield f"| rule | served within the limits | {shares} |"
    yield "|---|--:|" + "--:|" * len(_SHARES)
    scores = _scores(table)
    for name, score in scores.items():
        served = " | ".join(_faulty(table, score, share) for share in _SHARES)
        yield f"| {name} | {_within(table, score):.3f} | {served} |"
    yield "\nof each kind of fault, by the trees:\n"
    yield f"| fault | put in | {shares} |"
    yield "|---|--:|" + "--:|" * len(_SHARES)
    score = scores["trees over all"]
    for kind, n in table.n_faulty.items():
        served = (table.kinds == kind)[:, None] & np.stack([_is_served(table, score, share) for share in _SHARES], 1)
        yield f"| {kind} | {n} | " + " | ".join(f"{value / max(n, 1):.3f}" for value in served.sum(0)) + " |"


def _shipped(rows: list[Asked], folder: Path) -> str:
    encoder, guard = OnnxEncoder(folder), Guard(load_shipped)
    guard.load()
    encode = lru_cache(maxsize=None)(encoder.encode)

    def is_served(row: Asked) -> bool:
        a, b = encode(row.stored), encode(row.text)
        cosine = float(a.vector @ b.vector)
        if row.stored[a.seen_chars :] != row.text[b.seen_chars :] or cosine < _LEAST_COSINE:
            return False
        judged = guard.judge(row.text, row.stored, cosine)
        return guard.judge_closely(row.text, row.stored, cosine, judged).p_same >= _SERVED_AT

    served = [row for row in rows if is_served(row)]
    n_whole, n_faulty = (sum(bool(row.kind) == is_faulty for row in rows) for is_faulty in (False, True))
    n_wrong = sum(bool(row.kind) for row in served)
    return (
        f"as it ships: {len(served) - n_wrong} of {n_whole} rewordings are served, {n_wrong} of {n_faulty} with a fault"
    )


def _read(rows: list[Asked], net: WordNet, encoder: Path) -> _Table:
    contexts, words = Contexts(encoder), Words(net)
    logit = lru_cache(maxsize=None)(load_shipped().logit)
    stored = {row.pair: contexts.read(row.stored) for row in rows if not row.kind}
    kept: list[Asked] = []
    values = []
    for row in rows:
        a, b = stored[row.pair], contexts.read(row.text)
        if _is_whole(a) and _is_whole(b) and float(a.vector @ b.vector) >= _LEAST_COSINE:
            kept.append(row)
            values.append(features(a, b, words, logit))
    return _Table(
        np.array([row.kind for row in kept]),
        np.array([row.pair for row in kept]),
        np.nan_to_num(np.array(values)),
        sum(not row.kind for row in rows),
        {kind: sum(row.kind == kind for row in rows) for kind in PROMPT_FAULTS},
    )


def _is_whole(prompt: Prompt) -> bool:
    """Whether it lies within the encoder's window."""
    return sum(map(len, prompt.words)) >= sum(not sign.isspace() for sign in prompt.text)


def _scores(table: _Table) -> dict[str, Array]:
    """Of each rule, what it says for one answer; below 0 nothing is ever served."""
    is_exact = np.all([table.column(name) == 0 for name in EXACT], axis=0)
    least = np.minimum(table.column("a both 1"), table.column("b both 1"))
    return {
        "cosine": table.column("cosine"),
        "nothing exact differs; cosine": np.where(is_exact, table.column("cosine"), -1),
        "nothing exact differs; the least word": np.where(is_exact, least, -1),
        "pair model, the least sentence": table.column("sentence 1") + 10,
        "logistic over all": _fitted(table, _logistic),
        "trees over all": _fitted(table, _trees),
        "trees, kind of fault not seen": _fitted(table, _trees, is_left_out=True),
    }


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer

    return make_pipeline(
        QuantileTransformer(n_quantiles=100), LogisticRegression(C=0.3, max_iter=2000, class_weight="balanced")
    )


def _trees() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=150, learning_rate=0.06, max_leaf_nodes=12, class_weight="balanced", random_state=0
    )


def _fitted(table: _Table, make: Callable[[], Any], *, is_left_out: bool = False) -> Array:
    """Probability of no fault, of prompts that were kept out of training; where asked, of kinds that were as well."""
    shuffled = random.Random(0).sample(sorted(set(table.pairs.tolist())), len(set(table.pairs.tolist())))
    folds = {pair: at % _FOLDS for at, pair in enumerate(shuffled)}
    fold = np.array([folds[pair] for pair in table.pairs.tolist()])
    is_sound = table.kinds == ""
    found, times = np.zeros(len(fold)), np.zeros(len(fold))
    for kind in list(PROMPT_FAULTS) if is_left_out else [""]:
        for held in range(_FOLDS):
            is_seen = (fold != held) & ((table.kinds != kind) | is_sound)
            is_asked = (fold == held) & ((table.kinds == kind) | is_sound | (not is_left_out))
            model = make()
            model.fit(table.values[is_seen], is_sound[is_seen])
            found[is_asked] += model.predict_proba(table.values[is_asked])[:, 1]
            times[is_asked] += 1
    return found / np.maximum(times, 1)


# -- what is served ----------------------------------------------------------------------------------------------


def _is_served(table: _Table, score: Array, share: float) -> Array:
    """Which rows are, where the threshold lets so many of all rewordings pass; none where it can't."""
    sound = np.sort(score[(table.kinds == "") & (score >= 0)])[::-1]
    n = round(share * table.n_pairs)
    served: Array = score >= (sound[n - 1] if 0 < n <= len(sound) else np.inf)
    return served


def _faulty(table: _Table, score: Array, share: float) -> str:
    """The share of all faulty ones that is served, and of those whose rewording is."""
    is_served, is_faulty = _is_served(table, score, share), table.kinds != ""
    if not is_served.any():
        return "-"
    of_served = np.isin(table.pairs, table.pairs[is_served & ~is_faulty]) & is_faulty
    return f"{(is_served & is_faulty).sum() / sum(table.n_faulty.values()):.3f} ({is_served[of_served].mean():.2f})"


def _within(table: _Table, score: Array) -> float:
    """The largest share of rewordings that is served with few faulty ones of all, and few of each kind."""
    best = 0.0
    for n in range(1, table.n_pairs + 1):
        is_served = _is_served(table, score, n / table.n_pairs)
        counts = {kind: int((is_served & (table.kinds == kind)).sum()) for kind in table.n_faulty}
        is_safe = sum(counts.values()) <= _MOST_OF_ALL * sum(table.n_faulty.values()) and all(
            count <= _MOST_OF_KIND * table.n_faulty[kind] for kind, count in counts.items()
        )
        if is_safe and is_served.any():
            best = max(best, n / table.n_pairs)
    return best
