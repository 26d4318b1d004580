"""The text the tiny model learns from: small talk made from the tables below, in the project's own words.

A `Family` is one kind of question: subjects with their values, ways to ask, ways to ask again in a
conversation, and how to answer. Every wording of a question has the same answer, so that the model also serves
as the upstream of tests on paraphrases.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Chat = list[dict[str, str]]

SHORT_SYSTEM = ("Answer in one word.", "Reply with one word only.", "Be brief: just the answer.")
LONG_SYSTEM = ("You are a helpful assistant.", "You are a friendly assistant.", "Answer in a full sentence.")
UNKNOWN = "I do not know. Ask me about sums, capitals, colours, opposites or the meaning of a word."

CAPITALS = """France Paris|Spain Madrid|Italy Rome|Germany Berlin|Portugal Lisbon|Austria Vienna|Norway Oslo
Sweden Stockholm|Denmark Copenhagen|Finland Helsinki|Iceland Reykjavík|Ireland Dublin|Greece Athens|Poland Warsaw
Hungary Budapest|Romania Bucharest|Bulgaria Sofia|Croatia Zagreb|Serbia Belgrade|Turkey Ankara|Egypt Cairo
Morocco Rabat|Kenya Nairobi|Ghana Accra|Senegal Dakar|Togo Lomé|Japan Tokyo|China Beijing|India Delhi|Nepal Kathmandu
Thailand Bangkok|Vietnam Hanoi|Mongolia Ulaanbaatar|Canada Ottawa|Mexico Mexico-City|Cuba Havana|Peru Lima
Chile Santiago|Brazil Brasília|Colombia Bogotá|Paraguay Asunción|Uruguay Montevideo|Australia Canberra
Fiji Suva|Jordan Amman|Lebanon Beirut|Iran Tehran|Iraq Baghdad|Latvia Riga|Estonia Tallinn|Lithuania Vilnius
Ukraine Kyiv|Malta Valletta|Belgium Brussels|Cameroon Yaoundé"""
COLOURS = """grass green|snow white|coal black|blood red|a banana yellow|a lemon yellow|the sky blue|the sea blue
milk white|a carrot orange|a tomato red|chocolate brown|an elephant grey|a raven black|a flamingo pink|a plum purple
a frog green|a swan white|honey gold|a cherry red|a pumpkin orange|lavender purple|ash grey|sand yellow"""
OPPOSITES = """hot cold|big small|day night|up down|left right|open closed|fast slow|old young|light dark
happy sad|rich poor|strong weak|early late|full empty|wet dry|hard soft|long short|near far|loud quiet|first last
clean dirty|deep shallow|heavy light|thick thin|tall short|true false|win lose|push pull|start stop|in out"""
MEANINGS = """a cache=a place that keeps answers so that they need not be made twice
a proxy=a server that asks another server on your behalf|a router=a thing that chooses the way for each message
a key=a small piece of metal that opens a lock|an island=land with water on every side
a library=a place where books are kept and lent|a bridge=a road that crosses water
a kettle=a pot in which water is boiled|a clock=a machine that shows the time
a candle=a stick of wax that burns and gives light|an orchard=a field of fruit trees
a harbour=a place where ships are safe from the waves|a desert=land with very little rain
a violin=a musical instrument with four strings|a telescope=a tube of lenses that shows far things
a glacier=a slow river of ice|a passport=a booklet that proves who you are
a baker=a person who makes bread|a tailor=a person who makes clothes|a surgeon=a doctor who operates
a compass=a needle that points to the north|an anchor=a weight that holds a ship in its place
a lantern=a lamp that you can carry|a meadow=a field of grass and flowers|a verb=a word for an action
a noun=a word for a thing|a triangle=a shape with three sides|a square=a shape with four equal sides
a week=a span of seven days|a decade=a span of ten years|a century=a span of one hundred years"""
STORIES = """fox forest|cat garden|bear mountain|whale sea|owl tower|mouse kitchen|horse valley|camel desert
penguin island|rabbit meadow|goose river|wolf snow|turtle beach|donkey village"""
GREETINGS = """Hello=Hello! 👋 What would you like to know?|Hi=Hello! 👋 What would you like to know?
Good morning=Good morning! ☀️ What would you like to know?|Good night=Good night! 🌙 Sleep well.
Thank you=You are welcome! 😊|Thanks=You are welcome! 😊|Who are you=I am a very small language model.
What are you=I am a very small language model.|What can you do=I can add, name capitals and say what words mean.
Goodbye=Goodbye! 👋|Bye=Goodbye! 👋"""
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Monday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September", "October"),
    *("November", "December", "January"),
)
WORDS = """apple blue river stone table window seven horse lamp cloud paper green garden silver music winter door
bread yellow castle button ocean forest pencil mirror orange basket ladder rabbit summer copper island candle
tiger market purple engine planet letter bottle"""

THINGS = """my card|my account|a refund|the payment|my order|the transfer|a ticket|the parcel|my password|the app
this charge|the fee|exchange rates|a loan|the virus|the news|a vaccine|the weather|this film|my computer|the train
a recipe|the economy|an election|a mortgage|my phone|the contract|a poem about rain|the meeting|some code|a flight
the hospital|a mask|my identity|the cash machine|a top-up|the balance|my PIN|a virtual card|the delivery|quarantine
the school|a restaurant|the bill|my salary|the budget|symptoms|a football match|an email|this text|the number"""
DEMANDS = """How do I cancel {}?|Why was {} declined?|Where is {}?|When will {} arrive?|Can you write {}?
Please explain {}|How long does {} take?|What should I do about {}?|I have lost {}.|Is there a problem with {}?
I still cannot find {}|How can I change {}?|Tell me more about {}.|Who is responsible for {}?|how much does {} cost
Can I get {} in {}?|I want to know about {} and {}.|Does {} work with {}?|Summarise {} for me.|{} near me|{}
What happens to {} when {} fails?|I was charged twice for {}|Help me with {}, please!|why is {} still pending
Translate {} into {}.|latest on {}|Compare {} with {}.|Which {} is the best for {}?|My {} does not work. What now?"""

COMMON = """the a of to in is it my your and for on with what why how when where who can do does did was not have has
been this that there any still get I me you we they from by at as if or but so will would please need want near best
new old more about after before what's I'm don't can't 's"""
ONSETS = "b c d f g h j k l m n p r s t v w z br ch cl cr dr fl gr kr pl pr sh sk sl sp st str th tr wh"
CODAS = "n r s t l m d x ck ng nt rs st ty ed er ing tion ly"
SCRIPTS = (
    *((0x30, 0x7A), (0x61, 0x7A), (0xC0, 0xFF), (0x391, 0x3C9), (0x410, 0x44F), (0x621, 0x64A), (0x3041, 0x30F6)),
    *((0x4E00, 0x9FA0), (0x4E00, 0x9FA0), (0xAC00, 0xD7A0), (0x1F600, 0x1F640)),
)


