"""Which material is in use: read from its places, and chosen by what the brokers take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from regworkers_core.adapters.kafka.security import Answer, Credentials, KafkaSecurity, pem_blocks
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.settings import KafkaSettings
from tests.support.certificates import Authority, Pair
from tests.support.in_memory import MemorySecrets

ROOT = Authority()
GOOD, BETTER, BAD = ROOT.client("good"), ROOT.client("better"), ROOT.client("bad")


class Brokers:
    """Take some certificates and reject all others, or are unavailable."""

    def __init__(self, *pairs: Pair) -> None:
        self.taken = {pair.certificate for pair in pairs}
        self.down = False
        self.tried: list[str] = []

    def attempt(self, options: Mapping[str, str]) -> tuple[Answer, str]:
        shown = options["ssl.certificate.pem"]
        self.tried.append(shown)
        if not self.down and shown in self.taken:
            return Answer.CONNECTED, ""
        return Answer.SILENCE, "the brokers hang up on it"


def security(secrets: MemorySecrets | None = None, **kafka: Any) -> KafkaSecurity:
    store: Any = secrets or MemorySecrets()
    return KafkaSecurity(KafkaSettings.model_validate(kafka), lambda: store)


def stored(*pairs: Pair) -> MemorySecrets:
    return MemorySecrets(client=[pair.bundle for pair in pairs])


def credentials(secrets: MemorySecrets, brokers: Brokers, **options: Any) -> Credentials:
    return Credentials(
        security(secrets, tls={"certificate_secret": "client"}), brokers.attempt, check_seconds=60, **options
    )


def shown(found: Any) -> str:
    return str(found.options["ssl.certificate.pem"])


# Places


def test_certificate_key_and_ca_come_from_the_secret_store_and_are_librdkafkas_settings() -> None:
    secrets = MemorySecrets(cert=[GOOD.certificate], key=[GOOD.key], ca=[ROOT.pem])
    found = security(secrets, tls={"certificateSecret": "cert", "keySecret": "key", "caSecret": "ca"})
    assert found.options(found.material()) == {
        "ssl.certificate.pem": GOOD.certificate,
        "ssl.key.pem": GOOD.key,
        "ssl.ca.pem": ROOT.pem,
        "security.protocol": "ssl",
    }


def test_a_key_in_the_text_of_the_certificate_is_its_key() -> None:
    chain = Authority("Issuing", ROOT).client()
    found = security(tls={"certificate": chain.bundle, "keySecret": "ignored"}).material()
    assert found.certificate == chain.certificate + chain.chain and found.key == chain.key


def test_the_text_goes_before_a_file_and_a_file_before_a_secret(tmp_path: Path) -> None:
    (tmp_path / "client.pem").write_text(BETTER.bundle)
    tls = {"certificateSecret": "client", "certificateFile": str(tmp_path / "client.pem")}
    assert security(stored(BAD), tls=tls).material().certificate == BETTER.certificate
    assert (
        security(stored(BAD), tls={**tls, "certificate": GOOD.bundle}).material().certificate
        == GOOD.certificate
    )
    assert security(stored(BAD), tls={**tls, "certificateFile": ""}).material().certificate == BAD.certificate


def test_other_security_settings_are_passed_through_and_go_before_ours() -> None:
    options = {
        "security.protocol": "sasl_ssl",
        "sasl.password": "hidden",
        "ssl.key.password": "open sesame",
        "ssl.ca.location": "probe",
    }
    found = security(stored(GOOD), tls={"certificateSecret": "client"}, options=options)
    made = found.options(found.material())
    assert made.items() >= options.items() and "ssl.ca.pem" not in made
    assert found.material().key_password == "open sesame"


def test_librdkafkas_own_places_are_read_as_well(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text(GOOD.certificate)
    options = {"ssl.certificate.location": str(tmp_path / "c.pem"), "ssl.key.pem": GOOD.key}
    found = security(options=options)
    assert found.may_change and found.material().certificate == GOOD.certificate
    assert "ssl.certificate.location" not in found.options(found.material())


def test_without_any_of_it_nothing_is_added() -> None:
    found = security()
    assert found.options(found.material()) == {} and not found.shows_certificate and not found.may_change


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        (MemorySecrets(), "does not exist"),
        (MemorySecrets(client=["nonsense"]), "no certificate in PEM"),
        (MemorySecrets(client=[GOOD.certificate]), "no private key"),
    ],
)
def test_missing_material_is_reported_with_its_place(secrets: MemorySecrets, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        security(secrets, tls={"certificateSecret": "client"}).material()
    assert "client" in str(caught.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.pem"):
        security(tls={"certificateFile": str(tmp_path / "nowhere.pem")}).material()


def test_a_key_without_a_certificate_is_refused_with_the_settings() -> None:
    with pytest.raises(ValidationError, match="no certificate"):
        security(tls={"keySecret": "alone"})
    security(tls={"keySecret": "k"}, options={"ssl.certificate.pem": GOOD.certificate})


def test_fingerprints_tell_materials_apart_and_nothing_of_them() -> None:
    first, second = (
        security(stored(pair), tls={"certificateSecret": "client"}).material() for pair in (GOOD, BAD)
    )
    assert first.fingerprint != second.fingerprint
    assert (
        first.fingerprint
        == security(stored(GOOD), tls={"certificateSecret": "client"}).material().fingerprint
    )
    assert GOOD.key.splitlines()[1] not in repr(first) + first.fingerprint


def test_blocks_of_pem_are_found_between_anything() -> None:
    text = f"subject=x\r\n{GOOD.key}junk{GOOD.certificate.replace(chr(10), chr(13) + chr(10))}"
    assert pem_blocks(text, "PRIVATE KEY") == GOOD.key
    assert "BEGIN CERTIFICATE" in pem_blocks(text, "CERTIFICATE") and "KEY" not in pem_blocks(
        text, "CERTIFICATE"
    )


# Choice


def test_what_never_changes_is_taken_without_asking_the_brokers() -> None:
    brokers = Brokers()
    found = Credentials(security(tls={"certificate": GOOD.bundle}), brokers.attempt, check_seconds=60)
    assert shown(found.accepted()) == GOOD.certificate and brokers.tried == []


def test_a_renewal_that_the_brokers_take_is_taken_up() -> None:
    secrets, brokers = stored(GOOD), Brokers(GOOD, BETTER)
    found = credentials(secrets, brokers)
    assert shown(found.accepted()) == GOOD.certificate
    secrets.put("client", BETTER.bundle, description="")
    assert shown(found.accepted()) == GOOD.certificate, "only a check reads"
    assert shown(found.check()) == BETTER.certificate and found.refused is None


def test_what_is_unchanged_is_not_tried_again() -> None:
    brokers = Brokers(GOOD)
    found = credentials(stored(GOOD), brokers)
    found.check()
    found.check()
    assert brokers.tried == [GOOD.certificate]


def test_a_renewal_that_the_brokers_refuse_is_reported_at_every_check_until_it_is_accepted() -> None:
    secrets, brokers = stored(GOOD), Brokers(GOOD, BETTER)
    found = credentials(secrets, brokers)
    reported: list[str | None] = []
    found.check()
    found.watcher = reported.append
    secrets.put("client", BAD.bundle, description="")
    assert shown(found.check()) == GOOD.certificate
    found.check()
    secrets.put("client", BETTER.bundle, description="")
    assert shown(found.check()) == BETTER.certificate
    assert reported == ["the brokers hang up on it", "the brokers hang up on it", None]


def test_a_process_that_starts_after_a_broken_renewal_uses_the_previous_version() -> None:
    found = credentials(stored(GOOD, BAD), Brokers(GOOD))
    assert shown(found.accepted()) == GOOD.certificate
    assert found.refused == "the brokers hang up on it"


def test_so_does_one_that_starts_while_the_secret_is_no_certificate() -> None:
    secrets = stored(GOOD)
    secrets.put("client", "nonsense", description="")
    found = credentials(secrets, Brokers(GOOD))
    assert shown(found.accepted()) == GOOD.certificate and "no certificate" in str(found.refused)


def test_in_an_outage_the_current_version_is_used_and_nothing_is_refused() -> None:
    brokers = Brokers(GOOD)
    brokers.down = True
    found = credentials(stored(GOOD, BAD), brokers)
    assert shown(found.accepted()) == BAD.certificate and found.refused is None
    brokers.down = False
    assert shown(found.check()) == GOOD.certificate, "once it is over, the next look decides"
    assert found.refused == "the brokers hang up on it"


def test_a_broken_renewal_in_an_outage_leaves_the_verified_one_in_use_also_afterwards() -> None:
    # Without a previous version, as with files: the verified one could not be read again.
    secrets, brokers = stored(GOOD), Brokers(GOOD)
    found = credentials(secrets, brokers)
    assert shown(found.check()) == GOOD.certificate
    secrets.stored.clear()
    secrets.put("client", BAD.bundle, description="")
    brokers.down = True
    assert shown(found.check()) == GOOD.certificate and found.refused is None
    brokers.down = False
    assert shown(found.check()) == GOOD.certificate and found.refused == "the brokers hang up on it"


def test_an_unavailable_secret_store_changes_nothing() -> None:
    secrets = stored(GOOD)
    found = credentials(secrets, Brokers(GOOD))
    found.accepted()
    secrets.gate.down = True
    assert shown(found.check()) == GOOD.certificate and found.refused is None


def test_at_the_start_an_unavailable_secret_store_is_transient() -> None:
    secrets = stored(GOOD)
    secrets.gate.down = True
    with pytest.raises(TransientFailure):
        credentials(secrets, Brokers(GOOD)).accepted()


def test_fresh_looks_when_the_last_look_is_long_enough_ago() -> None:
    now = [0.0]
    secrets = stored(GOOD)
    found = credentials(secrets, Brokers(GOOD, BETTER), monotonic=lambda: now[0])
    found.fresh()
    secrets.put("client", BETTER.bundle, description="")
    now[0] = 59.0
    assert shown(found.fresh()) == GOOD.certificate
    now[0] = 60.0
    assert shown(found.fresh()) == BETTER.certificate


def test_two_secrets_of_which_one_is_written_yet_leave_the_pair_before_in_use() -> None:
    secrets = MemorySecrets(cert=[GOOD.certificate], key=[GOOD.key])

    def attempt(options: Mapping[str, str]) -> tuple[Answer, str]:
        pairs = {pair.certificate: pair.key for pair in (GOOD, BETTER)}
        fits = pairs[options["ssl.certificate.pem"]] == options["ssl.key.pem"]
        return (Answer.CONNECTED, "") if fits else (Answer.REFUSED, "the key does not belong to it")

    tls = {"certificateSecret": "cert", "keySecret": "key"}
    found = Credentials(security(secrets, tls=tls), attempt, check_seconds=60)
    found.check()
    secrets.put("key", BETTER.key, description="")
    assert found.check().options["ssl.key.pem"] == GOOD.key
    secrets.put("cert", BETTER.certificate, description="")
    assert shown(found.check()) == BETTER.certificate and found.refused is None
