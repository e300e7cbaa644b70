// Signatures of ML-DSA-44, verified by algorithms 8 and 3 of FIPS 204, whose names these are; the context is empty. A
// library expands the matrix of a key for each signature: here it is kept, since a receipt has several signatures by a key.

import { shake128, shake256 } from "@noble/hashes/sha3.js";

const Q = 8_380_417;
const N = 256;
// Rows and columns of the matrix.
const [K, L] = [4, 4];
const [TAU, OMEGA, DROPPED_BITS] = [39, 80, 13];
const GAMMA1 = 2 ** 17;
const ALPHA = (Q - 1) / 44;
const MOST_Z = GAMMA1 - 2 * TAU - 1;
const [Z_BITS, T1_BITS, W1_BITS] = [18, 10, 6];
const [SEED_BYTES, HASH_BYTES] = [32, 64];
const KEY_BYTES = SEED_BYTES + (K * N * T1_BITS) / 8;
const HINTS_AT = SEED_BYTES + (L * N * Z_BITS) / 8;
const SIGNATURE_BYTES = HINTS_AT + OMEGA + K;
// Of SHAKE128, whose blocks are whole triples.
const BLOCK_BYTES = 168;

const listOf = (length, make) => Array.from({ length }, (_, at) => make(at));
// From 0 to Q - 1. Exact below 2^53: quotients are there wrong by less than 1 / Q, so no one reaches a whole number.
const mod = (number) => number - Math.floor(number / Q) * Q;

// The powers of 1753, a 512th root of unity, by their bits from right to left.
const ZETAS = (() => {
  const powers = [1];
  while (powers.length < N) powers.push(mod(powers.at(-1) * 1753));
  return powers.map((_, at) => powers[parseInt([...at.toString(2).padStart(8, "0")].reverse().join(""), 2)]);
})();

/** In place; each of 8 rounds adds at most Q to the size of a number. */
function ntt(w) {
  let next = 0;
  for (let length = N / 2; length; length >>= 1) {
    for (let start = 0; start < N; start += 2 * length) {
      const zeta = ZETAS[++next];
      for (let at = start; at < start + length; at++) {
        const t = mod(zeta * w[at + length]);
        w[at + length] = w[at] - t;
        w[at] += t;
      }
    }
  }
  return w;
}

/** Numbers from 0 to Q - 1, of such numbers. */
function inverseNtt(w) {
  let next = N;
  for (let length = 1; length < N; length *= 2) {
    for (let start = 0; start < N; start += 2 * length) {
      const zeta = ZETAS[--next];
      for (let at = start; at < start + length; at++) {
        const t = w[at];
        w[at] = mod(t + w[at + length]);
        w[at + length] = mod(zeta * (w[at + length] - t));
      }
    }
  }
  // 256 times this is 1.
  return w.map((each) => mod(each * 8_347_681));
}

/** Four polynomials of N numbers, each of `bits` bits, low bits first. */
function unpacked(bytes, bits) {
  let [next, held, buffer] = [0, 0, 0];
  return listOf(4, () => {
    const found = new Int32Array(N);
    for (let at = 0; at < N; at++) {
      for (; held < bits; held += 8) buffer |= bytes[next++] << held;
      found[at] = buffer & (2 ** bits - 1);
      buffer >>>= bits;
      held -= bits;
    }
    return found;
  });
}

function packed(numbers, bits) {
  const found = [];
  let [held, buffer] = [0, 0];
  for (const each of numbers) {
    buffer |= each << held;
    for (held += bits; held >= 8; held -= 8, buffer >>= 8) found.push(buffer & 0xff);
  }
  return found;
}

const hash = (dkLen, ...parts) => shake256(Uint8Array.from(parts.flatMap((each) => [...each])), { dkLen });

function rejNttPoly(seed) {
  const xof = shake128.create().update(seed);
  const found = new Int32Array(N);
  for (let filled = 0; filled < N; ) {
    const block = xof.xof(BLOCK_BYTES);
    for (let at = 0; at < BLOCK_BYTES && filled < N; at += 3) {
      const number = block[at] | (block[at + 1] << 8) | ((block[at + 2] & 0x7f) << 16);
      if (number < Q) found[filled++] = number;
    }
  }
  return found;
}

function sampleInBall(seed) {
  const xof = shake256.create().update(seed);
  const signs = xof.xof(8);
  const found = new Int32Array(N);
  for (let at = N - TAU, bit = 0; at < N; at++, bit++) {
    let place;
    do [place] = xof.xof(1);
    while (place > at);
    found[at] = found[place];
    found[place] = (signs[bit >> 3] >> (bit & 7)) & 1 ? -1 : 1;
  }
  return found;
}

/** For each row which numbers have a hint; null for any form but the only one. */
function hintsIn(bytes) {
  let from = 0;
  const found = listOf(K, (row) => {
    const end = bytes[OMEGA + row];
    const places = bytes.subarray(from, end);
    if (end < from || end > OMEGA || places.some((each, at) => at && each <= places[at - 1])) return null;
    from = end;
    const hints = new Uint8Array(N);
    for (const place of places) hints[place] = 1;
    return hints;
  });
  return found.includes(null) || bytes.subarray(from, OMEGA).some((each) => each) ? null : found;
}

function useHint(hint, r) {
  const rest = r % ALPHA;
  const low = rest > ALPHA / 2 ? rest - ALPHA : rest;
  // The highest numbers belong to 0, as those just below it.
  const high = (r - low) / ALPHA;
  return (high + (hint ? (low > 0 ? 1 : 43) : 0)) % 44;
}

const known = new Map();

/** What is the same for all signatures by a key. */
function expanded(key) {
  const name = String(key);
  if (!known.has(name)) {
    const seed = key.subarray(0, SEED_BYTES);
    known.set(name, {
      tr: hash(HASH_BYTES, key),
      t1: unpacked(key.subarray(SEED_BYTES), T1_BITS).map((each) => ntt(each.map((high) => high << DROPPED_BITS))),
      matrix: listOf(K, (row) => listOf(L, (column) => rejNttPoly(Uint8Array.of(...seed, column, row)))),
    });
  }
  return known.get(name);
}

/** Whether the signature is the key's of the message. */
export function verify(signature, message, publicKey) {
  if (publicKey.length !== KEY_BYTES || signature.length !== SIGNATURE_BYTES) return false;
  const seed = signature.subarray(0, SEED_BYTES);
  const z = unpacked(signature.subarray(SEED_BYTES), Z_BITS).map((each) => each.map((number) => GAMMA1 - number));
  const hints = hintsIn(signature.subarray(HINTS_AT));
  if (hints === null || z.some((each) => each.some((number) => Math.abs(number) > MOST_Z))) return false;
  const { tr, t1, matrix } = expanded(publicKey);
  const c = ntt(sampleInBall(seed));
  z.forEach(ntt);
  const w1 = matrix.map((columns, row) => {
    const w = new Float64Array(N);
    for (let at = 0; at < N; at++) {
      let sum = -mod(c[at] * t1[row][at]);
      for (let column = 0; column < L; column++) sum += mod(columns[column][at] * z[column][at]);
      w[at] = mod(sum);
    }
    return packed(Array.from(inverseNtt(w), (each, at) => useHint(hints[row][at], each)), W1_BITS);
  });
  const found = hash(SEED_BYTES, hash(HASH_BYTES, tr, [0, 0], message), ...w1);
  return found.every((byte, at) => byte === seed[at]);
}
