"""Train the tiny chat model from nothing and write it as GGUF: `python tests/local_model/recipe.py`.

Needs the packages of `requirements-recipe.txt` (torch first) and some six minutes of one CPU core. Writes
`model.gguf` and `tokens.json` beside this file, and prints the figures of `card.md`. The server that runs the
model needs none of this. With `--draft` it writes `draft.gguf` instead: a smaller model with a tokenizer of its own,
which is wrong more often, to draft for the first one.
"""
# ruff: noqa: T201 - a program: its figures go to the terminal

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import corpus
import gguf
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
START, END = "<|start|>", "<|end|>"
SPECIAL = (START, END, "<|system|>", "<|user|>", "<|assistant|>")
WINDOW = 512
HEADS = 4

# Unknown roles count as the nearest known one, and parts without text as nothing: the server must answer any chat.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% set roles = {'developer': 'system', 'tool': 'user', 'function': 'user'} %}"
    "{{ '<|' + roles.get(message['role'], message['role']) + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% elif message['content'] %}{% for part in message['content'] %}{{ part['text'] or '' }}{% endfor %}{% endif %}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

SAMPLES = (
    "What is the capital of France?",
    "12 plus 7 is 19.",
    "  two  spaces\tand\n\nlines  ",
    "Brasília, Lomé, Reykjavík — «naïve» 👋🏽 ☀️",
    "it's, they'll, I'd; x=3.14e-10 (½ of 七)",
    "Не знаю. わかりません。 لا أعرف",  # noqa: RUF001 - other scripts are the point
    "{'json': [1, 2, null]}\r\n",
)


@dataclass(frozen=True)
class Shape:
    """How large a model is: tokens that it knows, width, layers, and steps of training."""

    vocabulary: int
    width: int
    layers: int
    steps: int


SHAPES = {"model": Shape(1024, 128, 4, 4200), "draft": Shape(512, 64, 2, 2000)}


@dataclass(frozen=True)
class Row:
    """One conversation as token ids, with the weight of each in the loss."""

    ids: list[int]
    weights: list[float]


def train_tokenizer(known: dict[str, corpus.Family], vocabulary: int) -> Tokenizer:
    """Learn a byte-level BPE of so many tokens; it reads any text, and each digit is a token of its own.

    The splits are those llama.cpp calls "smollm": digits one by one, then GPT-2's words.
    """
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = (message["content"] for chat in islice(corpus.chats(1, known), 20_000) for message in chat)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode_chat(tokenizer: Tokenizer, chat: corpus.Chat) -> Row:
    """Return a conversation in the form CHAT_TEMPLATE gives it; answers weigh ten times what questions do."""
    ids, weights = [tokenizer.token_to_id(START)], [0.0]
    for message in chat:
        weight = 1.0 if message["role"] == "assistant" else 0.1
        text = tokenizer.encode(message["content"], add_special_tokens=False).ids
        ids += [tokenizer.token_to_id(f"<|{message['role']}|>"), *text, tokenizer.token_to_id(END)]
        weights += [0.0, *[weight] * (len(text) + 1)]
    return Row(ids[:WINDOW], weights[:WINDOW])


def batches(tokenizer: Tokenizer, known: dict[str, corpus.Family], tokens: int) -> Iterator[list[Row]]:
    """Yield batches of conversations of like length, about `tokens` token places each."""
    stream = corpus.chats(2, known)
    rng = random.Random(3)
    while True:
        rows = sorted((encode_chat(tokenizer, chat) for chat in islice(stream, 2048)), key=lambda row: len(row.ids))
        cut: list[list[Row]] = [[]]
        for row in rows:
            if len(row.ids) * (len(cut[-1]) + 1) > tokens:
                cut.append([])
            cut[-1].append(row)
        rng.shuffle(cut)
        yield from cut


def loss_of(model: LlamaForCausalLM, batch: list[Row]) -> torch.Tensor:
    """Return the weighted mean cross entropy, in nats a token."""
    width = max(len(row.ids) for row in batch)
    ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in batch])
    weights = torch.tensor([row.weights + [0.0] * (width - len(row.weights)) for row in batch])
    logits = model(ids[:, :-1]).logits  # no mask: padding is on the right and weighs nothing
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weight = weights[:, 1:].flatten()
    return (each * weight).sum() / weight.sum()


