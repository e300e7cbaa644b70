"""A receipt that its page checks in Chromium, slowed down to a sixth as a phone is: until the page's code is there, and
from then to the verdict what BLS signatures take, and all else.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from benchmarks.figures import spread
from fairdraw.verifier.assemble import has_signatures, verifier_page
from tests.browser.chromium import browser
from tests.browser.receipts import TRUST, receipt

_SLOWER = 6
# What the page calls of the curves, wrapped once they are there; and the moment of the verdict.
_WATCH = """{
  let pairings = 0, curves, there;
  const timed = (call) => (...values) => {
    const started = performance.now();
    try { return call(...values); } finally { pairings += performance.now() - started; }
  };
  const wrapped = ({ verify, hash, ...rest }) => ({ ...rest, verify: timed(verify), hash: timed(hash) });
  // A point in canonical form and of its group, which is checked before any pairing.
  const group = ({ Point }) => ({ Point: { fromBytes: timed((bytes) => {
    const point = Point.fromBytes(bytes);
    return Object.create(point, { assertValidity: { value: timed(() => point.assertValidity()) } });
  }) } });
  Object.defineProperty(globalThis, "curves", {
    configurable: true,
    get: () => curves,
    set({ bls12_381, ...others }) {
      there = performance.now();
      const [G1, G2] = [bls12_381.G1, bls12_381.G2].map(group);
      curves = { ...others, bls12_381: { G1, G2, shortSignatures: wrapped(bls12_381.shortSignatures) } };
    },
  });
  globalThis.checked = new Promise((done) => new MutationObserver(() => {
    const { verdict } = document.documentElement.dataset;
    if (verdict) done({ verdict, there, pairings, checked: performance.now() - there });
  }).observe(document, { attributes: true, subtree: true }));
}
"""


def measure(rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Milliseconds. Raises RuntimeError if the page has no curves, or says anything but that the receipt holds."""
    if not has_signatures():
        raise RuntimeError("this page cannot check signatures: run `make verifier` first")
    found = []
    with tempfile.TemporaryDirectory() as scratch, browser(Path(scratch)) as chromium:
        page = Path(scratch) / "receipt.html"
        page.write_bytes(verifier_page(orjson.dumps(receipt("WINNER")), orjson.dumps(TRUST)))
        for _ in range(rounds):
            tab = chromium.tab()
            tab.size(390, 844, scale=2, mobile=True)
            tab.call("Emulation.setCPUThrottlingRate", rate=_SLOWER)
            tab.call("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)
            tab.open(page)
            each = tab.run("checked")
            tab.close()
            if each["verdict"] != "holds":
                raise RuntimeError(f"the page says: {each['verdict']}")
            each["allElse"] = each["checked"] - each["pairings"]
            say(" ".join(f"{name} {each[name]:.0f} ms" for name in ("there", "pairings", "allElse")))
            found.append(each)
    return {
        "opening": spread(each["there"] for each in found),
        "pairings": spread(each["pairings"] for each in found),
        "allElse": spread(each["allElse"] for each in found),
    }
