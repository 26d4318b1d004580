"""Settings: frozen, checked at construction, resolved once. The only module that reads the environment.

Order of precedence: argument, then environment (``LLM_PROXY_*``), then file (``llm-proxy.toml``), then default.

::

    LLM_PROXY_CACHE_BUDGET_BYTES=2000000000          [cache] budget_bytes = 2000000000
    LLM_PROXY_SERVER_KEYS=one,two                    [server] keys = ["one", "two"]      lists: commas
    LLM_PROXY_BACKENDS_LOCAL_BASE_URL=http://...     [backends.local] base_url = "http://..."
    LLM_PROXY_ALIASES={"gpt-4o": "auto"}             [aliases] gpt-4o = "auto"           tables: JSON
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator

from .errors import ConfigError
from .settings import values
from .settings.base import Frozen, LimitConfig, PriceConfig
from .settings.cascade import CascadeSettings
from .settings.draft import DraftConfig, Drafted, WithDrafts
from .settings.draft_near import ExampleSettings
from .settings.encoder import EncoderConfig
from .settings.learning import CompareSettings, OutcomeSettings
from .settings.limits import BudgetConfig, BudgetLimit, Hurried, Queued
from .settings.reliability import AttemptsConfig, BackendAttempts, Fallbacks, WithAttempts
from .settings.sentences import sentence
from .settings.server import ServerConfig
from .settings.tables import from_file, leaves, merged
from .settings.values import OPENAI_BASE_URL
from .settings.variables import PREFIX, Steps, settings_in, variable_of
from .settings.watching import TellConfig

__all__ = [
    "OPENAI_BASE_URL",
    "AttemptsConfig",
    "BackendConfig",
    "BudgetConfig",
    "BudgetLimit",
    "CacheConfig",
    "Config",
    "DraftConfig",
    "EncoderConfig",
    "LimitConfig",
    "ObserveConfig",
    "PriceConfig",
    "RouteConfig",
    "ServerConfig",
    "environment",
    "environment_for_child",
    "load",
    "settings_file",
    "variable_of",
]

FILE_NAME = "llm-proxy.toml"


def environment(name: str) -> str | None:
    """Value of an environment variable, or None when it is unset or empty."""
    return os.environ.get(name) or None


def environment_for_child(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with some variables set, for a program to be started."""
    return {**os.environ, **changes}


def _default_directory() -> Path:
    root = environment("XDG_CACHE_HOME")
    try:
        return (Path(root) if root else Path.home() / ".cache").absolute() / "llm-proxy"
    except (RuntimeError, OSError) as exc:
        raise ConfigError(
            "this user has no home folder to keep the cache in; set cache.directory (LLM_PROXY_CACHE_DIRECTORY) "
            'or cache.store = "memory"'
        ) from exc


class CacheConfig(Frozen):
    """What is kept, where, and what may be served from it."""

    enabled: bool = Field(True, description="Look up and store answers at all.")
    store: Literal["disk", "memory"] = Field("disk", description="Where entries live.")
    directory: Annotated[Path, AfterValidator(values.directory)] = Field(
        default_factory=_default_directory,
        description="Directory of the disk store, the index snapshot and the ledger; processes may share it.",
    )
    policy: Literal["gdsf", "lec", "lfu", "lru"] = Field(
        "gdsf",
        description="Which entries go when the budget is spent; `gdsf` and `lec` take no answer in that is worth less.",
    )
    budget_bytes: int = Field(
        1 << 30, ge=1 << 20, description="Most bytes that entries may take, 1048576 (1 MiB) or more."
    )
    max_entries: int = Field(1_000_000, gt=0, description="Most entries.")
    max_entry_bytes: int = Field(1 << 20, gt=0, description="A larger answer is passed on and not stored.")
    ttl_s: float | None = Field(None, gt=0, description="Age after which an entry is not served; none: never.")
    obey_no_store: bool = Field(
        True,
        description="Never store an answer that the upstream sent with `Cache-Control: no-store`. Some local servers, "
        "llama-cpp-python's for one, send it with every stream.",
    )
    max_temperature: float = Field(1.0, ge=0, description="A request above it bypasses the cache.")
    tenant: Annotated[str, AfterValidator(values.tenant)] = Field(
        "api_key",
        description="What separates callers: `api_key` (a hash of all key headers, organization and project), `user`, "
        "`header:NAME`, `fixed:NAME`.",
    )
    semantic: bool = Field(True, description="Also serve answers to equivalent questions, where extras allow.")
    threshold: float = Field(
        0.65,
        ge=0,
        le=1,
        description="Least cosine similarity of a semantic hit; the guard must agree as well: never below 0.5.",
    )
    max_error_rate: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="Largest share of semantic hits that may be wrong: one is served where it is taken to be wrong "
        "with at most 0.4 of this probability, or another part by what checks found.",
    )
    context: Literal["exact", "similar"] = Field(
        "exact",
        description="What a semantic hit asks of earlier turns: `exact`, that they are the same; `similar`, that those "
        "of the user mean the same, each by itself, and all others are the same.",
    )
    explore_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="How readily a question is asked upstream, by chance, although an answer could be served, to "
        "compare the two: the share of those whose p_wrong is `max_error_rate`, fewer of surer ones. 0: none.",
    )
    check_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of semantic hits that are also asked upstream, after they were served, to see whether they "
        "were right. It costs what asking costs.",
    )
    check_usd_per_day: float = Field(
        0.1, ge=0, description="Most dollars that such checks may take on one day (UTC); without a price none is made."
    )
    judge: str = Field(
        "normalised",
        min_length=1,
        description="What compares the two answers: `exact` (same characters), `normalised` (but for case, space, "
        "Markdown and how numbers are written; leaves long ones that differ open), `similar` (the encoder), or the "
        "name of a model, which is asked.",
    )


