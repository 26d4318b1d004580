"""Ways to ask general questions, of health, food and animals: all wordings of a group ask the same, those of two groups do not."""

from __future__ import annotations

__all__ = ["ASKED_OF_HEALTH"]

ASKED_OF_HEALTH = """
harm.side-effects drug food
    what are the side effects of {n}
    does {n} have (any |)(side effects|adverse effects|unwanted effects)
    (are there|what are) any side effects (of|from|to) (taking |using |){n}
    what side effects (does|can) {n} (have|cause)
    can {n} (have|cause) side effects
good.health-benefits drug food activity
    what are the (health |)(benefits|advantages) of {n}
    how is {n} (good|beneficial) for (you|health|your health|the body)
    what (does|can) {n} do for (your|the|our) (body|health)
    is {n} good for (you|your health|health) and why
    what health benefits does {n} have
    why is {n} (so |)(healthy|good for you)
good.is-healthy food drug activity
    is {n} (good|bad|harmful|healthy|unhealthy) for (you|your health|the body|health)
    how (healthy|unhealthy|good|bad) is {n}
    is {n} (healthy|unhealthy|good for us)
    does {n} (harm|damage|hurt) (you|your body|your health)
how-much-of food drug activity
    how much {n} (should|can|may) (i|you|one|a person) (have|take) (a day|per day|each day|every day|daily)
    what is the (right|recommended|ideal) amount of {n} (a day|per day|each day)
    how much {n} is (healthy|recommended|enough) (a day|per day|each day)
harm.too-much food drug activity
    what happens if (i|you|one) (have|take|get) too much {n}
    is (there such a thing as |)too much {n} (harmful|bad for you|dangerous)
    can (i|you|one) (have|take|get) too much {n}
    what does too much {n} do (to you|to the body)
symptoms illness
    what are the (symptoms|signs|first signs|typical symptoms) of {n}
    how do (i|you|people|doctors) (know|tell|recognise|find out) (if|that|whether) (i|you|someone) (have|has) {n}
    what does {n} (feel|look) like
    how can (i|you|one) (recognise|notice|tell) {n}
    which symptoms does {n} (have|show|cause)
get.causes illness
    what (causes|triggers|brings on) {n}
    what (are|is) the (causes|cause|reasons|reason) (of|for|behind) {n}
    why do (people|i|you|some people) get {n}
    how (does|do) (one|people|you) get {n}
    where does {n} come from
treat.any illness
    how (do|can|should) (i|you|we|one|doctors) (treat|get rid of|cure|heal) {n}
    what('s| is) (the best|a good|an effective|the most effective) (treatment|cure|remedy|medicine) (for|against) {n}
    how to (treat|cure|get rid of|heal) {n}
    what (can|should) (i|one) (do|take) (about|against|for) {n}
    what helps (against|with|for) {n}
    (i have|i suffer from|i am suffering from) {n}, what (should|can) i do
    (how|what) is {n} (treated|cured) (with|)
home-treat illness
    what (are|is) (some|the best|a good) home (remedies|remedy) for {n}
    how (do|can) i (treat|cure|get rid of) {n} at home
    which home remedies (help|work) (against|for) {n}
prevent illness
    how (do|can|should) (i|you|we|one) (prevent|avoid) (getting |){n}
    how to (prevent|avoid) (getting |){n}
    what (can|should) (i|one|people) do to (prevent|avoid) {n}
    how (can|is) {n} (be |)prevented
    how do i (keep|protect) myself from (getting |){n}
last illness
    how long does {n} (last|take to heal|take to go away|go on)
    when (does|will) {n} go away
    how (much time|many days) does {n} (take to go away|last)
curable illness
    (is|can) {n} (be |)(curable|cured|healed)
    is there (a|any) cure for {n}
    can (someone|people|one) (be cured of|recover from|get over) {n}
    will {n} ever go away (completely|for good)
get.contagious illness
    is {n} (contagious|infectious|catching)
    can (i|you|one) (catch|get) {n} from (someone|another person|others)
    does {n} (spread|pass) (from person to person|between people)
doctor illness
    when should (i|you|one) (see|go to|visit|call) a doctor (for|about|with) {n}
    (do i need|should i see|is it necessary to see) a doctor (for|about|because of) {n}
eat animal
    what (do|does) {n} (eat|feed on|live on)
    what is the (diet|food) of {n}
    what should (i|one) feed {n}
live-where animal
    where (do|does) {n} live
    what is the (habitat|home) of {n}
    where (can|do) (you|people) find {n}
live-long animal
    how long (do|does) {n} live
    what is the (lifespan|life expectancy) of {n}
    how old (do|can|does) {n} get
sleep animal
    how (much|long) (do|does) {n} sleep
    how many hours (a day |)(do|does) {n} sleep
danger animal
    (is|are) {n} dangerous (to people|to humans|)
    (do|does|can) {n} (attack|hurt|bite) (people|humans)
keep animal
    can (i|you|one) keep {n} as (a pet|pets)
    (is|are) {n} (a good pet|good pets)
    is it (possible|legal) to keep {n} as (a pet|pets)
"""
"""Lines of a name and the kinds of things (`matters.MATTERS`), and below each its wordings.

``(a|b)`` is a choice, ``{n}`` a thing, ``{m}`` another of its kind.
"""
