"""Words that decide whether two questions differ: numbers, units, negation, opposites. Lower case, one spelling each.

What is missing here makes a wrong hit possible, what is wrong here costs a hit: the lists lean to the long side.
"""

from __future__ import annotations

__all__ = [
    "ALTERNATIVES", "ARTICLES", "LARGE", "NEGATIONS", "NEGATION_SIGNS", "OPPOSITES", "ORDINALS", "PLAIN", "PREFIXES",
    "SMALL", "UNITS",
]  # fmt: skip


def _words(text: str) -> list[str]:
    return text.split()


SMALL = {
    word: value
    for value, word in enumerate(
        _words(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen eighteen nineteen"
        )
    )
} | {word: 10 * value for value, word in enumerate(_words("twenty thirty forty fifty sixty seventy eighty ninety"), 2)}
"""Number words that add up: twenty + one."""

LARGE = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000, "dozen": 12}
"""Number words that multiply: two x hundred."""

ORDINALS = {
    word: value
    for value, word in enumerate(_words("first second third fourth fifth sixth seventh eighth ninth tenth"), 1)
}

_UNIT_SPELLINGS = {
    "%": "percent pct",
    "$": "usd dollar dollars bucks",
    "€": "eur euro euros",
    "£": "gbp pound_sterling",
    "¥": "jpy yen",
    "km": "kilometer kilometers kilometre kilometres kms",
    "m": "meter meters metre metres",
    "cm": "centimeter centimeters centimetre centimetres",
    "mm": "millimeter millimeters millimetre millimetres",
    "mi": "mile miles",
    "ft": "foot feet",
    "inch": "inches",
    "kg": "kilogram kilograms kilo kilos kgs",
    "g": "gram grams",
    "mg": "milligram milligrams",
    "lb": "lbs pound pounds",
    "oz": "ounce ounces",
    "l": "liter liters litre litres",
    "ml": "milliliter milliliters millilitre millilitres",
    "ms": "millisecond milliseconds",
    "s": "sec secs seconds",
    "min": "mins minute minutes",
    "h": "hr hrs hour hours",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "years yr yrs",
    "kb": "kilobyte kilobytes",
    "mb": "megabyte megabytes",
    "gb": "gigabyte gigabytes",
    "tb": "terabyte terabytes",
    "°c": "celsius",
    "°f": "fahrenheit",
    "am": "a.m",
    "pm": "p.m",
    "mph": "",
    "kw": "kilowatt kilowatts",
    "w": "watt watts",
    "v": "volt volts",
    "hz": "hertz",
    "ghz": "gigahertz",
    "mhz": "megahertz",
    "k": "",
}
UNITS = {word: unit for unit, words in _UNIT_SPELLINGS.items() for word in (unit, *words.split())}
"""Each spelling of a unit, and the unit."""

NEGATIONS = frozenset(
    _words("""
        not no never without none unable incapable inability impossible unlikely barely scarcely nonexistent
        until nor neither nobody nothing nowhere cannot cant dont doesnt didnt isnt arent wasnt werent wont
        wouldnt couldnt shouldnt hasnt havent hadnt aint mustnt neednt hardly except excluding unless avoid
        avoids avoiding avoided prevent prevents preventing prevented instead lack lacks lacking lacked fail
        fails failed failing refuse refuses refused nicht kein keine keinen keinem keiner keines nie niemals
        ohne weder ne pas jamais sans aucun aucune ni nunca sin ningún ninguno ninguna jamás tampoco non mai
        senza nessun nessuno nessuna não nem sem nenhum nenhuma niet geen nooit zonder не нет без никогда ни
        нельзя nie bez nigdy ikke ingen aldri aldrig utan uden inte uten değil yok
    """)
)

NEGATION_SIGNS = (*"不没沒無无未非别別勿않못없", "ない", "なく", "ません", "なし")
"""Negation where words are not set apart: each occurrence counts."""

PREFIXES = ("un", "in", "im", "il", "ir", "dis", "de", "non", "non-", "mis", "anti", "anti-", "de-")

