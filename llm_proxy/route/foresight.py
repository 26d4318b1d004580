"""How long a request and its answer are, before anybody is asked: what queues and budgets go by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .able import needs_of
from .base import Size
from .costs import Asked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_proxy.config import BackendConfig
    from llm_proxy.types import ChatRequest

    from .costs import CostEstimator

__all__ = ["Foresight"]

_MOST_TIMES_EXPECTED = 4.0  # nine answers in ten are shorter, where nobody sets a limit to them


class Foresight:
    """Says how long a request and its answer are; see `llm_proxy.engine.ports.Foresight`. Thread-safe.

    The answer is expected to be as long as a head said, else as the model's answers to such prompts were; at most it is
    as long as the request and the backend allow, or four times as long as expected where neither sets a limit.

    Args:
        costs: What answers have taken.
        backends: Settings by name.
    """

    def __init__(self, costs: CostEstimator, backends: Mapping[str, BackendConfig]) -> None:
        self._costs, self._backends = costs, backends

    def size(self, request: ChatRequest, backend: str, model: str, foretold_tokens: float | None) -> Size:
        """How long request and answer are.

        Args:
            request: The call.
            backend: Where it is sent; empty for the caller's own upstream.
            model: Model that is asked.
            foretold_tokens: Length of the answer as a head foretold it; None where none did.
        """
        needs, settings = needs_of(request), self._backends.get(backend)
        limits = (needs.output_tokens, (settings.max_output_tokens or 0) if settings is not None else 0)
        limit = min((tokens for tokens in limits if tokens), default=0)
        asked = Asked(backend, model, foretold_tokens, most_tokens=limit)
        expected = max(1.0, self._costs.completion_tokens(asked, needs.prompt_tokens))
        most = limit or math.ceil(expected * _MOST_TIMES_EXPECTED)
        return Size(needs.prompt_tokens, expected, most * _answers(request.body))


def _answers(body: Mapping[str, Any]) -> int:
    """How many answers are made and paid for: of text completions for each prompt, and more than are handed on.

    Source: OpenAI's API reference, "Completions": ``prompt``, ``best_of`` and ``n``.
    """
    prompt, counts = body.get("prompt"), (body.get("n"), body.get("best_of"))
    prompts = len(prompt) if isinstance(prompt, list) and prompt and type(prompt[0]) is not int else 1
    return prompts * max([1, *(count for count in counts if type(count) is int)])
