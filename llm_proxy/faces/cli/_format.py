"""Numbers and sentences that several commands say."""

from __future__ import annotations

from llm_proxy._figures import age, amount, dollars, milliseconds, seconds, share, size

__all__ = ["SHARED", "age", "amount", "dollars", "milliseconds", "seconds", "share", "size"]

SHARED = "all callers are served one another's answers: cache.tenant is fixed"
"""What it means to share a cache among tenants."""
