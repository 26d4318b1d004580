"""Questions of the soak, and the one text that answers each: whoever gets another's answer can tell."""

from __future__ import annotations

import random
import re
import zlib

__all__ = ["answer_to", "make", "number", "serial_in", "story", "subject_of"]

_SUBJECT = re.compile(r"(?:number|story) \d+|(?<=I make ).+?(?=\s+at home)")
_ANSWER = re.compile(r"(.+?) \| (\d+) \| ")
_THINGS = (
    "sourdough bread", "a fruit cake", "an apple pie", "vegetable soup", "tomato sauce", "fresh pasta",
    "a wooden chair", "soap", "a kite", "candles", "ginger beer", "paper", "mozzarella", "a bird house",
)  # fmt: skip
_STORY_WORDS = 400


def number(which: int) -> str:
    """A question that differs from its neighbours by a number only: the guard must tell them apart."""
    return f"What is number {which} about?"


def story(which: int) -> str:
    """A question whose answer is long."""
    return f"Please tell me story {which}, the whole of it."


def make(chance: random.Random) -> str:
    """One of few questions, in words and blanks of its own: a hit by meaning once its subject is stored."""
    blanks = "".join(chance.choice(" \t") for _ in range(20))
    return f"How {chance.choice(('do', 'can'))} I make {chance.choice(_THINGS)} at home?{blanks}"


def subject_of(text: str) -> str:
    """What a question is about; empty where it is none of these."""
    found = _SUBJECT.search(text)
    return found[0] if found else ""


def answer_to(subject: str, serial: int) -> str:
    """The answer number ``serial`` of the provider, of 20 to 100 words, or of 400 for a story."""
    words = _STORY_WORDS if subject.startswith("story") else 20 + zlib.crc32(subject.encode()) % 80
    return f"{subject} | {serial} | {' '.join(f'word{place}' for place in range(words))} | end"


def serial_in(answer: str, subject: str) -> int | None:
    """Which of the provider's answers this is; None where it is none to this subject, or not whole."""
    found = _ANSWER.match(answer)
    if found is None or answer != answer_to(subject, int(found[2])):
        return None
    return int(found[2])
