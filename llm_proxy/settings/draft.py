"""Settings of drafting: a small model writes ahead, and the one that was asked says how far it agrees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from .base import Frozen
from .draft_near import NearSettings, PredictionSettings

__all__ = ["DraftConfig", "Drafted", "WithDrafts"]


_FORMS = {
    "chatml": "<|im_start|>{role}\n{content}<|im_end|>\n",
    "llama3": "<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>",
}


def _form(value: str) -> str:
    """The form of a name, or the form itself; see `llm_proxy.draft.template`."""
    form = _FORMS.get(value, value)
    is_form = form.count("{role}") == 1 and form.count("{content}") == 1
    if form and (not is_form or form.index("{role}") > form.index("{content}")):
        raise ValueError(f"must be one of {sorted(_FORMS)}, or a text with {{role}} and then {{content}}")
    return form


class DraftConfig(NearSettings):
    """What is done with what is almost an answer, and how much is drafted; off where no setting asks for it."""

    max_length: int = Field(
        10, ge=1, le=64, description="Longest draft of a step, tokens; how long they are is found by what pays."
    )
    max_extra_cost: float = Field(
        0.25, ge=0, description="Most that drafting may add to what a call costs, as a share of it; 0: nothing."
    )
    wait_s: float = Field(
        2.0, gt=0, description="Longest wait for a draft, seconds; then the call goes on without drafts."
    )


class Drafted(PredictionSettings):
    """Who drafts for one backend, and how it says what it thinks of a draft."""

    draft_with: str = Field(
        "",
        description="`BACKEND/MODEL` that drafts answers for this backend, at temperature 0 and where that is faster; "
        "empty: nobody.",
    )
    scores: Literal["no", "echo", "prompt_logprobs"] = Field(
        "no",
        description="How it scores a text that it is given: `echo` (completions with `echo` and `logprobs`: vLLM, "
        "llama-cpp-python with `logits_all`; needs `template`), `prompt_logprobs` (vLLM's chat).",
    )
    template: Annotated[str, AfterValidator(_form)] = Field(
        "",
        description="How its model reads a chat: `chatml`, `llama3`, or one message with `{role}` and `{content}` in "
        "their places, e.g. `<|{role}|>{content}<|end|>`. It must be what the server itself makes of a chat, but for "
        "the mark that it puts before every text.",
    )
    greedy_when: Mapping[str, float] = Field(
        default_factory=dict,
        description="Fields that a request must have, beside `temperature = 0` or `top_k = 1`, for the server to take "
        "the likeliest token each time, e.g. `{repeat_penalty = 1}` for llama-cpp-python, which otherwise penalises "
        "repetition.",
    )

    race_with: str = Field(
        "",
        description="`BACKEND/MODEL` nearby that answers beside it where it is slow; whose answer is good first is "
        "taken. Empty: none.",
    )
    race_after_s: float | None = Field(
        None,
        ge=0,
        description="How long the other one waits before it begins, seconds; 0: both at once. Unset: until the call "
        "takes longer to begin than 95 % of at least 20 did, and for `attempts.hedge_share` of the calls at most.",
    )
    race_bar: float = Field(
        0.7, ge=0, le=1, description="The other one's answer is taken where it is right with this probability."
    )

    def draft_lack(self, backends: Mapping[str, Drafted], known: str) -> str:
        """What drafting lacks: the setting and what it must be; empty for nothing. ``known`` tells the backends."""
        for setting in ("race_with", "predict_with", "draft_with"):
            named = getattr(self, setting)
            backend, _, model = named.partition("/")
            if named and (backend not in backends or not model):
                return f"{setting} must be BACKEND/MODEL with BACKEND {known}, not {named!r}"
        return self._verified_lack(backends) if self.draft_with else ""

    def _verified_lack(self, backends: Mapping[str, Drafted]) -> str:
        drafter = self.draft_with.partition("/")[0]
        if self.scores == "no":
            return 'scores must be "echo" or "prompt_logprobs" where draft_with is set'
        if self.scores == "echo" and not self.template:
            return 'template must be set where scores is "echo"'
        if not backends[drafter].template:
            return f"draft_with names {drafter!r}, and backends.{drafter}.template must be set for it to draft"
        return ""


class WithDrafts(Frozen):
    """What the whole configuration has of these settings."""

    draft: DraftConfig = Field(default_factory=DraftConfig, description="How much is drafted.")

    @model_validator(mode="after")
    def _drafters_exist(self) -> WithDrafts:
        backends: Mapping[str, Drafted] = getattr(self, "backends", {})
        known = f"one of {sorted(backends)}"
        for name, settings in backends.items():
            lack = settings.draft_lack(backends, known)
            if lack:
                raise ValueError(f"backends.{name}.{lack}")
            if settings.predict_with and not self.draft.predicted:
                raise ValueError(f"backends.{name}.predict_with needs draft.predicted = true")
        return self
