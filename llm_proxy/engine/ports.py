"""What the engine needs of its surroundings, as protocols; and the two kinds of answer it gives to a face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llm_proxy.types import Clock
from llm_proxy.values import value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llm_proxy.backends.base import Ask
    from llm_proxy.encode.base import Encoding
    from llm_proxy.route.base import Amounts, Decision, Destination, Expected, Finished, Home, Reply, Size
    from llm_proxy.route.looks import Weigher
    from llm_proxy.types import JSON, ChatRequest, Head, HeaderList, Outcome, Outgoing, Usage

    from .call import Call
    from .effects import Flow
    from .flights import Flight, Seat

__all__ = [
    "Answer",
    "Appraiser",
    "Asker",
    "Chooser",
    "Clock",
    "Foresight",
    "Homes",
    "Judge",
    "Line",
    "Live",
    "Pricer",
    "Purse",
    "QuestionEncoder",
    "Quoter",
    "Ready",
    "Scorer",
    "SecondOpinion",
    "Sends",
    "Starts",
    "Turn",
    "Watch",
    "as_shared",
]


class QuestionEncoder(Protocol):
    """See `llm_proxy.encode.lazy.LazyEncoder`."""

    @property
    def name(self) -> str:
        """Identity of the weights."""

    @property
    def is_open(self) -> bool:
        """Whether it has been failing or late so often that it is left alone for a while."""

    @property
    def slowest_s(self) -> float:
        """The longest that one text has taken, seconds; inf while that is not known."""

    def may_take_s(self, *texts: str) -> float:
        """How long these texts may take, seconds; inf while that is not known."""

    def encode(self, text: str) -> Encoding:
        """Encode one text."""

    def note_timeout(self) -> None:
        """Count an encoding that came too late."""

    def note_success(self) -> None:
        """Count an encoding that came in time."""


class Chooser(Protocol):
    """See `llm_proxy.route.select.Selector`."""

    @property
    def default_backend(self) -> str:
        """Backend of models that no other claims; empty when none is configured."""

    def resolve(self, request: ChatRequest) -> Destination:
        """Where the request's model name leads."""

    def wants_vector(self, route: str) -> bool:
        """Whether a route is decided by the encoded question."""

    def decide(
        self,
        request: ChatRequest,
        destination: Destination,
        encoding: Encoding | None,
        conversation: str = "",
        lift: Mapping[tuple[str, str], float] = ...,
    ) -> Decision:
        """The candidate of a route that will be asked; raises `RouterError` when there is none."""

    def fallback(self, destination: Destination, why: str = "default") -> Decision:
        """The candidate that is asked when `decide` fails."""

    def ladder(self, request: ChatRequest, destination: Destination) -> tuple[tuple[str, str], ...]:
        """Pairs of backend and model of a route that can take a request, weakest first."""

    @property
    def ways(self) -> Weigher:
        """What cascades have seen of the routes that leave it open whether they cascade."""

    def takes(self, request: ChatRequest, destination: Destination, pairs: Sequence[tuple[str, str]]) -> Amounts | None:
        """What asking each of these is expected to take; None where that is not estimated."""

    def fallbacks(self, request: ChatRequest, destination: Destination, cause: str) -> Sequence[tuple[str, str]]:
        """Pairs of backend and model that may be asked where a destination's gave no answer, the best first."""


class Pricer(Protocol):
    """See `llm_proxy.backends.prices.Prices`."""

    def cost_usd(
        self, usage: Usage, *, model: str, asked: str = "", backend: str = "", base_url: str = ""
    ) -> float | None:
        """Price of one answer, dollars; None when it is not known."""

    def wait_usd(self, latency_s: float, *, backend: str) -> float:
        """What it is worth not to wait that long for a backend, dollars."""


class Quoter(Pricer, Protocol):
    """A `Pricer` that is asked before a request is sent."""

    def quote_usd(self, usage: Usage, *, model: str, backend: str = "", base_url: str = "") -> float | None:
        """About the price of one answer, dollars, quickly; None when it is not known."""


class Sends(Protocol):
    """See `llm_proxy.engine.attempts.Attempts`; whatever stands around it is one, too."""

    def asking(self, call: Call, outgoing: Outgoing) -> Flow[Head] | None:
        """The flow that sends a call as often as it takes; None where there is nothing to do but to send it once."""


class Appraiser(Protocol):
    """See `llm_proxy.route.select.Selector`."""

    def observe(self, call: Finished) -> None:
        """Learn from a finished call what asking costs."""

    def again(self, call: Finished, cost_usd: float | None, rivals: Sequence[tuple[str, str]]) -> Expected | None:
        """What asking the same again is expected to cost; None where that is not estimated."""


class Load(Protocol):
    """See `llm_proxy.draft.load.Load`."""

    def began(self, backend: str, body: Passing) -> None:
        """Count a stream whose answer is not recorded."""

    def under_way(self, backend: str) -> int:
        """Calls under way at a backend, >= 0."""


class Passing(Protocol):
    """A stream on its way."""

    @property
    def is_done(self) -> bool:
        """Whether all of it has passed."""


