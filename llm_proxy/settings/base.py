"""What every section of the settings is made of, and the small ones: `llm_proxy.config` has the others."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

__all__ = ["Frozen", "LimitConfig", "PriceConfig"]


class Frozen(BaseModel):
    """Plain data that is checked once and never changed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, defer_build=True
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        # A section's own settings come before those that it shares with others, in messages and on the page of all.
        for name in [name for name in cls.model_fields if name not in cls.__annotations__]:
            cls.model_fields[name] = cls.model_fields.pop(name)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (kind, *get_args(kind)):
            raise ValueError("must not be true or false")
        return value


class PriceConfig(Frozen):
    """Prices of one model, where the price library's are wrong or absent."""

    input_usd_per_mtok: float = Field(ge=0, description="Price of a million prompt tokens, dollars.")
    output_usd_per_mtok: float = Field(ge=0, description="Price of a million completion tokens, dollars.")
    cached_usd_per_mtok: float | None = Field(
        None, ge=0, description="Price of a million prompt tokens that the provider has cached; unset: as any."
    )


class LimitConfig(Frozen):
    """What one model can do, where that is not what its backend says."""

    context_tokens: int | None = Field(None, gt=0, description="Context window.")
    max_output_tokens: int | None = Field(None, gt=0, description="Longest answer.")
    has_tools: bool | None = Field(None, description="Whether it takes requests with tools.")
    has_images: bool | None = Field(None, description="Whether it takes requests with images.")
    has_json_schema: bool | None = Field(None, description="Whether it takes a `response_format` with a JSON schema.")
    has_json_object: bool | None = Field(None, description="Whether it takes a `response_format` of JSON.")
    takes_prediction: bool | None = Field(None, description="Whether it takes `prediction` (predicted outputs).")
