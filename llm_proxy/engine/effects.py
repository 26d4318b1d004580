"""What the core may ask for. The engine yields these and never acts itself; `llm_proxy.drive` performs them.

The single ``Any`` of the generator protocol stays in this file: flows call the typed helpers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from llm_proxy.types import Head, HeaderList, Outgoing

    from .flights import Flight, Seat, Ticket

__all__ = [
    "Aside",
    "Await",
    "Background",
    "Board",
    "Compute",
    "Effect",
    "Fetch",
    "Fetched",
    "Flow",
    "Forward",
    "Held",
    "Hold",
    "Late",
    "Launch",
    "Mend",
    "Mending",
    "Pause",
    "Race",
    "Raced",
    "Read",
    "Stand",
    "Upstream",
    "aside",
    "await_flight",
    "background",
    "board",
    "compute",
    "fetch",
    "forward",
    "hold",
    "launch",
    "mend",
    "pause",
    "race",
    "read",
    "stand",
]

T = TypeVar("T")


class Late(Exception):
    """Thrown into a flow whose `Compute` took longer than it may; the work itself may still end by itself.

    Attributes:
        is_begun: False where it was not begun, because too many others were before it: nothing is wrong with it then.
    """

    def __init__(self, *, is_begun: bool = True) -> None:
        super().__init__()
        self.is_begun = is_begun


class Compute(NamedTuple):
    """Call a function that takes more than about 0.5 ms, off an event loop.

    Attributes:
        call: The function.
        limit_s: Longest wait for it, seconds, after which `Late` is thrown in; None to wait as long as it takes.
        turn_s: Longest wait for a thread that begins it, seconds, where ``limit_s`` is not to hold it; 0: it does.
        is_quick: Whether it is known to keep well within the limit, so that a caller with a thread of its own may call
            it there: a hop to another thread takes about a tenth of a millisecond.
    """

    call: Callable[[], Any]
    limit_s: float | None = None
    is_quick: bool = False
    turn_s: float = 0.0


class Background(NamedTuple):
    """Call a function some time soon; nobody waits for it and it must not raise."""

    call: Callable[[], Any]


class Board(NamedTuple):
    """Join the flight of this ticket's key, or open one that others can join. Answer: ``(Flight, Seat)``."""

    ticket: Ticket
    is_shareable: bool


class Await(NamedTuple):
    """Wait until a flight that somebody else leads is open or over, at most ``wait_s`` seconds.

    With ``to_the_end``, wait on until the answer is settled, over, or larger than may be kept; who waits pulls,
    too. Nothing is taken from the caller's seat.
    """

    flight: Flight
    to_the_end: bool
    wait_s: float | None


class Forward(NamedTuple):
    """Send a request upstream. Answer: its `Head`."""

    outgoing: Outgoing


class Launch(NamedTuple):
    """Send a request upstream for all who share a flight. Answer: its `Head`.

    ``opened`` is called with the head before anybody reads it, also when the flow itself is gone because its caller
    left while others wait. A request that fails fails the flight. ``asking``, where it is given, is driven instead, in
    the place where the request would be sent from: it asks, perhaps several times, and returns the head.
    """

    outgoing: Outgoing
    flight: Flight
    opened: Callable[[Head], None]
    asking: Flow[Head] | None = None


class Held(NamedTuple):
    """An answer that was held back to be looked at.

    Attributes:
        head: Its status and headers; the body gives all that came, and what is still to come.
        body: What came.
        is_whole: Whether that is all: it came to its end.
    """

    head: Head
    body: bytes
    is_whole: bool


class Hold(NamedTuple):
    """Send a request upstream and read its answer before anybody else does. Answer: `Held`.

    It is read to its end, or until it is longer than ``limit_bytes``, or until a piece of it comes later than
    ``limit_s`` seconds after the request; what is then still to come is read from the body of the head. That goes for
    answers of status 200 and where ``keeps_rest``: of others, what is beyond the limits is dropped; and errors are read
    to their end, however late.

    `Late` is thrown in, and the request given up, where none of this has come about ``wait_s`` seconds after the
    request. A thread that waits for bytes sees that when the next ones come, or its request's own time-out is over.
    """

    outgoing: Outgoing
    limit_bytes: int
    limit_s: float
    keeps_rest: bool = True
    wait_s: float = math.inf


class Read(NamedTuple):
    """Read an answer that has begun before anybody else does, as `Hold` does. Answer: `Held`."""

    head: Head
    limit_bytes: int
    limit_s: float
    keeps_rest: bool = True


class Pause(NamedTuple):
    """Wait for so many seconds, >= 0; a caller who leaves ends the wait."""

    seconds: float


class Mending(Protocol):
    """What keeps a body going that breaks off; see `llm_proxy.engine.splicing.Splicing`."""

    @property
    def is_broken(self) -> bool:
        """Whether an error came in the place of the rest."""

    def passed(self, piece: bytes) -> bytes:
        """What is to be handed on of the next bytes that came; the rest is kept back. Never raises."""

    def ended(self) -> bytes | None:
        """What is to be handed on at the end of the body; None where it ended too early."""

    def going_on(self, error: Exception | None) -> Flow[Head | None]:
        """Ask for the rest after the body broke off; its head, or None where it can't be had."""

    def kept(self) -> bytes:
        """What was kept back, where nothing follows."""

    def left(self) -> None:
        """Nobody reads on: the body was closed, or broke off for good. May come more than once, from any thread."""


