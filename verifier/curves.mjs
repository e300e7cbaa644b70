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
  const { BASE, Fn } = curve.Point;
  const k = Fn.create(number(sha512(Uint8Array.of(...r, ...publicKey, ...message))));
  const key = curve.Point.fromBytes(publicKey, true);
  const found = BASE.multiplyUnsafe(s).subtract(key.multiplyUnsafe(k)).toBytes();
  return found.every((byte, at) => byte === r[at]);
}

export const ed25519 = { verify: holds(verify) };
export const mldsa44 = { verify: holds((signature, message, publicKey) => ml_dsa44.verify(signature, message, publicKey)) };
