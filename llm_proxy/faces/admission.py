"""Who may come in, and what they may ask for.

::

    no keys       this machine's programs; web pages from elsewhere not                         403 foreign
    server.keys   who presents one of them: everything                                          401 invalid_api_key
    issued keys   who presents one: what it may do, at its pace                                 401, 403, 429
"""

from __future__ import annotations

import hmac
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llm_proxy.backends.openai_compatible import CREDENTIALS, credentials_of
from llm_proxy.errors import WireError
from llm_proxy.limits import keys_file
from llm_proxy.wire.chat import model_of, named_model

from ._asgi_io import Refused, is_foreign_page
from ._headers import read_headers
from .keys import KeyBook
from .pace import Paces

if TYPE_CHECKING:
    from llm_proxy.holders import Holder
    from llm_proxy.runtime import Runtime

    from ._asgi_io import Caller, Scope

__all__ = ["Admission", "without_credentials"]

# Where a server may read a model beside the body.
_NAMES_ONE = re.compile(r"/(models|deployments|engines)/|[?&]model=")


class Admission:
    """Lets callers in; a part of `llm_proxy.faces.asgi.ProxyApp`, for its event loop.

    Args:
        runtime: Its configuration names the keys.

    Raises:
        ConfigError: The file of issued keys can't be read.
    """

    def __init__(self, runtime: Runtime) -> None:
        config, clock, note = runtime.config, runtime.clock, runtime.troubles.note
        self._aliases, self._limits = config.aliases, config.server
        self._keys = [key.get_secret_value().encode() for key in config.server.keys]
        path = keys_file(config)

        def noted(exc: Exception) -> None:
            note("keys", exc)

        self.book = KeyBook(path, time=clock.time, monotonic=clock.monotonic, note=noted)
        folder = None if path is None else path.with_name(f"{path.name}.pace")
        self._paces = Paces(folder, time=clock.time, note=noted)

    @property
    def needs_key(self) -> bool:
        """Whether callers have to present a key."""
        self.book.refresh()
        return bool(self._keys) or self.book.is_managed

    def measure(self, scope: Scope, head_bytes: int) -> None:
        """Refuse a head that is too large: servers differ in what they let through.

        Args:
            scope: ASGI's.
            head_bytes: Of the headers, on the wire.

        Raises:
            Refused: 431.
        """
        limits = self._limits
        line = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
        if line + head_bytes > limits.max_head_bytes:
            raise Refused(431, f"the request's head is larger than {limits.max_head_bytes} bytes", must_close=True)
        if len(scope["headers"]) > limits.max_headers:
            raise Refused(431, f"the request has more than {limits.max_headers} headers", must_close=True)

    def admit(self, headers: Mapping[str, str], passed: Mapping[str, str], *, is_counted: bool = True) -> Holder | None:
        """Refuse who may not come in; else who holds the issued key that was presented, if it is one.

        Args:
            headers: All headers.
            passed: Those that are not for this connection alone. A key must be among them, for it is by them that the
                cache tells callers apart.
            is_counted: Whether it is a request of the key's rate.

        Raises:
            Refused: 401, 403 or 429.
        """
        if not self.needs_key:
            if is_foreign_page(headers):
                raise Refused(403, "requests of web pages from elsewhere need a key: set server.keys", code="foreign")
            return None
        given = [secret.encode("latin-1") for _, secret in credentials_of(passed)]
        # All are compared, so that it takes as long for any key.
        matches = [hmac.compare_digest(secret, key) for secret in given for key in self._keys]
        holders = [holder for holder in map(self.book.find, given) if holder is not None]
        if True in matches:
            return None
        if not holders:
            raise Refused(401, "this proxy needs one of its own keys as bearer token", code="invalid_api_key")
        wait_s = self._paces.wait_s(holders[0]) if is_counted else 0.0
        if wait_s:
            refused = Refused(
                429,
                f"this key may ask {holders[0].requests_per_minute} times a minute; wait {math.ceil(wait_s)} s",
                code="rate_limit_exceeded",
                headers=(("retry-after", str(math.ceil(wait_s))),),
            )
            refused.holder = holders[0]
            raise refused
        return holders[0]

    def admit_watcher(self, headers: Mapping[str, str], passed: Mapping[str, str]) -> None:
        """Refuse who may not see the calls of all tenants.

        Raises:
            Refused: 401 or 403.
        """
        holder = self.admit(headers, passed, is_counted=False)
        if holder is not None and not holder.may_watch:
            raise Refused(403, "this key may not see the calls of others", code="not_allowed")

    def check_model(self, holder: Holder | None, model: str) -> None:
        """Refuse a model that the holder of a key may not ask.

        Raises:
            Refused: 403.
        """
        if holder is not None and not self.may_ask(holder, model):
            raise Refused(403, f"this key may not ask the model {model!r}", code="model_not_allowed")

    def check_body(self, holder: Holder | None, body: Mapping[str, Any]) -> None:
        """The same for the model that a chat request names.

        Raises:
            Refused: 403.
        """
        if holder is not None and holder.models:
            self.check_model(holder, named_model(body))
            more = body.get("models")  # some servers ask these where the first gives no answer
            for name in more if isinstance(more, list) else [] if more is None else [more]:
                self.check_model(holder, str(name))

    def may_ask(self, holder: Holder, model: str) -> bool:
        """Whether the holder of a key may ask a model by this name: it, or what it is an alias of, is allowed."""
        return holder.may_ask(model, self._aliases.get(model, model))

    def check_socket(self, holder: Holder | None) -> None:
        """Refuse a WebSocket, of which nobody says what is asked or what it costs, to a key that is bounded in either.

        Raises:
            Refused: 403.
        """
        if holder is not None and (holder.models or not holder.may_pass):
            raise Refused(403, "this key may not use WebSockets: what they ask is not looked at", code="no_pass")

    async def body_to_pass(self, holder: Holder, scope: Scope, caller: Caller, limit_bytes: int) -> bytes | None:
        """What a key sends on a path that is only passed on; None where nobody has to look at it.

        Of a key for certain models the body must be JSON that names one of them: nothing else says for sure which
        model is asked.

        Raises:
            Refused: 403, or what is wrong with the body.
        """
        if not holder.may_pass:
            raise Refused(
                403, "this key may not use paths that are only passed on: what they cost is not counted", code="no_pass"
            )
        if not holder.models:
            return None
        if _NAMES_ONE.search(f"{scope['path']}?{scope['query_string'].decode('latin-1')}".lower()):
            message = "this key may ask certain models only, and this path names one"
            raise Refused(403, message, code="model_not_allowed")
        headers = read_headers(tuple(map(tuple, scope["headers"])))[0]
        coding = headers.get("content-encoding", "identity").lower()
        raw = await caller.body(limit_bytes=limit_bytes, announced=headers.get("content-length", ""))
        try:
            model = model_of(raw) if coding == "identity" else ""
        except WireError:
            model = ""
        if not model:
            raise Refused(
                403, "this key may ask certain models only, and this request names none", code="model_not_allowed"
            )
        self.check_body(holder, json.loads(raw))
        return raw

    def close(self) -> None:
        """Release files; a later call opens them again."""
        self._paces.close()


def without_credentials(scope: Scope) -> dict[str, Any]:
    """A request without what says who asks: an issued key is for nobody further on."""
    kept = [row for row in scope["headers"] if row[0].decode("latin-1").lower() not in CREDENTIALS]
    return {**scope, "headers": kept}