class Mend(NamedTuple):
    """Have a body go on where it breaks off. Answer: the same `Head`, with a body that does so.

    The flow that asks for the rest is driven, with the same way to send requests, by whoever reads the body.
    """

    head: Head
    mending: Mending


class Race(NamedTuple):
    """Drive a flow, and a second one beside it after so many seconds; the first that wins is taken. Answer: `Raced`.

    The other one is closed, as soon as that can be: with its answer, where it has one. A second flow that was not begun
    is not driven. Where none wins, the result or error of the first one counts.
    """

    flows: tuple[Flow[Any], Flow[Any]]
    after_s: float
    wins: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Raced:
    """What a race brought.

    Attributes:
        index: Whose result it is, 0 or 1.
        value: The result.
        is_both: Whether the second flow was begun.
    """

    index: int
    value: Any
    is_both: bool


class Fetched(NamedTuple):
    """A whole answer of an upstream; ``body`` may be cut where it is longer than was to be read."""

    status: int
    headers: HeaderList
    body: bytes


class Fetch(NamedTuple):
    """Send a request upstream and read its answer. Answer: `Fetched`; `Late` is thrown in after ``limit_s`` seconds."""

    outgoing: Outgoing
    limit_bytes: int
    limit_s: float


class Stand(NamedTuple):
    """Wait until it is this call's turn; `Late` is thrown in after ``limit_s`` seconds, None: as long as it takes.

    ``when_called`` takes a function and calls it once, from any thread, when the turn has come: at once where it has.
    What it is given raises RuntimeError where nobody waits any more.
    """

    when_called: Callable[[Callable[[], object]], object]
    limit_s: float | None


class Aside(NamedTuple):
    """Drive a flow beside the call, once its answer was handed on, with the same way to send requests.

    Nobody waits for the flow, and it must not raise. ``ended`` is called once it is over, also when it was never begun.
    """

    flow: Flow[None]
    ended: Callable[[], object]


Upstream = Forward | Hold | Read | Pause | Mend | Race | Fetch | Stand | Aside
"""What has to do with one request."""

Effect = Compute | Background | Board | Await | Launch | Upstream
Flow = Generator[Effect, Any, T]


def compute(
    call: Callable[[], T], limit_s: float | None = None, *, is_quick: bool = False, turn_s: float = 0.0
) -> Flow[T]:
    """Yield `Compute`; returns what ``call`` returns, raises what it raises, or `Late`."""
    result: T = yield Compute(call, limit_s, is_quick, turn_s)
    return result


def background(call: Callable[[], object]) -> Flow[None]:
    """Yield `Background`."""
    yield Background(call)


def board(ticket: Ticket, *, is_shareable: bool) -> Flow[tuple[Flight, Seat]]:
    """Yield `Board`; ``flight.ticket is ticket`` says that this caller leads."""
    place: tuple[Flight, Seat] = yield Board(ticket, is_shareable)
    return place


def await_flight(flight: Flight, *, to_the_end: bool, wait_s: float | None) -> Flow[None]:
    """Yield `Await`; look at the flight afterwards: it may still be pending when ``wait_s`` passed."""
    yield Await(flight, to_the_end, wait_s)


def forward(outgoing: Outgoing) -> Flow[Head]:
    """Yield `Forward`; raises what the face's HTTP library raises."""
    head: Head = yield Forward(outgoing)
    return head


def fetch(outgoing: Outgoing, *, limit_bytes: int, limit_s: float) -> Flow[Fetched]:
    """Yield `Fetch`; raises what the face's HTTP library raises, or `Late`."""
    fetched: Fetched = yield Fetch(outgoing, limit_bytes, limit_s)
    return fetched


def stand(when_called: Callable[[Callable[[], object]], object], limit_s: float | None) -> Flow[None]:
    """Yield `Stand`; raises `Late`."""
    yield Stand(when_called, limit_s)


def aside(flow: Flow[None], ended: Callable[[], object]) -> Flow[None]:
    """Yield `Aside`."""
    yield Aside(flow, ended)


def hold(
    outgoing: Outgoing, *, limit_bytes: int, limit_s: float, keeps_rest: bool = True, wait_s: float = math.inf
) -> Flow[Held]:
    """Yield `Hold`; raises what the face's HTTP library raises, or `Late`."""
    held: Held = yield Hold(outgoing, limit_bytes, limit_s, keeps_rest, wait_s)
    return held


def read(head: Head, *, limit_bytes: int, limit_s: float, keeps_rest: bool = True) -> Flow[Held]:
    """Yield `Read`; raises what the face's HTTP library raises."""
    held: Held = yield Read(head, limit_bytes, limit_s, keeps_rest)
    return held


def pause(seconds: float) -> Flow[None]:
    """Yield `Pause`."""
    yield Pause(seconds)


def mend(head: Head, mending: Mending) -> Flow[Head]:
    """Yield `Mend`."""
    mended: Head = yield Mend(head, mending)
    return mended


def race(flows: tuple[Flow[T], Flow[T]], after_s: float, wins: Callable[[T], bool]) -> Flow[Raced]:
    """Yield `Race`; raises what the first flow raises, where none wins."""
    raced: Raced = yield Race(flows, after_s, wins)
    return raced


def launch(
    outgoing: Outgoing, flight: Flight, opened: Callable[[Head], None], asking: Flow[Head] | None = None
) -> Flow[Head]:
    """Yield `Launch`; raises what the face's HTTP library raises."""
    head: Head = yield Launch(outgoing, flight, opened, asking)
    return head
