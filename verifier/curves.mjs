// What signatures need: BLS12-381 for beacon and codes, Ed25519 and ML-DSA-44 for the public log.
import { ed25519 as curve } from "@noble/curves/ed25519.js";
import { sha512 } from "@noble/hashes/sha2.js";
import { ml_dsa44 } from "@noble/post-quantum/ml-dsa.js";

export { bls12_381 } from "@noble/curves/bls12-381.js";

const number = (littleEndian) => littleEndian.reduceRight((sum, byte) => (sum << 8n) + BigInt(byte), 0n);

// A signature or key that cannot be read is one that does not match.
const holds = (check) => (...given) => {
  try {
    return check(...given);
  } catch {
    return false;
  }
};

/**
 * Whether a signature is valid by the equation without the cofactor, as OpenSSL checks it at the command line. The
 * curve's own `verify` takes others: the holder of a key could craft signatures that hold in the page alone.
 */
function verify(signature, message, publicKey) {
  const [r, s] = [signature.subarray(0, 32), number(signature.subarray(32))];
  const { BASE, Fn, ZERO } = curve.Point;
  if (s >= Fn.ORDER) return false;
  const k = Fn.create(number(sha512(Uint8Array.of(...r, ...publicKey, ...message))));
  const minusKey = curve.Point.fromBytes(publicKey, true).negate();
  // s BASE - k key, bit by bit for both together: tables for one number alone take longer than a few signatures.
  const added = [null, BASE, minusKey, BASE.add(minusKey)];
  const bits = [s, k].map((each) => each.toString(2).padStart(253, "0"));
  let found = ZERO;
  for (let at = 0; at < 253; at++) {
    found = found.double();
    const which = Number(bits[0][at]) + 2 * Number(bits[1][at]);
    if (which) found = found.add(added[which]);
  }
  return found.toBytes().every((byte, at) => byte === r[at]);
}

export const ed25519 = { verify: holds(verify) };
export const mldsa44 = { verify: holds((signature, message, publicKey) => ml_dsa44.verify(signature, message, publicKey)) };