class BackendConfig(Queued, BackendAttempts, Drafted):
    """One OpenAI-compatible server."""

    base_url: Annotated[str, AfterValidator(values.base_url)] = Field(description="URL up to and with `/v1`.")
    api_key: SecretStr | None = Field(None, description="Key to send. Prefer `api_key_env`.")
    api_key_env: Annotated[str | None, AfterValidator(values.variable)] = Field(
        None, description="Environment variable that holds the key."
    )
    auth: Literal["key", "caller", "none"] | None = Field(
        None,
        description="Whose key is sent: the backend's own, the caller's, or none. Unset: `key` where one is "
        "configured, `caller` for the default backend, else `none`.",
    )
    models: tuple[str, ...] = Field((), description="Models that this backend serves, for names without a prefix.")
    context_tokens: int | None = Field(
        None, gt=0, description="Context window: longer prompts, with the answer's `max_tokens`, are not routed to it."
    )
    max_output_tokens: int | None = Field(
        None, gt=0, description="Longest answer; requests whose `max_tokens` is above it are not routed to it."
    )
    has_tools: bool = Field(True, description="Whether requests with tools may be routed to it.")
    has_images: bool = Field(True, description="Whether requests with images may be routed to it.")
    has_json_schema: bool = Field(
        True, description="Whether requests whose `response_format` is a JSON schema may be routed to it."
    )
    has_json_object: bool = Field(
        True, description="Whether requests whose `response_format` is `json_object` may be routed to it."
    )
    limits: Mapping[str, LimitConfig] = Field(
        default_factory=dict, description="What single models can do, by name, where it is not what is said here."
    )
    prices: Mapping[str, PriceConfig] = Field(default_factory=dict, description="Prices by model name.")
    timeout_s: float | None = Field(
        None, gt=0, description="Longest wait for a connection, and for a byte; unset: the caller's own."
    )
    usd_per_second: float = Field(0.0, ge=0, description="What a second of waiting for this backend is worth.")

    def key(self) -> str | None:
        """The key to send, or None."""
        if self.api_key is not None:
            return self.api_key.get_secret_value()
        return environment(self.api_key_env) if self.api_key_env else None


class RouteConfig(CompareSettings, Hurried, Fallbacks, CascadeSettings, ExampleSettings):
    """A choice between models, used when a request names the route as its model."""

    long_prompt_chars: int = Field(
        2_000, gt=0, description="A prompt of this many characters asks for the strongest candidate."
    )
    max_error_rate: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="As `cache.max_error_rate`, for this route; none: the same.",
    )
    head: str = Field(
        "",
        description="Folder of the head that decides, or of its versions; empty: `heads` in `cache.directory`, where "
        "`llm-proxy route train` puts them, and the rules while there is none that knows all candidates. `shipped`: "
        "the head that comes along, which knows no model but a weak, a middle and a strong tier.",
    )
    known_as: Mapping[str, str] = Field(
        default_factory=dict,
        description="What a head calls a candidate, where it is not the model's name, e.g. "
        '`{"local/llama3.2" = "Llama-3.2-3B"}`.',
    )
    quality: float = Field(
        0.95,
        gt=0,
        le=1,
        description="With a head: a candidate is good enough where its probability of a good answer is at least this "
        "share of the best candidate's.",
    )
    usd_per_good_answer: float | None = Field(
        None,
        gt=0,
        description="With a head: what a good answer is worth, dollars. When set, it decides instead of `quality`: "
        "the most is made of worth times probability, less expected cost.",
    )
    objective: Literal["cost", "latency"] = Field(
        "cost", description="What is least of those that are good enough: expected cost, or predicted latency."
    )


class ObserveConfig(OutcomeSettings, TellConfig):
    """What is written down about calls."""

    ledger: bool = Field(True, description="Keep one row a call (no prompts, no keys) for `llm-proxy stats`.")
    ledger_rows: int = Field(1_000_000, gt=0, description="Oldest rows go beyond this many.")


