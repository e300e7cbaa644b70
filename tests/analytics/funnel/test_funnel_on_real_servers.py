"""The funnel of a campaign on the real servers, from before its draw to the last message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regworkers_core.analytics.funnel import Funnel, make_funnel, publish_funnel, shown
from regworkers_core.runtime import Runtime
from regworkers_core.selection.drains import NOTIFICATIONS, SELECTIONS
from tests.selection.draw.world import CAMPAIGN, close_campaign, draw, ref_of
from tests.support.drains import replicate_all, run
from tests.support.entries import key, put, remove
from tests.support.typing_in import Typed

pytestmark = pytest.mark.slow

DAYS = ("2026-01-14", "2026-01-15")
# The first in another zone, where it is a day later already.
TIMES = ("2026-01-15T00:30:00+02:00", "2026-01-15T10:00:00.000Z")
ENTRIES = 12


def funnel_of(runtime: Runtime) -> Funnel:
    campaign = runtime.campaigns.require_id(CAMPAIGN)
    return make_funnel(runtime, campaign)


def stages(funnel: Funnel) -> list[int | None]:
    return list(funnel.as_dict()["stages"].values())


def remarks(funnel: Funnel) -> list[tuple[str, str]]:
    return [(remark.level, remark.text) for remark in funnel.remarks]


def registered(runtime: Runtime, number: int, **changes: Any) -> None:
    at = TIMES[number % 2]
    put(
        runtime,
        key(f"e{number}"),
        **{
            "ref": ref_of(number),
            "email": f"secret-{number}@example.com",
            "markets": ["berlin", "paris"] if number % 2 else ["paris", "atlantis"],
            "segments": ["loyal"] if number % 3 == 0 else [],
            "createdAt": at,
            "updatedAt": at,
            **changes,
        },
    )


def of(rows: list[dict[str, Any]], name: str) -> dict[str, list[int | None]]:
    return {row[name]: list(row.values())[1:] for row in rows}


@pytest.mark.usefixtures("pictures")
def test_a_campaign_is_followed_from_its_first_entry_to_the_last_message(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    close_campaign(runtime, entries=())
    empty = funnel_of(runtime)
    assert stages(empty) == [0, 0, None, None, None, None] and empty.adds_up
    assert "not yet" in shown(empty).html

    for number in range(ENTRIES):
        registered(runtime, number)
    funnel = funnel_of(runtime)
    assert stages(funnel) == [ENTRIES, 0, None, None, None, None]
    assert set(funnel.as_dict()["pending"].values()) == {"there is no draw yet"}
    assert remarks(funnel)[0] == (
        "warning",
        "12 entries not replicated yet; `regworkers reconcile --campaign summer` lists them",
    )

    replicate_all(runtime)
    steps = draw(runtime)
    steps.judge()
    assert set(funnel_of(runtime).pending.values()) == {"the draw has not frozen its pool yet"}
    steps.freeze()
    # One entry is registered after the evaluation, so it is not in the pool. Another is removed, so it is only there.
    registered(runtime, 90)
    remove(runtime, key("e0"))
    replicate_all(runtime)
    funnel = funnel_of(runtime)
    assert stages(funnel) == [ENTRIES, ENTRIES, ENTRIES, None, None, None]
    assert [text.partition(":")[0] for _, text in remarks(funnel)] == [
        "1 entry removed",
        "1 entry in the pool but no longer in the replica",
        "1 entry did not take part in the draw",
    ]
    assert funnel.adds_up

    for step in (steps.commit, steps.seed, steps.rank, steps.allocate, steps.report):
        step()
    funnel = funnel_of(runtime)
    assert stages(funnel) == [ENTRIES, ENTRIES, ENTRIES, 7, None, None]
    assert funnel.as_dict()["pending"] == dict.fromkeys(
        ("coded", "notified"), "the result is not published yet"
    )
    steps.publish(f"{CAMPAIGN}:1")
    assert funnel_of(runtime).as_dict()["pending"]["coded"] == "no winner has a code yet"

    run(runtime, SELECTIONS)
    assert stages(funnel_of(runtime))[3:] == [7, 7, None]
    run(runtime, NOTIFICATIONS)
    done = publish_funnel(runtime, funnel.campaign)
    document = done.funnel.as_dict()
    assert document["stages"] == dict(
        zip(document["stages"], [ENTRIES, ENTRIES, ENTRIES, 7, 7, 7], strict=True)
    )
    assert document["addsUp"] and not document["pending"]
    assert document["messagesSent"]["winner"] == 7

    by_day = of(document["days"], "day")
    assert set(by_day) == set(DAYS)
    assert (
        [sum(numbers) for numbers in zip(*by_day.values(), strict=True)]
        == [  # type: ignore[arg-type]
            ENTRIES,
            *list(document["stages"].values())[1:],
        ]
    )
    markets = of(document["markets"], "market")
    # Everybody wishes for Paris, each second one for Berlin, and what is no market of the campaign does not count.
    assert set(markets) == {"berlin", "paris"}
    assert markets["berlin"][2] == ENTRIES // 2 and markets["paris"][2] == ENTRIES
    assert (markets["berlin"][3], markets["paris"][3]) == (4, 3)
    assert of(document["segments"], "segment")["loyal"][2] == ENTRIES // 3

    page = runtime.objects.get_bytes(f"reports/{CAMPAIGN}/funnel.html").decode()
    assert done.where == f"s3://{runtime.names.bucket}/reports/{CAMPAIGN}/funnel.html"
    shown_text = page + str(done.shown.markdown) + str(document)
    assert not [word for word in ("secret-", "example.com", "Zoë", ref_of(1)) if word in shown_text]
    assert page.count("<img ") == 4 and 'src="http' not in page
    assert max(len(each) for each in done.shown.markdown.values()) < 90_000

    regworkers = Typed(runtime, monkeypatch, capsys)
    file = tmp_path / "funnel.html"
    shown_by = regworkers("report", "funnel", CAMPAIGN, "--page", str(file), "--format", "json")
    assert (shown_by.code, shown_by.document["stages"]["notified"]) == (0, 7)
    assert "Funnel: Summer" in file.read_text()
    assert "notified" in regworkers("report", "funnel", CAMPAIGN).stdout
    assert regworkers("report", "funnel", "nowhere").code == 2

    runtime.database["selections"].delete_many({"marketId": "paris"})
    funnel = funnel_of(runtime)
    assert not funnel.adds_up
    assert ("finding", "3 entries notified of a win but without a code") in remarks(funnel)
    assert regworkers("report", "funnel", CAMPAIGN, "--format", "json").code == 1
