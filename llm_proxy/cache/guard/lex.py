"""Cut a text into words and signs: prose in lower case and without its punctuation, code and formulas as they stand."""

from __future__ import annotations

import re

from .words import CASED, CONTRACTED, FUNCTION, HOMOGRAPHS, LARGE

__all__ = ["QUOTATION", "Lexer"]

QUOTATION = '"'
"""Stands where a quotation was taken out."""

_LITERAL = "="  # before a word that belongs to code or a formula: its case counts, and "a" is no article there

# Every alternative ends where another kind of character begins: no text makes it go back and forth.
_TOKEN = re.compile(r"(\s*)(\d+(?:[.,:]\d+)*|(?:[^\W\d_]\.){2,}(?:[^\W\d_](?![^\W\d_]))?|[^\W\d_]+(?:'[^\W\d_]+)*|\S)")
_PROSE = frozenset(".,;:!?")
_CODE = frozenset("_\\@([{<>=$^*|~")
_JOINTS = frozenset(".:")  # with no space behind: node.js, https://
_MATHS = frozenset("+-*/^=<>%|&")
_BEFORE_PROSE = frozenset(')+#"')  # signs that a sentence may end with: C++, C#
_CURRENCIES = {"$": "dollar", "\u20ac": "euro", "\xa3": "gbp", "\xa5": "yen"}
_ENDINGS = {"n't": "not", "'re": "are", "'ve": "have", "'ll": "will", "'d": "would", "'m": "am"}
_CASELESS = frozenset({"js", "net", "com", "org", "io", "ai", "app", "edu", "gov"})  # behind a full stop
_PLUSES = frozenset({"c", "notepad"})
_WORD, _NUMBER, _SIGN, _PUNCTUATION = "wnsp"


