"""Train the pair model for a given time, on one thread."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .net import PairModel, Tokens, batches, padded

__all__ = ["Options", "load", "logits", "rows_of", "train"]


@dataclass(frozen=True)
class Options:
    """How to train.

    Attributes:
        layers: Which layers of MiniLM to begin with.
        minutes: Time to train for; the learning rate falls to zero over it.
        rate: Highest learning rate.
        size: Pairs in a batch.
        distil: Weight of guessing the encoder's cosine.
        seed: Of the order of the batches.
        start: Checkpoint to go on from.
    """

    layers: tuple[int, ...] = (0, 1, 2)
    minutes: float = 10
    rate: float = 2e-4
    size: int = 64
    distil: float = 1.0
    seed: int = 0
    start: Path | None = None


def train(corpus: Path, encoder: Path, weights: Path, target: Path, options: Options) -> PairModel:
    """Train on a folder of `corpus.write_corpus`, and write ``target``."""
    torch.manual_seed(options.seed)
    pairs = [json.loads(line) for line in (corpus / "pairs.jsonl").open(encoding="utf-8")]
    has_cosine = torch.tensor([pair["cosine"] is not None for pair in pairs])
    cosine = torch.tensor([pair["cosine"] or 0.0 for pair in pairs])
    rows = rows_of(encoder, [pair["a"] for pair in pairs], [pair["b"] for pair in pairs])
    label = torch.tensor([pair["label"] for pair in pairs], dtype=torch.float32)
    weight = torch.tensor([pair["weight"] for pair in pairs]) * (label >= 0)
    model = load(options.start, weights) if options.start else PairModel(weights, options.layers)
    model.train()
    optimizer = torch.optim.AdamW(_groups(model), lr=options.rate, betas=(0.9, 0.98))
    rng = np.random.default_rng(options.seed)
    begin, end, step, shown = time.monotonic(), options.minutes * 60, 0, np.zeros(3)
    while (past := time.monotonic() - begin) < end:
        for places in batches([len(ids) for ids, _ in rows], options.size, rng):
            past = time.monotonic() - begin
            if past >= end:
                break
            rate = options.rate * min((step + 1) / 200, 1.0) * max(1 - past / end, 0.02)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            at = torch.from_numpy(places)
            with torch.autocast("cpu", torch.bfloat16):
                logit, guess = model(*padded([rows[i] for i in places]))
            known = weight[at]
            loss = functional.binary_cross_entropy_with_logits(
                logit, label[at].clamp(min=0), weight=known, reduction="sum"
            ) / known.sum().clamp(min=1)
            # Only of what people wrote: a text and its own edits are near whatever they mean.
            near = has_cosine[at].float()
            apart = (near * (guess - (cosine[at] - 0.7) * 4) ** 2).sum() / near.sum().clamp(min=1)
            (loss + options.distil * 0.2 * apart).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            shown += (float(loss.detach()), float(apart.detach()), 1)
            step += 1
            if step % 200 == 0:
                print(
                    f"{past:6.0f} s  step {step}  {step * options.size:,} pairs  loss {shown[0] / shown[2]:.4f}  "
                    f"cosine {shown[1] / shown[2]:.4f}",
                    flush=True,
                )
                shown[:] = 0
            if step % 2_000 == 0:
                save(model, target, options)
    save(model, target, options)
    return model.eval()


def save(model: PairModel, target: Path, options: Options) -> None:
    """Write a checkpoint without the word table, which is the encoder's."""
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("words.")}
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state": state, "layers": list(options.layers)}, target)


def load(path: Path, weights: Path) -> PairModel:
    """Read a checkpoint."""
    found = torch.load(path, weights_only=True)
    model = PairModel(weights, found["layers"])
    model.load_state_dict(found["state"], strict=False)
    return model.eval()


@torch.inference_mode()
def logits(model: PairModel, encoder: Path, a: list[str], b: list[str]) -> tuple[Any, Any]:
    """Logits and guessed cosines of pairs, the mean of both orders, each ``(n,)`` float32."""
    total = np.zeros((2, len(a)), np.float32)
    for one, other in ((a, b), (b, a)):
        rows = rows_of(encoder, one, other)
        for places in batches([len(ids) for ids, _ in rows], 128):
            with torch.autocast("cpu", torch.bfloat16):
                found = model(*padded([rows[i] for i in places]))
            total[:, places] += torch.stack(found).numpy() / 2
    return total[0], total[1] / 4 + 0.7


def rows_of(encoder: Path, a: list[str], b: list[str]) -> list[tuple[list[int], list[int]]]:
    """Ids and marks of pairs."""
    tokens = Tokens(encoder / "tokenizer.json")
    return [Tokens.joined(x, y) for x, y in zip(tokens.ids(a), tokens.ids(b), strict=True)]


def _groups(model: PairModel) -> list[dict[str, Any]]:
    new = {"head", "marks"}
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name.split(".")[0] in new].append(parameter)
    return [
        {"params": groups[False], "factor": 1.0, "weight_decay": 0.01},
        {"params": groups[True], "factor": 5.0, "weight_decay": 0.0},
    ]
