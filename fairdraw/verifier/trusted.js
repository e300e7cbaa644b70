// What is left to trust after a check, for people, and the one line on what was checked. For both pages.

import { asOf, isConfirmation, isNotYet, unreadOf } from "./confirmed.js";
import { company, NO_EVENT } from "./receipt.js";
import { STRINGS } from "./strings.js";

// Steps of what a receipt may lack.
const LACKS = {
  opened: ({ opened }) => !opened.length,
  registration: ({ registration }) => registration === null,
  log: ({ log }) => log === null,
  witnesses: ({ log }) => log === null,
};

/** Titles and sentences of a step; `absent` where the receipt has nothing that it could check. `receipt` may be a confirmation. */
export function wordsOf(name, receipt = null) {
  const [, kind, phase] = /^(outcome|result|strike)-(.+)$/.exec(name) ?? [];
  if (kind) return { ...STRINGS.steps[kind], title: STRINGS.steps[kind].title(phase) };
  const words = STRINGS.steps[name] ?? { title: name, fan: "", failed: "", auditor: "" };
  if (isConfirmation(receipt)) return { ...words, ...words.ofConfirmation, absent: null };
  return { ...words, absent: receipt !== null && LACKS[name]?.(receipt) ? words.absent : null };
}

/** The verdict in words: `{mark, headline, summary, state}`; `state` is passed, failed or none, and never a warning. */
export function verdictOf({ verdict, steps, receipt, findings }) {
  const unchecked = steps.filter((step) => step.state === "unchecked");
  const passed = { holds: findings.length ? "noted" : "holds", incomplete: unchecked.length ? "incomplete" : "fits" };
  const kind = passed[verdict] ?? verdict;
  const words = { ...STRINGS.verdicts[kind], ...(receipt === null && STRINGS.unreadable) };
  const { mark, summary } = words;
  const headline = isConfirmation(receipt) && words.otherHeadline ? words.otherHeadline : words.headline;
  const of = summary(STRINGS.countOfSteps(steps.length), isConfirmation(receipt) ? "confirmation" : "receipt");
  const at = { fails: "failed", incomplete: "unchecked" }[kind];
  const named = receipt === null || !at ? [] : steps.filter((step) => step.state === at);
  const titles = named.map((step) => wordsOf(step.name, receipt).title).join(", ");
  const list = titles && `\n${STRINGS.states[at]}: ${titles}.`;
  return { mark, headline, summary: of + list, state: { holds: "passed", fails: "failed" }[kind] ?? "none" };
}

/** What came of a confirmation: whether the entry is in the list, since when, and who saw that. */
export function registeredWords(steps, listed) {
  if (steps[0].state !== "passed") return isNotYet(steps[0]) ? STRINGS.notRegistered : STRINGS.notLooked;
  if (!listed) return STRINGS.registered;
  const [clock, day] = [{ hour: "2-digit", minute: "2-digit" }, { day: "numeric", month: "long", year: "numeric" }];
  // As clock and calendar show it here.
  const time = new Date(listed.at);
  return STRINGS.listed(`${time.toLocaleTimeString("en-GB", clock)} on ${time.toLocaleDateString("en-GB", day)}`, listed.by);
}

/** The things that no receipt shows, or not this one, each `{title, text, act}`: those with an act first. */
export function leftToTrust({ steps, keys, findings, limits, receipt }, compared) {
  const { trust } = STRINGS;
  const given = (by) => keys.some((key) => key.given === by);
  const unseen = steps.some(({ name, state }) => name === "witnesses" && state !== "passed");
  if (isConfirmation(receipt)) {
    const items = [
      findings.length && trust.noted(findings),
      ...unreadOf(limits).map(trust.unread),
      ...asOf(limits).map(trust.asOf),
      given("log") && trust.keys,
      trust.page,
      trust.inTheDraw,
      trust.list,
      unseen && trust.noWitness,
    ];
    return items.filter(Boolean);
  }
  const passed = (name) => steps.some((step) => step.name === name && step.state === "passed");
  const drawn = receipt.kind === "draw";
  const phases = (drawn ? receipt.phases.length : receipt.phases.length + 1);
  const items = [
    findings.length && trust.findings(findings),
    given("receipt") && trust.keys,
    receipt.opened.length ? !compared && trust.campaign : trust.notOpened,
    limits.includes(NO_EVENT) && trust.noEvent,
    drawn && trust.together(company(receipt.together)),
    trust.page,
    trust.list,
    receipt.registration === null && trust.notRegistered,
    (!passed("log") || unseen) && trust.noLog,
    unseen && trust.noWitness,
    drawn && ["STRUCK", "UNCLAIMED"].includes(receipt.outcome) && trust.strike,
    !drawn && trust.judgement,
    phases > 1 && trust.chosenLater,
    drawn && trust.replay,
    trust.later(phases),
  ].filter(Boolean);
  return [...items.filter((each) => each.act), ...items.filter((each) => !each.act)];
}
