"""Ways to ask general questions, of what one owns or ordered and of measures: one group for each verb and adjective."""

from __future__ import annotations

__all__ = ["ASKED_OF_MEASURES", "ASKED_OF_OWNED"]

_VERBS = """
delete, remove, erase, permanently delete; deactivate, disable, temporarily disable; archive; cancel, terminate, call off; pause, put on hold, suspend
postpone, delay, push back, reschedule for later; bring forward; change, modify, alter, edit; extend, prolong; renew; upgrade; downgrade; transfer, hand over
check, look at, view, see; track, follow; find, locate; verify, confirm; activate, enable; block; unblock; mute, silence; hide; report; rename, give another name to
export; import; share; copy, duplicate; print, print out; restore, recover, get back; reset; update; lock; unlock; sell; rent out; return, send back; replace; repair, fix
insure; register; order, buy, purchase; pay for; refund; download; upload; sync; back up, make a backup of; merge; split; close; reopen; approve; reject, decline; sign
rotate; revoke, withdraw; test; install; uninstall; move; save; schedule; attach; encrypt; decrypt; compress; preview; publish; review; rate; insert; freeze; label
"""
_ASKED = (
    "how (do|can|could|should) i {} {n}; how to {} {n}; (i want|i would like|i need|i'd like) to {} {n}; (please |){} {n}; (can|could) you {} {n};"
    " what (should|must|do) i do to {} {n}; what('s| is) the (best |)way to {} {n};"
    " {} {n}, how (do|can) i do (that|it); (help me|i need help to) {} {n}; steps to {} {n}"
).split(";")
_STATES = """
shipped, sent out, dispatched; delivered, handed over; paid, paid for; refunded, paid back; approved, accepted; rejected, declined, turned down; cancelled, called off
processed; received; confirmed; scheduled; lost; stolen; damaged; opened; closed; activated; verified; blocked; updated; deleted, removed; renewed; returned; signed
printed; published; hacked; insured; registered; reviewed; tested; charged; expired; delayed; repaired, fixed; replaced; downloaded; saved; encrypted; sold
"""
_STATED = "is {n} (already |){} (yet|); has {n} (already |)been {} (yet|); was {n} {}; do you know (if|whether) {n} (is|was|has been) {}; tell me (if|whether) {n} (is|was|has been) {}"
_WHEN = (
    "when was {n} {}; at what time was {n} {}; on (what|which) day was {n} {}; (do you know|tell me) when {n} was {}"
)
_ADJECTIVES = """
average, mean; median; minimum, lowest; maximum, highest; good, decent; normal, usual, typical; current; total, overall; starting; expected; ideal, perfect
best; worst; cheapest, least expensive; most expensive, priciest; fastest, quickest; slowest; safest; most dangerous; easiest, simplest; hardest, most difficult
most popular; most famous; most beautiful, prettiest; ugliest; oldest; newest, latest; first; last; largest, biggest; smallest; longest; shortest; healthiest; second largest
"""
_MEASURED = "what('s| is) the {} {n}; which is the {} {n}; (can|could) you tell me the {} {n}; (do you know|tell me) the {} {n}; what would be the {} {n}"


def _groups(heads: str, wordings: str | list[str], kind: str, mark: str) -> str:
    """One group a head; the names of a head are alternatives in every wording."""
    lines = []
    for names in heads.replace("\n", ";").strip("; ").split(";"):
        choice = f"({'|'.join(name.strip() for name in names.split(','))})" if "," in names else names.strip()
        lines.append(f"{mark}-{names.split(',')[0].strip().replace(' ', '-')} {kind}")
        found = wordings.split(";") if isinstance(wordings, str) else wordings
        lines += ["    " + wording.strip().replace("{}", choice) for wording in found]
    return "\n".join(lines) + "\n"


ASKED_OF_OWNED = (
    _groups(_VERBS, _ASKED, "owned", "do")
    + _groups(_STATES, _STATED, "owned", "is")
    + _groups(_STATES, _WHEN, "owned", "when")
)
ASKED_OF_MEASURES = _groups(_ADJECTIVES, _MEASURED, "measure", "the")
"""As `asking.ASKED_OF_DOING`; a choice of one is written without brackets."""
