// Answers questions, one JSON document a line on stdin, with the verifier's own modules: one line each on stdout.
// The first argument is the bundle with the curves, if there is one.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { runInThisContext } from "node:vm";

import { canonicalText, parseCanonical, parseCanonicalList, parseJson } from "../../../fairdraw/verifier/canonical.js";
import { milliseconds, short } from "../../../fairdraw/verifier/fields.js";
import { leafHash, treeHash, verifyInclusion } from "../../../fairdraw/verifier/merkle.js";
import { parseCheckpoint, parseKey, parseNote } from "../../../fairdraw/verifier/note.js";
import { checkReceipt } from "../../../fairdraw/verifier/receipt.js";
import { sha256Hex, toHex } from "../../../fairdraw/verifier/sha256.js";

if (process.argv[2]) runInThisContext(readFileSync(process.argv[2], "utf8"));
const bundle = globalThis.curves ? remembering(globalThis.curves) : null;

// Most receipts are of one round of the beacon, whose verification takes a tenth of a second.
function remembering({ bls12_381, ed25519 }) {
  const { G1, G2, shortSignatures } = bls12_381;
  const once = (run, keyOf) => {
    const known = new Map();
    return (...given) => {
      const key = given.map(keyOf).join();
      if (!known.has(key)) known.set(key, run(...given));
      return known.get(key);
    };
  };
  const hexOf = (point) => point.toHex();
  const hash = once((message, domain) => shortSignatures.hash(message, domain), String);
  const verify = once((...points) => shortSignatures.verify(...points), hexOf);
  const key = { Point: { fromBytes: once((bytes) => G2.Point.fromBytes(bytes), String) } };
  return { bls12_381: { G1, G2: key, shortSignatures: { hash, verify } }, ed25519 };
}

function attempt(run) {
  try {
    return run();
  } catch (error) {
    if (error.artefact === undefined && !(error instanceof SyntaxError)) throw error;
    return { refused: error.message };
  }
}

function rootOf(lines) {
  const tree = treeHash();
  for (const line of lines) tree.add(leafHash(line));
  return toHex(tree.root());
}

const ANSWERS = {
  receipt({ data, trust, curves }) {
    const answer = checkReceipt(Buffer.from(data, "base64"), { curves: curves ? bundle : null, trust });
    const steps = answer.steps.map(({ name, state, detail }) => [name, state, detail]);
    const annulled = answer.receipt?.annulled ? JSON.parse(answer.receipt.annulled) : null;
    return { annulled, verdict: answer.verdict, steps, limits: answer.limits, keys: answer.keys };
  },
  canonical: ({ text }) => attempt(() => canonicalText(parseCanonical(text, "a file"))),
  list: ({ text }) => attempt(() => canonicalText(parseCanonicalList(text, "a file"))),
  json: ({ text }) => attempt(() => canonicalText(parseJson(text))),
  short: ({ text }) => short(parseJson(text)),
  inclusion: ({ leaf, index, count, proof, root }) => verifyInclusion(leaf, index, count, proof, root),
  root: ({ lines }) => rootOf(lines),
  sha256: ({ text }) => sha256Hex(text),
  time: ({ text }) => milliseconds(text),
  signature: ({ value, text, key }) => bundle.ed25519.verify(...[value, text, key].map((hex) => Buffer.from(hex, "hex"))),
  key: ({ text }) => attempt(() => { const { name, kind, id } = parseKey(text); return [name, kind, id]; }),
  note: ({ text }) =>
    attempt(() => {
      const note = parseNote(text);
      const { origin, size, root } = parseCheckpoint(note.text);
      const signatures = note.signatures.map(({ name, id, value }) => [name, id, toHex(value)]);
      return { signatures, origin, size: String(size), root };
    }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const question = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(ANSWERS[question.ask](question))}\n`);
}
