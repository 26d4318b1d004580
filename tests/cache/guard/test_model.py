"""The pair model: symmetric, bounded, and clear about what it lacks."""

from __future__ import annotations

import sys
import tracemalloc
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.cache.guard.model import WINDOW_TOKENS, PairModel, joined, shipped_model
from llm_proxy.encode.onnx import OnnxEncoder
from llm_proxy.errors import CacheError, MissingDependencyError
from llm_proxy.shipped import model_folder

GRAPH = model_folder("encoder") / "pair.onnx"
TOKENIZER = model_folder("encoder") / "tokenizer.json"


@pytest.fixture(scope="module")
def model() -> PairModel:
    return PairModel(GRAPH, TOKENIZER)


def judged(model: PairModel, one: str, other: str) -> float:
    found = model.logit(one, other)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("question", "same", "different"),
    [
        ("turn off the light in the kitchen", "switch the kitchen light off", "turn off the light in the bedroom"),
        ("how do i reset my password", "what is the best way to reset my password", "how do i change my username"),
        ("play some jazz music", "i want to hear jazz", "play some rock music"),
    ],
)
def test_the_same_question_is_likelier_than_another(model: PairModel, question: str, same: str, different: str) -> None:
    assert judged(model, question, same) > 0 > judged(model, question, different)


@given(st.text(max_size=40), st.text(max_size=40))
@settings(deadline=None)
def test_order_and_case_and_spaces_make_no_difference(one: str, other: str) -> None:
    model = _shared()
    found = model.logit(one, other)
    assert found == model.logit(other, one)
    if one.isascii():
        assert found == model.logit(f"  {one.upper()}\n", other)


_MODELS: list[PairModel] = []


def _shared() -> PairModel:
    if not _MODELS:
        _MODELS.append(PairModel(GRAPH, TOKENIZER))
    return _MODELS[0]


@pytest.mark.parametrize(
    "text",
    [
        "word " * (WINDOW_TOKENS // 2 - 1),  # 47 tokens twice, and three more
        "x" * 5_000,
        "what does 🦜 mean",
    ],
)
def test_it_does_not_judge_what_it_cannot_read(model: PairModel, text: str) -> None:
    assert model.logit(text, text) is None


def test_it_judges_up_to_its_window(model: PairModel) -> None:
    assert model.logit("word " * 46, "word " * 47) is not None  # with three special ones 96
    assert model.logit("word " * 47, "word " * 47) is None


def test_lone_surrogates_are_read(model: PairModel) -> None:
    assert model.logit("a \ud800 b", "a ? b") is not None


def test_tokens_of_one_text_only_are_marked() -> None:
    assert joined([7, 8], [8, 9, 9]) == ([101, 7, 8, 102, 8, 9, 9, 102], [0, 2, 0, 0, 1, 3, 3, 1])


def test_it_keeps_no_copy_of_its_file_but_the_words() -> None:
    PairModel(GRAPH, TOKENIZER)  # imports
    tracemalloc.start()
    try:
        model = PairModel(GRAPH, TOKENIZER)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert model.logit("a", "a") is not None
    words = sum(array.nbytes for array in model._given.values())
    assert words < GRAPH.with_name("model.onnx").stat().st_size / 1.9
    assert kept < words + GRAPH.stat().st_size / 10


def test_it_shares_the_encoders_tokenizer_which_cuts_well_beyond_its_window() -> None:
    encoder = OnnxEncoder()
    assert shipped_model()._tokenizer is encoder._tokenizer
    assert encoder.window_tokens > WINDOW_TOKENS


def test_a_file_of_another_hash_is_refused() -> None:
    right = {name: sha256(GRAPH.with_name(name).read_bytes()).hexdigest() for name in ("pair.onnx", "model.onnx")}
    PairModel(GRAPH, TOKENIZER, sha256=right)
    for name in right:
        with pytest.raises(MissingDependencyError, match=rf"damaged \({name} is another file.*pip install"):
            PairModel(GRAPH, TOKENIZER, sha256={**right, name: "0" * 64})
    with pytest.raises(MissingDependencyError, match="absent"):
        PairModel(GRAPH, TOKENIZER, sha256={"absent": "0" * 64})


def test_its_words_are_the_encoders(tmp_path: Path) -> None:
    """It has none of its own: with the encoder's file gone it can't be loaded, and of another's it would be deaf."""
    (tmp_path / "pair.onnx").write_bytes(GRAPH.read_bytes())
    with pytest.raises(MissingDependencyError, match="damaged"):
        PairModel(tmp_path / "pair.onnx", TOKENIZER)
    encoder = GRAPH.with_name("model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(encoder)
    here, there = PairModel(tmp_path / "pair.onnx", TOKENIZER), PairModel(GRAPH, TOKENIZER)
    pair = "turn off the light in the kitchen", "switch the kitchen light off"
    assert here.logit(*pair) == there.logit(*pair)
    (tmp_path / "model.onnx").write_bytes(bytes(len(encoder)))
    assert PairModel(tmp_path / "pair.onnx", TOKENIZER).logit(*pair) != there.logit(*pair)


def test_it_goes_on_where_somebody_writes_over_its_files(tmp_path: Path) -> None:
    """A file that is mapped and cut short would end the process."""
    for name in ("pair.onnx", "model.onnx"):
        (tmp_path / name).write_bytes(GRAPH.with_name(name).read_bytes())
    model, pair = PairModel(tmp_path / "pair.onnx", TOKENIZER), ("how warm is it", "what is the temperature")
    before = model.logit(*pair)
    for name in ("pair.onnx", "model.onnx"):
        with (tmp_path / name).open("r+b") as stream:
            stream.truncate(0)
    assert model.logit(*pair) == before
    assert model.logit("a word that was not read before", "another one") is not None


@pytest.mark.parametrize("content", [b'{"a":1}', b"\xff\xfe", b""])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "tokenizer.json"
    broken.write_bytes(content)
    with pytest.raises(MissingDependencyError, match="pair model of this installation is damaged"):
        PairModel(GRAPH, broken)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match="absent"):
        PairModel(tmp_path / "absent", TOKENIZER)
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(MissingDependencyError, match="damaged"):
        PairModel(tmp_path / "model.onnx", TOKENIZER)


@pytest.mark.parametrize("name", ["onnxruntime", "tokenizers", "numpy"])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=name):
        PairModel(GRAPH, TOKENIZER)


class Broken:
    """A session that fails, or gives what it was told."""

    def __init__(self, found: float | None) -> None:
        self.found = found

    def run(self, names: list[str], feed: dict[str, Any]) -> list[list[float]]:
        if self.found is None:
            raise RuntimeError("out of order")
        return [[self.found]]


@pytest.mark.parametrize(("found", "message"), [(None, "out of order"), (float("nan"), "gave nan")])
def test_a_failure_is_the_caches_own_error(monkeypatch: pytest.MonkeyPatch, found: float | None, message: str) -> None:
    model = PairModel(GRAPH, TOKENIZER)
    monkeypatch.setattr(model, "_session", Broken(found))
    with pytest.raises(CacheError, match=message):
        model.logit("a question", "another")


@pytest.mark.parametrize("settings", [None, "{", "[]", "{}", '{"graph": "model.onnx", "sha256": {}}'])
def test_a_damaged_folder_names_the_remedy(
    settings: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if settings is not None:
        (tmp_path / "config.json").write_text(settings)
    monkeypatch.setattr("llm_proxy.cache.guard.model.model_folder", lambda name: tmp_path)
    with pytest.raises(MissingDependencyError, match=r"damaged \(config.json.*pip install"):
        shipped_model()
