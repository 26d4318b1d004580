"""A tiny model that gains from examples, and a route that counts on them: ``python -m benchmarks.induction``.

It needs torch and transformers (``pip install torch==2.13.0 transformers``) and some minutes of one core: a Llama
of 0.2 million parameters is trained from nothing on three kinds of work, in words of its own.

``dates``      a date is to be written in a house's own form, one of nine; which, only examples tell
``backwards``  numbers are to be said backwards; it can do that without
``codes``      the code of a word is asked for, which nobody told it; examples of other words do not help

Then a route with this model and a simulated strong one, that knows house and codes, is asked questions of one house,
with `examples` and without. The route has a head that knows how good the tiny model is without examples, as measured.
A share of the answers is compared (`compare_share`), and that is all it learns from.

``right_by_examples``: share of right answers by how many examples there are. ``routed``: per kind, with and without,
the share of calls that the tiny model answered, the share of right answers, and of its calls those that had examples;
over the second half of the calls. ``usd_ratio``: what all calls cost with examples, over what they cost without.
"""

from __future__ import annotations

import random
import re
import statistics
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

from llm_proxy import OpenAI
from llm_proxy.config import Config
from llm_proxy.route.base import Prediction
from llm_proxy.runtime import Runtime
from llm_proxy.testing import FakeBackend, FakeEncoder

from ._report import arguments, report

__all__ = ["KINDS", "House", "Task", "main", "right_by_examples", "routed"]

KINDS = ("dates", "backwards", "codes")
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "island", "jasper", "kestrel", "lotus",
         "maple", "nectar", "olive", "prairie", "quartz", "raven", "sable", "tulip")  # fmt: skip
_SYSTEM = {kind: f"You do {kind}." for kind in KINDS}
_ROLES = ("<pad>", "<end>", "<system>", "<user>", "<assistant>")
_FRAME = ("You", "do", *KINDS, ".", "Write", "day", "month", "year", "as", "we", "Say", "What", "is", "the", "code",
          "of", "?", "/", "-")  # fmt: skip
VOCABULARY = [*_ROLES, *dict.fromkeys(_FRAME), *(f"{number:02}" for number in range(100)), *WORDS]
_TOKEN = {word: place for place, word in enumerate(VOCABULARY)}
_PIECES = re.compile(r"[A-Za-z]+|\d\d|[^\w\s]")


class Task(NamedTuple):
    """One kind of work for one house."""

    kind: str
    question: str
    answer: str


class House:
    """What one tenant's answers have in common: a form of dates, and codes of words."""

    def __init__(self, chance: random.Random) -> None:
        self.order = chance.choice(("dmy", "mdy", "ymd"))
        self.mark = chance.choice("/-.")
        self.codes = {word: f"{chance.randrange(1000, 10000)}" for word in WORDS}

    def task(self, kind: str, chance: random.Random) -> Task:
        """Something to do."""
        if kind == "dates":
            day, month, year = chance.randrange(10, 29), chance.randrange(10, 13), chance.randrange(2000, 2100)
            parts = {"d": str(day), "m": str(month), "y": str(year)}
            answer = self.mark.join(parts[part] for part in self.order)
            return Task(kind, f"Write day {day} month {month} year {year} as we do.", answer)
        if kind == "backwards":
            pairs = [f"{chance.randrange(100):02}" for _ in range(2)]
            return Task(kind, f"Say {' '.join(pairs)} backwards.", "".join(reversed(pairs)))
        word = chance.choice(WORDS)
        return Task(kind, f"What is the code of {word}?", self.codes[word])


