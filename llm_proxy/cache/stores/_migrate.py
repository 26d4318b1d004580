"""The format of the disk store's rows: what a new file gets, and how one of before is brought up to it.

::

    1  records without ``is_pinned``
    2  records may have it. Those of before are read as not pinned and stay as they are; the number keeps programs of
       before away, which would give up what is pinned, and forget the pin of an answer that they ask anew
    3  entries may have evidence beside them. Those of before have none; the number keeps programs of before away,
       which would serve what was found to be wrong, and leave the evidence of what they remove
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from llm_proxy.errors import CacheCorruptError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._rows import Rows

__all__ = ["SCHEMA", "introduce"]

SCHEMA = 3


def introduce(rows: Rows) -> None:
    """Give a new store its name and its format, and one of an older format the present one: all of it or nothing."""
    if rows.value("n:schema") == SCHEMA:
        return
    with rows.writing():
        found = rows.pending("n:schema")  # another process may have been faster
        if found is None:
            rows.set("n:store", secrets.token_hex(8))
            rows.set("n:sequence", 0)
        elif not isinstance(found, int):
            raise CacheCorruptError(f"{rows.path} has no format: set another cache.directory or remove this one")
        for step in _STEPS[found - 1 :] if found else ():
            step(rows)
        rows.set("n:schema", SCHEMA)


def _to_2(rows: Rows) -> None:
    """Nothing is rewritten: see above."""


def _to_3(rows: Rows) -> None:
    """Nothing is rewritten: see above."""


_STEPS: tuple[Callable[[Rows], None], ...] = (_to_2, _to_3)
"""The step at place ``n - 1`` leads from format ``n`` to the next."""
