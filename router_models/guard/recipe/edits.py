"""Small changes that leave a question the same. Each takes a text in lower case and gives another, or None."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from .wordnet import WordNet, inflected

__all__ = ["EDITS", "Edit", "dense", "slips", "synonym", "word_form"]

Edit = Callable[[str, random.Random, WordNet], str | None]

_CONTRACTED = [
    line.split(" | ")
    for line in """
what is | what's;how is | how's;who is | who's;where is | where's;that is | that's;it is | it's;i am | i'm;do not | don't
does not | doesn't;did not | didn't;cannot | can't;can not | can't;is not | isn't;are not | aren't;will not | won't
i have | i've;i would | i'd;i will | i'll;you are | you're;we are | we're;they are | they're;there is | there's
should not | shouldn't;would not | wouldn't;could not | couldn't;have not | haven't;has not | hasn't;was not | wasn't
""".strip()
    .replace("\n", ";")
    .split(";")
]
_SAME = [
    tuple(line.split(" | "))
    for line in """
colour | color;favourite | favorite;centre | center;organise | organize;realise | realize;analyse | analyze
travelling | traveling;theatre | theater;grey | gray;licence | license;behaviour | behavior;programme | program
e-mail | email;e mail | email;wi-fi | wifi;web site | website;on line | online;cell phone | mobile phone
usa | united states;uk | united kingdom;us | united states;nyc | new york;new york city | nyc;tv | television
get rid of | remove;find out | discover;a lot of | lots of;a lot of | many;right now | at the moment;right now | currently
at present | currently;in order to | to;because of | due to;as well as | and;each day | every day;per day | a day
approximately | about;prior to | before;how come | why;big | large;fast | quickly;start | begin;buy | purchase
movie | film;picture | photo;photos | pictures;phone | telephone;car | automobile;kids | children;child | kid
need | require;fix | repair;help | assist;show | display;job | work;doctor | physician;lawyer | attorney
get | obtain;use | utilize;cheap | inexpensive;smart | intelligent;happy | glad;sad | unhappy;scared | afraid
difference | distinction;difficult | hard;easy | simple;important | significant;important | crucial;quick | fast
answer | reply;ask | inquire;tell me | let me know;maybe | perhaps;near | close to;nearby | near me;often | frequently
app | application;ad | advertisement;info | information;math | mathematics;exam | test;exam | examination;uni | university
college | university;company | firm;business | company;shop | store;rubbish | garbage;holiday | vacation;flat | apartment
lift | elevator;petrol | gas;fridge | refrigerator;sofa | couch;autumn | fall;football | soccer;trousers | pants
lose weight | shed weight;lose weight | reduce weight;make money | earn money;earn | make money;get a job | find a job
speak | talk;improve | get better at;improve | enhance;increase | boost;increase | raise;reduce | decrease;reduce | lower
choose | select;choose | pick;create | make;build | construct;explain | describe;change | alter;keep | retain
stop | cease;finish | complete;end | finish;allow | permit;allowed | permitted;need to | have to;must | have to;should | ought to
people | persons;someone | somebody;anyone | anybody;everyone | everybody;human | person;money | cash;salary | pay;salary | wage
world | globe;sick | ill;illness | disease;rich | wealthy;poor | impoverished;beautiful | pretty;ugly | unattractive
sleep | slumber;house | home;road | street;begin | commence;happen | occur;cause | reason;reasons | causes;way | method
ways | methods;step | stage;idea | thought;problem | issue;problems | issues;mistake | error;trip | journey;trip | travel
price | cost;cost | price;expensive | costly;free | free of charge;new | recent;latest | newest;old | aged;old | elderly
biggest | largest;smallest | tiniest;highest | tallest;fastest | quickest;best | top;good | great;bad | poor;wrong | incorrect
right | correct;correct | accurate;true | correct;weird | strange;funny | amusing;boring | dull;angry | mad;brave | courageous
friend | buddy;girl | young woman;boy | young man;wife | spouse;mother | mom;father | dad;baby | infant;teacher | instructor
student | pupil;boss | manager;worker | employee;employee | staff member;customer | client;user | person;country | nation
city | town;language | tongue;gift | present;party | celebration;food | meal;dinner | supper;drink | beverage;cook | prepare
clean | wash;throw away | discard;look for | search for;look for | seek;give up | quit;set up | install;turn on | switch on
turn off | switch off;turn up | increase;turn down | lower;call | phone;call | ring;send | mail;message | text;wake up | get up
remind me | give me a reminder;schedule | plan;meeting | appointment;delete | remove;delete | erase;cancel | call off;add | put
play | put on;music | songs;song | track;listen to | hear;watch | see;movie times | showtimes;near me | nearby;forecast | outlook
what kind of | what type of;what type of | what sort of;kinds | types;types | sorts;how much time | how long;how many times | how often
the number of | how many;in what year | when;at what time | when;for what reason | why;in what way | how;the most | the greatest
is located | is situated;is called | is named;was born | came into the world;passed away | died;die | pass away
""".strip()
    .replace("\n", ";")
    .split(";")
]
_POLITE = (
    "please {}", "{} please", "hi, {}", "hello, {}", "can you tell me {}", "could you tell me {}", "quick question: {}",
    "i was wondering, {}", "{} thanks", "{} thank you", "do you know {}", "i'd like to know {}", "tell me, {}", "so {}",
    "{} exactly", "hey {}", "{}, do you know", "just curious, {}", "i need to know {}", "does anyone know {}",
)  # fmt: skip
_ASKING = frozenset("what who where when why how which".split())
_IDLE = re.compile(r"\b(actually|really|exactly|basically|just|please|currently|kindly|ever|also|simply)\b ?")
_FRONT = re.compile(
    r"^(?P<q>.+) (?P<p>(?:in|on|at|during|for|after|before|near) (?:the |my |a )?[a-z0-9]+(?: [a-z]+)?)\??$"
)
_OF = re.compile(r"\b(?:the |a )?(?P<head>[a-z]{3,}) of (?P<det>the |my |a )?(?P<of>[a-z]{3,})(?= |\?|$)")
_OWNER = re.compile(r"\b(?P<of>[a-z]{3,})'s (?P<head>[a-z]{3,})\b")
_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_LEFT_OUT = frozenset("a an the is are was were do does did of for in to i me my can you please it there".split())


def word_form(word: str, net: WordNet) -> tuple[str, str, str] | None:
    """``(lemma, kind, form)`` of a regular word, where its kind is clear."""
    if word in net.irregular or not word.isalpha() or len(word) < 3:
        return None
    if kind := net.kind(word):
        return word, kind, ""
    for form, kinds in (("s", "nv"), ("ing", "v"), ("ed", "v")):
        if not word.endswith(form[-1]):
            continue
        stem = word.removesuffix(form)
        for lemma in (stem, stem + "e", stem[:-1], stem.removesuffix("i") + "y", word.removesuffix("es")):
            if len(lemma) < 3 or lemma in net.irregular:
                continue
            kind = net.kind(lemma)
            if kind and kind in kinds and inflected(lemma, form) == word:
                return lemma, kind, form
    return None


def _shuffled(words: list[str], rng: random.Random) -> list[int]:
    order = list(range(len(words)))
    rng.shuffle(order)
    return order


def synonym(text: str, rng: random.Random, net: WordNet) -> str | None:
    """One word for another of the same main meaning."""
    words = text.split()
    for at in _shuffled(words, rng):
        found = word_form(words[at], net)
        if found is None:
            continue
        lemma, kind, form = found
        others = [word for word in net.synonyms(lemma, kind) if form != "ed" or word not in net.irregular]
        if others:
            words[at] = inflected(rng.choice(others), form).replace("_", " ")
            return " ".join(words)
    return None


def dense(text: str, rng: random.Random, net: WordNet) -> str | None:
    """Most words for others of the same meaning, rare ones among them, as a model does when told to reword."""
    words, n = text.split(), 0
    for at, word in enumerate(words):
        core = word.rstrip(".,;:!?")
        found = word_form(core, net) if rng.random() < 0.7 else None
        others = net.synonyms(found[0], found[1], is_common=False) if found else []
        if found and others:
            words[at] = inflected(rng.choice(others), found[2]).replace("_", " ") + word[len(core) :]
            n += 1
    made = " ".join(words)
    for _ in range(3):
        made = same_phrase(made, rng, net) or made
    return made if n > 1 else None


def slips(text: str, rng: random.Random, net: WordNet) -> str | None:
    """Slips of the finger in most long words."""
    made, n = text, rng.randint(2, max(len(text.split()) // 2, 2))
    for _ in range(n):
        made = typo(made, rng, net) or made
    return made


def same_phrase(text: str, rng: random.Random, net: WordNet) -> str | None:
    """A word or phrase for another out of the list above."""
    padded, found = f" {text} ", []
    for pair in _SAME:
        for one, other in (pair, pair[::-1]):
            if f" {one} " in padded:
                found.append((one, other))
    if not found:
        return None
    one, other = rng.choice(found)
    return padded.replace(f" {one} ", f" {other} ", 1).strip()


def contraction(text: str, rng: random.Random, net: WordNet) -> str | None:
    """What is, what's, whats."""
    found = [pair for pair in _CONTRACTED if re.search(rf"\b(?:{pair[0]}|{re.escape(pair[1])})\b", text)]
    if not found:
        return None
    whole, short = rng.choice(found)
    if re.search(rf"\b{whole}\b", text):
        return re.sub(rf"\b{whole}\b", short if rng.random() < 0.7 else short.replace("'", ""), text, count=1)
    return re.sub(rf"\b{re.escape(short)}\b", whole, text, count=1)


