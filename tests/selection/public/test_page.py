"""The public page of a draw: what it says, what it withholds, and that it needs nothing but its own folder."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fairdraw.large.allocate import compute
from fairdraw.large.engine import Engine
from fairdraw.large.tiles import DRAW, Proofs
from fairdraw.maths.beside import ANNULLED, Annulled
from fairdraw.maths.files import ARTEFACTS, MANIFEST, RESULT, file_hash
from fairdraw.maths.leaves import unit_of
from fairdraw.maths.manifest import MarketTerms, ReserveTerms
from fairdraw.proof.inputs import read_inputs
from fairdraw.terms import ALGORITHM
from fairdraw.verifier.assemble import verifier_hash, verifier_page
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.selection import public_key, report_key
from regworkers_core.reporting import percent
from regworkers_core.runtime import Runtime
from regworkers_core.selection.public.page import Naming, draw_page, public_numbers
from regworkers_core.selection.public.publish import measured_files, page_from_folder, publish_page
from regworkers_core.selection.report.inputs import NUMBERS
from tests.fairdraw.maths import oracle
from tests.fairdraw.maths.test_opened import OPENED
from tests.fairdraw.proof.draws import (
    BEACON,
    CAMPAIGN,
    UNIT_KEY,
    Terms,
    publish_beside,
    refs,
    two_phases,
    write_inputs,
)
from tests.support.campaigns import create
from tests.support.faces import Face
from tests.support.figures import rendered
from tests.support.terminal import Answer, regworkers

pytestmark = pytest.mark.namespace("module")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A draw with the beacon, a replaced manifest and a top-up, and its page."""
    root = tmp_path_factory.mktemp("site")
    draw = publish_beside(two_phases(root / "two", source=BEACON))
    annulled = Annulled(
        "2026-11-26T08:00:00.000Z",
        CAMPAIGN,
        file_hash(draw / "phase-2" / MANIFEST),
        2,
        "the hall burned down.",
    )
    (draw / "phase-2" / ANNULLED).write_bytes(annulled.to_bytes())
    (draw / "phase-1" / "codes-1.txt").write_text(f"west|1|{'0' * 64}\n")
    (draw / "opened.json").write_bytes(OPENED.to_bytes())
    done = list[int]()
    with rendered():
        made = page_from_folder(draw, root / "out", on_progress=done.append)
    assert done == sorted(done) and done[-1] == 2 * made.proofs.leaves, "each leaf is hashed, and packed"
    return root / "out"


def _page(site: Path) -> str:
    return (site / "page" / "index.html").read_text()


def test_the_page_says_what_was_drawn_when_and_why(site: Path) -> None:
    page = _page(site)
    replaced = json.loads((site / "phase-1" / "replaced-1.json").read_bytes())
    expected = [
        "round 1000 of the public beacon",
        "more seats",
        hashlib.sha256(replaced["manifest"].encode()).hexdigest(),
        "late_commit, because: the store was down",
        "the hall burned down.",
        "700 s before",
        verifier_hash(),
    ]
    for phase in ("phase-1", "phase-2"):
        summary = json.loads((site / phase / "summary.json").read_bytes())
        expected += [summary[name] for name in ("manifestHash", "resultHash", "cutoffsHash")]
    assert [each for each in expected if each not in page] == []


def test_all_links_of_the_page_lead_to_files_beside_it(site: Path) -> None:
    links = set(re.findall(r'(?:href|src)="([^"]+)"', _page(site)))
    local = {link for link in links if not link.startswith("data:")}
    assert {f"../phase-{number}/{name}" for number in (1, 2) for name in ARTEFACTS} < local
    assert {"../phase-1/replaced-1.json", "../phase-1/codes-1.txt", "../opened.json"} < local
    assert {link for link in local if not (site / "page" / link).is_file()} == set()
    assert (site / "page" / "verifier.html").read_bytes() == verifier_page()


def test_the_policy_of_the_page_allows_exactly_its_own_scripts_and_style(site: Path) -> None:
    page = _page(site)
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert found is not None
    policy = {words[0]: words[1:] for words in map(str.split, found[1].split("; "))}

    def sources(pattern: str) -> list[str]:
        digests = (hashlib.sha256(text.encode()).digest() for text in re.findall(pattern, page, re.DOTALL))
        return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]

    scripts = sources(r'<script(?: id="code")?>(.*?)</script>')
    # With `make verifier` there is one more: the curves, which the page unpacks.
    assert scripts and policy["script-src"][: len(scripts)] == scripts and len(policy["script-src"]) <= 3
    assert policy["style-src"] == sources(r"<style>(.*?)</style>")
    assert policy["default-src"] == ["'none'"] and policy["connect-src"] == ["'self'"]
    assert " style=" not in page and " onclick=" not in page


def _numbers(draw: Path) -> dict[str, Any]:
    return measured_files([draw / "phase-1", draw / "phase-2"])


