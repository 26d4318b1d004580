"""The page as one document: markup, style and script, and the headers under which a browser runs nothing else."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import lru_cache
from pathlib import Path

__all__ = ["SAFE_HEADERS", "page"]

_FOLDER = Path(__file__).parent

SAFE_HEADERS = (
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
)
"""Sent with the page and with its data: nobody frames, embeds, sniffs or keeps them."""


@lru_cache(maxsize=1)
def page() -> tuple[bytes, str]:
    """The document, and its ``Content-Security-Policy``, which knows style and script by their hashes."""
    style, script = (_FOLDER / "page.css").read_text("utf-8"), (_FOLDER / "page.js").read_text("utf-8")
    markup = (_FOLDER / "page.html").read_text("utf-8")
    document = markup.replace("<style></style>", f"<style>{style}</style>")
    document = document.replace("<script></script>", f"<script>{script}</script>")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return document.encode(), policy


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
