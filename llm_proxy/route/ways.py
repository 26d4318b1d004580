"""Whether a route selects or cascades, by what both have taken on its own calls: ``cascade = "auto"``.

A selector names the candidate to ask. A cascade asks it first (where it is the last, the first), looks at its answer,
and asks the last where it is doubtful. A call that is asked in a cascade shows what both ways take, so they are
compared on the same calls, in units of what the last candidate is expected to take, dollars or seconds::

    burden(cascade) = sum of those that were asked                + doubt of the answer that was handed on
    burden(select)  = the one that was named                      + doubt of its answer
    doubt           = P(wrong) * worth of a right answer; 0 of the last one's, which nobody looks at
    P(wrong)        = 1 - what the scorer says; where the last was asked as well: whether the two answers differ.
                      Where the last was named and another one's answer is handed on, times (w + 2) / (s + 2), if > 1
    w, s            how many such answers were wrong, and were said to be: in one call of ten, later of fifty, that
                      would hand one on, the last is asked all the same; in each that only goes on measuring, too.
                      Of two answers that differ, either may be the wrong one: such a one counts half
    worth           = 1 / (1 - cascade_bar), or usd_per_good_answer

The bar says what a right answer is worth: at the bar, to keep an answer and to ask the last one are as good. What the
selector says (who is named, by which head) is a word in the sense of `llm_proxy.route.trust`, which keeps the mean
burdens of each: a good selector is followed, a poor one's calls are looked at.

    fewer than 50 calls of a word were measured       cascade: it looks at every answer
    burden(select) - burden(cascade) <= 1 - quality   select, but each 20th call of it cascades, to go on measuring
    else                                              cascade

A cascade holds answers back, and `quality` grants as much: it has to save more than that.

Source: a cascade beats a poor selector: Zhu et al., arXiv 2306.02003, section 5; a bar for the score of an answer:
FrugalGPT, arXiv 2305.05176.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .looks import MOST_BURDEN, Choice, wrong_of
from .trust import Trust

if TYPE_CHECKING:
    from .looks import Burdens, Word

__all__ = ["CHECK_EVERY", "LEAST_MEASURED", "LOOK_EVERY", "Ways"]

LEAST_MEASURED = 50
"""Calls of one word that cascade before selecting is thought of."""
LOOK_EVERY = 20
"""Of calls that would be selected, one in so many cascades."""

CHECK_EVERY = 10
"""Of the first 500 calls of a word in a cascade, one in so many asks the last candidate where that was named, whatever
the first one says; later one in five times as many."""

_OFTEN = 500
_PRIOR_WRONG = 2.0  # answers that were said to be wrong, and were
_EITHER = 0.5
_MOST_WORDS = 256  # routes, heads and candidates are few; heads are replaced


@dataclass(slots=True)
class _Seen:
    count: int = 0
    asked: int = 0
    selected: int = 0
    said_wrong: float = _PRIOR_WRONG
    wrong: float = _PRIOR_WRONG


class Ways:
    """Chooses ways and takes in what they took. Thread-safe, O(1), no I/O; the same state gives the same choice."""

    def __init__(self) -> None:
        self._words: OrderedDict[Word, _Seen] = OrderedDict()
        self._trust = Trust(most_queries=1)  # no question is thought to come again
        # Reentrant: the garbage collector may end a dropped call at any place, and that call comes here.
        self._lock = threading.RLock()

    def choose(self, word: Word, quality: float, *, is_asked: bool = True) -> Choice:
        """The way to ask.

        Args:
            word: What the selector says.
            quality: Of the route, in (0, 1].
            is_asked: Whether the call will be asked; else nothing is counted.
        """
        with self._lock:
            known = self._seen(word) if is_asked else self._words.get(word, _Seen())
            every = CHECK_EVERY if known.asked < _OFTEN else 5 * CHECK_EVERY
            is_checked = is_asked and known.asked % every == every - 1
            if known.count < LEAST_MEASURED:
                known.asked += is_asked
                return Choice("cascade", f"cascade: {known.count} of {LEAST_MEASURED} calls measured", word, is_checked)
            select, cascade = (self._trust.estimate(None, word, way).cost for way in ("select", "cascade"))
            figures = f"takes {select:.2f} of asking the last, a cascade {cascade:.2f}"
            if select - cascade > 1.0 - quality:
                known.asked += is_asked
                return Choice("cascade", f"cascade: selecting {figures}", word, is_checked)
            known.selected += is_asked
            if is_asked and known.selected % LOOK_EVERY == 0:
                return Choice("cascade", f"cascade, to go on measuring: selecting {figures}", word, is_checked=True)
            return Choice("select", f"selecting {figures}", word)

    def observe(self, word: Word, burdens: Burdens) -> None:
        """Take in what the ways took for one call; what is not between 0 and 1e12 is passed over."""
        if not all(0 <= burden <= MOST_BURDEN for burden in burdens):
            return
        with self._lock:
            known = self._seen(word)
            for way, burden in zip(("select", "cascade"), burdens, strict=True):
                self._trust.observe((word, known.count, way), word, way, burden)
            known.count += 1

    def check(self, word: Word, p_right: float, *, is_right: bool) -> None:
        """Take in whether an answer was right that was good enough, of a call for which the last candidate was named.

        Args:
            word: What the selector had said.
            p_right: Probability that it is right, as the scorer said, in [0, 1].
            is_right: Whether the last candidate's comes to the same.
        """
        with self._lock:
            known = self._seen(word)
            known.said_wrong += wrong_of(p_right)
            known.wrong += 0.0 if is_right else _EITHER

    def excess(self, word: Word) -> float:
        """By how much more often than said such answers are wrong, >= 1."""
        with self._lock:
            known = self._words.get(word, _Seen())
            return max(1.0, known.wrong / known.said_wrong)

    def _seen(self, word: Word) -> _Seen:
        known = self._words.setdefault(word, _Seen())
        self._words.move_to_end(word)
        if len(self._words) > _MOST_WORDS:
            self._words.popitem(last=False)
        return known
