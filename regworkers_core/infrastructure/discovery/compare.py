"""Compares declared resources with those found on AWS and those in Terraform's state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fairdraw.documents import as_document, as_json
from regworkers_core.domain.snapshot import Unread
from regworkers_core.infrastructure.desired import Facts
from regworkers_core.infrastructure.discovery.declared import Declared, ResourceKind, declared
from regworkers_core.infrastructure.discovery.found import Finding, FoundResources, find
from regworkers_core.infrastructure.discovery.terraform import State
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
