"""What an answer shows of itself: the inputs of the scorer that are no vectors.

A cheap model's answer betrays doubt before anybody checks it: it breaks off, repeats itself, hedges, gives up, its sums
don't add up, its last line says another thing than its reasoning, or it picks an option that the reasoning never names.
Each of `FEATURES` is a number; what can't be told of an answer is NaN, and the graph knows what to do with it.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .sums import calm, sums_in

if TYPE_CHECKING:
    from .base import Reply

__all__ = ["FEATURES", "MOST_CHARS", "features", "final_of"]

MOST_CHARS = 16_384
"""Characters of a question and of an answer that are looked at: of longer ones the first and the last half of it."""

NAN = math.nan
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?")
_WORD = re.compile(r"[a-z]{2,}|\d+(?:\.\d+)?")
_FENCE = re.compile(r"```(?:json)?\s*(\{.{0,4000}?\})\s*```", re.DOTALL)
_ANSWER = re.compile(
    r'"(?:final_)?(?:answer|result|output|value|label)"\s*:\s*("(?:[^"\\]|\\.)*"|[^,}\n]+)', re.IGNORECASE
)
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_SAID = re.compile(r"(?:answer|result|output|solution)(?: is|:|\s*=)\s*[:*]*\s*\(?([^\n]{1,160})", re.IGNORECASE)
_OPTION = re.compile(r"^\s*\(?([A-Z])[.):]\s+(\S.*)$", re.MULTILINE)
_LETTER = re.compile(r"^\W*\(?([A-Z])\)?(?:\W|$)")
_HEDGE = re.compile(
    r"\b(?:approximately|roughly|about|probably|perhaps|possibly|likely|might|may be|seems?|appears?|assum\w+|suppose|"
    r"i think|i believe|not sure|uncertain|unclear|guess|estimate\w*|closest|nearest|best (?:answer|option|choice))\b"
)
_REFUSAL = re.compile(
    r"\b(?:(?:can ?not|can't|unable to|not able to|impossible to) (?:be )?(?:answer|determin|provid|solv|find|comput|"
    r"calculat|assist|help|conclud)\w*|as an ai|i(?:'m| am) sorry|not enough information|insufficient|"
    r"cuts? off|incomplete|none of the (?:above|options|answers|choices|given)|"
    r"not (?:among|listed|match|one of|given in))"
)
_SELF = re.compile(
    r"\b(?:wait|actually|however|mistake|incorrect|wrong|let(?:'s| me) (?:re\w+|try|check|double|correct)|correction|"
    r"on second thought|re-?(?:evaluat|examin|check|consider|calculat)\w*|contradict\w*|instead)\b"
)
_STEP = re.compile(r"(?:^|\n)\s*(?:\d+[.)]|[-*•]|step \d+)|\b(?:first|second|third|next|then|finally)\b", re.IGNORECASE)
_HENCE = re.compile(r"\b(?:therefore|thus|hence|so|since|because|this means|we (?:get|have))\b")
_CODE = re.compile(r"\bdef |\breturn\b|[{};]\s*$|\[PYTHON\]|==|\w\(\w*\)", re.MULTILINE)
_NO_WORD = re.compile(r"[\d(){}\[\]=<>+*]")
_NO_UNIT = re.compile(r"[^\w%°/²³^]+")
_SENTENCE = re.compile(r"[.!?](?:\s|$)")


def features(question: str, answer: Reply) -> list[float]:
    """The numbers of `FEATURES`, in that order; linear in the texts, finite or NaN.

    Args:
        question: The last text of the user.
        answer: What a model said to it.

    Returns:
        As many floats as `FEATURES` has names.
    """
    asked, said = _part(question), _part(answer.text)
    parts = _Parts.of(said)
    found = {
        **_shape(asked, said),
        **_words(said),
        **_question(asked),
        **_final(asked, parts),
        **_options(asked, parts),
        **_sums(said, parts),
        **_given(answer),
    }
    return [found[name] for name in FEATURES]


def final_of(text: str) -> str:
    """What an answer comes to, in one form: a field of JSON, what is boxed, or said to be the answer; else empty.

    A number keeps its unit: 50 % are not 50, nor 500 km 500 m. Dollars are none: their mark is that of formulas, too.
    """
    parts = _Parts.of(_part(text))
    value = _stripped(parts.final)
    number = _NUMBER.search(value)
    rest = (value[: number.start()] + value[number.end() :]).split() if number else []
    is_unit = len(rest) < 2 and not _NO_WORD.search("".join(rest))
    if not parts.form or not number or not (is_unit or len(number[0]) * 2 >= len(value)):
        return _plain(parts.final) if parts.form else ""
    unit = _NO_UNIT.sub("", "".join(rest))
    unit = unit.removesuffix("s") if len(unit) > 2 else unit
    return _canonical(number[0]) + (f" {unit}" if unit and unit not in ("dollar", "usd") else "")


@dataclass(frozen=True, slots=True)
class _Parts:
    """An answer taken apart: what it reasons, what it says in the end, and in what form."""

    reasoning: str
    final: str
    form: int  # 3 a JSON field, 2 boxed, 1 said in words, 0 the last line
    is_object: bool
    says: tuple[str, ...]  # everything that is said in the end, where it is said more than once

    @classmethod
    def of(cls, text: str) -> _Parts:
        boxed, said = _BOXED.findall(text), [match[1] for match in _SAID.finditer(text)]
        fields = [match[1].strip().strip('"') for match in _ANSWER.finditer(text)]
        says = tuple(_plain(value) for value in (*fields, *boxed, *said))
        for form, values in ((3, fields), (2, boxed), (1, said)):
            if values:
                reasoning = text[: text.rfind(values[-1])]
                return cls(reasoning, values[-1].strip(), form, _is_object(text), says)
        lines = [line for line in text.split("\n") if line.strip()]
        return cls("\n".join(lines[:-1]), lines[-1].strip() if lines else "", 0, _is_object(text), says)


def _part(text: str) -> str:
    """What is looked at, without long runs of blanks, which would take the expressions above the square of the time."""
    part = text if len(text) <= MOST_CHARS else text[: MOST_CHARS // 2] + "\n" + text[-MOST_CHARS // 2 :]
    return calm(part)


def _plain(value: str) -> str:
    """A final answer in one form: without marks, thousands, units and trailing zeros."""
    value = _stripped(value)
    number = _NUMBER.search(value)
    return _canonical(number[0]) if number and len(number[0]) * 2 >= len(value) else value


def _stripped(value: str) -> str:
    return value.strip().strip(".\"'`*()$ ").replace(",", "").replace("\\", "").casefold()


def _canonical(number: str) -> str:
    return f"{float(number.replace(',', '')):.10g}"  # of any decimal digits, those of other scripts included


def _numbers(text: str) -> list[str]:
    return [_canonical(number) for number in _NUMBER.findall(text)]


def _is_object(text: str) -> bool:
    fenced = _FENCE.search(text)
    inner = fenced[1] if fenced else text[text.find("{") : text.rfind("}") + 1]
    try:
        return isinstance(json.loads(inner, strict=False), dict)
    except (ValueError, RecursionError):
        return False


def _log(count: float) -> float:
    return math.log1p(max(0.0, count))


def _shape(asked: str, said: str) -> dict[str, float]:
    stripped = said.rstrip()
    lines = [line for line in said.split("\n") if line.strip()]
    raw = said.encode("utf-8", "replace")
    tail = raw[-600:]
    return {
        "chars": _log(len(said)),
        "chars_to_question": _log(len(said)) - _log(len(asked)),
        "lines": _log(len(lines)),
        "sentences": _log(len(_SENTENCE.findall(said))),
        "line_repeats": 1.0 - len(set(lines)) / len(lines) if lines else 0.0,
        "compression": len(zlib.compress(raw, 1)) / len(raw) if len(raw) > 200 else NAN,
        "tail_compression": len(zlib.compress(tail, 1)) / len(tail) if len(tail) > 200 else NAN,
        "ends_well": float(stripped[-1:] in '.!?`}])"'),
        "ends_in_newline": float(len(said) - len(stripped)),
        "is_lead_in": float(said[:1].isspace() or stripped[:1].islower()),
        "fences": float(min(said.count("```"), 8)),
    }


def _words(said: str) -> dict[str, float]:
    low = said.casefold()
    words = _WORD.findall(low)
    grams = list(zip(words, words[1:], words[2:], strict=False))
    size = max(1, len(said))
    return {
        "hedges": _log(len(_HEDGE.findall(low))),
        "tail_hedges": float(len(_HEDGE.findall(low[-250:]))),
        "refusals": _log(len(_REFUSAL.findall(low))),
        "corrections": _log(len(_SELF.findall(low))),
        "steps": _log(len(_STEP.findall(said))),
        "hence": _log(len(_HENCE.findall(low))),
        "word_repeats": 1.0 - len(set(grams)) / len(grams) if grams else 0.0,
        "distinct_words": len(set(words)) / len(words) if words else NAN,
        "digit_share": sum(map(str.isdigit, said)) / size,
        "mark_share": sum(said.count(mark) for mark in "\\$^_{}=") / size,
        "questions": float(min(said.count("?"), 9)),
        "emphasis": _log(said.count("**")),
    }


def _question(asked: str) -> dict[str, float]:
    words = _WORD.findall(asked.casefold())
    numbers = [abs(float(number)) for number in _numbers(asked)[:64] if number[-1].isdigit() and "e" not in number]
    return {
        "question_chars": _log(len(asked)),
        "question_words": _log(len(words)),
        "question_numbers": _log(len(numbers)),
        "question_most": _log(max(numbers, default=0.0)),
        "question_decimals": float(any(number % 1 for number in numbers)),
        "question_marks": _log(sum(asked.count(mark) for mark in "\\$^_{}")),
        "question_code": _log(len(_CODE.findall(asked))),
        "question_lines": _log(asked.count("\n")),
        "question_negated": float(bool(re.search(r"\b(?:not|except|never|least|incorrect|false)\b", asked.casefold()))),
        "question_blank": float("__" in asked or "..." in asked),
        "question_percent": float(min(asked.count("%"), 5)),
    }


def _final(asked: str, parts: _Parts) -> dict[str, float]:
    plain, numbers = _plain(parts.final), _numbers(parts.final)
    reasoned, questioned = _numbers(parts.reasoning), _numbers(asked)
    value = _value(numbers[-1]) if numbers else None
    known, used = set(questioned), set(reasoned)
    return {
        "final_form": float(parts.form),
        "is_object": float(parts.is_object),
        "final_chars": _log(len(parts.final)),
        "final_is_number": float(value is not None),
        "final_size": _log(abs(value)) if value is not None else NAN,
        "final_is_whole": float(value.is_integer()) if value is not None else NAN,
        "final_decimals": float(len(numbers[-1].partition(".")[2])) if value is not None else NAN,
        "final_is_negative": float(value < 0) if value is not None else NAN,
        "final_in_question": float(bool(plain) and plain in asked.casefold()),
        "final_in_reasoning": float(bool(plain) and plain in parts.reasoning.casefold()),
        "final_is_last_number": float(numbers[-1] == reasoned[-1]) if numbers and reasoned else NAN,
        "final_times_reasoned": float(min(reasoned.count(numbers[-1]), 9)) if numbers else NAN,
        "final_marks": float(min(sum(parts.final.count(mark) for mark in "\\[]{}'\"/^"), 20)),
        "finals": float(min(len(parts.says), 9)),
        "finals_differ": float(min(len(set(parts.says)) - 1, 5)) if parts.says else NAN,
        "numbers_used": len(known & used) / len(known) if known else NAN,
        "numbers_new": _log(len(used - known)),
        "reasoned_decimals": _log(max((len(number.partition(".")[2]) for number in reasoned), default=0)),
        "reasoned_most": _log(max((abs(_value(number) or 0.0) for number in reasoned), default=0.0)),
        "reasoning_chars": _log(len(parts.reasoning)),
    }


def _value(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


def _options(asked: str, parts: _Parts) -> dict[str, float]:
    """How well the reasoning speaks for the option that was picked, against all others."""
    options = {match[1]: match[2].strip() for match in _OPTION.finditer(asked)}
    letter = _LETTER.match(parts.final)
    picked = letter[1] if letter else ""
    absent = dict.fromkeys(_OPTION_FEATURES, NAN) | {"options": float(len(options)), "is_letter": float(bool(picked))}
    if len(options) < 2:
        return absent
    absent["is_option"] = float(picked in options)
    if picked not in options:
        return absent
    tail = parts.reasoning.casefold()[-500:]
    near, numbers = set(_WORD.findall(tail)), _numbers(tail)
    shares = {name: _share(text, near) for name, text in options.items()}
    others = [share for name, share in shares.items() if name != picked]
    lengths = sorted(len(text) for text in options.values())
    said = {name: _numbers(text)[:1] for name, text in options.items()}
    last = numbers[-1:]
    return absent | {
        "picked_place": float(list(options).index(picked)),
        "picked_share": shares[picked],
        "picked_margin": shares[picked] - max(others),
        "picked_rank": float(sum(share > shares[picked] for share in others)),
        "picked_named": float(options[picked].casefold().rstrip(".") in tail),
        "others_named": float(
            sum(len(text) > 1 and text.casefold() in tail for name, text in options.items() if name != picked)
        ),
        "picked_length_rank": lengths.index(len(options[picked])) / len(lengths),
        "picked_chars": _log(len(options[picked])),
        "picked_number_last": float(said[picked] == last) if said[picked] and last else NAN,
        "picked_number_there": float(said[picked][0] in numbers) if said[picked] else NAN,
        "other_number_last": float(any(said[name] == last for name in options if name != picked)) if last else NAN,
        "picked_number_off": _off(said[picked], last),
        "options_of_numbers": sum(map(bool, said.values())) / len(options),
    }


def _share(option: str, near: set[str]) -> float:
    words = set(_WORD.findall(option.casefold()))
    return len(words & near) / len(words) if words else 0.0


def _off(said: list[str], last: list[str]) -> float:
    one, other = _value(said[0]) if said else None, _value(last[0]) if last else None
    if one is None or other is None:
        return NAN
    return min(_log(abs(one - other) / max(abs(one), abs(other), 1e-9)), 1.0)


def _sums(said: str, parts: _Parts) -> dict[str, float]:
    sums = sums_in(said)
    wrong = sum(not equation.is_right for equation in sums)
    last = sums[-1] if sums else None
    numbers = _numbers(parts.final)
    return {
        "sums": _log(len(sums)),
        "sums_wrong": _log(wrong),
        "sums_wrong_share": wrong / len(sums) if sums else NAN,
        "last_sum_wrong": float(not last.is_right) if last else NAN,
        "final_is_last_sum": float(_canonical(f"{last.right:.10g}") == numbers[-1]) if last and numbers else NAN,
        "final_is_any_sum": float(any(f"{equation.right:.10g}" == numbers[-1] for equation in sums))
        if sums and numbers
        else NAN,
    }


def _given(answer: Reply) -> dict[str, float]:
    logprobs = [value for value in answer.logprobs if math.isfinite(value)]
    return {
        "is_cut": float(answer.finish_reason == "length") if answer.finish_reason else NAN,
        "logprob_mean": sum(logprobs) / len(logprobs) if logprobs else NAN,
        "logprob_min": min(logprobs) if logprobs else NAN,
        "p_good": answer.p_good if answer.p_good is not None else NAN,
    }


_OPTION_FEATURES = (
    *("options", "is_letter", "is_option", "picked_place", "picked_share", "picked_margin", "picked_rank"),
    *("picked_named", "others_named", "picked_length_rank", "picked_chars", "picked_number_last"),
    *("picked_number_there", "other_number_last", "picked_number_off", "options_of_numbers"),
)

FEATURES: tuple[str, ...] = (
    *("chars", "chars_to_question", "lines", "sentences", "line_repeats", "compression", "tail_compression"),
    *("ends_well", "ends_in_newline", "is_lead_in", "fences"),
    *("hedges", "tail_hedges", "refusals", "corrections", "steps", "hence", "word_repeats", "distinct_words"),
    *("digit_share", "mark_share", "questions", "emphasis"),
    *("question_chars", "question_words", "question_numbers", "question_most", "question_decimals", "question_marks"),
    *("question_code", "question_lines", "question_negated", "question_blank", "question_percent"),
    *("final_form", "is_object", "final_chars", "final_is_number", "final_size", "final_is_whole", "final_decimals"),
    *("final_is_negative", "final_in_question", "final_in_reasoning", "final_is_last_number", "final_times_reasoned"),
    *("final_marks", "finals", "finals_differ", "numbers_used", "numbers_new", "reasoned_decimals", "reasoned_most"),
    "reasoning_chars",
    *_OPTION_FEATURES,
    *("sums", "sums_wrong", "sums_wrong_share", "last_sum_wrong", "final_is_last_sum", "final_is_any_sum"),
    *("is_cut", "logprob_mean", "logprob_min", "p_good"),
)
