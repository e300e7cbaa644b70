"""What a person can do, declared once: command, job, rights, audit log and docs follow from the declaration.

An operation is a function of a call and its input that returns a Report. It never prints, prompts or writes to the
audit log: `cli/operations.py` makes a command of it, `regworkers_dagster/launching.py` a job. Its docstring is the help
of the command and the description of the job, so it names neither options nor fields of config that only one has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from enum import StrEnum
from inspect import getdoc
from pathlib import Path
from types import ModuleType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from fairdraw.documents import camel
from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import RequestError, UsageError
from regworkers_core.domain.selection import StepResult
from regworkers_core.domain.snapshot import SchedulerState
from regworkers_core.engine.stop import StopSignal
from regworkers_core.runtime import Runtime

Duty = Literal["replication", "selection", "analytics", "operations", "provision"]
Size = Literal["small", "drain", "report", "large"]
Role = Literal["manager", "operator"]
STORES = frozenset({"aws", "mongo"})
# What changes a campaign also removes it from the cache.
CHANGES_CAMPAIGNS = STORES | {"redis"}
EVERYTHING = CHANGES_CAMPAIGNS | {"kafka"}


class _File(NamedTuple):
    """Marks a field whose value is a file."""


class _Stored(NamedTuple):
    """Marks a field whose value names a stored file."""


class _AtTerminal(NamedTuple):
    """Marks a field that no launchpad has."""


class _Typed(NamedTuple):
    """Marks a field with fans' data."""


T = TypeVar("T")
# A file that the person brings: a path at the terminal, the name of an upload on a launchpad. Empty: none.
GivenFile = Annotated[str, _File()]
# The name of an upload, or of an object that an operator stored. Empty: none.
StoredFile = Annotated[str, _Stored()]
# An option that only the terminal has.
AtTerminal = Annotated[T, _AtTerminal()]
# A path, where a job has a field of its own for its list. Empty: none.
LocalFile = Annotated[str, _File(), _AtTerminal()]
# Words of a fan: `-` reads them from stdin, one a line, and the audit log has their number. Dagster keeps what is typed
# into a launchpad, so none has them.
TypedIn = Annotated[list[str], _Typed(), _AtTerminal()]
# Seats by market.
Seats = Annotated[dict[str, int], Field(examples=[{"berlin": 500}])]
# Seats by market and segment.
SegmentSeats = Annotated[dict[str, dict[str, int]], Field(examples=[{"berlin": {"loyal": 50}}])]


def is_file(metadata: Sequence[object]) -> bool:
    """Whether the field with these pydantic metadata is a GivenFile."""
    return any(isinstance(each, _File) for each in metadata)


def is_chosen(metadata: Sequence[object]) -> bool:
    """Whether a form lets a person choose the file of the field with these pydantic metadata."""
    return any(isinstance(each, _File | _Stored) for each in metadata)


def is_at_terminal(metadata: Sequence[object]) -> bool:
    """Whether the field with these pydantic metadata is one that no launchpad has."""
    return any(isinstance(each, _AtTerminal) for each in metadata)


def is_typed_in(metadata: Sequence[object]) -> bool:
    """Whether the field with these pydantic metadata is a TypedIn."""
    return any(isinstance(each, _Typed) for each in metadata)


# The field with which what only adds changes nothing.
DRY_RUN = "dry_run"


class Effect(StrEnum):
    """What an operation does to what exists. A dry run is not in the audit log."""

    # It is not in the audit log either.
    READ = "read"
    # It acts at once; with a field `dry_run` that is true it only counts. The desk previews an instant one with that
    # field.
    ADD = "add"
    # It acts with `--apply`, or `apply: true`.
    CHANGE = "change"
    # It acts with the report's word: at the prompt of `--apply`, or as `confirm`.
    DELETE = "delete"


