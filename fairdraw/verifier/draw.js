// Leaves, keys and cut-offs of a draw, as in maths/leaves.py and maths/rules.py.

import { drawError, fieldsOf, isFilled, short } from "./fields.js";
import { sha256Hex } from "./sha256.js";

const MAX_WEIGHT = 64;
const ZEROS = "0".repeat(64);
const ID = "[A-Za-z0-9_-]{1,64}";
const WEIGHT = "[1-9]|[1-5][0-9]|6[0-4]";
const LEAF_LINE = new RegExp(`^(${ID})\\|(${ID})\\|(${WEIGHT})\\|((?:${ID}(?:,${ID})*)?)\\|(${ID}(?:,${ID})*)$`);
const RANK = /^[1-9][0-9]{0,15}$/;
// 32 bytes in base64url without padding: the last digit has four bits, then zeros.
const UNIT = /^u-[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/;
const UNIT_LIKE = /^u-[A-Za-z0-9_-]{43}$/;
export const OUTCOMES = ["WINNER", "WAITLIST", "UNSELECTED", "HOUSEHOLD_LIMIT", "STRUCK", "UNCLAIMED"];

/** The leaf of a line without its line feed. Throws an error that says what is wrong with it. */
export function leafOf(line) {
  const found = LEAF_LINE.exec(line);
  if (found === null) {
    throw leafError(`ref|unit|weight|segments|preferences is needed, found ${short(line)}${whyNoLeaf(line)}`);
  }
  const [, ref, unit, weight, segmentsText, preferencesText] = found;
  const segments = segmentsText ? segmentsText.split(",") : [];
  const preferences = preferencesText.split(",");
  const wrong = unitFlaw(ref, unit);
  if (wrong) throw leafError(`${ref}: ${wrong}`);
  if (segments.some((segment, at) => at > 0 && segments[at - 1] >= segment)) {
    throw leafError(`${ref}: segments must be sorted, each once, found ${segmentsText}`);
  }
  if (new Set(preferences).size < preferences.length) {
    throw leafError(`${ref}: duplicate preference in ${preferencesText}`);
  }
  return { ref, unit, weight: Number(weight), segments, preferences };
}

/** What is wrong with the unit of an entry; empty if nothing is. */
export function unitFlaw(ref, unit) {
  if (UNIT_LIKE.test(ref)) return "a ref may not look like a unit";
  return unit === ref || UNIT.test(unit) ? "" : `a unit is the ref, or u- and 32 bytes in base64url, found ${short(unit)}`;
}

const leafError = (message) => drawError("leaves.txt", message);

function whyNoLeaf(line) {
  const parts = line.split("|");
  if (parts.length !== 5) return `: ${parts.length} fields`;
  if (!new RegExp(`^(?:${WEIGHT})$`).test(parts[2])) {
    return `: a weight is 1 to ${MAX_WEIGHT} without leading zero, found ${short(parts[2])}`;
  }
  return parts[4] ? ": ids are 1 to 64 of A-Z a-z 0-9 _ -" : ": at least one preference is needed";
}

/** The least of the hashes of a unit's tickets, in hex. */
export function unitKey(seed, drawId, unit, weight) {
  let least = sha256Hex(`vf2|${seed}|${drawId}|${unit}|0`);
  for (let ticket = 1; ticket < weight; ticket++) {
    const key = sha256Hex(`vf2|${seed}|${drawId}|${unit}|${ticket}`);
    if (key < least) least = key;
  }
  return least;
}

export function entryKey(seed, ref) {
  return sha256Hex(`vf2e|${seed}|${ref}`);
}

/** The cut-offs of cutoffs.json by market: `{open, reserves: [{segment, cutoff}]}`, null where there is room. */
export function parseCutoffs(document) {
  const markets = fieldsOf("cutoffs.json", "", document, ["markets"]).nested("markets");
  return new Map(
    markets.names.map((name) => {
      const market = markets.nested(name, ["open", "reserves"]);
      const reserves = market.objects("reserves", ["cutoff", "segment"]);
      return [name, marketCutoffs(market, reserves)];
    }),
  );
}

function marketCutoffs(market, reserves) {
  return {
    open: cutoffOf(market, "open"),
    reserves: Array.from(reserves, (reserve) => ({
      segment: reserve.text("segment", isFilled, "an id"),
      cutoff: cutoffOf(reserve, "cutoff"),
    })),
  };
}

function cutoffOf(fields, name) {
  if (fields.raw(name) === null) return null;
  const cutoff = fields.nested(name, ["entryKey", "key", "rank"]);
  return { rank: cutoff.integer("rank"), key: cutoff.hash("key"), entryKey: cutoff.hash("entryKey") };
}

/** Whether a cut-off with rank 0 is that of a group without seats. */
export function hasNoSeats(cutoff) {
  return cutoff.rank === 0 && cutoff.key === ZEROS && cutoff.entryKey === ZEROS;
}

/** Whether there is room (null), or (key, entry key) is at most that of the cut-off. */
export function meetsCutoff(cutoff, key, entry) {
  return cutoff === null || key < cutoff.key || (key === cutoff.key && entry <= cutoff.entryKey);
}

/** The first preference with a met cut-off, of its open seats or of a reserve for an own segment; else null. */
export function marketOf(preferences, segments, key, entry, cutoffs) {
  const own = new Set(segments);
  for (const market of preferences) {
    const groups = cutoffs.get(market);
    if (groups === undefined) throw drawError("cutoffs.json", `market '${market}' of the leaf has no cut-off`);
    const reserved = groups.reserves.filter((each) => own.has(each.segment));
    if ([groups.open, ...reserved.map((each) => each.cutoff)].some((each) => meetsCutoff(each, key, entry))) {
      return market;
    }
  }
  return null;
}

/** A line of result.txt: `{market, rank, outcome}`, texts that are empty where there is none. */
export function positionOf(line, ref) {
  const parts = line.split("|");
  if (parts.length !== 4 || parts[0] !== ref) {
    throw drawError("result.txt", `${short(line)} is not a line \`${ref}|market|rank|outcome\``);
  }
  const [, market, rank, outcome] = parts;
  if (!OUTCOMES.includes(outcome)) {
    throw drawError("result.txt", `outcome ${short(outcome)} is not one of ${OUTCOMES.join(", ")}`);
  }
  if (rank && !RANK.test(rank)) {
    throw drawError("result.txt", `rank ${short(rank)} is not a positive whole number`);
  }
  return { market, rank, outcome };
}
