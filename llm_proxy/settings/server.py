"""The section ``[server]`` of the settings: the reverse proxy and what it takes from whoever connects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from . import values
from .watching import PageConfig

__all__ = ["ServerConfig"]


class ServerConfig(PageConfig):
    """The reverse proxy."""

    host: str = Field("127.0.0.1", description="Address to bind; any but loopback needs `keys`.")
    port: int = Field(8080, ge=0, le=65535, description="Port to bind; 0 takes a free one.")
    keys: tuple[SecretStr, ...] = Field(
        (), description="Keys of which callers must present one, as bearer token, `api-key` or `x-api-key`."
    )
    keys_file: Annotated[Path | None, AfterValidator(values.optional_file)] = Field(
        None,
        description="File of the keys that `llm-proxy keys` issues; unset: beside `cache.directory`, named after it, "
        "or none without a disk store. Where it is there, callers need a key.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes that serve. They share the cache directory; each has an encoder of its own in memory.",
    )
    client: Literal["auto", "aiohttp", "httpx"] = Field(
        "auto",
        description="What asks backends: `aiohttp`, which is several times as fast, or the HTTP library that the "
        "openai package uses; `auto`: aiohttp where it is installed.",
    )
    drain_s: int = Field(
        30, ge=0, description="At the end, how long answers under way may take to finish, whole seconds."
    )
    max_connections: int = Field(
        4096, gt=0, description="Most connections of one worker; a call on one more is answered with 503."
    )
    max_head_bytes: int = Field(
        64 << 10, ge=1024, description="Most bytes of a request's line and headers; more is refused with 431."
    )
    max_headers: int = Field(100, gt=0, description="Most headers of a request; more is refused with 431.")
    max_body_bytes: int = Field(32 << 20, gt=0, description="A larger chat request is refused with 413.")
    max_unfinished_bytes: int = Field(
        256 << 20,
        gt=0,
        description="Most bytes of chat requests that are not there in whole yet, of one worker together; beyond it "
        "the one that began first is refused with 503.",
    )
    idle_s: int = Field(
        75,
        gt=0,
        description="A connection without a call is closed after as long, whole seconds. Clients should give up first.",
    )
    head_s: float = Field(10.0, gt=0, description="Longest time for a request's line and headers to come in whole.")
    body_s: float = Field(30.0, gt=0, description="Longest silence in the middle of a request's body.")
    body_total_s: float = Field(
        120.0,
        gt=0,
        description="Longest time that a chat request's body may take to come in; of a body that is passed on, the "
        "longest wait for it in all, and one second more for each KiB.",
    )
    stalled_s: float = Field(
        300.0, gt=0, description="A caller who takes nothing of the answer for as long is taken to have left."
    )
