"""The page of a draw for everybody: what was drawn, when, with which odds, and how to check it.

Nothing in it tells more about a fan than the artefacts do, which list every ref with its outcome. Counts by what the
artefacts do not show (times of registration, mail domains, reasons of exclusions) are published for groups of at least
LEAST_GROUP entries only; reserves and strikes are always published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairdraw.large.tiles import BLOCK, Proofs
from fairdraw.maths.beside import published
from fairdraw.maths.opened import is_beside_phases
from fairdraw.proof import guarantee
from fairdraw.proof.beacon import chain_in
from fairdraw.proof.inputs import Inputs
from fairdraw.terms import signed_at
from fairdraw.verifier.assemble import (
    curves_scripts,
    module,
    source,
    verifier_hash,
    verifier_policy,
)
from regworkers_core.reporting import page
from regworkers_core.reporting.figures import svg
from regworkers_core.selection.report.arrivals import VOUCHED
from regworkers_core.selection.report.build import DIMENSIONS
from regworkers_core.selection.report.inputs import LEAST_GROUP
from regworkers_core.selection.report.notes import verdict
from regworkers_core.selection.report.plots import ARRIVALS, plots

INDEX = "index.html"
_INLINE = re.compile(r"<(script|style)(?: id=\"code\")?>(.*?)</\1>", re.DOTALL)
_OUTCOMES = {
    "WINNER": "selected",
    "WAITLIST": "on the waiting list",
    "UNSELECTED": "not selected",
    "HOUSEHOLD_LIMIT": "not selected because of the household's limit",
    "STRUCK": "removed from the draw",
    "UNCLAIMED": "selected, and the seat was not claimed in time",
}
POLICY = "THE-POLICY-OF-THIS-PAGE"


@dataclass(frozen=True, slots=True)
class Naming:
    """Names for people; ids where there is none."""

    draw: str
    markets: Mapping[str, str] = field(default_factory=dict)


def draw_page(
    phases: Sequence[Inputs],
    numbers: Mapping[str, Any],
    proofs: Proofs,
    naming: Naming,
) -> bytes:
    """The page of all phases with a result; `numbers` are those of the last one's report. Its policy (CSP) allows its
    own style, script and worker, and requests to its own host.
    """
    shown = public_numbers(numbers)
    audit = shown["audit"]
    plotted = {**audit, "tests": [test for test in audit["tests"] if test["groups"]]}
    first = phases[0]
    if first.manifest is None:
        # A damaged one: a phase with a result has it.
        raise first.errors[0]
    drawn_by = first.manifest.seed_source
    chain = chain_in(first.folder.parent, drawn_by.chain)
    curves, curves_source = curves_scripts()
    html = page(
        "draw_page",
        title=f"The draw of {naming.draw}",
        policy=POLICY,
        curves=curves,
        script=module("site.js"),
        block=BLOCK,
        phases=[_facts(each, signed_at(chain, drawn_by.round)) for each in phases if each.summary],
        annulled=next((each.published.annulled for each in phases if each.published.annulled), None),
        guarantee=guarantee.of_source(chain, drawn_by.round, first.published),
        manifest=first.manifest,
        beside=sorted(
            (path.name, path.stat().st_size)
            for path in first.folder.parent.iterdir()
            if is_beside_phases(path.name)
        ),
        numbers=shown,
        market_names=naming.markets,
        least=LEAST_GROUP,
        verdict=verdict(audit),
        plots=plots({**shown, "audit": plotted}, naming.markets, svg),
        dimensions=DIMENSIONS,
        arrival_plots=ARRIVALS.items(),
        vouched=VOUCHED,
        proofs=proofs,
        verifier=verifier_hash(),
    )
    return html.replace(POLICY, own_policy(html, curves_source)).encode()


def public_numbers(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a report without groups of fewer than LEAST_GROUP entries that the artefacts do not show.

    A test of the audit shows its groups only if all are large enough: the missing one would follow from the others.
    """
    funnel, audit = numbers["funnel"], numbers["audit"]
    reasons = {reason: count for reason, count in funnel["reasons"].items() if count >= LEAST_GROUP}
    tests = [
        test
        if test["dimension"] in ("householdSize", "weight")
        or all(group["candidates"] >= LEAST_GROUP for group in test["groups"])
        else {**test, "groups": []}
        for test in audit["tests"]
    ]
    return {**numbers, "funnel": {**funnel, "reasons": reasons}, "audit": {**audit, "tests": tests}}


def _facts(each: Inputs, round_at: str | None) -> dict[str, Any]:
    """What the page tells about one phase; `round_at` is when the beacon signed the round of the draw."""
    notice, summary = each.published.notice, dict(each.summary or {})
    return {
        "number": each.number,
        "asOf": each.manifest.as_of if each.manifest else None,
        "committedAt": notice and notice.committed_at,
        "publishedAt": notice and notice.published_at,
        "reason": notice.reason if notice else "",
        "round": each.manifest and each.manifest.seed_source.round,
        "signedAt": round_at,
        "replaced": [
            (one.manifest_hash, one.document.seed_source.round, one.published_at, one.replaced_at)
            for one in each.published.replaced
        ],
        "accepted": [(one.at, one.finding, one.reason) for one in each.published.accepted or ()],
        "outcomes": [
            f"{count:,} {text}"
            for name, text in _OUTCOMES.items()
            if (count := summary["outcomes"].get(name))
        ],
        "hashes": {name: summary[name] for name in ("manifestHash", "resultHash", "cutoffsHash")},
        "files": [
            (name, (each.folder / name).stat().st_size)
            for name in published(path.name for path in each.folder.iterdir())
        ],
    }


def served_policy(name: str) -> str:
    """The policy under which a server shows the stored page of this name: it runs the scripts of this release, and no
    other ones, whatever the stored file holds.
    """
    if name != INDEX:
        return verifier_policy()
    curves, curves_source = curves_scripts()
    inline = _inline(f'{curves}<script id="code">{module("site.js")}</script>')
    return _allowing([*inline["script"], curves_source], ["'unsafe-inline'"])


def own_policy(html: str, *more: str) -> str:
    """The policy that allows what is in the page."""
    inline = _inline(html)
    return _allowing([*inline["script"], *more], inline["style"])


def _inline(html: str) -> Mapping[str, list[str]]:
    """The sources of each `script` and `style` in the page."""
    allowed: dict[str, list[str]] = {"script": [], "style": []}
    for tag, text in _INLINE.findall(html):
        allowed[tag].append(source(text.encode()))
    return allowed


def _allowing(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """A policy for these sources, requests to the page's own host, and the worker of the replay."""
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(filter(None, ("script-src", *scripts))),
            f"style-src {' '.join(styles)}",
            "connect-src 'self'",
            "worker-src blob:",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
