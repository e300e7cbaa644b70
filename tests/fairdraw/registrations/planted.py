"""Frauds on the list before the draw, planted in a campaign each, and who sees them with the programs that everybody
has: a reader of the log, the fan with a confirmation, an auditor with an opening.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from fairdraw.errors import DrawError
from fairdraw.log.follow import follow
from fairdraw.log.place import Place
from fairdraw.maths.files import SEED, canonical_bytes
from fairdraw.maths.manifest import SeedFile
from fairdraw.maths.registration import RegistrationTree
from fairdraw.proof.check import HOLDS, check_confirmation
from fairdraw.proof.opening_audit import audit, chosen
from tests.fairdraw.frauds.test_with_the_log import TRUSTED
from tests.fairdraw.proof.draws import CAMPAIGN
from tests.fairdraw.registrations.campaigns import CLOSES, DUE, FROZEN, Fan, Operator
from tests.fairdraw.registrations.model import notice

# More than the 15 minutes after closesAt in which the log of an honest operator may still grow.
LATE = CLOSES + 1_000


def left_out_of_every_class(operator: Operator) -> Fan:
    fan = _one_left_out(operator)
    operator.says["excluded"] = operator.registrations.excluded - 1
    return fan


def left_out_as_excluded(operator: Operator) -> Fan:
    return _one_left_out(operator)


def left_out_as_drawn(operator: Operator) -> Fan:
    fan = _one_left_out(operator)
    operator.opens[fan.index] = {"class": "drawn", "reason": None}
    return fan


def left_out_as_withdrawn(operator: Operator) -> Fan:
    """With a notice that the fan never asked for."""
    fan = _one_left_out(operator)
    operator.entries.append(notice(fan.index, "withdrawn"))
    operator.log(FROZEN + 60)
    nothing = dict.fromkeys(("at", "reason", "ref", "salt", "unit"))
    operator.opens[fan.index] = {**nothing, "class": "withdrawn"}
    return fan


def left_out_as_withdrawn_without_a_notice(operator: Operator) -> Fan:
    fan = _one_left_out(operator)
    operator.says |= {"excluded": operator.registrations.excluded - 1}
    operator.says |= {"withdrawn": operator.registrations.withdrawn + 1}
    nothing = dict.fromkeys(("at", "reason", "ref", "salt", "unit"))
    operator.opens[fan.index] = {**nothing, "class": "withdrawn"}
    return fan


def added_without_a_registration(operator: Operator) -> Fan:
    operator.says["excluded"] = operator.registrations.excluded
    return _invented(operator)


def added_in_place_of_one_excluded(operator: Operator) -> Fan:
    """The number of those excluded is one too low, and the classes sum."""
    return _invented(operator)


def added_and_registered_late(operator: Operator) -> Fan:
    return _registered_at(operator, LATE)


def added_within_a_quarter_of_an_hour(operator: Operator) -> Fan:
    return _registered_at(operator, CLOSES + 600)


def moved_in_silence(operator: Operator) -> Fan:
    fan = operator.one()
    operator.drawn[fan.ref] = _another_household(operator, fan)
    return fan


def moved_with_a_notice(operator: Operator) -> Fan:
    fan = operator.one()
    operator.drawn[fan.ref] = unit = _another_household(operator, fan)
    moved = operator.note_unit(fan, unit)
    operator.log(FROZEN + 60)
    operator.opens[fan.index] = {"unit": moved.unit}
    return fan


def _one_left_out(operator: Operator) -> Fan:
    fan = operator.one()
    del operator.drawn[fan.ref]
    return fan


def _invented(operator: Operator) -> Fan:
    fan = operator.register(LATE)
    fan.is_real = False
    # The operator lists it, and no tree has it.
    operator.entries.pop()
    operator.fans.pop()
    operator.drawn[fan.ref] = fan.mine.unit
    return fan


def _registered_at(operator: Operator, at: float) -> Fan:
    fan = operator.register(at)
    fan.is_real = False
    operator.drawn[fan.ref] = fan.mine.unit
    operator.log(at)
    return fan


def _another_household(operator: Operator, fan: Fan) -> str:
    while (unit := operator.household()) == fan.mine.unit:
        pass
    return unit


class Seer(StrEnum):
    """Who looks, with which program. An auditor asks for the proof of each reason, too."""

    READER = "reader of the log"
    FAN = "the fan"
    SAMPLE = "auditor, half opened"
    OPENING = "auditor, all opened"


@dataclass(frozen=True, slots=True)
class Planted:
    """A fraud, and who sees it in every campaign; in none those whom it does not name, but for those in `some`."""

    name: str
    plant: Callable[[Operator], Fan]
    seen_by: frozenset[Seer] = frozenset()
    some: frozenset[Seer] = frozenset()


_ALL, _LUCK = frozenset({Seer.FAN, Seer.OPENING}), frozenset({Seer.SAMPLE})
PLANTED = (
    Planted(
        "left out, in no class",
        left_out_of_every_class,
        frozenset({Seer.READER, *_ALL, Seer.SAMPLE}),
    ),
    Planted("left out, called excluded", left_out_as_excluded, _ALL, _LUCK),
    Planted("left out, called excluded; drawn by the opening", left_out_as_drawn, _ALL, _LUCK),
    Planted(
        "left out, called withdrawn, without a notice",
        left_out_as_withdrawn_without_a_notice,
        frozenset(Seer),
    ),
    Planted("left out, called withdrawn, with a notice", left_out_as_withdrawn, frozenset({Seer.FAN})),
    Planted(
        "added after the freeze, in no class", added_without_a_registration, frozenset(Seer) - {Seer.FAN}
    ),
    Planted(
        "added after the freeze, in the place of an excluded one",
        added_in_place_of_one_excluded,
        frozenset({Seer.OPENING}),
    ),
    Planted(
        "added, and registered 16 minutes after the close",
        added_and_registered_late,
        frozenset({Seer.READER}),
    ),
    Planted(
        "added, and registered 10 minutes after the close",
        added_within_a_quarter_of_an_hour,
    ),
    Planted("moved to another household", moved_in_silence, _ALL, _LUCK),
    Planted("moved to another household, with a notice", moved_with_a_notice, frozenset({Seer.FAN})),
)


def seers(operator: Operator, about: Fan) -> set[Seer]:
    """Who sees that something is wrong with the campaign of this operator. The fan concerned looks, if there is one: an
    added entry has none.
    """
    place = Place.of(operator.files().get)
    registered = sum(fan.index < max(operator.sizes) for fan in operator.fans)
    looks = {
        Seer.READER: lambda: follow(place, now=DUE, trust=TRUSTED).findings,
        Seer.FAN: lambda: about.is_real and _fan_sees(operator, about, place),
        Seer.SAMPLE: lambda: _auditor_sees(operator, place, registered // 2),
        Seer.OPENING: lambda: _auditor_sees(operator, place),
    }
    return {seer for seer, look in looks.items() if look()}


def _fan_sees(operator: Operator, fan: Fan, place: Place) -> bool:
    """With the confirmation, and then with what a receipt shows: the own line in the list, or why there is none."""
    checked = check_confirmation(canonical_bytes(fan.confirmation()), place, TRUSTED)
    noted = len(checked.findings) > bool(fan.gone)
    in_list = operator.drawn.get(fan.ref) == fan.mine.unit
    return checked.verdict != HOLDS or noted or in_list is not (not fan.gone and not fan.excluded)


def _auditor_sees(operator: Operator, place: Place, sample: int | None = None) -> bool:
    lines = operator.opening_lines()
    try:
        done = audit(lines, place, CAMPAIGN, sample)
    except DrawError:
        return True
    return bool(done.findings) or _without_proof(operator, place, sample)


def _without_proof(operator: Operator, place: Place, sample: int | None) -> bool:
    """Whether an opened entry is called excluded, and the operator cannot prove why."""
    tree = RegistrationTree()
    for entry in operator.entries[: max(operator.sizes)]:
        tree.add(entry)
    data = place.read(f"draws/{CAMPAIGN}/phase-1/{SEED}") or b""
    randomness = SeedFile.parse(data).randomness
    due = chosen(randomness, tree, tree.size if sample is None else sample)
    called = {row["index"] for row in operator.opening() if row["class"] == "excluded"}
    proven = {fan.index for fan in operator.fans if fan.excluded}
    return bool(due & called - proven)
