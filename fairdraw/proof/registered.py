"""The registration in a receipt: the entry was in the list before the draw, and what was noted about it there."""

from __future__ import annotations

from fairdraw.maths.files import Fields, short
from fairdraw.maths.manifest import Manifest, Registrations
from fairdraw.maths.merkle import verify_proof
from fairdraw.maths.registration import (
    SALT,
    Noted,
    Notice,
    NoticeKind,
    Registration,
    RegistrationClass,
    any_text,
    registration_leaf,
)
from fairdraw.proof.logged import Unchecked
from fairdraw.proof.parts import proof_in, wrong

REGISTRATION = "registration"
NO_REGISTRATIONS = (
    "the campaign logged no registrations: that no entry was left out before the commit is the operator's word"
    " alone"
)
NOT_SHOWN = (
    "the receipt has no registration: the fan's confirmation shows whether the entry was in the list before the"
    " draw"
)
_SHOWN = ("at", "index", "leaf", "notices", "proof", "salt")
_OUTSIDE = ("class", "index", "reason")
_NOTED = {
    NoticeKind.WITHDRAWN: "the entry was taken back",
    NoticeKind.ERASED: "the entry was erased",
    NoticeKind.UNIT: "the entry got another unit",
}


def registration_note(manifest: Manifest) -> str:
    """What the manifest of phase 1 says of registrations, for people."""
    if (found := manifest.registrations) is None:
        return NO_REGISTRATIONS
    return (
        f"registrations: {found.size} entries in the list before the draw: {manifest.count} drawn, {found.excluded}"
        f" excluded, {found.withdrawn} withdrawn, {found.erased} erased, {found.notices} notices; `draw log` reads them"
    )


def noted_line(noted: Noted) -> str:
    """What a notice says, for people."""
    return f"entry {noted.index}: {_NOTED[noted.notice.kind]}"


def registration_in(fields: Fields, *, drawn: bool) -> RegistrationPart | OutsideClass | None:
    """The key `registration` of a receipt, of an entry that was drawn or not. Raises DrawError."""
    if fields.raw(REGISTRATION) is None:
        return None
    names = fields.nested(REGISTRATION).names
    if not drawn and "class" in names:
        return OutsideClass(fields.nested(REGISTRATION, _OUTSIDE))
    # A drawn entry has its unit in its leaf; another one has it here, unless it is its ref.
    more = {"unit"}.intersection(names) if not drawn else ()
    return RegistrationPart(fields.nested(REGISTRATION, (*_SHOWN, *more)))


class OutsideClass:
    """What became of an entry without a leaf in the draw, whose registration cannot be shown any more."""

    def __init__(self, fields: Fields) -> None:
        classes = [each for each in RegistrationClass if each is not RegistrationClass.DRAWN]
        self._class = fields.text("class", classes.__contains__, f"one of {', '.join(classes)}")
        self._index = fields.integer("index")
        if fields.raw("reason") is not None:
            fields.text("reason", str.isascii, "a reason")

    def check(self, _ref: str, _unit: str | None, manifest: Manifest) -> str:
        _required(manifest)
        raise Unchecked(
            f"registration not shown: by the operator's word it is entry {self._index}, which was {self._class}, and"
            " its salt is gone"
        )


class RegistrationPart:
    """The entry of the tree at an index, all notices about it, and what the leaf commits to."""

    def __init__(self, fields: Fields) -> None:
        self._at = fields.time("at")
        self._salt = fields.text("salt", SALT.fullmatch, "32 lower-case hex digits")
        self._registration = Registration(fields.integer("index"), fields.hash("leaf"))
        self._proofs = [proof_in(fields)]
        for each in fields.objects("notices", ("index", "proof", "text")):
            text = each.text("text", str.isascii, "a notice")
            notice = Notice.parse(text.encode())
            if notice is None:
                fields.refuse("notices", f"{short(text)} is not a notice")
            self._registration = self._registration.with_notice(each.integer("index"), notice)
            self._proofs.append(proof_in(each))
        # It may be any text: an entry is excluded for a unit that is no id.
        self._unit = fields.text("unit", any_text, "a unit") if "unit" in fields.names else None

    def check(self, ref: str, unit: str | None, manifest: Manifest) -> str:
        """Check that the entry was in the tree that the manifest of phase 1 commits to. `unit` is that of the leaf of a
        drawn entry; None for one that is not in the draw. Raises DrawError.
        """
        logged, found = _required(manifest), self._registration
        entries = [(found.index, found.leaf)]
        entries += [(noted.index, noted.notice.text.decode()) for noted in found.notices]
        for (index, text), proof in zip(entries, self._proofs, strict=True):
            if not verify_proof(text, index, logged.size, proof, logged.root):
                wrong(
                    f"the proof of entry {index} of {logged.size} does not lead to the root {logged.root} of the"
                    " registrations"
                )
        own = next(each for each in (unit, self._unit, ref) if each is not None)
        if registration_leaf(manifest.campaign_id, ref, own, self._at, self._salt) != found.current:
            wrong(
                f"the leaf of entry {found.index} does not follow from ref, unit, time and salt: it is another one"
            )
        if unit is not None and found.ended is not None:
            wrong(f"entry {found.index} was {found.ended} before the draw, and drawn")
        first = f"entry {found.index} of {logged.size} in the list of registrations (from 0), registered at {self._at}"
        return "\n".join([first, *map(noted_line, found.notices)])


def _required(manifest: Manifest) -> Registrations:
    if manifest.registrations is None:
        wrong("the receipt has a registration, and the manifest of phase 1 commits to none")
    return manifest.registrations
