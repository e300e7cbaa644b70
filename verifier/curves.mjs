// What a receipt's signatures need: BLS12-381 for the beacon, Ed25519 for the public log.
export { bls12_381 } from "@noble/curves/bls12-381.js";
export { ed25519 } from "@noble/curves/ed25519.js";