@pytest.mark.usefixtures("pictures")
def test_small_groups_are_withheld(beaconed: Path) -> None:
    numbers = _numbers(beaconed)
    group = {
        "group": "inbox.example",
        "candidates": 50,
        "hits": 9,
        "expected": 9.5,
        "low": 1.0,
        "high": 20.0,
    }
    small = {**group, "group": "castle.example", "candidates": 49}
    test = {
        "dimension": "mailDomain",
        "title": "mail domain",
        "question": "order",
        "statistic": 1.0,
        "freedom": 1,
    }
    test |= {"p": 0.5, "adjustedP": 1.0, "passed": True}
    numbers["audit"]["tests"] += [{**test, "groups": [group, small]}, {**test, "groups": [group, group]}]
    numbers["funnel"]["reasons"] = {"NO_MARKET": 50, "FRAUD": 49}

    shown = public_numbers(numbers)

    assert shown["funnel"]["reasons"] == {"NO_MARKET": 50}
    assert [test["groups"] for test in shown["audit"]["tests"][-2:]] == [[], [group, group]]
    phases = [read_inputs(beaconed / f"phase-{number}") for number in (1, 2)]
    page = draw_page(phases, numbers, Proofs("p.bin", 1, 36, 1, 0), Naming("x")).decode()
    plots = b"".join(map(base64.b64decode, re.findall(r"svg\+xml;base64,([^\"]+)", page))).decode()
    assert "castle" not in page + plots and "inbox.example" in plots


def test_what_was_bent_before_the_commit_is_on_the_page(tmp_path: Path) -> None:
    everyone = refs(1000)
    leaves = [
        oracle.leaf_line(
            (
                ref,
                # 950 strangers are put into households of six; 50 friends live alone.
                unit_of(UNIT_KEY, CAMPAIGN, f"unit-{n // 6}") if n < 950 else ref,
                64 if ref == everyone[-1] else 1,
                ("crew",) if ref == everyone[-2] else (),
                ("east",),
            )
        )
        for n, ref in enumerate(everyone)
    ]
    phase = tmp_path / "draw" / "phase-1"
    market = MarketTerms("east", 100, (ReserveTerms("crew", 1),))
    write_inputs(phase, leaves, Terms((market,), {everyone[0]: "BOT"}))
    compute(phase, None, phase, engine=Engine(tmp_path / "scratch", memory_mib=200))
    page_from_folder(tmp_path / "draw", tmp_path / "out")
    page = re.sub(r"\s+", " ", _page(tmp_path / "out"))
    numbers = measured_files([phase])
    sizes = {row["group"]: row for row in numbers["householdSizes"]}
    assert sizes["1"]["winRate"] > 0.3 and sizes["6"]["winRate"] < 0.1 and numbers["audit"]["passed"]
    for group in ("1", "6"):
        assert f"<td>{group}</td><td>{percent(sizes[group]['winRate'])}</td>" in page
    # The one of weight 64, and the one in the segment.
    assert page.count("<td>all others (1)</td><td>100 %</td><td>1</td><td>1</td>") == 2
    assert "<td>crew</td>" in page and "<td>BOT</td><td>1</td><td>0</td><td>1</td>" in page
    # Of all who listed it, not of the candidates.
    assert "<td>east</td><td>10 %</td><td>100</td><td>100</td><td>1,000</td>" in page


@pytest.fixture
def drawn(runtime: Runtime, beaconed: Path) -> Runtime:
    """Both phases in the store, the first one confirmed."""
    phases: dict[str, Any] = {}
    for number in (1, 2):
        folder = beaconed / f"phase-{number}"
        for name in ARTEFACTS:
            runtime.objects.put_file(public_key(CAMPAIGN, number, name), folder / name)
        hashes = {"manifestHash": file_hash(folder / MANIFEST), "resultHash": file_hash(folder / RESULT)}
        terms = {"algorithm": ALGORITHM}
        phases[str(number)] = {"phase": number, "status": "DRAWN", "terms": terms, **hashes}
        numbers = measured_files([beaconed / f"phase-{one}" for one in range(1, number + 1)])
        runtime.objects.put_bytes(report_key(CAMPAIGN, number, NUMBERS), json.dumps(numbers).encode())
    phases["1"]["confirmedAt"] = "2026-11-25T10:00:00.000Z"
    runtime.database["draws"].insert_one(
        {"_id": CAMPAIGN, "campaignId": CAMPAIGN, "drawId": CAMPAIGN, "token": 1, "phases": phases}
    )
    return runtime


def _stored(runtime: Runtime) -> dict[str, bytes]:
    prefix = f"draws/{CAMPAIGN}/page/"
    return {key.removeprefix(prefix): runtime.objects.get_bytes(key) for key in runtime.objects.list(prefix)}


def _confirm(runtime: Runtime, phase: int) -> None:
    runtime.database["draws"].update_one(
        {"_id": CAMPAIGN}, {"$set": {f"phases.{phase}.confirmedAt": "2026-11-26"}}
    )


