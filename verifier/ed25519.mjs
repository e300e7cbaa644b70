// Signatures of Ed25519 (RFC 8032), verified as OpenSSL does at the command line: by the equation without the cofactor, with
// a number below the order, and a key in any form of its point. A library's own check takes others: the holder of a key
// could craft signatures that hold in the page alone.

import { sha512 } from "@noble/hashes/sha2.js";

const P = 2n ** 255n - 19n;
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
const D = 37095705934669439343138083508754565189542113879843219016388785533085940283555n;
const ROOT_OF_MINUS_ONE = 19681161376707505956807079304988542015446066515923890162744021073123829784752n;
const LOW_BITS = 2n ** 255n - 1n;
const BASE = Uint8Array.of(0x58, ...Array(31).fill(0x66));
// A number is 64 digits from -8 to 8 in this many parts, each with a table of its own: the more, the fewer doublings.
const PARTS = 4;
const DIGITS = 64 / PARTS;

const hexOf = (byte) => byte.toString(16).padStart(2, "0");
const numberOf = (littleEndian) => BigInt(`0x${Array.from(littleEndian, hexOf).reverse().join("")}`);
const mod = (number) => ((number % P) + P) % P;
// The same modulo P, below 2^262 for products below 2^512: half the time of a division.
const folded = (number) => (number & LOW_BITS) + 19n * (number >> 255n);

/** The number squared as often, times another one. */
function raised(number, often, by) {
  for (let at = 0; at < often; at++) number = (number * number) % P;
  return (number * by) % P;
}

/** The number to the power of 2^250 - 1, and of 11. */
function powers(number) {
  const of9 = raised(raised(number, 1, 1n), 2, number);
  const of11 = raised(number, 1, of9);
  const bits5 = raised(of11, 1, of9);
  const bits10 = raised(bits5, 5, bits5);
  const bits20 = raised(bits10, 10, bits10);
  const bits50 = raised(raised(bits20, 20, bits20), 10, bits10);
  const bits100 = raised(bits50, 50, bits50);
  return [raised(raised(bits100, 100, bits100), 50, bits50), of11];
}

// Points are `{x, y, z, t}`: the coordinates are x / z and y / z, and x y = z t. The formulas are those of extended twisted
// coordinates in https://hyperelliptic.org/EFD/g1p/auto-twisted-extended-1.html, which hold for all points.

/** The point that 32 bytes stand for; null for none. */
function pointOf(bytes) {
  const whole = numberOf(bytes);
  const y = whole & LOW_BITS;
  const [u, v] = [mod(y * y - 1n), mod(D * (y * y) + 1n)];
  const v3 = mod(v ** 3n);
  const [power] = powers(mod(u * v3 * v3 * v));
  let x = mod(raised(power, 2, u * v3 * v3 * v) * u * v3);
  const square = mod(v * x * x);
  if (square !== u && square !== mod(-u)) return null;
  if (square !== u) x = mod(x * ROOT_OF_MINUS_ONE);
  if ((x & 1n) !== whole >> 255n) x = mod(-x);
  return { x, y, z: 1n, t: mod(x * y) };
}

const pointFrom = (e, f, g, h) => ({ x: (e * f) % P, y: (g * h) % P, z: (f * g) % P, t: (e * h) % P });

function doubled({ x, y, z }) {
  const [xx, yy] = [folded(x * x), folded(y * y)];
  const g = yy - xx;
  return pointFrom(folded(2n * x * y), g - folded(2n * z * z), g, -xx - yy);
}

/** The sum with an entry of a table, or with a negative `digit` the difference. */
function added({ x, y, z, t }, { sum, difference, zz, td }, digit) {
  const less = folded((y - x) * (digit < 0 ? sum : difference));
  const more = folded((y + x) * (digit < 0 ? difference : sum));
  const [c, d] = [folded(t * (digit < 0 ? -td : td)), folded(z * zz)];
  return pointFrom(more - less, d - c, d + c, more + less);
}

const entryOf = ({ x, y, z, t }) => ({ sum: y + x, difference: y - x, zz: 2n * z, td: (2n * D * t) % P });

/** For each part of a number the point once to eight times, times the weight of that part. */
function tablesOf(point) {
  return Array.from({ length: PARTS }, (_, part) => {
    for (let bit = 0; part && bit < 4 * DIGITS; bit++) point = doubled(point);
    const [first, multiples] = [entryOf(point), [point]];
    while (multiples.length < 8) multiples.push(added(multiples.at(-1), first, 1));
    return multiples.map(entryOf);
  });
}

// By key: a receipt has few of them, and several signatures by each.
const known = new Map();

/** The tables of a key; null for bytes that are no point. */
function tablesOfKey(key) {
  const name = String(key);
  if (!known.has(name)) {
    const point = pointOf(key);
    known.set(name, point && tablesOf(point));
  }
  return known.get(name);
}

function digitsOf(number) {
  const digits = Array.from(number.toString(16).padStart(64, "0"), (digit) => parseInt(digit, 16)).reverse();
  for (let at = 0; at < 63; at++) {
    if (digits[at] < 8) continue;
    digits[at] -= 16;
    digits[at + 1] += 1;
  }
  return digits;
}

/** `s` times the base less `k` times the key, both numbers below the order. */
function difference(s, k, key) {
  const terms = [[tablesOfKey(BASE), digitsOf(s)], [key, digitsOf(k).map((digit) => -digit)]];
  let found = { x: 0n, y: 1n, z: 1n, t: 0n };
  for (let at = DIGITS - 1; at >= 0; at--) {
    for (let bit = 0; bit < 4; bit++) found = doubled(found);
    for (const [tables, digits] of terms) {
      tables.forEach((table, part) => {
        const digit = digits[at + part * DIGITS];
        if (digit) found = added(found, table[Math.abs(digit) - 1], digit);
      });
    }
  }
  return found;
}

/** Whether the signature, 64 bytes, is the key's of the message. */
export function verify(signature, message, publicKey) {
  const [r, s] = [signature.subarray(0, 32), numberOf(signature.subarray(32))];
  const key = tablesOfKey(publicKey);
  if (key === null || s >= ORDER) return false;
  const k = numberOf(sha512(Uint8Array.of(...r, ...publicKey, ...message))) % ORDER;
  const { x, y, z } = difference(s, k, key);
  const [power, of11] = powers(z);
  const inverse = raised(power, 5, of11);
  // The coordinate and the sign of the other one: a point has no second form here.
  return mod(y * inverse) + ((mod(x * inverse) & 1n) << 255n) === numberOf(r);
}
