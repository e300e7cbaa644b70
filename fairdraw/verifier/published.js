// What the operator published beside the artefacts of a phase, as in maths/beside.py and proof/guarantee.py.

import { leadOf, QUICKNET_HASH, signedAt } from "./beacon.js";
import { canonicalText, parseCanonical, parseCanonicalList } from "./canonical.js";
import { drawError, fieldsOf, isAscii, isNotBlank, milliseconds, short, withCommas } from "./fields.js";
import { parseManifest } from "./manifest.js";
import { sha256Hex } from "./sha256.js";

const NOTICE_KEYS = [
  "asOf", "campaignId", "capacities", "committedAt", "phase", "publishedAt", "reason", "strikes",
];
const FINDING = /^[a-z][a-z_]{0,63}$/;
const anyText = () => true;
export const replacedName = (number) => `replaced-${number}.json`;

/** The texts of `accepted`, `notice` and `replaced` in a receipt, parsed; each keeps the hash of its file. */
export function parsePublished(path, document) {
  const fields = fieldsOf("receipt", path, document, ["accepted", "notice", "replaced"]);
  const parsed = (key, name, parse) =>
    fields.raw(key) === null ? null : parse(fields.text(key, anyText, `the text of ${name}`));
  const replaced = fields.list("replaced").map((text, at) => {
    const name = replacedName(at + 1);
    if (typeof text !== "string") fields.refuse("replaced", `the text of ${name} is needed`);
    return parseReplaced(text, name);
  });
  return {
    notice: parsed("notice", "notice.json", parseNotice),
    accepted: parsed("accepted", "accepted.json", parseAccepted),
    replaced,
  };
}

export function parseNotice(text) {
  const fields = fieldsOf("notice.json", "", parseCanonical(text, "notice.json"), NOTICE_KEYS);
  const seats = fields.nested("capacities");
  return {
    hash: sha256Hex(text),
    asOf: fields.time("asOf"),
    campaignId: fields.id("campaignId"),
    capacities: new Map(seats.names.map((market) => [market, seats.integer(market)])),
    committedAt: fields.time("committedAt"),
    phase: fields.integer("phase", 1),
    publishedAt: fields.time("publishedAt"),
    reason: fields.text("reason", anyText, "a text"),
    strikes: fields.integer("strikes"),
  };
}

export function parseReplaced(text, name) {
  const keys = ["committedAt", "manifest", "publishedAt", "replacedAt"];
  const fields = fieldsOf(name, "", parseCanonical(text, name), keys);
  fields.time("committedAt");
  const manifestText = fields.text("manifest", isAscii, "the text of a manifest");
  const publishedAt = fields.raw("publishedAt") === null ? null : fields.time("publishedAt");
  const replacedAt = fields.time("replacedAt");
  try {
    return { hash: sha256Hex(text), manifest: parseManifest(manifestText), publishedAt, replacedAt };
  } catch (error) {
    return fields.refuse("manifest", error.message);
  }
}

export function parseAccepted(text) {
  return parseCanonicalList(text, "accepted.json").map((document, at) => {
    const fields = fieldsOf("accepted.json", `[${at}]`, document, ["at", "finding", "reason"]);
    const finding = fields.text("finding", (name) => FINDING.test(name), "the name of a finding");
    return { finding, at: fields.time("at"), reason: fields.text("reason", isNotBlank, "a reason") };
  });
}

/** The text of annulled.json, parsed. */
export function parseAnnulled(text) {
  const keys = ["annulledAt", "campaignId", "manifestHash", "phase", "reason"];
  const fields = fieldsOf("annulled.json", "", parseCanonical(text, "annulled.json"), keys);
  const annulledAt = fields.time("annulledAt");
  const found = {
    hash: sha256Hex(text),
    annulledAt,
    campaignId: fields.id("campaignId"),
    manifestHash: fields.raw("manifestHash") === null ? null : fields.hash("manifestHash"),
    phase: fields.integer("phase", 1),
  };
  return { ...found, reason: fields.text("reason", isNotBlank, "a reason") };
}

/** Throw unless the annulment is about this manifest of its phase. */
export function checkAnnulled(annulled, manifest) {
  const { campaignId, phase, manifestHash } = annulled;
  if (campaignId !== manifest.campaignId || phase !== manifest.phase || manifestHash !== manifest.hash) {
    throw drawError(
      "annulled.json",
      `of campaign ${campaignId}, phase ${phase}, manifestHash ${manifestHash ?? "None"}: not this phase`,
    );
  }
}

/** Throw for the first contradiction to the manifest of the phase, which has `strikes` lines of strikes.txt (null: unknown). */
export function checkBeside(published, manifest, strikes = null) {
  const { notice, replaced } = published;
  if (replaced.length && manifest.phase > 1) {
    throw drawError(replacedName(1), "only the manifest of phase 1 may be replaced");
  }
  if (notice !== null) checkNotice(notice, manifest, strikes);
  replaced.forEach((each, at) => checkReplaced(each, manifest, replacedName(at + 1)));
}

