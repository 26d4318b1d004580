"""Train a router on a log of outcomes, look at its figures, and ask it about two questions.

Needs: pip install "llm-proxy[train]". The log here is made up: a small model that can do sums but not proofs. With a
log of your own, `llm-proxy route train outcomes.jsonl` does all of this in one command.
"""

import json
import random
import tempfile
from datetime import date
from pathlib import Path

from llm_proxy.encode.onnx import OnnxEncoder
from llm_proxy.route.heads import OnnxHead
from llm_proxy.route.outcomes import read_outcomes
from llm_proxy.route.train.card import Origin, verdict
from llm_proxy.route.train.make import encode, make
from llm_proxy.route.versions import HeadFolder, save_version, use_version

EASY = [
    "I have {} apples in one basket and {} in another: how many apples is that?",
    "What do you get when you add {} and {}, and how did you get there?",
    "My bus leaves in {} minutes and takes {} minutes: when am I there?",
]
HARD = [
    "Prove that {} divides n^{} - n for every whole number n that is odd, or find one n where not.",
    "Show that the root of {} + x^{} is no fraction for x = 1.",
    "Prove that {} is no power of {}, nor of any number in between them.",
]

random.seed(0)
folder = Path(tempfile.mkdtemp())
log = folder / "outcomes.jsonl"
with log.open("w") as file:
    for number in range(400):
        is_hard = number % 2
        prompt = random.choice(HARD if is_hard else EASY).format(random.randint(2, 99), random.randint(2, 99))
        right = random.random() < (0.2 if is_hard else 0.95)
        outcome = {
            "prompt": prompt,
            "scores": {"small": int(right), "large": int(random.random() < 0.95)},
            "tokens": {"small": 300 if is_hard else 15, "large": 500 if is_hard else 20},
            "usd": {"small": 0.0001, "large": 0.002},
            "group": "proofs" if is_hard else "sums",
        }
        file.write(json.dumps(outcome) + "\n")

encoder = OnnxEncoder()
outcomes = read_outcomes(log)
origin = Origin("own-traffic", log.name, encoder.name, "examples/train_router.py", date.today().isoformat())
made = make(encode(outcomes, encoder), origin, weak="small", strong="large", prices=[])

pair = made.measured.pair
print(f"APGR {pair.apgr:.3f} ({pair.apgr_low95:.3f} to {pair.apgr_high95:.3f}), prompt length {pair.length_apgr:.3f}")
print(verdict(pair))
for routed in made.choice.routed:
    cost = f"${1000 * routed.usd:.2f} for 1,000 calls"
    print(f"quality {routed.quality:g}: {routed.calls[0]:.0%} to the small one, score {routed.score:.3f}, {cost}")

use_version(save_version(folder / "heads", made.files))  # a running proxy picks it up within a second
head = HeadFolder(folder / "heads", OnnxHead)
for question in ("I have 7 apples and 12 pears: how many is that?", "Prove that 7 divides n^7 - n."):
    for model, expected in head.predict(question, encoder.encode(question)).items():
        print(f"{question} {model}: good with {expected.p_good:.2f}, about {expected.completion_tokens:.0f} tokens")
