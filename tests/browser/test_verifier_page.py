"""The page that checks receipts, as a person meets it: from disk, on a phone and on a desktop, in light and dark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairdraw.maths.files import sha256_hex
from fairdraw.verifier import assemble
from fairdraw.verifier.assemble import verifier_page
from regworkers_core.settings import PROJECT_ROOT
from tests.browser.chromium import Tab
from tests.browser.conftest import Opened, shrink
from tests.browser.receipts import TRUST, receipt

pytestmark = [pytest.mark.slow, pytest.mark.browser]
AUDIT = Path(__file__).with_name("audit.js").read_text(encoding="utf-8")
PHONE, DESKTOP = 390, 1280
WIDTHS = pytest.mark.parametrize("width", [PHONE, DESKTOP])


def text(tab: Tab, selector: str) -> str:
    """The text that is shown: nothing of a hidden element."""
    found = f"document.querySelector({selector!r})"
    return str(tab.run(f"{found}?.checkVisibility() ? {found}.innerText : ''"))


def wait_for(tab: Tab, selector: str) -> None:
    """Until the element is shown."""
    tab.run(
        f"""new Promise((done) => {{
          const see = () => document.querySelector({selector!r}).checkVisibility() ? done() : setTimeout(see, 5);
          see();
        }})"""
    )


def unfold(tab: Tab) -> None:
    """Open the fold for auditors, which is filled then."""
    tab.run("document.getElementById('audit').open = true")
    wait_for(tab, "#steps li")


def states(tab: Tab) -> dict[str, str]:
    unfold(tab)
    return dict(
        tab.run(
            "[...document.querySelectorAll('#steps > li')].map((li) => [li.id.slice(5), li.dataset.state])"
        )
    )


def changed(**changes: Any) -> dict[str, Any]:
    """A winner's receipt with other values at the top."""
    return {**receipt("WINNER"), **changes}


@WIDTHS
@pytest.mark.parametrize("outcome", ["WINNER", "WAITLIST", "HOUSEHOLD_LIMIT", "STRUCK", "excluded"])
def test_a_receipt_is_checked_at_once_and_holds(
    opened: Opened, curves: None, outcome: str, width: int
) -> None:
    made = receipt(outcome)
    tab = opened(made, width=width, trust=TRUST)
    assert tab.verdict() == "holds"
    shown = text(tab, "#headline")
    assert shown == f"Selected: {made['market']}" if outcome == "WINNER" else "Selected" not in shown[:8]
    assert text(tab, "#where") == "Summer Nights", "the campaign by its name"
    found = states(tab)
    assert set(found.values()) == {"passed"}
    assert text(tab, "#summary").startswith(
        f"This receipt holds: each of {len(found)} steps was computed again"
    )
    assert list(found)[-2:] == ["log", "witnesses"] and "opened" in found
    assert ("strike-2" in found) is (outcome == "STRUCK") and ("result-2" in found) is (outcome != "excluded")
    assert made["ref"] in text(tab, "#facts")
    assert "Witness: witness.newspaper.example" in text(tab, "#keys")
    assert "the publisher of this page put into it" in text(tab, "#keys")


def test_without_a_trust_file_nothing_is_green_and_one_line_says_so(opened: Opened, curves: None) -> None:
    tab = opened(receipt("WINNER"))
    assert tab.verdict() == "incomplete" and set(states(tab).values()) == {"passed"}
    assert text(tab, "#headline").startswith("Selected: ")
    assert text(tab, "#summary").startswith("Everything fits together, by the keys that came with it")
    assert tab.run("document.getElementById('mark').className") == "mark none"
    assert "These keys are in the receipt itself" in text(tab, "#keys")
    assert "Whose keys these are" in text(tab, "#trust-list .act")