def train(model: LlamaForCausalLM, stream: Iterator[list[Row]], steps: int, peak: float) -> None:
    """Run AdamW for a fixed number of steps: a short rise of the rate, then half a cosine down to zero."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.02)
    began, warm = time.process_time(), 100
    for step, batch in enumerate(islice(stream, steps)):
        rate = min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = peak * rate
        loss = loss_of(model, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 200 == 0 or step == steps - 1:
            print(f"step {step:5d}  loss {loss.item():.4f}  {time.process_time() - began:5.0f} s of CPU", flush=True)


@torch.no_grad()
def answer(model: LlamaForCausalLM, tokenizer: Tokenizer, chat: corpus.Chat) -> str:
    """Return the greedy answer to a conversation that ends with a question."""
    ids = [*encode_chat(tokenizer, chat).ids, tokenizer.token_to_id("<|assistant|>")]
    output = model(torch.tensor([ids]), use_cache=True)
    said: list[int] = []
    while len(said) < 200:
        token = int(output.logits[0, -1].argmax())
        if token == tokenizer.token_to_id(END):
            break
        said.append(token)
        output = model(torch.tensor([[token]]), past_key_values=output.past_key_values, use_cache=True)
    return str(tokenizer.decode(said))


def report(model: LlamaForCausalLM, tokenizer: Tokenizer, known: dict[str, corpus.Family], count: int) -> None:
    """Print the share of right answers by family, on questions drawn anew."""
    rng = random.Random(4)
    for name, family in known.items():
        wrong = []
        for _ in range(count):
            item, wording = rng.choice(family.items), rng.choice(family.wordings)
            asked = wording.format(x=item[0])
            said = answer(model, tokenizer, [{"role": "user", "content": asked}])
            if said != family.reply(item, short=False):
                wrong.append((asked, said))
        print(f"{name:10s} {count - len(wrong):4d} of {count} right  {wrong[:2]}")


def _paired(weight: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Reorder rows of a query or key matrix: llama.cpp rotates neighbours, transformers rotates halves."""
    rows, columns = weight.shape
    return weight.reshape(HEADS, 2, rows // HEADS // 2, columns).swapaxes(1, 2).reshape(rows, columns)


NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    """Translate a transformers parameter name into GGUF's."""
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def write_gguf(path: Path, model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    """Write weights (f16, norms f32), tokenizer and chat template; the output layer is the embedding itself."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("llm-proxy tiny chat")
    writer.add_license("Apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(WINDOW)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(config.hidden_size // HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        weight = tensor.numpy().astype(np.float32)
        if "q_proj" in name or "k_proj" in name:
            weight = _paired(weight)
        writer.add_tensor(gguf_name(name), weight if weight.ndim == 1 else weight.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    state = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    kinds = [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in state["merges"]])
    writer.add_bos_token_id(tokenizer.token_to_id(START))
    writer.add_eos_token_id(tokenizer.token_to_id(END))
    writer.add_pad_token_id(tokenizer.token_to_id(END))
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)


def main() -> None:
    """Train, write, report."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--draft", action="store_true", help="make the model that drafts")
    options.add_argument("--steps", type=int, help="of training; by default what the model of record had")
    options.add_argument("--tokens", type=int, default=1024, help="token places in a batch")
    options.add_argument("--rate", type=float, default=3e-3, help="highest learning rate")
    options.add_argument("--report", type=int, default=60, help="questions asked of each family at the end")
    options.add_argument("--out", type=Path, default=HERE)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    name = "draft" if chosen.draft else "model"
    shape, known = SHAPES[name], corpus.families()
    tokenizer = train_tokenizer(known, shape.vocabulary)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=3 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=WINDOW,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters")
    train(model, batches(tokenizer, known, chosen.tokens), chosen.steps or shape.steps, chosen.rate)
    model.eval()
    write_gguf(chosen.out / f"{name}.gguf", model, tokenizer)
    if not chosen.draft:
        samples = {text: tokenizer.encode(text, add_special_tokens=False).ids for text in SAMPLES}
        written = json.dumps(samples, ensure_ascii=False, indent=1) + "\n"
        (chosen.out / "tokens.json").write_text(written, encoding="utf-8")
    report(model, tokenizer, known, chosen.report)


if __name__ == "__main__":
    main()
