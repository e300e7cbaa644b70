"""Every entry of a campaign, judged at one moment by the rules that judge a fan who asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regworkers_core.adapters.judged_entries import (
    DOMAIN_ENTRANTS,
    OTHER_DOMAINS,
    PAGE,
    JudgedEntry,
    read_judged,
)
from regworkers_core.domain.claim import InviteType, User
from regworkers_core.domain.eligibility import FactSource, Known
from regworkers_core.domain.entry import FIELDS, Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import seconds
from regworkers_core.eligibility import judging, request, staging
from regworkers_core.eligibility.case import AsOf, Facts, Subject
from regworkers_core.eligibility.judging import MOST_UNKNOWN
from regworkers_core.eligibility.request import subject_of
from regworkers_core.eligibility.rules import judge
from regworkers_core.runtime import Runtime
from tests.eligibility.campaign.world import AS_OF, CLOSES, World, closed, entry
from tests.support.typing_in import Typed

LATER = int(seconds("2026-06-01T00:00:00.000Z") or 0)


def test_an_entry_of_the_campaigns_time_is_eligible(tmp_path: Path) -> None:
    assert World([entry("a")]).judge(tmp_path) == {"a": []}


def test_the_window_is_that_of_the_entrys_own_time(tmp_path: Path) -> None:
    early = entry("early", createdAt="2025-12-31T23:59:59.999Z")
    late = entry("late", createdAt=CLOSES)
    assert World([early, late]).judge(tmp_path) == {
        "early": ["CAMPAIGN_NOT_OPEN"],
        "late": ["CAMPAIGN_CLOSED"],
    }


def test_an_entry_after_an_early_manual_closing_is_late(tmp_path: Path) -> None:
    transition = {
        "from": "OPEN",
        "to": "CLOSED",
        "at": "2026-01-15T00:00:00.000Z",
        "reason": "sold out",
        "runId": "r",
        "token": 1,
    }
    judged = World([entry("before", day=14), entry("after", day=15)]).judge(
        tmp_path, closed(transitions=[transition])
    )
    assert judged == {"before": [], "after": ["CAMPAIGN_CLOSED"]}


def test_an_entry_without_a_time_is_not_refused(tmp_path: Path) -> None:
    world = World([entry("a", createdAt=None), entry("b", createdAt="yesterday")])
    assert world.judge(tmp_path) == {"a": [], "b": []}
    assert world.tally.undated == 2


@pytest.mark.parametrize(
    ("field", "first", "second"),
    [
        ("email", "Fan@Example.com", " fan@example.COM"),
        ("globalUserId", "g-1", "g-1"),
        ("memberId", "m-1", "m-1"),
    ],
)
def test_of_one_persons_entries_the_earliest_counts(
    tmp_path: Path, field: str, first: str, second: str
) -> None:
    entries = [entry("z", day=3, **{field: first}), entry("a", day=4, **{field: second})]
    assert World(entries[::-1]).judge(tmp_path) == {"z": [], "a": ["ALREADY_ENTERED"]}


def test_of_two_entries_at_one_moment_the_smaller_id_counts(tmp_path: Path) -> None:
    entries = [entry("b", email="fan@example.com"), entry("a", email="fan@example.com")]
    assert World(entries).judge(tmp_path) == {"a": [], "b": ["ALREADY_ENTERED"]}


def test_an_excluded_entry_excludes_no_other_entry(tmp_path: Path) -> None:
    early = {"createdAt": "2025-12-31T23:59:59.999Z", "unit": "flat-7"}
    entries = [
        entry("early", email="fan@example.com", **early),
        entry("in-time", email="fan@example.com", unit="flat-7"),
        entry("again", day=11, email="fan@example.com", unit="flat-7"),
        entry("no-mail", day=1, email="no-mail", globalUserId="g-1"),
        entry("mail", globalUserId="g-1"),
    ]
    assert World(entries).judge(tmp_path, closed(eligibility={"maxPerUnit": 1})) == {
        "early": ["CAMPAIGN_NOT_OPEN"],
        "in-time": [],
        "again": ["ALREADY_ENTERED", "HOUSEHOLD_LIMIT"],
        "no-mail": ["INVALID_EMAIL"],
        "mail": [],
    }


@pytest.mark.parametrize("created_at", [None, "yesterday"])
def test_an_entry_without_a_time_comes_last(tmp_path: Path, created_at: str | None) -> None:
    undated = entry("a", createdAt=created_at, email="fan@example.com")
    world = World([undated, entry("b", email="fan@example.com")])
    assert world.judge(tmp_path) == {"a": ["ALREADY_ENTERED"], "b": []}


def test_dots_and_plus_tags_make_different_persons(tmp_path: Path) -> None:
    entries = [entry("a", email="jo.fan@example.com"), entry("b", email="jofan+x@example.com")]
    assert World(entries).judge(tmp_path) == {"a": [], "b": []}


def test_a_household_has_as_many_entries_as_it_may(tmp_path: Path) -> None:
    entries = [entry(name, day=day, unit="flat-7") for name, day in (("c", 3), ("b", 2), ("a", 1))]
    limited = closed(eligibility={"maxPerUnit": 2})
    assert World(entries).judge(tmp_path, limited) == {"a": [], "b": [], "c": ["HOUSEHOLD_LIMIT"]}


def test_binary_and_other_free_attributes_stop_no_judgement_and_are_not_staged(tmp_path: Path) -> None:
    free = {
        "photo": b"\xff",
        "photos": [b"a", b"b"],
        "nested": {"much": 2**62, "nan": float("nan"), "$x": b""},
        "region": "DE",
        "birthDate": "1990-12-31",
    }
    campaign = closed(eligibility={"regions": ["DE"], "minAge": 18, "maxPerUnit": 1, "inviteOnly": False})
    one, two = entry("a", attributes=free, unit="u"), entry("b", attributes=free, unit="u", day=11)
    # The second one is judged again from what was staged.
    judged = World([one, two, entry("c", attributes={"region": b"DE"})]).judge(tmp_path, campaign)
    assert judged["a"] == [] and judged["b"] == ["HOUSEHOLD_LIMIT"] and judged["c"]
    subject = subject_of(one, entry_id="a", created_at=str(one["createdAt"]))
    with staging.Staging(tmp_path) as staged:
        staged.add(EntryKey("summer", "a"), subject, one, [])
        ((read,),) = staged.entries()
    kept = {name: value for name, value in one.items() if name not in ("campaignId", "entryId", "attributes")}
    assert read.fields == {**kept, "attributes": {"region": "DE", "birthDate": "1990-12-31"}}


FULL = {
    "ref": "ref-1",
    "email": "fan@example.com",
    "firstName": "Ada",
    "lastName": "Lovelace",
    "globalUserId": "g-1",
    "memberId": "m-1",
    "unit": "flat-7",
    "weight": 2,
    "segments": ["gold"],
    "markets": ["berlin"],
    "tier": "gold",
    "vouchedBy": "caller",
    "createdAt": "2026-01-10T00:00:00.000Z",
}
FREE = {"region": "DE", "birthDate": "1990-12-31", "seat": "A1"}


@pytest.mark.parametrize(
    "field",
    [*(name for name in FIELDS if name not in ("attributes", "correlationId")), "tier", "createdAt", *FREE],
)
def test_a_field_that_a_rule_reads_is_the_same_alone_and_in_a_household(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """Also one of the contract and one of the free attributes that were added since."""
    monkeypatch.setitem(cast(dict[str, Any], FIELDS), "tier", (bool, "a text"))
    monkeypatch.setattr(request, "ATTRIBUTES", tuple(FREE))
    found: dict[str, list[object]] = {"a": [], "b": []}

    def read(fields: Mapping[str, Any], *, entry_id: str, created_at: str) -> Subject:
        value = request.read_attributes(fields)[field] if field in FREE else fields[field]
        found[entry_id].append(value)
        return subject_of(fields, entry_id=entry_id, created_at=created_at)

    monkeypatch.setattr(judging, "subject_of", read)
    World([entry("a", **FULL, attributes=FREE), entry("b", **FULL, attributes=FREE)]).judge(tmp_path)
    value = (FULL | FREE)[field]
    assert found == {"a": [value], "b": [value, value]}


def test_a_rule_reads_nothing_that_is_not_staged(tmp_path: Path) -> None:
    class Recorded(dict[str, Any]):
        asked: ClassVar[set[str]] = set()

        def get(self, name: str, default: Any = None) -> Any:
            self.asked.add(name)
            return super().get(name, default)

    JudgedEntry.of(EntryKey("summer", "a"), Recorded(FULL))
    subject = subject_of(Recorded(FULL, attributes=Recorded(FREE)), entry_id="a", created_at="")
    assert Recorded.asked & FIELDS.keys() >= {"email", "unit", "attributes"}
    with staging.Staging(tmp_path) as staged:
        full = {**dict.fromkeys(FIELDS, "x"), **FULL, "attributes": FREE}
        staged.add(EntryKey("summer", "a"), subject, full, [])
        ((kept,),) = staged.entries()
    stored = {"createdAt", *FIELDS, *FREE}
    assert Recorded.asked & stored <= kept.fields.keys() | kept.fields["attributes"].keys()


def test_a_document_of_others_is_judged_like_any_other(tmp_path: Path) -> None:
    """Which no save wrote: types that no entry has."""
    odd = entry("odd", ref=7, weight="3", segments=[b"x"], markets="berlin", unit=None, firstName=object)
    judged = World([odd, entry("a")]).judge(tmp_path)
    assert judged["a"] == [] and "odd" in judged


def test_an_unknown_market_is_left_to_the_draw(tmp_path: Path) -> None:
    assert World([entry("a", markets=["atlantis"])]).judge(tmp_path) == {"a": []}


def test_an_invite_counts_by_its_ttl_at_the_time_of_the_entry(tmp_path: Path) -> None:
    world = World([entry("in"), entry("expired"), entry("none"), entry("member", memberId="m-1")])
    world.invite("In@example.com", LATER)
    world.invite("expired@example.com", int(seconds("2026-01-05T00:00:00.000Z") or 0))
    world.invite("m-1", LATER, InviteType.MEMBER_ID)
    judged = world.judge(tmp_path, closed(eligibility={"inviteOnly": True}))
    assert judged == {"in": [], "expired": ["NOT_INVITED"], "none": ["NOT_INVITED"], "member": []}


def test_the_report_says_that_an_invite_that_has_ended_may_be_gone(tmp_path: Path) -> None:
    world = World([entry("in"), entry("out")])
    world.invite("in@example.com", LATER)
    world.judge(tmp_path, closed(eligibility={"inviteOnly": True}))
    said = "NOT_INVITED (1): an expired invite that DynamoDB has deleted looks like no invite"
    report = world.tally.judgement(tmp_path)
    assert said in report.markdown["overview"] and said in (tmp_path / PAGE).read_text(encoding="utf-8")
    world.invite("out@example.com", LATER)
    world.judge(tmp_path, closed(eligibility={"inviteOnly": True}))
    assert world.tally.numbers()["notes"] == []


def test_invites_are_asked_for_a_hundred_at_a_time_and_only_where_the_campaign_wants_them(
    tmp_path: Path,
) -> None:
    world = World([entry(f"e{number}") for number in range(250)])
    world.judge(tmp_path)
    assert world.asked == []
    world.judge(tmp_path, closed(eligibility={"inviteOnly": True}))
    assert sorted(world.asked) == [50, 100, 100]


def test_an_unavailable_service_that_the_campaign_needs_excludes_no_entry(tmp_path: Path) -> None:
    world = World([entry("a", globalUserId="g-1")])
    with pytest.raises(TransientFailure, match="service-user"):
        world.judge(tmp_path, closed(eligibility={"requireVerifiedPhone": True}))


def test_records_are_asked_for_only_where_the_campaign_or_the_settings_want_them(tmp_path: Path) -> None:
    world = World([entry("a", globalUserId="g-1")], users={"g-1": User(True, True)})
    assert world.judge(tmp_path) == {"a": []}
    assert world.asked_users == set()
    world.lookups = "always"
    assert world.judge(tmp_path) == {"a": ["BLOCKED"]}


def test_records_that_the_settings_want_are_not_done_without(tmp_path: Path) -> None:
    world = World([entry("a", globalUserId="g-1")], lookups="always")
    with pytest.raises(TransientFailure):
        world.judge(tmp_path)


def test_a_service_without_a_record_of_any_of_many_fans_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "ROWS", 8)
    demanding = closed(eligibility={"requireVerifiedPhone": True})
    # Entries of one fan say no more than one of them.
    few = [entry(f"e{n}", globalUserId=f"g-{n % MOST_UNKNOWN}") for n in range(MOST_UNKNOWN + 5)]
    judged = World(few, users={}).judge(tmp_path, demanding)
    assert {codes[0] for codes in judged.values()} == {"PHONE_NOT_VERIFIED"}
    many = [entry(f"e{n}", globalUserId=f"g-{n}") for n in range(MOST_UNKNOWN + 1)]
    with pytest.raises(TransientFailure, match="service-user: it has no record of any of more than 20"):
        World(many, users={}).judge(tmp_path, demanding)
    known = World(many, users={"g-20": User(True, False)}).judge(tmp_path, demanding)
    assert [name for name, codes in known.items() if not codes] == ["e20"]
    assert len(World(many, users={}).judge(tmp_path)) == len(many), "no record was required"


def test_the_records_region_takes_precedence_over_the_entrys(tmp_path: Path) -> None:
    users = {"g-1": User(True, False, region="de"), "g-2": User(True, False, region="FR")}
    entries = [
        entry("german", globalUserId="g-1"),
        entry("french", globalUserId="g-2", attributes={"region": "DE"}),
        entry("own", globalUserId="g-3", attributes={"region": "DE"}),
    ]
    world = World(entries, users=users)
    assert world.judge(tmp_path, closed(eligibility={"regions": ["DE"]})) == {
        "german": [],
        "french": ["REGION"],
        "own": [],
    }
    assert world.asked_users == {"g-1", "g-2", "g-3"}


def test_removed_entries_are_not_judged(tmp_path: Path) -> None:
    gone = {"campaignId": "summer", "entryId": "gone"}
    assert World([gone, entry("a")]).judge(tmp_path) == {"a": []}


def test_an_entry_whose_newer_state_is_refused_is_marked_for_the_draw(tmp_path: Path) -> None:
    world = World([entry("a"), entry("b"), entry("c")])
    # The replica of this world holds everything under the lowest order.
    world.refused = {"b": {Order("2026-01-11T00:00:00.000Z", 2, "")}, "c": {Order()}}
    world.judge(tmp_path)
    assert {each.entry_id: each.is_rejected for each in read_judged(tmp_path)} == {
        "a": False,
        "b": True,
        "c": False,
    }
    assert world.tally is not None and world.tally.rejected == 1
    assert "REJECTED" in world.tally.notes[0]


def test_the_numbers_add_up_by_reason_market_and_day_and_hold_nobodys_data(tmp_path: Path) -> None:
    entries = [
        entry("a", day=3, markets=["berlin", "paris"]),
        entry("b", day=4, email="a@example.com"),
        entry("c", day=4, email="no-mail", lastName=None),
        entry("d", day=4, markets=["atlantis"]),
    ]
    world = World(entries)
    world.judge(tmp_path)
    judgement = world.tally.judgement(tmp_path)
    facts = judgement.facts
    assert (facts["entries"], facts["eligible"], facts["ineligible"]) == (4, 2, 2)
    assert facts["primaryReasons"] == {"MISSING_FIELD": 1, "ALREADY_ENTERED": 1}
    assert facts["failedRules"] == {"MISSING_FIELD": 1, "INVALID_EMAIL": 1, "ALREADY_ENTERED": 1}
    assert facts["markets"] == {
        "berlin": {"ELIGIBLE": 1, "ALREADY_ENTERED": 1, "MISSING_FIELD": 1},
        "paris": {"ELIGIBLE": 1},
        "–": {"ELIGIBLE": 1},
    }
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert "2026-01-04" in page and "ALREADY_ENTERED" in page
    shown = page + "".join(judgement.markdown.values())
    assert "a@example.com" not in shown and "Łukasz" not in shown
    assert {"overview", "plot_markets", "plot_days"} == set(judgement.markdown)


def test_a_campaign_without_entries_has_a_report(tmp_path: Path) -> None:
    world = World()
    assert world.judge(tmp_path) == {}
    assert world.tally.judgement(tmp_path).facts["entries"] == 0


UNDATED = {"createdAt": None}
_people = st.lists(
    st.tuples(
        # None: without a time of its own. The 31st is after the closing.
        st.sampled_from([None, 1, 2, 3, 31]),
        st.sampled_from(["x@example.com", "X@example.com", "y@example.com", "no mail"]),
        st.sampled_from([None, "g-1", "g-2"]),
        st.sampled_from([None, "flat-1", "flat-2"]),
    ),
    max_size=12,
)


@given(people=_people, rows=st.integers(1, 5))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_out_of_core_and_one_by_one_come_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, people: list[tuple[int | None, str, str, str]], rows: int
) -> None:
    """However the entries are cut into batches."""
    monkeypatch.setattr(staging, "ROWS", rows)
    monkeypatch.setattr(judging, "ROWS", rows + 1)
    of = closed(closesAt="2026-01-31T00:00:00.000Z", eligibility={"maxPerUnit": 1})
    entries = [
        entry(f"e{number}", email=mail, globalUserId=user, unit=unit, **({"day": day} if day else UNDATED))
        for number, (day, mail, user, unit) in enumerate(people)
    ]
    times = {each["entryId"]: each.get("createdAt", "") for each in entries}
    subjects = {
        each["entryId"]: subject_of(
            each, entry_id=each["entryId"], created_at=times[each["entryId"]] or of.opens_at
        )
        for each in entries
    }

    def judged(subject: Subject, before: list[Subject]) -> list[str]:
        duplicates = frozenset(
            kind
            for kind, value in subject.identities.items()
            if any(other.identities.get(kind) == value for other in before)
        )
        household = sum(other.unit is not None and other.unit == subject.unit for other in before)
        facts = Facts(
            Known(of, FactSource.DATABASE),
            Known({}, FactSource.REQUEST),
            Known(duplicates, FactSource.DATABASE),
            Known(household, FactSource.DATABASE),
            Known(None, FactSource.REQUEST),
        )
        found = judge(subject, facts, AsOf(seconds(AS_OF) or 0.0, AS_OF))
        return [reason.code for reason in found.reasons]

    def place(name: str) -> tuple[bool, str, str]:
        return not times[name], times[name], name

    counting = {name: subject for name, subject in subjects.items() if not judged(subject, [])}
    expected = {
        name: judged(
            subject,
            [other for other_name, other in counting.items() if place(other_name) < place(name)],
        )
        for name, subject in subjects.items()
    }
    assert World(entries).judge(tmp_path, of) == expected


def mail_domains(folder: Path) -> Counter[str]:
    return Counter(each.mail_domain for each in read_judged(folder))


def test_a_mail_domain_of_few_or_of_a_small_share_is_kept_in_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_DOMAINS", _scaled(staging._DOMAINS, 1_000, 10, 0.01, 0.2))
    many = [entry(f"m{n}", email=f"m{n}@Münster.example") for n in range(60)]
    few = [entry(f"f{n}", email=f"f{n}@planted-family.example") for n in range(9)]
    enough = [entry(f"s{n}", email=f"s{n}@planted-share.example") for n in range(12)]
    odd = [entry("x", email="no address"), entry("y", email='"a@planted"@B.example')]
    World([*many, *few, *enough, *odd]).judge(tmp_path)
    assert mail_domains(tmp_path) == {"xn--mnster-3ya.example": 60, OTHER_DOMAINS: 23}
    assert b"planted" not in (tmp_path / "judged.parquet").read_bytes()


def test_a_domain_is_kept_for_at_least_a_thousand_entrants_and_one_percent(tmp_path: Path) -> None:
    made = [entry(f"a{n}", email=f"a{n}@big.example") for n in range(DOMAIN_ENTRANTS)]
    made += [entry(f"b{n}", email=f"b{n}@less.example") for n in range(DOMAIN_ENTRANTS - 1)]
    World(made).judge(tmp_path)
    assert mail_domains(tmp_path) == {"big.example": DOMAIN_ENTRANTS, OTHER_DOMAINS: DOMAIN_ENTRANTS - 1}


def _scaled(query: str, entrants: int, few: int, share: float, large: float) -> str:
    assert f">= {entrants} " in query and f">= {share} " in query
    return query.replace(f">= {entrants} ", f">= {few} ").replace(f">= {share} ", f">= {large} ")


def test_a_report_shows_reasons_writes_a_page_and_decides_nothing(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runtime.campaigns.create(closed())
    runtime.database["entries"].insert_many(
        {**entry(name, email="fan@example.com"), "_id": f"summer:{name}", "_replication": {}}
        for name in ("a", "b")
    )
    typed = Typed(runtime, monkeypatch, capfd)
    page = tmp_path / "report.html"
    answer = typed("eligibility", "report", "summer", "--page", str(page), "--format", "json")
    assert answer.code == 0
    assert answer.document["primaryReasons"] == {"ALREADY_ENTERED": 1}
    assert "ALREADY_ENTERED" in page.read_text(encoding="utf-8")
    assert "fan@example.com" not in answer.stdout + answer.stderr + page.read_text(encoding="utf-8")
    text = typed("eligibility", "report", "summer")
    words = text.stdout.replace("│", " ").split()
    assert words[words.index("entries") :][:4] == ["entries", "2", "eligible", "1"], text.stdout
    assert "2026-01-10" in words
    assert "<h2>Reasons</h2>" in page.read_text(encoding="utf-8")
    runtime.database["entries"].delete_one({"_id": "summer:b"})
    assert typed("eligibility", "report", "summer", "--page", str(page)).code == 0
    assert "Why not" not in page.read_text(encoding="utf-8"), "a table without a line"
    assert runtime.draws.get("summer") is None
    nowhere = typed("eligibility", "report", "winter", "--page", str(tmp_path / "none" / "report.html"))
    assert nowhere.code == 2 and "there is no folder" in nowhere.stderr, "said before anything is looked for"
    unknown = typed("eligibility", "report", "winter")
    assert unknown.code == 2 and "campaign list" in unknown.stderr
