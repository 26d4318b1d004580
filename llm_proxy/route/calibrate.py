"""Which value to set: what a route's setting does to reference traffic, before it does it to one's own.

::

    quality              the least expected cost of those whose p_good is at least quality times the best one's
    usd_per_good_answer  the largest p_good * usd_per_good_answer - expected cost
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llm_proxy.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from .outcomes import Outcomes

__all__ = [
    "USUAL_TOKENS",
    "Calibrated",
    "Setting",
    "expected_usd",
    "for_score",
    "for_share",
    "mean_tokens",
    "read_prices",
    "true_usd",
    "within",
    "worth",
]

Setting = Literal["quality", "usd_per_good_answer"]
"""By which a route chooses."""

USUAL_TOKENS = 256.0
"""Length of an answer of which nothing is known."""

_STEPS = 1000
_LEAST = 0.0001  # the setting is above 0
_MTOK = 1_000_000


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The value of a setting, and what it does to the traffic that it was found on.

    Attributes:
        setting: Which one.
        value: In (0, 1] for ``quality``, dollars for ``usd_per_good_answer``.
        shares: Share of the calls that each candidate gets, in their order; sums to 1.
        score: Mean ``p_good`` of the candidates chosen, in [0, 1].
        best_score: The same where every call goes to the candidate of the largest mean.
        usd: Mean expected cost of a call, dollars.
        best_usd: The same where every call goes to that candidate.
    """

    setting: Setting
    value: float
    shares: tuple[float, ...]
    score: float
    best_score: float
    usd: float
    best_usd: float


def read_prices(text: str, models: Sequence[str]) -> list[tuple[float, float]]:
    """Prices as they are typed, or from a file.

    Args:
        text: ``NAME=IN/OUT,...`` in dollars per million tokens, or the path of a JSON file ``{NAME: [IN, OUT]}``.
        models: Whose prices are wanted.

    Returns:
        Of each model, dollars per million prompt tokens and answer tokens.

    Raises:
        ConfigError: It is neither, or a price is missing.
    """
    try:
        if "=" in text:
            typed = (part.rpartition("=") for part in text.split(",") if part.strip())
            found = {name.strip(): [float(side) for side in price.split("/")] for name, _, price in typed}
        else:
            listed = json.loads(Path(text).read_bytes())
            found = {name: [float(side) for side in price] for name, price in listed.items()}
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        raise ConfigError(f"prices must be NAME=IN/OUT,... or a JSON file {{NAME: [IN, OUT]}}: {exc}") from exc
    prices = []
    for name in models:
        price = found.get(name)
        if price is None:
            raise ConfigError(f"there is no price of {name!r} among those given")
        if len(price) != 2 or not all(0 <= side < math.inf for side in price):
            raise ConfigError(
                f"the price of {name!r} must be two numbers >= 0: a million tokens of prompts, of answers"
            )
        prices.append((price[0], price[1]))
    return prices


def within(p_good: NDArray[np.float32], usd: NDArray[np.float64], quality: float) -> NDArray[np.intp]:
    """The candidate that each row goes to by its tolerance.

    Args:
        p_good: Shape ``(n, M)``, in [0, 1].
        usd: Shape ``(n, M)``, expected cost, dollars, >= 0.
        quality: Tolerance, in [0, 1]: at 1 the best candidate is taken, at 0 the cheapest.

    Returns:
        Shape ``(n,)``: place of the candidate; of equal cost the first.
    """
    import numpy

    is_good_enough = p_good >= quality * p_good.max(axis=1, keepdims=True)
    found: NDArray[np.intp] = numpy.where(is_good_enough, usd, numpy.inf).argmin(axis=1)
    return found


def worth(p_good: NDArray[np.float32], usd: NDArray[np.float64], usd_per_good_answer: float) -> NDArray[np.intp]:
    """The candidate that each row goes to where a good answer is worth a sum: the largest ``p_good * worth - usd``.

    Args:
        p_good: Shape ``(n, M)``, in [0, 1].
        usd: Shape ``(n, M)``, expected cost, dollars, >= 0.
        usd_per_good_answer: > 0.

    Returns:
        Shape ``(n,)``: place of the candidate.
    """
    found: NDArray[np.intp] = (p_good * usd_per_good_answer - usd).argmax(axis=1)
    return found


def for_share(
    p_good: NDArray[np.float32], usd: NDArray[np.float64], strong_share: float, by: Setting = "quality"
) -> Calibrated:
    """The value that sends a share of the calls to the strong candidate: the one of the largest mean ``p_good``.

    Args:
        p_good: Shape ``(n, M)``, ``n > 0``.
        usd: As for `within`.
        strong_share: Wanted, in [0, 1].
        by: Which setting.

    Returns:
        The one whose share is nearest; of those, the least.
    """
    strong = int(p_good.mean(axis=0).argmax())
    tried = _tried(p_good, usd, by)
    return min(tried, key=lambda one: (abs(one.shares[strong] - strong_share), one.value))


