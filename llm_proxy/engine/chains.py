"""Responses that go on from earlier ones: to whom they are sent, and what of an answer has to be remembered for that.

A server keeps the responses that it made, and none that another made. So a call of a route that names one by
``previous_response_id`` goes to the server that answered then; of a route over several servers that has to be known:

::

    an answer of responses    its id is read, before it is handed on, and kept with who answered (`Homes`)
    a call that names one     found ──> turned to the candidate that answered, or to the strongest one there
                              else ──> refused: to ask any of the servers would be to guess
    a request about one       found ──> sent to who answered (`Chains.keeper`)
    (read, deleted, ...)      else ──> sent to where it would go by itself

What a tenant was answered is known to it alone. Where all backends are on one server, nothing is read or kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from llm_proxy.route.base import Home
from llm_proxy.types import CHAT, Head
from llm_proxy.wire.apis import OTHERS
from llm_proxy.wire.recorder import recorder_for
from llm_proxy.wire.responses import KEPT_UPSTREAM, FirstNamed, id_in_front

from .effects import Flow, Late, background, compute, forward, mend, pause, read
from .fingerprint import owner_of, tenant_of
from .refusing import unroutable

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_proxy.config import Config
    from llm_proxy.observe.events import Troubles
    from llm_proxy.types import ChatRequest, Outgoing
    from llm_proxy.wire.recorder import Recorder

    from .call import Call
    from .ports import Homes, Ready, Sends
    from .settle import Settler

__all__ = ["Chains", "at_one_server", "goes_on_from", "servers_of"]

_RESPONSES = _PART = "responses"
_PREVIOUS = KEPT_UPSTREAM[0]
_FILE_S = 1.0  # longest wait for the file: another process may have locked it
_AGAIN_S = 0.1  # another process may be writing down the answer that this caller goes on from

Pair = tuple[str, str]


def goes_on_from(request: ChatRequest) -> str:
    """The field that names what a call goes on from, and one server alone knows; empty for none."""
    if request.api != _RESPONSES:
        return ""
    return next((name for name in KEPT_UPSTREAM if request.body.get(name)), "")


def servers_of(config: Config, pairs: Sequence[Pair]) -> set[tuple[str, str | None]]:
    """The addresses that some pairs of backend and model lead to, and the accounts there."""
    return {_server(config, backend) for backend, _ in pairs}


def at_one_server(config: Config, pairs: Sequence[Pair], backend: str) -> tuple[Pair, ...]:
    """Those of some pairs of backend and model that lead to the same server as a backend does."""
    own = _server(config, backend)
    return tuple(pair for pair in pairs if _server(config, pair[0]) == own)


def _server(config: Config, backend: str) -> tuple[str, str | None]:
    settings = config.backends[backend]
    return settings.base_url, settings.key()


class Chains:
    """Sends calls, those of responses to who keeps what they go on from. One a runtime; thread-safe.

    Args:
        config: ``routes``, ``backends`` and ``cache`` are read.
        sends: What sends a call once it is known to whom.
        homes: Where responses are kept; None: that need not be known.
        address_of: What a base URL is remembered by.
        later: Has a function called by another thread; quick, and does not raise.
        settler: Books what is refused.
        troubles: Counts what goes wrong.
    """

    def __init__(
        self,
        config: Config,
        sends: Sends,
        *,
        homes: Homes | None,
        address_of: Callable[[str], str],
        later: Callable[[Callable[[], None]], object],
        settler: Settler,
        troubles: Troubles,
    ) -> None:
        self._config, self._sends, self._homes, self._address_of = config, sends, homes, address_of
        self._later, self._settler, self._troubles = later, settler, troubles

    def close(self) -> None:
        """Release files; calling it again is safe."""
        if self._homes is not None:
            self._homes.close()

    # -- to whom ---------------------------------------------------------------------------------------------------

    def refused(self, call: Call) -> Flow[Ready | None]:
        """Turn a call to who keeps what it goes on from; what its caller gets where none may be asked, else None.

        A route's candidates are chat models that answer the same question. Vectors of two models can't be compared,
        and few chat models go on from a bare prompt: which model is asked is not left to chance there.
        """
        name = call.destination.route
        if call.request.api == CHAT or not name:
            return None
        leads = f"{call.request.model!r} leads to the route {name!r}"
        if not OTHERS[call.request.api].is_routed:
            return unroutable(call, self._settler, f"{leads}; name a model for {call.request.path}")
        known = goes_on_from(call.request)
        pairs = [_pair(candidate) for candidate in self._config.routes[name].candidates]
        servers = servers_of(self._config, pairs)
        if not known or len(servers) < 2:
            return None
        home = None
        if known == _PREVIOUS:
            home = yield from self._home(call.request, call.request.body[_PREVIOUS])
        there = () if home is None else at_one_server(self._config, pairs, home.backend)
        if home is None or not there:
            why = "" if known != _PREVIOUS else "; it is not known here, or no longer"
            why = why if home is None else f"; it is of {home.backend}/{home.model}, which is no candidate"
            remedy = f"only one knows the {known}: name its model, as BACKEND/MODEL"
            return unroutable(call, self._settler, f"{leads} of {len(servers)} servers, and {remedy}{why}")
        pair = home[:2] if home[:2] in there else there[-1]
        call.destination = replace(call.destination, backend=pair[0], model=pair[1])
        call.reason, call.kept_by = f"goes on from a response of {home.backend}/{home.model}", home.backend
        return None

    def keeper(self, request: ChatRequest, named: str) -> Flow[str]:
        """The backend that keeps a response; empty where that is not known, or it is in the settings no more.

        Args:
            request: Says who asks; its body is not read, unless tenants differ by it.
            named: The response's id.
        """
        home = yield from self._home(request, named)
        return "" if home is None else home.backend

    def _home(self, request: ChatRequest, named: object) -> Flow[Home | None]:
        """Who keeps a response; None where that is not known, or can't be told."""
        if self._homes is None or not isinstance(named, str):
            return None
        find = partial(self._homes.find, self._mark(request, named))
        try:
            home = yield from compute(find, _FILE_S)
            if home is None:
                yield from pause(_AGAIN_S)
                home = yield from compute(find, _FILE_S)
        except Exception as exc:  # noqa: BLE001 - `Late` too; the fail-open boundary: as if it were not known
            self._troubles.note(_PART, exc)
            return None
        # A backend of that name may be another server by now.
        is_there = home is not None and home.backend in self._config.backends
        return home if home is not None and is_there and self._address(home.backend) == home.address else None

    # -- what is remembered ----------------------------------------------------------------------------------------

    def asking(self, call: Call, outgoing: Outgoing) -> Flow[Head] | None:
        """The flow that sends a call; see `Attempts.asking`, which it is where no response has to be known again."""
        plain = self._sends.asking(call, outgoing)
        # What is not to be stored upstream can't be gone on from.
        is_kept = call.request.api == _RESPONSES and call.request.body.get("store") is not False
        if self._homes is None or not is_kept or not outgoing.backend:
            return plain
        return self._asking(call, outgoing, plain, self._homes)

    def _asking(self, call: Call, outgoing: Outgoing, plain: Flow[Head] | None, homes: Homes) -> Flow[Head]:
        if plain is None:
            self._settler.sent(call.outcome, call.sent)
            head = yield from forward(outgoing)
        else:
            head = yield from plain
        if head.status != 200:
            return head
        home = Home(call.outcome.backend, call.outcome.model, self._address(call.outcome.backend))
        known = partial(self._known, homes, call.request, home)
        most_bytes = self._config.cache.max_entry_bytes
        recorder = recorder_for(head.headers, limit_bytes=most_bytes, chunks=FirstNamed)
        if recorder is None:
            return head
        if recorder.is_stream:
            return (yield from mend(head, _PassingBy(recorder, lambda named: self._later(known(named)))))
        held = yield from read(head, limit_bytes=most_bytes, limit_s=math.inf)
        recorder.feed(held.body)
        if held.is_whole:
            recorder.end()
        named = id_in_front(held.body) if recorder.is_overflowed else _id_of(recorder)
        if named and held.is_whole:  # its caller may go on from it at once, and another process be asked
            yield from self._written(known(named))
        elif named:
            yield from background(known(named))
        return held.head

    def _known(self, homes: Homes, request: ChatRequest, home: Home, named: str) -> Callable[[], None]:
        """What has it known where a response is kept."""
        return partial(self._keep, homes, self._mark(request, named), home)

    def _written(self, keep: Callable[[], None]) -> Flow[None]:
        try:
            yield from compute(keep, _FILE_S)
        except Late as late:  # it goes on by itself
            self._troubles.note(_PART, late)

    def _keep(self, homes: Homes, mark: str, home: Home) -> None:
        try:
            homes.keep(mark, home)
        except Exception as exc:  # noqa: BLE001 - the fail-open boundary: the caller has its answer
            self._troubles.note(_PART, exc)

    def _mark(self, request: ChatRequest, named: str) -> str:
        return owner_of(named, tenant_of(request, self._config.cache.tenant))

    def _address(self, backend: str) -> str:
        return self._address_of(self._config.backends[backend].base_url)


