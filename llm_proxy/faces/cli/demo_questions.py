"""Two hundred questions written for the demo: asked once, asked again, asked in other words, and traps.

A family is one question, the same question in other words, and one that only looks the same: a negation, another
number, another name. Serving a trap from the cache would be a wrong answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

__all__ = ["FAMILIES", "Family", "Question", "schedule"]


@dataclass(frozen=True, slots=True)
class Family:
    """One question, its other wordings, and a question that must not get its answer."""

    question: str
    wordings: tuple[str, ...]
    trap: str


@dataclass(frozen=True, slots=True)
class Question:
    """One call of the demo; ``family`` is the place of its family in `FAMILIES`."""

    text: str
    kind: Literal["first", "repeat", "wording", "trap"]
    family: int


FAMILIES = (
    Family(
        "How do I reset my password?",
        ("How can I reset my password?", "how do i reset my password"),
        "How do I not reset my password by accident?",
    ),
    Family(
        "What is the capital of Australia?",
        ("What's the capital of Australia?",),
        "What is the capital of Austria?",
    ),
    Family(
        "How many minutes are there in 3 hours?",
        ("How many minutes are in 3 hours?",),
        "How many minutes are there in 5 hours?",
    ),
    Family(
        "Is it safe to eat raw salmon?",
        ("Is eating raw salmon safe?",),
        "Is it not safe to eat raw salmon?",
    ),
    Family(
        "How do I turn on dark mode?",
        ("How can I turn on dark mode?",),
        "How do I turn off dark mode?",
    ),
    Family(
        "What is the boiling point of water at sea level?",
        ("What's the boiling point of water at sea level?",),
        "What is the freezing point of water at sea level?",
    ),
    Family(
        "Who wrote Pride and Prejudice?",
        ("Who was the author of Pride and Prejudice?",),
        "Who wrote Sense and Sensibility?",
    ),
    Family(
        "How do I convert 10 kilometres to miles?",
        ("How can I convert 10 kilometres to miles?",),
        "How do I convert 12 kilometres to miles?",
    ),
    Family(
        "How long does it take to boil an egg?",
        ("How long does it take to boil an egg",),
        "How long does it take to fry an egg?",
    ),
    Family(
        "Explain what a hash table is.",
        ("Explain what a hash table is", "Please explain what a hash table is."),
        "Explain what a hash function is.",
    ),
    Family(
        "How do I undo the last commit in git?",
        ("How can I undo the last commit in git?",),
        "How do I undo the last 3 commits in git?",
    ),
    Family(
        "How do I list all files in a directory in Python?",
        ("How can I list all files in a directory in Python?",),
        "How do I list all files in a directory in Ruby?",
    ),
    Family(
        "What is the difference between TCP and UDP?",
        ("What's the difference between TCP and UDP?",),
        "What is the difference between TCP and HTTP?",
    ),
    Family(
        "Can I travel to Japan without a visa?",
        ("Can I travel to Japan without a visa",),
        "Can I travel to Japan with a visa?",
    ),
    Family(
        "How do I cancel my subscription?",
        ("How can I cancel my subscription?", "how do I cancel my subscription"),
        "How do I never cancel my subscription?",
    ),
    Family(
        "What are the symptoms of the flu?",
        ("What are the symptoms of flu?",),
        "What are not symptoms of the flu?",
    ),
    Family(
        "How many people live in Paris?",
        ("How many people live in Paris",),
        "How many people live in Lyon?",
    ),
    Family(
        "What is the square root of 144?",
        ("What's the square root of 144?",),
        "What is the square root of 169?",
    ),
    Family(
        "When did the Second World War end?",
        ("When did the Second World War end",),
        "When did the Second World War start?",
    ),
    Family(
        "How do I remove a red wine stain from a carpet?",
        ("How can I remove a red wine stain from a carpet?",),
        "How do I remove a coffee stain from a carpet?",
    ),
    Family(
        "What is the speed of light?",
        ("What's the speed of light?",),
        "What is the speed of sound?",
    ),
    Family(
        "Should I water succulents every day?",
        ("Should I water succulents every day",),
        "Should I water succulents every 14 days?",
    ),
    Family(
        "How do I increase the font size in Firefox?",
        ("How can I increase the font size in Firefox?",),
        "How do I decrease the font size in Firefox?",
    ),
    Family(
        'What does the error message "permission denied" mean?',
        ('What does the error message "permission denied" mean',),
        'What does the error message "connection refused" mean?',
    ),
    Family(
        "How do I get from London to Edinburgh by train?",
        ("How can I get from London to Edinburgh by train?",),
        "How do I get from Edinburgh to London by train?",
    ),
    Family(
        "What is a good name for a black cat?",
        ("What's a good name for a black cat?",),
        "What is a good name for a white cat?",
    ),
    Family(
        "How many calories are in 100 grams of rice?",
        ("How many calories are there in 100 grams of rice?",),
        "How many calories are in 250 grams of rice?",
    ),
    Family(
        "Why is the sky blue?",
        ("Why is the sky blue",),
        "Why is the sky not blue?",
    ),
    Family(
        "How do I enable two-factor authentication?",
        ("How can I enable two-factor authentication?",),
        "How do I disable two-factor authentication?",
    ),
    Family(
        "What is the tallest mountain in Africa?",
        ("What's the tallest mountain in Africa?",),
        "What is the tallest mountain in Asia?",
    ),
    Family(
        "How do I sort a list in descending order in Python?",
        ("How can I sort a list in descending order in Python?",),
        "How do I sort a list in ascending order in Python?",
    ),
    Family(
        "What time zone is New York in?",
        ("What time zone is New York in",),
        "What time zone is New Delhi in?",
    ),
    Family(
        "How do I write a cover letter?",
        ("How can I write a cover letter?",),
        "How do I write a resignation letter?",
    ),
    Family(
        "Does aspirin thin the blood?",
        ("Does aspirin thin the blood",),
        "Doesn't paracetamol thin the blood?",
    ),
    Family(
        "How many days are there in a leap year?",
        ("How many days are in a leap year?",),
        "How many weeks are there in a leap year?",
    ),
    Family(
        'What is the plural of "octopus"?',
        ('What\'s the plural of "octopus"?',),
        'What is the plural of "platypus"?',
    ),
    Family(
        "How do I install Docker on Ubuntu?",
        ("How can I install Docker on Ubuntu?",),
        "How do I install Docker on Fedora?",
    ),
    Family(
        "Who painted the Mona Lisa?",
        ("Who was it that painted the Mona Lisa?",),
        "Who stole the Mona Lisa?",
    ),
    Family(
        "What is the minimum age to vote in Germany?",
        ("What's the minimum age to vote in Germany?",),
        "What is the maximum age to vote in Germany?",
    ),
    Family(
        "How do I make pancakes without eggs?",
        ("How can I make pancakes without eggs?",),
        "How do I make pancakes with eggs?",
    ),
    Family(
        "What is the meaning of the word serendipity?",
        ("What's the meaning of the word serendipity?",),
        "What is the origin of the word serendipity?",
    ),
    Family(
        "How much does a litre of water weigh?",
        ("How much does a litre of water weigh",),
        "How much does a litre of petrol weigh?",
    ),
    Family(
        "Summarise the plot of Romeo and Juliet in two sentences.",
        ("Please summarise the plot of Romeo and Juliet in two sentences.",),
        "Summarise the plot of Romeo and Juliet in ten sentences.",
    ),
    Family(
        "How do I block a number on an iPhone?",
        ("How can I block a number on an iPhone?",),
        "How do I unblock a number on an iPhone?",
    ),
    Family(
        "Which planets have rings?",
        ("Which planets have rings",),
        "Which planets have no rings?",
    ),
    Family(
        'Translate "good morning" into Spanish.',
        ('Please translate "good morning" into Spanish.',),
        'Translate "good night" into Spanish.',
    ),
    Family(
        "How do I centre a div with CSS?",
        ("How can I centre a div with CSS?",),
        "How do I centre a div without CSS?",
    ),
    Family(
        "What is the current population of Canada?",
        ("What's the current population of Canada?",),
        "What was the population of Canada in 1950?",
    ),
)

_REPEATS = 53


def schedule(seed: int = 0) -> list[Question]:
    """The questions in the order in which they are asked: all first ones, shuffled, then all others, shuffled.

    Args:
        seed: Of the order and of which questions are repeated.

    Returns:
        Two hundred questions; every first question is there once, every wording and every trap once.
    """
    rng = random.Random(seed)
    numbered = list(enumerate(FAMILIES))
    firsts = [Question(family.question, "first", number) for number, family in numbered]
    later = [Question(text, "wording", number) for number, family in numbered for text in family.wordings]
    later += [Question(family.trap, "trap", number) for number, family in numbered]
    later += [Question(family.question, "repeat", number) for number, family in rng.choices(numbered, k=_REPEATS)]
    rng.shuffle(firsts)
    rng.shuffle(later)
    return firsts + later
