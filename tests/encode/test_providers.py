"""Which provider is used, and why another one is not."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from llm_proxy.encode.providers import AUTOMATIC, DEVICES, Choice, Pace, choose, compared
from llm_proxy.errors import CacheError, ConfigError
from llm_proxy.testing import FakeClock

from .graphs import CPU, CUDA, FakeGraph

ROCM = "ROCMExecutionProvider"
PROBES = [[1, 2, 3, 4], list(range(20))]


def chosen(
    start: Callable[[str], FakeGraph], *there: str, device: str = "auto", clock: FakeClock | None = None
) -> Choice[FakeGraph]:
    return choose(device, [*there, CPU], start, PROBES, clock=(clock or FakeClock()).monotonic)


class TestChoose:
    def test_the_processor_where_there_is_nothing_else(self) -> None:
        found = chosen(FakeGraph)
        assert (found.graph.provider, found.pace, found.passed_over) == (CPU, None, ())
        assert found.graph.batches == [], "nothing to compare it with"

    def test_the_first_that_works(self) -> None:
        found = chosen(FakeGraph, ROCM, CUDA)
        assert (found.graph.provider, found.passed_over) == (CUDA, ())

    def test_the_device_that_is_named(self) -> None:
        assert chosen(FakeGraph, ROCM, CUDA, device="rocm").graph.provider == ROCM
        assert chosen(FakeGraph, ROCM, CUDA, device="cpu").graph.provider == CPU

    @pytest.mark.parametrize("name", ["openvino", "tensorrt"])
    def test_some_are_used_only_by_name(self, name: str) -> None:
        assert chosen(FakeGraph, DEVICES[name]).graph.provider == CPU
        assert chosen(FakeGraph, DEVICES[name], device=name).graph.provider == DEVICES[name]

    def test_one_that_does_not_start_is_passed_over_and_said_once(self, caplog: pytest.LogCaptureFixture) -> None:
        def start(provider: str) -> FakeGraph:
            if provider == CUDA:
                raise ConfigError("libcudart.so.12: cannot open shared object file")
            return FakeGraph(provider)

        with caplog.at_level(logging.WARNING, "llm_proxy"):
            found = chosen(start, CUDA, ROCM)
        assert found.graph.provider == ROCM
        assert found.passed_over == ((CUDA, "libcudart.so.12: cannot open shared object file"),)
        assert [record.getMessage() for record in caplog.records] == [
            f"llm-proxy: the encoder does not use {CUDA}: libcudart.so.12: cannot open shared object file"
        ]

    def test_one_whose_run_fails(self) -> None:
        def start(provider: str) -> FakeGraph:
            graph = FakeGraph(provider)
            graph.fails_after = 3 if provider == CUDA else float("inf")
            return graph

        found = chosen(start, CUDA)
        assert (found.graph.provider, found.passed_over) == (CPU, ((CUDA, "device lost"),))

    @pytest.mark.parametrize("turn", [1.0, float("nan")])
    def test_one_whose_vectors_are_others(self, turn: float) -> None:
        def start(provider: str) -> FakeGraph:
            graph = FakeGraph(provider)
            graph.turn = turn if provider == CUDA else 0.0
            return graph

        found = chosen(start, CUDA)
        assert found.graph.provider == CPU
        assert "others than the processor's" in found.passed_over[0][1]

    def test_one_that_is_slower_is_used_only_by_name(self) -> None:
        clock = FakeClock()

        def start(provider: str) -> FakeGraph:
            return FakeGraph(provider, 0.002 if provider == CUDA else 0.001, clock)

        found = chosen(start, CUDA, clock=clock)
        assert found.graph.provider == CPU
        assert found.passed_over == ((CUDA, "it is slower: 40.0 ms for a long text, 20.0 ms here"),)
        assert chosen(start, CUDA, clock=clock, device="cuda").graph.provider == CUDA

    def test_one_that_is_named_and_not_there(self) -> None:
        found = chosen(FakeGraph, device="cuda")
        assert found.graph.provider == CPU
        assert found.passed_over == ((CUDA, f"this ONNX Runtime was built without it; it has {CPU}"),)

    def test_the_processor_is_started_once(self) -> None:
        started = list[str]()

        def start(provider: str) -> FakeGraph:
            started.append(provider)
            graph = FakeGraph(provider)
            graph.turn = 0.0 if provider == CPU else 1.0
            return graph

        assert chosen(start, *AUTOMATIC).graph.provider == CPU
        assert sorted(started) == sorted([*AUTOMATIC, CPU])

    def test_a_processor_that_does_not_start_is_an_error(self) -> None:
        def start(provider: str) -> FakeGraph:
            raise ConfigError("damaged")

        with pytest.raises(ConfigError, match="damaged"):
            chosen(start, CUDA)


class TestPace:
    def test_it_is_a_line_from_the_shorter_probe_on(self) -> None:
        pace = Pace((10, 110), (0.001, 0.011))
        assert [pace.expected_s(tokens) for tokens in (1, 10, 60, 110, 210)] == pytest.approx(
            [0.001, 0.001, 0.006, 0.011, 0.021]
        )

    def test_probes_of_one_length_and_a_longer_one_that_was_quicker(self) -> None:
        assert Pace((10, 10), (0.001, 0.001)).expected_s(20) == pytest.approx(0.001)
        assert Pace((10, 20), (0.002, 0.001)).expected_s(20) == pytest.approx(0.002)

    def test_it_is_the_processor_s(self) -> None:
        clock = FakeClock()
        found = compared(FakeGraph(CUDA, 0.5, clock), FakeGraph(CPU, 0.001, clock), PROBES, clock=clock.monotonic)
        assert found.tokens == (4, 20)
        assert found.took_s == pytest.approx((0.004, 0.02), rel=1e-3)

    def test_a_failing_comparison_raises(self) -> None:
        graph = FakeGraph()
        graph.fails_after = 0
        with pytest.raises(CacheError, match="device lost"):
            compared(graph, FakeGraph(CPU), PROBES)
