// What signatures need: BLS12-381 for beacon and codes, Ed25519 and ML-DSA-44 for the public log.
export { bls12_381 } from "@noble/curves/bls12-381.js";
export * as ed25519 from "./ed25519.mjs";
export * as mldsa44 from "./mldsa44.mjs";
