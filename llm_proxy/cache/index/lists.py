"""A large scope: vectors of one byte a dimension in lists of alike ones, of which a search looks into the nearest.

::

    add x:     into the list whose centre is nearest; a list above 512 is cut in two
               a centre is the direction of the sum of its list, which follows each change
    cut:       two means of the list's vectors, a few rounds; each vector goes to the nearer one
    tidy:      eight lists for each one cut, in turn: vectors go to the centre that is nearest by now
remove x:  the last of its list takes its place; a list below 16 is dissolved into the nearest others
    search q:  lists by nearness of their centres until they hold 10,000 vectors; look at each of those;
               where none is as near as .75, go on to 30,000

There is no training that would stop the rest for long: a scope begins as one list, and lists are cut one by one, at
most one with each addition, in some milliseconds, and tidied likewise. The number of lists grows with the scope, and
nothing has ever to be built beside it a second time. Codes move as they are (codes.py).

Source: the inverted file of Sivic & Zisserman, "Video Google", ICCV 2003; cutting lists where they outgrow a bound:
Xu et al., "SPFresh", arXiv 2410.14452, section 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .shelf import Shelf, libraries

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from .codes import Codec
    from .finer import Finer
    from .flat import Places
    from .lock import SharedLock

__all__ = ["LISTS_MOST", "Lists"]

LISTS_MOST = 16_384  # so beyond some six million vectors lists are cut no more, and grow
_CUT_ABOVE = 512
_DISSOLVE_BELOW = 16
_PROBES_MOST = 128
_LOOKED_AT = 30_000  # vectors a search compares with, once it has found the nearest lists,
_LOOKED_AT_FIRST = 10_000  # or so many where one of them is
_FOUND = 0.75  # as similar as this: its like lies where the question lies
_COMPARED_AGAIN = 16  # of those found, with the query as it is
_ROUNDS = 3
_REGROUPED_MOST = 2048  # vectors of a list that is cut together with its neighbours
_GROUP = 9  # lists in such a group, itself included
_TIDIED_A_CUT = 8  # lists gone through again for each list cut: all of them while their number grows by an eighth
_TIDIED_AGAINST = 128  # centres with which the vectors of such a list are compared; with all by `tend`
_SHORTEST = 1e-3  # sum of vectors that has a direction
_LEAST_SHARE = 8  # a cut leaves each side at least this part of a list
_KIND = "QT_8bit_direct_signed"


class Lists:
    """Vectors by list, and the centres of the lists, which are codes as well.

    Args:
        name: The scope.
        lock: For changes to hold, and for searches.
        codec: Learnt from its first vectors.
        places: Where its vectors are noted.
        finer: Where what their codes leave out is kept.
    """

    __slots__ = (
        *("_centres", "_dim", "_finer", "_next", "_np", "_overfull", "_places", "_probe"),
        *("_reserved", "_shelf", "_sizes", "_stale", "_sums", "_total", "_untidy"),
        *("codec", "count", "lock", "missing", "name"),
    )

    def __init__(self, name: str, lock: SharedLock, codec: Codec, places: Places, finer: Finer) -> None:
        _, self._np = libraries()
        np = self._np
        self.name, self.lock, self.codec, self._places, self._finer = name, lock, codec, places, finer
        self._dim = len(codec.middle)
        self._shelf = Shelf(self._dim, _KIND, lists=LISTS_MOST, probes=_PROBES_MOST)
        self._centres = Shelf(self._dim, _KIND, lists=1, probes=1)
        self._probe = np.zeros(1, np.int64)
        self._sizes = np.zeros(LISTS_MOST, np.int64)
        self._sums = np.zeros((1, self._dim), np.int32)  # of the codes of each list
        self._overfull: list[int] = []
        self._total = self._untidy = self._stale = self._next = self._reserved = 0
        self.count = 0  # lists
        self.missing = 0  # lists that a snapshot has still to fill

    def __len__(self) -> int:
        return self._total

    # -- searching -----------------------------------------------------------------------------------------------

    def search(self, query: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The ``k`` nearest of those looked at; similarities are off by no more than ``codec.error``."""
        rounded = self.codec.query(query)
        lists, first = self._nearest_lists(rounded)
        similarities, ids = self._compared(query, rounded, lists[:first], k)
        if first < len(lists) and not (len(ids) and similarities.max() >= _FOUND):
            more = self._compared(query, rounded, lists[first:], k)
            similarities, ids = (self._np.concatenate(pair) for pair in zip((similarities, ids), more, strict=True))
        order = (-similarities).argsort(kind="stable")[:k]
        return similarities[order], ids[order]

    def _nearest_lists(self, rounded: NDArray[np.float32]) -> tuple[NDArray[np.int64], int]:
        """The lists to look into, nearest first, and how many of them are looked into at first."""
        found = self._centres.search(rounded, self._probe, min(_PROBES_MOST, self.count))[1]
        first, enough = self._np.searchsorted(self._sizes[found].cumsum(), (_LOOKED_AT_FIRST, _LOOKED_AT)) + 1
        return found[:enough], int(first)

    def _compared(
        self, query: NDArray[np.float32], rounded: NDArray[np.float32], lists: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        places: NDArray[np.int64] = self._np.full(_PROBES_MOST, -1)
        places[: len(lists)] = lists
        ids = self._shelf.search(rounded, places, min(max(k, _COMPARED_AGAIN), self._total))[1]
        ids = ids[ids >= 0]  # fewer where the lists have fewer
        return self.codec.decode_finely(self._codes_of(ids), self._finer.get(ids)) @ query, ids

    def _codes_of(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        codes: NDArray[np.uint8] = self._np.empty((len(ids), self._dim), self._np.uint8)
        for row, number in enumerate(ids.tolist()):
            codes[row] = self._shelf.codes(self._places.lists[number])[self._places.offsets[number]]
        return codes

    # -- changing ------------------------------------------------------------------------------------------------

    def append(self, number: int, row: NDArray[np.float32]) -> None:
        """Take in a vector, and cut a list where one has grown too long."""
        place = int(self._nearest_centres(row, 1)[0])
        self.extend(place, self._np.array([number], self._np.int64), *self.codec.encode(row[None]))
        if self._overfull:
            self._cut_one()
        elif self._untidy:
            self._untidy -= 1
            self._tidy_next(_TIDIED_AGAINST)

    def extend(self, place: int, ids: NDArray[np.int64], codes: NDArray[np.uint8], finer: NDArray[np.uint8]) -> None:
        """Put coded vectors into a list, whose numbers no list has."""
        self._finer.put(ids, finer)
        with self.lock.writing():
            self._extend(place, ids, codes)

    def drop(self, number: int) -> None:
        """Take a vector out, and dissolve its list where that has become short."""
        place, offset = self._places.lists[number], self._places.offsets[number]
        with self.lock.writing():
            self._sums[place] -= self._shelf.codes(place)[offset]
            moved = self._shelf.drop(place, offset)
            self._sizes[place] -= 1
            self._places.offsets[moved] = offset
            self._total -= 1
        if self._sizes[place] < _DISSOLVE_BELOW and self.count > 1 and not self.missing:
            self._dissolve(place)

    @property
    def is_stale(self) -> bool:
        """Whether `tend` has work."""
        return self._stale > 0

    def tend(self) -> bool:
        """Go through one list that has not been compared with all centres since others were cut; whether one was due.

        It takes some ten milliseconds in a scope of a million.
        """
        if not self._stale:
            return False
        self._stale -= 1
        self._tidy_next(self.count)
        self._cut_one()
        return True

    def add_list(self, centre: NDArray[np.uint8]) -> int:
        """Begin a list; its number.

        Args:
            centre: Code of its centre, shape ``(dim,)``.
        """
        with self.lock.writing():
            return self._add_list(centre)

    # -- for a snapshot ------------------------------------------------------------------------------------------

    def centres(self) -> NDArray[np.uint8]:
        """Codes of the centres, shape ``(count, dim)``; valid until it changes."""
        return self._centres.codes(0)

    def list_ids(self, place: int) -> NDArray[np.int64]:
        """The numbers in a list; valid until it changes."""
        return self._shelf.ids(place)

    def list_codes(self, place: int) -> NDArray[np.uint8]:
        """The codes in a list, shape ``(size, dim)``; valid until it changes."""
        return self._shelf.codes(place)

    def list_finer(self, place: int) -> NDArray[np.uint8]:
        """What these codes leave out, copied, shape ``(size, ceil(dim / 4))``."""
        return self._finer.get(self.list_ids(place))

    def rows(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """All numbers and vectors, list by list."""
        for place in range(self.count):
            yield self.list_ids(place), self.codec.decode_finely(self.list_codes(place), self.list_finer(place))

    # -- parts ---------------------------------------------------------------------------------------------------

    def _nearest_centres(self, row: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        return self._centres.search(self.codec.query(row), self._probe, min(count, self.count))[1]

    def _cut_one(self) -> None:
        while self._overfull:
            place = self._overfull.pop()
            if place < self.count < LISTS_MOST and self._sizes[place] > _CUT_ABOVE:
                self._cut(place)
                self._untidy += _TIDIED_A_CUT
                self._stale = min(self._stale + _TIDIED_A_CUT, self.count)
                return

    def _tidy_next(self, against: int) -> None:
        self._tidy(self._next % self.count, against)
        self._next += 1

    def _tidy(self, place: int, against: int) -> None:
        """Let the vectors of a list go where their nearest centre is, which may have come after them."""
        np = self._np
        if not self._sizes[place] or self.missing:
            return
        ids, codes = self.list_ids(place).copy(), self.list_codes(place).copy()
        rows = self.codec.decode(codes)
        near = self._nearest_centres(self.codec.decode(self.centres()[place][None])[0], against)
        goes = near[(rows @ self.codec.decode(self.centres()[near]).T).argmax(axis=1)]
        stays = goes == place
        if not stays.any():
            return
        with self.lock.writing():
            self._empty(place)
            self._extend(place, ids[stays], codes[stays])
            for target in np.unique(goes[~stays]).tolist():
                self._extend(target, ids[goes == target], codes[goes == target])

    def _extend(self, place: int, ids: NDArray[np.int64], codes: NDArray[np.uint8]) -> None:
        first = int(self._sizes[place])
        self._shelf.append(place, ids, codes)
        self._sizes[place] += len(ids)
        self._sums[place] += codes.sum(axis=0, dtype=self._np.int32)
        self._total += len(ids)
        if len(ids) and not self.missing:
            mean = self.codec.decode(self._sums[place] / self._sizes[place])
            self._centres.codes(0)[place] = self.codec.encode_centres(self._direction(mean, mean)[None])[0]
        self._places.put(ids, place, first)
        if first + len(ids) > _CUT_ABOVE:
            self._overfull.append(place)

    def _empty(self, place: int) -> None:
        self._total -= int(self._sizes[place])
        self._sizes[place] = self._sums[place] = 0
        self._shelf.clear(place)

    def _add_list(self, centre: NDArray[np.uint8]) -> int:
        np = self._np
        self._centres.append(0, np.array([self.count], np.int64), np.ascontiguousarray(centre[None]))
        if self.count == self._reserved:  # one that was dissolved has its room still
            self._shelf.reserve(self.count, _CUT_ABOVE + 1)
            self._reserved += 1
        if self.count == len(self._sums):
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])
        self.count += 1
        return self.count - 1

    def _cut(self, place: int) -> None:
        """Cut a list in two, and let its neighbours take part: their vectors may be nearer to a new centre."""
        np = self._np
        group = [place, *self._neighbours(place)]
        ids = np.concatenate([self.list_ids(one) for one in group])
        codes = np.concatenate([self.list_codes(one) for one in group])
        rows, own = self.codec.decode(codes), int(self._sizes[place])
        halves = self._two_means(rows[:own])
        centres = np.concatenate([halves, self.codec.decode(self.centres()[group[1:]])])
        for _ in range(_ROUNDS):
            goes = (rows @ centres.T).argmax(axis=1)
            centres = np.stack(
                [self._direction(rows[goes == one].sum(axis=0), centres[one]) for one in range(len(centres))]
            )
        goes = (rows @ centres.T).argmax(axis=1)
        longest = int(np.bincount(goes).max())
        if longest > max(_CUT_ABOVE, own - own // _LEAST_SHARE):  # vectors too much alike: cut by number
            goes[:own] = np.arange(own) % 2
            goes[own:] = np.repeat(np.arange(2, len(centres)), self._sizes[group[1:]])
            centres = np.concatenate([halves, self.codec.decode(self.centres()[group[1:]])])
        coded = self.codec.encode_centres(centres)
        with self.lock.writing():
            for one in group:
                self._empty(one)
            targets = [place, self._add_list(coded[1]), *group[1:]]
            for one, target in enumerate(targets):
                self._centres.codes(0)[target] = coded[one]
                self._extend(target, ids[goes == one], codes[goes == one])

    def _neighbours(self, place: int) -> list[int]:
        """The lists to be regrouped with one: none where it is long, which other cuts will follow."""
        if self._sizes[place] > _REGROUPED_MOST:
            return []
        near = self._nearest_centres(self.codec.decode(self.centres()[place][None])[0], _GROUP)
        return [one for one in near.tolist() if one != place and self._sizes[one] <= _REGROUPED_MOST]

    def _two_means(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        sample = rows[:: -(-len(rows) // _REGROUPED_MOST)]
        one = sample[int((sample @ self._direction(sample.sum(axis=0), sample[0])).argmin())]
        other = sample[int((sample @ one).argmin())]
        centres: NDArray[np.float32] = self._np.stack([one, other])
        for _ in range(_ROUNDS):
            goes = sample @ (centres[1] - centres[0]) > 0
            sides = (sample[~goes].sum(axis=0), one), (sample[goes].sum(axis=0), other)
            centres = self._np.stack([self._direction(total, seed) for total, seed in sides])
        return centres

    def _direction(self, total: NDArray[np.float32], otherwise: NDArray[np.float32]) -> NDArray[np.float32]:
        """The direction of a sum of vectors; another where there are none, or they point everywhere."""
        length = float(total @ total) ** 0.5
        return total / length if length > _SHORTEST else otherwise

    def _dissolve(self, place: int) -> None:
        ids, codes = self.list_ids(place).copy(), self.list_codes(place).copy()
        last = self.count - 1
        last_ids, last_codes = self.list_ids(last).copy(), self.list_codes(last).copy()
        with self.lock.writing():
            self._empty(place)
            if place != last:  # the last list takes the number, so that numbers have no gaps
                self._empty(last)
                self._centres.codes(0)[place] = self._centres.codes(0)[last]
                self._extend(place, last_ids, last_codes)
            self._centres.drop(0, last)
            self.count = last
            for number, code in zip(ids, codes, strict=True):
                row = self.codec.decode(code[None])[0]
                self._extend(int(self._nearest_centres(row, 1)[0]), self._np.array([number]), code[None])