class Input(BaseModel):
    """Each field is an option of the command and a field of the job's config; `description` explains both. A text
    without a default must not be empty. A mapping has one of its `examples`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    # Fields that a command takes as words without a name, in this order.
    words: ClassVar[tuple[str, ...]] = ("campaign_id",)
    # Fields that a long form does not fold, beside those words, files and what has no default.
    first: ClassVar[tuple[str, ...]] = ()
    # Other names of fields in a config, for documents that the operations manual prescribes.
    spellings: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def of(cls, given: Mapping[str, Any], shown: Callable[[str], str]) -> Any:
        """The input of what was given; None and blank texts count as not given. Raises RequestError, which names the
        field as `shown` does.
        """
        kept = {
            name: value.strip() if isinstance(value, str) else value
            for name, value in given.items()
            if value is not None and not (isinstance(value, str) and not value.strip())
        }
        try:
            return cls.model_validate(kept)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            name, *place = map(str, problem["loc"]) if problem["loc"] else ("",)
            at = ".".join([shown(name), *place]) if name else ""
            if problem["type"] == "missing":
                raise RequestError(f"{at} is missing: its description says what to enter") from None
            if problem["type"] == "string_unicode":
                raise RequestError(f"{at} cannot be encoded as UTF-8") from None
            # The kind of the value comes before "should": Input, String, List.
            text = re.sub(r"^(Value error, |[A-Z]\w+ (?=should ))", "", problem["msg"])
            raise RequestError(f"{at} {text}".strip()) from None

    @classmethod
    def in_run(cls, period: Mapping[str, str]) -> Mapping[str, Any]:
        """What a run of the job adds to its config. `period` has the ISO times `since` and `until` of its partition; it
        is empty without one.
        """
        return {}

    def default(self) -> Default | None:
        """What the terminal takes where a word was left out; None: nothing was. Raises UsageError."""
        return None


def form_of(field: FieldInfo) -> str | None:
    """How a pair of a mapping is typed; None for a field that is none."""
    kinds = (field.annotation, *get_args(field.annotation))
    inner = next((get_args(each)[1] for each in kinds if get_origin(each) is dict), None)
    if get_origin(inner) is dict:
        return "NAME:SEGMENT=N"
    return "NAME=N" if inner is int else "NAME=TEXT" if inner is str else None


def of_pairs(field: FieldInfo, shown: str, value: Any) -> Any:
    """The mapping that pairs in the form of the field mean; the value itself for a field that is none. Raises
    UsageError, which names the field as `shown` and the pair.
    """
    form = form_of(field)
    if form == "NAME:SEGMENT=N":
        return _seats_of_segments(shown, value)
    return value if form is None else _numbers(shown, value) if form == "NAME=N" else _pairs(shown, value)


def _pairs(shown: str, words: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, equal, value = word.partition("=")
        if not equal or not name:
            raise UsageError(f"{shown} takes NAME=VALUE, found {word!r}")
        if name in found:
            raise UsageError(f"{shown} names {name} twice")
        found[name] = value
    return found


def _numbers(shown: str, words: Sequence[str]) -> dict[str, int]:
    for word in words:
        name, equal, number = word.partition("=")
        if not equal or not name or not number.isdecimal():
            raise UsageError(f"{shown} takes NAME=N with a whole number, found {word!r}")
    return {name: int(number) for name, number in _pairs(shown, words).items()}


def _seats_of_segments(shown: str, words: Sequence[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name, seats in _numbers(shown, words).items():
        market, colon, segment = name.partition(":")
        if not colon or not market or not segment:
            raise UsageError(f"{shown} takes MARKET:SEGMENT=N, found {name}={seats}")
        found.setdefault(market, {})[segment] = seats
    return found


# What a description says of a field that is empty.
_IF_EMPTY = re.compile(r" Empty: [^.]*\.")


def only_named(kind: type[T]) -> type[T]:
    """The input `kind`, an Input, of an act that changes what is named and leaves the rest: no field of its base has a
    default that could be taken for a value.
    """
    fields: dict[str, Any] = {}
    model: Any = kind
    for name, known in model.model_fields.items():
        if name in vars(model)["__annotations__"]:
            continue
        text = _IF_EMPTY.sub("", known.description or "")
        default = None if known.annotation in (bool, int) else known.get_default(call_default_factory=True)
        of: Any = known.annotation
        of = of if default is not None else of | None
        # They mark a GivenFile and the like.
        of = Annotated[(of, *known.metadata)] if known.metadata else of
        fields[name] = (of, Field(default, description=text, examples=known.examples))
    create: Any = create_model
    made: type[T] = create(kind.__name__, __base__=model, __module__=kind.__module__, **fields)
    return made


# How the field that names a campaign begins to explain itself.
CAMPAIGN = "The campaign, by id or slug."


class OfCampaign(Input):
    """The input of an act on one campaign."""

    campaign_id: str = Field(description=CAMPAIGN)


class Default(NamedTuple):
    """An input with what the terminal takes by default."""

    given: Input
    # What was taken, as the person sees it.
    found: str
    # The word that agrees to it; empty: the person agreed already.
    word: str


# Options whose name at the terminal differs from the field's: shorter, or of one where it is repeated.
TERMINAL_NAMES = {
    "campaign_id": "campaign",
    "market_id": "market",
    "upload": "file",
    "opening": "file",
    "everything": "all",
    "positions": "position",
    "capacities": "capacity",
    "reserves": "reserve",
    "later_reserves": "later-reserve",
    "caseless_codes": "caseless",
    "issuer_keys": "issuer-key",
    "market_names": "market-name",
    "invite_types": "invite-type",
    "regions": "region",
    "accept": "accept-finding",
    "entry_id": "entry",
    "lasts": "for",
    "read_verdicts": "verdicts",
    "verdicts": "verdict",
    "backfill_id": "id",
    "environments": "env",
    "terraform_file": "terraform",
    "alert": "key",
    "source": "from",
}


# Rows of a table that may have thousands.
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of an answer: plain values, of which None is shown as a dash."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    @classmethod
    def first(cls, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], found: int) -> Table:
        """The first rows of `found`, and how many more there are."""
        shown = rows[:_SHOWN]
        more = [(f"and {found - len(shown)} more", *[""] * (len(columns) - 1))]
        return cls(title, columns, [*shown, *more] if found > len(shown) else shown)

    @property
    def words(self) -> frozenset[int]:
        """Positions of the columns without any number, which pages align to the left."""
        return frozenset(
            at
            for at in range(len(self.columns))
            if not any(isinstance(row[at], int | float) for row in self.rows)
        )


Level = Literal["finding", "warning", "note"]


class Remark(NamedTuple):
    """A sentence of an answer: a finding needs a repair, a warning needs attention or a decision, a note explains."""

    level: Level
    text: str
    # The command or the setting that helps.
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        return {"level": self.level, "text": self.text} | ({"advice": self.advice} if self.advice else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The answer of an operation, for every face. No value is a fan's where a comment does not allow it."""

    # What `--format json` prints: an object, or a list of objects. It may have fans' data: only who asked gets it.
    document: Any
    # Single values that people see; None: those of the document.
    facts: Mapping[str, Any] | None = None
    tables: Sequence[Table] = ()
    # Sentences: what happened, and what to do next.
    said: Sequence[str] = ()
    # Makes Markdown with plots, by name, for a face that shows pictures.
    markdown: Callable[[], Mapping[str, str]] = dict
    # What is wrong, or may be.
    remarks: Sequence[Remark] = ()
    # What a terminal shows in place of the values. It may have fans' data, too.
    text: str = ""
    # Steps of a draw that it took: each is recorded on its own asset.
    steps: Sequence[StepResult] = ()
    # Files to hand out, by name. A path was written already, at the terminal where the person asked for it. They may
    # have fans' data: only who asked gets them.
    files: Mapping[str, Path | bytes] = field(default_factory=dict)
    # What is left for a person to do: exit code 1, or a failed run, after all of this is recorded.
    left: str = ""
    # What is left is only that something could not be read: exit code 2 instead of 1.
    unread: bool = False
    # A preview found something to do, or an answer is incomplete: exit code 1 at the terminal, but no failed run.
    pending: bool = False
    # Numbers for the audit log.
    counts: Mapping[str, Any] = field(default_factory=dict)
    # The word that confirms the deletion that this previews; empty: there is nothing to confirm.
    word: str = ""
    # What a prompt says before it asks for the word.
    question: str = ""
    # Whether anything was changed.
    changed: bool = False
    # How many rows the partition of its asset has now, where that is known.
    rows: int | None = None

    @property
    def values(self) -> Mapping[str, Any]:
        """The single values that people see."""
        if self.facts is not None:
            return self.facts
        return self.document if isinstance(self.document, Mapping) else {}


