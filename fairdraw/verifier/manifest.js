// manifest.json, strikes.txt and seed.json, as in maths/manifest.py.

import { canonicalText, parseCanonical } from "./canonical.js";
import { drawError, fieldsOf, isHash, isId, isMarketId, short, shown } from "./fields.js";
import { fromHex, sha256Hex } from "./sha256.js";

export const COMMIT_REVEAL = "commit-reveal";
export const DRAND = "drand";
export const STRIKE_REASON = /^[A-Z_]+$/;
const MOST_MARKETS = 32767;
const LOWER_HEX = /^(?:[0-9a-f]{2})+$/;
const MANIFEST_KEYS = [
  "algorithm", "asOf", "campaignId", "count", "drawId", "markets", "phase", "previous", "root", "seedSource",
  "strikesHash", "waitlistSize", "winsPerUnit",
];
// What a later phase may change.
const CHANGING_KEYS = ["markets", "phase", "previous", "strikesHash", "waitlistSize"];

/** Read exactly this text: its values, its `hash`, and as `document` the JSON itself. */
export function parseManifest(text) {
  const document = parseCanonical(text, "manifest.json");
  const fields = fieldsOf("manifest.json", "", document, MANIFEST_KEYS);
  fields.text("algorithm", (algorithm) => algorithm === "vf1", '"vf1"');
  const campaignId = fields.id("campaignId");
  const phase = fields.integer("phase", 1);
  const source = seedSourceOf(fields.raw("seedSource"));
  return {
    document,
    hash: sha256Hex(text),
    campaignId,
    phase,
    source,
    asOf: fields.time("asOf"),
    count: fields.integer("count"),
    drawId: fields.text("drawId", (id) => id === campaignId, `the campaign's id (${campaignId})`),
    markets: marketsOf(fields),
    previous: previousOf(fields, phase),
    root: fields.hash("root"),
    strikesHash: fields.hash("strikesHash"),
    waitlistSize: fields.raw("waitlistSize") === null ? null : fields.integer("waitlistSize"),
    winsPerUnit: fields.integer("winsPerUnit", 1),
  };
}

function seedSourceOf(document) {
  const kind = document instanceof Map ? (document.get("kind") ?? null) : null;
  if (kind === DRAND) {
    const fields = fieldsOf("manifest.json", "seedSource", document, ["chain", "kind", "round"]);
    return { kind, source: fields.hash("chain"), round: fields.integer("round", 1), commitment: null };
  }
  if (kind === COMMIT_REVEAL) {
    const fields = fieldsOf("manifest.json", "seedSource", document, ["commitment", "kind"]);
    return { kind, source: kind, round: 0, commitment: fields.hash("commitment") };
  }
  const wanted = `${COMMIT_REVEAL} or ${DRAND}`;
  throw drawError("manifest.json", `seedSource.kind: ${wanted} is needed, found ${short(kind)}`);
}

function marketsOf(fields) {
  const markets = Array.from(fields.objects("markets", ["capacity", "marketId", "reserves"]), marketTerms);
  if (markets.length > MOST_MARKETS) {
    fields.refuse("markets", `${markets.length}, at most ${MOST_MARKETS} can be drawn together`);
  }
  markets.forEach((after, at) => {
    const before = markets[at - 1];
    if (before && before.marketId >= after.marketId) {
      fields.refuse("markets", `ids must increase strictly: ${after.marketId} follows ${before.marketId}`);
    }
  });
  return markets;
}

function marketTerms(fields) {
  const marketId = fields.text("marketId", isMarketId, "an id, not -");
  const capacity = fields.integer("capacity");
  const reserves = [];
  const segments = new Set();
  for (const each of fields.objects("reserves", ["seats", "segment"])) {
    const segment = each.id("segment");
    if (segments.has(segment)) {
      fields.refuse("reserves", `duplicate segment ${segment} in market ${marketId}`);
    }
    segments.add(segment);
    reserves.push({ segment, seats: each.integer("seats") });
  }
  // A sum of numbers below 2^53 may be beyond.
  const seats = reserves.reduce((sum, each) => sum + BigInt(each.seats), 0n);
  if (seats > capacity) {
    fields.refuse("reserves", `${seats} reserved seats in market ${marketId}, whose capacity is ${capacity}`);
  }
  return { marketId, capacity, reserves };
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

/** Throw for a later manifest that changes more than phase, previous, strikes, waitlist, capacities and reserves. */
export function checkTerms(first, later) {
  const [known, found] = [first, later].map((each) => each.markets.map((market) => market.marketId));
  if (known.join() !== found.join()) {
    throw drawError("manifest.json", `markets: phase 1 has ${known.join(", ")}, found others`);
  }
  for (const key of MANIFEST_KEYS.filter((each) => !CHANGING_KEYS.includes(each))) {
    const [before, now] = [first, later].map((each) => each.document.get(key));
    if (canonicalText(before) !== canonicalText(now)) {
      throw drawError("manifest.json", `${key}: phase 1 has ${shown(before)}, found ${shown(now)}`);
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
  const kind = fields.text(
    "kind", (value) => value === COMMIT_REVEAL || value === DRAND, `${COMMIT_REVEAL} or ${DRAND}`,
  );
  let signature = null;
  if (kind === DRAND) {
    signature = fields.text("signature", (value) => LOWER_HEX.test(value), "lower-case hex");
  } else if (fields.raw("signature") !== null || fields.integer("round") !== 0) {
    fields.refuse("", `${COMMIT_REVEAL} has round 0 and no signature`);
  }
  const randomness = fields.hash("randomness");
  return { kind, randomness, round: fields.integer("round"), seed: fields.hash("seed"), signature };
}

/** The seed that follows from the manifest hash of phase 1 and the randomness. */
export function deriveSeed(manifestHash, source, round, randomness) {
  return sha256Hex(`vfseed1|${manifestHash}|${source}|${round}|${randomness}`);
}

/** Throw unless the seed follows from the manifest of phase 1. The beacon's signature is not verified here. */
export function checkSeed(seed, manifest) {
  const source = manifest.source;
  const fail = (message) => {
    throw drawError("seed.json", message);
  };
  if (seed.kind !== source.kind || seed.round !== source.round) {
    const committed = `${source.kind} with round ${source.round} was committed to`;
    fail(`${committed}, found ${seed.kind} with ${seed.round}`);
  }
  if (source.commitment !== null) {
    if (sha256Hex(fromHex(seed.randomness)) !== source.commitment) {
      fail("randomness: its SHA-256 is not the commitment of the manifest");
    }
  } else if (seed.signature === null || sha256Hex(fromHex(seed.signature)) !== seed.randomness) {
    fail("randomness: not the SHA-256 of the signature");
  }
  if (deriveSeed(manifest.hash, source.source, source.round, seed.randomness) !== seed.seed) {
    fail("seed: does not follow from the manifest of phase 1 and the randomness");
  }
}
