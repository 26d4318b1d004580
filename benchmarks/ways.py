"""What a route that leaves it open takes, and how often it is right: ``python -m benchmarks.ways --responses FILE``.

Calls to a cheap and a dear model are drawn from answers of the cheap one that were marked, with what the dear one
scored on the same question, and asked in three ways: as a selector says, in a cascade, and as `llm_proxy.route.ways`
says (``auto``), which begins with nothing. The scorer is the shipped one. It was trained on some files: on these it
knows more than it would elsewhere.

Selectors: ``knowing`` is right about the cheap model's answer in 19 of 20 calls; ``ridge`` goes by a ridge over the
question's vector that was not fitted on the question, and names the cheap model where it is at least ``--quality``
times as sure as the dear model is right; ``blind`` names the cheap model as often as ``ridge``, by chance.

``takes`` is in units of what the dear model takes, ``right`` the mean score, ``burden`` what `llm_proxy.route.ways`
compares, by the true scores. Whether two answers say the same is taken from their marks: both are right, or not.
"""

from __future__ import annotations

import random
import statistics
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from llm_proxy.errors import LLMProxyError
from llm_proxy.route.base import Reply
from llm_proxy.route.looks import Look, Taken, Word, doubt_of
from llm_proxy.route.scorer import AnswerScorer
from llm_proxy.route.ways import Ways

from ._report import arguments, report
from ._served import encode_all, shipped_encoder
from .answers import Marked, by_question, read

__all__ = ["Call", "main", "measured"]

WAYS = ("select", "cascade", "auto")
_KNOWS = 0.95
_DEAR = Word("auto", "selector", "b/dear")
_CHEAP = _DEAR._replace(named="b/cheap")


class Call(NamedTuple):
    """A question with the answers of both models.

    Attributes:
        p_right: What the scorer says of the cheap model's answer.
        p_good: What the question alone says of it.
        cheap: What it scored.
        dear: What the dear model scored.
    """

    p_right: float
    p_good: float
    cheap: float
    dear: float


Selector = Callable[[Call, random.Random], bool]


def main() -> None:
    """Run and report."""
    options = arguments(
        "ways",
        __doc__,
        responses=(Path, None, "file of answers with marks, .jsonl, also .gz; models.json and rows.jsonl.gz beside it"),
        rows=(Path, [], "files of their questions; by default rows.jsonl.gz beside the file of answers", "+"),
        weak=(str, "", "the cheap model, whose answers are taken"),
        strong=(str, "", "the dear model"),
        share=(float, 0.06, "what the cheap model takes, where the dear one takes 1"),
        bar=(float, 0.7, "cascade_bar"),
        quality=(float, 0.95, "of the route"),
        calls=(int, 4000, "calls to draw in each run"),
        seeds=(int, 5, "runs"),
        limit=(int, 0, "answers to take from the file; 0: all"),
    )
    if options.responses is None or not options.weak or not options.strong:
        sys.exit("name a file of answers and two models: --responses FILE --weak NAME --strong NAME")
    try:
        figures = measured(_calls(options), options)
    except LLMProxyError as exc:
        sys.exit(str(exc))
    names = {"weak": options.weak, "strong": options.strong, "share": options.share, "bar": options.bar}
    report("ways", {**names, **figures}, options, table=_table(figures))


def measured(calls: list[Call], options: Namespace) -> dict[str, Any]:
    """What each way takes and how often it is right, for each selector: means over the seeds."""
    dear = statistics.fmean(call.dear for call in calls)
    named_cheap = statistics.fmean(call.p_good >= options.quality * dear for call in calls)
    selectors: dict[str, Selector] = {
        "knowing": lambda call, chance: (call.cheap >= 0.5) == (chance.random() < _KNOWS),
        "ridge": lambda call, chance: call.p_good >= options.quality * dear,
        "blind": lambda call, chance: chance.random() < named_cheap,
    }
    found: dict[str, Any] = {"questions": len(calls), "dear": dear}
    for name, selector in selectors.items():
        found[name] = {
            way: _mean([_run(calls, selector, way, seed, options) for seed in _seeds(options)]) for way in WAYS
        }
    return found


def _seeds(options: Namespace) -> range:
    return range(options.seeds)


def _mean(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.fmean(run[key] for run in runs) for key in runs[0]}


def _run(calls: list[Call], selector: Selector, way: str, seed: int, options: Namespace) -> dict[str, float]:
    chance, drawn, ways = random.Random(seed), random.Random(seed + 1), Ways()
    takes = right = 0.0
    for call in drawn.choices(calls, k=options.calls):
        word = _CHEAP if selector(call, chance) else _DEAR
        choice = ways.choose(word, options.quality)
        asked = choice.way if way == "auto" else way
        is_checked = way == "auto" and choice.is_checked and word is _DEAR and call.p_right >= options.bar
        is_dear = word is _DEAR if asked == "select" else call.p_right < options.bar or is_checked
        right += call.dear if is_dear else call.cheap
        takes += (1.0 if is_dear else options.share) if asked == "select" else options.share + is_dear
        if asked == "cascade":
            taken = Taken((options.share, 1.0), 0.0, None, options.bar)
            is_escalated, is_same = is_dear and not is_checked, min(call.cheap, call.dear) >= 0.5
            look = Look(word, word is _DEAR, taken, (call.p_right,), is_escalated, 0, "", is_checked)
            if is_checked:
                ways.check(word, call.p_right, is_right=is_same)
            ways.observe(word, look.burdens(is_same if is_dear else None, ways.excess(word)))
    takes, right = takes / options.calls, right / options.calls
    return {"takes": takes, "right": right, "burden": takes + doubt_of(right, bar=options.bar)}


def _calls(options: Namespace) -> list[Call]:
    """The answers of the cheap model."""
    rows = [row for row in read(options.responses, options) if row.model == options.weak and row.strong is not None]
    if not rows:
        sys.exit(f"{options.responses} has no answer of {options.weak} to what {options.strong} was asked")
    encoder, scorer = shipped_encoder(), AnswerScorer()
    vectors = encode_all((text for row in rows for text in (row.prompt, row.response)), encoder)
    has_vectors = encoder.name in scorer.encoders

    def scored(row: Marked) -> float:
        both = {"asked": vectors[row.prompt].vector, "said": vectors[row.response].vector} if has_vectors else {}
        return scorer.score(row.prompt, Reply(row.response), **both)

    import numpy

    p_good = by_question(rows, vectors, numpy.array([row.is_right for row in rows]))
    both = zip(rows, p_good.tolist(), strict=True)
    return [Call(scored(row), p, float(row.is_right), float(row.strong or 0.0)) for row, p in both]


def _table(found: dict[str, Any]) -> list[list[object]]:
    rows: list[list[object]] = [[f"{found['questions']} questions", "takes", "right", "burden"]]
    rows.append(["dear model always", "1.000", f"{found['dear']:.3f}", ""])
    for name in ("knowing", "ridge", "blind"):
        shown = ([f"{found[name][way][key]:.3f}" for key in ("takes", "right", "burden")] for way in WAYS)
        rows += [[f"{name}: {way}", *cells] for way, cells in zip(WAYS, shown, strict=True)]
    return rows


if __name__ == "__main__":
    main()
