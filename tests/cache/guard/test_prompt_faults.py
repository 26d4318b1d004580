"""Faults that are put into reworded prompts to measure what is served of them; those that need no WordNet."""

import random

import pytest

from router_models.guard.recipe.prompt_faults import PROMPT_FAULTS

PROMPT = (
    "Kindly read the largest report that Maria Novak sent in 14 days. Perhaps every option is listed in the table. "
    "Limit the explanation to three sentences."
)


def faulty(kind: str, text: str = PROMPT) -> set[str]:
    """All that some seeds make of a text."""
    made = (PROMPT_FAULTS[kind](text, random.Random(seed), None) for seed in range(40))  # type: ignore[arg-type]
    return {text for text in made if text is not None}


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("number", "three sentences", "seven sentences"),
        ("unit or date", "14 days", "14 months"),
        ("comparative", "largest", "smallest"),
        ("quantifier", "every option", "no option"),
        ("format, length, language", "the table", "the list"),
        ("negation", "is listed", "is not listed"),
        ("added order", "three sentences.", "three sentences. Answer in Spanish."),
        ("dropped sentence", " Limit the explanation to three sentences.", " "),
    ],
)
def test_a_fault_is_one_small_change(kind: str, old: str, new: str) -> None:
    made = faulty(kind)
    assert PROMPT.replace(old, new) in made
    assert PROMPT not in made


def test_a_name_becomes_another_and_a_capital_at_the_beginning_is_none() -> None:
    made = faulty("name")
    assert made
    assert all(text.startswith("Kindly read the largest report that ") for text in made)
    assert all("Maria Novak" not in text for text in made)


def test_a_negation_goes_as_well() -> None:
    assert "Say why it is so." in faulty("negation", "Say why it is not so.")


def test_nothing_is_made_of_a_prompt_that_has_no_place_for_it() -> None:
    assert not faulty("number", "No digits here at all")
    assert not faulty("dropped sentence", "One alone, and a long one at that.")
    assert not faulty("negation", "Only words")
    assert not faulty("comparative", "Please kindly")