def test_the_result_comes_first_then_what_was_checked_then_what_is_left_to_trust(
    opened: Opened, curves: None
) -> None:
    tab = opened(receipt("WINNER"))
    tab.verdict()
    tops = [
        tab.run(f"document.querySelector('{each}').getBoundingClientRect().top")
        for each in ("#headline", "#where", "#summary", "#trust", "#keys", "#audit")
    ]
    assert tops == sorted(tops) and tops[3] < 844, "on the first screen of a phone"
    assert not tab.run("document.getElementById('audit').open"), "the table for auditors is one fold below"


def test_amber_is_only_where_the_reader_has_something_to_do(opened: Opened, curves: None) -> None:
    tab = opened(receipt("WINNER"))
    tab.verdict()
    amber = tab.run("getComputedStyle(document.documentElement).getPropertyValue('--open')")
    titles = tab.run(
        """((amber) => {
          const probe = document.createElement("i");
          probe.style.color = amber;
          document.body.append(probe);
          const wanted = getComputedStyle(probe).color;
          return [...document.querySelectorAll("body *")].filter((each) => each !== probe && each.checkVisibility() &&
            each.children.length === 0 && getComputedStyle(each).color === wanted).map((each) => each.textContent);
        })('"""
        + amber
        + "')"
    )
    assert titles == [
        "Whose keys these are",
        "That this is the draw you registered for",
        "You are drawn together with 1 other: is that right?",
        "This page may be forged: check elsewhere",
    ]


def test_every_step_shows_its_values_a_mark_in_words_and_two_sentences(opened: Opened, curves: None) -> None:
    tab = opened(receipt("WINNER"))
    tab.verdict()
    unfold(tab)
    tab.run("document.getElementById('open-all').click()")
    for name in states(tab):
        words = text(tab, f"#step-{name}")
        # The draw of this receipt had no list of registrations.
        assert ("Not applicable" if name == "registration" else "Passed") in words and "Details" in words, (
            name
        )
        fan, auditor, detail = tab.run(
            f"[...document.querySelectorAll('#step-{name} p')].map((each) => each.textContent)"
        )
        assert fan and auditor and (detail or name == "published"), name
    assert text(tab, "#step-key dd") and "key = the least SHA-256" in text(tab, "#step-key")


def test_a_receipt_that_was_changed_fails_and_the_page_leads_to_the_step(
    opened: Opened, curves: None
) -> None:
    tab = opened(changed(market="moon"))
    assert tab.verdict() == "fails" and text(tab, "#headline") == "This receipt does not hold"
    assert [name for name, state in states(tab).items() if state == "failed"] == ["stated"]
    assert text(tab, "#claimed") == "The receipt claims: Selected: moon"
    assert "Failed: The result at the top." in text(tab, "#summary")
    assert tab.run("document.getElementById('audit').open") and "moon" in text(tab, "#step-stated .detail")
    assert not tab.run("document.getElementById('trust').checkVisibility()")


def test_what_is_left_to_trust_depends_on_the_receipt(opened: Opened, curves: None) -> None:
    witnessed, alone = opened(receipt("WINNER"), trust=TRUST), opened(receipt("STRUCK", logged=False))
    assert witnessed.verdict() == "holds" and alone.verdict() == "incomplete"
    left = text(witnessed, "#trust-list")
    assert "Whose keys" not in left and "see the same draw" not in left and "removed" not in left
    left = text(alone, "#trust-list")
    assert (
        "When the list was fixed" in left and "see the same draw" in left and "Why you were removed" in left
    )
    assert "not everything could be checked" in text(alone, "#summary")
    for tab in (witnessed, alone):
        count = tab.run("document.querySelectorAll('#trust-list li').length")
        assert text(tab, "#trust-title") == f"What is left to trust: {count} things"


def test_a_receipt_that_does_not_show_when_witnesses_saw_the_terms_fails(
    opened: Opened, curves: None
) -> None:
    log = receipt("WINNER")["log"]
    tab = opened(changed(log={**log, "kept": []}))
    assert tab.verdict() == "fails" and states(tab)["witnesses"] == "failed"


