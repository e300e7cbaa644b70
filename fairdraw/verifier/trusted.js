// What is left to trust after a check, for people, and the one line on what was checked. For both pages.

import { company, NO_EVENT } from "./receipt.js";
import { STRINGS } from "./strings.js";

/** Titles and sentences of a step. */
export function wordsOf(name, logged = true) {
  const [, kind, phase] = /^(outcome|result|strike)-(.+)$/.exec(name) ?? [];
  if (kind) return { ...STRINGS.steps[kind], title: STRINGS.steps[kind].title(phase) };
  const words = STRINGS.steps[name] ?? { title: name, fan: "", failed: "", auditor: "" };
  return words.absent && !logged ? { ...words, unchecked: words.absent } : words;
}

/** The verdict in words: `{mark, headline, summary, state}`; `state` is passed, failed or none, and never a warning. */
export function verdictOf({ verdict, steps, receipt }) {
  const unchecked = steps.filter((step) => step.state === "unchecked");
  const kind = verdict === "incomplete" && !unchecked.length ? "fits" : verdict;
  const { mark, headline, summary } = { ...STRINGS.verdicts[kind], ...(receipt === null && STRINGS.unreadable) };
  const of = summary(STRINGS.countOfSteps(steps.length));
  const at = { fails: "failed", incomplete: "unchecked" }[kind];
  const named = receipt === null || !at ? [] : steps.filter((step) => step.state === at);
  const titles = named.map((step) => wordsOf(step.name).title).join(", ");
  const list = titles && `\n${STRINGS.states[at]}: ${titles}.`;
  return { mark, headline, summary: of + list, state: { holds: "passed", fails: "failed" }[verdict] ?? "none" };
}

/** The things that no receipt shows, or not this one, each `{title, text, act}`: those with an act first. */
export function leftToTrust({ steps, keys, findings, limits, receipt }, compared) {
  const { trust } = STRINGS;
  const passed = (name) => steps.some((step) => step.name === name && step.state === "passed");
  const drawn = receipt.kind === "draw";
  const phases = (drawn ? receipt.phases.length : receipt.phases.length + 1);
  const unwitnessed = steps.some(({ name, state }) => name === "witnesses" && state !== "passed");
  const items = [
    findings.length && trust.findings(findings),
    keys.some((key) => key.given === "receipt") && trust.keys,
    receipt.opened.length ? !compared && trust.campaign : trust.notOpened,
    limits.includes(NO_EVENT) && trust.noEvent,
    drawn && trust.together(company(receipt.together)),
    trust.page,
    trust.list,
    (!passed("log") || unwitnessed) && trust.noLog,
    unwitnessed && trust.noWitness,
    drawn && ["STRUCK", "UNCLAIMED"].includes(receipt.outcome) && trust.strike,
    !drawn && trust.judgement,
    phases > 1 && trust.chosenLater,
    drawn && trust.replay,
    trust.later(phases),
  ].filter(Boolean);
  return [...items.filter((each) => each.act), ...items.filter((each) => !each.act)];
}
