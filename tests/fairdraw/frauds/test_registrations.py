"""Frauds on the list of registrations before the draw."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairdraw.log.follow import follow
from fairdraw.log.place import Place
from fairdraw.log.registered import RegistrationAccount
from fairdraw.maths.files import MANIFEST, SEED, canonical_bytes, sha256_hex
from fairdraw.maths.manifest import Registrations, SeedFile
from tests.fairdraw.frauds.forging import (
    ASKED,
    Asked,
    blamed,
    page_without,
    perl_without,
    read,
    redraw,
    restate,
    without,
)
from tests.fairdraw.frauds.test_with_the_log import TRUSTED
from tests.fairdraw.maths.oracle import sha
from tests.fairdraw.proof.draws import BEACON, FIRST, SIGNATURE, Terms, entrants, make
from tests.fairdraw.registrations.campaigns import DUE, Operator
from tests.fairdraw.registrations.planted import added_and_registered_late

LEAVES = entrants()


def found(operator: Operator) -> list[str]:
    files = operator.files()
    findings = follow(Place.of(files.get), now=DUE, trust=TRUSTED).findings
    ASKED.append(Asked("draw log", tuple(files.items()), findings))
    return list(findings)


def without_sum(patch: pytest.MonkeyPatch) -> None:
    without(patch, Registrations.read, "made.size != classed")


def test_an_entry_that_is_left_out_of_every_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = make(tmp_path / "draw", LEAVES, [Terms(FIRST)])
    phase = draw / "phase-1"
    numbers = {"erased": 0, "excluded": 0, "notices": 0, "withdrawn": 0}
    registered = {**numbers, "root": "a" * 64, "size": len(LEAVES) + 1}
    data = canonical_bytes({**read(phase / MANIFEST), "registrations": registered})
    (phase / MANIFEST).write_bytes(data)
    (phase / SEED).write_bytes(SeedFile.of(sha256_hex(data), BEACON, SIGNATURE).to_bytes())
    with pytest.MonkeyPatch.context() as patch:
        without_sum(patch)
        redraw(phase, tmp_path)
        restate(phase)
    assert blamed(draw, tmp_path) == [f"phase-1/{MANIFEST}"]
    without_sum(monkeypatch)
    page_without(monkeypatch, "BigInt(size) !== classed")
    perl_without(monkeypatch, "$sum == $registered->{size}")
    assert blamed(draw, tmp_path) == []


def test_an_entry_that_is_registered_when_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Operator(1)
    assert found(operator) == []
    added_and_registered_late(operator)
    [finding] = found(operator)
    assert "more than 15 minutes after the campaign closed" in finding
    without(
        monkeypatch, RegistrationAccount._after_close, "leaves and (at is None or at > closes + LATE_SECONDS)"
    )
    assert found(operator) == []


def test_an_entry_that_is_taken_out_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, before = Operator(2), Operator(2)
    taken = operator.one()
    # The log has sizes with the entry, but the last; the list that is shown has another one in its place.
    operator.entries[taken.index] = sha(taken.ref).encode()
    del operator.drawn[taken.ref]
    logged = [*before.leaves_of_log()[:-2], *operator.leaves_of_log()[-2:]]
    monkeypatch.setattr(operator, "leaves_of_log", lambda: logged)
    assert all("it did not only grow" in each for each in found(operator))
    known = "in [each for each in self._leaves if each[1].hash in by_hash]:"
    without(monkeypatch, RegistrationAccount._match, "in self._leaves:", known)
    assert found(operator) == []
