"""Which backends a proxy has where the settings name none."""

from __future__ import annotations

from collections.abc import Mapping

from llm_proxy.config import OPENAI_BASE_URL, BackendConfig, Config

__all__ = ["backends_of"]


def backends_of(config: Config) -> Mapping[str, BackendConfig]:
    """The backends of the settings; where they name none, OpenAI with the caller's key."""
    return config.backends or {
        "openai": BackendConfig(base_url=OPENAI_BASE_URL, auth="caller", api_key_env="OPENAI_API_KEY")
    }
