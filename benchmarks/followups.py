"""Follow-up questions after other conversations, with ``context = "similar"``: ``python -m benchmarks.followups``.

Each row of ``--rows`` is a question, its answer and a follow-up; some have the same in other words. All conversations
are stored, with the shipped encoder, guard and defaults but for ``cache.context``, and then asked:

- ``other_served``: share of follow-ups that are served after another row's question, with the answer and all else as it
  was stored; so only what the user said first tells the two apart. ``--others`` such questions for each row, drawn;
- ``reworded_served``: share of conversations in other words, question and follow-up, that are served their own answer;
- ``reworded_wrong``: how many of them are served another one's.

``reworded_question_served`` is of those whose first question alone is in other words.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_proxy.config import CacheConfig
from llm_proxy.errors import LLMProxyError

from ._report import arguments, report
from ._served import ShippedCache, shipped_encoder

__all__ = ["Conversation", "main", "measure"]

_SETTINGS = CacheConfig(store="memory", context="similar")


@dataclass(frozen=True, slots=True)
class Conversation:
    """A question, what was answered, and what was asked then; the same in other words, or empty."""

    main: str
    response: str
    followup: str
    main_reworded: str = ""
    followup_reworded: str = ""

    def messages(self, main: str = "", followup: str = "") -> list[dict[str, str]]:
        """The conversation up to the follow-up; one part or both may be replaced."""
        said = (("user", main or self.main), ("assistant", self.response), ("user", followup or self.followup))
        return [{"role": role, "content": content} for role, content in said]


def main() -> None:
    """Run and report."""
    options = arguments(
        "followups",
        __doc__,
        rows=(
            Path,
            None,
            "file of rows: main, main_response, followup, main_paraphrase, followup_paraphrase; .jsonl.gz",
        ),
        others=(int, 10, "other questions before each follow-up"),
        seed=(int, 0, "seed of their draw"),
    )
    if options.rows is None or options.others < 1:
        sys.exit("name a file: --rows FILE; --others must be at least 1")
    try:
        figures = measure(conversations(options.rows), options.others, options.seed)
    except LLMProxyError as exc:
        sys.exit(str(exc))
    figures = {"file": f"{options.rows.resolve().parent.name}/{options.rows.name}", **figures, "seed": options.seed}
    report("followups", figures, options, table=list(figures.items()))


def conversations(path: Path) -> list[Conversation]:
    """The rows of a file.

    Raises:
        SystemExit: It can't be read, or has none.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            found = [_conversation(json.loads(line)) for line in lines if line.strip()]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SystemExit(f"{path} can't be read: {exc!r}") from exc
    if len(found) < 2:
        raise SystemExit(f"{path} has no two conversations")
    return found


def measure(rows: Sequence[Conversation], others: int, seed: int) -> dict[str, Any]:
    """All figures.

    Args:
        rows: Conversations, at least two.
        others: How many questions of other rows are asked before each follow-up.
        seed: Seed of their draw.
    """
    encoder = shipped_encoder()
    cache = ShippedCache(encoder, _SETTINGS)
    rng = random.Random(seed)
    keys = [cache.store_messages(row.messages()) for row in rows]
    own: dict[str, set[str]] = {}  # rows that ask the same have each other's answer
    for row, key in zip(rows, keys, strict=True):
        own.setdefault(f"{row.main}\n{row.followup}", set()).add(key)

    def shares(asked: Sequence[tuple[int, list[dict[str, str]]]]) -> tuple[float, int]:
        served = [(at, cache.served(messages)) for at, messages in asked]
        right = sum(key in own[f"{rows[at].main}\n{rows[at].followup}"] for at, key in served)
        return right / max(1, len(asked)), sum(key is not None for _, key in served) - right

    elsewhere = [
        (f"{other.main}\n{rows[at].followup}", rows[at].messages(main=other.main))
        for at in range(len(rows))
        for other in rng.sample([row for row in rows if row.main != rows[at].main], others)
    ]
    reworded = [at for at, row in enumerate(rows) if row.main_reworded and row.followup_reworded]
    both = [(at, rows[at].messages(rows[at].main_reworded, rows[at].followup_reworded)) for at in reworded]
    question = [(at, rows[at].messages(rows[at].main_reworded)) for at in reworded]
    try:
        served = [(cache.served(messages), own.get(name, set())) for name, messages in elsewhere]
        other_served = sum(key is not None and key not in right for key, right in served)
        reworded_served, reworded_wrong = shares(both)
        question_served, question_wrong = shares(question)
    finally:
        cache.close()
    return {
        "n": len(rows),
        "n_other": len(elsewhere),
        "other_served": other_served / len(elsewhere),
        "n_reworded": len(reworded),
        "reworded_served": reworded_served,
        "reworded_question_served": question_served,
        "reworded_wrong": reworded_wrong + question_wrong,
    }


def _conversation(row: dict[str, Any]) -> Conversation:
    reworded = (str(row.get(name) or "") for name in ("main_paraphrase", "followup_paraphrase"))
    return Conversation(row["main"], row["main_response"], row["followup"], *reworded)


if __name__ == "__main__":
    main()
