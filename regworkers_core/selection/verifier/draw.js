// Keys of a draw.
import { sha256Hex } from "./sha256.js";

export function unitKey(seed, drawId, unit, weight) {
  const keys = Array.from({ length: weight }, (_, ticket) => sha256Hex(`vf1|${seed}|${drawId}|${unit}|${ticket}`));
  return keys.sort()[0];
}

export function entryKey(seed, ref) {
  return sha256Hex(`vf1e|${seed}|${ref}`);
}
