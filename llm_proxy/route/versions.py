"""Versions of a head in one folder, and a head that follows them: a new one is used without a restart.

::

    DIRECTORY/v0001/{model.onnx,config.json,card.md,reliability.svg}
    DIRECTORY/v0002/...
    DIRECTORY/current            the name of the version in use, one line

A version is complete before it has its name, and in use from the moment ``current`` is replaced. To go back, write
an older name into ``current``.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

from llm_proxy.errors import ConfigError, LLMProxyError

if TYPE_CHECKING:
    from llm_proxy.encode.base import Encoding

    from .base import Head, Prediction

__all__ = ["CURRENT", "HeadFolder", "current_version", "save_version", "use_version"]

logger = logging.getLogger("llm_proxy")
CURRENT = "current"
"""Name of the file that says which version is in use."""

_VERSION = re.compile(r"v(\d{4,9})")
_LOOK_S = 1.0
_PART, _POINTER = ".part-", ".current-"
_LEFT_S = 3600.0  # no version takes so long to be written


def save_version(directory: Path, files: Mapping[str, bytes]) -> Path:
    """Write a new version, complete or not at all; which one is in use does not change.

    Args:
        directory: Of all versions; made when it is not there.
        files: Contents by name.

    Returns:
        The folder of the version.

    Raises:
        ConfigError: It can't be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _sweep(directory)
        with ExitStack() as on_failure:
            part = Path(tempfile.mkdtemp(prefix=_PART, dir=directory))
            on_failure.callback(shutil.rmtree, part, ignore_errors=True)
            for name, content in files.items():
                _write(part / name, content)
            part.chmod(0o755)
            version = _named(part, directory)
            on_failure.pop_all()
            return version
    except OSError as exc:
        raise ConfigError(f"{directory} can't be written: {exc.strerror or exc}") from exc


def use_version(version: Path) -> None:
    """Have the proxies that follow a directory use a version of it, from their next look on.

    Args:
        version: Its folder.

    Raises:
        ConfigError: It can't be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=_POINTER, dir=version.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"{version.name}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(version.parent / CURRENT)
    except OSError as exc:
        raise ConfigError(f"{version.parent / CURRENT} can't be written: {exc.strerror or exc}") from exc


def current_version(directory: Path) -> Path:
    """The folder of the version in use: what ``current`` names; the directory itself where there is no such file.

    Raises:
        ConfigError: There is no head in it, or ``current`` names no version.
    """
    try:
        name = (directory / CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if (directory / "model.onnx").is_file():
            return directory
        raise ConfigError(f"{directory} has no head: llm-proxy route train FILE --to {directory}") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{directory / CURRENT} can't be read: {exc}") from exc
    if not _VERSION.fullmatch(name) or not (directory / name).is_dir():
        raise ConfigError(f"{directory / CURRENT} must name a version such as v0001, not {name[:40]!r}")
    return directory / name


class HeadFolder:
    """A `llm_proxy.route.base.Head` that is whichever version is in use by now; safe to share between threads.

    While a new version loads, and when it can't be loaded, the one before goes on.

    Args:
        directory: Of the versions, or of a single head.
        load: Makes a head of the folder of a version.
        submit: Runs a function later in another thread, e.g. ``pool.submit``; None loads a new version in the call
            that notices it.
        monotonic: Clock, seconds.

    Raises:
        LLMProxyError: There is no version in use, or it can't be loaded.
    """

    def __init__(
        self,
        directory: Path,
        load: Callable[[Path], Head],
        *,
        submit: Callable[[Callable[[], None]], object] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory, self._load, self._submit, self._monotonic = directory, load, submit, monotonic
        self._is_loading = False
        self._seen = self._stamp()
        self.after_fork()
        self._head = load(current_version(directory))
        self._look_at_s = monotonic() + _LOOK_S

    def after_fork(self) -> None:
        """Take a new lock in a child, where nobody would release the old one; the head stays.

        What was loading begins anew with the next look, as the thread that was at it is not in the child.
        """
        self._lock = RLock()
        if self._is_loading:
            self._seen, self._is_loading = None, False

    @property
    def name(self) -> str:
        """Identity of the weights in use; every call asks for it, so this looks for another version, too."""
        if self._monotonic() >= self._look_at_s:
            self._look()
        return self._head.name

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that they know."""
        return self._head.models

    @property
    def encoder(self) -> str:
        """Identity of the encoder whose vectors they read; empty where the head does not say."""
        return str(getattr(self._head, "encoder", ""))

    def predict(self, text: str, encoding: Encoding) -> Mapping[str, Prediction]:
        """See `llm_proxy.route.base.Head.predict`; at most once a second it also looks for another version."""
        head = self._head  # one call, one version
        if self._monotonic() >= self._look_at_s:
            self._look()
        return head.predict(text, encoding)

    def _look(self) -> None:
        with self._lock:
            now_s = self._monotonic()
            if now_s < self._look_at_s or self._is_loading:
                return
            self._look_at_s = now_s + _LOOK_S
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._seen, self._is_loading = stamp, True
        if self._submit is None:
            self._renew()
            return
        try:
            self._submit(self._renew)
        except RuntimeError:  # no thread to be had, e.g. at the end of the program: the next look tries again
            self._seen, self._is_loading = None, False

    def _renew(self) -> None:
        try:
            version = current_version(self._directory)
            self._head = self._load(version)
            logger.info("routes use head %s of %s from now on", self._head.name, version)
        except (LLMProxyError, OSError, ValueError, RecursionError) as exc:
            logger.warning("the new head in %s can't be used, the one before goes on: %s", self._directory, exc)
        finally:
            self._is_loading = False

    def _stamp(self) -> tuple[int, int] | None:
        """What changes whenever the file ``current`` is replaced; None where there is none."""
        try:
            found = (self._directory / CURRENT).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino


def _sweep(directory: Path) -> None:
    """Remove what processes left that were killed while they wrote; what is young may still be at work."""
    for path in directory.glob(".*-*"):
        if not path.name.startswith((_PART, _POINTER)):
            continue
        try:
            if time.time() - path.stat().st_mtime > _LEFT_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:  # another process was faster, or it is not ours to remove
            continue


def _named(part: Path, directory: Path) -> Path:
    """Give a complete version the next number; another process may take it first."""
    while True:
        taken = [int(found[1]) for path in directory.iterdir() if (found := _VERSION.fullmatch(path.name))]
        version = directory / f"v{max(taken, default=0) + 1:04}"
        try:
            return part.rename(version)
        except OSError:
            if not version.exists():  # else it was taken: a folder with files in it is not replaced
                raise


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