def polite(text: str, rng: random.Random, net: WordNet) -> str | None:
    """A word of greeting or politeness around it."""
    template = rng.choice(_POLITE)
    is_question = text.split()[0] in _ASKING
    if not is_question and template not in _POLITE[:4] and template not in _POLITE[8:10]:
        return None
    return template.format(text.rstrip("?. "))


def idle(text: str, rng: random.Random, net: WordNet) -> str | None:
    """Without an idle word, or with one."""
    if _IDLE.search(text) and not text.startswith("just"):
        return _IDLE.sub("", text, count=1).strip()
    words = text.split()
    for at, word in enumerate(words):
        if word in {"is", "are", "do", "does", "can"} and 0 < at < len(words) - 2 and words[0] in _ASKING:
            return " ".join((*words[: at + 2], rng.choice(["actually", "really", "exactly"]), *words[at + 2 :]))
    return None


def article(text: str, rng: random.Random, net: WordNet) -> str | None:
    """Without an article, or with "the" for "a"."""
    words = text.split()
    places = [at for at, word in enumerate(words) if word in {"a", "an", "the"}]
    if not places:
        return None
    at = rng.choice(places)
    return " ".join(words[:at] + words[at + 1 :])


def front(text: str, rng: random.Random, net: WordNet) -> str | None:
    """A clause moved to the front."""
    found = _FRONT.match(text)
    return f"{found['p']}{rng.choice(['', ','])} {found['q']}" if found and len(found["q"].split()) > 2 else None