class Lexer:
    """Reads one text, once.

    Args:
        text: Any text, in the spelling that `llm_proxy.cache.guard.read` gives it.

    Attributes:
        names: Of the words, in lower case, those that a capital marks as names.
    """

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = _TOKEN.findall(text)
        self._tokens += [(" ", "")] * 2
        self._is_plain = text.isupper() or text.istitle()  # then capitals say nothing
        self._found: list[str] = []
        self._last = ""  # kind of what was read last
        self._currency = ""
        self.names: set[str] = set()

    def words(self) -> list[str]:
        """Words, numbers and signs in order."""
        tokens, found, is_first = self._tokens, self._found, True
        for at in range(len(tokens) - 2):
            token = tokens[at][1]
            if token[0].isalpha():
                is_plain = token.islower() and token.isalpha() and len(token) > 1
                if is_plain and self._last != _SIGN and not self._opens(at):
                    found.append(token) if token not in CONTRACTED else found.extend(CONTRACTED[token])
                else:
                    self._take_word(at, is_first=is_first)
                self._put_currency()
                self._last, is_first = _WORD, False
            elif token[0].isdecimal():
                found.append(token)
                if self._tokens[at + 1][1].lower() not in LARGE:
                    self._put_currency()
                self._last, is_first = _NUMBER, False
            elif token in _PROSE and self._is_punctuation(at):
                is_first = is_first or token in ".!?:"
                self._last = _PUNCTUATION
            elif not self._is_silent(at):
                self._take_sign(at)
        return found

    def _put_currency(self) -> None:
        """Behind its number, as it is said: five million dollars."""
        if self._currency:
            self._found.append(self._currency)
            self._currency = ""

    # -- words ---------------------------------------------------------------------------------------------------

    def _take_word(self, at: int, *, is_first: bool) -> None:
        token = self._tokens[at][1]
        found, lower = self._found, token.lower()
        if self._is_literal(at):
            found.append(_LITERAL + (lower if self._is_caseless(at) else token))
        elif "." in token:  # U.S.
            found.append(token.replace(".", ""))
        elif lower in CONTRACTED and (self._is_plain or not token[1:].isupper()):
            found.extend(CONTRACTED[lower])
        elif "'" in token:
            self._take_apostrophe(lower)
        elif self._is_plain or token in {"I", lower}:
            found.append(lower)
        else:
            self._take_capital(token, lower, is_first=is_first)

    def _take_apostrophe(self, lower: str) -> None:
        stem, mark, ending = lower.rpartition("'")
        if lower.endswith("n't"):
            self._found += (lower[:-3], "not")
        elif mark + ending in _ENDINGS:
            self._found += (stem, _ENDINGS[mark + ending])
        else:
            self._found.append(stem if ending == "s" else lower)

    def _take_capital(self, token: str, lower: str, *, is_first: bool) -> None:
        """A capital at the beginning of a sentence says nothing; others may tell US from us, or CO from Co."""
        is_inner = len(token) > 1 and not token[1:].islower()
        is_telling = lower in CASED
        if not is_first:
            is_telling |= lower in HOMOGRAPHS or len(token) == 1 or (len(token) == 2 and lower not in FUNCTION)
        if is_inner or not is_first:
            self.names.add(lower)
        self._found.append(token if is_inner or is_telling else lower)

    def _opens(self, at: int) -> bool:
        """Whether a sign of code follows with no space between."""
        space, token = self._tokens[at + 1]
        return not space and (token in _CODE or (token in _JOINTS and not self._tokens[at + 2][0]))

    def _is_literal(self, at: int) -> bool:
        """Whether a word belongs to code or a formula."""
        space, token = self._tokens[at]
        if self._opens(at) or (self._last == _SIGN and not space and self._found[-1] not in {"#", QUOTATION}):
            return True
        if len(token) > 1:
            return False
        next_space, following = self._tokens[at + 1]
        if self._last == _NUMBER and not space and token in "ai":  # 5a: not an article
            return True
        if (following in _MATHS and not self._joins(at + 1)) or (self._last == _SIGN and self._found[-1][-1] in _MATHS):
            return True
        return following[:1].isdecimal() and not next_space

    def _is_caseless(self, at: int) -> bool:
        """Whether nothing depends on the capitals of a word of code: Node.js, C++, but not README.md."""
        following, behind = self._tokens[at + 1][1], self._tokens[at + 2 : at + 3]
        if following == ".":
            return self._last != _SIGN and behind[0][1].lower() in _CASELESS
        return (following == "+" and self._tokens[at][1].lower() in _PLUSES) or (
            self._found[-1:] == ["."] and self._tokens[at][1].lower() in _CASELESS
        )

    # -- signs ---------------------------------------------------------------------------------------------------

    def _is_punctuation(self, at: int) -> bool:
        space, token = self._tokens[at]
        next_space, following = self._tokens[at + 1]
        if space:
            return not following and token in "?!."
        if token == "!" and (self._last == _NUMBER or (self._last == _WORD and len(self._found[-1]) == 1)):
            return False  # 5!
        is_behind_word = bool(self._last) and (self._last != _SIGN or self._found[-1][-1] in _BEFORE_PROSE)
        return is_behind_word and (bool(next_space) or following in _PROSE)

    def _is_silent(self, at: int) -> bool:
        """Whether a sign only joins or parts words."""
        space, token = self._tokens[at]
        if token in "-/":
            return self._joins(at) or (token == "-" and self._is_dash(at))
        if token == "'":
            return self._last == _WORD and not space and bool(self._tokens[at + 1][0])  # the dogs' bowls
        return token == QUOTATION and self._tokens[at + 1][1] == QUOTATION  # the first of two

    def _joins(self, at: int) -> bool:
        """Whether "-" or "/" stands between two words of which one at least is more than a letter."""
        if not at:
            return False
        (_, before), (space, token), (next_space, after) = self._tokens[at - 1 : at + 2]
        if space or next_space or token not in "-/" or not before[0].isalnum() or not after[0].isalnum():
            return False
        parts = [part for part in (before, after) if not part[0].isdecimal()]
        is_long = [len(part) > 1 for part in parts]
        if token == "/":
            return is_long == [True, True] and not self._is_path(at)
        return any(is_long) if len(parts) == 2 else bool(parts) and all(is_long)

    def _is_path(self, at: int) -> bool:
        return self._tokens[at + 2][1] in {"/", "."} or (at > 1 and self._tokens[at - 2][1] in {"/", ".", "~"})

    def _is_dash(self, at: int) -> bool:
        (space, _), (next_space, after) = self._tokens[at : at + 2]
        before = self._tokens[at - 1][1] if at else ""
        return bool(space and next_space) and all(word.isalpha() and len(word) > 2 for word in (before, after))

    def _take_sign(self, at: int) -> None:
        space, token = self._tokens[at]
        next_space, following = self._tokens[at + 1]
        was_sign, self._last = self._last == _SIGN, _WORD
        if token == "&" and space and next_space:
            self._found.append("and")
        elif token == "%" and self._found and self._found[-1][0].isdecimal():
            self._found.append("percent")
        elif token in _CURRENCIES and following[:1].isdecimal():
            self._currency = _CURRENCIES[token]
        elif was_sign and not space and QUOTATION not in (token, self._found[-1]):
            self._found[-1] += token  # "x++ + y" is not "x + ++y"
            self._last = _SIGN
        else:
            self._found.append(_CURRENCIES.get(token, token))
            self._last = _SIGN