class Watch(Protocol):
    """See `llm_proxy.route.health.Health`."""

    def began(self, backend: str, call: object, *, model: str = "") -> None:
        """A call is sent; ``call`` stands for it until `ended`, or until nobody holds it."""

    def ended(
        self,
        backend: str,
        model: str,
        call: object,
        *,
        is_well: bool | None,
        is_refused: bool = False,
        asked_s: float = 0.0,
    ) -> None:
        """A call is over: answered, or failed, or None where its end says nothing of the backend."""


class Judge(Protocol):
    """See `llm_proxy.cache.judge`."""

    def compare(self, cached: str, fresh: str) -> bool | None:
        """Whether two answers say the same; None where that can't be told."""


class Scorer(Protocol):
    """See `llm_proxy.route.scorer.LazyScorer`."""

    @property
    def is_usable(self) -> bool:
        """Whether it can score, as far as is known."""

    def score(self, question: str, answer: Reply, encoding: Encoding | None) -> float:
        """The probability that an answer is right, in [0, 1]; takes some milliseconds, may raise `LLMProxyError`."""


class SecondOpinion(Protocol):
    """See `llm_proxy.route.second.SecondOpinion`."""

    def judging(self, model: str, question: str, answer: str) -> JSON:
        """The chat request that asks a model whether an answer is right."""

    def approves(self, said: str) -> bool:
        """Whether a judging model takes the answer for right."""

    def agree(self, one: str, other: str) -> bool:
        """Whether two answers come to one result."""

    def compare(self, one: str, other: str) -> bool | None:
        """The same; None where it can't be told."""


class Asker(Protocol):
    """See `llm_proxy.cache.judge.ModelJudge`."""

    def body(self, question: str, cached: str, fresh: str) -> JSON:
        """The chat request that asks a model whether two answers say the same."""

    def verdict(self, said: str) -> bool | None:
        """What the model's answer means; None where it is unclear."""


class Turn(Protocol):
    """A place in a `Line`; see `llm_proxy.backends.queue.Place`."""

    @property
    def begun_s(self) -> float | None:
        """When its turn came, on the line's clock; None while it waits."""


class Line(Protocol):
    """Those who wait for one backend; see `llm_proxy.backends.queue.Queue`."""

    def enter(self, tokens: float | None, tenant: str) -> Any:
        """A `Turn`, to be given to `leave` in any case; raises `LimitReached`."""

    def when_called(self, place: Any, called: Callable[[], object]) -> None:
        """Have a function called once the place has its turn."""

    def leave(self, place: Any) -> None:
        """Give it up; from anywhere, also twice."""

    def expected_wait_s(self, tokens: float | None) -> float:
        """How long a call that came now would wait, seconds."""


class Purse(Protocol):
    """What may be spent; see `llm_proxy.backends.budget.Budget`."""

    def reserve(self, ask: Ask) -> Any:
        """Set aside what a request may take, or raise `LimitReached`; may wait for a file.

        Returns:
            What to `settle` it by; None where that need not be.
        """

    def settle(self, reservation: Any, usd: float, tokens: int) -> None:
        """Put what it took in place of what was set aside; quick, and never raises."""

    def close(self) -> None:
        """Write what was settled."""


class Starts(Protocol):
    """See `llm_proxy.backends.cold.ColdStarts`."""

    def wait_s(self, backend: str) -> float:
        """How long a backend is waited for that may be loading, seconds; 0 where it is not."""

    def saw(self, backend: str, status: int) -> None:
        """Take in the status of an answer."""

    def is_loading(self, status: int, body: bytes) -> bool:
        """Whether an answer says that the model is being loaded."""


class Homes(Protocol):
    """Where responses are kept; see `llm_proxy.route.homes`. Both may wait for a file, and raise `CacheError`."""

    def keep(self, mark: str, home: Home) -> None:
        """Have it known where a response is kept, by its mark."""

    def find(self, mark: str) -> Home | None:
        """Where a response is kept; None where that is not known."""

    def close(self) -> None:
        """Release files; calling it again is safe."""


class Foresight(Protocol):
    """See `llm_proxy.route.foresight.Foresight`."""

    def size(self, request: ChatRequest, backend: str, model: str, foretold_tokens: float | None) -> Size:
        """How long request and answer are; ``foretold_tokens`` is what a head said."""


@value
class Ready:
    """An answer that is all there: a hit, or a refusal to ask upstream."""

    status: int
    headers: HeaderList
    body: bytes
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Live:
    """An upstream's answer.

    Attributes:
        head: Its status and headers; its body is read from here when there is no flight.
        known: What was known when the upstream answered.
        flight: Where to read the body from, when it is recorded.
        seat: This caller's place in the flight.
        is_shared: Whether the flight is led by another caller.
    """

    head: Head
    known: Outcome
    flight: Flight | None = None
    seat: Seat | None = None
    is_shared: bool = False

    @property
    def outcome(self) -> Outcome:
        """What was done, as far as it is known by now: more than ``known`` once the answer is settled."""
        outcome = self.known if self.flight is None else self.flight.ticket.outcome
        return as_shared(outcome) if self.is_shared else outcome


Answer = Ready | Live


def as_shared(outcome: Outcome) -> Outcome:
    """The outcome of an answer as it is for a caller who shares it: what it cost is saved, for it was paid once."""
    return outcome.with_changes(is_shared=True, saved_usd=outcome.cost_usd or 0.0, cost_usd=0.0)
