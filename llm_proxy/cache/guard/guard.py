"""How likely a neighbour's answer serves a question: rules first, then a small model that reads both."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from llm_proxy.errors import LLMProxyError

from .probability import JUDGED, p_same

if TYPE_CHECKING:
    from .model import PairModel

__all__ = ["Guard", "Judgement", "load_shipped"]

logger = logging.getLogger("llm_proxy")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the guard says of two texts.

    Attributes:
        reason: What the rules found to differ, as `compare.agree` says it; empty for nothing.
        p_same: Probability that one answer serves both, calibrated, in [0, 1].
    """

    reason: str
    p_same: float


class Guard:
    """Judges pairs of texts; safe to share between threads.

    Until its model has loaded, and where there is none, the rules decide alone.

    Args:
        load: Makes the pair model, in about a tenth of a second; None: rules only.

    Attributes:
        failure: Why the model does not work; empty while nothing is known against it.
    """

    def __init__(self, load: Callable[[], PairModel] | None = None) -> None:
        self._load = load
        self._model: PairModel | None = None
        self._loading = threading.Lock()
        self.failure = ""

    def load(self) -> None:
        """Load the model, once; a failure is logged, and kept in ``failure``."""
        with self._loading:
            load, self._load = self._load, None
            if load is None:
                return
            try:
                self._model = load()
            except LLMProxyError as exc:
                self._give_up(exc)

    def judge(self, question: str, entry: str, similarity: float) -> Judgement:
        """By the rules alone, in about a tenth of a millisecond.

        Args:
            question: What is asked; any text.
            entry: What the stored answer was given to.
            similarity: Cosine of the two, in [-1, 1].
        """
        from .compare import agree  # whose words take some milliseconds to load

        reason = agree(question, entry)
        return Judgement(reason, p_same(reason, similarity, None))

    def can_judge(self, question: str, entry: str, judged: Judgement) -> bool:
        """Whether the model can add anything to what `judge` said of two texts."""
        if self._model is None or judged.reason not in JUDGED:
            return False
        from .addition import is_addition
        from .compare import reading

        return not is_addition(reading(question), reading(entry))

    def judge_closely(self, question: str, entry: str, similarity: float, judged: Judgement) -> Judgement:
        """By the model as well, where it can add anything, in about a millisecond.

        Args:
            question: As for `judge`.
            entry: Likewise.
            similarity: Likewise.
            judged: What `judge` said of them.
        """
        model = self._model
        if model is None or not self.can_judge(question, entry, judged):
            return judged
        try:
            logit = model.logit(question, entry)
        except LLMProxyError as exc:
            self._give_up(exc)
            return judged
        return Judgement(judged.reason, p_same(judged.reason, similarity, logit))

    def _give_up(self, exc: LLMProxyError) -> None:
        self.failure, self._model = str(exc), None
        logger.warning("llm-proxy: the pair model is in trouble, semantic hits go by rules alone (%s)", exc)


@cache
def load_shipped() -> PairModel:
    """The pair model that ships with llm-proxy; all caches of a process share it.

    Raises:
        MissingDependencyError: It can't be loaded.
    """
    from .model import shipped_model

    return shipped_model()
