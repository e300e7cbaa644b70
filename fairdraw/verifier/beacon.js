// The beacon of a draw, as in proof/beacon.py, terms.py and bls.py: BLS12-381, signatures in G1, keys in G2.

import { drawError, isoTime, milliseconds, uncheckedError } from "./fields.js";
import { fromHex, sha256, sha256Hex, toHex, utf8 } from "./sha256.js";

export const CHAIN_FILE = "chain.json";
export const QUICKNET_HASH = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971";
const QUICKNET_LEAD = 600;
const QUICKNET = {
  publicKey:
    "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451" +
    "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a",
  groupHash: "f477d5c89f21a17c863a7f937c6a6d15859414d2be09cd448d4279af331c5d3e",
  beaconId: "quicknet",
  genesis: 1692803367,
  period: 3,
};
const SCHEME = "bls-unchained-g1-rfc9380";
// The canonical form leaves one order and no space; an id is printable ASCII.
const CHAIN = new RegExp(
  '^\\{"genesis":([1-9][0-9]{0,15}),"groupHash":"([0-9a-f]{64})","id":("(?:[ !#-\\[\\]-~]|\\\\["\\\\])+"),' +
    `"period":([1-9][0-9]{0,9}),"publicKey":"([0-9a-f]{192})","scheme":"${SCHEME}"\\}$`,
);
const BEACON_DOMAIN = "BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";
const BEACON_SIGNATURE = /^[0-9a-f]{96}$/;
const LAST_SECOND = 253402300799;
const NOT_VERIFIED_HERE =
  "hash, round and time are right; the signature was not checked here: compare it with a relay of the beacon";

function parseChain(text, curves) {
  const refuse = (message) => {
    throw drawError(CHAIN_FILE, message);
  };
  const found = CHAIN.exec(text);
  if (found === null) {
    refuse(
      `not the description of a chain: genesis, groupHash, id, period, publicKey and scheme (${SCHEME}) are` +
        " needed, and no more, as canonical JSON (RFC 8785)",
    );
  }
  const [, genesis, groupHash, id, period, publicKey] = found;
  const chain = { publicKey, groupHash, beaconId: JSON.parse(id), genesis: Number(genesis), period: Number(period) };
  if (chain.beaconId === "default") refuse("id: 'default' is not part of a chain's hash: another one is needed");
  if (chain.period >= 2 ** 32 || chain.genesis > LAST_SECOND) {
    refuse("period or genesis: more than 4 bytes, or after the year 9999");
  }
  if (curves && pointOf(curves.bls12_381.G2, publicKey) === null) {
    refuse("publicKey: not a point of the group of keys");
  }
  return chain;
}

/** The chain that a manifest names. `described` is the text of chain.json, null for a draw of quicknet. */
export function chainOf(chainHash, described, curves) {
  if (chainHash === QUICKNET_HASH) {
    if (described !== null) throw drawError(CHAIN_FILE, "a draw with the chain quicknet has no such file");
    return QUICKNET;
  }
  if (described === null) {
    throw drawError("manifest.json", `seedSource.chain '${chainHash}' is not quicknet: ${CHAIN_FILE} is missing`);
  }
  const chain = parseChain(described, curves);
  const hash = hashOfChain(chain);
  if (hash !== chainHash) {
    throw drawError(CHAIN_FILE, `describes the chain ${hash}, manifest.json names ${chainHash}`);
  }
  return chain;
}

function hashOfChain(chain) {
  const numbers = bigEndian(chain.period, 4) + bigEndian(chain.genesis, 8);
  return sha256Hex(fromHex(numbers + chain.publicKey + chain.groupHash + toHex(utf8(chain.beaconId))));
}

const bigEndian = (number, bytes) => number.toString(16).padStart(2 * bytes, "0");

// Seconds since the epoch. A round beyond all times may lose its last digits, and stays beyond.
const dueOf = (chain, round) => chain.genesis + (round - 1) * chain.period;

/** The least number of seconds from the commit to the round, null if unknown; `trusted` is what a trust file says. */
export function leadOf(chainHash, trusted = null) {
  return chainHash === QUICKNET_HASH ? Math.max(QUICKNET_LEAD, trusted ?? 0) : trusted;
}

/** When the chain signs the round; null for a round after the year 9999. */
export function signedAt(chain, round) {
  const due = dueOf(chain, round);
  return due <= LAST_SECOND ? isoTime(due * 1000) : null;
}

/** Throw unless the chain signs the manifest's round at least `lead` seconds after `asOf`; null: unknown. */
export function checkRound(manifest, chain, lead) {
  const { source, asOf } = manifest;
  const due = dueOf(chain, source.round);
  if (due > LAST_SECOND) {
    throw drawError("manifest.json", `seedSource.round: ${source.round} is signed after the year 9999`);
  }
  if (lead !== null && due * 1000 - milliseconds(asOf) < lead * 1000) {
    throw drawError(
      "manifest.json",
      `seedSource.round: round ${source.round} is signed at ${isoTime(due * 1000)} (UTC), asOf is ${asOf}: the` +
        ` round must come at least ${lead} s later`,
    );
  }
}

// The point in canonical form, in the subgroup of prime order, and not the identity; else null.
function pointOf(group, hex) {
  try {
    const point = group.Point.fromBytes(fromHex(hex));
    point.assertValidity();
    return point.is0() || point.toHex() !== hex ? null : point;
  } catch {
    return null;
  }
}

/** Whether this is the signature of the message, bytes, under the key; both in hex. There is no second one. */
export function verifyBls(publicKey, domain, message, signature, { bls12_381: { G1, G2, shortSignatures } }) {
  const [point, key] = [pointOf(G1, signature), pointOf(G2, publicKey)];
  return point !== null && key !== null && shortSignatures.verify(point, shortSignatures.hash(message, domain), key);
}

/** Throw unless the signature is the chain's of the round. Without `curves` this cannot be checked. */
export function verifyBeacon(chain, round, signature, curves) {
  if (!BEACON_SIGNATURE.test(signature)) {
    throw drawError("seed.json", "signature is not 96 lower-case hex digits");
  }
  if (!curves) throw uncheckedError(NOT_VERIFIED_HERE);
  if (pointOf(curves.bls12_381.G1, signature) === null) {
    throw drawError("seed.json", "signature is not a point of the group of signatures");
  }
  const message = sha256(fromHex(bigEndian(round, 8)));
  if (!verifyBls(chain.publicKey, BEACON_DOMAIN, message, signature, curves)) {
    throw drawError("seed.json", `signature is not the chain's signature of round ${round}`);
  }
}
