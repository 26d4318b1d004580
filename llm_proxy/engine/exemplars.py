"""Which near misses become examples of a call, and what outcomes say of them.

Only entries of the call's own scope, so of its tenant; only answers of candidates that are stronger than the one that
is asked; only for routes that say ``examples``. In a cascade all but the last may get some. See
`llm_proxy.draft.examples` for what is kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from llm_proxy.draft.examples import Asked, Example, Group, Helpfulness, with_examples
from llm_proxy.draft.prediction import draft_in
from llm_proxy.types import CHARS_PER_TOKEN, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm_proxy.cache.entry import Entry
    from llm_proxy.cache.near import Near
    from llm_proxy.config import Config
    from llm_proxy.observe.events import GradeEvent
    from llm_proxy.types import Outgoing

    from .flights import Ticket
    from .ports import Quoter

__all__ = ["TAUGHT", "Exemplars", "place_of"]

TAUGHT = "examples"
"""What is said of an answer to a question that had examples before it."""

_SAMPLE_TOKENS = 1000


class _Retrieved(NamedTuple):
    """Examples for one candidate, nearest first, and what they are worth."""

    group: Group
    examples: list[Example]
    worth_usd: float


class Exemplars:
    """Gives calls examples. One a runtime; thread-safe.

    Args:
        config: ``routes`` and ``backends`` are read.
        prices: What tokens cost.
    """

    def __init__(self, config: Config, prices: Quoter) -> None:
        self._config, self._prices = config, prices
        self.helpfulness = Helpfulness()

    def dressed(self, ticket: Ticket, outgoing: Outgoing, call_id: str, *, is_served: bool = True) -> Outgoing | None:
        """A request with its examples; None where it gets none.

        Args:
            ticket: Of the call, whose search is over.
            outgoing: The request as it is.
            call_id: Names the call in outcomes; empty where none will come.
            is_served: Whether a caller gets the answer; else it is asked for to compare.
        """
        found = self._retrieved(ticket, outgoing.backend, outgoing.model)
        if found is None or not self._has_room(outgoing, found.examples):
            return None
        usd = self._prices.quote_usd(Usage(_SAMPLE_TOKENS, 0), model=outgoing.model, backend=outgoing.backend)
        if usd is None:
            return None
        kept = self.helpfulness.select(
            found.group,
            found.examples,
            worth_usd=found.worth_usd,
            usd_per_token=usd / _SAMPLE_TOKENS,
            is_served=is_served,
        )
        if call_id:
            asked = Asked(call_id, outgoing.backend, outgoing.model)
            self.helpfulness.asked(asked, found.group, has_examples=bool(kept))
        return replace(outgoing, body=with_examples(outgoing.body, kept)) if kept else None

    def forget(self, call_id: str, outgoing: Outgoing) -> None:
        """Learn nothing of a call after all: it was sent without its examples."""
        self.helpfulness.forget(Asked(call_id, outgoing.backend, outgoing.model))

    def heard(self, grade: GradeEvent) -> None:
        """Take in how good an answer was."""
        if grade.score is not None:
            self.helpfulness.heard(Asked(grade.call_id, grade.backend, grade.model), grade.score)

    def lift(self, ticket: Ticket) -> Mapping[tuple[str, str], float]:
        """How good candidates are with examples that help them, as a share of the strongest, in [0, 1]."""
        route = self._config.routes.get(ticket.outcome.route)
        if route is None or not route.examples or not ticket.near:
            return {}
        found: dict[tuple[str, str], float] = {}
        for candidate in route.candidates[:-1]:
            backend, _, model = candidate.partition("/")
            retrieved = self._retrieved(ticket, backend, model)
            expected = None if retrieved is None else self.helpfulness.expected(retrieved.group)
            if expected is not None:
                found[backend, model] = expected
        return found

    def _retrieved(self, ticket: Ticket, backend: str, model: str) -> _Retrieved | None:
        """What may be an example for a candidate; None where nothing may."""
        route = self._config.routes.get(ticket.outcome.route)
        place = _place(route.candidates if route else (), backend, model)
        if route is None or not route.examples or place is None:
            return None
        near = [one for one in ticket.near if place_of(route.candidates, one.entry) > place]
        examples = _readable(near, route.examples, route.example_chars)
        if not examples:
            return None
        worth_usd = route.usd_per_good_answer or max(one.entry.cost_usd for one in near)
        group = Group.of(backend, model, ticket.fingerprint.scope, near[0].similarity)
        return _Retrieved(group, examples, worth_usd)

    def _has_room(self, outgoing: Outgoing, examples: Sequence[Example]) -> bool:
        """Whether the model's window has room for the examples, as far as it is known."""
        backend = self._config.backends[outgoing.backend]
        own = backend.limits.get(outgoing.model)
        window = (own.context_tokens if own is not None else None) or backend.context_tokens
        tokens = len(outgoing.body) / CHARS_PER_TOKEN + sum(example.tokens for example in examples)
        return window is None or tokens <= window


def _place(candidates: Sequence[str], backend: str, model: str) -> int | None:
    name = f"{backend}/{model}"
    return candidates.index(name) if name in candidates else None


def place_of(candidates: Sequence[str], entry: Entry) -> int:
    """Of the candidate that answered; -1 for a stranger. Providers date the names of their models."""
    places = [
        place
        for place, candidate in enumerate(candidates)
        if (parts := candidate.partition("/"))[0] == entry.backend
        and (entry.model == parts[2] or entry.model.startswith(f"{parts[2]}-2"))
    ]
    return max(places, key=lambda place: len(candidates[place]), default=-1)


def _readable(near: Sequence[Near], most: int, most_chars: int) -> list[Example]:
    found: list[Example] = []
    for one in near:
        draft = draft_in(one.entry.completion)
        chars = len(one.entry.text) + len(draft.text) if draft is not None else 0
        if draft is None or chars > most_chars:
            continue
        most_chars -= chars
        found.append(Example(one.entry.text, draft.text, max(1.0, chars / CHARS_PER_TOKEN)))
        if len(found) == most:
            break
    return found
