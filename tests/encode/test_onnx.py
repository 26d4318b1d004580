import json
import random
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.encode import models
from llm_proxy.encode.onnx import OnnxEncoder
from llm_proxy.errors import CacheError, ConfigError, MissingDependencyError

from . import tiny_onnx

SHIPPED = models.model_folder("encoder")
QUESTION = "what is the best way to reset the password of my online account today"  # 16 tokens
LONG = " ".join(f"Paragraph {number} of the report says nothing that is new." for number in range(60))


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    return OnnxEncoder()


@pytest.fixture(scope="module")
def floating() -> OnnxEncoder:
    return OnnxEncoder(precision="float")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder like the shipped one; replace files, do not write into them."""
    for path in SHIPPED.iterdir():
        if path.suffix in {".onnx", ".json"}:
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def replace(folder: Path, name: str, content: bytes) -> None:
    """Another file, with a config.json that describes it."""
    config = json.loads((folder / "config.json").read_bytes())
    config["sha256"][name] = sha256(content).hexdigest()
    for path, data in ((folder / name, content), (folder / "config.json", json.dumps(config).encode())):
        path.unlink()
        path.write_bytes(data)


def cosine(a: Any, b: Any) -> float:
    return float(a @ b)


class TestReference:
    """Against the float32 original: vectors made by sentence-transformers, shipped beside the model."""

    texts: list[str] = json.loads((SHIPPED / "reference.json").read_text(encoding="utf-8"))
    vectors = np.frombuffer((SHIPPED / "reference.f32").read_bytes(), "<f4").reshape(-1, 384)

    def test_int8(self, encoder: OnnxEncoder) -> None:
        cosines = (encoder.encode_batch(self.texts) * self.vectors).sum(axis=1)
        assert cosines.mean() > 0.998
        assert cosines.min() > 0.985

    def test_float(self, floating: OnnxEncoder) -> None:
        cosines = (floating.encode_batch(self.texts) * self.vectors).sum(axis=1)
        assert cosines.mean() > 0.999
        assert cosines.min() > 0.99

    def test_case_and_accents_do_not_count(self, encoder: OnnxEncoder) -> None:
        assert np.array_equal(encoder.encode("Où est le CAFÉ ?").vector, encoder.encode("ou est le cafe ?").vector)


class TestContract:
    def test_name_and_dim(self, encoder: OnnxEncoder) -> None:
        named = json.loads((SHIPPED / "config.json").read_bytes())["vectors"]["int8"]
        assert encoder.name == f"all-MiniLM-L6-v2-int8@{named[:12]}"
        assert (encoder.dim, encoder.window_tokens, encoder.provider) == (384, 256, "CPUExecutionProvider")

    def test_other_arithmetic_has_another_name(self, floating: OnnxEncoder) -> None:
        named = json.loads((SHIPPED / "config.json").read_bytes())["vectors"]["float"]
        assert floating.name == f"all-MiniLM-L6-v2-float@{named[:12]}"

    def test_a_graph_that_names_no_vectors_is_named_by_itself(self, copy: Path) -> None:
        config = json.loads((copy / "config.json").read_bytes())
        del config["vectors"]
        (copy / "config.json").unlink()
        (copy / "config.json").write_text(json.dumps(config))
        digest = sha256((SHIPPED / "model.onnx").read_bytes()).hexdigest()
        assert OnnxEncoder(copy).name == f"all-MiniLM-L6-v2-int8@{digest[:12]}"

    def test_a_short_text_is_seen_whole(self, encoder: OnnxEncoder) -> None:
        encoding = encoder.encode(QUESTION)
        assert encoding.seen_chars == len(QUESTION)
        assert encoding.vector.shape == (384,)
        assert encoding.vector.dtype == np.float32
        assert cosine(encoding.vector, encoding.vector) == pytest.approx(1, abs=1e-5)

    def test_the_same_text_has_the_same_vector(self, encoder: OnnxEncoder) -> None:
        assert np.array_equal(encoder.encode(QUESTION).vector, encoder.encode(QUESTION).vector)

    def test_meaning_is_near(self, encoder: OnnxEncoder) -> None:
        asked, same, other = (
            encoder.encode(text).vector
            for text in ("How do I reset my password?", "how can i reset my password", "What is the capital of Peru?")
        )
        assert cosine(asked, same) > 0.95
        assert cosine(asked, other) < 0.3

    @given(st.text(st.characters(exclude_categories=()), max_size=300))
    @settings(max_examples=60, deadline=None)
    def test_any_text_works(self, encoder: OnnxEncoder, text: str) -> None:
        encoding = encoder.encode(text)
        assert 0 <= encoding.seen_chars <= len(text)
        assert cosine(encoding.vector, encoding.vector) == pytest.approx(1, abs=1e-5)

    @given(st.text(max_size=40), st.text(max_size=40), st.integers(200, 400))
    @settings(max_examples=25, deadline=None)
    def test_what_is_unseen_does_not_change_the_vector(
        self, encoder: OnnxEncoder, start: str, end: str, words: int
    ) -> None:
        text = start + " word" * words
        encoding = encoder.encode(text)
        seen = text[: encoding.seen_chars]
        if encoding.seen_chars < len(text) and "word" in seen:  # cut at the window, not at an unknown word
            assert cosine(encoder.encode(f"{seen} {end}").vector, encoding.vector) == pytest.approx(1, abs=1e-4)

    def test_threads_get_the_vectors_of_their_texts(self, encoder: OnnxEncoder) -> None:
        texts = [f"{QUESTION} {'again ' * (number % 7)}{number}" for number in range(64)]
        alone = [encoder.encode(text).vector for text in texts]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda text: encoder.encode(text).vector, texts))
        assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


class TestWindow:
    def test_a_long_text_is_seen_up_to_the_window(self, encoder: OnnxEncoder) -> None:
        encoding = encoder.encode(LONG)
        assert 500 < encoding.seen_chars < len(LONG)
        assert encoder.count_tokens(LONG) == 256
        assert encoder.count_tokens(LONG[: encoding.seen_chars]) == 256

    def test_a_text_that_just_fits_is_seen_whole(self, encoder: OnnxEncoder) -> None:
        fits = "word " * 254
        assert encoder.encode(fits).seen_chars == len(fits)
        assert encoder.encode(fits + "word").seen_chars == len(fits) - 1

    def test_texts_that_differ_beyond_the_window_share_a_vector_and_say_so(self, encoder: OnnxEncoder) -> None:
        one, two = encoder.encode(LONG + " yes"), encoder.encode(LONG + " no")
        assert np.array_equal(one.vector, two.vector)
        assert one.seen_chars == two.seen_chars < len(LONG)

    @pytest.mark.parametrize("unknown", ["🎉", "x" * 101, "[UNK]"])
    def test_what_the_vocabulary_lacks_is_unseen(self, encoder: OnnxEncoder, unknown: str) -> None:
        assert encoder.encode(f"Party {unknown} at eight").seen_chars == len("Party ")

    def test_chinese_questions_never_meet_by_vector_alone(self, encoder: OnnxEncoder) -> None:
        assert encoder.encode("你们几点关门").seen_chars <= 1

    @pytest.mark.parametrize(
        ("text", "seen"),
        [("", 0), ("\x00", 1), (" \n\t", 3), ("\ud800", 0), ("ask \udfff this", 4), ("[SEP] [CLS]", 11)],
    )
    def test_odd_texts(self, encoder: OnnxEncoder, text: str, seen: int) -> None:
        assert encoder.encode(text).seen_chars == seen

    @pytest.mark.parametrize(
        "text",
        ["x" * 10**6, "hello world " * 90_000, "\x00" * 10**6, " " * 10**6 + "x", "🎉" * 10**6, "\ud800" * 10**6],
        ids=["one word", "words", "NUL", "blanks", "emoji", "surrogates"],
    )
    def test_a_megabyte_takes_no_longer_than_a_window(self, encoder: OnnxEncoder, text: str) -> None:
        start = time.perf_counter()
        seen = encoder.encode(text).seen_chars
        assert time.perf_counter() - start < 1  # 25 ms on a quiet machine
        assert seen <= 256 * 16


class TestBatch:
    def test_rows_are_the_vectors_of_single_texts(self, encoder: OnnxEncoder) -> None:
        texts = [QUESTION, "hi", LONG, ""]
        batch = encoder.encode_batch(texts)
        assert batch.dtype == np.float32
        assert np.array_equal(batch, np.stack([encoder.encode(text).vector for text in texts]))

    def test_padded_rows_are_the_same_up_to_rounding(self, floating: OnnxEncoder) -> None:
        texts = [QUESTION, "hi", "", *(f"question {number}" for number in range(70)), LONG]
        single = np.stack([floating.encode(text).vector for text in texts])
        assert np.abs(floating.encode_batch(texts) - single).max() < 1e-5

    def test_inner_layers_come_beside_the_vector(self, encoder: OnnxEncoder, floating: OnnxEncoder) -> None:
        texts = [QUESTION, "hi", LONG, ""]
        for one in (encoder, floating):
            vectors, layers = one.encode_layers(texts)
            assert np.array_equal(vectors, one.encode_batch(texts))
            assert layers.shape == (4, one.layers_dim) == (4, 768)
            alone = np.stack([one.encode(text).layers for text in texts])
            assert np.abs(layers - alone).max() < 1e-4, "padding does not count"
        int8, full = (one.encode(QUESTION).layers for one in (encoder, floating))
        assert int8 is not None
        assert full is not None
        assert int8 @ full / np.linalg.norm(int8) / np.linalg.norm(full) > 0.99

    def test_a_graph_without_inner_layers(self, encoder: OnnxEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
        vector = encoder.encode("hi").vector[None]
        monkeypatch.setattr(encoder._graph, "_session", Session(lambda: [vector]))
        monkeypatch.setattr(encoder._graph, "layers_dim", 0)
        monkeypatch.setattr(encoder, "_layers_dim", 0)
        assert encoder.encode("hi").layers is None
        assert encoder.encode_layers(["hi"])[1].shape == (1, 0)

    @pytest.mark.parametrize("name", ["encoder", "floating"])
    def test_no_texts(self, name: str, request: pytest.FixtureRequest) -> None:
        assert request.getfixturevalue(name).encode_batch([]).shape == (0, 384)


class TestTrouble:
    @pytest.mark.parametrize("library", ["numpy", "onnxruntime", "tokenizers"])
    def test_a_missing_library_is_named_with_the_pip_line(self, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(MissingDependencyError, match=rf'{library}.*pip install "llm-proxy\[cpu\]"'):
            OnnxEncoder()

    def test_a_damaged_graph(self, copy: Path) -> None:
        data = (SHIPPED / "model.onnx").read_bytes()
        (copy / "model.onnx").unlink()
        (copy / "model.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(ConfigError, match=r"is not the file that config\.json describes"):
            OnnxEncoder(copy)

    def test_a_graph_that_is_none(self, copy: Path) -> None:
        replace(copy, "model.onnx", random.Random(0).randbytes(1000))
        with pytest.raises(ConfigError, match=r"no usable model folder: model\.onnx: "):
            OnnxEncoder(copy)

    def test_a_graph_for_something_else(self, copy: Path) -> None:
        replace(copy, "model.onnx", tiny_onnx.identity("picture", "label"))
        with pytest.raises(ConfigError, match=r"maps \['picture'\] to \['label'\]"):
            OnnxEncoder(copy)

    def test_a_folder_without_float_graph(self, copy: Path) -> None:
        config = json.loads((copy / "config.json").read_bytes())
        del config["graphs"]["float"]
        (copy / "config.json").unlink()
        (copy / "config.json").write_text(json.dumps(config))
        assert OnnxEncoder(copy).dim == 384
        with pytest.raises(ConfigError, match=r"precision 'float' is not among \['int8'\]"):
            OnnxEncoder(copy, precision="float")

    @pytest.mark.parametrize(
        ("output", "message"),
        [
            (np.full((1, 384), np.nan, np.float32), "not of unit length"),
            (np.zeros((1, 384), np.float32), "not of unit length"),
            (np.ones((1, 3), np.float32), r"shape \(1, 3\), not \(1, 384\)"),
        ],
    )
    def test_a_vector_that_is_none(
        self, encoder: OnnxEncoder, monkeypatch: pytest.MonkeyPatch, output: Any, message: str
    ) -> None:
        monkeypatch.setattr(encoder._graph, "_session", Session(lambda: [output]))
        with pytest.raises(CacheError, match=message):
            encoder.encode(QUESTION)

    def test_a_run_that_fails(self, encoder: OnnxEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
        from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

        def fail() -> list[Any]:
            raise RuntimeException("no memory for you")

        monkeypatch.setattr(encoder._graph, "_session", Session(fail))
        with pytest.raises(CacheError, match="could not run: no memory for you"):
            encoder.encode(QUESTION)


class Session:
    """A session whose runs come out as told."""

    def __init__(self, outcome: Callable[[], list[Any]]) -> None:
        self._outcome = outcome

    def run(self, names: list[str], feed: dict[str, Any]) -> list[Any]:
        return self._outcome()


def test_a_question_takes_about_a_millisecond(encoder: OnnxEncoder) -> None:
    assert encoder.count_tokens(QUESTION) == 16
    times = []
    for _ in range(300):
        start = time.perf_counter()
        encoder.encode(QUESTION)
        times.append(time.perf_counter() - start)
    assert statistics.quantiles(times, n=10)[0] < 0.006  # 1.1 ms at the median of a quiet machine


def test_a_corrupt_copy_of_a_shipped_file_asks_for_a_new_installation(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / "tokenizer.json").unlink()
    shutil.copy(SHIPPED / "reference.json", copy / "tokenizer.json")
    monkeypatch.setattr(models, "model_folder", lambda name: copy)
    with pytest.raises(MissingDependencyError, match=r"tokenizer\.json is not the file.*--force-reinstall"):
        OnnxEncoder()
