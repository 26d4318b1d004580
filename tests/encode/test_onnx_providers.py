"""Where the encoder runs: providers that are pinned, that do not start, and one that works and is lost."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_proxy.encode import models
from llm_proxy.encode.onnx import OnnxEncoder
from llm_proxy.errors import ConfigError, MissingDependencyError
from llm_proxy.testing import FakeClock

SHIPPED = models.model_folder("encoder")
QUESTION = "what is the best way to reset the password of my online account today"


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    return OnnxEncoder()


class TestProviders:
    def test_pinned(self) -> None:
        assert OnnxEncoder(providers=["CPUExecutionProvider"]).provider == "CPUExecutionProvider"

    @pytest.mark.parametrize("providers", [["TpuExecutionProvider"], []])
    def test_one_that_is_not_there(self, providers: list[str]) -> None:
        with pytest.raises(ConfigError, match=r"it has .*CPUExecutionProvider"):
            OnnxEncoder(providers=providers)

    @pytest.mark.parametrize("device", ["auto", "cuda"])
    def test_cuda_that_is_offered_but_does_not_start(self, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """As with a GPU build on a machine without driver: the processor takes over, in its own precision."""
        self.offer_cuda(monkeypatch)
        encoder = OnnxEncoder(device=device)
        assert encoder.provider == "CPUExecutionProvider"
        assert "-int8@" in encoder.name
        assert encoder.passed_over == (
            ("CUDAExecutionProvider", "CUDAExecutionProvider did not start; are its libraries installed?"),
        )

    def test_a_device_that_nobody_knows(self) -> None:
        with pytest.raises(ConfigError, match=r"device 'tpu' must be auto or one of cpu, cuda"):
            OnnxEncoder(device="tpu")

    def test_cuda_that_is_pinned_but_does_not_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offer_cuda(monkeypatch)
        with pytest.raises(ConfigError, match="CUDAExecutionProvider did not start"):
            OnnxEncoder(providers=["CUDAExecutionProvider"])

    def test_cuda_that_fails_at_the_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import onnxruntime

        start = onnxruntime.InferenceSession

        def session(path: str, options: Any, *, providers: list[str], **more: Any) -> Any:
            if "CUDAExecutionProvider" in providers:
                raise RuntimeError("libcudart.so.12: cannot open shared object file")
            return start(path, options, providers=providers, **more)

        self.offer_cuda(monkeypatch)
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        assert OnnxEncoder().provider == "CPUExecutionProvider"
        with pytest.raises(MissingDependencyError, match="libcudart"):
            OnnxEncoder(providers=["CUDAExecutionProvider"])

    def test_cuda_that_works(self, monkeypatch: pytest.MonkeyPatch, encoder: OnnxEncoder) -> None:
        """A session on the processor that says it is on CUDA: batches, and the processor behind it."""
        sessions = self.pretend_cuda(monkeypatch)
        noted, jobs, clock = list[str](), list[Callable[[], None]](), FakeClock()
        on_cuda = OnnxEncoder(
            device="cuda",
            note=lambda part, exc: noted.append(str(exc)),
            later=jobs.append,
            monotonic=clock.monotonic,
        )
        assert on_cuda.provider == "CUDAExecutionProvider"
        assert "-float@" in on_cuda.name
        texts = [f"{QUESTION} {number}" for number in range(24)]
        alone = [on_cuda.encode(text).vector for text in texts]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda text: on_cuda.encode(text).vector, texts))
        assert np.abs(np.stack(together) - np.stack(alone)).max() < 1e-5
        assert float(alone[0] @ encoder.encode(texts[0]).vector) > 0.99
        sessions[0].is_lost = True
        assert np.abs(on_cuda.encode(texts[0]).vector - alone[0]).max() < 1e-5
        assert on_cuda.encode(texts[0]).layers is not None
        assert (on_cuda.provider, len(noted)) == ("CPUExecutionProvider", 1)
        assert "device lost" in noted[0]
        clock.advance(60)
        on_cuda.encode(texts[0])
        jobs.pop()()
        assert on_cuda.provider == "CUDAExecutionProvider"
        on_cuda.after_fork()
        assert np.abs(on_cuda.encode(texts[0]).vector - alone[0]).max() < 1e-5
        assert on_cuda.provider == "CPUExecutionProvider"

    def test_cuda_with_a_folder_without_float_graph_has_no_batches(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.pretend_cuda(monkeypatch)
        config = json.loads((SHIPPED / "config.json").read_bytes())
        del config["graphs"]["float"]
        (tmp_path / "config.json").write_text(json.dumps(config))
        for name in ("model.onnx", "tokenizer.json"):
            (tmp_path / name).symlink_to(SHIPPED / name)
        encoder = OnnxEncoder(tmp_path, device="cuda")
        assert encoder.provider == "CUDAExecutionProvider"
        assert "-int8@" in encoder.name
        assert encoder.encode(QUESTION).seen_chars == len(QUESTION)
        encoder.after_fork()
        assert encoder.provider == "CPUExecutionProvider"

    @staticmethod
    def pretend_cuda(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        import onnxruntime

        start, made = onnxruntime.InferenceSession, list[Any]()

        class OnCuda:
            def __init__(self, path: str, options: Any, **more: Any) -> None:
                self.real, self.is_lost = start(path, options, providers=["CPUExecutionProvider"]), False
                self.get_inputs, self.get_outputs = self.real.get_inputs, self.real.get_outputs

            def get_providers(self) -> list[str]:
                return ["CUDAExecutionProvider", "CPUExecutionProvider"]

            def run(self, *asked: Any) -> Any:
                if self.is_lost:
                    raise RuntimeError("device lost")
                return self.real.run(*asked)

        def session(path: str, options: Any, *, providers: list[str], **more: Any) -> Any:
            if providers != ["CUDAExecutionProvider"]:
                return start(path, options, providers=providers, **more)
            made.append(OnCuda(path, options))
            return made[-1]

        there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        return made

    @staticmethod
    def offer_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
        import onnxruntime

        start = onnxruntime.InferenceSession

        def session(path: str, options: Any, *, providers: list[str], **more: Any) -> Any:
            known = [name for name in providers if name != "CUDAExecutionProvider"]
            return start(path, options, providers=known or ["CPUExecutionProvider"], **more)

        there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
