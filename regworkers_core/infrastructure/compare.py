"""Compares declared resources with those found on AWS and those in Terraform's state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from fairdraw.documents import as_document, as_json
from regworkers_core.domain.snapshot import Unread
from regworkers_core.infrastructure.declared import Declared, ResourceKind, declared
from regworkers_core.infrastructure.desired import Facts
from regworkers_core.infrastructure.found import Finding, FoundResources, find
from regworkers_core.infrastructure.terraform import State, read_state
from regworkers_core.operation import Call, Input, Report, Table, operation
from regworkers_core.runtime import Runtime

# Characters of a long value that a difference shows.
_SHOWN = 60
ABSENT = "absent"
_PLURALS = {ResourceKind.POLICY: "policies"}


@dataclass(frozen=True, slots=True)
class ResourceLine:
    """One resource."""

    kind: ResourceKind
    name: str
    declared: Facts | None  # None: nothing declares it
    found: Finding  # None: it is absent
    terraform: Facts | None  # None: it is not in Terraform's state
    differences: tuple[str, ...] = ()  # one text each
    unread: tuple[str, ...] = ()  # a text for each part that could not be read
    optional: bool = False  # its absence is no difference
    external: bool = False  # another team's

    def as_dict(self) -> dict[str, Any]:
        names = ("kind", "name", "external", "declared", "found", "terraform", "differences", "unread")
        shown = as_document(self, *names)
        return shown | {"found": _document(self.found)}


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found in one environment."""

    environment: str
    lines: tuple[ResourceLine, ...]
    strays: tuple[ResourceLine, ...]  # resources with our prefix that nothing declares
    unread: Mapping[str, str]  # why, by the kind that could not be listed
    with_terraform: bool  # a state was compared, too

    @property
    def differing(self) -> list[ResourceLine]:
        return [line for line in self.lines if line.differences]

    @property
    def blind(self) -> bool:
        """Whether anything could not be read."""
        return bool(self.unread) or any(line.unread for line in self.lines)

    @property
    def empty(self) -> bool:
        """Whether no resource of the environment exists."""
        return not self.blind and all(line.found is None for line in self.lines)

    def as_dict(self) -> dict[str, Any]:
        return {
            "environment": self.environment,
            "terraform": self.with_terraform,
            "empty": self.empty,
            "differing": len(self.differing),
            "resources": as_json(self.lines),
            "strays": [as_document(line, "kind", "name") for line in self.strays],
            "couldNotRead": dict(self.unread),
        }


def discover(runtime: Runtime, terraform: State | None = None) -> Discovery:
    """Compare an environment. What is unavailable or refused is part of the result. Raises UsageError in local-dev
    without a stack.
    """
    _ = runtime.aws
    wanted = declared(runtime.settings)
    return compare(
        runtime.settings.environment,
        wanted,
        find(runtime, wanted),
        terraform,
        # Without a prefix, ours cannot be distinguished, except on the embedded stack, where all are ours.
        list_strays=bool(runtime.names.prefix) or runtime.settings.environment == "local-dev",
    )


def compare(
    environment: str,
    wanted: Iterable[Declared],
    found: FoundResources,
    terraform: State | None,
    *,
    list_strays: bool = True,
) -> Discovery:
    lines = [_line(each, found.facts[each.kind, each.name], terraform) for each in wanted]
    known = {(line.kind, line.name) for line in lines}
    others = [
        ResourceLine(kind, name, None, None, facts, ("in Terraform's state, but not declared",))
        for (kind, name), facts in (terraform or {}).items()
        if (kind, name) not in known
    ]
    known |= {(line.kind, line.name) for line in others}
    strays = [
        ResourceLine(kind, name, None, {}, None)
        for kind, names in found.names.items()
        if list_strays and not isinstance(names, Unread)
        for name in sorted(names)
        if (kind, name) not in known
    ]
    unread = {
        f"list of {_PLURALS.get(kind, f'{kind.value}s')}": names.why
        for kind, names in found.names.items()
        if isinstance(names, Unread)
    }
    return Discovery(environment, (*lines, *others), tuple(strays), unread, terraform is not None)


def _line(wanted: Declared, found: Finding, terraform: State | None) -> ResourceLine:
    known = None if terraform is None else terraform.get((wanted.kind, wanted.name))
    differences = list(_differences(wanted, found))
    if terraform is not None and wanted.kind is not ResourceKind.CODE_LOCATION:
        if wanted.external:
            if known is not None:
                differences.append("in Terraform's state, and another team's: `terraform state rm` it")
        elif known is None:
            differences.append("not in Terraform's state")
        else:
            differences.extend(_differing(wanted.facts, known, "Terraform has"))
    return ResourceLine(
        wanted.kind,
        wanted.name,
        wanted.facts,
        found,
        known,
        tuple(differences),
        tuple(_unread(found)),
        wanted.optional,
        wanted.external,
    )


