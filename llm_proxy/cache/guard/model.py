"""The pair model: reads a question and a stored one together, and says how likely one answer serves both."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llm_proxy.errors import CacheError, MissingDependencyError
from llm_proxy.shipped import REINSTALL, libraries, model_folder, onnxruntime_errors, session, tokenizer_of

__all__ = ["WINDOW_TOKENS", "PairModel", "joined", "shipped_model"]

WINDOW_TOKENS = 96
"""Most tokens of both texts together, the three special ones included."""
_CLS, _SEP = 101, 102
_MOST_CHARS = WINDOW_TOKENS * 16  # a tokenizer's time grows with the text, although longer ones are not judged
_DIM = 384
# Where a graph says that its table of words is: `external_data` of ONNX's TensorProto, in the order of the recipe.
_ELSEWHERE = re.compile(
    rb"\x05wordsj.\n\x08location\x12.([\w.-]+)j.\n\x06offset\x12.(\d+)j.\n\x06length\x12.(\d+)", re.DOTALL
)
_CUT_TOKENS = 256  # of each text: beyond the window, and where the encoder cuts too, so that both share a tokenizer


class PairModel:
    """A small cross-encoder on ONNX Runtime, on one thread; loads when constructed, takes about 10 MB.

    Args:
        graph: The graph, ``router_models/encoder/pair.onnx``. Its table of words is the encoder's, in the file beside
            it, and read here: ONNX Runtime would map that file, and end the process where somebody writes over it.
        tokenizer: ``tokenizer.json`` of the encoder.
        sha256: What files of the graph's folder must hash to, 64 hex digits each; none: anything.

    Raises:
        MissingDependencyError: ONNX Runtime, tokenizers or numpy is not installed, or the graph is absent or damaged.
    """

    def __init__(self, graph: Path, tokenizer: Path, *, sha256: Mapping[str, str] = MappingProxyType({})) -> None:
        self._np, onnxruntime, tokenizers = libraries("the pair model", "numpy", "onnxruntime", "tokenizers")
        self._foreign = onnxruntime_errors(onnxruntime)
        try:
            text = tokenizer.read_text(encoding="utf-8")
            other = [name for name, digest in sha256.items() if _hash(graph.with_name(name)) != digest]
            self._given = {} if other else self._tables(graph)
        except (OSError, ValueError) as exc:
            raise _damaged(str(exc)) from exc
        if other:
            raise _damaged(f"{', '.join(other)} is another file")
        try:
            self._session = session(onnxruntime, graph, is_fused=True, given=self._given)
        except self._foreign as exc:
            raise _damaged(str(exc)) from exc
        try:
            self._tokenizer = tokenizer_of(tokenizers, text, _CUT_TOKENS)
        except Exception as exc:  # tokenizers raises nothing narrower
            raise _damaged(f"{tokenizer.name}: {exc}") from exc
        self._unknown = self._tokenizer.token_to_id("[UNK]")

    def logit(self, question: str, entry: str) -> float | None:
        """How much speaks for one answer to both; the order of the two makes no difference.

        Args:
            question: A text; case makes no difference.
            entry: Another.

        Returns:
            The logit, not calibrated (`probability` does that); None where it cannot tell: both together are longer
            than its window, or hold characters that its vocabulary lacks.

        Raises:
            CacheError: ONNX Runtime failed, or gave no number.
        """
        if len(question) + len(entry) > _MOST_CHARS:
            return None
        one, other = sorted((" ".join(question.lower().split()), " ".join(entry.lower().split())))
        a, b = self._ids(one), self._ids(other)
        if len(a) + len(b) + 3 > WINDOW_TOKENS or self._unknown in a or self._unknown in b:
            return None
        ids, marks = joined(a, b)
        feed = {"input_ids": self._np.array([ids], self._np.int64), "marks": self._np.array([marks], self._np.int64)}
        try:
            found = float(self._session.run(["logit"], feed)[0][0])
        except self._foreign as exc:
            raise CacheError(f"the pair model could not run: {exc}") from exc
        if not math.isfinite(found):
            raise CacheError(f"the pair model gave {found}")
        return found

    def _tables(self, graph: Path) -> dict[str, Any]:
        """What the graph says is in a file beside it; nothing of one that holds all itself."""
        place = _ELSEWHERE.search(graph.read_bytes())
        if place is None:
            return {}
        name, start, size = place[1].decode(), int(place[2]), int(place[3])
        words = self._np.fromfile(graph.with_name(name), self._np.int8, size, offset=start)
        return {"words": words.reshape(-1, _DIM)}

    def _ids(self, text: str) -> list[int]:
        sound = text.encode("utf-8", "replace").decode()  # lone surrogates are no Unicode text
        ids: list[int] = self._tokenizer.encode(sound, add_special_tokens=False).ids
        return ids


def shipped_model() -> PairModel:
    """The pair model that ships with llm-proxy.

    Raises:
        MissingDependencyError: As for `PairModel`.
    """
    folder = model_folder("encoder")
    try:
        settings = json.loads((model_folder("guard") / "config.json").read_bytes())
        graph = str(settings["graph"])
        sha256 = {name: str(settings["sha256"][name]) for name in (graph, "model.onnx")}
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise _damaged(f"config.json: {exc}") from exc
    return PairModel(folder / graph, folder / "tokenizer.json", sha256=sha256)


def joined(a: list[int], b: list[int]) -> tuple[list[int], list[int]]:
    """One row of tokens of two texts.

    Args:
        a: Token ids of the first, without special ones.
        b: Of the second.

    Returns:
        Ids, and of each its mark: 0 in the first text, 1 in the second, 2 more where the other text lacks the token.
    """
    in_a, in_b = set(a), set(b)
    marks = [0] + [0 if i in in_b else 2 for i in a] + [0] + [1 if i in in_a else 3 for i in b] + [1]
    return [_CLS, *a, _SEP, *b, _SEP], marks


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _damaged(why: str) -> MissingDependencyError:
    return MissingDependencyError(f"the pair model of this installation is damaged ({why}); {REINSTALL}")
