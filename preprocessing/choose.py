"""Which of a film's candidate frames become stills: every scene if there is room, evenly in time, none like another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from preprocessing.boxes import Box
from preprocessing.hashing import distance
from preprocessing.scenes import Scenes

BLURRED_SHARE = 0.3
"""A candidate is blurred when it has less than this share of the sharpness of the sharpest one near it in its scene."""
_NEAR, _NEAR_FRAMES = 4, 24
"""Near is within so many candidates, or so many frames."""


@dataclass(slots=True, kw_only=True)
class Candidate:
    """The best frame of a short stretch, cut and waiting."""

    number: int
    """Of the frame, from 0."""
    box: Box
    """What was cut out of it."""
    sharpness: float
    hash: np.uint64
    place: int
    """Where its square waits."""


@dataclass(slots=True)
class _Kept:
    """The stills chosen so far."""

    hash_distance: int
    numbers: list[int] = field(default_factory=list)
    hashes: list[np.uint64] = field(default_factory=list)
    duplicates: set[int] = field(default_factory=set)
    _tried: set[int] = field(default_factory=set)

    def take(self, candidate: Candidate) -> bool:
        """Keep a candidate unless it is like one that is kept; False where it is, or where it was tried before."""
        if candidate.number in self._tried:
            return False
        self._tried.add(candidate.number)
        known = np.array(self.hashes, np.uint64)
        if len(known) and int(distance(candidate.hash, known).min()) < self.hash_distance:
            self.duplicates.add(candidate.number)
            return False
        self.numbers.append(candidate.number)
        self.hashes.append(candidate.hash)
        return True

    def untried(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """What was not tried yet."""
        return [candidate for candidate in candidates if candidate.number not in self._tried]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What became of the candidates that show a scene; frame numbers, ascending."""

    kept: tuple[int, ...]
    duplicates: tuple[int, ...]
    """Like one that is kept."""
    blurred: tuple[int, ...]


def choose(
    candidates: Sequence[Candidate], scenes: Scenes, *, num_frames: int, num_stills: int, hash_distance: int
) -> Choice:
    """Choose stills.

    With as many stills as scenes or more, each scene gives one from its middle, and then the widest gaps in time are
    filled. With fewer, the film is cut into as many equal stretches, and each gives the scene nearest to its middle;
    what stretches without a distinct picture leave over fills the widest gaps.

    Args:
        candidates: in order of time.
        scenes: which frames can be used, and what scene they are of.
        num_frames: of the film.
        num_stills: how many to choose at most.
        hash_distance: candidates whose hashes differ in fewer bits from a chosen one's are duplicates.
    """
    of_scene: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        if scenes.fates[candidate.number] == 0:
            of_scene[scenes.scene_of(candidate.number)].append(candidate)
    sharp = {scene: _sharp(members) for scene, members in of_scene.items()}
    usable = [candidate for members in sharp.values() for candidate in members]
    best = [_best(members) for members in sharp.values()]
    kept = _Kept(hash_distance)
    if len(best) <= num_stills:
        for candidate in best:
            kept.take(candidate)
    else:
        _fill_stretches(best, usable, kept, num_frames / num_stills)
        _fill_gaps(kept.untried(best), kept, num_stills)
    _fill_gaps(kept.untried(usable), kept, num_stills)
    clear = {candidate.number for candidate in usable}
    blurred = [
        candidate.number for members in of_scene.values() for candidate in members if candidate.number not in clear
    ]
    return Choice(kept=tuple(sorted(kept.numbers)), duplicates=tuple(sorted(kept.duplicates)), blurred=tuple(blurred))


def _sharp(members: list[Candidate]) -> list[Candidate]:
    """One scene's candidates without the blurred ones."""
    values = np.array([one.sharpness for one in members])
    numbers = np.array([one.number for one in members])
    places = np.arange(len(members))
    first = np.minimum(np.maximum(places - _NEAR, 0), np.searchsorted(numbers, numbers - _NEAR_FRAMES))
    last = np.maximum(places + _NEAR, np.searchsorted(numbers, numbers + _NEAR_FRAMES))
    most = [values[start : stop + 1].max() for start, stop in zip(first, last, strict=True)]
    return [one for one, near in zip(members, most, strict=True) if one.sharpness >= BLURRED_SHARE * near]


def _best(members: list[Candidate]) -> Candidate:
    """The sharpest of the middle half of one scene's candidates."""
    quarter = len(members) // 4
    middle = members[quarter : len(members) - quarter]
    return max(middle, key=lambda member: (member.sharpness, -member.number))


def _fill_stretches(best: list[Candidate], usable: list[Candidate], kept: _Kept, length: float) -> None:
    """Of each of the equal stretches take one: a scene's best where there is one, else any."""
    best_of, any_of = _by_stretch(best, length), _by_stretch(usable, length)
    for stretch, members in sorted(any_of.items()):
        middle = (stretch + 0.5) * length
        for pool in (best_of.get(stretch, []), members):
            if any(kept.take(member) for member in sorted(pool, key=lambda member: abs(member.number - middle))):
                break


def _by_stretch(candidates: list[Candidate], length: float) -> dict[int, list[Candidate]]:
    found: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        found[int(candidate.number / length)].append(candidate)
    return found


def _fill_gaps(candidates: list[Candidate], kept: _Kept, num_stills: int) -> None:
    """Take candidates, the one farthest in time from all that is kept first, until there are enough."""
    if not candidates:
        return
    numbers = np.array([candidate.number for candidate in candidates], np.float64)
    away = np.full(len(numbers), np.inf)
    for number in kept.numbers:
        away = np.minimum(away, np.abs(numbers - number))
    while len(kept.numbers) < num_stills and (away >= 0).any():
        place = int(np.argmax(away))
        away[place] = -1.0
        if kept.take(candidates[place]):
            away = np.minimum(away, np.abs(numbers - numbers[place]))
