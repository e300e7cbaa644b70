"""Where the artefacts of a draw lie in S3, and a local folder to work on them.

Nothing stays on a machine between two steps: each fetches what it needs and puts what it made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from regworkers_core.adapters.aws.objects import ObjectStore
from regworkers_core.selection.maths.beside import is_beside
from regworkers_core.selection.maths.files import ARTEFACTS

RANKED = "ranked.parquet"


def public_key(campaign_id: str, phase: int, name: str) -> str:
    """Of an artefact that is proven."""
    return f"draws/{campaign_id}/phase-{phase}/{name}"


def pipeline_key(campaign_id: str, phase: int, name: str) -> str:
    """Of a file that serves the pipeline only: it may name entries, or codes."""
    return f"pipeline/{campaign_id}/phase-{phase}/{name}"


def report_key(campaign_id: str, phase: int, name: str) -> str:
    return f"reports/{campaign_id}/phase-{phase}/{name}"


class Workbench:
    """A temporary folder with a `phase-<n>` folder for each phase, filled from the store on demand."""

    def __init__(self, objects: ObjectStore, campaign_id: str, root: Path) -> None:
        self._objects, self._campaign_id, self.root = objects, campaign_id, root
        self.scratch = root / "scratch"
        self.scratch.mkdir()

    def phase(self, number: int) -> Path:
        """The folder of a phase, as `draw export` would fill it."""
        folder = self.root / f"phase-{number}"
        folder.mkdir(exist_ok=True)
        return folder

    def fetch(self, key: str, path: Path) -> Path:
        """Bring one object. Raises TransientFailure; MissingObject when it is not there."""
        self._objects.get_file(key, path)
        return path

    def put(self, key: str, path: Path) -> None:
        """Store one file."""
        self._objects.put_file(key, path)

    def fetch_public(self, number: int, *names: str) -> Path:
        """Bring artefacts of a phase into its folder, and return that."""
        for name in names:
            self.fetch(public_key(self._campaign_id, number, name), self.phase(number) / name)
        return self.phase(number)

    def put_public(self, number: int, *names: str) -> None:
        """Publish artefacts of a phase. Each is a function of what was decided, so a repeat puts the same."""
        for name in names:
            self._objects.put_file(public_key(self._campaign_id, number, name), self.phase(number) / name)


@contextmanager
def workbench(objects: ObjectStore, campaign_id: str) -> Iterator[Workbench]:
    """A workbench that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="regworkers-draw-") as folder:
        yield Workbench(objects, campaign_id, Path(folder))


def export(objects: ObjectStore, campaign_id: str, phases: Iterable[int], folder: Path) -> list[str]:
    """Copy the artefacts of `phases` and the files beside them to `folder/phase-<n>/`; returns the relative names
    that were written.

    What is not published yet is left out. Raises TransientFailure when the store cannot answer.
    """
    written: list[str] = []
    for phase in phases:
        prefix = public_key(campaign_id, phase, "")
        published = {key.removeprefix(prefix) for key in objects.list(prefix)}
        for name in (*ARTEFACTS, *sorted(filter(is_beside, published))):
            if name not in published:
                continue
            target = folder / f"phase-{phase}" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            objects.get_file(prefix + name, target)
            written.append(f"phase-{phase}/{name}")
    return written