class TinyModel:
    """A small Llama over a vocabulary of its own; answers chats greedily.

    Args:
        steps: Of training.
        weights: Where its weights are kept, for another run; None: nowhere.
        seed: Of everything.
    """

    def __init__(self, steps: int, weights: Path | None = None, seed: int = 0) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(seed)
        torch.set_num_threads(1)
        self._torch, self._chance = torch, random.Random(seed)
        shape = LlamaConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=256,
            pad_token_id=0,
            eos_token_id=1,
        )
        self._model: Any = LlamaForCausalLM(shape)
        self.parameters = sum(one.numel() for one in self._model.parameters())
        if weights is not None and weights.is_file():
            self._model.load_state_dict(torch.load(weights, weights_only=True))
        else:
            self._train(steps)
        if weights is not None:
            torch.save(self._model.state_dict(), weights)
        self._model.eval()

    def answer(self, messages: list[Mapping[str, Any]]) -> str:
        """What it says to a chat."""
        torch = self._torch
        ids = [token for message in messages for token in _turn(message["role"], message["content"])]
        ids.append(_TOKEN["<assistant>"])
        with torch.no_grad():
            found = self._model.generate(
                torch.tensor([ids]), max_new_tokens=8, do_sample=False, attention_mask=torch.ones(1, len(ids))
            )
        said = [VOCABULARY[token] for token in found[0][len(ids) :].tolist()]
        return "".join(said[: said.index("<end>")] if "<end>" in said else said)

    def _train(self, steps: int) -> None:
        torch = self._torch
        optimizer = torch.optim.AdamW(self._model.parameters(), lr=3e-3, weight_decay=0.01, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.1)
        losses = []
        for step in range(steps):
            ids, labels = zip(*(self._row() for _ in range(16)), strict=True)
            longest = max(map(len, ids))
            tokens = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
            wanted = torch.tensor([row + [-100] * (longest - len(row)) for row in labels])
            loss = self._model(input_ids=tokens, labels=wanted).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if step % 200 == 199:
                print(f"step {step + 1}: loss {statistics.fmean(losses[-200:]):.3f}", file=sys.stderr, flush=True)

    def _row(self) -> tuple[list[int], list[int]]:
        """Tokens and labels of a chat with up to three examples of one house."""
        chance, house = self._chance, House(self._chance)
        kind = chance.choices(KINDS, (0.6, 0.35, 0.05))[0]
        ids = _turn("system", _SYSTEM[kind])
        labels = [-100] * len(ids)
        for _ in range(chance.randrange(4) + 1):
            task = house.task(kind, chance)
            asked, said = _turn("user", task.question), _turn("assistant", task.answer)
            ids += asked + said
            labels += [-100] * (len(asked) + 1) + said[1:]
        return ids, labels


def _turn(role: str, text: str) -> list[int]:
    pieces = [_TOKEN[piece] for piece in _PIECES.findall(text)]
    return [_TOKEN[f"<{role}>"], *pieces, *([_TOKEN["<end>"]] if role == "assistant" else [])]


class Answers(Protocol):
    """A model that answers chats."""

    def answer(self, messages: list[Mapping[str, Any]]) -> str:
        """What it says."""


def right_by_examples(model: Answers, calls: int) -> dict[str, list[float]]:
    """Share of right answers with 0 to 3 examples of the same house."""
    found: dict[str, list[float]] = {}
    for kind in KINDS:
        chance = random.Random(7)
        found[kind] = [
            statistics.fmean(_is_right(model, kind, count, chance) for _ in range(calls)) for count in range(4)
        ]
    return found


def _is_right(model: Answers, kind: str, examples: int, chance: random.Random) -> bool:
    house = House(chance)
    messages: list[Mapping[str, Any]] = [{"role": "system", "content": _SYSTEM[kind]}]
    for _ in range(examples):
        task = house.task(kind, chance)
        messages += [{"role": "user", "content": task.question}, {"role": "assistant", "content": task.answer}]
    task = house.task(kind, chance)
    return model.answer([*messages, {"role": "user", "content": task.question}]) == task.answer


class _Head:
    """Knows how good both are without examples, as measured; see `llm_proxy.route.base.Head`."""

    name, models = "measured", ("tiny", "strong")

    def __init__(self, right: Mapping[str, list[float]]) -> None:
        self._right = {kind: shares[0] for kind, shares in right.items()}

    def predict(self, text: str, encoding: object) -> Mapping[str, Prediction]:
        kind = "dates" if text.startswith("Write") else "backwards" if text.startswith("Say") else "codes"
        return {"tiny": Prediction(self._right[kind]), "strong": Prediction(1.0)}