class Face(Protocol):
    """What a call asks of the terminal or of a run."""

    @property
    def scheduler(self) -> Callable[[], SchedulerState] | None:
        """How to read the state of Dagster from here; None: over its API."""

    @property
    def waits(self) -> bool:
        """Whether a person waits for the answer."""

    def tell(self, text: str) -> None:
        """Show what the call is doing."""

    def say(self, text: str) -> None:
        """Say at once what a person must not miss."""

    def ask(self, seen: Report) -> str:
        """The word that a person types who has seen this report and its question; empty: no person can be asked."""

    def progress(self, done: int, total: int | None = None, unit: str = "") -> None:
        """Show how far the call is: `done` of `total` (None: unknown) of what `unit` names."""

    def open(self, file: str) -> Path:
        """The given file on this machine, until the call ends. Raises RequestError."""

    def folder(self) -> Path:
        """An empty folder for files of the answer, until the call ends."""

    def found(self, campaign_id: str) -> None:
        """Say which campaign the call is about."""

    def name_of(self, command: str, arguments: str = "") -> str:
        """How a person here starts the operation `command`; `arguments` as the terminal takes them."""

    def field(self, name: str) -> str:
        """What a person here calls the field `name` of the input."""


@dataclass(frozen=True, slots=True)
class Call:
    """Who asks, and how."""

    runtime: Runtime
    # The command's or the run's id.
    run_id: str
    # The person, as the audit log has it.
    who: str
    stop: StopSignal
    # False: preview only. Always true for what only reads or adds, but for a dry run.
    apply: bool
    face: Face
    # The number that was confirmed, where the operation is `counted`.
    confirmed: int | None = None

    def campaign(self, named: str) -> Campaign:
        """The campaign of this id, else of this slug. Raises RequestError when there is none."""
        found = self.runtime.campaigns.require(named)
        self.face.found(found.campaign_id)
        return found

    def campaign_id(self, named: str) -> str:
        """The id of a campaign, also of one that is not known: entries and draws outlive their campaign."""
        found = self.runtime.campaigns.id_of(named)
        self.face.found(found)
        return found


