"""Words that decide whether two questions differ. Lower case, one spelling each.

All words must agree, so what is missing here costs a hit; what wrongly stands in `IDLE` or `AUXILIARIES`
makes a wrong hit possible: those lists lean to the short side.
"""

from __future__ import annotations

__all__ = [
    "ABOUT", "ARTICLES", "AUXILIARIES", "CASED", "CONTRACTED", "DAYS", "ENGLISH", "FOREIGN", "FUNCTION", "GIVING",
    "HOMOGRAPHS", "IDLE", "LABELS", "LARGE", "LINKS", "LOCAL", "MEANT", "MONTHS", "NAME_PARTS", "NEGATIONS", "NOT",
    "OPPOSITES", "ORDINALS", "PARTED", "PARTICLES", "PERSONS", "PHRASAL", "PREFIXES", "QUESTIONS", "RELATIONAL",
    "SAYING", "SMALL", "STARTERS", "UNITS",
]  # fmt: skip


def _words(text: str) -> list[str]:
    return text.split()


def _lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


# -- numbers -----------------------------------------------------------------------------------------------------

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
    word: f"{value}th"
    for value, word in enumerate(_words("first second third fourth fifth sixth seventh eighth ninth tenth"), 1)
}

MONTHS = {
    word: line[0]
    for line in _lines("""
        january jan
        february feb
        march mar
        april apr
        may
        june jun
        july jul
        august aug
        september sept sep
        october oct
        november nov
        december dec
    """)
    for word in line
}
"""Each spelling of a month beside a number, and the month."""

_UNITS = _lines("""
    percent pct
    dollar dollars usd bucks
    euro euros eur
    gbp
    yen jpy
    km kilometer kilometers kilometre kilometres kms
    m meter meters metre metres
    cm centimeter centimeters centimetre centimetres
    mm millimeter millimeters millimetre millimetres
    mile miles mi
    foot feet ft
    inch inches
    kg kilogram kilograms kilo kilos kgs
    gram grams g
    mg milligram milligrams
    pound pounds lb lbs
    ounce ounces oz
    l liter liters litre litres
    ml milliliter milliliters millilitre millilitres
    ms millisecond milliseconds
    second seconds sec secs s
    minute minutes mins min
    hour hours hr hrs h
    day days
    week weeks
    month months
    year years yr yrs
    KB kilobyte kilobytes
    MB megabyte megabytes
    GB gigabyte gigabytes
    TB terabyte terabytes
    am
    pm
    watt watts w W
    volt volts v V
    hertz hz
""")
UNITS = {word: line[0] for line in _UNITS for word in line}
"""Each spelling of a unit behind a number, and the unit. Spellings whose case matters are left as they are."""

# -- grammar -----------------------------------------------------------------------------------------------------

ARTICLES = {"a": "a", "an": "a", "the": "the", "my": "my"}
"""They may be left out. So may "my", which says no more than "the" to who can't look; all other owners must agree."""

AUXILIARIES = {"am": "be", "is": "be", "are": "be", "be": "be", "was": "was", "were": "was"} | {
    word: word for word in _words("did can could will would should shall may might must")
}
"""They stand now before, now behind the subject; what they say of time and duty must agree."""

IDLE = frozenset({"do", "does", "exactly", "actually", "basically", "kindly", "really", "ever"})
"""Nothing is meant by these."""

MEANT = frozenset(_words("feel think know look work mean like love sound differ believe prefer do see want feeling"))
"""Behind "how do you" these ask the one who answers, not how anyone does it."""

QUESTIONS = frozenset(_words("what who whom whose where when why how"))

PERSONS = frozenset(
    _words("""
        i me my mine myself we us our ours ourselves you your yours yourself he him his himself she her hers herself
        they them their theirs themselves it its itself one someone somebody this these that those
    """)
)

STARTERS = frozenset(
    _words("""
        in on at for from to into with without during before after since until till via using under over about through
        between within if when while because although though unless whenever once
    """)
)
"""A clause or phrase that begins with one of these may stand at the front or at the end."""

DAYS = frozenset({"today", "tomorrow", "yesterday", "tonight", "now", "currently"})
"""These alone may as well."""

PARTICLES = frozenset(_words("on off up down out away back"))
PHRASAL = frozenset(_words("turn switch put pick take shut set back turned switched put turning switching"))
"""Of these verbs the particle may stand behind the object: turn the light on."""