def test_a_page_is_put_once_and_a_later_phase_replaces_its_index_last(
    drawn: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dry = publish_page(drawn, CAMPAIGN, apply=False)
    assert _stored(drawn) == {} and set(dry.put) == {dry.proofs.file, "verifier.html", DRAW, "index.html"}

    first = publish_page(drawn, CAMPAIGN, output=tmp_path / "copy", apply=True)
    before = _stored(drawn)
    assert set(before) == set(first.put) and first.phases == 1
    assert (tmp_path / "copy" / "page" / "index.html").read_bytes() == before["index.html"]
    assert (tmp_path / "copy" / "phase-1" / "leaves.txt").is_file()
    assert publish_page(drawn, CAMPAIGN, apply=True).put == (), "a repeat puts nothing"
    assert _stored(drawn) == before

    _confirm(drawn, 2)
    order: list[str] = []
    objects = type(drawn.objects)
    for method in ("put_over", "put_file_once"):
        own = getattr(objects, method)

        def noted(self: Any, key: str, *rest: Any, own: Any = own) -> Any:
            order.append(key.rpartition("/")[2])
            return own(self, key, *rest)

        monkeypatch.setattr(objects, method, noted)
    second = publish_page(drawn, CAMPAIGN, apply=True)
    after = _stored(drawn)
    assert second.phases == 2 and order == [second.proofs.file, DRAW, "index.html"]
    assert before[first.proofs.file] == after[first.proofs.file], (
        "who has the page before still finds its proofs"
    )
    assert json.loads(gzip.decompress(after[DRAW]))["file"] == second.proofs.file


def test_a_phase_that_is_not_confirmed_has_no_page(drawn: Runtime) -> None:
    drawn.database["draws"].update_one({"_id": CAMPAIGN}, {"$unset": {"phases.1.confirmedAt": ""}})
    with pytest.raises(UsageError, match="summer has no confirmed phase yet: read the report and confirm it"):
        publish_page(drawn, CAMPAIGN, apply=True)


def test_two_runs_at_once_do_not_mix_their_pages(drawn: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_page(drawn, CAMPAIGN, apply=True)
    _confirm(drawn, 2)
    objects = type(drawn.objects)
    own = objects.put_over

    def beaten(self: Any, key: str, data: bytes, tag: str | None) -> str | None:
        self.put_bytes(key, b"of another run")
        return own(self, key, data, tag)

    monkeypatch.setattr(objects, "put_over", beaten)
    with pytest.raises(UsageError, match="another run publishes"):
        publish_page(drawn, CAMPAIGN, apply=True)


def test_the_page_is_built_first_and_put_when_it_is_applied(drawn: Runtime, face: Face) -> None:
    dry = face.does("draw publish-page", campaign_id=CAMPAIGN)
    assert dry.fine and "nothing was put yet" in dry.text and _stored(drawn) == {}
    done = face.does("draw publish-page", campaign_id=CAMPAIGN, apply=True)
    assert done.fine and "s3://" in done.text and "index.html" in _stored(drawn)
    assert (
        "nothing to put: the page is as published"
        in face.does("draw publish-page", campaign_id=CAMPAIGN).text
    )
    for given, said in (
        ({}, "give either a campaign or"),
        ({"campaign_id": "nosuch"}, "no campaign 'nosuch'"),
    ):
        refused = face.does("draw publish-page", **given)
        assert not refused.fine and said in refused.text
    (action,) = drawn.operator_actions.history()
    assert (action.what, action.target, action.result["put"]) == ("draw publish-page", CAMPAIGN, 4)


def test_all_phases_are_exported_and_those_not_confirmed_are_named(
    drawn: Runtime, face: Face, tmp_path: Path
) -> None:
    more = {"folder": tmp_path / "exported"} if face.name == "terminal" else {}
    done = face.does("draw export", campaign_id=CAMPAIGN, **more)
    assert done.fine and "phase 2 is not confirmed yet" in done.text
    if face.name == "terminal":
        assert (tmp_path / "exported" / "phase-1" / MANIFEST).is_file()
    else:
        (archive,) = done.files.values()
        with zipfile.ZipFile(io.BytesIO(archive)) as files:
            assert f"{CAMPAIGN}/phase-1/{MANIFEST}" in files.namelist()
    create(drawn, "early")
    early = face.does("draw export", campaign_id="early", **more)
    assert not early.fine and "has published nothing yet" in early.text


def test_a_folder_of_exported_artefacts_becomes_a_page_without_a_server(
    beaconed: Path, tmp_path: Path
) -> None:
    def run(*words: str) -> Answer:
        return regworkers(None, "draw", "publish-page", *words)

    words = ("--from", str(beaconed), "--output", str(tmp_path / "out"), "--format", "json")
    document = run(*words).document
    assert document["phases"] == 2 and Path(document["page"]).is_file() and document["leaves"] == 36
    for words, said in (
        (("--from", str(beaconed)), "give --output"),
        (("--from", str(tmp_path), "--output", str(tmp_path / "o")), "no phase-1"),
    ):
        refused = run(*words)
        assert refused.code == 2 and said in refused.stderr
