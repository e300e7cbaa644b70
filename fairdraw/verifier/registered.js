// Registrations: what the tree has of one, as in maths/registration.py, and the one in a receipt, as in
// proof/registered.py.

import { drawError, isAny, isAscii, short, uncheckedError } from "./fields.js";
import { verifyInclusion } from "./merkle.js";
import { sha256Hex } from "./sha256.js";

export const NO_REGISTRATIONS =
  "the campaign logged no registrations: that no entry was left out before the commit is the operator's word alone";
export const NOT_SHOWN =
  "the receipt has no registration: the fan's confirmation shows whether the entry was in the list before the draw";
export const isRegistrationSalt = (text) => /^[0-9a-f]{32}$/.test(text);
const NOTICE = /^vfnote1\|(0|[1-9][0-9]{0,15})\|(?:(withdrawn|erased)\|-|unit\|([0-9a-f]{64}))$/;
const SHOWN = ["at", "index", "leaf", "notices", "proof", "salt"];
const OUTSIDE = ["excluded", "withdrawn", "erased"];
const NOTED = {
  withdrawn: "the entry was taken back",
  erased: "the entry was erased",
  unit: "the entry got another unit",
};

function contradicted(message) {
  throw drawError("receipt", message);
}

/** What the tree has for an entry. */
export function registrationLeaf(campaignId, ref, unit, at, salt) {
  return sha256Hex(`vfreg1|${campaignId}|${ref}|${unit}|${at}|${salt}`);
}

/** A notice, `{about, kind, leaf}` with the index of its registration; null for what is none. */
export function registrationNotice(text) {
  const found = NOTICE.exec(text);
  return found && { about: Number(found[1]), kind: found[2] ?? "unit", leaf: found[3] ?? null };
}

/** One registration and the notices about it, each with its own `index`, in the order of the tree. */
export class Registration {
  constructor(index, leaf) {
    Object.assign(this, { index, leaf, notices: [] });
  }

  /** `withdrawn` or `erased`; null as long as it counts. */
  get ended() {
    const kind = this.notices.at(-1)?.kind ?? "unit";
    return kind === "unit" ? null : kind;
  }

  /** What is recomputed from ref, unit, time and salt. */
  get current() {
    return this.notices.findLast((each) => each.leaf)?.leaf ?? this.leaf;
  }

  /** Add the notice at index `at`. Throws if it may not follow. */
  note(at, notice) {
    const last = this.notices.at(-1)?.index ?? this.index;
    if (notice.about !== this.index || at <= last) {
      throw drawError("registrations", `entry ${at} is no notice about entry ${this.index} that follows ${last}`);
    }
    if (this.ended !== null) {
      throw drawError("registrations", `entry ${at} is a notice about entry ${this.index}, which was ${this.ended} before`);
    }
    this.notices.push({ ...notice, index: at });
  }

  /** A line for each notice. */
  get noted() {
    return this.notices.map(({ index, kind }) => `entry ${index}: ${NOTED[kind]}`);
  }
}

/** The key `registration` of a receipt, null for none: `check(ref, unit, manifest)` returns the detail of the step. */
export function parseRegistration(fields) {
  if (fields.raw("registration") === null) return null;
  const drawn = fields.raw("kind") === "draw";
  const { names } = fields.nested("registration");
  if (!drawn && names.includes("class")) {
    return parseOutside(fields.nested("registration", ["class", "index", "reason"]));
  }
  const more = !drawn && names.includes("unit") ? ["unit"] : [];
  const own = fields.nested("registration", [...SHOWN, ...more]);
  const [at, salt] = [own.time("at"), own.text("salt", isRegistrationSalt, "32 lower-case hex digits")];
  const found = new Registration(own.integer("index"), own.hash("leaf"));
  const proven = [[found.index, found.leaf, own.list("proof")]];
  for (const each of own.objects("notices", ["index", "proof", "text"])) {
    const text = each.text("text", isAscii, "a notice");
    const notice = registrationNotice(text) ?? own.refuse("notices", `${short(text)} is not a notice`);
    found.note(each.integer("index"), notice);
    proven.push([found.notices.at(-1).index, text, each.list("proof")]);
  }
  const stated = more.length ? own.text("unit", isAny, "a unit") : null;
  return { check: (...given) => checkShown({ at, salt, found, proven, stated }, ...given) };
}

// Check that the entry was in the tree that the manifest of phase 1 commits to; `unit` is null for one that was not drawn.
function checkShown({ at, salt, found, proven, stated }, ref, unit, manifest, values) {
  const { root, size } = required(manifest);
  values.push(["registered at", at], ["root", root]);
  for (const [index, text, proof] of proven) {
    values.push([`entry ${index}`, text]);
    if (!verifyInclusion(text, index, size, proof, root)) {
      contradicted(`the proof of entry ${index} of ${size} does not lead to the root ${root} of the registrations`);
    }
  }
  const leaf = registrationLeaf(manifest.campaignId, ref, unit ?? stated ?? ref, at, salt);
  const { index, current, ended, noted } = found;
  if (leaf !== current) {
    contradicted(`the leaf of entry ${index} does not follow from ref, unit, time and salt: it is another one`);
  }
  if (unit !== null && ended !== null) contradicted(`entry ${index} was ${ended} before the draw, and drawn`);
  return [`entry ${index} of ${size} in the list of registrations (from 0), registered at ${at}`, ...noted].join("\n");
}

// An entry without a leaf in the draw, whose registration cannot be shown any more.
function parseOutside(fields) {
  const ended = fields.text("class", (text) => OUTSIDE.includes(text), `one of ${OUTSIDE.join(", ")}`);
  const index = fields.integer("index");
  if (fields.raw("reason") !== null) fields.text("reason", isAscii, "a reason");
  return {
    check(_ref, _unit, manifest) {
      required(manifest);
      throw uncheckedError(
        `registration not shown: by the operator's word it is entry ${index}, which was ${ended}, and its salt is gone`,
      );
    },
  };
}

function required({ registrations }) {
  return registrations ?? contradicted("the receipt has a registration, and the manifest of phase 1 commits to none");
}

/** The hash of sizes/<size>.json. */
export const sizeHash = (campaignId, { root, size }) =>
  sha256Hex(`{"campaignId":"${campaignId}","root":"${root}","size":${size}}`);

/** What is wrong with the manifest's registrations where the log had the size with the hash `last` before it; or "". */
export function sizeProblem({ campaignId, registrations }, last) {
  if (registrations === null) {
    return last === null ? "" : "registrations: null is not what the log had last before the manifest";
  }
  const { root, size } = registrations;
  if (last === null && size === 0 && root === sha256Hex("")) return "";
  if (last === sizeHash(campaignId, registrations)) return "";
  return `registrations: ${size} entries with root ${root} are not what the log had last before the manifest`;
}
