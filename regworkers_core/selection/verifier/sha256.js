// SHA-256 (FIPS 180-4) for single values and for millions of them: one object hashes many, without allocation.

const SHA256_ROUNDS = Int32Array.of(
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
);
const SHA256_START = Int32Array.of(
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
);
const SHA256_WORDS = new Int32Array(64);
const SHA256_ENCODER = new TextEncoder();

function sha256Block(state, bytes, at) {
  const w = SHA256_WORDS;
  const k = SHA256_ROUNDS;
  for (let i = 0; i < 16; i++, at += 4) {
    w[i] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
  }
  for (let i = 16; i < 64; i++) {
    const x = w[i - 15];
    const y = w[i - 2];
    const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
    const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
    w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
  }
  let a = state[0], b = state[1], c = state[2], d = state[3];
  let e = state[4], f = state[5], g = state[6], h = state[7];
  for (let i = 0; i < 64; i++) {
    const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const t1 = (h + s1 + (g ^ (e & (f ^ g))) + k[i] + w[i]) | 0;
    const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const t2 = (s0 + ((a & b) | (c & (a | b)))) | 0;
    h = g; g = f; f = e; e = (d + t1) | 0;
    d = c; c = b; b = a; a = (t1 + t2) | 0;
  }
  state[0] += a; state[1] += b; state[2] += c; state[3] += d;
  state[4] += e; state[5] += f; state[6] += g; state[7] += h;
}

// `update` as often as needed, then `finish`. `from` takes over what another one has read: a common start is read once.
export class Sha256 {
  constructor() {
    this.state = new Int32Array(8);
    this.block = new Uint8Array(64);
    this.reset();
  }

  reset() {
    this.state.set(SHA256_START);
    this.length = 0;
    return this;
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
      sha256Block(this.state, this.block, 0);
    }
    for (; start + 64 <= end; start += 64) sha256Block(this.state, bytes, start);
    for (filled = 0; start < end; ) this.block[filled++] = bytes[start++];
    return this;
  }

  // Writes 32 bytes to `out` from `at` on and returns `out`.
  finish(out = new Uint8Array(32), at = 0) {
    const { block, state, length } = this;
    let filled = length % 64;
    block[filled++] = 0x80;
    if (filled > 56) {
      block.fill(0, filled);
      sha256Block(state, block, 0);
      filled = 0;
    }
    block.fill(0, filled, 56);
    const high = Math.floor(length / 0x20000000);
    const low = length << 3;
    for (let i = 0; i < 4; i++) {
      block[56 + i] = high >>> (24 - 8 * i);
      block[60 + i] = low >>> (24 - 8 * i);
    }
    sha256Block(state, block, 0);
    for (let i = 0; i < 32; i++) out[at + i] = state[i >> 2] >>> (24 - 8 * (i & 3));
    return out;
  }
}

export function utf8(text) {
  return SHA256_ENCODER.encode(text);
}

export function fromHex(text) {
  return Uint8Array.from({ length: text.length / 2 }, (_, at) => parseInt(text.slice(2 * at, 2 * at + 2), 16));
}

export function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function sha256(bytes) {
  return new Sha256().update(bytes).finish();
}

export function sha256Hex(textOrBytes) {
  return toHex(sha256(typeof textOrBytes === "string" ? utf8(textOrBytes) : textOrBytes));
}
