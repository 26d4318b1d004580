"""Words that mean the same, forms that no rule gives, and words that only look like forms of others.

What wrongly stands in `SYNONYMS` makes a wrong hit possible: the list leans to the short side, and a word of two senses
is none for it ("site" and "website", "show" and "display").
"""

from __future__ import annotations

__all__ = ["IRREGULAR", "SYNONYMS", "UNINFLECTED"]


def _lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


SYNONYMS = {
    word: line[0]
    for line in _lines("""
        buy purchase
        begin start
        big large
        fast quick
        quickly rapidly
        photo picture photograph pic
        fix repair
        phone telephone
        mobile cellphone
        bike bicycle
        ad advertisement advert
        movie film
        summarise summarize
        help assist
        need require
        delete erase
        pick choose select
        method technique
        error mistake
        kid child
        mother mom mum
        father dad
        illness disease
        physician doctor
        lawyer attorney
        car automobile
        airplane plane aeroplane
        tv television
        happen occur
        obtain acquire
        difference distinction
        improve enhance
        reduce decrease
        increase boost
        easy simple
        easiest simplest
        easier simpler
        hard difficult
        biggest largest
        bigger larger
        fastest quickest
        faster quicker
        cheap inexpensive
        exam examination
        anyone anybody
        persuade convince
        strange weird
        afraid scared
        upcoming forthcoming
        latest newest
        nearest closest
        turn switch
        maybe perhaps
        affect influence
        huge enormous
        tiny minuscule
        allow permit
        often frequently
        sofa couch
        petrol gasoline
        truck lorry
        vs versus
        info information
        maximum max
        minimum min
        approx approximately roughly
        cab taxi
        fridge refrigerator
        maths math mathematics
        job occupation
        disadvantage drawback
        wrong incorrect
        reply respond
        rich wealthy
        ill sick
        gray grey
        analyze analyse
        analyzing analysing
        traveling travelling
        traveler traveller
        canceled cancelled
        modeling modelling
        catalog catalogue
        dialog dialogue
        jewelry jewellery
        aluminum aluminium
        defense defence
        program programme
        smart intelligent
        regarding concerning
        till until
        everybody everyone
        nobody noone
        somebody someone
    """)
    for word in line
}

_IRREGULAR = _lines("""
    person people persons
    child children
    man men
    woman women
    mouse mice
    foot feet
    tooth teeth
    leaf leaves
    life lives
    wife wives
    knife knives
    wolf wolves
    half halves
    shelf shelves
    self selves
    goose geese
    ox oxen
    criterion criteria
    phenomenon phenomena
    analysis analyses
    hypothesis hypotheses
    crisis crises
    thesis theses
    index indices indexes
    matrix matrices
    vertex vertices
    datum data
    have has
""")
IRREGULAR = {word: line[0] for line in _IRREGULAR for word in line}

UNINFLECTED = frozenset(
    word
    for line in _lines("""
        times minutes works spirits looks forces waters sands greens brains grounds regards jeans
        news means manners premises customs arms goods shorts glasses economics physics politics statistics
        savings securities futures damages contents papers rights terms woods lens bus gas plus always species
        series windows teams pythons apples was his its this us is as yes has does goes less unless texas paris mars
    """)
    for word in line
)
"""They look like forms of other words, and are none."""