@pytest.mark.parametrize(
    ("known", "verdict", "said"),
    [
        (
            0,
            "holds",
            "Since then the organiser has changed:\n(1) name: Summer Nights, before Summer Nights 2026.",
        ),
        (1, "holds", "nothing has changed since"),
        (None, "fails", "This is the fingerprint of another campaign"),
    ],
)
def test_the_fingerprint_from_the_confirmation_says_whether_it_is_that_campaign_and_what_changed(
    opened: Opened, curves: None, known: int | None, verdict: str, said: str
) -> None:
    made = receipt("WINNER")
    code = "ab" * 32 if known is None else sha256_hex(made["opened"][known].encode())
    tab = opened(made, trust=TRUST)
    assert tab.verdict() == "holds"
    for typed in ("no code", f" {code.upper()} "):
        tab.run(f"document.getElementById('known').value = '{typed}'")
        tab.run("document.getElementById('check-known').click()")
        wait_for(tab, "#compared")
        if typed == "no code":
            assert "exactly 64 characters" in text(tab, "#compared")
            tab.run(
                "delete document.documentElement.dataset.verdict; document.getElementById('compared').hidden = true"
            )
    assert tab.verdict() == verdict and said in text(tab, "#compared")
    assert ("registered for" in text(tab, "#trust-list")) is False


def test_an_annulled_draw_is_called_that_although_the_receipt_holds(opened: Opened, curves: None) -> None:
    made = receipt("WINNER", logged=False)
    manifest = sha256_hex(made["phases"][-1]["manifest"].encode())
    annulled = {
        "annulledAt": "2026-11-26T08:00:00.000Z",
        "campaignId": "summer",
        "manifestHash": manifest,
        "phase": len(made["phases"]),
        "reason": "the wrong list <b>",
    }
    tab = opened({**made, "annulled": json.dumps(annulled, separators=(",", ":"))})
    assert tab.verdict() == "incomplete"
    assert text(tab, "#headline") == "This draw was annulled: its results do not count"
    assert tab.run("document.getElementById('mark').className") == "mark failed"
    assert "the wrong list <b>" in text(tab, "#facts") and "Selected: " in text(tab, "#facts")


def test_without_curves_the_signature_is_not_checked_and_links_lead_to_the_beacon(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "_CURVES", Path("none"))
    assemble._page.cache_clear()
    page = verifier_page(json.dumps(receipt("WINNER")).encode())
    assemble._page.cache_clear()
    tab = opened(None, page=page)
    assert tab.verdict() == "incomplete"
    found = states(tab)
    assert {name for name, state in found.items() if state != "passed"} == {"randomness", "log", "witnesses"}
    assert "Not checked" in text(tab, "#step-randomness")
    links = tab.run("[...document.querySelectorAll('#step-randomness a')].map((each) => each.href)")
    assert len(links) == 3 and all(each.endswith("84e971/public/1000") for each in links)
    assert json.loads(receipt("WINNER")["seed"])["signature"] in text(tab, "#step-randomness")


def test_without_a_named_witness_no_tick_says_that_witnesses_signed(opened: Opened) -> None:
    made = receipt("WINNER")
    made["log"]["keys"].update(need=0, witnesses=[])
    tab = opened(made)
    tab.verdict()
    unfold(tab)
    shown = text(tab, "#step-witnesses")
    assert "Not checked" in shown and "Passed" not in shown and "✓" not in shown


def test_a_mark_of_the_byte_order_is_read_and_other_white_space_is_not(
    opened: Opened, tmp_path: Path
) -> None:
    own = json.dumps(receipt("WINNER", logged=False)).encode()
    for data, read in (
        (b"\xef\xbb\xbf" + own, True),
        (b"\xef\xbb\xbf" * 2 + own, False),
        (b"\xc2\xa0" + own, False),
        (own + b"\x0b", False),
    ):
        tab = opened(None)
        wait_for(tab, "#input")
        (tmp_path / "receipt.json").write_bytes(data)
        tab.choose("#file", tmp_path / "receipt.json")
        if read:
            assert tab.verdict() == "incomplete"
        else:
            wait_for(tab, "#refused")
            assert "This is no receipt or confirmation" in text(tab, "#refused")


