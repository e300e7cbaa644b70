// Whose signatures count: the keys of a log, and the quorum of its witnesses, as in log/keys.py and log/policy.py; and the
// trust file of proof/logged.py.

import { leadOf, QUICKNET_HASH } from "./beacon.js";
import { parseJson } from "./canonical.js";
import { drawError, fieldsOf, shown } from "./fields.js";
import { COSIGNATURES, kindName, LOG_KEY, noteError, parseKey } from "./note.js";
import { fromHex, sha256Hex, toHex, utf8 } from "./sha256.js";

export const LOG_KEYS = ["log", "need", "witnesses"];
export const WEAK_QUORUM =
  "two sets of witnesses that share none are each enough: the operator alone can show two people two logs";
const NO_LOG_KEY =
  "log: witnesses, and no key of the log: a second log of the operator's could have the same witnesses";
const TRUST_FILE = "trust file";

// A quorum is `{need, members}`: at least that number of its members, each a key or a quorum. No key is in it twice.

/** The keys of all witnesses of a quorum. */
export function witnessesOf({ members }) {
  return members.flatMap((each) => (each.members ? witnessesOf(each) : [each]));
}

/** How many witnesses at least have to collude with the operator for two histories of the log; 0: none has to. */
export function colludersOf({ need, members }) {
  // A member counts for both histories at its own price, and for one of them for nothing.
  const prices = members.map((each) => (each.members ? colludersOf(each) : 1)).sort((one, other) => one - other);
  return prices.slice(0, Math.max(0, 2 * need - prices.length)).reduce((sum, each) => sum + each, 0);
}

/** When enough had cosigned, by the time of each key; infinite for never. */
export function metAt({ need, members }, times) {
  if (!need) return -Infinity;
  const found = members.map((each) => (each.members ? metAt(each, times) : times.get(each) ?? Infinity));
  return found.sort((one, other) => (one < other ? -1 : one > other ? 1 : 0))[need - 1];
}

/** A quorum in words. */
export function quorumText({ need, members }) {
  return `${need} of ${members.length}${members.some((each) => each.members) ? " groups" : ""}`;
}

/** The keys of a receipt's log: `{log, quorum}`. */
export function readKeys(fields) {
  const witnesses = keysIn(fields, "witnesses", COSIGNATURES);
  const need = fields.integer("need");
  if (need > witnesses.length) {
    fields.refuse("need", `${need} witnesses of ${witnesses.length} cannot be needed`);
  }
  return { log: keysIn(fields, "log", [LOG_KEY]), quorum: { need, members: witnesses } };
}

function keysIn(fields, name, kinds) {
  const found = fields.list(name).map((text) => {
    if (typeof text !== "string") fields.refuse(name, "texts of keys are needed");
    return refusedAt(fields, name, () => keyOf(text, kinds));
  });
  refusedAt(fields, name, () => requireDistinct(found, name === "witnesses"));
  return found;
}

/** The error of a note, as one of the field that it is in. */
export function refusedAt(fields, name, parse) {
  try {
    return parse();
  } catch (error) {
    return fields.refuse(name, error.message);
  }
}

function keyOf(text, kinds) {
  const key = parseKey(text);
  if (!kinds.includes(key.kind)) {
    throw noteError(`the key of ${key.name} has type ${kindName(key.kind)}, not ${kinds.map(kindName).join(" or ")}`);
  }
  return key;
}

function requireDistinct(keys, names) {
  const seen = new Map();
  for (const { name, publicKey } of keys) {
    // A name holds no space.
    for (const mark of [` ${toHex(publicKey)}`, ...(names ? [name] : [])]) {
      if (seen.has(mark)) throw noteError(`${name} and ${seen.get(mark)} are the same: one would count as two`);
      seen.set(mark, name);
    }
  }
}