class AuditRow(NamedTuple):
    """A call in the audit log."""

    # The name of the command or job.
    what: str
    # A campaign, an entry, a queue; `all` for an act on everything.
    target: str = ""
    # What was given beside the target, in camelCase.
    arguments: Mapping[str, Any] = {}
    # It is not written.
    dry_run: bool = False


I = TypeVar("I", bound=Input)  # noqa: E741 (an input)


@dataclass(frozen=True, slots=True)
class operation:
    """Declares a function `(call, given) -> Report` as an operation; the type of `given` is its input."""

    # What one types behind `regworkers`; empty: only Dagster has it.
    command: str
    # What one launches; empty: only the terminal has it.
    job: str = ""
    effect: Effect = Effect.READ
    _: KW_ONLY
    # The role in infrastructure/policies with whose rights a run acts, and the size of its pod.
    duty: Duty = "operations"
    size: Size = "small"
    # The least role that may launch it.
    role: Role = "operator"
    # The asset on which its result is recorded; empty: none.
    asset: str = ""
    # A check of that asset, which the job materialises: what is left makes it warn, and the run succeeds. Empty: none.
    warns: str = ""
    # The field that the audit log names as the target, behind the campaign and a colon if there is one; or what reads
    # the target from the input.
    target: str | Callable[[Face, Any], str] = ""
    # Services that it calls.
    uses: frozenset[str] = STORES
    # Its time grows with the campaign.
    long: bool = False
    # No time ends it: leases and progress show whether it hangs.
    unlimited: bool = False
    # A run whose worker died is followed by another, which resumes it.
    resumed: bool = False
    # One call waits at most a few seconds: a person waits for the answer.
    quick: bool = False
    # Its preview takes moments and reads no more than pages of the desk may: MongoDB as the role `desk`, and files that
    # the web application serves. So the desk makes it without a run.
    instant: bool = False
    # Its word is the number of what it changes. It compares that with `confirmed` itself, so a run makes no preview.
    counted: bool = False
    # At most one run at a time of all operations with this word; empty: any number.
    alone: str = ""
    # What the files of its report are; empty: it has none.
    files: str = ""
    # Its flow writes the audit log itself, once it holds its lease.
    recorded_by_flow: bool = False

    def __call__(self, function: Callable[[Call, I], Report]) -> Operation[I]:
        # A job may be named by a member of an enum, which Dagster could not store.
        declared = {each.name: getattr(self, each.name) for each in fields(self)} | {"job": str(self.job)}
        return Operation(**declared, input=get_type_hints(function)["given"], run=function)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(operation, Generic[I]):
    """What a person can do: a function with its declaration."""

    input: type[I]
    run: Callable[[Call, I], Report]

    @property
    def help(self) -> str:
        """The docstring: a sentence, and paragraphs."""
        return getdoc(self.run) or ""

    @property
    def description(self) -> str:
        """The docstring as one paragraph."""
        return " ".join(self.help.split())

    @property
    def acts(self) -> bool:
        """Whether it changes something only when a person confirms it."""
        return self.effect in (Effect.CHANGE, Effect.DELETE)

    @property
    def is_previewed(self) -> bool:
        """Whether the desk shows what it would do before it does it."""
        return self.acts or (self.instant and DRY_RUN in self.input.model_fields)

    def row_of(self, call: Call, given: I) -> AuditRow:
        """What the audit log says of a call, where the face that makes it writes it there."""
        what = self.command or self.job
        if not call.apply or self.effect is Effect.READ or self.recorded_by_flow:
            return AuditRow(what, dry_run=True)
        return AuditRow(what, self._target(call, given), self._arguments(given) | {"runId": call.run_id})

    def _target(self, call: Call, given: I) -> str:
        if callable(self.target):
            return self.target(call.face, given)
        named = getattr(given, "campaign_id", "")
        parts = [call.runtime.campaigns.id_of(named) if named else "", str(getattr(given, self.target, ""))]
        return ":".join(filter(None, parts)) or "all"

    def _arguments(self, given: Input) -> dict[str, Any]:
        """Return what was given and is not the target, in camelCase."""
        left_out = {"campaign_id", str(self.target), DRY_RUN, "yes"}
        values = given.model_dump(exclude=left_out, exclude_defaults=True)
        fields = type(given).model_fields
        for name, value in values.items():
            if is_file(fields[name].metadata):
                values[name] = Path(value).name
            elif is_typed_in(fields[name].metadata):
                values[name] = len(value)
        return {camel(name): value for name, value in values.items() if value}

    def request(self, **given: Any) -> dict[str, Any]:
        """The config of a run of its job, for a sensor. Raises RequestError for fields that do not fit."""
        self.input.of(given, str)
        return given


def operations_of(module: ModuleType) -> Iterator[Operation[Any]]:
    """The operations that the module declares, in their order."""
    for each in vars(module).values():
        if isinstance(each, Operation) and each.run.__module__ == module.__name__:
            yield each