class _PassingBy:
    """Reads who a stream's response is as it passes by; see `llm_proxy.engine.effects.Mending`.

    Nothing is kept back for it: a server that is slow to say so may keep its caller's connection alive meanwhile. And
    nobody goes on where it breaks off.
    """

    is_broken = False

    def __init__(self, recorder: Recorder, named: Callable[[str], object]) -> None:
        self._recorder: Recorder | None = recorder
        self._named = named

    def passed(self, piece: bytes) -> bytes:
        """The same bytes."""
        recorder = self._recorder
        if recorder is not None:
            recorder.feed(piece)
            if recorder.reason != "unfinished":
                self._recorder = None
                named = _id_of(recorder)
                if named:
                    self._named(named)
        return piece

    def ended(self) -> bytes:
        """Nothing more."""
        return b""

    def going_on(self, error: Exception | None) -> Flow[Head | None]:
        """Nobody goes on."""
        yield from ()
        return None

    def kept(self) -> bytes:
        """Nothing was kept back."""
        return b""

    def left(self) -> None:
        """Nothing is left to do."""


def _id_of(recorder: Recorder) -> str:
    named = (recorder.completion() or {}).get("id")
    return named if isinstance(named, str) else ""


def _pair(candidate: str) -> Pair:
    backend, _, model = candidate.partition("/")
    return backend, model
