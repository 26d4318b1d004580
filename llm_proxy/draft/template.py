"""Chats as the text that a model reads: what a completion's prompt must be to stand for a chat.

A form says how one message is written, with ``{role}`` and ``{content}`` in their places; the answer begins as a
message of the assistant does. That is less than the templates of servers can say, so what it can't say is not written
at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["prompt_for"]

_ROLES = ("system", "user", "assistant")
_KEYS = frozenset({"role", "content"})


def prompt_for(messages: Sequence[Any], form: str) -> str | None:
    """The text of a conversation up to where the answer begins; None where the form can't say it.

    That is so for other roles, other content than text, other fields, text that a template may trim, and text that
    looks like a mark of the form: servers differ in how they read that.
    """
    before, _, rest = form.partition("{role}")
    between, _, after = rest.partition("{content}")
    marks = [mark.strip() for mark in (before, between, after) if mark.strip()]
    parts = []
    for message in messages:
        if not _is_plain(message) or any(mark in message["content"] for mark in marks):
            return None
        parts.append(f"{before}{message['role']}{between}{message['content']}{after}")
    return "".join([*parts, before, "assistant", between]) if parts else None


def _is_plain(message: object) -> bool:
    if not isinstance(message, Mapping) or not _KEYS.issuperset(name for name, value in message.items() if value):
        return False
    content = message.get("content")
    return message.get("role") in _ROLES and isinstance(content, str) and content == content.strip()
