// The public beacon drand quicknet, as in proof/beacon.py: BLS12-381, signatures in G1, the chain's key in G2.

import { drawError, isoTime, milliseconds, uncheckedError } from "./fields.js";
import { fromHex, sha256, sha256Hex, toHex, utf8 } from "./sha256.js";

export const LEAD_SECONDS = 600;
const QUICKNET_HASH = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971";
const QUICKNET = {
  publicKey:
    "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451" +
    "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a",
  groupHash: "f477d5c89f21a17c863a7f937c6a6d15859414d2be09cd448d4279af331c5d3e",
  beaconId: "quicknet",
  genesis: 1692803367,
  period: 3,
};
export const CHAINS = new Map([[QUICKNET_HASH, QUICKNET]]);
const BEACON_DOMAIN = "BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";
const BEACON_SIGNATURE = /^[0-9a-f]{96}$/;
const LAST_SECOND = 253402300799;
const NOT_VERIFIED_HERE =
  "hash, round and time are right; the signature was not checked here: compare it with a relay of the beacon";

function chainOf(chainHash) {
  const chain = CHAINS.get(chainHash);
  if (chain === undefined) {
    const known = [...CHAINS.keys()].join(", ");
    throw drawError("manifest.json", `seedSource.chain '${chainHash}' is not a known chain; known are: ${known}`);
  }
  if (hashOfChain(chain) !== chainHash) {
    throw drawError("seed.json", `the pinned key of chain ${chainHash} does not hash to the chain`);
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

/** When the round of a seed source is signed; null for a secret, an unknown chain, or after the year 9999. */
export function signedAt(source) {
  const chain = CHAINS.get(source.source);
  if (chain === undefined) return null;
  const due = dueOf(chain, source.round);
  return due <= LAST_SECOND ? isoTime(due * 1000) : null;
}

/** Throw unless the beacon signs the manifest's round at least 600 s after `asOf`. */
export function checkRound(manifest) {
  const { source, asOf } = manifest;
  if (source.commitment !== null) return;
  const due = dueOf(chainOf(source.source), source.round);
  if (due > LAST_SECOND) {
    throw drawError("manifest.json", `seedSource.round: ${source.round} is signed after the year 9999`);
  }
  if (due * 1000 < milliseconds(asOf) + LEAD_SECONDS * 1000) {
    throw drawError(
      "manifest.json",
      `seedSource.round: round ${source.round} is signed at ${isoTime(due * 1000)} (UTC), asOf is ${asOf}:` +
        ` the round must come at least ${LEAD_SECONDS} s later`,
    );
  }
}

/** Throw unless the signature is the chain's of the round. Without `curves` this cannot be checked. */
export function verifyBeacon(source, signature, curves) {
  const chain = chainOf(source.source);
  if (!BEACON_SIGNATURE.test(signature)) {
    throw drawError("seed.json", "signature is not 96 lower-case hex digits");
  }
  if (!curves) throw uncheckedError(NOT_VERIFIED_HERE);
  const { G1, G2, shortSignatures } = curves.bls12_381;
  let point = null;
  try {
    // Refuses what is not on the curve, or outside the group of prime order.
    point = G1.Point.fromBytes(fromHex(signature));
    point.assertValidity();
  } catch {
    point = null;
  }
  if (point === null || point.is0()) {
    throw drawError("seed.json", "signature is not a point of the group of signatures");
  }
  const message = shortSignatures.hash(sha256(fromHex(bigEndian(source.round, 8))), BEACON_DOMAIN);
  if (!shortSignatures.verify(point, message, G2.Point.fromBytes(fromHex(chain.publicKey)))) {
    throw drawError("seed.json", `signature is not the chain's signature of round ${source.round}`);
  }
}
