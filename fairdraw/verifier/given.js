// What a person gives to a page, a file or a text, and the receipt in it. What is refused is thrown as a sentence.

import { STRINGS } from "./strings.js";

const MOST_BYTES = 4_000_000;
const IN_A_PAGE = /<script type="application\/json" id="receipt">([^<]*)<\/script>/;

/** A text without the mark of its byte order (BOM) and the white space of JSON before it, as the check reads it. */
export function bare(text) {
  return text.replace(/^\ufeff?[ \t\r\n]*/, "");
}

export function parsedOrNull(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** The receipt in a text: JSON, or a page of the verifier. */
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
  if (receipt.kind === undefined || receipt.version === undefined) throw STRINGS.refused.other;
  return text;
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