/** Read the text of a trust file, or of a policy (C2SP tlog-policy). Throws an error with what was found; null: no file. */
export function parseTrust(text) {
  if (text === null) return { leads: new Map(), log: [], quorum: { need: 0, members: [] } };
  if (/^[ \t-\r]*\{/.test(text)) return parseTrustFile(text);
  const found = parsePolicy(text);
  if (found.quorum.need && !found.log.length) throw drawError(TRUST_FILE, NO_LOG_KEY);
  return { leads: new Map(), ...found };
}

/** The least number of seconds from the commit to the round of a chain; null if it is unknown. */
export const trustedLead = (trust, chainHash) => trust.leads.get(chainHash) ?? leadOf(chainHash);

function parseTrustFile(text) {
  let document;
  try {
    document = parseJson(text);
  } catch {
    throw drawError(TRUST_FILE, "not a JSON document");
  }
  const keys = ["beacon", ...LOG_KEYS];
  const fields = fieldsOf(TRUST_FILE, "", document, keys);
  const chains = fields.nested("beacon");
  const leads = new Map();
  for (const chain of chains.names) {
    const lead = chains.nested(chain, ["lead"]).integer("lead", 1);
    const least = leadOf(QUICKNET_HASH);
    if (chain === QUICKNET_HASH && lead < least) {
      chains.refuse(chain, `a lead of at least ${least} s is needed for quicknet`);
    }
    leads.set(chain, lead);
  }
  // An address may follow a key: where the witness can be asked.
  const witnesses = fields.list("witnesses").map((each) => (typeof each === "string" ? each : shown(each)).split(" ")[0]);
  const found = readKeys(fieldsOf(TRUST_FILE, "", new Map(document).set("witnesses", witnesses), keys));
  const { need, members } = found.quorum;
  if (members.length && 2 * need <= members.length) {
    fields.refuse("need", `${need} of ${members.length} witnesses: more than half are needed, else ${WEAK_QUORUM}`);
  }
  if (members.length && !found.log.length) fields.refuse("", NO_LOG_KEY);
  return { leads, ...found };
}

function parsePolicy(text) {
  const [log, named, members] = [[], new Map(), new Set()];
  let quorum = null;
  const refuse = (why) => {
    throw noteError(why);
  };
  const define = (name, meant) => {
    if (name === "none" || named.has(name)) refuse(`the name ${shown(name)} is taken`);
    named.set(name, meant);
  };
  const defined = (name) => named.get(name) ?? refuse(`no line before this one defines ${shown(name)}`);
  const member = (name) => {
    if (members.has(name)) refuse(`${shown(name)} is a member already`);
    members.add(name);
    return defined(name);
  };
  const numberOf = (need, most) => {
    const wanted = new Map([["all", most], ["any", 1]]).get(need) ?? (/^[0-9]+$/.test(need) ? Number(need) : 0);
    if (wanted >= 1 && wanted <= most) return wanted;
    return refuse(`${shown(need.slice(0, 20))} is neither all, any, nor a number from 1 to ${most}`);
  };
  const read = (words) => {
    const [kind, name, third, ...rest] = words;
    if (!words.length || kind.startsWith("#")) return;
    if (kind === "log" && (words.length === 2 || words.length === 3)) log.push(keyOf(name, [LOG_KEY]));
    else if (kind === "witness" && (words.length === 3 || words.length === 4)) define(name, keyOf(third, COSIGNATURES));
    else if (kind === "group" && rest.length) {
      const found = rest.map(member);
      define(name, { need: numberOf(third, found.length), members: found });
    } else if (kind === "quorum" && words.length === 2) {
      if (quorum !== null) refuse("a second quorum");
      const chosen = name === "none" ? { need: 0, members: [] } : defined(name);
      quorum = chosen.members ? chosen : { need: 1, members: [chosen] };
    } else refuse(`${shown(words.join(" ").slice(0, 80))} is no line of a policy`);
  };
  const attempt = (where, run) => {
    try {
      run();
    } catch (error) {
      throw drawError("policy", where + error.message);
    }
  };
  if (/[\x00-\x08\x0b-\x1f\x7f]/.test(text)) {
    throw drawError("policy", "a control character other than tab and line feed");
  }
  // Names are octets: no two texts that look alike are one.
  const octets = Array.from(utf8(text), (octet) => String.fromCharCode(octet)).join("");
  octets.split("\n").forEach((line, at) => attempt(`line ${at + 1}: `, () => read(line.split(/[ \t]/).filter(Boolean))));
  if (quorum === null) throw drawError("policy", "no line says the quorum");
  attempt("", () => requireDistinct(log, false));
  attempt("", () => requireDistinct(witnessesOf(quorum), true));
  return { log, quorum };
}

/** A key that a check relies on, for people; `given` says who gave it: `receipt`, `rules` or `trust`. */
export function trustedKey(what, name, publicKey, given) {
  return { what, name, fingerprint: sha256Hex(publicKey).slice(0, 16).match(/.{4}/g).join(" "), given };
}

/** The key of a draw's beacon. */
export function beaconKey(trust, chainHash, chain) {
  const given = chainHash === QUICKNET_HASH ? "rules" : trust.leads.has(chainHash) ? "trust" : "receipt";
  return trustedKey("beacon", chain.beaconId, fromHex(chain.publicKey), given);
}
