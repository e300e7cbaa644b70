// What a person gives to a page, a file or a text, and the receipt in it. What is refused is thrown as a sentence.

import { parseJson } from "./canonical.js";
import { uncheckedError } from "./fields.js";
import { plain } from "./receipt.js";
import { STRINGS } from "./strings.js";

// Of receipts, and of confirmations.
const KINDS = ["draw", "excluded", "registration"];
const MOST_BYTES = 4_000_000;
const IN_A_PAGE = /<script type="application\/json" id="receipt">([^<]*)<\/script>/;

/** A text without the mark of its byte order (BOM) and the white space of JSON before it, as the check reads it. */
export function bare(text) {
  return text.replace(/^\ufeff?[ \t\r\n]*/, "");
}

export function parsedOrNull(text) {
  try {
    return plain(parseJson(text));
  } catch {
    return null;
  }
}

/** The receipt or confirmation in a text, as its kind says: JSON, or a page of the verifier. */
export function receiptIn(text) {
  let found = bare(text);
  if (found === "") throw STRINGS.refused.empty;
  if (found.startsWith("<")) {
    text = IN_A_PAGE.exec(found)?.[1] ?? "";
    found = bare(text);
    if (found === "") throw STRINGS.refused.html;
  }
  const receipt = parsedOrNull(found);
  if (receipt === null) throw STRINGS.refused.text;
  if (!KINDS.includes(receipt.kind)) throw STRINGS.refused.other;
  return text;
}

/** The address of the folder with `draws`, `log` and `registrations`, of a page that is in it or beside a draw. */
export const rootOf = (address) => address.replace(/[?#].*$/, "").replace(/(?:draws\/[^/]+\/page\/)?[^/]*$/, "");

/** The bytes of a public file at an address, null for none. What cannot be read leaves a step unchecked. */
export async function fromHost(root, name) {
  let what = "does not answer";
  try {
    // An older copy of a file that grows would contradict the newer ones.
    const answer = await fetch(new URL(name, root), { cache: "no-cache" });
    if (answer.ok) return new Uint8Array(await answer.arrayBuffer());
    if ([403, 404].includes(answer.status)) return null;
    what = `answers ${answer.status}`;
  } catch {
    // Below: the address cannot be reached, or it broke off.
  }
  throw uncheckedError(`${name} could not be read: the host ${what}; try again`);
}

/** The files of a folder that a person chose, which has `draws`, `log` and `registrations` or is one of them. */
export function byName(files) {
  return new Map(files.map((file) => [file.webkitRelativePath.replace(/^.*?(?=(?:draws|log|registrations)\/)/, ""), file]));
}

/** The bytes of one of these, null for none. */
export async function fromFolder(files, name) {
  const found = files.get(name);
  return found ? new Uint8Array(await found.arrayBuffer()) : null;
}

/** The text of a file. */
export async function textOf(file, most = MOST_BYTES) {
  if (file.size > most) throw STRINGS.refused.big(Math.ceil(file.size / 1e6));
  let bytes;
  try {
    bytes = await file.arrayBuffer();
  } catch {
    throw STRINGS.refused.unreadable;
  }
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    if (!text.includes("\0")) return text;
  } catch {
    // Below: what is no UTF-8 is no receipt.
  }
  throw STRINGS.refused.binary;
}