def owner(text: str, rng: random.Random, net: WordNet) -> str | None:
    """The price of gold, gold's price, gold price."""
    if (found := _OF.search(text)) and found["head"] not in {
        "kind",
        "type",
        "sort",
        "lot",
        "out",
        "number",
        "think",
        "use",
    }:
        made = f"{found['det'] or ''}{found['of']}{rng.choice([chr(39) + 's', ''])} {found['head']}"
        return text[: found.start()] + made + text[found.end() :]
    if found := _OWNER.search(text):
        if found["of"] in {"what", "that", "it", "who", "where", "how", "let", "there", "here"}:
            return None
        return text[: found.start()] + f"{found['head']} of {found['of']}" + text[found.end() :]
    return None


def number(text: str, rng: random.Random, net: WordNet) -> str | None:
    """Three, 3."""
    words = text.split()
    for at in _shuffled(words, rng):
        if words[at] in _NUMBERS and words[at] != "one":
            words[at] = str(_NUMBERS.index(words[at]))
            return " ".join(words)
        if words[at].isdecimal() and int(words[at]) < len(_NUMBERS):
            words[at] = _NUMBERS[int(words[at])]
            return " ".join(words)
    return None


def typo(text: str, rng: random.Random, net: WordNet) -> str | None:
    """A slip of the finger that makes no other word."""
    words = text.split()
    for at in _shuffled(words, rng):
        word = words[at]
        if len(word) < 5 or not word.isalpha():
            continue
        i = rng.randrange(1, len(word) - 2)
        kind = rng.randrange(3)
        slips = (
            word[:i] + word[i + 1] + word[i] + word[i + 2 :],
            word[:i] + word[i + 1 :],
            word[:i] + word[i] + word[i:],
        )
        if slips[kind] != word and not any(net.is_known(slips[kind], of) for of in "nvar"):
            words[at] = slips[kind]
            return " ".join(words)
    return None


def search_style(text: str, rng: random.Random, net: WordNet) -> str | None:
    """Without the small words, as typed into a search box."""
    words = text.rstrip("?. ").split()
    kept = [word for word in words if word not in _LEFT_OUT]
    return " ".join(kept) if 2 < len(kept) < len(words) and words[0] in {"what", "where", "who"} else None


EDITS: dict[str, tuple[Edit, float]] = {
    "synonym": (synonym, 3.0),
    "phrase": (same_phrase, 3.0),
    "contraction": (contraction, 1.0),
    "polite": (polite, 1.5),
    "idle": (idle, 0.7),
    "article": (article, 1.0),
    "front": (front, 1.0),
    "owner": (owner, 1.0),
    "number": (number, 0.7),
    "typo": (typo, 1.0),
    "search": (search_style, 0.4),
}
"""Each edit with how often it is tried."""