def test_nothing_in_a_receipt_becomes_html(opened: Opened) -> None:
    evil = "<img src=x onerror=alert(1)><script>document.title='x'</script>"
    tab = opened(changed(market=evil, guarantee=evil, roundAt=7, ref=evil, outcome=evil))
    assert tab.verdict() == "fails"
    tab.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert "<img src=x" in text(tab, "body") and tab.run("document.images.length") == 0
    tab = opened({"kind": "draw", "version": []})
    assert tab.verdict() == "fails" and "not a receipt that this page can read" in text(tab, "#headline")
    for odd in ({"kind": {}, "version": []}, [], "x", 7, None):
        tab = opened(None, page=verifier_page(json.dumps(odd).encode()))
        wait_for(tab, "#refused")
        assert "no receipt or confirmation" in text(tab, "#refused")


def test_even_code_in_the_page_can_neither_load_nor_send_nor_add_a_script(opened: Opened) -> None:
    tab = opened(receipt("WINNER", logged=False))
    tab.verdict()
    for attempt in (
        "fetch('https://example.org/').then(() => 'done', () => 'refused')",
        "new Promise((end) => { const image = new Image(); image.onload = () => end('done');"
        " image.onerror = () => end('refused'); image.src = 'https://example.org/x.png'; })",
        "new Promise((end) => { const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
        " document.head.append(script); setTimeout(() => end(window.ran ? 'done' : 'refused')); })",
    ):
        assert tab.run(attempt) == "refused", attempt
    assert len(tab.errors) >= 3 and all("Content Security Policy" in each for each in tab.errors)
    # Chromium counts what it refused as asked for.
    tab.requests.clear()
    tab.errors.clear()


