// manifest.json, strikes.txt and seed.json, as in maths/manifest.py.

import { canonicalText, parseCanonical } from "./canonical.js";
import { drawError, fieldsOf, isHash, isId, isMarketId, short, shown } from "./fields.js";
import { fromHex, sha256Hex } from "./sha256.js";

export const STRIKE_REASON = /^[A-Z_]+$/;
const DRAND = "drand";
const MOST_MARKETS = 32767;
const MANIFEST_KEYS = [
  "algorithm", "asOf", "campaignId", "count", "drawId", "markets", "phase", "previous", "registrations", "root",
  "seedSource", "strikesHash", "strikesRoot", "waitlistSize", "winsPerUnit",
];
// What a later phase may change; `markets` within rules of their own.
const CHANGING_KEYS = ["markets", "phase", "previous", "strikesHash", "strikesRoot"];
const REGISTRATIONS_KEYS = ["erased", "excluded", "notices", "root", "size", "withdrawn"];

/** Read exactly this text: its values, its `hash`, and as `document` the JSON itself. */
export function parseManifest(text) {
  const document = parseCanonical(text, "manifest.json");
  if (document.get("algorithm") === "vf1") {
    throw drawError(
      "manifest.json",
      "this draw follows the rules vf1, which are gone, so it can only be annulled: vf2 is read",
    );
  }
  const fields = fieldsOf("manifest.json", "", document, MANIFEST_KEYS);
  fields.text("algorithm", (algorithm) => algorithm === "vf2", '"vf2"');
  const campaignId = fields.id("campaignId");
  const count = fields.integer("count");
  const phase = fields.integer("phase", 1);
  const registrations =
    fields.raw("registrations") === null ? null : registrationsOf(fields.nested("registrations", REGISTRATIONS_KEYS), count);
  return {
    document,
    hash: sha256Hex(text),
    campaignId,
    phase,
    count,
    asOf: fields.time("asOf"),
    drawId: fields.text("drawId", (id) => id === campaignId, `the campaign's id (${campaignId})`),
    markets: marketsOf(fields, phase),
    previous: previousOf(fields, phase),
    registrations,
    root: fields.hash("root"),
    source: sourceOf(fields.nested("seedSource", ["chain", "kind", "round"])),
    strikesHash: fields.hash("strikesHash"),
    strikesRoot: fields.hash("strikesRoot"),
    waitlistSize: fields.raw("waitlistSize") === null ? null : fields.integer("waitlistSize"),
    winsPerUnit: fields.integer("winsPerUnit", 1),
  };
}

// Each registered entry is in one class.
function registrationsOf(fields, count) {
  const numbers = ["erased", "excluded", "notices"].map((key) => fields.integer(key));
  const root = fields.hash("root");
  const size = fields.integer("size");
  // A sum of numbers below 2^53 may be beyond.
  const classed = [...numbers, fields.integer("withdrawn"), count].reduce((sum, each) => sum + BigInt(each), 0n);
  if (BigInt(size) !== classed) {
    fields.refuse("size", `${size} entries, but notices, count, excluded, withdrawn and erased are ${classed}`);
  }
  return { root, size };
}

function sourceOf(fields) {
  fields.text("kind", (kind) => kind === DRAND, `"${DRAND}"`);
  return { chain: fields.hash("chain"), round: fields.integer("round", 1) };
}

/** The list under `markets`; `phase` null: not that of a manifest. */
export function marketsOf(fields, phase = null) {
  const keys = ["capacity", "laterReserves", "marketId", "reserves"];
  const markets = Array.from(fields.objects("markets", keys), marketTerms);
  if (markets.length > MOST_MARKETS) {
    fields.refuse("markets", `${markets.length}, at most ${MOST_MARKETS} can be drawn together`);
  }
  markets.forEach((after, at) => {
    const before = markets[at - 1];
    if (before && before.marketId >= after.marketId) {
      fields.refuse("markets", `ids must increase strictly: ${after.marketId} follows ${before.marketId}`);
    }
  });
  markets.forEach((market, at) => {
    const wrong = phase > 1 ? undeclared(market) : "";
    if (wrong) fields.refuse(`markets[${at}].reserves`, wrong);
  });
  return markets;
}

function marketTerms(fields) {
  const marketId = fields.text("marketId", isMarketId, "an id, not -");
  const capacity = fields.integer("capacity");
  const [reserves, laterReserves] = [reservesOf(fields, "reserves"), reservesOf(fields, "laterReserves")];
  const seats = reserves.reduce((sum, each) => sum + BigInt(each.seats), 0n);
  if (seats > capacity) {
    fields.refuse("reserves", `${seats} reserved seats in market ${marketId}, whose capacity is ${capacity}`);
  }
  return { marketId, capacity, reserves, laterReserves };
}

function reservesOf(fields, key) {
  const segments = new Set();
  return Array.from(fields.objects(key, ["seats", "segment"]), (each) => {
    const segment = each.id("segment");
    if (segments.has(segment)) fields.refuse(key, `duplicate segment ${segment}`);
    segments.add(segment);
    return { segment, seats: each.integer("seats") };
  });
}

