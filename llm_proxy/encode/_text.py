"""Which part of a text a vector stands for: what tokenizers cut off, can't read or don't know."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MOST_CHARS_PER_TOKEN", "readable", "seen_chars"]

MOST_CHARS_PER_TOKEN = 16
"""A text is cut at this many characters a token of the window; English takes 4 to 5, the rest counts as unseen."""


def readable(text: str, most_chars: int) -> tuple[str, int]:
    """The leading part of a text in a form that can be tokenized.

    A tokenizer's time grows with the text although only a window of it counts, so the text is cut first. Lone
    surrogates are no Unicode text; each becomes a question mark, which keeps every position.

    Returns:
        The part, at most ``most_chars`` long, and how many of its characters stand before the first surrogate.
    """
    part = text[:most_chars]
    try:
        part.encode()
    except UnicodeEncodeError as exc:
        return part.encode("utf-8", "replace").decode(), exc.start
    return part, len(part)


def seen_chars(ids: Sequence[int], offsets: Sequence[tuple[int, int]], unknown: int | None) -> int:
    """How many leading characters of a text that was cut, or holds unknown words, its tokens tell apart.

    All that the vocabulary lacks (emoji, most of Chinese, words of over 100 characters) becomes one and the same
    token, so two texts may differ there and still get one vector: what follows the first such token counts as
    unseen.

    Args:
        ids: Token ids.
        offsets: Of each token, the characters that it stands for; empty for special tokens.
        unknown: Id of the unknown token, or None.
    """
    if unknown is not None and unknown in ids:
        return offsets[list(ids).index(unknown)][0]
    return max((end for _, end in offsets), default=0)
