"""Every exception that llm-proxy raises, in one tree.

::

    LLMProxyError
    ├── ConfigError (also ValueError)             a setting is wrong: raised at construction, before any call
    ├── MissingDependencyError (also ImportError) an optional package is absent: the message holds the pip line
    ├── CacheError                                the cache could not do its work: counted, logged, call forwarded
    │   └── CacheCorruptError                     stored bytes are not what was written: counted, treated as a miss
    ├── RouterError                               a router could not decide: counted, logged, the default is used
    ├── UnknownCallError (also LookupError)       feedback on an id that is not known, or somebody else's
    └── BackendError                              the upstream could not answer
        ├── BackendUnavailable                    refused, reset, or no backend is configured: the proxy says 503
        │   └── Interrupted                       an answer broke off in the middle: it ends with an error
        ├── BackendTimeout                        no answer in time: the proxy says 504
        ├── LimitReached                          a queue is full or a budget spent: the caller gets 429
        └── WireError                             bytes that are not the protocol: the proxy says 400 or 502

Through the client face none of them reaches a caller of ``chat.completions``: a caller sees ``openai.*`` only.
"""

from __future__ import annotations

__all__ = [
    "ASKED_ENOUGH",
    "BackendError",
    "BackendTimeout",
    "BackendUnavailable",
    "CacheCorruptError",
    "CacheError",
    "ConfigError",
    "Interrupted",
    "LLMProxyError",
    "LimitReached",
    "MissingDependencyError",
    "RouterError",
    "UnknownCallError",
    "WireError",
]


ASKED_ENOUGH = "llm-proxy: sent as often as it may be, see the setting attempts.most; do not send it again"
"""Note on an exception, of whatever library, that came of the last request that a call may be sent as."""


class LLMProxyError(Exception):
    """Base of all: catch it to catch everything that llm-proxy itself raises."""


class ConfigError(LLMProxyError, ValueError):
    """A setting is missing, unknown or out of range; correct the value that the message names."""


class MissingDependencyError(LLMProxyError, ImportError):
    """An optional package is not installed; run the pip line in the message."""


class CacheError(LLMProxyError):
    """The cache could not read or write; the call goes on uncached."""


class CacheCorruptError(CacheError):
    """Stored bytes fail their checks; run ``llm-proxy cache check --repair``."""


class RouterError(LLMProxyError):
    """A router could not decide; the route's default candidate is used."""


class UnknownCallError(LLMProxyError, LookupError):
    """Feedback names no answer that is known here, or one that somebody else got; see `x-llm-proxy-id`."""


class BackendError(LLMProxyError):
    """The upstream could not answer."""


class BackendUnavailable(BackendError):
    """No connection to the upstream, or no backend serves this model."""


class BackendTimeout(BackendError):
    """The upstream did not answer in time."""


class Interrupted(BackendUnavailable, ConnectionAbortedError):
    """An answer broke off in the middle; a face turns it into its HTTP library's error."""


class LimitReached(BackendError):
    """A limit of the configuration says that a call is not sent now; raise the limit, wait, or ask another model.

    Args:
        message: What is reached, and what to do; callers see it.
        code: Machine-readable name: ``queue_full``, ``queue_timeout``, ``budget_exceeded`` or ``budget_unavailable``.
        retry_after_s: When to come again, seconds; None where that is of no use.
    """

    def __init__(self, message: str, *, code: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code, self.retry_after_s = code, retry_after_s

    @property
    def word(self) -> str:
        """What is reached, in a word: ``over-budget`` or ``busy``."""
        return "over-budget" if self.code.startswith("budget_") else "busy"


class WireError(BackendError):
    """Bytes that are not what the protocol says; the message names the offence."""
