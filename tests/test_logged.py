"""The log of outcomes as training data: what is missing stays missing, the surest says, and no prompt is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_proxy.errors import ConfigError, UnknownCallError
from llm_proxy.learning import Feedback
from llm_proxy.logged import LogSource
from llm_proxy.observe.events import GradeEvent, RoutedEvent, Troubles
from llm_proxy.observe.outcomes import Kept, OutcomeLog
from llm_proxy.route.features import FEATURES, text_features
from llm_proxy.route.outcomes import read_outcomes
from llm_proxy.route.train.evaluate import Encoded
from llm_proxy.route.train.fit import Inputs
from llm_proxy.route.train.make import encode
from llm_proxy.testing import FakeClock, FakeEncoder
from llm_proxy.types import Usage
from tests.observe.ledger_kit import Later
from tests.route.route_kit import TopicEncoder, lines, written


class Log:
    """A log to be filled."""

    def __init__(self, path: Path, encoder: Any, *, has_prompts: bool = False) -> None:
        self.path, self.encoder, self.clock, self.count = path, encoder, FakeClock(), 0
        kept = Kept(10_000, 30.0, 1 << 30, has_prompts)
        self.log = OutcomeLog(path, kept, clock=self.clock, troubles=Troubles(), features=text_features, later=Later())

    def call(self, question: str, *grades: tuple[str, float, str], model: str = "small", **changes: Any) -> None:
        """One call with what became of it: models, scores and sources."""
        self.count += 1
        encoding = self.encoder.encode(question)
        fields: dict[str, Any] = {
            "at_s": self.clock.time() + self.count,
            "call_id": f"r{self.count}",
            "owner": "o",
            "route": "auto",
            "candidates": ("b/small", "b/large"),
            "backend": "b",
            "model": model,
            "question": question,
            "encoder": self.encoder.name,
            "vector": encoding.vector,
            "layers": encoding.layers,
            **changes,
        }
        self.log(RoutedEvent(**fields))
        for name, score, source in grades:
            backend, short = f"b/{name}".split("/")[-2:]
            said: Any = source
            self.log(GradeEvent(self.clock.time(), f"r{self.count}", fields["route"], backend, short, said, score))

    def source(self, encoder: Any = None, **which: Any) -> LogSource:
        self.log.flush()
        return LogSource(self.path, encoder or self.encoder, **which)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "outcomes.sqlite3", FakeEncoder())


def test_what_is_missing_is_not_nought(log: Log) -> None:
    log.call("one?", ("small", 1.0, "feedback"), usage=Usage(5, 9), cost_usd=0.5)
    log.call("two?", ("large", 0.0, "feedback"), model="large", usage=Usage(6, 8))
    found = log.source().outcomes()
    assert found.models == ("small", "large")
    assert np.array_equal(found.scores, [[1.0, np.nan], [np.nan, 0.0]], equal_nan=True)
    assert np.array_equal(found.tokens, [[9.0, np.nan], [np.nan, 8.0]], equal_nan=True)
    assert np.array_equal(found.usd, [[0.5, np.nan], [np.nan, np.nan]], equal_nan=True)
    assert found.prompt_tokens.tolist() == [5.0, 6.0]
    assert found.chars is not None
    assert found.chars.tolist() == [4.0, 4.0]
    assert not {"one?", "two?"} & set(found.prompts)
    assert found.rows([1]).chars == [4.0]


def test_the_surest_says(log: Log) -> None:
    sources = ("score", "agreement", "judge", "comparison", "feedback")
    for count in range(1, len(sources) + 1):
        log.call(f"question {count}", *(("small", at / 4, source) for at, source in enumerate(sources[:count])))
        log.call(f"question {count}", ("large", 1.0, "comparison"))
    found = log.source().outcomes()
    assert found.scores[:, 0].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_one_question_is_one_row(log: Log) -> None:
    log.call("one?", ("small", 1.0, "feedback"), ("large", 1.0, "comparison"))
    log.call("one?", ("small", 0.0, "feedback"))
    log.call("two?", ("large", 0.5, "feedback"))
    source = log.source()
    assert (len(source), len(source.outcomes())) == (3, 2)
    assert source.outcomes().of("small", "large").scores[0].tolist() == [0.5, 1.0]
    seen = source.seen()
    assert seen.vectors.shape == (2, log.encoder.dim)
    assert seen.features.shape == (2, len(FEATURES))
    assert seen.layers.shape[0] == 2
    assert np.allclose(seen.vectors[0], log.encoder.encode("one?").vector, atol=1e-3)
    assert np.allclose(np.linalg.norm(seen.vectors, axis=1), 1.0)
    assert seen.chars.tolist() == [4.0, 4.0]
    assert len(source.seen(1).vectors) == 1


def test_a_model_on_two_backends_is_two(log: Log) -> None:
    log.call("one?", ("small", 1.0, "feedback"), ("c/small", 0.0, "comparison"), ("large", 1.0, "comparison"))
    assert set(log.source().outcomes().models) == {"b/small", "c/small", "large"}


def test_prompts_where_all_were_kept(tmp_path: Path) -> None:
    log = Log(tmp_path / "o.sqlite3", FakeEncoder(), has_prompts=True)
    log.call("one?", ("small", 1.0, "feedback"), ("large", 0.5, "comparison"))
    found = log.source().outcomes()
    assert (found.prompts, found.chars) == (("one?",), None)
    log.call("x" * 9000, ("small", 1.0, "feedback"))
    assert log.source().outcomes().chars is not None, "one was cut"


class TestUnusable:
    def test_of_another_encoder(self, tmp_path: Path) -> None:
        log = Log(tmp_path / "o.sqlite3", FakeEncoder())
        log.call("one?", ("small", 1.0, "feedback"))
        with pytest.raises(ConfigError, match="1 have none, or another's"):
            log.source(TopicEncoder())
        log.call("two?", ("small", 1.0, "feedback"), encoder=TopicEncoder().name)
        source = log.source(TopicEncoder())
        assert (len(source), source.unusable) == (1, 1)

    def test_encoded_anew_where_the_prompt_was_kept(self, tmp_path: Path) -> None:
        log = Log(tmp_path / "o.sqlite3", FakeEncoder(), has_prompts=True)
        log.call("about law?", ("small", 1.0, "feedback"))
        source = log.source(TopicEncoder())
        assert np.allclose(source.seen().vectors[0], TopicEncoder().encode("about law?").vector, atol=1e-6)

    def test_without_features_or_vector(self, log: Log) -> None:
        log.call("", ("small", 1.0, "feedback"))
        log.call("two?", ("small", 1.0, "feedback"), vector=None, layers=None)
        log.call("three?", ("small", 1.0, "feedback"))
        source = log.source()
        assert (len(source), source.unusable) == (1, 2)

    def test_features_of_another_version(self, tmp_path: Path) -> None:
        log = Log(tmp_path / "o.sqlite3", FakeEncoder())
        log.log._features = lambda text: (1.0, 2.0)
        log.call("one?", ("small", 1.0, "feedback"))
        with pytest.raises(ConfigError, match="no outcomes with vectors of this encoder"):
            log.source()

    def test_layers_of_another_version(self, log: Log) -> None:
        log.call("one?", ("small", 1.0, "feedback"), layers=np.zeros(3, np.float32))
        log.call("two?", ("small", 1.0, "feedback"))
        source = log.source()
        assert (len(source), source.unusable) == (1, 1)

    @pytest.mark.parametrize(
        ("which", "said"),
        [
            ({}, "has no outcomes yet: they come from feedback"),
            ({"route": "fast"}, "no outcomes of the route 'fast' yet"),
            ({"since_s": 5.0}, "no outcomes since the head was trained yet"),
            ({"only_graded": False}, "no calls yet"),
        ],
    )
    def test_nothing(self, log: Log, which: Any, said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            log.source(**which)

    def test_one_model_only(self, log: Log) -> None:
        log.call("one?", ("small", 1.0, "feedback"))
        with pytest.raises(ConfigError, match="scores of 'small' only"):
            log.source().outcomes()


def test_calls_since_a_time_and_those_of_which_nothing_is_known(log: Log) -> None:
    log.call("one?", ("small", 1.0, "feedback"))
    log.call("two?")
    assert len(log.source()) == 1
    assert log.source().newest_s == log.clock.time() + 1
    everything = log.source(only_graded=False)
    assert (len(everything), len(everything.seen().vectors)) == (2, 2)
    assert list(everything.graded())[1:] == []
    with pytest.raises(ConfigError, match="since"):
        log.source(since_s=log.clock.time() + 1)


def test_a_head_that_is_trained_from_what_was_kept_is_as_good(tmp_path: Path) -> None:
    """The same outcomes as a file with prompts, and as a log without, in float16 and with a quarter of them missing."""
    rows = lines(240)
    encoder = TopicEncoder()
    outcomes = read_outcomes(written(tmp_path / "log.jsonl", rows))
    whole = encode(outcomes, encoder)
    log = Log(tmp_path / "o.sqlite3", encoder)
    for at, row in enumerate(rows):
        grades = [(name, score, "feedback") for name, score in row["scores"].items()]
        log.call(row["prompt"], *(grades if at % 2 else grades[at // 2 % 2 :][:1]))
    source = log.source()
    seen = source.seen()
    kept = Encoded(source.outcomes(), Inputs(seen.vectors, seen.features, seen.layers))
    assert np.isnan(kept.outcomes.scores).sum() == 120
    models = outcomes.models
    by_file, _ = whole.fit(models).predict(whole.inputs)
    by_log, _ = kept.fit(models).predict(whole.inputs)
    assert np.corrcoef(by_file.ravel(), by_log.ravel())[0, 1] > 0.8


class TestFeedback:
    def test_without_a_log(self) -> None:
        nobody = Feedback(None, tenant="api_key", undo=lambda call_id: None, clock=FakeClock())
        with pytest.raises(UnknownCallError):
            nobody.give("r1", True)
