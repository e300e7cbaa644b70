"""`regworkers draw log|log-key|code-proof`, `regworkers witness`, and the settings of the log."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from fairdraw.log.leaves import Kind
from fairdraw.log.note import COSIGNATURE, VerifierKey
from fairdraw.log.place import at_place
from fairdraw.maths.files import sha256_hex
from regworkers_core.cli.main import build
from regworkers_core.domain.reasons import UsageError
from regworkers_core.runtime import Runtime
from regworkers_core.selection.public.public_log import NotWitnessed, PublicLog
from regworkers_core.selection.public.witnesses import Witnesses
from regworkers_core.settings import Settings
from tests.fairdraw.log.test_follow import Place, manifest, opened, witnessed
from tests.selection.public.fakes import ORIGIN, cosigner, hash_of, log_on, witnesses
from tests.selection.public.test_public_log import Cosigns
from tests.support.terminal import Answer, regworkers


def here(*words: str) -> Answer:
    return regworkers(None, "draw", *words)


@pytest.fixture
def place() -> Place:
    made = Place()
    made.commit(manifest())
    made.result()
    return made


def copied(place: Place, folder: Path) -> Path:
    for key, data in place.bucket.stored.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)
    return folder


def test_a_folder_is_verified_without_settings(place: Place, tmp_path: Path) -> None:
    answer = here("log", "summer", "--from", str(copied(place, tmp_path)))
    assert answer.code == 0
    for text in ("the log holds together", "no witness", "as the operator gave them", "manifest", "result"):
        assert text in answer.stdout
    document = here("log", "--from", str(tmp_path), "--format", "json").document
    assert (document["size"], document["findings"], document["waiting"]) == (2, [], 0)
    assert [leaf["kind"] for leaf in document["leaves"]] == ["manifest", "result"]
    assert document["remarks"] == [
        "summer: no leaf says when it opened, for which event and with which terms"
    ]


def test_campaigns_without_a_result_are_listed_and_not_said_to_be_accounted_for(
    place: Place, tmp_path: Path
) -> None:
    place.open(opened("winter", closes=9e9))
    answer = here("log", "--from", str(copied(place, tmp_path)))
    assert answer.code == 0 and "is accounted for" not in answer.stdout
    line = "winter (Winter), opened at 2026-09-21T14:13:20.000Z: no result"
    assert line in answer.stdout and line in here("log", "summer", "--from", str(tmp_path)).stdout
    assert here("log", "--from", str(tmp_path), "--format", "json").document["withoutResult"] == [
        {"campaignId": "winter", "name": "Winter", "at": "2026-09-21T14:13:20.000Z", "annulled": False}
    ]
    whole = Place()
    whole.open(opened())
    whole.commit(manifest())
    whole.result()
    assert (
        "every draw in it is accounted for"
        in here("log", "--from", str(copied(whole, tmp_path / "w"))).stdout
    )


def test_an_abandoned_draw_ends_with_exit_code_1(place: Place, tmp_path: Path) -> None:
    # Its leaf is of September 2026.
    place.commit(manifest("winter"), "winter")
    answer = here("log", "--from", str(copied(place, tmp_path)))
    assert answer.code == 1
    assert "FINDING: winter, phase 1: neither a result nor an annulment" in answer.stdout


def test_the_checkpoint_of_the_last_time_is_kept_and_compared(place: Place, tmp_path: Path) -> None:
    folder, kept = copied(place, tmp_path / "site"), tmp_path / "kept"
    assert here("log", "--from", str(folder), "--checkpoint", str(kept)).code == 0
    first = kept.read_bytes()
    place.leaf(Kind.NOTICE, place.put("notice.json", b"n"))
    assert here("log", "--from", str(copied(place, folder)), "--checkpoint", str(kept)).code == 0
    newer = kept.read_bytes()
    assert newer != first
    (folder / "log" / "checkpoint").write_bytes(first)
    answer = here("log", "--from", str(folder), "--checkpoint", str(kept))
    assert (answer.code, kept.read_bytes()) == (1, newer)
    assert "an old log is shown" in answer.stdout


def test_trusted_keys_replace_those_of_the_operator(place: Place, tmp_path: Path) -> None:
    folder, trust = copied(place, tmp_path / "site"), tmp_path / "trust.json"
    keys = {"beacon": {}, "log": [str(key) for key in place.log.verifier_keys()], "need": 0, "witnesses": []}
    trust.write_text(json.dumps(keys))
    assert "keys of your file" in here("log", "--from", str(folder), "--trust", str(trust)).stdout


@pytest.mark.parametrize("form", ["json", "policy"])
def test_a_witness_is_asked_at_the_address_of_the_trust_file(form: str, tmp_path: Path) -> None:
    place, other = witnessed()[0], witnessed()[0]
    for each in (place, other):
        each.secrets = place.secrets
        each.log = log_on(each.bucket, each.secrets, by=witnesses(Cosigns(), needed=1))
        each.leaf(Kind.CODES, hash_of("place" if each is place else "other"))
    site, monitor, trust = copied(place, tmp_path / "site"), tmp_path / "monitor", tmp_path / "trust"
    signed = monitor / sha256_hex(ORIGIN.encode()) / "checkpoint"
    signed.parent.mkdir(parents=True)
    [log], key = place.log.verifier_keys(), cosigner().verifier(COSIGNATURE)
    with served(monitor) as address:
        trust.write_text(
            json.dumps({"beacon": {}, "log": [str(log)], "need": 1, "witnesses": [f"{key} {address}"]})
            if form == "json"
            else f"log {log}\nwitness w {key} {address}\nquorum w\n"
        )
        words = ("log", "--from", str(site), "--trust", str(trust), "--format", "json")
        for shown, finding in ((place, False), (other, True)):
            signed.write_bytes(shown.read("log/checkpoint") or b"")
            document = here(*words).document
            assert [each["isFinding"] for each in document["asked"]] == [finding]
            split = [each for each in document["findings"] if "two people are shown two logs" in each]
            assert bool(split) is finding


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a web server of static files."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_an_address_is_verified_as_a_folder(place: Place, tmp_path: Path) -> None:
    with served(copied(place, tmp_path)) as address:
        answer = here("log", "--from", f"{address}/")
        assert at_place(address).read("log/none") is None
    assert answer.code == 0 and "2 leaves" in answer.stdout
    with pytest.raises(UsageError, match="ConnectionRefusedError"):
        at_place("http://127.0.0.1:9").read("log/checkpoint")


def test_an_address_that_does_not_answer_is_not_blamed_on_the_embedded_stack() -> None:
    answer = regworkers(None, "draw", "log", "--from", "http://127.0.0.1:9")
    assert answer.code == 2 and "http://127.0.0.1:9/log/keys.json: ConnectionRefusedError" in answer.stderr
    assert "embedded stack" not in answer.stderr and "is the address right" in answer.stderr


def test_missing_witnesses_lead_to_their_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_few(_place: str) -> None:
        raise NotWitnessed(1, 2, ["w2.example: status 404"])

    monkeypatch.setattr("fairdraw.commands.at_place", too_few)
    answer = regworkers(None, "draw", "log", "--from", "here")
    assert answer.code == 2 and "1 of 2 needed witnesses cosigned the log: w2.example" in answer.stderr
    assert "embedded stack" not in answer.stderr
    assert "ask their operators; the draw continues when it is run again" in answer.stderr


def test_one_leaf_waits_and_two_leaves_wait(place: Place, tmp_path: Path) -> None:
    def line() -> str:
        return here("log", "--from", str(copied(place, tmp_path))).stdout

    checkpoint = place.bucket.stored["log/checkpoint"]
    place.leaf(Kind.NOTICE, hash_of("n"))
    place.bucket.put_bytes("log/checkpoint", checkpoint)
    assert "1 leaf waits for witnesses" in line()
    place.leaf(Kind.CODES, hash_of("c"))
    place.bucket.put_bytes("log/checkpoint", checkpoint)
    assert "2 leaves wait for witnesses" in line()


def test_the_key_is_made_once_shown_and_changed_on_request(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runtime, "load", lambda: runtime)
    first = here("log-key", "--format", "json").document
    assert first["origin"] == f"{runtime.names.bucket}/log" and first["former"] == []
    assert here("log-key", "--format", "json").document == first
    PublicLog.of(runtime).append(Kind.RESULT, "summer", 1, hash_of("r"))
    dry = here("log-key", "--change")
    assert "nothing was changed: add --apply" in dry.stdout
    assert "--apply is for --change" in here("log-key", "--apply").stderr
    changed = here("log-key", "--change", "--apply", "--format", "json").document
    assert changed["former"] == [first["key"]] != [changed["key"]]
    assert "both keys sign until" in here("log-key", "--change", "--apply").stderr
    secret = runtime.secrets.get("log-key") or ""
    assert secret.split("+", 4)[4] not in json.dumps([first, changed]) + dry.stdout
    shown = here("log", "--format", "json").document
    assert [leaf["kind"] for leaf in shown["leaves"]] == ["result", "key"]
    assert [VerifierKey.parse(key).name for key in shown["keys"]] == [first["origin"]] * 2


def test_a_witness_says_what_is_wrong_with_its_options(tmp_path: Path) -> None:
    done = CliRunner().invoke(build("witness"), ["witness", "--folder", str(tmp_path), "--log", "no key"])
    assert isinstance(done.exception, UsageError)
    assert "verifier key is not <name>" in str(done.exception)


FIRST, SECOND = (
    {"url": f"https://w{each}.example/", "vkey": str(cosigner(each).verifier(COSIGNATURE))} for each in (1, 2)
)


def with_log(**log: Any) -> Runtime:
    return Runtime(Settings(selection={"log": log}))  # type: ignore[arg-type]


def test_the_witnesses_are_those_of_the_settings() -> None:
    asked = {**SECOND, "monitoringUrl": "https://w2.example/monitor/"}
    found = Witnesses.of(with_log(witnesses=[FIRST, asked], needed=2))
    keys = [cosigner(each).verifier(COSIGNATURE) for each in (1, 2)]
    assert (found.keys, found.needed) == (keys, 2)
    assert found.monitored == {keys[1]: "https://w2.example/monitor"}


def test_without_settings_there_is_none_and_none_is_needed() -> None:
    found = Witnesses.of(with_log())
    assert (found.keys, found.needed) == ([], 0)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ({"witnesses": [FIRST], "needed": 2}, "more than half of the 1 witnesses and at most all"),
        ({"witnesses": [FIRST, SECOND], "needed": 1}, "more than half of the 2 witnesses"),
        ({"witnesses": [FIRST, SECOND], "needed": 0}, "more than half of the 2 witnesses"),
        ({"needed": 1}, "more than half of the 0 witnesses"),
        ({"witnesses": [FIRST, {**SECOND, "vkey": FIRST["vkey"]}]}, "every witness once"),
        ({"needed": -1}, "greater than or equal to 0"),
        ({"origin": "a b"}, "should match pattern"),
    ],
)
def test_settings_that_cannot_hold_are_refused(log: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        with_log(**log)


def test_one_key_under_two_names_is_refused_with_both_names() -> None:
    key = cosigner(1).verifier(COSIGNATURE)
    other = replace(key, name="another.example/w")
    with pytest.raises(ValidationError, match=f"{key.name} and {other.name} have the same key"):
        with_log(witnesses=[FIRST, SECOND, {**SECOND, "vkey": str(other)}], needed=2)


@pytest.mark.parametrize(
    ("vkey", "message"),
    [
        ("no key", "is not <name>"),
        (str(cosigner().verifier()), "has type 0x01, not 0x04 or 0x06"),
    ],
)
def test_a_key_that_is_none_of_a_witness_names_the_setting(vkey: str, message: str) -> None:
    with pytest.raises(UsageError, match=r"selection\.log\.witnesses\[0\]\.vkey: ") as error:
        Witnesses.of(with_log(witnesses=[{"url": "https://w", "vkey": vkey}], needed=1))
    assert message in str(error.value)


def test_the_origin_is_that_of_the_settings_or_the_buckets_folder(runtime: Runtime) -> None:
    assert PublicLog.of(runtime).origin == f"{runtime.names.bucket}/log"
    named = Runtime(
        runtime.settings.model_copy(update={"selection": with_log(origin="a.example/log").settings.selection})
    )
    assert PublicLog.of(named).origin == "a.example/log"
