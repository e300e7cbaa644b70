// The Merkle tree of RFC 6962: leaf SHA-256(0x00 + leaf), node SHA-256(0x01 + left + right).

import { isHash } from "./fields.js";
import { fromHex, sha256, toHex, utf8 } from "./sha256.js";

/** The hash of a leaf, its bytes, or a text without its line feed. */
export function leafHash(given) {
  const leaf = typeof given === "string" ? utf8(given) : given;
  const data = new Uint8Array(1 + leaf.length);
  data.set(leaf, 1);
  return sha256(data);
}

export function nodeHash(left, right) {
  const data = new Uint8Array(65);
  data[0] = 1;
  data.set(left, 1);
  data.set(right, 33);
  return sha256(data);
}

/** Whether the leaf is at `index` (from 0) among the `count` leaves under the root (RFC 9162, 2.1.3.2). */
export function verifyInclusion(leafText, index, count, proof, rootHex) {
  if (!(index >= 0 && index < count) || !proof.every(isHash)) return false;
  // Bits of large numbers: JavaScript's own operators keep only 32 of them.
  let node = BigInt(index);
  let last = BigInt(count) - 1n;
  let found = leafHash(leafText);
  for (const sibling of proof.map(fromHex)) {
    if (last === 0n) return false;
    if (node % 2n === 1n || node === last) {
      found = nodeHash(sibling, found);
      while (node % 2n === 0n && node !== 0n) {
        node /= 2n;
        last /= 2n;
      }
    } else {
      found = nodeHash(found, sibling);
    }
    node /= 2n;
    last /= 2n;
  }
  return last === 0n && toHex(found) === rootHex;
}

/** The root of a growing list of leaves, at constant memory: `add(leafHash)`, then `root()`. */
export function treeHash() {
  // One root for each complete subtree, the largest first.
  const stack = [];
  return {
    add(leaf) {
      let subtree = leaf;
      let height = 0;
      for (; stack.length && stack[stack.length - 1].height === height; height += 1) {
        subtree = nodeHash(stack.pop().subtree, subtree);
      }
      stack.push({ height, subtree });
    },
    root() {
      if (!stack.length) return sha256(new Uint8Array(0));
      return stack.map((each) => each.subtree).reduceRight((right, left) => nodeHash(left, right));
    },
  };
}
