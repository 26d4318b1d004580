"""Read a question into what must agree: its words in order, without those that say nothing.

Read for meaning is English alone. In a text of another language, and in all that looks like code, every word and sign
stays as it is. Each text is read once, in time linear in its length.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

from .lex import QUOTATION, Lexer
from .numbers import with_numbers
from .words import (
    ARTICLES,
    AUXILIARIES,
    ENGLISH,
    FOREIGN,
    GIVING,
    IDLE,
    LABELS,
    LARGE,
    MEANT,
    NAME_PARTS,
    NOT,
    ORDINALS,
    RELATIONAL,
    SAYING,
    SMALL,
    STARTERS,
)

__all__ = ["Reading", "read"]

_MARKS = str.maketrans(dict.fromkeys("\u201c\u201d\u201e\xab\xbb", '"') | dict.fromkeys("\u2018\u2019\u02bc", "'"))
_SPELLING = str.maketrans(
    dict.fromkeys("\u2212\u2013\u2014", "-")
    | {"\u2264": "<=", "\u2265": ">=", "\u2260": "!=", "\xd7": "*", "\xf7": "/", "\u2192": "->", "\u2044": "/"}
)
_RAISED = re.compile("[\xb2\xb3\xb9\u2070-\u207f]+|[\u2080-\u208e]+|[\xbc-\xbe\u2150-\u215e]")
_QUOTED = re.compile(r"```.*?```|`[^`]*`|\"[^\"\n]*\"|(?<!\w)'[^'\n]+'(?!\w)", re.DOTALL)
_OPENING = re.compile(r"'(?<!\w')")
_MATERIAL = re.compile(r"(?<=[^\W_]):(?=\s)|\n")
_GREETING = re.compile(r"\A\s*(?:hi|hello|hey)(?: there)?\s*[,.!]+\s+(?=\S)", re.IGNORECASE)
_THANKS = re.compile(
    r"(?<=[.,!?;])\s+(?:many )?thank(?:s| you)(?: in advance| a lot| so much| very much)?[.!\s]*$", re.IGNORECASE
)
_ASIDE = re.compile(r"(?<!\S)\(([^\W\d_][^()<>=+*/^%|&~!\d\[\]{}\\_-]*)\)(?![^\s.,;:!?])")
_DEGREES = re.compile(r"(?<=\d)[ \t]{0,2}\xb0[ \t]{0,2}(?:([CF])\b)?")
_SCALES = {"C": "celsius", "F": "fahrenheit"}
_SAYS = re.compile(r"\b(?:say|says|said|saying|translate|write|reply|respond|answer|mean|means)\b", re.IGNORECASE)
_EMAIL = re.compile(r"\b([eE])-(?=mail)")
_LOGIC = re.compile(r"\b(?:and|or|not)\b")
_NUMBER_WORDS = frozenset((*SMALL, *LARGE, *ORDINALS))
_BE = frozenset({"am", "is", "are", "be", "was", "were"})
_PLEASE = "please"
_FOREIGN_SIGNS = "\xbf\xa1"
_OPENING_SIGNS = str.maketrans(_FOREIGN_SIGNS, "  ")
_ASKED_FOR = frozenset({"what", "who"})
_SPARING = frozenset({"not", "never", "hardly", "rarely", "scarcely", "barely"})
_CLAUSE = frozenset({"i", "you", "he", "she", "it", "we", "they", "there", *ARTICLES})
_BEFORE_THIS_THAT = frozenset((*STARTERS, *AUXILIARIES, "do", "does"))
_UNNEGATED = frozenset({"i", "you", "he", "she", "it", "we", "they", "there", "this", "that"})  # isn't it: is it not
_ASKING = GIVING - {"send", "delete", "remove", "set", "order", "buy"} | {"play"}
_ASKED_WITH = frozenset({"do", "does", "can", "could", "would", "should"})
_FOUND = frozenset({"find", "buy", "get", "download", "watch", "apply"})  # where do I find: where can I find
_SUBJECTS = frozenset({"i", "we", "one"})
_PERSONAL = frozenset({"i", "me", "my", "mine", "we", "us", "our", "your", "yours", "myself", "yourself"})

_WH = r"(?=(?:what|who|where|when|why|how) )"
_REQUEST = (
    r"(?=(?:explain|describe|tell|give|show|write|help|list|name|translate|summari[sz]e|recommend|suggest|find|create"
    r"|generate|make|compare|define|provide|calculate|compute|solve|fix|check|turn|switch|set|play|add|order|book) )"
)
_FRAME = re.compile(
    rf"(?:please |(?:can|could|would|will) you please |(?:can|could) you {_REQUEST}|help me (?:to )?"
    r"|(?:would|will) you (?=(?:explain|describe|(?:tell|give|show|help|write|find) me) )"
    r"|i (?:need|want|would like) (?:you )?to (?!know )"
    rf"|(?:tell me|let me know|i was wondering) {_WH}"
    rf"|(?:do you|does anyone|i (?:want|need|would like) to) know {_WH})+"
)
_CLEFT = re.compile(r"^(who|what) (?:is|was) it that ")
_WAY = re.compile(
    r"^(?:what (?:is|are) (?:(?:the|a|some) )?(?:(?:best|good|different|possible|various) )?ways? (?:for me )?to"
    r"|what (?:should|can|could|do) (?:i|we|one) do to|how is it possible to) "
)
_POSSIBLE = re.compile(r"^(?:is it possible|is there (?:a|any) way) (?:for me )?to ")
_LONGEST_FRAME = 16  # words


@dataclass(slots=True)
class Reading:
    """What of a text must agree.

    Attributes:
        quotes: Quoted text and code, and all that follows a colon or a line break: material, compared to the letter.
        words: Words, numbers and signs in order; `NOT` stands before a negated word.
        auxiliaries: "be", "was", "can" and the like, in order, apart from the words, as they stand now here, now there.
        articles: Articles in order.
        names: Those of the words that a capital or a digit marks as names.
        opening: The first word, an auxiliary or article included.
        is_foreign: Whether it is not English: then nothing may differ.
    """

    quotes: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    auxiliaries: list[str] = field(default_factory=list)
    articles: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    opening: str = ""
    is_foreign: bool = False


def read(text: str) -> Reading:
    """Read one text; any text will do."""
    reading = Reading()
    text = _prose(_GREETING.sub("", text.strip()), reading)
    lexer = Lexer(text.translate(_OPENING_SIGNS))
    words = lexer.words()
    reading.names = lexer.names
    if _is_foreign(text, words):
        reading.words, reading.is_foreign = words, True
        return reading
    words = _unframed(words)
    reading.opening = words[0] if words else ""
    _settle(words, reading)
    if not _NUMBER_WORDS.isdisjoint(reading.words) or any(word[0].isdecimal() for word in reading.words):
        reading.words = with_numbers(reading.words)
    return reading


def _is_foreign(text: str, words: list[str]) -> bool:
    known = FOREIGN.intersection(words)
    if len(known) > 1 or (known - NAME_PARTS and ENGLISH.isdisjoint(words)):
        return True
    return not text.isascii() and any(sign in _FOREIGN_SIGNS or (sign > "\x7f" and sign.isalpha()) for sign in text)


def _prose(text: str, reading: Reading) -> str:
    """The text without material and quotations, in one spelling."""
    material = _MATERIAL.search(text)
    if material is not None:
        reading.quotes.append(text[material.end() :].strip("\n"))
        text = text[: material.start()]
    elif not _SAYS.search(text):  # "how do you say in French, thank you"
        text = _THANKS.sub("", text)
    if not text.isascii():
        text = text.translate(_MARKS)
    if '"' in text or "`" in text or ("'" in text and _OPENING.search(text)):
        reading.quotes += [quoted[3:-3] if quoted[:3] == "```" else quoted[1:-1] for quoted in _QUOTED.findall(text)]
        text = _QUOTED.sub(f" {QUOTATION}{QUOTATION} ", text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _RAISED.sub(_unraised, text)).translate(_SPELLING)
        text = _DEGREES.sub(_degrees, text)
    if "(" in text:
        text = _ASIDE.sub(_without_parentheses, text)
    return _EMAIL.sub(r"\1", text) if "-" in text else text


def _degrees(found: re.Match[str]) -> str:
    return f" degrees {_SCALES[found[1]]} " if found[1] else " degrees "


def _unraised(found: re.Match[str]) -> str:
    """Raised and lowered digits are no digits of the line, and a fraction is no part of the number before it."""
    signs = unicodedata.normalize("NFKC", found[0])
    if "\u2044" in signs:
        return f" {signs} "
    return ("_" if "\u2080" <= found[0][0] <= "\u208e" else "^") + signs


def _without_parentheses(found: re.Match[str]) -> str:
    return found[0] if _LOGIC.search(found[1]) else f" {found[1]} "


def _settle(words: list[str], reading: Reading) -> None:
    """Tell words from auxiliaries and articles, and leave out what says nothing."""
    kept, negation, at = reading.words, "", 0
    while at < len(words):
        word = words[at]
        before = words[at - 1] if at else ""
        if word in AUXILIARIES and not (word == "am" and (before[:1].isdecimal() or before in _NUMBER_WORDS)):
            reading.auxiliaries.append(_auxiliary(AUXILIARIES[word], before))
        elif word in {"do", "does"} and before in _ASKED_FOR and _MEANING.isdisjoint(words):
            reading.auxiliaries.append(_auxiliary("do", before))
        elif word in ARTICLES and _has_noun(words, at) and not _is_name(words, at):
            reading.articles.append(ARTICLES[word])
        elif word == "not":
            negation += NOT
        elif word not in _LOOKED_AT or not _is_idle(words, at):
            if negation and word not in _UNNEGATED:
                word, negation = negation + word, ""
            kept.append(_sensed(words, at) if word in _SENSED else word)
            if word in {"how", "where", "what"}:
                at = _behind_frame(words, at)
        at += 1
    if negation:
        kept.append(negation)


def _auxiliary(word: str, before: str) -> str:
    """An auxiliary right behind "what" tells the subject from the object: "what can dogs smell", "which can"."""
    return f"{before} {word}" if before in _ASKED_FOR and word not in {"be", "was"} else word


def _is_name(words: list[str], at: int) -> bool:
    """Whether "a" is no article: vitamin a; "a number of people" are not "the number of people"."""
    return words[at] == "a" and ((at > 0 and words[at - 1] in LABELS) or words[at + 1 : at + 3] == ["number", "of"])


def _sensed(words: list[str], at: int) -> str:
    """The plain word for one that means the same only where it stands; a negation before it stays."""
    word = words[at]
    before = words[at - 1] if at else ""
    after = words[at + 1] if at + 1 < len(words) else ""
    is_meant = {
        "for": before in RELATIONAL,
        "america": before in STARTERS or not before,
        "display": before in {"", "to"},
        "advantage": after in {"of", "for"},
        "advantages": after in {"of", "for"},
    }[word]
    return _SENSED[word] if is_meant else word


def _has_noun(words: list[str], at: int) -> bool:
    following = words[at + 1] if at + 1 < len(words) else " "
    return (following[0].isalnum() and following not in {"few", "little"}) or following == QUOTATION


def _is_idle(words: list[str], at: int) -> bool:
    """Whether a word that may say nothing does so where it stands."""
    word = words[at]
    before = words[at - 1] if at else ""
    after = words[at + 1] if at + 1 < len(words) else ""
    if word == _PLEASE:
        return (not at or not after or before == "you") and before not in SAYING
    if word == "me":
        return before in _ASKING and bool(after)
    if word == "there":
        return before in _BE or after in _BE
    if word == "so":
        return words[0] == "why" and after not in {"that", "many", "much", "few", "little"}
    if word == "that":  # "I know that it is", but not "is that bird big"
        return after in _CLAUSE and bool(before) and before not in _BEFORE_THIS_THAT
    if word in {"do", "does"}:
        return before != "to"
    is_counted = after[:1].isdecimal() or after in _NUMBER_WORDS
    return (word in IDLE and before not in _SPARING and not is_counted) or _is_some(words, at)


def _is_some(words: list[str], at: int) -> bool:
    """Whether a word is the "some" of "what are some", "play some", "is there any", or the "of" behind it."""
    before = words[at - 1] if at else ""
    if words[at] == "of":
        return before == "some" and _is_some(words, at - 1)
    return (before in _BE and words[0] == "what") or before in _ASKING or before in {"me", "there"}


_MEANING = frozenset({"mean", "means"})
_SENSED = {"for": "of", "america": "usa", "display": "show", "advantage": "benefit", "advantages": "benefits"}
_LOOKED_AT = IDLE | {_PLEASE, "me", "there", "so", "that", "some", "any", "of"}


def _unframed(words: list[str]) -> list[str]:
    """The question without "can you tell me" and the like, and with "how" for "what is the best way"."""
    begin = " ".join(words[:_LONGEST_FRAME]) + " "
    frame = _FRAME.match(begin)
    rest = begin[frame.end() :] if frame else begin
    rest = _CLEFT.sub(r"\1 ", _POSSIBLE.sub("can i ", _WAY.sub("how to ", rest)))
    if rest in {begin, ""}:
        return words
    return rest.split() + words[_LONGEST_FRAME:]


def _behind_frame(words: list[str], at: int) -> int:
    """The last word of "how do I", "how can you", "how to", "where can I": they all ask how it is done."""
    question = words[at]
    if words[at + 1 : at + 2] == ["to"] and question != "what":
        return at + 1
    verb, subject, doing = (*words[at + 1 : at + 4], "", "", "")[:3]
    if question == "what":
        return at + 2 if verb in {"do", "should"} and subject in _SUBJECTS and doing == "do" else at
    is_way = verb in _ASKED_WITH if question == "how" else verb in {"can", "could"} or doing in _FOUND
    if not is_way or doing in MEANT or (subject == "you" and not _PERSONAL.isdisjoint(words)):
        return at
    return at + 2 if subject in _SUBJECTS or subject == "you" else at