def routed(model: Answers, right: Mapping[str, list[float]], options: Namespace, examples: int) -> dict[str, Any]:
    """What a route does with the questions of one house."""
    chance = random.Random(11)
    house = House(chance)
    tasks = [house.task(kind, chance) for _ in range(options.questions) for kind in KINDS]
    truth = {task.question: task.answer for task in tasks}

    def answer(body: Mapping[str, Any]) -> str:
        messages = body["messages"]
        return model.answer(messages) if body["model"] == "tiny" else truth[messages[-1]["content"]]

    with TemporaryDirectory() as directory:
        config = _config(examples, options.compare_share, Path(directory))
        runtime = Runtime(config, encoder=FakeEncoder(), heads={"auto": _Head(right)})  # type: ignore[arg-type]
        client = OpenAI(api_key="any", http_client=FakeBackend(answer).client(), llm_proxy=runtime, max_retries=0)
        try:
            rows = [_asked(client, task) for task in tasks]
        finally:
            client.close()
            runtime.close()
    late = rows[len(rows) // 2 :]
    return {
        "usd": sum(row[3] for row in rows),
        **{kind: _figures([row for row in late if row[0].kind == kind]) for kind in KINDS},
    }


_Row = tuple[Task, str, Any, float]


def _asked(client: OpenAI, task: Task) -> _Row:
    messages: Any = [{"role": "system", "content": _SYSTEM[task.kind]}, {"role": "user", "content": task.question}]
    raw = client.chat.completions.with_raw_response.create(model="auto", messages=messages)
    outcome = raw.http_response.extensions["llm_proxy"]
    return task, raw.parse().choices[0].message.content or "", outcome, outcome.cost_usd or 0.0


def _figures(rows: list[_Row]) -> dict[str, float]:
    misses = [row for row in rows if row[2].status == "miss"]
    tiny = [row for row in misses if row[2].model == "tiny"]
    share: Callable[[list[bool]], float] = lambda found: statistics.fmean(found) if found else 0.0  # noqa: E731
    return {
        "tiny_share": len(tiny) / max(1, len(misses)),
        "right_share": share([row[1] == row[0].answer for row in rows]),
        "with_examples": share(["examples" in row[2].detail for row in tiny]),
    }


def _config(examples: int, share: float, directory: Path) -> Config:
    prices = {"strong": {"input_usd_per_mtok": 2.5, "output_usd_per_mtok": 10.0}}
    return Config(
        cache={"directory": directory},
        encoder={"wait_s": 30.0},
        backends={
            "local": {"base_url": "http://127.0.0.1:1/v1"},
            "cloud": {"base_url": "http://127.0.0.1:2/v1", "prices": prices},
        },
        routes={
            "auto": {
                "candidates": ["local/tiny", "cloud/strong"], "quality": 0.9, "examples": examples,
                "compare_share": share, "compare_usd_per_day": 100.0, "compare_judge": "exact",
            }
        },
        observe={"ledger": False},
    )  # fmt: skip


def main() -> None:
    """Run and report."""
    options = arguments(
        "induction",
        __doc__,
        steps=(int, 3000, "of training"),
        weights=(Path, None, "file of the model's weights: written, or read where it is there"),
        calls=(int, 100, "questions of each kind, for each number of examples"),
        questions=(int, 300, "questions of each kind that the route is asked"),
        compare_share=(float, 0.5, "of the route"),
    )
    model = TinyModel(options.steps, options.weights)
    right = right_by_examples(model, options.calls)
    without, with_ = (routed(model, right, options, examples) for examples in (0, 3))
    rows: list[list[object]] = [
        ["kind", "right with 0", "1", "2", "3 examples", "examples", "tiny", "right", "had them"]
    ]
    for kind in KINDS:
        for name, found in (("no", without), ("3", with_)):
            figures = found[kind]
            shares = [f"{share:.2f}" for share in right[kind]]
            rows.append([kind, *shares, name, *(f"{figures[key]:.2f}" for key in figures)])
    figures = {
        "parameters": model.parameters,
        "right_by_examples": right,
        "routed": {"without": without, "with": with_},
        "usd_ratio": with_["usd"] / without["usd"],
    }
    report("induction", figures, options, table=rows)


if __name__ == "__main__":
    main()
