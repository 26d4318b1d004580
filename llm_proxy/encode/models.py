"""What the folder of an encoder must hold."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_proxy.errors import ConfigError, MissingDependencyError
from llm_proxy.shipped import REINSTALL, model_folder

__all__ = ["ModelFolder"]


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What ``config.json`` of an encoder's folder says.

    Attributes:
        path: The folder.
        is_shipped: Whether it came with llm-proxy, which decides what remedy an error names.
        name: Name of the model, without precision and hash.
        dim: Length of a vector, > 0.
        window_tokens: Most tokens of one text, special ones included, > 2.
        unknown_token: The token that stands for what the vocabulary lacks; empty for none.
        graphs: File of each graph by its precision: ``int8`` for processors, ``float`` for accelerators.
        sha256: Hash of each file, 64 hex digits.
        vectors: Hash that stands for a graph's vectors, by precision: of the graph that first gave them, bit for bit.
            Where there is none it is the graph's own.
    """

    path: Path
    is_shipped: bool
    name: str
    dim: int
    window_tokens: int
    unknown_token: str
    graphs: dict[str, str]
    sha256: dict[str, str]
    vectors: dict[str, str]

    @classmethod
    def read(cls, path: Path | None) -> ModelFolder:
        """Read a folder's ``config.json``.

        Args:
            path: The folder, or None for the encoder that ships with llm-proxy.

        Raises:
            ConfigError: The folder that was named is not a model folder.
            MissingDependencyError: The shipped model is absent or damaged.
        """
        folder, is_shipped = path or model_folder("encoder"), path is None
        try:
            settings = json.loads((folder / "config.json").read_bytes())
            _check(settings)
        except (OSError, ValueError) as exc:
            raise unusable(folder, f"config.json: {exc}", is_shipped=is_shipped) from exc
        values = {name: settings[name] for name in _FIELDS}
        return cls(folder, is_shipped, vectors=settings.get("vectors", {}), **values)

    def identity(self, precision: str) -> str:
        """Hash that names the vectors of a graph: a faster graph for the same bits keeps the name of its predecessor.

        Args:
            precision: Which of `graphs`.
        """
        return self.vectors.get(precision, self.sha256[self.graphs[precision]])

    def file(self, name: str) -> Path:
        """Path of a file whose bytes are what ``config.json`` says.

        Raises:
            ConfigError: It is missing or another one, in a folder that was named.
            MissingDependencyError: The same of the shipped model.
        """
        path = self.path / name
        try:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as exc:
            raise self.unusable(f"{name}: {exc.strerror}") from exc
        if found != self.sha256.get(name):
            raise self.unusable(f"{name} is not the file that config.json describes (sha256 {found[:12]}…)")
        return path

    def unusable(self, why: str) -> ConfigError | MissingDependencyError:
        """The error that says why this folder can't be used, and what to do."""
        return unusable(self.path, why, is_shipped=self.is_shipped)


_FIELDS: dict[str, type] = {
    "name": str,
    "dim": int,
    "window_tokens": int,
    "unknown_token": str,
    "graphs": dict,
    "sha256": dict,
}


def _check(settings: Any) -> None:
    if not isinstance(settings, dict):
        raise ValueError("must be an object")
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(settings.get(name), kind)]
    if wrong or settings["dim"] < 1 or settings["window_tokens"] < 3 or "int8" not in settings["graphs"]:
        names = ", ".join(wrong) or "dim, window_tokens or graphs"
        raise ValueError(f"{names}: absent or out of range; see router_models/encoder/config.json for an example")
    vectors = settings.get("vectors", {})
    if not isinstance(vectors, dict) or any(not isinstance(one, str) for one in vectors.values()):
        raise ValueError("vectors must give hashes by precision")
    files = (*settings["graphs"].values(), *settings["sha256"])
    if any(not isinstance(name, str) or Path(name).name != name for name in files):
        raise ValueError("graphs and sha256 must name files of the folder itself")


def unusable(path: Path, why: str, *, is_shipped: bool) -> ConfigError | MissingDependencyError:
    """The error for a model folder that can't be used: reinstall the shipped one, correct the setting else."""
    if is_shipped:
        return MissingDependencyError(f"the encoder of this installation is damaged ({why}); {REINSTALL}")
    return ConfigError(f"encoder.model {str(path)!r} is no usable model folder: {why}")