def for_score(
    p_good: NDArray[np.float32], usd: NDArray[np.float64], share_of_best: float, by: Setting = "quality"
) -> Calibrated:
    """The value of least cost that keeps a share of what the best single candidate gets.

    Args:
        p_good: Shape ``(n, M)``, ``n > 0``.
        usd: As for `within`.
        share_of_best: Of its mean ``p_good``, in (0, 1].
        by: Which setting.
    """
    tried = _tried(p_good, usd, by)
    enough = [one for one in tried if one.score >= share_of_best * one.best_score]
    return min(enough or [max(tried, key=lambda one: one.score)], key=lambda one: (one.usd, one.value))


def expected_usd(
    prompt_tokens: NDArray[np.float32], tokens: NDArray[np.float32], prices: Sequence[tuple[float, float]]
) -> NDArray[np.float64]:
    """What answers cost.

    Args:
        prompt_tokens: Shape ``(n,)``, > 0.
        tokens: Shape ``(n, M)``, of the answers, >= 0.
        prices: Of each model, dollars per million prompt tokens and answer tokens.

    Returns:
        Shape ``(n, M)``, float64, dollars.
    """
    import numpy

    rates = numpy.array(prices, numpy.float64).reshape(-1, 2)
    found: NDArray[np.float64] = (prompt_tokens[:, None] * rates[:, 0] + tokens * rates[:, 1]) / _MTOK
    return found


def mean_tokens(outcomes: Outcomes) -> NDArray[np.float32]:
    """Length of a usual answer of each model: the mean of those known, else of all models', else 256.

    Returns:
        Shape ``(M,)``, float32, tokens.
    """
    import numpy

    tokens = outcomes.tokens
    known = ~numpy.isnan(tokens)
    usual = float(tokens[known].mean()) if known.any() else USUAL_TOKENS
    count = known.sum(axis=0)
    mean = numpy.where(known, tokens, 0).sum(axis=0) / numpy.maximum(count, 1)
    return numpy.where(count > 0, mean, usual).astype(numpy.float32)


def true_usd(
    outcomes: Outcomes, prices: Sequence[tuple[float, float]], usual: NDArray[np.float32]
) -> NDArray[np.float64]:
    """What the answers of a log cost at some prices; a length that is not known is taken for the usual one.

    Args:
        outcomes: ``n`` rows, ``M`` models.
        prices: Of each model, dollars per million prompt tokens and answer tokens; none for what the log itself says.
        usual: Shape ``(M,)``, from `mean_tokens`.

    Returns:
        Shape ``(n, M)``, float64, dollars.

    Raises:
        ConfigError: There are no prices, and the log does not say what each answer cost.
    """
    import numpy

    if prices:
        tokens = numpy.where(numpy.isnan(outcomes.tokens), usual, outcomes.tokens)
        return expected_usd(outcomes.prompt_tokens, tokens, prices)
    if numpy.isnan(outcomes.usd).any():
        raise ConfigError("no prices: name them (NAME=IN/OUT, dollars per million tokens) for every model")
    return outcomes.usd.astype(numpy.float64)


def _tried(p_good: NDArray[np.float32], usd: NDArray[np.float64], by: Setting) -> list[Calibrated]:
    if by == "quality":
        return [_result(p_good, usd, by, value, within(p_good, usd, value)) for value in _tolerances(p_good)]
    return [_result(p_good, usd, by, value, worth(p_good, usd, value)) for value in _sums(usd)]


def _tolerances(p_good: NDArray[np.float32]) -> list[float]:
    """Every tolerance at which some row changes its candidate, thinned out evenly."""
    import numpy

    ratios = numpy.unique((p_good / numpy.maximum(p_good.max(axis=1, keepdims=True), 1e-9)).astype(numpy.float64))
    if len(ratios) > _STEPS:
        ratios = ratios[numpy.linspace(0, len(ratios) - 1, _STEPS).astype(int)]
    # Four digits are what a person writes into a file; rounded down, so that the candidate of that ratio still counts.
    steps = numpy.unique(numpy.floor(ratios * 10_000) / 10_000)
    return [_LEAST, *(step for step in steps.tolist() if _LEAST < step < 1), 1.0]


def _sums(usd: NDArray[np.float64]) -> list[float]:
    """What a good answer may be worth, of three digits: from less than the dearest costs to where cost is nothing."""
    import numpy

    dearest = float(usd.max()) or 1.0  # of what costs nothing, any sum gives the best
    found = (float(f"{value:.3g}") for value in numpy.geomspace(dearest / 100, dearest * 10_000, _STEPS).tolist())
    return list(dict.fromkeys(found))


def _result(
    p_good: NDArray[np.float32], usd: NDArray[np.float64], setting: Setting, value: float, places: NDArray[np.intp]
) -> Calibrated:
    import numpy

    rows = numpy.arange(len(places))
    best = int(p_good.mean(axis=0).argmax())
    return Calibrated(
        setting=setting,
        value=value,
        shares=tuple((numpy.bincount(places, minlength=p_good.shape[1]) / len(places)).tolist()),
        score=float(p_good[rows, places].mean()),
        best_score=float(p_good[:, best].mean()),
        usd=float(usd[rows, places].mean()),
        best_usd=float(usd[:, best].mean()),
    )