def test_without_a_receipt_the_page_takes_one_by_file_page_text_paste_and_drop(
    opened: Opened, curves: None, tmp_path: Path
) -> None:
    made = json.dumps(receipt("WAITLIST"), indent=2)
    (tmp_path / "r.json").write_text(made)
    (tmp_path / "r.html").write_bytes(verifier_page(made.encode()))
    tab = opened(None)
    wait_for(tab, "#input")
    assert text(tab, "#headline") == "Check a receipt of a draw" and text(tab, "#file-help")
    assert not tab.run("document.documentElement.dataset.verdict ?? ''")
    given = json.dumps(made)
    paste = f"const data = new DataTransfer(); data.setData('text', {given});"
    file = f"const data = new DataTransfer(); data.items.add(new File([{given}], 'r.json'));"
    for way in (
        lambda: tab.choose("#file", tmp_path / "r.json"),
        lambda: tab.choose("#file", tmp_path / "r.html"),
        lambda: tab.run(
            f"document.getElementById('text').value = {given}; document.getElementById('check-text').click()"
        ),
        lambda: tab.run(
            f"{{ {paste} document.dispatchEvent(new ClipboardEvent('paste', {{clipboardData: data}})) }}"
        ),
        lambda: tab.run(
            f"{{ {file} document.dispatchEvent(new DragEvent('drop', {{dataTransfer: data}})) }}"
        ),
    ):
        tab.run("delete document.documentElement.dataset.verdict")
        way()
        assert tab.verdict() == "incomplete"
        assert tab.run("document.activeElement.id") == "headline", "the focus is on the result"
        assert text(tab, "#headline") == "On the waiting list"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("photo.jpg", bytes(range(256)) * 40, "no text"),
        ("zeros.bin", bytes(1000), "no text"),
        ("large.json", b"[" + b" " * 50_000_000 + b"]", "51 MB"),
        ("other.json", b'{"name": "something else"}', "no receipt or confirmation"),
        ("list.json", b"[1, 2, 3]", "no receipt or confirmation"),
        ("number.json", b"7", "no receipt or confirmation"),
        ("null.json", b"null", "no receipt"),
        ("news.html", b"<!doctype html><h1>News</h1>", "no receipt in it"),
        ("half.json", b'{"kind": "draw", "vers', "use all of it"),
        ("empty.txt", b"", "empty"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_what_is_no_receipt_gets_a_friendly_sentence_and_no_verdict(
    opened: Opened, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    # Also after a receipt was checked: its verdict does not remain beside the sentence.
    tab = opened(receipt("WINNER"))
    tab.verdict()
    tab.choose("#file", tmp_path / name)
    wait_for(tab, "#refused")
    assert said in text(tab, "#refused") and tab.run("refused.getAttribute('role')") == "alert"
    assert tab.run("document.documentElement.dataset.verdict ?? ''") == "" and text(tab, "#steps") == ""


def test_a_trust_file_replaces_the_operators_keys_and_a_wrong_one_changes_nothing(
    opened: Opened, curves: None, tmp_path: Path
) -> None:
    (tmp_path / "trust.json").write_text(json.dumps(TRUST))
    policy = [
        f"log {TRUST['log'][0]}",
        *(f"witness w{at} {key}" for at, key in enumerate(TRUST["witnesses"])),
    ]
    (tmp_path / "policy.txt").write_text("\n".join([*policy, "group g 2 w0 w1 w2", "quorum g"]))
    (tmp_path / "wrong.json").write_text(json.dumps({**TRUST, "need": 4}))
    tab = opened(receipt("WINNER"))
    assert tab.verdict() == "incomplete"
    tab.choose("#trust-file", tmp_path / "wrong.json")
    wait_for(tab, "#trust-refused")
    assert "4 witnesses of 3 cannot be needed" in text(tab, "#trust-refused")
    for name in ("trust.json", "policy.txt"):
        tab.run("delete document.documentElement.dataset.verdict")
        tab.choose("#trust-file", tmp_path / name)
        assert tab.verdict() == "holds" and text(tab, "#trust-refused") == ""
        assert "the trust file that you chose" in text(tab, "#keys-lead")
        assert "from the trust file" in text(tab, "#key-list")


@WIDTHS
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_a_script_can_audit_of_wcag_aa_is_met(
    opened: Opened, curves: None, scheme: str, width: int
) -> None:
    pages = [
        receipt("WINNER"),
        changed(market="moon"),
        receipt("excluded", logged=False),
        {"kind": "draw"},
        None,
    ]
    for each in pages:
        tab = opened(each, width=width)
        tab.media(prefers_color_scheme=scheme)
        assert tab.run(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
        wait_for(tab, "#input")
        if each is not None:
            tab.verdict()
            unfold(tab)
        tab.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        assert tab.run(AUDIT) == []


def test_the_audit_finds_what_it_looks_for(opened: Opened) -> None:
    tab = opened(receipt("WINNER", logged=False))
    tab.verdict()
    unfold(tab)
    tab.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    for flaw, said in (
        ("document.querySelector('#summary').style.color = '#888'", "contrast 3."),
        ("document.querySelector('#facts').style.width = '400px'", "wider"),
        ("document.querySelector('label').textContent = ''", "no label"),
        ("document.querySelector('#steps .state').textContent = ''", "a mark without a word"),
        ("document.querySelector('h2').outerHTML = '<h4>x</h4>'", "heading out of order"),
    ):
        assert not [each for each in tab.run(AUDIT) if said in each]
        tab.run(flaw)
        assert [each for each in tab.run(AUDIT) if said in each], flaw


def test_at_200_percent_and_with_large_text_nothing_is_cut_off(opened: Opened, curves: None) -> None:
    tab = opened(receipt("WINNER"))
    tab.verdict()
    unfold(tab)
    tab.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    # 200 % of a window of 640; and text of double size on a phone.
    for width, size in ((320, "100%"), (PHONE, "200%")):
        tab.size(width, 740, mobile=True)
        tab.run(f"document.documentElement.style.fontSize = '{size}'")
        assert [each for each in tab.run(AUDIT) if "wider" in each or "sideways" in each] == []


def test_the_keyboard_reaches_everything_in_the_order_of_the_page_and_shows_where_it_is(
    opened: Opened, curves: None
) -> None:
    tab = opened(receipt("WINNER"), width=DESKTOP)
    tab.verdict()
    unfold(tab)
    reached = []
    for _ in range(60):
        tab.press("Tab", 9)
        where = tab.run(
            """(() => {
              const at = document.activeElement;
              const all = [...document.querySelectorAll("a, button, input, textarea, summary, pre")];
              return at === document.body ? null : [all.indexOf(at), getComputedStyle(at).outlineStyle, at.id];
            })()"""
        )
        if where is None:
            break
        reached.append(where)
    order = [number for number, _, _ in reached]
    assert order == sorted(order) and len(set(order)) == len(order) > 20
    assert {style for _, style, _ in reached} == {"solid"}, "the focus is visible"
    assert {"open-all", "known", "check-known", "trust-file", "file", "text", "check-text"} <= {
        each for _, _, each in reached
    }


def test_printed_it_has_every_detail_and_no_form(opened: Opened, curves: None) -> None:
    tab = opened(receipt("WINNER"), width=DESKTOP)
    tab.verdict()
    tab.media("print")
    tab.run("dispatchEvent(new Event('beforeprint'))")
    assert tab.run("[...document.querySelectorAll('#steps details')].every((each) => each.open)")
    assert not text(tab, "#input") and "key = the least SHA-256" in text(tab, "#steps")


def test_nothing_moves(opened: Opened) -> None:
    tab = opened(receipt("WINNER", logged=False))
    tab.verdict()
    moving = (
        "[...document.querySelectorAll('*')].filter((each) => { const style = getComputedStyle(each);"
        " return style.animationName !== 'none' || style.transitionDuration !== '0s'"
        " || style.scrollBehavior !== 'auto'; }).length"
    )
    assert tab.run(moving) == 0


def test_pictures_for_the_docs(
    opened: Opened, curves: None, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = PROJECT_ROOT / "docs" / "images" if request.config.getoption("--write") else tmp_path
    annulled = {
        "annulledAt": "2026-11-26T08:00:00.000Z",
        "campaignId": "summer",
        "manifestHash": None,
        "phase": 3,
        "reason": "the wrong list was frozen",
    }
    winner = receipt("WINNER")
    for name, made, width, scheme in (
        ("verifier-holds", winner, PHONE, "light"),
        ("verifier-holds-dark", winner, PHONE, "dark"),
        ("verifier-phone", winner, PHONE, "light"),
        ("verifier-phone-dark", winner, PHONE, "dark"),
        ("verifier-fails", changed(market="moon"), PHONE, "light"),
        ("verifier-fails-dark", changed(market="moon"), PHONE, "dark"),
        (
            "verifier-annulled",
            changed(annulled=json.dumps(annulled, separators=(",", ":")), log=None),
            PHONE,
            "light",
        ),
        ("verifier-desktop", receipt("STRUCK"), DESKTOP, "light"),
    ):
        tab = opened(made, width=width, trust=TRUST if "holds" in name else None)
        tab.media(prefers_color_scheme=scheme)
        tab.verdict()
        if width == DESKTOP:
            tab.size(1000, 1400)
        tab.picture(folder / f"{name}.png")
        shrink(folder / f"{name}.png")
        assert (folder / f"{name}.png").stat().st_size > 10_000
