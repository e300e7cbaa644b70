// The record of a campaign, opened.json and amended-<k>.json, as in maths/opened.py.

import { canonicalText, parseCanonical } from "./canonical.js";
import { drawError, fieldsOf, isNotBlank, isoTime, milliseconds, short } from "./fields.js";
import { marketsOf } from "./manifest.js";
import { sha256Hex } from "./sha256.js";

const OPENED_KEYS = [
  "campaignId", "caseless", "chain", "closesAt", "codeKey", "eligibility", "eventId", "issuerKeys", "markets", "name",
  "opensAt", "registration", "unitKeyHash", "waitlistSize", "winsPerUnit",
];
// A campaign is logged in time up to so long after its `opensAt`.
const IN_TIME_SECONDS = 600;
// No amendment changes these.
const FIXED_KEYS = ["campaignId", "chain", "eventId", "unitKeyHash", "caseless"];
const CODE_KEY = /^[0-9a-f]{192}$/;

export const openedName = (number) => (number ? `amended-${number}.json` : "opened.json");

/** The texts of opened.json, amended-1.json, ... in their order, parsed. Throws for one that does not follow. */
export function parseOpened(texts) {
  const found = [];
  texts.forEach((text, number) => {
    const name = openedName(number);
    const now = parseRecord(text, name, number > 0);
    if (number) checkAmended(now, found.at(-1), name);
    found.push(now);
  });
  return found;
}

function parseRecord(text, name, amended) {
  const keys = amended ? [...OPENED_KEYS, "previous", "reason"] : OPENED_KEYS;
  const fields = fieldsOf(name, "", parseCanonical(text, name), keys);
  const [opensAt, closesAt] = [fields.time("opensAt"), fields.time("closesAt")];
  if (opensAt >= closesAt) {
    fields.refuse("closesAt", `a time after opensAt (${opensAt}) is needed, found ${closesAt}`);
  }
  const orNull = (key, read) => (fields.raw(key) === null ? null : read(key));
  return {
    hash: sha256Hex(text),
    opensAt,
    closesAt,
    campaignId: fields.id("campaignId"),
    caseless: fields.flag("caseless"),
    chain: fields.hash("chain"),
    codeKey: orNull("codeKey", (key) => fields.text(key, (value) => CODE_KEY.test(value), "192 lower-case hex digits")),
    eligibility: fields.object("eligibility"),
    eventId: orNull("eventId", fields.id),
    issuerKeys: issuerKeysOf(fields),
    markets: marketsOf(fields),
    name: fields.text("name", isNotBlank, "a text"),
    registration: fields.flag("registration"),
    unitKeyHash: fields.hash("unitKeyHash"),
    waitlistSize: orNull("waitlistSize", fields.integer),
    winsPerUnit: fields.integer("winsPerUnit", 1),
    previous: amended ? fields.hash("previous") : null,
    reason: amended ? fields.text("reason", isNotBlank, "a reason") : null,
  };
}

function issuerKeysOf(fields) {
  const keys = Array.from(fields.objects("issuerKeys", ["id", "key"]), (each) => [each.id("id"), each.hash("key")]);
  keys.forEach(([after], at) => {
    const [before] = keys[at - 1] ?? [""];
    if (before >= after) fields.refuse("issuerKeys", `ids must increase strictly: ${after} follows ${before}`);
  });
  return keys;
}

function checkAmended(now, before, name) {
  const refuse = (message) => {
    throw drawError(name, message);
  };
  if (now.previous !== before.hash) refuse(`previous: ${before.hash}, the file before, is needed`);
  for (const key of [...FIXED_KEYS, ...(before.codeKey ? ["codeKey"] : [])]) {
    if (before[key] !== now[key]) refuse(`${key}: never changes; ${short(before[key])} before, found ${short(now[key])}`);
  }
  if (marketIds(before).join() !== marketIds(now).join()) {
    refuse(`markets: never change; ${marketIds(before).join(", ")} before`);
  }
  if (before.registration && !now.registration) refuse("registration: true before, and that never changes");
}

const marketIds = ({ markets }) => markets.map((each) => each.marketId);

