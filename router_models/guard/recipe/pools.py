"""What people ask, out of the data sets that may be trained on, and the phrases in it."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .wordnet import WordNet

__all__ = ["Pools", "Text", "rows"]

_LONGEST = 32  # words of a text that a short pair is made of
_DOING = re.compile(
    r"^(?:how (?:do|can|would|should|could|to)(?: i| you| we| one)?|(?:can|could|would|will) you(?: please)?"
    r"|(?:please )?help me(?: to)?|i (?:need|want|would like|'d like)(?: you)? to|is it possible to|can i|please)"
    r" (?:please )?(?P<v>[a-z]+ [a-z0-9' -]+)$"
)
_THING = re.compile(
    r"^(?:what(?:'s| is| are| was)|who is|where is|tell me about|define|explain) (?P<n>(?:the |a |an |my )?[a-z0-9' -]+)$"
)
_CLEAN = re.compile(r"[^a-z0-9' -]+")
_STEM_END = re.compile(r"\n(?:[A-J][.)]|Options|Answer)", re.MULTILINE)
_PLACES = (
    "in india; in the us; in germany; in london; in new york; in canada; in australia; in china; in japan; in paris; in "
    "california; in texas; near me; online; at home; in 2016; in 2020; this year; today; right now; for beginners; for "
    "kids; for adults; for women; for men; on android; on an iphone; on windows; on a mac; in python; in java; in "
    "english; in spanish; at night; in winter; in summer; on weekends; abroad; in my area; for free; under 100 dollars; "
    "in school; at work; in one week; in 30 days"
).split("; ")


@dataclass(frozen=True, slots=True)
class Text:
    """One text, where it is from, and what its data set says it is about (intent or task)."""

    text: str
    source: str
    topic: str


@dataclass(slots=True)
class Pools:
    """Texts and phrases.

    Attributes:
        texts: Short texts of people, in one line each.
        phrases: By slot of `frames`: v, n, s, p.
        values: By name of a slot such as "city": what people said there.
    """

    texts: list[Text] = field(default_factory=list)
    phrases: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, list[str]] = field(default_factory=dict)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file of JSON lines, gzipped."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def read_pools(data: Path, net: WordNet, *, without: frozenset[str] = frozenset()) -> Pools:
    """Read all pools.

    Args:
        data: Folder of the data sets.
        net: WordNet.
        without: Names of data sets to leave out, to measure on them.
    """
    pools = Pools()
    seen: set[str] = set()
    for text in _texts(data, without):
        line = " ".join(text.text.split())
        if line.casefold() not in seen and 2 <= len(line.split()) <= _LONGEST and line.isascii():
            seen.add(line.casefold())
            pools.texts.append(Text(line, text.source, text.topic))
    for name in {"slots_snips", "slots_hwu64"} - without:
        for row in rows(data / name / "utterances.jsonl.gz"):
            for slot, value in row["slots"]:
                pools.values.setdefault(slot, []).append(value)
    pools.values = {name: sorted(set(values)) for name, values in pools.values.items() if len(set(values)) > 4}
    pools.phrases = _phrases(pools, net)
    return pools


def _texts(data: Path, without: frozenset[str]) -> Iterator[Text]:
    for name in sorted({"intents_clinc150", "intents_banking77", "slots_snips", "slots_hwu64"} - without):
        for row in rows(data / name / "utterances.jsonl.gz"):
            yield Text(row["text"], name, row["intent"])
    for row in rows(data / "context_followups" / "rows.jsonl.gz"):
        for key in ("main", "followup"):
            yield Text(row[key], "context_followups", "")
    for row in rows(data / "router_llmrouter9" / "rows.jsonl.gz"):
        if row["task"] in {"natural_qa", "trivia_qa", "commonsense_qa", "arc_challenge", "openbook_qa", "gsm8k"}:
            yield Text(row["prompt"].partition("\n")[0], "router_llmrouter9", row["task"])
    for row in rows(data / "tiers_uncommonroute" / "rows.jsonl.gz"):
        if row.get("lang", "en") == "en":
            yield Text(row["prompt"], "tiers_uncommonroute", row["category"])
    for path in ("router_mmlu_pro/rows.jsonl.gz", "router_routellm/mmlu_gsm8k.jsonl.gz"):
        for row in rows(data / path):
            stem = _STEM_END.split(row["prompt"])[0].strip()
            if stem.endswith("?") and "\n" not in stem:
                yield Text(stem, path.partition("/")[0], row["group"])
    for row in rows(data / "router_arenabench" / "arena_bench_v1.jsonl.gz"):
        yield Text(row["prompt"], "router_arenabench", "")


def _phrases(pools: Pools, net: WordNet) -> dict[str, list[str]]:
    doing: dict[str, None] = {}
    things: dict[str, None] = {}
    for text in pools.texts:
        if text.source == "intents_banking77" and len(text.text.split()) > 14:
            continue
        plain = " ".join(_CLEAN.sub(" ", text.text.lower()).split())
        if (found := _DOING.match(plain)) and net.is_known(found["v"].split()[0], "v"):
            doing[found["v"]] = None
        elif found := _THING.match(plain):
            things[found["n"]] = None
        elif net.kind(plain.split()[0]) == "v" and len(plain.split()) > 1:
            doing[plain] = None
    nouns = [noun for noun in net.common["n"] if net.kind(noun) == "n" and net.frequency(noun, "n") > 3]
    several = [word + "s" for word in nouns if not word.endswith(("s", "y", "x", "ch", "sh"))]
    for values in pools.values.values():
        things.update(dict.fromkeys(value.lower() for value in values if value.isascii() and len(value) > 3))
    compounds = _compounds(net, nouns)
    return {
        "v": [phrase for phrase in doing if len(phrase.split()) <= 12],
        "n": [phrase for phrase in things if len(phrase.split()) <= 9] + compounds,
        "s": several,
        "p": list(_PLACES),
    }


def _compounds(net: WordNet, nouns: list[str]) -> list[str]:
    """Nouns of WordNet, those of one word with and without an article."""
    rng = random.Random(7)
    many = [lemma.replace("_", " ") for (lemma, kind) in net.lemmas() if kind == "n" and "_" in lemma]
    many = [lemma for lemma in many if lemma.replace(" ", "").isalpha() and len(lemma.split()) <= 3]
    chosen = rng.sample(sorted(many), 6_000)
    return chosen + nouns + [rng.choice(["a ", "the ", "my "]) + noun for noun in nouns]