def _pairs(table: str, separator: str = " ") -> tuple[tuple[str, str], ...]:
    """Read a table of `subject value` cells; the subject may hold spaces, the value of a word table may not."""
    cells = [cell for line in table.splitlines() for cell in line.split("|")]
    split = (cell.split(separator, 1) if separator != " " else cell.rsplit(" ", 1) for cell in cells)
    return tuple((subject, value.replace("Mexico-City", "Mexico City")) for subject, value in split)


def _sums() -> tuple[tuple[str, str], ...]:
    """Sums and differences up to 20 and products up to 10 x 10, each in words and in signs."""
    found = []
    for a in range(21):
        for b in range(21):
            found += [(f"{a} {sign} {b}", str(a + b)) for sign in ("plus", "+")]
            if b <= a:
                found += [(f"{a} {sign} {b}", str(a - b)) for sign in ("minus", "-")]
            if max(a, b) <= 10:
                found += [(f"{a} {sign} {b}", str(a * b)) for sign in ("times", "*")]
    return tuple(found)


def _echoes(rng: random.Random) -> tuple[tuple[str, str], ...]:
    texts = [" ".join(rng.choices(WORDS.split(), k=rng.randint(1, 6))) for _ in range(4000)]
    return tuple((text, text) for text in texts)


def _made_up(rng: random.Random) -> str:
    """Return a word that no table holds: names, foreign words, slips of the hand."""
    syllables = (rng.choice(ONSETS.split()) + rng.choice("aeiouy") for _ in range(rng.randint(1, 4)))
    word = "".join(syllables) + rng.choice(CODAS.split())
    return rng.choice((word, word, word, word.title(), word.upper()))


