// SHA-256 (FIPS 180-4). Plain loops over 32-bit words: a replay of a draw hashes millions of short texts.

const ROUND_CONSTANTS = new Int32Array([
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
]);
const FIRST_STATE = [
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
];
const HEX_OF_BYTE = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
const schedule = new Int32Array(64);
const encoder = new TextEncoder();

function compress(state, data, offset) {
  for (let t = 0, at = offset; t < 16; t++, at += 4) {
    schedule[t] = (data[at] << 24) | (data[at + 1] << 16) | (data[at + 2] << 8) | data[at + 3];
  }
  for (let t = 16; t < 64; t++) {
    const x = schedule[t - 15];
    const y = schedule[t - 2];
    const low = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
    const high = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
    schedule[t] = (schedule[t - 16] + low + schedule[t - 7] + high) | 0;
  }
  let a = state[0];
  let b = state[1];
  let c = state[2];
  let d = state[3];
  let e = state[4];
  let f = state[5];
  let g = state[6];
  let h = state[7];
  for (let t = 0; t < 64; t++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const one = (h + s1 + ((e & f) ^ (~e & g)) + ROUND_CONSTANTS[t] + schedule[t]) | 0;
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const two = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + one) | 0;
    d = c;
    c = b;
    b = a;
    a = (one + two) | 0;
  }
  state[0] = (state[0] + a) | 0;
  state[1] = (state[1] + b) | 0;
  state[2] = (state[2] + c) | 0;
  state[3] = (state[3] + d) | 0;
  state[4] = (state[4] + e) | 0;
  state[5] = (state[5] + f) | 0;
  state[6] = (state[6] + g) | 0;
  state[7] = (state[7] + h) | 0;
}

/**
 * A hash over parts: `update` as often as needed, then `finish`. `from` takes over what another one has read, so that
 * millions of texts with one beginning are hashed without reading it, or allocating, each time.
 */
export class Sha256 {
  constructor() {
    this.state = Int32Array.from(FIRST_STATE);
    this.block = new Uint8Array(64);
    this.length = 0;
  }

  from(other) {
    this.state.set(other.state);
    this.block.set(other.block);
    this.length = other.length;
    return this;
  }

  update(bytes, start = 0, end = bytes.length) {
    let filled = this.length % 64;
    this.length += end - start;
    if (filled) {
      while (filled < 64 && start < end) this.block[filled++] = bytes[start++];
      if (filled < 64) return this;
      compress(this.state, this.block, 0);
    }
    for (; start + 64 <= end; start += 64) compress(this.state, bytes, start);
    for (filled = 0; start < end; ) this.block[filled++] = bytes[start++];
    return this;
  }

  /** Write 32 bytes to `out` from `at` on, and return it. */
  finish(out = new Uint8Array(32), at = 0) {
    const { block, state, length } = this;
    let filled = length % 64;
    block[filled++] = 0x80;
    block.fill(0, filled);
    if (filled > 56) {
      compress(state, block, 0);
      block.fill(0);
    }
    // The length in bits, big-endian: below 2^53, so in two words.
    const high = Math.floor(length / 0x20000000);
    const low = length << 3;
    for (let i = 0; i < 4; i++) {
      block[56 + i] = high >>> (24 - 8 * i);
      block[60 + i] = low >>> (24 - 8 * i);
    }
    compress(state, block, 0);
    for (let i = 0; i < 32; i++) out[at + i] = state[i >> 2] >>> (24 - 8 * (i & 3));
    return out;
  }
}

/** The 32 bytes of the hash of a Uint8Array. */
export function sha256(bytes) {
  return new Sha256().update(bytes).finish();
}

/** The hash of a text (in UTF-8) or of bytes, as 64 lower-case hex digits. */
export function sha256Hex(data) {
  return toHex(sha256(typeof data === "string" ? utf8(data) : data));
}

export function utf8(text) {
  return encoder.encode(text);
}

export function toHex(bytes) {
  let text = "";
  for (const byte of bytes) text += HEX_OF_BYTE[byte];
  return text;
}

/** The bytes of a text whose characters are bytes, such as atob() gives. */
export function fromBinary(text) {
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  return bytes;
}

/** The bytes of a text of hex digits. */
export function fromHex(text) {
  return Uint8Array.from({ length: text.length / 2 }, (_, at) => parseInt(text.slice(2 * at, 2 * at + 2), 16));
}
