// Stand-in until the check of a receipt is merged.
import { sha256Hex } from "./sha256.js";

export function checkReceipt(text) {
  return { verdict: "incomplete", steps: [{ name: "receipt", state: "unchecked", detail: sha256Hex(text), values: [] }], limits: [], receipt: JSON.parse(text), keys: [] };
}