def _loose(rng: random.Random) -> str:
    """Return words of every sort in no order: the way people type into a search box."""
    known = [subject for subject, _ in _pairs(CAPITALS) + _pairs(COLOURS)]
    words = [_made_up(rng)]
    for _ in range(rng.randint(0, 9)):
        common, number = rng.choice(COMMON.split()), str(rng.randint(1, 2100))
        words += rng.choices((common, _made_up(rng), rng.choice(known), number), (10, 5, 1, 1))
    rng.shuffle(words)
    return " ".join(words) + rng.choice(("", "", "?", ".", "!"))


def _demand(rng: random.Random) -> str:
    things = THINGS.replace("\n", "|").split("|")
    objects = [_made_up(rng) if rng.random() < 0.3 else rng.choice(things) for _ in range(2)]
    return rng.choice(DEMANDS.replace("\n", "|").split("|")).format(*objects)


def _foreign(rng: random.Random) -> str:
    """Return characters of one script in any order."""
    first, last = rng.choice(SCRIPTS)
    letters = [chr(rng.randint(first, last)) for _ in range(rng.randint(1, 30))]
    return "".join(rng.choice((letter, letter, letter, letter, " ")) for letter in letters).strip() or "?"


def _strangers(rng: random.Random) -> tuple[tuple[str, str], ...]:
    """Questions outside every table: the model says so and stops, whatever it is asked."""
    found = []
    for _ in range(12_000):
        kind = rng.choices((_demand, _loose, _foreign), (5, 4, 1))[0]
        text = " ".join(kind(rng) for _ in range(rng.choice((1, 1, 1, 2))))
        found.append((text, "Unknown"))
    return tuple(found)


@dataclass(frozen=True)
class Family:
    """One kind of question.

    Attributes:
        weight: Share of the conversations, relative to the other families.
        items: (subject, value) rows.
        wordings: Ways to ask, with `{x}` for the subject.
        answer: The full answer, with `{x}` and `{y}` for the value; the value alone is the short answer.
        followups: Ways to ask for another subject later in the same conversation; empty means the wordings.
        is_verbatim: Whether the value must come back letter for letter.
    """

    weight: float
    items: tuple[tuple[str, str], ...] = field(repr=False)
    wordings: tuple[str, ...]
    answer: str
    followups: tuple[str, ...] = ()
    is_verbatim: bool = False

    def reply(self, item: tuple[str, str], *, short: bool) -> str:
        """Return the one right answer to an item, full or short."""
        text = item[1] if short else self.answer.format(x=item[0], y=item[1])
        return text if self.is_verbatim else text[0].upper() + text[1:]


STORY = (
    "Once there was a {x} who lived near the {y}. One day the {x} lost its way and was afraid. An old owl showed "
    "the {x} the road home. They shared some bread and became friends. Since then the {x} has never walked alone."
)


