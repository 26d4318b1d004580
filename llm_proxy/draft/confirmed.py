"""An answer that is confirmed bit by bit: the tokens that the target would have chosen, and the text they make.

::

    sent        prompt + what is confirmed + a draft
    scored      tokens of all that, and what the target would have chosen for each
    aligned?    what was confirmed must be the same tokens again ── no ──> nothing is taken of this step
    kept        of the draft, the longest beginning that the target would have chosen
    its own     the token that it would have chosen instead; after a whole draft, what it goes on with

All is told by text, so tokenizers may differ, and draft and target need not have one in common. A token that is a part
of a character has no text: a draft is read up to it. What the target chooses by itself is taken up to its last whole
character. A token may also end with a part of a character that its text does not show. So the last one of each step is
looked at again in the next: where the text does not bring back the token that was chosen, it is given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from llm_proxy.wire.scored import Scored, Token

__all__ = ["Confirmed", "Step"]


class Step(NamedTuple):
    """What a step brought.

    Attributes:
        new: Tokens that were confirmed; -1 where the last one was given up.
        kept: Those of them that were drafted.
        missed: 1 where the draft was wrong somewhere, else 0.
    """

    new: int = 0
    kept: int = 0
    missed: int = 0


class Confirmed:
    """What is known of an answer. Not for several threads at once.

    Args:
        stops: Texts that end the answer, which are not part of it.
        most_tokens: Longest answer, tokens, >= 1; None: as long as it gets.
    """

    def __init__(self, *, stops: Sequence[str] = (), most_tokens: int | None = None) -> None:
        self.text = ""
        """The answer so far, without what a stop text cuts off."""
        self.tokens = 0
        """How many tokens it took."""
        self.finish = ""
        """Why it is over, as OpenAI says it: ``stop`` or ``length``; empty while it is not."""
        self.prompt_tokens = 0
        """Of the prompt alone; 0 while that is not known."""
        self._stops, self._most_tokens = tuple(stops), most_tokens
        self._known: list[str] = []
        self._begin: int | None = None
        self._is_sure = True  # of the last token

    @property
    def left_tokens(self) -> int | None:
        """Tokens that may still come; None for any number."""
        return None if self._most_tokens is None else self._most_tokens - self.tokens

    @property
    def ready(self) -> str:
        """What may be handed on: no part of it can turn out to be a stop text."""
        if self.finish:
            return self.text
        longest = max((_overlap(self.text, stop) for stop in self._stops), default=0)
        return self.text[: len(self.text) - longest]

    def take(self, scored: Scored, drafted: str) -> Step:
        """Take what a step confirms; nothing where it can't be told what its tokens are.

        Args:
            scored: What the target says of the prompt, `text`, and the draft.
            drafted: The draft; empty where there was none.
        """
        given = scored.tokens[: len(scored.tokens) - scored.answered]
        begin = _start_of(given, drafted) if self._begin is None else self._begin
        again = given[begin : begin + len(self._known)] if begin is not None else ()
        if begin is None or [token.text for token in again] != self._known:
            return Step()
        if not self._is_sure and again and again[-1].text and not again[-1].is_top:
            self._give_up_last()
            return Step(-1)
        if self._begin is None:
            self._begin = begin
            self.prompt_tokens = scored.usage.prompt_tokens - (len(given) - begin)
        before = self.tokens
        own = given[begin + len(self._known) :]
        kept, at = _kept(own, drafted)
        if kept == len(own) and at == len(drafted):
            self._add([token.text for token in own])
            self._go_on(scored)
            return Step(self.tokens - before, min(kept, self.tokens - before))
        wrong = own[kept] if kept < len(own) else None
        is_wrong = wrong is not None and wrong.text != "" and not wrong.is_top
        is_cut = is_wrong and kept + 1 == len(own) and wrong is not None and wrong.top.startswith(wrong.text)
        more = [wrong.top] if is_wrong and wrong is not None and wrong.top else []
        self._add([*(token.text for token in own[:kept]), *more])
        self._is_sure = False
        return Step(self.tokens - before, min(kept, self.tokens - before), int(is_wrong and not is_cut))

    def _go_on(self, scored: Scored) -> None:
        """Take the target's own answer, after all that it was given."""
        self._is_sure = False
        said = [token.text for token in scored.tokens[len(scored.tokens) - scored.answered :]]
        if self.finish:
            return
        is_end_counted = scored.is_end and bool(said) and "".join(said[:-1]) == scored.text
        if is_end_counted:  # the end itself is a token of some servers' answers
            said.pop()
        if "".join(said) == scored.text and all(said):
            self._add(said)
        else:
            self._add_unclear(said, scored.text, is_end=scored.is_end)
        if scored.is_end and not self.finish:
            self.finish = "stop"
            self.tokens += is_end_counted

    def _give_up_last(self) -> None:
        self.tokens -= 1
        self.text = self.text.removesuffix(self._known.pop())
        self._is_sure = True

    def _add(self, tokens: Sequence[str]) -> None:
        """Add tokens of whole characters, one by one, up to the end that a stop text or the limit makes."""
        for token in tokens:
            if self.finish:
                return
            self._known.append(token)
            self.tokens += 1
            self._add_text(token)
            if not self.finish and self.left_tokens == 0:
                self.finish = "length"

    def _add_unclear(self, tokens: list[str], text: str, *, is_end: bool) -> None:
        """Add tokens some of which are parts of characters: without those at the end, unless the answer is over.

        At the limit, some servers write more tokens than they were asked for, to the end of a character; then so does
        the plain answer.
        """
        left = self.left_tokens
        is_last = is_end or (left is not None and len(tokens) >= left)
        while tokens and not tokens[-1] and not is_last:
            tokens = tokens[:-1]
        if not tokens:
            return
        if not is_last:
            text = text[: text.rfind(tokens[-1]) + len(tokens[-1])]
        before = len(self.text)
        end = min((at + len(stop) for at, stop in self._stopped(text)), default=None)
        while end is not None and tokens[-1] and before + len(text) - len(tokens[-1]) >= end:
            tokens, text = tokens[:-1], text[: -len(tokens[-1])]
        self._known += tokens
        self.tokens += len(tokens)
        self._add_text(text)
        if not self.finish and left is not None and len(tokens) >= left:
            self.finish = "stop" if is_end else "length"

    def _add_text(self, text: str) -> None:
        whole, found = self.text + text, self._stopped(text)
        self.text = whole[: min(found)[0]] if found else whole
        if found:
            self.finish = "stop"

    def _stopped(self, text: str) -> list[tuple[int, str]]:
        """Where stop texts begin that more text completes."""
        start, whole = len(self.text), self.text + text
        found = [(whole.find(stop, max(0, start - len(stop) + 1)), stop) for stop in self._stops]
        return [row for row in found if row[0] >= 0]


def _start_of(tokens: Sequence[Token], text: str) -> int | None:
    """Where the tokens of the last part of a text begin; None where no token begins there."""
    at = len(tokens)
    while text:
        at -= 1
        if at < 0 or not tokens[at].text or not text.endswith(tokens[at].text):
            return None
        text = text[: -len(tokens[at].text)]
    return at


def _kept(tokens: Sequence[Token], text: str) -> tuple[int, int]:
    """How many tokens the target would have chosen, of those that make a text, and how many characters they have.

    One before a part of a character may hide another part of it.
    """
    at = 0
    for count, (token, follower) in enumerate(zip_longest(tokens, tokens[1:])):
        is_whole = token.text and (follower is None or follower.text)
        if not token.is_top or not is_whole or not text.startswith(token.text, at):
            return count, at
        at += len(token.text)
    return len(tokens), at


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of a text that a stop text begins with, shorter than that."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
