// The public page of a draw: looks a ref up, checks its receipt or one from a file, and replays the draw in a worker.
import { isId } from "./fields.js";
import { receiptIn, textOf } from "./given.js";
import { ProofTiles } from "./lookup.js";
import { checkReceipt, shownState } from "./receipt.js";
import { replayDraw } from "./replay.js";
import { STRINGS } from "./strings.js";

const SITE_TEXT = {
  absent: "This reference is not in the draw: its neighbours in the list are next to each other.",
  capitals: "Capitals count in a reference: compare it with your confirmation.",
  absentWhy: "Why an entry was left out is not public. Ask the organiser for your receipt: it gives the reason.",
  noRef: "A reference has 1 to 64 of the characters A-Z a-z 0-9 _ -, as in your confirmation.",
  looking: "Fetching the proof and checking it …",
  fromDisk: "A page from disk cannot fetch the proofs: open it from a host of files, or check a receipt from a file.",
  replayFromDisk: "A page from disk cannot fetch the lists: open it from a host of files.",
  failed: (what, why) => `${what} could not be read: ${why}. Reload the page, and try again.`,
  proofs: "The proofs",
  files: "The files of the draw",
  save: "Save this receipt, to check it elsewhere",
  replayed: (count, phases) => {
    const draw = `${count.toLocaleString("en")} entries, ${phases === 1 ? "one phase" : `${phases} phases`}`;
    return `${draw}: every result follows from the committed list and the seed.`;
  },
  hashes: ({ phase, manifestHash, resultHash }) => `phase ${phase}: manifestHash ${manifestHash}, resultHash ${resultHash}`,
  differs: "These files do not follow from the committed list and the seed:",
  compare: "Compare these hashes with a copy from the time when they became public.",
};

/** The bytes of a range of a file beside `base`; also from a server that sends whole files only. */
export async function fetched(base, name, start, end) {
  const ranged = start !== undefined;
  const answer = await fetch(new URL(name, base), { headers: ranged ? { Range: `bytes=${start}-${end - 1}` } : {} });
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  if (!ranged) return bytes;
  const partial = answer.status === 206;
  const part = partial ? bytes : bytes.subarray(start, end);
  const other = partial && !answer.headers.get("Content-Range")?.startsWith(`bytes ${start}-${end - 1}/`);
  if (other || part.length !== end - start) {
    throw new Error(`${name}: the host sent other bytes than ${start} to ${end - 1}`);
  }
  return part;
}

function element(name, text, className = "") {
  return Object.assign(document.createElement(name), { textContent: text, className });
}

function stepItem(step) {
  const { name, detail } = step;
  const state = shownState(step);
  const words = STRINGS.steps[name] ?? {};
  const [, phase] = /^outcome-(.+)$/.exec(name) ?? [];
  const title = phase ? STRINGS.steps.outcome.title(phase) : words.title ?? STRINGS.steps["randomness-drand"].title;
  const item = element("li", `${title}: `);
  const mark = element("span", STRINGS.marks[state], `mark ${{ passed: "good", failed: "bad" }[state] ?? ""}`);
  mark.ariaHidden = "true";
  item.prepend(mark);
  item.append(element("span", STRINGS.states[state].toLowerCase(), "state"), element("div", detail, "detail"));
  return item;
}

function showAnswer(text, { steps, limits, receipt }) {
  const drawn = receipt?.kind === "draw";
  // What a ref alone gives does not have the reason of an exclusion.
  const shown = drawn || receipt?.reasons?.length ? steps : steps.filter((step) => step.name !== "reason");
  const has = (state) => shown.some((step) => step.state === state);
  const verdict = has("failed") ? "fails" : has("unchecked") ? "incomplete" : "holds";
  const { headline, summary } = receipt === null ? STRINGS.unreadable : STRINGS.verdicts[verdict];
  const parts = [element("p", headline, verdict === "fails" ? "bad outcome" : "good outcome"), element("p", summary)];
  if (verdict !== "fails") {
    const outcome = drawn ? [STRINGS.outcomes[receipt.outcome], receipt.market].filter(Boolean).join(": ") : SITE_TEXT.absent;
    parts.unshift(element("p", outcome, "outcome"));
    if (!drawn) parts.push(element("p", SITE_TEXT.capitals), element("p", SITE_TEXT.absentWhy));
    if (receipt.annulled) parts.unshift(element("p", STRINGS.annulled, "bad"));
  }
  const [list, all] = [element("ol", "", "checks"), element("details", "")];
  list.append(...shown.map(stepItem));
  all.append(element("summary", STRINGS.checksTitle), list, ...limits.map((limit) => element("p", limit, "muted")));
  all.open = verdict === "fails";
  const save = element("a", SITE_TEXT.save);
  save.download = "receipt.json";
  save.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  parts.push(save, all);
  document.getElementById("answer").replaceChildren(...parts);
  document.documentElement.dataset.verdict = verdict;
}