function checkNotice(notice, manifest, strikes) {
  const due = {
    campaignId: manifest.campaignId,
    phase: manifest.phase,
    asOf: manifest.asOf,
    capacities: new Map(manifest.markets.map((market) => [market.marketId, market.capacity])),
    strikes: strikes ?? notice.strikes,
    reason: manifest.phase > 1 ? notice.reason : "",
  };
  for (const [name, wanted] of Object.entries(due)) {
    const found = notice[name];
    if (canonicalText(wanted) !== canonicalText(found)) {
      throw drawError("notice.json", `${name}: ${short(wanted)} by the manifest, found ${short(found)}`);
    }
  }
}

function checkReplaced(replaced, now, name) {
  const before = replaced.manifest;
  if (before.hash === now.hash) {
    throw drawError(name, "not another round of the beacon than that of manifest.json");
  }
  const source = new Map(before.document.get("seedSource")).set("round", now.source.round);
  if (canonicalText(new Map(before.document).set("seedSource", source)) !== canonicalText(now.document)) {
    throw drawError(name, "more than seedSource.round differs from manifest.json");
  }
}

/** One line for each statement of the operator about a phase. */
export function publishedLines(phase, published) {
  const { notice, replaced, accepted } = published;
  const lines = ["no notice of when its manifest became public"];
  if (notice !== null) {
    const reason = notice.reason ? `; reason: ${notice.reason}` : "";
    lines[0] = `committed ${notice.committedAt}, public ${notice.publishedAt}${reason}`;
  }
  replaced.forEach(({ manifest, publishedAt, replacedAt }, at) => {
    const when = publishedAt ? `public ${publishedAt}` : "never public";
    const which = `${replacedName(at + 1)}, manifest ${manifest.hash} with round ${manifest.source.round}`;
    lines.push(`${which}, ${when}, replaced ${replacedAt}`);
  });
  for (const each of accepted ?? []) lines.push(`accepted ${each.at}: ${each.finding}, because: ${each.reason}`);
  return lines.map((line) => `phase ${phase}: ${line}`);
}

/** What it guarantees that the randomness is this round of the chain, whose hash is `chainHash`. */
export function guaranteeOf(chain, chainHash, round, { notice, replaced }) {
  const at = signedAt(chain, round);
  const when = at ?? "a moment beyond all calendars";
  let text = `The randomness is round ${round} of `;
  if (chainHash === QUICKNET_HASH) {
    text += `the public beacon drand quicknet, signed at ${when} (UTC): before that moment`;
    text += ` no one, the operator included, could know it.${publicAt(at, notice)}`;
  } else {
    text += `the chain ${chain.beaconId}, signed at ${when} (UTC): not of the public beacon drand quicknet,`;
    text += " but a beacon of this machine: for trying out only. The holder of its key knew the randomness before. Or you know";
    text += ` whose chain ${chainHash} is, and trust them.`;
  }
  if (replaced.length) {
    text += ` The manifest took the place of ${replaced.length} earlier one(s) with another round, published with`;
    text += " their times.";
  }
  const again = replaced.filter((each) => {
    const signed = signedAt(chain, each.manifest.source.round);
    return signed !== null && each.replacedAt >= signed;
  }).length;
  if (again) {
    text +=
      ` ${again} of them had a round that was signed when it was replaced: the operator could know the result that` +
      " it gave, and ask for another one.";
  }
  return text;
}

// When the manifest became public, by the notice.
function publicAt(at, notice) {
  if (at === null || notice === null) {
    return (
      " When the manifest became public is not in these files: if its hash was public ten minutes before that" +
      " moment, it was fixed without knowing the randomness."
    );
  }
  const lead = milliseconds(at) - milliseconds(notice.publishedAt);
  if (lead >= leadOf(QUICKNET_HASH) * 1000) {
    return (
      ` By the operator's record the manifest was public at ${notice.publishedAt}, ${wholeSeconds(lead)} s before:` +
      " it was fixed without knowing the randomness."
    );
  }
  return (
    ` By the operator's record the manifest was public only at ${notice.publishedAt},` +
    ` ${wholeSeconds(Math.abs(lead))} s ${lead >= 0 ? "before" : "after"} that moment, where the` +
    " rule is at least 600 s before: that it was fixed without knowing the randomness shows only where its hash" +
    " was public elsewhere in time."
  );
}

/** Milliseconds as whole seconds with commas, halves to the even side, as Python writes them. */
function wholeSeconds(span) {
  const seconds = Math.floor(span / 1000);
  const rest = span % 1000;
  const up = rest > 500 || (rest === 500 && seconds % 2 === 1);
  return withCommas(seconds + (up ? 1 : 0));
}