class Config(WithAttempts, WithDrafts):
    """All settings of one engine; equal when every value is.

    Args:
        **sections: Plain data or ready sections, e.g. ``cache={"store": "memory"}``.

    Raises:
        ConfigError: A name is unknown or a value out of range; the message says which.
    """

    cache: CacheConfig = Field(default_factory=CacheConfig, description="What is kept and served.")
    encoder: EncoderConfig = Field(default_factory=EncoderConfig, description="Questions to vectors.")
    backends: Annotated[Mapping[str, BackendConfig], AfterValidator(values.names)] = Field(
        default_factory=dict, description="Servers by name."
    )
    default_backend: str = Field("", description="Backend of models that no other claims; empty: the first one.")
    routes: Annotated[Mapping[str, RouteConfig], AfterValidator(values.names)] = Field(
        default_factory=dict, description="Routes by name, e.g. `auto`."
    )
    aliases: Mapping[str, str] = Field(
        default_factory=dict, description='Other names for models and routes, e.g. `gpt-4o = "auto"`.'
    )
    budget: BudgetConfig = Field(default_factory=BudgetConfig, description="What may be spent.")
    server: ServerConfig = Field(default_factory=ServerConfig, description="The reverse proxy.")
    observe: ObserveConfig = Field(default_factory=ObserveConfig, description="What is written down.")

    @property
    def uses_near_misses(self) -> bool:
        """Whether anything is made of near misses."""
        return self.draft.predicted or any(route.examples for route in self.routes.values())

    def __init__(self, **sections: Any) -> None:
        try:
            super().__init__(**sections)
        except ValidationError as exc:
            raise ConfigError(sentence(exc, type(self), {})) from exc

    @model_validator(mode="after")
    def _names_exist(self) -> Config:
        known = f"one of {sorted(self.backends)}" if self.backends else "configured under [backends]"
        if self.default_backend and self.default_backend not in self.backends:
            raise ValueError(f"default_backend must be {known}, not {self.default_backend!r}")
        for route, settings in self.routes.items():
            for candidate in settings.candidates:
                if candidate.partition("/")[0] not in self.backends or not candidate.partition("/")[2]:
                    raise ValueError(
                        f"routes.{route}.candidates must be BACKEND/MODEL with BACKEND {known}, not {candidate!r}"
                    )
            strangers = sorted(set(settings.known_as) - set(settings.candidates))
            if strangers:
                raise ValueError(
                    f"routes.{route}.known_as must name one of {list(settings.candidates)}, not {strangers[0]!r}"
                )
            lack = settings.cascade_lack(self.backends, known) or settings.compare_lack(self.backends, known)
            if lack:
                raise ValueError(f"routes.{route}.{lack}")
        for name, target in self.aliases.items():
            if target in self.aliases:
                raise ValueError(f"aliases.{name} must name a model or a route, not the alias {target!r}")
        return self


def load(source: Config | str | Path | None = None, **arguments: Any) -> Config:
    """Resolve settings: argument, environment, file, default.

    Args:
        source: A ready configuration (returned as it is when there are no other arguments), a path of a TOML
            file, or None: the file named by ``LLM_PROXY_CONFIG``, else ``llm-proxy.toml`` in the working
            directory, else none.
        **arguments: Sections with settings that win over all, e.g. ``cache={"store": "memory"}``.

    Raises:
        ConfigError: The file is missing, is not TOML, or a setting is wrong.
    """
    if isinstance(source, Config):
        return source if not arguments else Config(**merged(source.model_dump(exclude_unset=True), arguments))
    path = settings_file(source)
    settings = {} if path is None else from_file(path)
    origins = dict.fromkeys(leaves(settings), str(path))
    for steps, variable, value in settings_in(os.environ, Config, settings):
        for step in reversed(steps):
            value = {step: value}
        settings = merged(settings, value)
        origins[steps] = variable
    origins = {steps: origin for steps, origin in origins.items() if steps not in set(leaves(arguments))}
    return _checked(merged(settings, arguments), origins)


def settings_file(source: str | Path | None = None) -> Path | None:
    """The file that `load` reads for the same source, or None; a file that was named may not be there."""
    named = source if source is not None else environment(PREFIX + "CONFIG")
    if named is not None:
        return Path(named)
    # Not Path.is_file: where the working directory may not be read, that raises.
    return Path(FILE_NAME) if os.path.isfile(FILE_NAME) else None


def _checked(sections: Mapping[str, Any], origins: Mapping[Steps, str]) -> Config:
    try:
        return Config(**sections)
    except ConfigError as exc:
        if isinstance(exc.__cause__, ValidationError):
            raise ConfigError(sentence(exc.__cause__, Config, origins)) from exc.__cause__
        raise