def _differences(wanted: Declared, found: Finding) -> Iterator[str]:
    if found is None:
        if not wanted.optional:
            yield ABSENT
    elif not isinstance(found, Unread):
        yield from _differing(wanted.facts, found, "found")


def _differing(wanted: Facts, others: Mapping[str, Any], verb: str) -> Iterator[str]:
    for fact, value in wanted.items():
        other = others.get(fact)
        if not isinstance(other, Unread) and other != value:
            yield f"{fact}: declared {_shown(value)}, {verb} {_shown(other)}"
    # Only lists can have too many members.
    for fact in others:
        if fact not in wanted and fact.startswith(("statement ", "widget ")):
            yield f"{fact}: not declared"


def _unread(found: Finding) -> Iterator[str]:
    if isinstance(found, Unread):
        yield found.why
    elif found is not None:
        for fact, value in found.items():
            if isinstance(value, Unread):
                yield f"{fact}: {value.why}"


def _document(found: Finding) -> Any:
    if found is None:
        return None
    if isinstance(found, Unread):
        return {"couldNotRead": found.why}
    return {
        fact: {"couldNotRead": value.why} if isinstance(value, Unread) else value
        for fact, value in found.items()
    }


def _shown(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


# Names to list of resources that could not be read for the same reason, and of those that differ.
_NAMED = 3


class Resources(Input):
    words: ClassVar = ()
    terraform_file: str = Field(
        "",
        description="Output of `terraform show -json`, a file where this runs. Empty: Terraform is left out.",
    )


@operation(
    "aws find-resources", "find_resources", uses=frozenset({"aws"}), quick=True, alone="find-resources"
)
def resources(call: Call, given: Resources) -> Report:
    """Compare AWS resources with the settings and with Terraform, for example after each deployment.

    Covers tables, queues, the bucket, log groups, dashboards, alarms, policies and roles of the environment in
    CONFIG_ENV. Fails with a difference, and if something could not be read.
    """
    found = discover(call.runtime, read_state(Path(given.terraform_file)) if given.terraform_file else None)
    columns = ["", "resource", "declared", "found"]
    columns += ["terraform"] if found.with_terraform else []
    lines = [
        [
            line.kind.value,
            line.name,
            _declared(line),
            _found(line),
            *([_known(line)] if found.with_terraform else []),
            len(line.differences) or "",
        ]
        for line in found.lines
        # Optional and absent everywhere.
        if not (line.optional and line.found is None and line.terraform is None)
    ]
    return Report(
        document=found.as_dict(),
        facts={
            "resources": len(found.lines),
            "differing": len(found.differing),
            "strays": len(found.strays),
            "could_not_read": found.blind,
        },
        tables=[Table("report", [*columns, "differences"], lines)],
        # Sentences are below the table: on a narrow terminal a column would break them up.
        said=[
            *(f"{line.kind} {line.name}: {text}" for line in found.lines for text in line.differences),
            *(f"{line.kind} {line.name} is not declared" for line in found.strays),
            *_not_read(found),
        ],
        left=_left(found),
        unread=found.blind and not found.differing,
    )


def _left(found: Discovery) -> str:
    if found.empty:
        return f"no resource of {found.environment} exists: run `regworkers provision`, or deploy/terraform"
    if found.differing:
        names = ", ".join(line.name for line in found.differing[:_NAMED])
        return f"{len(found.differing)} resources differ from what is declared: {names}"
    return "not everything could be read; the rest is as declared" if found.blind else ""


def _not_read(found: Discovery) -> Iterator[str]:
    """A line for each reason, because many resources share one."""
    by_reason: dict[str, list[str]] = {}
    for what, why in found.unread.items():
        by_reason.setdefault(why, []).append(what)
    for line in found.lines:
        for why in line.unread:
            by_reason.setdefault(why, []).append(f"{line.kind} {line.name}")
    for why, names in by_reason.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield f"could not read {', '.join(names[:_NAMED])}{more}: {why}"


def _declared(line: ResourceLine) -> str:
    if line.declared is None:
        return "no"
    return "external" if line.external else "if wanted" if line.optional else "yes"


def _found(line: ResourceLine) -> str:
    if line.found is None:
        return "–" if line.declared is None else "absent"
    if isinstance(line.found, Unread):
        return "could not read"
    return "partly read" if line.unread else "yes"


def _known(line: ResourceLine) -> str:
    return "absent" if line.terraform is None else "yes"
