import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from llm_proxy import shipped
from llm_proxy.encode import models
from llm_proxy.encode.models import ModelFolder
from llm_proxy.errors import ConfigError, LLMProxyError, MissingDependencyError

SHIPPED = Path(__file__).parents[2] / "router_models" / "encoder"
SETTINGS = {
    "name": "small",
    "dim": 2,
    "window_tokens": 8,
    "unknown_token": "",
    "graphs": {"int8": "model.onnx"},
    "sha256": {"model.onnx": hashlib.sha256(b"graph").hexdigest()},
}


def folder_of(tmp_path: Path, **changes: Any) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "config.json").write_text(json.dumps({**SETTINGS, **changes}))
    return tmp_path


def test_a_checkout_has_the_encoder_beside_the_package() -> None:
    assert shipped.model_folder("encoder") == SHIPPED


def test_an_installed_package_has_it_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "llm_proxy")
    inside = tmp_path / "llm_proxy" / "router_models" / "encoder"
    inside.mkdir(parents=True)
    (tmp_path / "router_models" / "encoder").mkdir(parents=True)
    assert shipped.model_folder("encoder") == inside


def test_an_absent_model_names_the_remedy() -> None:
    with pytest.raises(MissingDependencyError, match=r"no model 'guard-of-the-future'.*pip install"):
        shipped.model_folder("guard-of-the-future")


def test_every_shipped_file_is_the_one_described() -> None:
    model = ModelFolder.read(None)
    assert model.path == SHIPPED
    assert (model.name, model.dim, model.window_tokens) == ("all-MiniLM-L6-v2", 384, 256)
    assert [model.file(name) for name in model.sha256] == [SHIPPED / name for name in model.sha256]
    assert set(model.graphs.values()) | {"tokenizer.json"} == set(model.sha256)


def test_the_shipped_folder_is_small_and_complete() -> None:
    assert (SHIPPED / "model.onnx").stat().st_size <= 24_000_000
    assert (SHIPPED / "pair.onnx").stat().st_size <= 7_000_000
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if "__pycache__" not in path.parts) < 32_000_000
    assert (SHIPPED / "card.md").is_file()


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    model = ModelFolder.read(folder_of(tmp_path))
    assert not model.is_shipped
    assert model.file("model.onnx").read_bytes() == b"graph"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": "2"}, "dim"),
        ({"dim": 0}, "out of range"),
        ({"window_tokens": 2}, "out of range"),
        ({"graphs": {"float": "model.onnx"}}, "graphs"),
        ({"graphs": {"int8": "../model.onnx"}}, "of the folder itself"),
        ({"sha256": {"sub/model.onnx": "0"}}, "of the folder itself"),
        ({"graphs": {"int8": 1}}, "of the folder itself"),
        ({"name": None}, "name"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelFolder.read(folder_of(tmp_path, **changes))


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_what_is_no_json_object(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match="no usable model folder"):
        ModelFolder.read(tmp_path)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        ModelFolder.read(tmp_path / "absent")


def test_a_missing_file(tmp_path: Path) -> None:
    model = ModelFolder.read(folder_of(tmp_path))
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(ConfigError, match=r"model\.onnx: No such file"):
        model.file("model.onnx")


@pytest.mark.parametrize("name", ["model.onnx", "config.json"])
def test_a_changed_or_undescribed_file(tmp_path: Path, name: str) -> None:
    model = ModelFolder.read(folder_of(tmp_path))
    (tmp_path / "model.onnx").write_bytes(b"grapH")
    with pytest.raises(ConfigError, match=r"is not the file that config\.json describes"):
        model.file(name)


def test_damage_to_the_shipped_model_asks_for_a_new_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "model_folder", lambda name: folder_of(tmp_path))
    model = ModelFolder.read(None)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(MissingDependencyError, match=r"damaged.*pip install --force-reinstall") as caught:
        model.file("model.onnx")
    assert isinstance(caught.value, LLMProxyError)


@pytest.mark.parametrize("vectors", ["int8", ["a"], {"int8": 1}])
def test_names_of_vectors_that_are_none(tmp_path: Path, vectors: Any) -> None:
    with pytest.raises(ConfigError, match="vectors must give hashes by precision"):
        ModelFolder.read(folder_of(tmp_path, vectors=vectors))


def test_a_faster_graph_may_keep_the_name_of_its_vectors(tmp_path: Path) -> None:
    assert ModelFolder.read(folder_of(tmp_path, vectors={"int8": "ab" * 32})).identity("int8") == "ab" * 32
    assert ModelFolder.read(folder_of(tmp_path)).identity("int8") == SETTINGS["sha256"]["model.onnx"]
