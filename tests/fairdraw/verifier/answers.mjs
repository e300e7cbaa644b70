// Answers questions, one JSON document a line on stdin, with the verifier's own modules: one line each on stdout.
// The first argument is the bundle with the curves, if there is one.

import { readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { runInThisContext } from "node:vm";

import { verifyBls } from "../../../fairdraw/verifier/beacon.js";
import { canonicalText, parseCanonical, parseCanonicalList, parseJson } from "../../../fairdraw/verifier/canonical.js";
import { checkConfirmation, sinceText } from "../../../fairdraw/verifier/confirmed.js";
import { receiptIn } from "../../../fairdraw/verifier/given.js";
import { milliseconds, short } from "../../../fairdraw/verifier/fields.js";
import { colludersOf, parseTrust, quorumText, witnessesOf } from "../../../fairdraw/verifier/keys.js";
import { leafHash, treeHash, verifyInclusion } from "../../../fairdraw/verifier/merkle.js";
import { hasLines } from "../../../fairdraw/verifier/planned.js";
import { parseCheckpoint, parseKey, parseNote, verifyNote } from "../../../fairdraw/verifier/note.js";
import { checkReceipt } from "../../../fairdraw/verifier/receipt.js";
import { replayDraw } from "../../../fairdraw/verifier/folder.js";
import { sha256Hex, toHex } from "../../../fairdraw/verifier/sha256.js";
import { TreeFiles } from "../../../fairdraw/verifier/tiles.js";

if (process.argv[2]) runInThisContext(readFileSync(process.argv[2], "utf8"));
const bundle = globalThis.curves ? remembering(globalThis.curves) : null;

// Most receipts are of one round of the beacon, whose verification takes a tenth of a second.
function remembering({ bls12_381, ...others }) {
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
  return { bls12_381: { G1, G2: key, shortSignatures: { hash, verify } }, ...others };
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

// The bytes of a file, null if there is none.
const inFolder = (folder) => (name) => readFile(`${folder}/${name}`).catch(() => null);

// What takes every signature: a test can draw again.
const pointLike = { Point: { fromBytes: (bytes) => ({ assertValidity() {}, is0: () => false, toHex: () => toHex(bytes) }) } };
const ANY_SIGNATURE = {
  bls12_381: { G1: pointLike, G2: pointLike, shortSignatures: { hash: () => null, verify: () => true } },
};

const ANSWERS = {
  async replay({ folder, lead, curves }) {
    const files = (await readdir(folder, { recursive: true, withFileTypes: true })).filter((each) => each.isFile());
    const names = files.map((each) => `${each.parentPath}/${each.name}`.slice(folder.length + 1));
    const trust = JSON.stringify({ beacon: Object.fromEntries(Object.entries(lead).map(([chain, seconds]) => [chain, { lead: seconds }])), log: [], need: 0, witnesses: [] });
    return replayDraw(names, (name) => readFile(`${folder}/${name}`), { curves: curves ? bundle : ANY_SIGNATURE, trust });
  },
  receipt({ data, trust, opened, codes, curves }) {
    const given = { curves: curves ? bundle : null, trust, opened, codes: codes ?? null };
    const { receipt, campaign, ...answer } = checkReceipt(Buffer.from(data, "base64"), given);
    const steps = answer.steps.map(({ name, state, detail }) => [name, state, detail]);
    const annulled = receipt?.annulled ? JSON.parse(receipt.annulled) : null;
    return { ...answer, annulled, steps };
  },
  async confirmation({ data, folder, trust, curves, whole }) {
    const given = { curves: curves ? bundle : null, trust, whole };
    const { receipt, listed, ...answer } = await checkConfirmation(Buffer.from(data, "base64"), inFolder(folder), given);
    const steps = answer.steps.map(({ name, state, detail }) => [name, state, detail]);
    return { ...answer, steps, since: listed ? sinceText(listed) : "" };
  },
  given({ text }) {
    try {
      return { receipt: receiptIn(text) };
    } catch (sentence) {
      return { refused: sentence };
    }
  },
  codes: ({ text }) => hasLines(text),
  trust({ text }) {
    return attempt(() => {
      const { leads, log, quorum } = parseTrust(text);
      const [keys, witnesses] = [log, witnessesOf(quorum)].map((each) => each.map(({ name, id }) => `${name} ${id}`));
      return { leads: Object.fromEntries(leads), keys, witnesses, quorum: quorumText(quorum), colluders: colludersOf(quorum) };
    });
  },
  bls({ key, domain, message, signature }) {
    return verifyBls(key, domain, Buffer.from(message, "hex"), signature, globalThis.curves);
  },
  canonical: ({ text }) => attempt(() => canonicalText(parseCanonical(text, "a file"))),
  list: ({ text }) => attempt(() => canonicalText(parseCanonicalList(text, "a file"))),
  json: ({ text }) => attempt(() => canonicalText(parseJson(text))),
  short: ({ text }) => short(parseJson(text)),
  inclusion: ({ leaf, index, count, proof, root }) => verifyInclusion(leaf, index, count, proof, root),
  root: ({ lines }) => rootOf(lines),
  async tiles({ folder, size, within, index }) {
    const tree = new TreeFiles("", size, inFolder(folder));
    const entries = await tree.bundle(Math.floor(index / 256));
    return { proof: await tree.proof(index, within), entry: entries && Buffer.from(entries[index % 256]).toString() };
  },
  sha256: ({ text }) => sha256Hex(text),
  time: ({ text }) => milliseconds(text),
  signature: ({ value, text, key, kind = "ed25519" }) => bundle[kind].verify(...[value, text, key].map((hex) => Buffer.from(hex, "hex"))),
  cosigned: ({ note, key }) => attempt(() => [...verifyNote(parseNote(note), [parseKey(key)], bundle).values()]),
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
  process.stdout.write(`${JSON.stringify(await ANSWERS[question.ask](question))}\n`);
}
