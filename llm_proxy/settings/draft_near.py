"""The settings of what is made of near misses: predicted outputs, and examples."""

from __future__ import annotations

from pydantic import Field

from .base import Frozen

__all__ = ["ExampleSettings", "NearSettings", "PredictionSettings"]


class NearSettings(Frozen):
    """What is made of near misses; see `llm_proxy.engine.near`."""

    predicted: bool = Field(
        False,
        description="Send the answer of the nearest near miss along as predicted output, to backends with "
        "`takes_prediction`, where it was measured to pay.",
    )
    near_similarity: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Least cosine similarity of a near miss; it counts below `cache.threshold`, and only where near "
        "misses are used at all.",
    )
    near_misses: int = Field(4, gt=0, le=8, description="Most near misses of a question that are looked at.")
    least_accepted: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Least share of an answer that must be taken from its prediction, as a moving average, for "
        "predictions to be sent.",
    )


class PredictionSettings(Frozen):
    """What a backend does with predicted outputs."""

    takes_prediction: bool = Field(
        False,
        description="Whether its models take `prediction` (predicted outputs); tokens of it that are not used may be "
        "billed as answer.",
    )
    predict_with: str = Field(
        "",
        description="`BACKEND/MODEL` nearby that answers first where a question has no near miss, within "
        "`draft.wait_s`; its answer goes along as predicted output, where that was measured to pay, its wait "
        "included. Needs `draft.predicted`. Empty: none.",
    )


class ExampleSettings(Frozen):
    """What a route makes of near misses; see `llm_proxy.engine.exemplars`."""

    examples: int = Field(
        0,
        ge=0,
        le=8,
        description="Most near misses, answered by stronger candidates, that are put as examples before a weaker "
        "one's question, where outcomes (`compare_share`, feedback) say that they help; 0: none.",
    )
    example_chars: int = Field(8_000, gt=0, description="Most characters that these examples may have together.")
