"""Where a conversation is, and how much of it each model's provider has cached.

A provider that has just read a long prompt charges less for the same beginning. So a conversation that moves to another
model pays its earlier turns in full once more. It moves once what it saves is more than that::

    cost(m)       of this turn: what m has read at the cached rate, the rest in full
    reread(m)     how much less it were if m had read all of it
    forgone(m)    max(0, forgone(m) + cost(chosen) - (cost(m) - reread(m)))    after every turn for which m is good
                  enough; 0 for the one that was chosen

    chosen        the least of  cost(m) - min(reread(m), forgone(m))

In the second call of a conversation nothing is forgone yet, and it moves where the other is cheaper even so: where what
it saves with this call exceeds the discount that it loses. Later savings add up, as a model that is only a little
cheaper pays for being read in over several turns. What a model has read counts as cached where it is 1,024 tokens or
more and was read at most five minutes ago. Without a discount (a local model, a price that names none) a conversation
stays only while it is all the same.

A conversation is known by a hash of who asks and how it begins. Known to this process alone, and forgotten with it.

Source: OpenAI, "Prompt caching": from 1,024 tokens on, kept for five to ten minutes without use. To rent until the rent
paid is the price of buying costs at most twice what the best choice does: Karlin et al., "Competitive snoopy caching",
Algorithmica 3, 1988.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

__all__ = ["LEAST_CACHED_TOKENS", "Sessions", "Stay"]

LEAST_CACHED_TOKENS = 1_024
"""Shorter prompts are not cached by providers."""
_CACHED_S = 300.0
_MOST_READERS = 4

Pair = tuple[str, str]


class Stay(NamedTuple):
    """A conversation so far.

    Attributes:
        pair: Backend and model of its last call.
        readers: Backend and model, tokens of the last prompt that it read, and monotonic time; the latest first.
        forgone: By backend and model, dollars; see the module's text.
    """

    pair: Pair
    readers: tuple[tuple[Pair, int, float], ...]
    forgone: Mapping[Pair, float]


class Sessions:
    """Where conversations are; thread-safe, O(1), no I/O.

    Args:
        most: Conversations remembered, > 0; the one that rested the longest goes.
        monotonic: Clock, seconds.
    """

    def __init__(self, *, most: int = 10_000, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most, self._monotonic = most, monotonic
        self._stays: OrderedDict[Hashable, Stay] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._stays)

    def current(self, conversation: Hashable) -> Stay | None:
        """A conversation so far; None for a new one."""
        return self._stays.get(conversation)

    def cached_tokens(self, stay: Stay) -> dict[Pair, int]:
        """How much of a conversation is probably cached, tokens, by backend and model; the others have nothing."""
        since_s = self._monotonic() - _CACHED_S
        return {
            pair: tokens for pair, tokens, at_s in stay.readers if at_s >= since_s and tokens >= LEAST_CACHED_TOKENS
        }

    def note(self, conversation: Hashable, pair: Pair, prompt_tokens: int, forgone: Mapping[Pair, float]) -> None:
        """A call of a conversation is sent.

        Args:
            conversation: Which.
            pair: Backend and model that is asked.
            prompt_tokens: Length of the prompt, >= 0.
            forgone: By backend and model, dollars.
        """
        with self._lock:
            before = self._stays.get(conversation)
            others = () if before is None else tuple(reader for reader in before.readers if reader[0] != pair)
            readers = ((pair, prompt_tokens, self._monotonic()), *others[: _MOST_READERS - 1])
            self._stays[conversation] = Stay(pair, readers, forgone)
            self._stays.move_to_end(conversation)
            if len(self._stays) > self._most:
                self._stays.popitem(last=False)
