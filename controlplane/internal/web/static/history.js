// The history: accepted configurations, and what differs between two of them.

import * as details from "./details.js";
import { attribute, byId, el, text } from "./dom.js";
import { WindowedRows } from "./window.js";
import { ago, count, moment, plural, short } from "./words.js";

const columns = ["Revision", "Accepted", "Came from", "By", "Why", "Roll-out", "Endpoints", "Version"];
const origins = { file: "the file", apply: "apply", drain: "drain" };

// origin says where a revision came from.
const origin = (r) => origins[r.origin] ?? `${r.origin}${r.restores ? `, back to ${r.restores}` : ""}`;

export class HistoryTable {
  constructor() {
    Object.assign(this, { revisions: [], running: 0 });
    byId("history-head").append(...columns.map((title, i) => el("th", { scope: "col", class: classes[i] }, title)));
    this.rows = new WindowedRows(byId("history-rows"), { key: (r) => r.revision, create: () => this.create(), update: (row, r) => this.update(row, r) });
  }

  // run marks the revision that is desired now.
  run(revision) {
    this.running = revision;
    this.draw();
  }

  show({ kept, revisions }) {
    this.revisions = revisions;
    text(byId("history-shown"), kept ? "" : "Lost when the control plane restarts: it has no --state-dir.");
    this.draw();
  }

  draw() {
    this.rows.show(this.revisions);
  }

  create() {
    const row = el("tr", { role: "row" });
    classes.forEach((name, i) => {
      const cell = el(i ? "td" : "th", { class: name, scope: i ? null : "row", role: i ? "cell" : "rowheader" });
      if (!i) cell.append(el("button", { type: "button", class: "open", click: () => this.open(row.revision) }));
      row.append(cell);
    });
    return row;
  }

  update(row, r) {
    row.revision = r;
    const [number, accepted, from, by, why, outcome, endpoints, version] = row.children;
    text(number.firstChild, r.revision);
    attribute(row, "class", r.revision === this.running ? "running" : null);
    text(accepted, `${moment(r.acceptedAt)} · ${ago((Date.now() - new Date(r.acceptedAt)) / 1000)}`);
    text(from, origin(r));
    text(by, r.author || "–");
    text(why, r.message);
    attribute(why, "title", r.message || null);
    text(outcome, r.outcome || "–");
    attribute(outcome, "title", r.outcome || null);
    text(endpoints, count(r.endpoints));
    text(version, short(r.version));
  }

  open(r) {
    details.open(this);
    const before = this.revisions.filter((other) => other.revision < r.revision);
    details.describe(`Revision ${r.revision}`, [
      ["Accepted", `${moment(r.acceptedAt)}, ${ago((Date.now() - new Date(r.acceptedAt)) / 1000)}`],
      ["Came from", origin(r)],
      ["By", r.author || "–"],
      ["Why", r.message || "–"],
      ["Roll-out", r.outcome || "–"],
      ["Version", r.version],
      ["Text", `${plural(r.size, "byte")}, ${plural(r.endpoints, "endpoint")}`],
    ], before.length ? comparison(r, before) : el("p", { class: "sub" }, "There is no earlier one to compare it with."));
  }
}

const classes = ["revision", "accepted", "origin", "author", "message", "outcome", "pool", "version"];

// comparison shows what differs from an earlier revision, which can be chosen.
function comparison(r, before) {
  const choice = el("select", {}, ...before.map((other) => el("option", { value: other.revision }, `revision ${other.revision}`)));
  const place = el("div", { class: "differences", role: "status" });
  const compare = () => load(`/api/v1/diff?from=${choice.value}&to=${r.revision}`, place);
  choice.addEventListener("change", compare);
  compare();
  return el("section", {}, el("label", { class: "versus" }, "What it changes, compared with ", choice), place);
}

async function load(url, place) {
  place.replaceChildren(el("p", { class: "sub" }, "comparing"));
  const turn = (place.turn = {});
  let content;
  try {
    const answer = await fetch(url, { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    content = differences(await answer.json());
  } catch (error) {
    content = [el("pre", { class: "error" }, error.message)];
  }
  if (place.turn === turn) place.replaceChildren(...content); // or another was chosen meanwhile
}

const signs = { added: "+", removed: "−", changed: "~" };
const most = 200; // differences in words

function differences({ changes, unified }) {
  if (!changes.length && !unified) return [el("p", { class: "sub" }, "Nothing: the texts are the same.")];
  const list = el("ul", { class: "changes" }, ...changes.slice(0, most).map((c) => el("li", { class: c.kind, "data-sign": signs[c.kind] ?? "" },
    el("span", { class: "hidden" }, c.kind), ` ${c.subject}`, c.detail ? el("span", { class: "sub" }, `: ${c.detail}`) : null)));
  const rest = changes.length > most ? `and ${count(changes.length - most)} more; see controlplane diff` : changes.length ? "" : "They mean the same: only the text differs.";
  return [list, el("p", { class: "sub" }, rest), unified ? el("details", {}, el("summary", {}, "As text"), lines(unified)) : ""];
}

const longest = 5000; // lines

// lines is a text in the unified format, its lines coloured by what they begin with.
function lines(unified) {
  const all = unified.split("\n");
  const kinds = { "+": "added", "-": "removed", "@": "place" };
  const kind = (line, i) => (i < 2 ? "place" : kinds[line[0]]); // the first two are names
  const pre = el("pre", { class: "unified", tabindex: 0 }, ...all.slice(0, longest).map((line, i) => el("span", { class: kind(line, i) }, `${line}\n`)));
  if (all.length > longest) pre.append(`and ${count(all.length - longest)} lines more; see controlplane diff -o unified`);
  return pre;
}
