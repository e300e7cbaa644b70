"""The check of a receipt of somebody who was not in the draw."""

from __future__ import annotations

from regworkers_core.selection.maths.canonical import Fields, short
from regworkers_core.selection.maths.files import sha256_hex
from regworkers_core.selection.maths.manifest import Manifest
from regworkers_core.selection.maths.strikes import REASON
from regworkers_core.selection.proof.parts import RECEIPT, Checker, Inclusion, Step, wrong
from regworkers_core.selection.proof.published import Published


class Excluded(Checker):
    """Not in the draw: its neighbours stand next to each other, so nothing stands between them."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        text = fields.text("manifest", str.isascii, "the text of manifest.json").encode()
        self._manifest, self._manifest_hash = Manifest.parse(text), sha256_hex(text)
        self._published = Published.parse(RECEIPT, "published", fields.raw("published"))
        self._reasons = [str(each) for each in fields.list("reasons")]
        self._before, self._after = (
            None if fields.raw(side) is None else Inclusion(side, fields.raw(side))
            for side in ("before", "after")
        )

    def steps(self) -> list[tuple[str, Step]]:
        return [
            ("manifest", self._check_manifest),
            ("published", lambda: self.check_published([(self._manifest, self._published)])),
            ("absence", self._check_absence),
            ("reason", self._check_reason),
        ]

    def limits(self) -> tuple[str, ...]:
        return (
            "The reason is the operator's judgement: a receipt shows that the entry was not in the draw, not that"
            " it should not have been.",
            "Only a replay of the draw shows that all leaves are in order of ref, so that none hides elsewhere.",
        )

    def _check_manifest(self) -> str:
        self.check_campaign(self._manifest)
        self.check_source(self._manifest, self._published)
        return f"manifestHash {self._manifest_hash}"

    def _check_absence(self) -> str:
        before, after, count = self._before, self._after, self._manifest.count
        for each in (before, after):
            if each is not None:
                each.check(self._manifest)
        low, high = (before.index if before else -1), (after.index if after else count)
        if high != low + 1:
            wrong(f"leaves {low} and {high} are not neighbours: something stands between them")
        if (before and not before.leaf.ref < self.ref) or (after and not self.ref < after.leaf.ref):
            wrong(f"{self.ref} does not belong between its neighbours")
        return f"not among the {count} leaves: it would stand between leaves {low} and {high} (from 0)"

    def _check_reason(self) -> str:
        for reason in self._reasons:
            if not REASON.fullmatch(reason):
                wrong(f"{short(reason)} is not a reason: A-Z and _ only")
        if not self._reasons:
            wrong("none is given")
        return ", ".join(self._reasons)