// What the reserves of a later phase take that laterReserves do not declare; `before` are the market's terms in the
// phases from 2 on before this one.
function undeclared({ marketId, reserves, laterReserves }, before = []) {
  const used = before.flatMap((each) => each.reserves);
  let next = 0;
  for (const { segment, seats } of reserves) {
    next = laterReserves.findIndex((each, at) => at >= next && each.segment === segment) + 1;
    if (!next) return `segment ${segment} is not next in laterReserves of market ${marketId}`;
    const declared = laterReserves[next - 1].seats;
    const own = used.filter((each) => each.segment === segment);
    const taken = own.reduce((sum, each) => sum + BigInt(each.seats), BigInt(seats));
    if (taken > declared) {
      return `${taken} seats for ${segment} since phase 2, laterReserves of market ${marketId} have ${declared}`;
    }
  }
  return "";
}

function previousOf(fields, phase) {
  const document = fields.raw("previous");
  if ((document === null) !== (phase === 1)) {
    fields.refuse("previous", `null in phase 1 and only there, found ${short(document)} in phase ${phase}`);
  }
  if (document === null) return null;
  const hashes = fields.nested("previous", ["manifestHash", "resultHash"]);
  return { manifestHash: hashes.hash("manifestHash"), resultHash: hashes.hash("resultHash") };
}

/** Throw for a manifest that changes more than it may; `earlier` are those of the phases before, in their order. */
export function checkTerms(earlier, later) {
  const before = earlier.at(-1);
  const refuse = (message) => {
    throw drawError("manifest.json", message);
  };
  const ids = ({ markets }) => markets.map((each) => each.marketId).join();
  if (ids(before) !== ids(later)) refuse("markets: the phase before has others");
  later.markets.forEach((now, at) => {
    const then = before.markets[at];
    if (JSON.stringify(now.laterReserves) !== JSON.stringify(then.laterReserves)) {
      refuse(`markets[${at}].laterReserves: not those of the phase before`);
    }
    const wrong = undeclared(now, earlier.filter((each) => each.phase > 1).map((each) => each.markets[at]));
    if (wrong) refuse(`markets[${at}].reserves: ${wrong}`);
    if (now.capacity < then.capacity) refuse(`markets[${at}].capacity: ${now.capacity}, less than ${then.capacity} before`);
  });
  for (const key of MANIFEST_KEYS.filter((each) => !CHANGING_KEYS.includes(each))) {
    const [expected, found] = [before, later].map((each) => each.document.get(key));
    if (canonicalText(expected) !== canonicalText(found)) {
      refuse(`${key}: the phase before has ${shown(expected)}, found ${shown(found)}`);
    }
  }
}

/** Read lines of strikes.txt, the last without its line feed: the reason by ref. */
export function parseStrikes(text) {
  const lines = text.split("\n");
  const strikes = new Map();
  let before = "";
  lines.forEach((each, at) => {
    const bar = each.indexOf("|");
    const [ref, reason] = bar < 0 ? [each, ""] : [each.slice(0, bar), each.slice(bar + 1)];
    if (!isId(ref) || !STRIKE_REASON.test(reason)) {
      throw drawError("strikes.txt", `line ${at + 1}: ref|REASON is needed, found ${short(each)}`);
    }
    if (ref <= before) {
      const order = `refs must increase strictly, ${ref} follows ${before}`;
      throw drawError("strikes.txt", `line ${at + 1}: ${order}`);
    }
    strikes.set(ref, reason);
    before = ref;
  });
  return strikes;
}

/** Read seed.json. */
export function parseSeed(text) {
  const document = parseCanonical(text, "seed.json");
  const fields = fieldsOf("seed.json", "", document, ["kind", "randomness", "round", "seed", "signature"]);
  fields.text("kind", (kind) => kind === DRAND, `"${DRAND}"`);
  return {
    randomness: fields.hash("randomness"),
    round: fields.integer("round", 1),
    seed: fields.hash("seed"),
    signature: fields.text("signature", (text) => /^[0-9a-f]{96}$/.test(text), "96 lower-case hex digits"),
  };
}

/** The seed that follows from the manifest hash of phase 1 and the randomness. */
export function deriveSeed(manifestHash, { chain, round }, randomness) {
  return sha256Hex(`vfseed2|${manifestHash}|${chain}|${round}|${randomness}`);
}

/** Throw unless the seed follows from the manifest of phase 1. The beacon's signature is not verified here. */
export function checkSeed(seed, { hash, source }) {
  const fail = (message) => {
    throw drawError("seed.json", message);
  };
  if (seed.round !== source.round) fail(`round ${source.round} was committed to, found ${seed.round}`);
  if (sha256Hex(fromHex(seed.signature)) !== seed.randomness) fail("randomness: not the SHA-256 of the signature");
  if (deriveSeed(hash, source, seed.randomness) !== seed.seed) {
    fail("seed: does not follow from the manifest of phase 1 and the randomness");
  }
}
