"""Heads as files: what is read, and what is refused with the reason."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_proxy.encode.base import Encoding
from llm_proxy.errors import ConfigError, MissingDependencyError, RouterError
from llm_proxy.route.features import FEATURES
from llm_proxy.route.heads import HeadConfig, OnnxHead
from llm_proxy.route.train.export import to_onnx
from llm_proxy.route.train.fit import fit
from tests.route.test_learner import inputs, outcomes

pytest.importorskip("onnxruntime")

_DIM, _LAYERS = 8, 6


def written(folder: Path, content: bytes, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    config = HeadConfig("own", "topics", _DIM, _LAYERS, FEATURES, ("m0", "m1"), "model.onnx", digest)
    replace(config, **changes).write(folder)
    return folder


@pytest.fixture(scope="session")
def graph() -> bytes:
    n = 40
    scores = np.stack([np.arange(n) % 2, np.ones(n)], axis=1)
    tokens = np.stack([np.full(n, 100.0), np.full(n, np.nan)], axis=1)
    return to_onnx(fit(outcomes(scores, tokens), inputs(n)), dim=_DIM, layers=_LAYERS)


@pytest.fixture
def folder(tmp_path: Path, graph: bytes) -> Path:
    return written(tmp_path / "head", graph)


def encoding(*, dim: int = _DIM, layers: int = _LAYERS, value: float = 1.0) -> Encoding:
    vector = np.zeros(dim, np.float32)
    vector[0] = value
    return Encoding(vector, 2, np.zeros(layers, np.float32) if layers else None)


class TestOnnxHead:
    def test_it_predicts(self, folder: Path) -> None:
        head = OnnxHead(folder)
        assert head.name.startswith("own@")
        assert head.models == ("m0", "m1")
        assert head.encoder == "topics"
        found = head.predict("hi", encoding())
        assert set(found) == {"m0", "m1"}
        assert all(0 <= one.p_good <= 1 for one in found.values())
        assert found["m0"].completion_tokens == pytest.approx(101, rel=0.05)
        assert found["m1"].completion_tokens is None

    def test_a_prompt_of_a_megabyte(self, folder: Path) -> None:
        assert OnnxHead(folder).predict("x" * 1_000_000, encoding())["m0"].p_good >= 0

    @pytest.mark.parametrize(
        ("given", "match"),
        [
            (encoding(dim=4), "could not run"),
            (encoding(layers=3), "could not run"),
            (encoding(layers=0), "does not show"),
            (encoding(value=math.nan), "something else than numbers"),
        ],
    )
    def test_what_it_can_not_read(self, folder: Path, given: Encoding, match: str) -> None:
        with pytest.raises(RouterError, match=match):
            OnnxHead(folder).predict("hi", given)

    def test_an_answer_of_absurd_length(self, tmp_path: Path) -> None:
        fitted = fit(outcomes(np.ones((4, 1)), np.full((4, 1), 3e38)), inputs(4))
        graph = to_onnx(fitted, dim=_DIM, layers=_LAYERS)
        found = OnnxHead(written(tmp_path / "head", graph, models=("m0",))).predict("hi", encoding())
        assert found["m0"].completion_tokens == pytest.approx(math.exp(20))

    def test_a_graph_that_gives_another_shape(self, folder: Path, graph: bytes) -> None:
        with pytest.raises(ConfigError, match=r"no usable head: .* gave shapes"):
            OnnxHead(written(folder, graph, models=("m0", "m1", "m2")))

    def test_one_that_loads_and_can_not_answer(self, folder: Path) -> None:
        fitted = fit(outcomes(np.eye(2).repeat(20, 0)), inputs(40))
        broken = replace(fitted, scores=replace(fitted.scores, bias=np.full_like(fitted.scores.bias, np.nan)))
        with pytest.raises(ConfigError, match="something else than numbers"):
            OnnxHead(written(folder, to_onnx(broken, dim=_DIM, layers=_LAYERS)))

    def test_a_name_that_no_file_can_have(self, folder: Path, graph: bytes) -> None:
        with pytest.raises(ConfigError, match="no usable head"):
            OnnxHead(written(folder, graph, graph="model\0.onnx"))

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"dim": 9}, "config.json says something else"),
            ({"layers": 0}, "its graph maps"),
            ({"features": FEATURES[1:]}, "config.json says something else"),
            ({"sha256": "0" * 64}, "is not the file"),
            ({"graph": "other.onnx"}, "other.onnx: No such file"),
        ],
    )
    def test_another_graph_than_described(
        self, folder: Path, graph: bytes, changes: dict[str, Any], match: str
    ) -> None:
        with pytest.raises(ConfigError, match=match):
            OnnxHead(written(folder, graph, **changes))

    def test_a_graph_that_is_none(self, folder: Path) -> None:
        with pytest.raises(ConfigError, match=r"no usable head: model\.onnx"):
            OnnxHead(written(folder, b"nonsense"))

    def test_without_onnxruntime(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(MissingDependencyError, match=r"llm-proxy\[cpu\]"):
            OnnxHead(folder)


class TestHeadConfig:
    def test_there_and_back(self, folder: Path) -> None:
        config = HeadConfig.read(folder)
        config.write(folder)
        assert HeadConfig.read(folder) == config

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"config\.json"):
            HeadConfig.read(tmp_path / "none")

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"format": 2}, "train the head anew"),
            ({"name": 3}, "name: absent"),
            ({"models": "m0"}, "models: absent"),
            ({"dim": True}, "dim: absent"),
            ({"layers": -1}, "layers: absent"),
            ({"models": []}, "none, or one of them twice"),
            ({"models": ["m", "m"]}, "none, or one of them twice"),
            ({"features": ["phase of the moon"]}, "phase of the moon: unknown"),
            ({"graph": "../model.onnx"}, "must name a file of the folder"),
        ],
    )
    def test_a_wrong_one(self, folder: Path, change: dict[str, Any], match: str) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises(ConfigError, match=match):
            HeadConfig.read(folder)

    @pytest.mark.parametrize("text", ["", "[]", "{", "\ufeff\x00"])
    def test_no_object(self, folder: Path, text: str) -> None:
        (folder / "config.json").write_text(text)
        with pytest.raises(ConfigError, match=r"config\.json"):
            HeadConfig.read(folder)

    def test_the_folder_may_move(self, folder: Path, tmp_path: Path) -> None:
        shutil.move(folder, tmp_path / "elsewhere")
        assert OnnxHead(tmp_path / "elsewhere").models == ("m0", "m1")
