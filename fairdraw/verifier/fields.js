// Errors, excerpts of untrusted values, and the strict reader of JSON objects, as in maths/files.py.
//
// JSON values are null, booleans, integers, texts, arrays and Maps. Texts in messages are those of Python's check,
// with values as Python's ascii() shows them, so that both checks can be compared word by word.

const SHOWN_CHARS = 160;
const HASH = /^[0-9a-f]{64}$/;
const SELECTION_ID = /^[A-Za-z0-9_-]{1,64}$/;
const TIME = /^(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})\.(\d{3})Z$/;
// What Python's str.strip() keeps: JavaScript's trim() has another list of spaces.
const NOT_BLANK = /[^\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

/** An artefact that is malformed or contradicts another one. */
export function drawError(artefact, message) {
  return Object.assign(new Error(message), { artefact });
}

/** A step that cannot be checked here, and why. */
export function uncheckedError(message) {
  return Object.assign(new Error(message), { unchecked: true });
}

export const isHash = (value) => typeof value === "string" && HASH.test(value);
export const isId = (text) => SELECTION_ID.test(text);
export const isAscii = (text) => /^[\x00-\x7f]*$/.test(text);
export const isFilled = (text) => text !== "";
export const isAny = () => true;
export const isNotBlank = (text) => NOT_BLANK.test(text);
export const isMarketId = (text) => text !== "-" && isId(text);

/** Milliseconds since the epoch of a time like 2026-11-25T08:15:00.123Z, or null. */
export function milliseconds(text) {
  const found = TIME.exec(text);
  if (found === null) return null;
  const [year, month, day, hour, minute, second, milli] = found.slice(1).map(Number);
  const moment = new Date(0);
  // Date.UTC() would read the years 0 to 99 as 1900 to 1999.
  moment.setUTCFullYear(year, month - 1, day);
  moment.setUTCHours(hour, minute, second, milli);
  return year >= 1 && isoTime(moment.getTime()) === text ? moment.getTime() : null;
}

/** The time of milliseconds since the epoch, of a year of at most four digits. */
export function isoTime(moment) {
  return new Date(moment).toISOString();
}

/** A value as Python's ascii() shows it. */
export function shown(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return shownText(value);
  if (Array.isArray(value)) return `[${value.map(shown).join(", ")}]`;
  if (value instanceof Map) {
    return `{${Array.from(value, ([key, each]) => `${shownText(key)}: ${shown(each)}`).join(", ")}}`;
  }
  return String(value);
}

function shownText(text) {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escapes = new Map([["\\", "\\\\"], ["\n", "\\n"], ["\r", "\\r"], ["\t", "\\t"], [quote, `\\${quote}`]]);
  let made = quote;
  for (const character of text) {
    const code = character.codePointAt(0);
    if (escapes.has(character)) made += escapes.get(character);
    else if (code >= 0x20 && code < 0x7f) made += character;
    else if (code < 0x100) made += `\\x${hexOf(code, 2)}`;
    else if (code < 0x10000) made += `\\u${hexOf(code, 4)}`;
    else made += `\\U${hexOf(code, 8)}`;
  }
  return made + quote;
}

const hexOf = (code, digits) => code.toString(16).padStart(digits, "0");

/** A whole number with commas, as Python writes it; toLocaleString() loads tables first, for longer than a frame. */
export const withCommas = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");

/** An excerpt of an untrusted value for a message. */
export function short(value) {
  const text = shown(typeof value === "string" ? Array.from(value).slice(0, SHOWN_CHARS).join("") : value);
  return text.length <= SHOWN_CHARS ? text : `${text.slice(0, SHOWN_CHARS)}...`;
}

/** Texts in the order of their code points: JavaScript sorts by halves of characters. */
export function sorted(texts) {
  const byCodePoint = (one, other) => {
    const [a, b] = [Array.from(one), Array.from(other)];
    const at = a.findIndex((character, place) => character !== b[place]);
    if (at < 0) return a.length - b.length;
    return at < b.length ? a[at].codePointAt(0) - b[at].codePointAt(0) : 1;
  };
  return [...texts].sort(byCodePoint);
}

/** A strict reader of one JSON object: exactly the given keys (null: any), each of its type. */
export function fieldsOf(artefact, path, document, keys) {
  const joined = (key) => (path ? `${path}.${key}` : key);
  const refuse = (key, what) => {
    const where = short(key ? joined(key) : path).slice(1, -1);
    throw drawError(artefact, where ? `${where}: ${what}` : what);
  };
  if (!(document instanceof Map)) refuse("", `a JSON object is needed, found ${short(document)}`);
  if (keys !== null) {
    const missing = keys.filter((key) => !document.has(key));
    if (missing.length) refuse("", `missing ${sorted(missing).join(", ")}`);
    const extra = [...document.keys()].filter((key) => !keys.includes(key));
    if (extra.length) {
      const unknown = short(sorted(extra).join(", ")).slice(1, -1);
      refuse("", `unknown ${unknown}: exactly ${sorted(keys).join(", ")} are allowed`);
    }
  }
  const raw = (key) => document.get(key);
  const integer = (key, least = 0) => {
    const value = raw(key);
    if (typeof value !== "number" || value < least) {
      refuse(key, `an integer of at least ${least} is needed, found ${short(value)}`);
    }
    return value;
  };
  const text = (key, accept, what) => {
    const value = raw(key);
    if (typeof value !== "string" || !accept(value)) refuse(key, `${what} is needed, found ${short(value)}`);
    return value;
  };
  const list = (key) => {
    if (!Array.isArray(raw(key))) refuse(key, `a list is needed, found ${short(raw(key))}`);
    return raw(key);
  };
  return {
    names: [...document.keys()],
    refuse,
    raw,
    integer,
    text,
    list,
    flag(key) {
      if (typeof raw(key) !== "boolean") refuse(key, `true or false is needed, found ${short(raw(key))}`);
      return raw(key);
    },
    /** The object under the key as it is. */
    object(key) {
      fieldsOf(artefact, joined(key), raw(key), null);
      return raw(key);
    },
    hash: (key) => text(key, isHash, "64 lower-case hex digits"),
    id: (key) => text(key, isId, "an id"),
    time: (key) => text(key, (value) => milliseconds(value) !== null, "a time like 2026-11-25T08:15:00.123Z"),
    nested: (key, inner = null) => fieldsOf(artefact, joined(key), raw(key), inner),
    // One at a time, so that the first error is the one that is found first.
    *objects(key, inner) {
      let number = 0;
      for (const each of list(key)) yield fieldsOf(artefact, joined(`${key}[${number++}]`), each, inner);
    },
  };
}
