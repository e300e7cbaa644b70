// Signed notes, checkpoints and cosignatures of C2SP, as in log/note.py.

import { drawError, shown, uncheckedError } from "./fields.js";
import { fromBinary, fromHex, sha256, sha256Hex, toHex, utf8 } from "./sha256.js";

export const LOG_KEY = 1;
const [WITNESS_KEY, MLDSA_KEY] = [4, 6];
/** The types of keys of witnesses: Ed25519 and ML-DSA-44. */
export const COSIGNATURES = [WITNESS_KEY, MLDSA_KEY];
// Bytes of a key of each type, and of its signature.
const KEY_BYTES = new Map([[LOG_KEY, 32], [WITNESS_KEY, 32], [MLDSA_KEY, 1312]]);
const SIGNATURE_BYTES = new Map([[LOG_KEY, 64], [WITNESS_KEY, 64], [MLDSA_KEY, 2420]]);
const MOST_NAME_BYTES = 255;
export const kindName = (kind) => `0x${toHex([kind])}`;
const DASH = "\u2014 ";
const KEY_ID = /^[0-9a-f]{8}$/;
const SIZE = /^(?:0|[1-9][0-9]{0,18})$/;
const CONTROL_CHARACTER = /[\x00-\x09\x0b-\x1f]/;
const KEY_NAME = /^[^\x00-\x20+\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+$/;
// The points of Ed25519 with an order of at most 8, without their signs.
const SMALL_ORDER = [
  "00".repeat(32),
  `01${"00".repeat(31)}`,
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  ...["ec", "ed", "ee"].map((first) => `${first}${"ff".repeat(30)}7f`),
];
const MOST_SIGNATURES = 100;
const MOST_CHARACTERS = 2 ** 20;
// The last second of the year 9999: later times have no text.
const LATEST = 253402300799n;

export const noteError = (message) => drawError("note", message);
const excerpt = (text, characters) => shown(Array.from(text).slice(0, characters).join(""));

function base64Bytes(text, what) {
  // atob() forgives spaces and missing padding, so the bytes are written again and compared.
  try {
    const binary = atob(text);
    if (btoa(binary) === text) return fromBinary(binary);
  } catch {
    // It throws for all else.
  }
  throw noteError(`${what} is not base64 in its only form`);
}

function checkName(name) {
  if (!KEY_NAME.test(name)) {
    throw noteError(`${excerpt(name, 80)} is no key name: not empty, without spaces and without +`);
  }
}

/** Read `<name>+<8 hex digits>+<base64 of type and key>`: `{name, kind, publicKey, id}`. */
export function parseKey(text) {
  const [first, second] = [text.indexOf("+"), text.indexOf("+", text.indexOf("+") + 1)];
  if (first < 0 || second <= first) {
    throw noteError("the verifier key is not <name>+<8 hex digits>+<base64>");
  }
  const [name, id, encoded] = [text.slice(0, first), text.slice(first + 1, second), text.slice(second + 1)];
  checkName(name);
  const what = `the verifier key of ${name}`;
  if (!KEY_ID.test(id)) throw noteError(`${what} has an id that is not 8 lower-case hex digits`);
  const decoded = base64Bytes(encoded, what);
  const due = KEY_BYTES.get(decoded[0]);
  if (due === undefined) {
    throw noteError(`${what} has an unknown type: known are 0x01 and 0x04 (Ed25519) and 0x06 (ML-DSA-44)`);
  }
  if (decoded.length !== 1 + due) throw noteError(`${what} has ${decoded.length - 1} bytes instead of ${due}`);
  const hashed = sha256Hex(Uint8Array.of(...utf8(name), 10, ...decoded)).slice(0, 8);
  if (hashed !== id) throw noteError(`${what} has the id ${id}, which is not the id of that key`);
  const publicKey = decoded.subarray(1);
  // The last bit is the sign of a coordinate.
  if (due === 32 && SMALL_ORDER.includes(toHex([...publicKey.subarray(0, 31), publicKey[31] & 0x7f]))) {
    throw noteError(`${what} is a point of small order: anyone can sign for it`);
  }
  return { name, kind: decoded[0], publicKey, id };
}

/** Read a note: its `text`, which ends in a line feed, and its `signatures`. */
export function parseNote(whole) {
  // A character has one or two halves.
  if (whole.length > MOST_CHARACTERS && Array.from(whole).length > MOST_CHARACTERS) {
    throw noteError(`the note is longer than ${MOST_CHARACTERS} characters`);
  }
  if (CONTROL_CHARACTER.test(whole)) throw noteError("the note holds a control character");
  const end = whole.lastIndexOf("\n\n");
  if (end <= 0) throw noteError("the note has no text, empty line and signatures");
  if (!whole.slice(end + 2).endsWith("\n")) {
    throw noteError("the note has no signatures, or its last line has no line feed");
  }
  const lines = whole.slice(end + 2, -1).split("\n");
  if (lines.length > MOST_SIGNATURES) throw noteError(`the note has more than ${MOST_SIGNATURES} signatures`);
  return { text: whole.slice(0, end + 1), signatures: lines.map(parseSignature) };
}

function parseSignature(line) {
  const rest = line.startsWith(DASH) ? line.slice(DASH.length) : "";
  const space = rest.indexOf(" ");
  if (space < 0 || space === rest.length - 1) {
    throw noteError(`${excerpt(line, 80)} is not a signature line: ${DASH}<key name> <base64>`);
  }
  const name = rest.slice(0, space);
  checkName(name);
  const value = base64Bytes(rest.slice(space + 1), `the signature of ${name}`);
  if (value.length <= 4) throw noteError(`the signature of ${name} is too short`);
  return { name, id: toHex(value.subarray(0, 4)), value: value.subarray(4) };
}

/** Read the text of a checkpoint, exactly three lines: `{origin, size, root}`, a BigInt and 64 hex digits. */
export function parseCheckpoint(text) {
  const lines = text.split("\n");
  if (lines.length !== 4 || lines[3]) throw noteError("a checkpoint has three lines: origin, size and root");
  const [origin, size, encoded] = lines;
  if (!origin) throw noteError("the checkpoint's first line, the origin, is empty");
  if (!SIZE.test(size)) {
    throw noteError(`the checkpoint's second line, the size, is ${excerpt(size, 40)}: not a whole number`);
  }
  const root = base64Bytes(encoded, "the checkpoint's third line, the root,");
  if (root.length !== 32) throw noteError(`the checkpoint's root has ${root.length} bytes instead of 32`);
  if (size === "0" && toHex(root) !== toHex(sha256(new Uint8Array(0)))) {
    throw noteError("the checkpoint has size 0, but not the root of an empty tree");
  }
  return { origin, size: BigInt(size), root: toHex(root) };
}

/** Of these keys the last with each name and id; then those that a line of the note is by. */
export function namedBy(note, keys) {
  const known = new Map(keys.map((key) => [`${key.name} ${key.id}`, key]));
  const signed = new Set(note.signatures.map((each) => `${each.name} ${each.id}`));
  return [...known].filter(([name]) => signed.has(name)).map(([, key]) => key);
}

/** Those of the keys that signed the note, with the times of cosignatures: a Map. Throws for a wrong one by them. */
export function verifyNote(note, keys, curves) {
  const signers = namedBy(note, keys);
  const found = new Map();
  for (const { name, id, value } of note.signatures) {
    const key = signers.find((each) => each.name === name && each.id === id);
    if (!key) continue;
    const at = verifySignature(key, note.text, value, curves);
    if (!found.has(key)) found.set(key, Number(at));
  }
  return found;
}

// Returns the time of a cosignature in seconds, a BigInt.
function verifySignature(key, noteText, value, curves) {
  let [message, signature, time] = [utf8(noteText), value, 0n];
  if (key.kind !== LOG_KEY) {
    time = BigInt(`0x${toHex(value.subarray(0, 8))}`);
    message = cosigned(key, noteText, time);
    signature = value.subarray(8);
  }
  if (signature.length !== SIGNATURE_BYTES.get(key.kind) || time > LATEST) {
    throw noteError(`the signature of ${key.name} has a wrong length or time`);
  }
  if (!curves) throw uncheckedError("all else is right; the signatures were not checked here");
  const curve = key.kind === MLDSA_KEY ? curves.mldsa44 : curves.ed25519;
  if (!curve.verify(signature, message, key.publicKey)) {
    throw noteError(`the signature of ${key.name} (${key.id}) does not match the note`);
  }
  return time;
}

// What a witness signs of a checkpoint. The first line keeps it apart from every other signed text.
function cosigned(key, noteText, time) {
  if (key.kind === WITNESS_KEY) return utf8(`cosignature/v1\ntime ${time}\n${noteText}`);
  // By the standard it then says nothing about when.
  if (!time) throw noteError(`the cosignature of ${key.name} has no time`);
  const { origin, size, root } = parseCheckpoint(noteText);
  const [at, first, end] = [time, 0n, size].map((number) => number.toString(16).padStart(16, "0"));
  return fromHex(`${toHex(utf8("subtree/v1\n\0"))}${afterLength(key.name)}${at}${afterLength(origin)}${first}${end}${root}`);
}

function afterLength(text) {
  const bytes = utf8(text);
  if (bytes.length > MOST_NAME_BYTES) throw noteError(`${excerpt(text, 80)} is longer than ${MOST_NAME_BYTES} bytes`);
  return toHex([bytes.length, ...bytes]);
}
