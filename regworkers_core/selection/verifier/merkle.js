// The Merkle tree of RFC 6962.
import { Sha256, utf8 } from "./sha256.js";

export function leafHash(leaf) {
  return new Sha256().update(Uint8Array.of(0)).update(utf8(leaf)).finish();
}

export function nodeHash(left, right) {
  return new Sha256().update(Uint8Array.of(1)).update(left).update(right).finish();
}