/** Throw if a draw with the manifest does not verify against the last file of the record before it. */
export function checkOpened(opened, manifest) {
  for (const [key, wanted, found] of [
    ["campaignId", opened.campaignId, manifest.campaignId],
    ["seedSource.chain", opened.chain, manifest.source.chain],
    ["markets", marketIds(opened), marketIds(manifest)],
  ]) {
    if (String(wanted) !== String(found)) {
      throw drawError("manifest.json", `${key}: the campaign opened with ${short(wanted)}, found ${short(found)}`);
    }
  }
  if (opened.registration !== (manifest.registrations !== null)) {
    const rule = opened.registration ? "are needed, because the campaign logs them" : "null is needed";
    throw drawError("manifest.json", `registrations: ${rule}`);
  }
}

/** What the manifest of phase 1 has otherwise than the last file of the record before it, one sentence each. */
export function findingsAgainst(opened, manifest) {
  const found = [];
  if (manifest.asOf < opened.closesAt) {
    found.push(`asOf: the entries were frozen at ${manifest.asOf}, before closesAt, ${opened.closesAt}`);
  }
  opened.markets.forEach((before, at) => {
    const now = manifest.markets[at];
    for (const [title, then, value] of termsOf(before, now)) {
      const more = title === "seats" && now.capacity > before.capacity;
      if (then !== value && !more) found.push(`${title} of ${now.marketId}: ${value}, opened with ${then}`);
    }
  });
  for (const [title, then, value] of limitsOf(opened, manifest)) {
    if (then !== value) found.push(`${title}: ${value}, opened with ${then}`);
  }
  return found;
}

/** Which files of a record, `{opened, at}` with the times of their leaves in seconds, were in the log too late. */
export function* timeFindings(record) {
  const when = (at) => (at === null ? "at a time that no witness vouches for" : `at ${isoTime(Math.round(at * 1000))}`);
  const after = (at, text, more = 0) => at === null || at > milliseconds(text) / 1000 + more;
  for (const [number, { opened, at }] of record.entries()) {
    const name = openedName(number);
    if (!number && after(at, opened.opensAt, IN_TIME_SECONDS)) {
      yield `${name}: in the log ${when(at)}, more than ${IN_TIME_SECONDS / 60} minutes after ${opened.opensAt}, when` +
        " the campaign opened";
    }
    const before = number && record[number - 1].opened.closesAt;
    if (number && opened.closesAt !== before && after(at, before)) {
      yield `${name}: closesAt was changed ${when(at)}, when ${before}, the one before, was over`;
    }
  }
}

/** What the amendments after the file with this hash changed, `{number, reason, lines}`; null if no file has it. */
export function changesSince(record, hash) {
  const start = record.findIndex((each) => each.hash === hash);
  if (start < 0) return null;
  return record.slice(start + 1).map((now, at) => {
    return { number: start + at + 1, reason: now.reason, lines: changedLines(record[start + at], now) };
  });
}

function changedLines(before, now) {
  const lines = [];
  const compare = (title, then, value) => {
    if (then !== value) lines.push(`${title}: ${value}, before ${then}`);
  };
  before.markets.forEach((market, at) => {
    for (const [title, then, value] of termsOf(market, now.markets[at])) compare(`${title} of ${market.marketId}`, then, value);
  });
  compare("opens", before.opensAt, now.opensAt);
  compare("closes", before.closesAt, now.closesAt);
  for (const each of limitsOf(before, now)) compare(...each);
  compare("name", before.name, now.name);
  for (const [title, key] of [
    ["who may take part", "eligibility"],
    ["key of the codes", "codeKey"],
    ["keys of the codes' issuer", "issuerKeys"],
    ["log of registrations", "registration"],
  ]) {
    if (canonicalText(before[key]) !== canonicalText(now[key])) lines.push(`${title}: changed`);
  }
  return lines;
}

// A title, and its words before and now.
function termsOf(before, now) {
  return [
    ["seats", String(before.capacity), String(now.capacity)],
    ["reserved seats", reserved(before.reserves), reserved(now.reserves)],
    ["seats reserved later", reserved(before.laterReserves), reserved(now.laterReserves)],
  ];
}

function limitsOf(before, now) {
  const limit = ({ waitlistSize }) => (waitlistSize === null ? "no limit" : String(waitlistSize));
  return [
    ["waiting list", limit(before), limit(now)],
    ["wins per household", String(before.winsPerUnit), String(now.winsPerUnit)],
  ];
}

const reserved = (reserves) => reserves.map(({ segment, seats }) => `${segment} ${seats}`).join(", ") || "none";