LINKS = frozenset({"in", "of", "for", "about"})
"""Between two words of content, who types little leaves them out: cases in shanghai."""

PARTED = PHRASAL | frozenset(
    _words("""
        log sign check plug fill break hand give bring drop get come go look run stand cut call send fit keep opt pay
        care vote write ask speak know hear fall sleep live believe stay
    """)
)
"""Behind these verbs a link is none: "check in luggage" is not "check luggage"."""

LOCAL = frozenset(
    _words("""
        weather news map maps case cases death deaths time population hotel hotels restaurant restaurants job jobs
        forecast temperature events school schools hospital hospitals traffic crime statistics outbreak flights shops
    """)
)
"""What is asked for by its place: weather in london. "Men in black" are not "black men"."""

ABOUT = frozenset(_words("news info information fact facts detail details question questions data statistics"))
"""These are about a thing as they are of it; "songs about lennon" are not "lennon songs"."""

SAYING = frozenset(_words("say says saying word mean spell translate write pronounce"))
GIVING = frozenset(
    _words("""
        write give suggest name list generate create make recommend show find pick choose provide draw send add delete
        remove set book compose buy order tell
    """)
)
"""Told to do so, one makes one thing or several: the number of a noun counts."""

LABELS = frozenset(
    _words("vitamin hepatitis influenza plan option type class grade group part section team appendix answer choice")
)
"""Behind these, "a" is a name: vitamin a."""

RELATIONAL = frozenset(
    _words("""
        formula meaning price prices cost costs recipe recipes definition symptom symptoms cause causes cure treatment
        remedy remedies reason reasons schedule schedules forecast rule rules benefit benefits advantage advantages
        disadvantage disadvantages requirement requirements syntax solution equation use uses word
    """)
)
"""Behind these, "for" says no more than "of"."""

CONTRACTED = {
    "what's": ("what", "is"), "whats": ("what", "is"), "who's": ("who", "is"), "where's": ("where", "is"),
    "when's": ("when", "is"), "why's": ("why", "is"), "how's": ("how", "is"), "it's": ("it", "is"),
    "that's": ("that", "is"), "there's": ("there", "is"), "here's": ("here", "is"), "he's": ("he", "is"),
    "she's": ("she", "is"), "i'm": ("i", "am"), "im": ("i", "am"), "ive": ("i", "have"), "let's": ("let", "us"),
    "cannot": ("can", "not"), "can't": ("can", "not"), "cant": ("can", "not"), "won't": ("will", "not"),
    "shan't": ("shall", "not"), "dont": ("do", "not"), "doesnt": ("does", "not"), "didnt": ("did", "not"),
    "isnt": ("is", "not"), "arent": ("are", "not"), "wasnt": ("was", "not"), "werent": ("were", "not"),
    "wouldnt": ("would", "not"), "couldnt": ("could", "not"), "shouldnt": ("should", "not"), "hasnt": ("has", "not"),
    "havent": ("have", "not"), "hadnt": ("had", "not"), "has": ("have",), "which": ("what",), "whom": ("who",),
    "mph": ("mile", "per", "hour"), "kmh": ("km", "per", "hour"), "kph": ("km", "per", "hour"),
}  # fmt: skip
"""One word that stands for others; all that end in "n't", "'re", "'ve", "'ll" or "'d" are known without it."""

FUNCTION = frozenset((*ARTICLES, *AUXILIARIES, *IDLE, *QUESTIONS, *PERSONS, *STARTERS, *PARTICLES)) | frozenset(
    _words("of by as and or but not no so than then there has have had please hi ok id")
)
"""In capitals among other words these are something else: US, IT, WHO."""

HOMOGRAPHS = frozenset(
    _words("""
        polish turkey china march may august nice bath cork mercury reading job bill mark will frank grant drew rose
        lily jack rob pat sue dick bob gene art apple shell target gap tide dove delta bush acid basic rest soap
        aids pin ram cat smart pet arm flop seal swat ide
    """)
)
"""Words of two meanings of which a capital within a sentence tells one."""

CASED = frozenset(_words("kb mb gb tb kbps mbps gbps mw"))
"""Units of which capitals tell bits from bytes, or thousandths from millions."""

