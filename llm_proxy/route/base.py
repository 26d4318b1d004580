"""The router seam: how strong a model does this request need?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_proxy.encode.base import Encoding
    from llm_proxy.types import ChatRequest

__all__ = [
    "NO_LIFT",
    "Amounts",
    "Decision",
    "Destination",
    "Expected",
    "Finished",
    "Head",
    "Home",
    "Prediction",
    "Reply",
    "Router",
    "Score",
    "Size",
]

NO_LIFT: Mapping[tuple[str, str], float] = MappingProxyType({})
"""Nobody gets examples; see `llm_proxy.engine.ports.Chooser.decide`."""


@dataclass(frozen=True, slots=True)
class Score:
    """How strong a model a request needs, in [0, 1], higher means stronger; ``reason`` says why in a few words."""

    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the name in a request's ``model`` leads.

    Attributes:
        identity: What separates its answers from other destinations' in the cache.
        route: Name of a configured route, or empty when the model was named.
        backend: Name of a configured backend; empty for the caller's own upstream, and while a route decides.
        model: Name to ask for; empty while a route decides.
    """

    identity: str
    route: str = ""
    backend: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The backend and model that will be asked, and why.

    Attributes:
        backend: Backend to ask.
        model: Model to ask for.
        reason: Why, in a few words.
        score: Of the request, see `Score`.
        rivals: Pairs of backend and model that are good enough for the request and might be asked, the one that is
            asked among them: asking again costs what the cheapest of them takes.
        foretold_tokens: Length of the answer as a head foretells it; None where none does.
        by: Who decided: the name of a head, or ``rules``; empty where neither did.
    """

    backend: str
    model: str
    reason: str
    score: float
    rivals: tuple[tuple[str, str], ...] = ()
    foretold_tokens: float | None = None
    by: str = ""


class Home(NamedTuple):
    """Who keeps a response: the backend and the model that answered, and a hash of the address that was asked."""

    backend: str
    model: str
    address: str


class Amounts(NamedTuple):
    """What asking some models is expected to take: dollars, the worth of the wait included, or seconds."""

    amounts: tuple[float, ...]
    is_money: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """A call that ended well.

    Attributes:
        backend: Backend that was asked; empty for the caller's own upstream.
        model: Model that was asked, or that answered.
        prompt_tokens: >= 0.
        completion_tokens: >= 0.
        latency_s: From the request to its terminal event, >= 0.
        foretold_tokens: ``completion_tokens`` as a head foretold it; None where none did.
    """

    backend: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    latency_s: float
    foretold_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as the scorer of answers sees it.

    Attributes:
        text: What it says.
        finish_reason: Why it ended, as the upstream says; empty where that is not known.
        logprobs: Log-probabilities of its tokens, <= 0; empty where none were given.
        p_good: What the question alone made a head expect of this model, in [0, 1]; None where no head knows it.
    """

    text: str
    finish_reason: str = ""
    logprobs: Sequence[float] = ()
    p_good: float | None = None


class Expected(NamedTuple):
    """What asking is expected to cost: money, and what the wait is worth, both in dollars, >= 0."""

    cost_usd: float
    wait_usd: float

    @property
    def usd(self) -> float:
        """Both."""
        return self.cost_usd + self.wait_usd


class Size(NamedTuple):
    """How long a request's prompt is, and how long its answer will be, in tokens: as expected, and at most."""

    prompt_tokens: int
    expected_tokens: float
    most_tokens: int


class Prediction(NamedTuple):
    """What a head expects of one model's answer to a question.

    Attributes:
        p_good: Probability that the answer is good, or the score it gets where scores are graded, in [0, 1].
        completion_tokens: Length of the answer, > 0; None where the head knows nothing of lengths. Its order is worth
            more than its value.
    """

    p_good: float
    completion_tokens: float | None = None


class Head(Protocol):
    """Predicts how well models answer a question, from its vector and its text."""

    @property
    def name(self) -> str:
        """Identity of the weights."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that it knows."""

    def predict(self, text: str, encoding: Encoding) -> Mapping[str, Prediction]:
        """What to expect of each model of `models`.

        Args:
            text: The question.
            encoding: Its vector, of the encoder that the head was trained on.

        Raises:
            RouterError: The head can't run, or gave something else than finite numbers.
        """


class Router(Protocol):
    """Scores requests; see `Score`."""

    def score(self, request: ChatRequest, encoding: Encoding | None) -> Score:
        """Score one request.

        Args:
            request: The call.
            encoding: Its encoded question, where the cache step made one.

        Raises:
            RouterError: It can't decide; the route's default candidate is used.
        """