# Synonyms on each side of a bar are opposites of all on the other side.
OPPOSITES = tuple(
    tuple(tuple(side.split()) for side in line.split("|"))
    for line in """
    on enable activate | off disable deactivate
    allow permit accept approve grant | deny forbid reject block decline disallow ban refuse revoke
    start begin launch resume run open | stop end finish quit halt pause terminate kill
    open | close shut
    increase raise grow rise boost maximize up gain | decrease reduce lower shrink fall drop minimize down lose cut
    more most many much | less least fewer fewest few little
    before earlier prior | after later
    above over | below under beneath
    in inside into | out outside
    add insert append include attach | remove delete drop subtract exclude detach erase
    create make build | delete destroy remove
    lock | unlock
    buy purchase | sell
    import | export
    upload push | download pull
    send | receive
    encode encrypt compress serialize pack zip | decode decrypt decompress deserialize unpack unzip extract
    connect join | disconnect leave
    login | logout
    ascending asc | descending desc
    best better good | worst worse bad
    largest biggest larger bigger big large | smallest smaller small
    highest higher high | lowest lower low
    longest longer long | shortest shorter short
    fastest faster fast quick quickly | slowest slower slow slowly
    oldest older old | newest newer new latest youngest younger young
    cheapest cheaper cheap | expensive costliest priciest
    easiest easier easy | hardest harder hard difficult
    early | late
    hot warm heat | cold cool
    left | right
    right correct true | wrong incorrect false
    yes | no
    first | last
    minimum min | maximum max
    positive plus | negative minus
    advantage benefit pro | disadvantage drawback con
    win | lose
    pass succeed success | fail failure
    love like | hate dislike
    safe | dangerous unsafe
    male man men boy husband father son brother | female woman women girl wife mother daughter sister
    input | output
    public | private
    internal | external
    parent | child
    row horizontal horizontally | column vertical vertically
    uppercase upper | lowercase lower
    odd | even
    singular | plural
    prefix | suffix
    frontend front client | backend back server
    local | remote
    static | dynamic
    sync synchronous | async asynchronous
    depart departure leave | arrive arrival
    deposit | withdraw withdrawal
    borrow | lend
    teach | learn
    north | south
    east | west
    full | empty
    rich | poor
    strong | weak
    wet | dry
    heavy | light
    wide | narrow
    deep | shallow
    dark | light
    alive born birth | dead died death
    always | sometimes seldom rarely
    all every both | some any
    cause | effect
    question | answer
    debit | credit
    lead | follow
    same similar identical | different unlike distinct
    important significant crucial major serious | unimportant insignificant minor trivial
    common usual often frequently | rare uncommon seldom rarely
    present available existing | absent missing
    support for | oppose against
    found won | lost
    began started bought | ended stopped sold
    together | separately apart alone
    natural | artificial
    good | evil
    well | badly poorly
    huge gigantic giant | tiny minuscule
    single individual | multiple several
    friend | enemy
    war | peace
    reject ignore | accept
    ancestor predecessor previous | descendant successor next
    """.strip().splitlines()
)

ALTERNATIVES = (
    "monday tuesday wednesday thursday friday saturday sunday",
    "january february march april may june july august september october november december",
    "today tomorrow yesterday tonight",
    "spring summer autumn winter",
    "morning afternoon evening night",
    "red orange yellow green blue purple pink brown black white grey",
    "second minute hour day week month year decade century",
    "daily weekly monthly yearly hourly",
    "breakfast lunch dinner",
    "solid liquid gas",
    "north south east west",
)
"""Words of which one in place of another makes it another question."""

ARTICLES = frozenset(_words("the a an my your our their his her its this that"))

PLAIN = frozenset(
    _words("""
        i i'm i'd i've i'll he she a an the to of in on at for and or but if is are was were be do does did can could
        will would should may might must have has had how what who whom whose which when where why with from by
        as it this that these those my your you me we our us they their ok okay please hi hello hey thanks not
        so than then there into about between while during without
    """)
)
"""Capitals of these say nothing: headings, and words that begin a sentence."""
