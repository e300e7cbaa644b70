// What signatures need: BLS12-381 for beacon and codes, Ed25519 and ML-DSA-44 for the public log.
import { ml_dsa44 } from "@noble/post-quantum/ml-dsa.js";

export { bls12_381 } from "@noble/curves/bls12-381.js";
export * as ed25519 from "./ed25519.mjs";

export const mldsa44 = {
  verify(...given) {
    try {
      return ml_dsa44.verify(...given);
    } catch {
      // A signature or key that cannot be read is one that does not match.
      return false;
    }
  },
};
