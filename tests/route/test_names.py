"""What a head calls a candidate of a route: for the proxy and for the commands alike."""

from __future__ import annotations

import pytest

from llm_proxy.route.plan import name_in


@pytest.mark.parametrize(
    ("models", "candidate", "known_as", "name"),
    [
        (("m", "b/m"), "b/m", None, "b/m"),
        (("m",), "b/m", None, "m"),
        (("m-2024-08-06",), "b/m", None, "m-2024-08-06"),
        (("m",), "b/m-2024-08-06", None, "m"),
        (("c/m",), "b/m", None, None),
        (("m", "x"), "b/m", "x", "x"),
        (("m",), "b/m", "x", None),
        (("m",), "m", None, "m"),
    ],
)
def test_what_a_head_calls_a_candidate(
    models: tuple[str, ...], candidate: str, known_as: str | None, name: str | None
) -> None:
    assert name_in(models, candidate, known_as) == name