def families(seed: int = 0) -> dict[str, Family]:
    """Build every family of questions, the same for the same seed."""
    rng = random.Random(seed)
    counts = tuple((str(n), ", ".join(str(i) for i in range(1, n + 1))) for n in (*range(2, 13), 20, 30))
    ask_value = ("What is {x}?", "How much is {x}?", "Compute {x}.", "{x}?", "What does {x} make?", "{x} =")
    ask_next = ("What comes after {x}?", "Which one follows {x}?", "What is next after {x}?")
    ask_meaning = ("What is {x}?", "Define {x}.", "What does the word for {x} mean?", "Explain what {x} is.")
    ask_capital = (
        *("What is the capital of {x}?", "Which city is the capital of {x}?", "Name the capital of {x}."),
        *("capital of {x}", "Tell me the capital of {x}.", "What's {x}'s capital?"),
    )
    ask_country = ("Which country has {x} as its capital?", "{x} is the capital of which country?")
    ask_colour = ("What colour is {x}?", "What color is {x}?", "Which colour does {x} have?", "Name the colour of {x}.")
    ask_opposite = (
        "What is the opposite of {x}?",
        "Give me the opposite of {x}.",
        "Which word is the opposite of {x}?",
    )
    also = ("And {x}?", "And of {x}?", "What about {x}?")
    capitals = _pairs(CAPITALS)
    nexts = tuple(pairwise(DAYS)) + tuple(pairwise(MONTHS))
    told = ("Tell me a story about a {x}.", "Write a story about a {x}.", "I would like a story about a {x}.")
    ask_echo = ("Repeat after me: {x}", "Say: {x}", "Repeat: {x}", "Say this again: {x}")
    ask_count = ("Count to {x}.", "Count from 1 to {x}.", "Count up to {x}, please.")
    return {
        "sum": Family(4.0, _sums(), ask_value, "{x} is {y}.", ("And {x}?", "What about {x}?", "{x}?")),
        "capital": Family(1.6, capitals, ask_capital, "The capital of {x} is {y}.", also),
        "country": Family(0.7, tuple((y, x) for x, y in capitals), ask_country, "{x} is the capital of {y}."),
        "colour": Family(0.8, _pairs(COLOURS), ask_colour, "The colour of {x} is {y}.", also),
        "opposite": Family(0.8, _pairs(OPPOSITES), ask_opposite, "The opposite of {x} is {y}.", also),
        "meaning": Family(0.9, _pairs(MEANINGS, "="), ask_meaning, "{x} is {y}."),
        "next": Family(0.6, nexts, ask_next, "After {x} comes {y}.", ("And after {x}?",)),
        "count": Family(1.0, counts, ask_count, "{y}."),
        "story": Family(0.6, _pairs(STORIES), told, STORY),
        "greeting": Family(0.5, _pairs(GREETINGS, "="), ("{x}", "{x}!", "{x}?", "{x}."), "{y}"),
        "echo": Family(3.0, _echoes(rng), ask_echo, "{y}", is_verbatim=True),
        "stranger": Family(3.0, _strangers(rng), ("{x}",), UNKNOWN),
    }


def _worn(text: str, rng: random.Random) -> str:
    """Return the question as people type it: now and then without capitals, mark or manners."""
    if rng.random() < 0.15:
        text = text.lower()
    if rng.random() < 0.1:
        text = text.rstrip("?.!")
    return f"Please tell me: {text}" if rng.random() < 0.04 else text


def _turn(family: Family, rng: random.Random, *, short: bool, again: bool) -> Chat:
    item = rng.choice(family.items)
    asked = rng.choice(family.followups if again and family.followups else family.wordings).format(x=item[0])
    if not family.is_verbatim:
        asked = _worn(asked, rng)
    reply = family.reply(item, short=short)
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": reply}]


def chats(seed: int, known: dict[str, Family]) -> Iterator[Chat]:
    """Yield conversations without end: one to three turns, a third of them after a system message."""
    rng = random.Random(seed)
    names = list(known)
    weights = [known[name].weight for name in names]
    while True:
        chat: Chat = []
        short = rng.random() < 0.12
        if short or rng.random() < 0.22:
            chat.append({"role": "system", "content": rng.choice(SHORT_SYSTEM if short else LONG_SYSTEM)})
        name = rng.choices(names, weights)[0]
        chat += _turn(known[name], rng, short=short, again=False)
        for _ in range(rng.choice((0, 0, 0, 0, 1, 2))):
            again = rng.random() < 0.6
            name = name if again else rng.choices(names, weights)[0]
            chat += _turn(known[name], rng, short=short, again=again)
        yield chat
