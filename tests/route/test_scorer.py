"""The scorer of answers: the shipped graph, graphs that are no good, and how it loads."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_proxy.errors import CacheError, ConfigError, LLMProxyError, MissingDependencyError, RouterError
from llm_proxy.route import scorer as module
from llm_proxy.route.base import Reply
from llm_proxy.route.scorer import AnswerScorer, LazyScorer
from llm_proxy.shipped import model_folder
from llm_proxy.testing import FakeEncoder

QUESTION = "James runs 12 miles a day for 5 days a week at 10 miles an hour. How many hours does he run a week?"
RIGHT = Reply('{"reasoning": "He runs 12 * 5 = 60 miles a week. That takes 60 / 10 = 6 hours.", "answer": "6"}')
WRONG = Reply("I am not sure. Perhaps about 12 * 5 = 70 miles. However, wait, none of the options match, so I cannot")


@pytest.fixture(scope="module")
def shipped() -> AnswerScorer:
    return AnswerScorer()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("config.json", "model.onnx"):
        shutil.copy(model_folder("answers") / name, tmp_path / name)
    return tmp_path


def change(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))
    return folder


def unit(seed: int) -> Any:
    vector = np.random.default_rng(seed).standard_normal(384).astype(np.float32)
    return vector / np.linalg.norm(vector)


class TestShipped:
    def test_it_knows_right_from_wrong(self, shipped: AnswerScorer) -> None:
        assert shipped.score(QUESTION, RIGHT) > 0.8
        assert shipped.score(QUESTION, WRONG) < 0.3

    def test_vectors_count(self, shipped: AnswerScorer) -> None:
        found = {shipped.score(QUESTION, RIGHT, asked=unit(seed), said=unit(seed + 1)) for seed in range(5)}
        assert len(found) > 1
        assert all(0 <= score <= 1 for score in found)

    @pytest.mark.parametrize("text", ["", " ", "\ud800", "x" * 1_000_000, "A. 1\nB. 2"])
    def test_any_text_is_scored(self, shipped: AnswerScorer, text: str) -> None:
        assert 0 <= shipped.score(text, Reply(text)) <= 1

    def test_what_is_given_beside_it_may_be_anything(self, shipped: AnswerScorer) -> None:
        for more in ({"p_good": math.nan}, {"p_good": 0.9}, {"logprobs": (-1.0,)}, {"finish_reason": "length"}):
            assert 0 <= shipped.score(QUESTION, Reply("6", **more)) <= 1  # type: ignore[arg-type]

    def test_it_has_a_name_and_is_small(self, shipped: AnswerScorer) -> None:
        assert shipped.name.startswith("answers@")
        assert (model_folder("answers") / "model.onnx").stat().st_size <= 4_000_000

    def test_a_vector_of_another_length(self, shipped: AnswerScorer) -> None:
        with pytest.raises(RouterError, match="could not run"):
            shipped.score("q", Reply("a"), asked=np.zeros(3, np.float32), said=unit(0))

    def test_what_comes_out_must_be_a_number(self, shipped: AnswerScorer, monkeypatch: pytest.MonkeyPatch) -> None:
        class Session:
            def run(self, *_: Any) -> Any:
                return [np.array([[np.nan]], np.float32)]

        monkeypatch.setattr(shipped, "_session", Session())
        with pytest.raises(RouterError, match="gave nan"):
            shipped.score("q", Reply("a"))


class TestLoading:
    def test_a_folder_that_was_named(self, folder: Path, shipped: AnswerScorer) -> None:
        assert AnswerScorer(folder).name == shipped.name

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"features": ["chars"]}, "other features"),
            ({"dim": "384"}, "dim"),
            ({"graph": "../model.onnx"}, "the folder itself"),
            ({"graph": "other.onnx"}, "other.onnx"),
            ({"sha256": {}}, "not the file"),
        ],
    )
    def test_settings_that_are_wrong(self, folder: Path, changes: Any, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            AnswerScorer(change(folder, **changes))

    @pytest.mark.parametrize("content", [b"[]", b"{", b"\xff"])
    def test_settings_that_are_none(self, folder: Path, content: bytes) -> None:
        (folder / "config.json").write_bytes(content)
        with pytest.raises(ConfigError, match="no usable scorer"):
            AnswerScorer(folder)

    def test_an_absent_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no usable scorer"):
            AnswerScorer(tmp_path / "absent")

    def test_a_graph_that_is_none(self, folder: Path) -> None:
        (folder / "model.onnx").write_bytes(b"no graph")
        with pytest.raises(ConfigError, match="no usable scorer"):
            AnswerScorer(change(folder, sha256={"model.onnx": hashlib.sha256(b"no graph").hexdigest()}))

    def test_a_graph_of_another_kind(self, folder: Path) -> None:
        other = model_folder("encoder") / "model.onnx"
        shutil.copy(other, folder / "model.onnx")
        sha256 = {"model.onnx": hashlib.sha256(other.read_bytes()).hexdigest()}
        with pytest.raises(ConfigError, match="the graph maps"):
            AnswerScorer(change(folder, sha256=sha256))

    def test_damage_to_the_shipped_one(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "model.onnx").write_bytes(b"")
        monkeypatch.setattr(module, "model_folder", lambda name: folder)
        with pytest.raises(MissingDependencyError, match="reinstall"):
            AnswerScorer()

    def test_without_onnxruntime(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(MissingDependencyError, match=r"llm-proxy\[cpu\]"):
            AnswerScorer()


class Spy:
    encoders = ("fake-384",)

    def __init__(self) -> None:
        self.given: list[dict[str, Any]] = []

    def score(self, question: str, answer: Reply, **vectors: Any) -> float:
        self.given.append(vectors)
        return 0.5


class TestLazy:
    def test_it_loads_with_the_first_answer(self) -> None:
        spy, loads = Spy(), []

        def load() -> Any:
            loads.append(1)
            return spy

        encoder = FakeEncoder(384)
        made = LazyScorer(encoder, load)
        assert (made.is_usable, loads) == (True, [])
        encoding = encoder.encode("q")
        for given in (encoding, None):
            assert made.score("q", Reply("a"), given) == 0.5
        assert len(loads) == 1
        assert encoder.texts == ["q", "a", "q", "a"]
        assert all(np.array_equal(vectors["asked"], encoding.vector) for vectors in spy.given)

    @pytest.mark.parametrize("encoder", [None, FakeEncoder(64), FakeEncoder(384, error=CacheError("late"))])
    def test_without_vectors_that_it_can_read(self, encoder: Any) -> None:
        spy = Spy()
        assert LazyScorer(encoder, lambda: spy).score("q", Reply("a"), None) == 0.5  # type: ignore[arg-type,return-value]
        assert spy.given == [{}]

    def test_what_could_not_be_loaded_is_not_tried_again(self) -> None:
        loads: list[int] = []

        def load() -> Any:
            loads.append(1)
            raise MissingDependencyError("no onnxruntime")

        made = LazyScorer(None, load)
        for _ in range(2):
            with pytest.raises(LLMProxyError, match="no onnxruntime"):
                made.score("q", Reply("a"), None)
        assert (made.is_usable, loads) == (False, [1])

    def test_another_thread_may_have_loaded_it(self) -> None:
        spy = Spy()
        made = LazyScorer(None, lambda: spy)  # type: ignore[arg-type,return-value]
        assert made._loaded() is made._loaded() is spy
