"""The pair model in torch: the lower layers of MiniLM over both texts at once, told which tokens both have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["DIM", "PairModel", "Tokens", "batches", "encode_texts"]

DIM, HEADS, HIDDEN, EPSILON = 384, 12, 1536, 1e-12
LONGEST = 96  # tokens of a pair
_CLS, _SEP = 101, 102


class Tokens:
    """Cuts pairs into tokens as the encoder does.

    Args:
        path: ``tokenizer.json`` of `router_models/encoder`.
    """

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids without the special ones."""
        return [found.ids for found in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    @staticmethod
    def joined(a: list[int], b: list[int], most: int = LONGEST) -> tuple[list[int], list[int]]:
        """Ids of a pair and their marks: 0, 1 for the first and second text, plus 2 where the other text lacks the token."""
        each = (most - 3) // 2
        a, b = a[: max(each, most - 3 - len(b))], b[: max(each, most - 3 - len(a))]
        in_a, in_b = set(a), set(b)
        marks = [0] + [0 if i in in_b else 2 for i in a] + [0] + [1 if i in in_a else 3 for i in b] + [1]
        return [_CLS, *a, _SEP, *b, _SEP], marks


class Layer(nn.Module):
    """One layer of BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM)
        self.out = nn.Linear(DIM, DIM)
        self.up = nn.Linear(DIM, HIDDEN)
        self.down = nn.Linear(HIDDEN, DIM)
        self.norm_1 = nn.LayerNorm(DIM, EPSILON)
        self.norm_2 = nn.LayerNorm(DIM, EPSILON)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (part.view(batch, length, HEADS, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        # By hand: on processors torch's fused attention takes three times as long to go back through.
        scores = torch.matmul(q, k.transpose(2, 3)) * (DIM // HEADS) ** -0.5 + mask.to(q.dtype)
        attended = torch.matmul(functional.softmax(scores, -1, dtype=scores.dtype), v)
        x = self.norm_1(x + self.out(attended.transpose(1, 2).reshape(batch, length, DIM)))
        return self.norm_2(x + self.down(functional.gelu(self.up(x))))


class PairModel(nn.Module):
    """Two texts to a logit, and a guess of their cosine.

    Args:
        weights: ``model.safetensors`` of all-MiniLM-L6-v2.
        layers: Which of its six layers.
    """

    def __init__(self, weights: Path, layers: Sequence[int]) -> None:
        super().__init__()
        found = load_file(str(weights))
        self.words = nn.Embedding.from_pretrained(found["embeddings.word_embeddings.weight"], freeze=True)
        self.places = nn.Embedding.from_pretrained(found["embeddings.position_embeddings.weight"][:256], freeze=False)
        types = found["embeddings.token_type_embeddings.weight"]
        self.marks = nn.Embedding.from_pretrained(torch.cat([types, types]), freeze=False)
        self.norm = nn.LayerNorm(DIM, EPSILON)
        self.norm.load_state_dict(_part(found, "embeddings.LayerNorm"))
        self.layers = nn.ModuleList([_loaded(found, at) for at in layers])
        self.head = nn.Sequential(nn.Linear(3 * DIM, 192), nn.GELU(), nn.Dropout(0.1), nn.Linear(192, 2))

    def hidden(self, ids: Tensor, marks: Tensor, is_token: Tensor) -> Tensor:
        """Token vectors of the last layer, ``(batch, tokens, 384)``."""
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.norm(self.words(ids) + self.places(places) + self.marks(marks))
        mask = torch.zeros_like(is_token, dtype=x.dtype).masked_fill(~is_token, -1e4)[:, None, None]
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def forward(self, ids: Tensor, marks: Tensor, is_token: Tensor) -> tuple[Tensor, Tensor]:
        """``(logit, cosine)``, each ``(batch,)``."""
        x = self.hidden(ids, marks, is_token).float()
        differs = ((marks >= 2) & is_token).float()
        pooled = torch.cat([x[:, 0], _mean(x, is_token.float()), _mean(x, differs)], dim=1)
        logit, cosine = self.head(pooled).float().unbind(1)
        return logit, cosine


def _mean(x: Tensor, weights: Tensor) -> Tensor:
    return torch.bmm(weights.unsqueeze(1), x).squeeze(1) / weights.sum(1, keepdim=True).clamp(min=1)


def _part(found: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: found[f"{prefix}.{name}"] for name in ("weight", "bias")}


def _loaded(found: dict[str, Tensor], at: int) -> Layer:
    prefix, layer = f"encoder.layer.{at}", Layer()
    qkv = [_part(found, f"{prefix}.attention.self.{name}") for name in ("query", "key", "value")]
    layer.qkv.load_state_dict({name: torch.cat([part[name] for part in qkv]) for name in ("weight", "bias")})
    for own, theirs in (
        (layer.out, "attention.output.dense"),
        (layer.up, "intermediate.dense"),
        (layer.down, "output.dense"),
        (layer.norm_1, "attention.output.LayerNorm"),
        (layer.norm_2, "output.LayerNorm"),
    ):
        own.load_state_dict(_part(found, f"{prefix}.{theirs}"))
    return layer


def padded(rows: Sequence[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor, Tensor]:
    """``(ids, marks, is_token)`` of a batch."""
    longest = max(len(ids) for ids, _ in rows)
    ids, marks = (np.zeros((len(rows), longest), np.int64) for _ in range(2))
    is_token = np.zeros((len(rows), longest), bool)
    for at, (one, mark) in enumerate(rows):
        ids[at, : len(one)], marks[at, : len(one)], is_token[at, : len(one)] = one, mark, True
    return torch.from_numpy(ids), torch.from_numpy(marks), torch.from_numpy(is_token)


def batches(lengths: Sequence[int], size: int, rng: np.random.Generator | None = None) -> list[Any]:
    """Places of the rows of each batch, rows of like length together; in chance order with a generator."""
    order = np.argsort(np.asarray(lengths) + (rng.random(len(lengths)) * 4 if rng else 0), kind="stable")
    found = [order[at : at + size] for at in range(0, len(order), size)]
    if rng is not None:
        rng.shuffle(found)  # type: ignore[arg-type]
    return found


@torch.inference_mode()
def encode_texts(weights: Path, tokens: Tokens, texts: list[str]) -> np.ndarray[Any, Any]:
    """Vectors of all-MiniLM-L6-v2 for many texts, ``(n, 384)`` float32, in bfloat16 arithmetic."""
    model = PairModel(weights, range(6)).eval()
    rows = [([_CLS, *ids[:254], _SEP], [0] * (min(len(ids), 254) + 2)) for ids in tokens.ids(texts)]
    result = np.zeros((len(texts), DIM), np.float32)
    for places in batches([len(ids) for ids, _ in rows], 128):
        ids, marks, is_token = padded([rows[at] for at in places])
        with torch.autocast("cpu", torch.bfloat16):
            x = model.hidden(ids, marks, is_token)
        mean = _mean(x.float(), is_token.float())
        result[places] = functional.normalize(mean, dim=1).numpy()
    return result
