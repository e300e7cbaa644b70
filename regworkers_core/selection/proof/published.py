"""What the operator published beside the artefacts of a phase, read from its folder or from a receipt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from regworkers_core.selection.maths.beside import (
    ACCEPTED,
    ANNULLED,
    NOTICE,
    Accepted,
    Annulled,
    Notice,
    Replaced,
    accepted_bytes,
    parse_accepted,
    replaced_name,
    replaced_number,
)
from regworkers_core.selection.maths.canonical import Fields
from regworkers_core.selection.maths.errors import DrawError
from regworkers_core.selection.maths.manifest import Manifest

_KEYS = ("accepted", "notice", "replaced")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Published:
    """Of one phase; None for a file that is not there. `replaced` in the order of the replacements."""

    notice: Notice | None = None
    accepted: tuple[Accepted, ...] | None = None
    annulled: Annulled | None = None
    replaced: tuple[Replaced, ...] = ()

    @staticmethod
    def read(folder: Path) -> tuple[Published, list[DrawError]]:
        """The files in a phase's folder, and what is wrong with those that were left out for it."""
        errors: list[DrawError] = []

        def parsed(name: str, parse: Callable[[bytes, str], T]) -> T | None:
            path = folder / name
            if not path.is_file():
                return None
            try:
                return parse(path.read_bytes(), name)
            except DrawError as error:
                errors.append(error)
                return None

        numbers = sorted(number for each in folder.iterdir() if (number := replaced_number(each.name)))
        for due, number in enumerate(numbers, 1):
            if number != due:
                errors.append(DrawError(replaced_name(number), f"{replaced_name(due)} is missing before it"))
                break
        replaced = [parsed(replaced_name(number), Replaced.parse) for number in numbers]
        return Published(
            notice=parsed(NOTICE, Notice.parse),
            accepted=parsed(ACCEPTED, parse_accepted),
            annulled=parsed(ANNULLED, Annulled.parse),
            replaced=tuple(each for each in replaced if each is not None),
        ), errors

    @staticmethod
    def parse(artefact: str, path: str, document: object) -> Published:
        """The inverse of `as_document`, without an annulment. DrawError names the file or the key."""
        fields = Fields(artefact, path, document, _KEYS)

        def parsed(key: str, name: str, parse: Callable[[bytes, str], T]) -> T | None:
            if fields.raw(key) is None:
                return None
            return parse(fields.text(key, lambda _text: True, f"the text of {name}").encode(), name)

        replaced = []
        for number, text in enumerate(fields.list("replaced"), 1):
            if not isinstance(text, str):
                fields.refuse("replaced", f"the text of {replaced_name(number)} is needed")
            replaced.append(Replaced.parse(text.encode(), replaced_name(number)))
        return Published(
            notice=parsed("notice", NOTICE, Notice.parse),
            accepted=parsed("accepted", ACCEPTED, parse_accepted),
            replaced=tuple(replaced),
        )

    def as_document(self) -> dict[str, Any]:
        """The texts of the files, for a receipt; the annulment is of the draw and stands for itself."""
        return {
            "accepted": None if self.accepted is None else accepted_bytes(self.accepted).decode(),
            "notice": None if self.notice is None else self.notice.to_bytes().decode(),
            "replaced": [each.to_bytes().decode() for each in self.replaced],
        }

    def problems(self, manifest: Manifest, strikes: int | None = None) -> Iterator[DrawError]:
        """What contradicts the manifest of the phase; `strikes` is the number of lines of strikes.txt, if known."""
        checks: list[Callable[[], None]] = []
        if (notice := self.notice) is not None:
            checks.append(lambda: notice.check(manifest, strikes))
        if (annulled := self.annulled) is not None:
            checks.append(lambda: annulled.check(manifest))
        for number, each in enumerate(self.replaced, 1):
            checks.append(lambda each=each, number=number: each.check(manifest, replaced_name(number)))  # type: ignore[misc]
        if self.replaced and manifest.phase > 1:
            yield DrawError(replaced_name(1), "only the manifest of phase 1 may be replaced")
        for check in checks:
            try:
                check()
            except DrawError as error:
                yield error


def published_lines(phase: int, published: Published) -> list[str]:
    """For people, a line for each thing that the operator said of a phase."""
    lines = []
    if (notice := published.notice) is None:
        lines.append(f"phase {phase}: no notice of when its manifest became public")
    else:
        times = f"committed {notice.committed_at}, public {notice.published_at}"
        lines.append(f"phase {phase}: {times}" + (f"; reason: {notice.reason}" if notice.reason else ""))
    for number, each in enumerate(published.replaced, 1):
        was = each.document.seed_source["round"]
        lines.append(
            f"phase {phase}: {replaced_name(number)}, manifest {each.manifest_hash} with round {was},"
            f" {f'public {each.published_at}' if each.published_at else 'never public'}, replaced {each.replaced_at}"
        )
    for finding in published.accepted or ():
        lines.append(f"phase {phase}: accepted {finding.at}: {finding.finding}, because: {finding.reason}")
    return lines
