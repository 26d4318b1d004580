"""Acting as a user who may not do everything, also where the tests run as root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["unprivileged"]

_NOBODY = 65_534


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run a block with the rights of a user who owns nothing; a user without rights stays who he is."""
    if os.geteuid() != 0:
        yield
        return
    group = os.getegid()
    os.setegid(_NOBODY)
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
