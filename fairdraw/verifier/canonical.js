// JSON as Python's check reads it: integers only, below 2^53, and at most 64 levels of objects and lists.
//
// An own parser: JSON.parse() would drop duplicate keys, fractions and what comes after 2^53 without a word, and an
// object would treat the key __proto__ as its own affair. Objects become Maps.

import { drawError } from "./fields.js";
import { utf8 } from "./sha256.js";

const MOST_LEVELS = 64;
const INTEGER = /-?(?:0|[1-9][0-9]*)/y;
const PLAIN_CHARACTERS = /[^"\\\x00-\x1f]*/y;
const HALF_A_CHARACTER = /[\ud800-\udfff]/u;
const ESCAPED = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };
const TYPES = { boolean: "bool", number: "int", string: "str" };

/** Parse JSON in any layout. Throws SyntaxError, also for a key that is there twice: programs differ in which counts. */
export function parseJson(text) {
  let at = 0;

  const fail = () => {
    throw new SyntaxError(`not JSON at ${at}`);
  };
  const skip = () => {
    while (text[at] === " " || text[at] === "\n" || text[at] === "\r" || text[at] === "\t") at += 1;
  };
  const match = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text) ?? fail();
    at = pattern.lastIndex;
    return found[0];
  };
  const take = (expected) => {
    if (!text.startsWith(expected, at)) fail();
    at += expected.length;
  };
  const number = () => {
    const value = Number(match(INTEGER));
    if (!Number.isSafeInteger(value) || /[.eE]/.test(text[at] ?? "")) fail();
    return value;
  };
  const string = () => {
    take('"');
    let made = match(PLAIN_CHARACTERS);
    while (text[at] === "\\") {
      const kind = text[at + 1] ?? "";
      if (kind === "u" && /^[0-9a-fA-F]{4}$/.test(text.slice(at + 2, at + 6))) {
        made += String.fromCharCode(parseInt(text.slice(at + 2, at + 6), 16));
        at += 6;
      } else if (Object.hasOwn(ESCAPED, kind)) {
        made += ESCAPED[kind];
        at += 2;
      } else fail();
      made += match(PLAIN_CHARACTERS);
    }
    take('"');
    return HALF_A_CHARACTER.test(made) ? fail() : made;
  };
  // Calls `item` for each part between the opening and the closing bracket.
  const parts = (closing, item) => {
    at += 1;
    skip();
    if (text[at] !== closing) {
      item();
      for (skip(); text[at] === ","; skip()) {
        at += 1;
        item();
      }
    }
    take(closing);
  };
  const value = (levels) => {
    skip();
    const next = text[at];
    if ((next === "{" || next === "[") && levels === 0) fail();
    if (next === "{") {
      const made = new Map();
      parts("}", () => {
        skip();
        const key = string();
        if (made.has(key)) fail();
        skip();
        take(":");
        made.set(key, value(levels - 1));
      });
      return made;
    }
    if (next === "[") {
      const made = [];
      parts("]", () => made.push(value(levels - 1)));
      return made;
    }
    if (next === '"') return string();
    for (const [name, meant] of [["null", null], ["true", true], ["false", false]]) {
      if (next === name[0]) {
        take(name);
        return meant;
      }
    }
    return number();
  };

  const parsed = value(MOST_LEVELS);
  skip();
  return at === text.length ? parsed : fail();
}

/** The canonical form (RFC 8785) of a value. */
export function canonicalText(value) {
  if (Array.isArray(value)) return `[${value.map(canonicalText).join(",")}]`;
  if (!(value instanceof Map)) return JSON.stringify(value);
  // By halves of characters (UTF-16), as RFC 8785 demands.
  const keys = [...value.keys()].sort();
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonicalText(value.get(key))}`).join(",")}}`;
}

function parsedCanonical(text, artefact) {
  let document;
  try {
    document = parseJson(text);
  } catch {
    throw drawError(artefact, "not canonical JSON (RFC 8785) with integers only");
  }
  const canonical = canonicalText(document);
  if (canonical !== text) {
    const [ours, theirs] = [utf8(canonical), utf8(text)];
    let at = 0;
    while (at < ours.length && at < theirs.length && ours[at] === theirs[at]) at += 1;
    throw drawError(artefact, `not the canonical form (RFC 8785): differs from it at byte ${at}`);
  }
  return document;
}

/** Parse a JSON object in canonical form. Throws an error about `artefact`. */
export function parseCanonical(text, artefact) {
  const document = parsedCanonical(text, artefact);
  if (document instanceof Map) return document;
  throw drawError(artefact, `a JSON object is needed, found ${typeName(document)}`);
}

/** Parse a JSON list in canonical form. Throws an error about `artefact`. */
export function parseCanonicalList(text, artefact) {
  const document = parsedCanonical(text, artefact);
  if (Array.isArray(document)) return document;
  throw drawError(artefact, `a JSON list is needed, found ${typeName(document)}`);
}

function typeName(value) {
  if (value === null) return "NoneType";
  if (Array.isArray(value)) return "list";
  return value instanceof Map ? "dict" : TYPES[typeof value];
}
