"""Heads that load in the background: until one is there, and while it can't be loaded, its route goes by the rules."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Protocol

from llm_proxy.errors import ConfigError

from .tiers import SHIPPED, shipped_head
from .versions import CURRENT, HeadFolder

if TYPE_CHECKING:
    from llm_proxy.config import Config
    from llm_proxy.encode.base import Encoding

    from .base import Head

__all__ = ["HEADS_NAME", "LazyHeads", "heads_for", "load_head", "same_model"]

Submit = Callable[[Callable[[], None]], object]
HEADS_NAME = "heads"
"""The folder of trained heads in ``cache.directory``."""


class Encodes(Protocol):
    """See `llm_proxy.encode.lazy.LazyEncoder`."""

    @property
    def name(self) -> str:
        """Identity of the weights."""

    def encode(self, text: str) -> Encoding:
        """Encode one text."""


class LazyHeads:
    """The head of a route by its name, as `llm_proxy.route.plan.Heads`; safe to share between threads.

    Nothing is loaded before `start`. A head that can't be loaded is counted and tried again after a while, by the next
    call of its route.

    Args:
        folders: Of the heads, by route.
        load: Makes a head of a folder; may take seconds.
        note: Takes the name of a part and its trouble.
        usual: A folder in which no head may be yet, which is no trouble: it is looked at again after a while.
        retry_after_s: Rest after a failed load, seconds, > 0.
        monotonic: Clock, seconds.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        load: Callable[[Path], Head],
        *,
        note: Callable[[str, Exception], None],
        usual: Path | None = None,
        retry_after_s: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders, self._usual, self._load, self._note = dict(folders), usual, load, note
        self._retry_after_s, self._monotonic = retry_after_s, monotonic
        self._heads: dict[str, Head] = {}
        self._retry_at_s: dict[str, float] = {}
        self._submit: Submit | None = None
        self.after_fork()

    def after_fork(self) -> None:
        """Take a new lock in a child, where nobody would release the old one; what has loaded stays.

        What was loading begins anew with the next call, as the thread that was at it is not in the child.
        """
        self._lock = RLock()
        self._loading: set[str] = set()
        for head in self._heads.values():
            if isinstance(head, HeadFolder):
                head.after_fork()

    def __bool__(self) -> bool:
        """Whether there is a head to load now."""
        return any(self._is_due(folder) for folder in self._folders.values())

    @property
    def has_routes(self) -> bool:
        """Whether any route has something to choose, so that a head may come."""
        return bool(self._folders)

    def __call__(self, route: str) -> Head | None:
        """The head of a route; None where it has none, or where it has not loaded."""
        head = self._heads.get(route)
        if head is None and route in self._folders and self._monotonic() >= self._retry_at_s.get(route, 0.0):
            self._begin(route)
        return head

    def start(self, submit: Submit) -> None:
        """Load all of them in the background.

        Args:
            submit: Runs a function later in another thread, e.g. ``pool.submit``; RuntimeError where it can't.
        """
        self._submit = submit
        for route in self._folders:
            self._begin(route)

    def load(self) -> None:
        """Load now what has not loaded, in this thread.

        Raises:
            LLMProxyError: One can't be loaded; the message says why.
        """
        for route, folder in self._folders.items():
            if route not in self._heads and self._is_due(folder):
                self._heads[route] = self._load(folder)

    def _is_due(self, folder: Path) -> bool:
        """Whether a head is in a folder, or should be."""
        return folder != self._usual or any((folder / name).is_file() for name in (CURRENT, "config.json"))

    def _begin(self, route: str) -> None:
        with self._lock:
            if self._submit is None or route in self._loading or route in self._heads:
                return
            self._loading.add(route)
        try:
            self._submit(partial(self._try, route))
        except RuntimeError as exc:  # no thread to be had: a later call tries again
            self._note("threads", exc)
            self._retry_at_s[route] = self._monotonic() + self._retry_after_s
            self._loading.discard(route)

    def _try(self, route: str) -> None:
        try:
            if self._is_due(self._folders[route]):
                self._heads[route] = self._load(self._folders[route])
        finally:  # counted here, also what nobody foresaw: the pool drops what is raised
            failure = sys.exc_info()[1]
            if isinstance(failure, Exception):
                self._note("router", failure)
            self._retry_at_s[route] = self._monotonic() + self._retry_after_s
            self._loading.discard(route)


def heads_for(
    config: Config,
    *,
    encoder: Callable[[], Encodes | None],
    submit: Submit,
    note: Callable[[str, Exception], None],
    monotonic: Callable[[], float],
) -> LazyHeads:
    """The heads of all routes that have something to choose; each follows its versions.

    Args:
        config: ``routes`` and ``cache.directory`` are read.
        encoder: Gives what makes the vectors; None: there is none.
        submit: Runs a function later in another thread.
        note: Takes the name of a part and its trouble.
        monotonic: Clock, seconds.
    """
    usual = config.cache.directory / HEADS_NAME
    routes = {name: route for name, route in config.routes.items() if len(route.candidates) > 1}
    folders = {name: Path(route.head).expanduser() if route.head else usual for name, route in routes.items()}

    def load(folder: Path) -> Head:
        folder = shipped_head() if folder == Path(SHIPPED) else folder
        return HeadFolder(folder, lambda version: load_head(version, encoder()), submit=submit, monotonic=monotonic)

    return LazyHeads(folders, load, note=note, usual=usual, monotonic=monotonic)


def load_head(folder: Path, encoder: Encodes | None) -> Head:
    """The head in a folder.

    Args:
        folder: Of one version.
        encoder: Whose vectors it will read; loaded here where it has not been. None: there is none.

    Raises:
        LLMProxyError: It can't be used, or was trained on another model's vectors.
    """
    from .heads import OnnxHead

    head = OnnxHead(folder)
    if encoder is not None:
        encoder.encode("")
        if not same_model(encoder.name, head.encoder):
            raise ConfigError(f"the head in {folder} reads vectors of {head.encoder!r}, not of {encoder.name!r}")
    return head


def same_model(one: str, other: str) -> bool:
    """Whether two encoders' vectors are as good as one another's for a head, by their names; see `Encoder.name`."""
    return _model_of(one) == _model_of(other)


def _model_of(encoder: str) -> str:
    """The model in an encoder's name, without its arithmetic: a GPU's vectors are as good."""
    return encoder.partition("@")[0].removesuffix("-int8").removesuffix("-float")
