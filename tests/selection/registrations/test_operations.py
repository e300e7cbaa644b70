"""`registrations status | proof | open`: what an operator sees, what a fan gets, and what an auditor is handed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fairdraw.errors import DrawError
from fairdraw.maths.files import canonical_bytes
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.snapshot import BlownFuse, PausedDrain
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.defects import code_version, remove_hold, store_fuse, store_pause
from regworkers_core.runtime import Runtime
from regworkers_core.selection.public.public_log import PublicLog
from regworkers_core.selection.registrations.tree import RegistrationLog
from regworkers_local.platform import Platform
from tests.selection.draw.world import CAMPAIGN, close_campaign, done_to, draw, entry, ref_of
from tests.selection.registrations.test_freeze import closed, register, registrant, remove, update
from tests.support.drains import run
from tests.support.shared import shared_namespace
from tests.support.terminal import regworkers


@pytest.fixture(scope="module")
def drawn() -> Iterator[Runtime]:
    """A campaign whose registrations were logged and drawn. Its tests only read."""
    with shared_namespace() as made:
        closed(made, entry(6, markets=["rome"]), entry(7, unit="home"))
        register(made)
        remove(made, 0)
        done_to("allocate", draw(made))
        yield made


def test_the_status_shows_the_tree_and_what_waits(drawn: Runtime) -> None:
    (shown,) = regworkers(drawn, "registrations", "status", "--format", "json").document
    assert shown | {"root": ""} == {
        "campaignId": CAMPAIGN,
        "status": "PROCESSING",
        "log": "on",
        "size": 9,
        "root": "",
        "registered": 7,
        "withdrawn": 1,
        "erased": 0,
        "lost": 0,
        "notices": 1,
        "waiting": 0,
        "loggedSize": 9,
        "notLogged": [],
        "damaged": False,
        "remarks": [],
    }


def test_where_it_is_off_the_status_says_what_is_missing(runtime: Runtime) -> None:
    close_campaign(runtime)
    assert regworkers(runtime, "registrations", "status", "--format", "json").document == []
    shown = regworkers(runtime, "registrations", "status", CAMPAIGN)
    assert "no fan can see that their entry was in the list" in shown.stdout + shown.stderr


def test_the_status_of_a_tree_that_lost_files_names_them_and_the_way_out(runtime: Runtime) -> None:
    closed(runtime)
    register(runtime)
    tree = RegistrationLog.open(runtime, CAMPAIGN)
    tree.log_now()
    folder = f"registrations/{CAMPAIGN}"
    size, partial = f"{folder}/sizes/{tree.size}.json", f"{folder}/tile/entries/000.p/{tree.size}"
    runtime.objects.delete(size)
    shown = regworkers(runtime, "registrations", "status", CAMPAIGN)
    assert shown.code == 1
    assert f"{size}: is missing" in shown.stdout + shown.stderr and "restore the version" in shown.stdout
    # A damaged tree hides no other one.
    several = regworkers(runtime, "registrations", "status", "--format", "json")
    (named,) = several.document
    assert several.code == 1 and named["campaignId"] == CAMPAIGN and named["damaged"]
    assert f"{size}: is missing" in named["remarks"][0]
    runtime.objects.delete(partial)
    with pytest.raises(DrawError, match=f"{partial}: is missing.*restore"):
        RegistrationLog.open(runtime, CAMPAIGN)
    runtime.objects.delete(f"{folder}/checkpoint")
    shown = regworkers(runtime, "registrations", "status", CAMPAIGN)
    assert shown.code == 1 and "its tree has entries, and no checkpoint" in shown.stdout + shown.stderr


def test_the_status_says_why_entries_and_sizes_wait(runtime: Runtime) -> None:
    closed(runtime)

    def said() -> str:
        shown = regworkers(runtime, "registrations", "status", CAMPAIGN)
        assert shown.code == 0
        return " ".join((shown.stdout + shown.stderr).split())

    assert "no worker runs the drain register" in said()
    now = iso(runtime.clock())
    store_fuse(runtime.leases, BlownFuse("register", "f", "DEFECT", now, "a-run", code_version()))
    assert "the fuse of the drain register blew" in said()
    store_pause(runtime.leases, PausedDrain("register", now, "ada", "a restore"), runtime.clock())
    assert "the drain register is paused since" in said() and "`regworkers drain resume register`" in said()
    for kind in (PausedDrain, BlownFuse):
        remove_hold(runtime.leases, kind, "register")
    register(runtime)
    assert "wait: " not in said()
    RegistrationLog.open(runtime, CAMPAIGN).log_now()
    assert "the public log lacks sizes of the tree since" in said()


@pytest.mark.parametrize("named", ["e3", ref_of(3)])
def test_a_proof_makes_the_fans_confirmation_and_checks_it_as_the_fan_does(
    drawn: Runtime, tmp_path: Path, named: str
) -> None:
    made = regworkers(drawn, "registrations", "proof", CAMPAIGN, named, "--save", str(tmp_path))
    assert made.code == 1 and "in the list since" in made.stdout, made.stderr
    assert "by the operator's word" in made.stdout, "no witness vouches for it"
    data = json.loads((tmp_path / "confirmation.json").read_text())
    stored = registrant(drawn, 3)
    assert stored is not None and stored.registered is not None
    assert (data["salt"], data["index"]) == (stored.registered.salt, stored.registered.index)
    assert (data["ref"], data["unit"], data["kind"]) == (ref_of(3), None, "registration")


def test_a_confirmation_is_checked_offline_against_the_public_files(drawn: Runtime, tmp_path: Path) -> None:
    regworkers(drawn, "registrations", "proof", CAMPAIGN, "e7", "--save", str(tmp_path))
    confirmation, place = tmp_path / "confirmation.json", tmp_path / "site"
    for key in [
        each for prefix in ("draws/", "log/", "registrations/") for each in drawn.objects.list(prefix)
    ]:
        (place / key).parent.mkdir(parents=True, exist_ok=True)
        drawn.objects.get_file(key, place / key)
    words = ("registrations", "proof", "--confirmation", str(confirmation), "--from", str(place))
    checked = regworkers(drawn, *words, "--format", "json")
    assert (checked.document["verdict"], checked.code) == ("incomplete", 1)
    document = json.loads(confirmation.read_text())
    confirmation.write_text(json.dumps(document | {"ref": ref_of(1)}))
    forged = regworkers(drawn, *words)
    assert forged.code == 1 and "does not hold" in forged.stdout + forged.stderr


def test_what_cannot_be_proven_is_said(drawn: Runtime, tmp_path: Path) -> None:
    assert (
        "no entry of this id or reference"
        in regworkers(drawn, "registrations", "proof", CAMPAIGN, "e99").stderr
    )
    removed = regworkers(drawn, "registrations", "proof", CAMPAIGN, "e0").stderr
    assert "no registration that can be shown" in removed
    unknown = regworkers(drawn, "registrations", "proof", "sumer", "e1").stderr
    assert "sumer" in unknown and "no entry of this id" not in unknown
    confirmation = tmp_path / "confirmation.json"
    for words in ((CAMPAIGN,), (CAMPAIGN, "--confirmation", str(confirmation))):
        assert "give either" in regworkers(drawn, "registrations", "proof", *words).stderr
    for data, said in ((b"%PDF-1.7\n", "no receipt or confirmation"), (b'{"kind":"draw"}', "is a receipt")):
        confirmation.write_bytes(data)
        refused = regworkers(drawn, "registrations", "proof", "--confirmation", str(confirmation))
        assert refused.code == 2 and str(confirmation) in refused.stderr and said in refused.stderr


def test_an_opening_satisfies_the_auditor(drawn: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "opening.jsonl"
    opened = regworkers(drawn, "registrations", "open", CAMPAIGN, "--file", str(path), "--format", "json")
    assert path.stat().st_mode & 0o777 == 0o600, "it leads from each leaf to a fan's reference"
    assert opened.document["classes"] == {"drawn": 6, "excluded": 1, "withdrawn": 1}
    audited = regworkers(drawn, "draw", "audit-registrations", CAMPAIGN, str(path), "--format", "json")
    assert audited.code == 0 and audited.document["findings"] == [], audited.stderr
    assert (audited.document["due"], audited.document["opened"]) == (8, 7)
    # An entry that was drawn and is shown as left out.
    lines = path.read_text().splitlines()
    at = next(at for at, line in enumerate(lines) if '"class":"drawn"' in line)
    forged = json.loads(lines[at]) | {"class": "excluded", "reason": "NO_MARKET"}
    lines[at] = canonical_bytes(forged).decode()
    path.write_text("\n".join(lines))
    found = regworkers(drawn, "draw", "audit-registrations", CAMPAIGN, str(path))
    assert found.code == 1 and "FINDING: " in found.stdout
    action = drawn.operator_actions.history()[-1]
    assert (action.what, action.target) == ("registrations open", CAMPAIGN)
    nowhere = regworkers(drawn, "registrations", "open", CAMPAIGN, "--file", "/nowhere/opening")
    assert nowhere.code == 2 and "/nowhere/opening: No such file or directory" in nowhere.stderr


def test_an_opening_says_where_it_is_or_how_to_get_it(drawn: Runtime, tmp_path: Path) -> None:
    def said(*words: str) -> str:
        shown = regworkers(drawn, "registrations", "open", CAMPAIGN, *words)
        assert shown.code == 0
        return "".join((shown.stdout + shown.stderr).split())

    path = tmp_path / "opening.jsonl"
    assert f"8registrationsarein{path}" in said("--file", str(path))
    assert "nofilewaswritten:add--saveFOLDERfortheopening" in said()
    assert "nofilewaswritten" not in said("--save", str(tmp_path))
    shown = regworkers(drawn, "registrations", "open", CAMPAIGN, "--format", "json")
    assert shown.document["file"] == ""


def test_before_the_commit_there_is_nothing_to_open(runtime: Runtime) -> None:
    closed(runtime)
    assert "after the commit" in regworkers(runtime, "registrations", "open", CAMPAIGN).stderr
    done_to("freeze", draw(runtime))
    assert "committed to no registrations" in regworkers(runtime, "registrations", "open", CAMPAIGN).stderr


def test_the_platform_confirms_each_registration_once_and_none_that_was_removed(
    runtime: Runtime, tmp_path: Path
) -> None:
    closed(runtime)
    register(runtime)
    remove(runtime, 1)
    run(runtime, "publish")
    platform = Platform(runtime, tmp_path)
    assert (platform.confirm(), platform.confirm()) == (5, 0)
    assert not platform.path(EntryKey(CAMPAIGN, "e1")).exists()
    confirmed = platform.path(EntryKey(CAMPAIGN, "e3"))
    PublicLog.of(runtime).publish()
    proof = regworkers(runtime, "registrations", "proof", "--confirmation", str(confirmed))
    assert "not in the list yet" in proof.stdout, "its size is logged by the drain"
    # A new registration of the same entry is confirmed again.
    update(runtime, 3, ref=ref_of(30))
    register(runtime)
    run(runtime, "publish")
    assert platform.confirm() == 1 and ref_of(30) in confirmed.read_text()


def test_before_the_draw_the_page_of_the_list_has_the_verifier(runtime: Runtime, tmp_path: Path) -> None:
    closed(runtime, numbers=range(3))
    register(runtime)
    words = ("draw", "publish-page", CAMPAIGN, "--output", str(tmp_path), "--format", "json")
    assert regworkers(runtime, *words).document["put"] == ["verifier.html", "index.html"]
    assert not runtime.objects.list(f"draws/{CAMPAIGN}/page/"), "a dry run"
    regworkers(runtime, *words, "--apply")
    html = runtime.objects.get_bytes(f"draws/{CAMPAIGN}/page/index.html")
    assert html == (tmp_path / "page" / "index.html").read_bytes() and b"<b>3</b>" in html.replace(b"\n", b"")
    assert regworkers(runtime, *words, "--apply").document["put"] == []