/** The curves of signatures, once `unpack.js` has unpacked them; null in a build without them. */
async function unpackedCurves() {
  const packed = document.querySelector('script[type="application/gzip"]');
  for (let tries = 0; packed && !globalThis.curves && tries < 200; tries++) await new Promise((next) => setTimeout(next, 25));
  return globalThis.curves ?? null;
}

/** Show what came of a receipt, which `work` resolves to, or why there is none: what it throws as a text. */
async function answerWith(work, { looked = false } = {}) {
  const answer = document.getElementById("answer");
  delete document.documentElement.dataset.verdict;
  answer.textContent = SITE_TEXT.looking;
  try {
    const text = await work();
    const checked = checkReceipt(text, { curves: await unpackedCurves() });
    // This page made the receipt of them: it is no one's, so there is no verdict about it.
    if (looked && checked.receipt === null) throw new Error(checked.steps[0].detail);
    showAnswer(text, checked);
  } catch (error) {
    answer.textContent = typeof error === "string" ? error : SITE_TEXT.failed(SITE_TEXT.proofs, error.message);
  }
  // On a phone the form fills the screen.
  answer.scrollIntoView({ block: "nearest" });
}

function startReplay(phases) {
  const [button, bar, said] = ["replay", "progress", "replayed"].map((id) => document.getElementById(id));
  if (location.protocol === "file:") return said.replaceChildren(element("p", SITE_TEXT.replayFromDisk));
  // The same code as here, which sees that it is in a worker; before it the curves, if they are unpacked.
  const scripts = [...document.querySelectorAll("head script"), document.getElementById("code")];
  const code = scripts.map((script) => script.textContent).join("\n");
  const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  const end = (...parts) => {
    worker.terminate();
    button.disabled = false;
    bar.hidden = true;
    said.replaceChildren(...parts);
  };
  button.disabled = true;
  bar.hidden = false;
  worker.onerror = (event) => end(element("p", SITE_TEXT.failed(SITE_TEXT.files, event.message), "bad"));
  worker.onmessage = ({ data: { share, what, found, failure } }) => {
    if (failure) return end(element("p", SITE_TEXT.failed(SITE_TEXT.files, failure), "bad"));
    if (!found) {
      bar.value = share;
      said.textContent = what;
      return;
    }
    const { passed, count, findings, notes } = found;
    const lines = passed ? [...found.phases.map(SITE_TEXT.hashes), SITE_TEXT.compare, ...notes] : findings.map((each) => `${each.artefact}: ${each.message}`);
    const headline = passed ? SITE_TEXT.replayed(count, found.phases.length) : SITE_TEXT.differs;
    end(element("p", headline, passed ? "good outcome" : "bad outcome"), ...lines.map((line) => element("p", line, "detail")));
    document.documentElement.dataset.replay = passed ? "holds" : "fails";
  };
  worker.postMessage({ base: String(new URL("..", document.baseURI)), phases });
}

function startPage() {
  const tiles = new ProofTiles((name, start, end) => fetched(document.baseURI, name, start, end));
  const [form, input, file] = ["check", "ref", "file"].map((id) => document.getElementById(id));
  const lookedUp = async () => {
    const ref = input.value.trim();
    if (!isId(ref)) throw SITE_TEXT.noRef;
    if (location.protocol === "file:") throw SITE_TEXT.fromDisk;
    return (await tiles.receipt(ref)).text;
  };
  const look = () => answerWith(lookedUp, { looked: true });
  for (const each of document.querySelectorAll("[data-script]")) each.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    look();
  });
  // The same file may be chosen again, after a change.
  file.addEventListener("change", async () => {
    const [chosen] = file.files;
    if (!chosen) return;
    await answerWith(async () => receiptIn(await textOf(chosen)));
    file.value = "";
  });
  document.getElementById("replay").addEventListener("click", (event) => startReplay(Number(event.target.dataset.phases)));
  // A link to one's own result: what follows # stays in the browser.
  const follow = () => {
    const [, ref] = /^#ref=(.+)$/.exec(location.hash) ?? [];
    if (!ref) return;
    input.value = ref;
    look();
  };
  addEventListener("hashchange", follow);
  follow();
}

function workOnReplay({ data: { base, phases } }) {
  const onProgress = (share, what) => postMessage({ share, what });
  replayDraw((name) => fetched(base, name), phases, { onProgress, curves: globalThis.curves ?? null }).then(
    (found) => postMessage({ found }),
    (error) => postMessage({ failure: error.message }),
  );
}

if (typeof document !== "undefined") startPage();
else if (typeof postMessage === "function") globalThis.onmessage = workOnReplay;