FOREIGN = frozenset(
    _words("""
        el los las que por para una del cuántos cómo está der das und ist ein eine nicht wie für mit auf wann le les des
        du et est pour dans une qui combien della che di il gli quanto uma um não quanto com dos het een van voor niet
        la en es lo como donde cuando quien porque muy hoy yo ich du sie wir je elle nous vous avec
        hoeveel ik og att och ett som är ile jest nie czy się
    """)
)
"""Where two of these stand, or one that is no part of names and no word of `ENGLISH`, a text is not English, and every
word of it must agree.
"""

NAME_PARTS = frozenset(_words("los las el la del les le un du des di il en es lo das der wir com het van och"))
"""Of `FOREIGN`, those that stand in English texts too, mostly in names: los angeles."""

ENGLISH = frozenset(
    _words("the is are what how does of to my for with and i you who where when why which can it this that your")
)

# -- words that say why ------------------------------------------------------------------------------------------

NOT = "\xac"
"""Stands before a word that is negated."""

ACTING = frozenset(
    _words("""
        turn switch set play add remove delete cancel book order send open close lock unlock start stop pay make create
        schedule call activate deactivate block unblock charge run clear change take buy sell put pause mute enable
        disable
    """)
)
"""An order may begin with one of these, and a question never does."""

TIMES = {
    word: time
    for time, words in {
        "now": "is are am", "then": "was were", "since": "has have had", "usually": "do does", "once": "did",
        "later": "will",
    }.items()
    for word in words.split()
}  # fmt: skip
"""What the first word of a question that wants yes or no says of time."""

CASES = {
    "i": "me", "he": "him", "she": "her", "we": "us", "they": "them", "who": "whom",
    "mine": "me", "hers": "her", "ours": "us", "theirs": "them", "my": "me", "our": "us", "their": "them", "his": "him",
}  # fmt: skip
"""A person who acts, and the same person to whom something is done."""

NEGATIONS = frozenset(
    _words("""
        no never without none unable impossible unlikely barely scarcely nor neither nobody nothing nowhere hardly
        except excluding unless avoid prevent instead lack fail refuse non nicht kein keine nie ohne ne pas jamais sans
        ni nunca sin não nem sem niet geen zonder не нет без
    """)
)

PREFIXES = ("un", "in", "im", "il", "ir", "dis", "de", "non", "mis", "anti", "re", "pre")

OPPOSITES = tuple(
    tuple(frozenset(side.split()) for side in line.split("|"))
    for line in """
        on enable activate with | off disable deactivate without
        allow permit accept approve | deny forbid reject block decline ban refuse
        start begin open run | stop end finish quit close shut
        increase raise grow rise maximize | decrease reduce lower shrink fall drop minimize
        more most many much | less least fewer few little
        before earlier | after later
        above over | below under
        add insert append create make | remove delete drop
        buy | sell
        import | export
        upload push | download pull
        encode encrypt compress | decode decrypt decompress
        ascending | descending
        best better good | worst worse bad
        largest biggest large big highest high tallest longest | smallest small lowest low shortest
        fast faster fastest | slow slower slowest
        oldest old | newest new youngest young
        hot warm | cold cool
        left | right
        right true correct yes | wrong false no
        first | last
        minimum min | maximum max
        advantage pro | disadvantage con
        safe | dangerous
        male | female
        public | private
        dim darken | brighten lighten
        tighten fasten | loosen unfasten
        learn | teach
        book reserve schedule order | cancel
        join | leave
        attend join | host organize organise chair
        suspend pause postpone delay hold | cancel terminate end delete stop
        upstairs | downstairs
        backup back | restore recover
        borrow | lend loan
        stop | terminate kill
        clean | wipe erase
        pause stop | resume continue unpause
        adult | child kid teenager teen toddler infant baby newborn
        teenager teen | child kid
        child kid teenager teen | toddler infant baby newborn
        toddler | infant baby newborn
        newborn | infant
        kill | killall
        rm | rmdir
        reverse | reversed
    """.strip().splitlines()
)
"""Words on one side of a bar against words on the other: two questions that mean the opposite, or another thing."""

ABOUT_WORDS = frozenset(
    _words("""
        spell spells spelled spelt spelling spellings rhyme rhymes rhyming syllable syllables etymology pronounce
        pronounced pronunciation synonym synonyms antonym antonyms plural anagram anagrams regex regexp rename renames
        renamed renaming translate translates translated translating translation letters vowel vowels consonant
        consonants prefix suffix acronym abbreviation hyphenate capitalise capitalize conjugate
    """)
)
"""Where one of these stands, a text may speak of its words themselves: no word stands for another."""
