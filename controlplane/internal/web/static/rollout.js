// The roll-out that is going on, or has ended a short while ago.

import { attribute, byId, el, facts, text } from "./dom.js";
import { count, duration, moment, percent, plural } from "./words.js";

const going = ["applying", "baking", "paused"];
const recent = 300; // seconds for which one that has ended is shown
const shownEvents = 30;

export class RolloutPanel {
  constructor() {
    this.rollout = null;
    this.chosen = new Set();
  }

  show(rollout) {
    this.rollout = rollout;
    this.chosen = new Set(rollout?.chosen);
  }

  // waits reports whether a data plane's step is still to come.
  waits(d) {
    return d.state === "pending" && going.includes(this.rollout?.phase) && !this.chosen.has(d.id);
  }

  // draw shows it; parked: the control plane says that the file still has what was
  // taken back.
  draw(parked) {
    const r = this.rollout;
    const panel = byId("rollout");
    panel.hidden = !r || !(going.includes(r.phase) || (r.phase === "aborted" && parked) || sinceEnd(r) < recent);
    if (panel.hidden) return;
    attribute(panel, "class", `rollout ${r.phase}`);
    text(byId("rollout-title"), `Roll-out of revision ${r.revision}, from ${r.baseRevision}`);
    text(byId("rollout-phase"), r.phase);
    text(byId("rollout-sub"), `${count(r.applied)} of ${plural(r.dataplanes, "data plane")} ${r.applied === 1 ? "runs" : "run"} it`);
    text(byId("rollout-reason"), r.reason);
    drawSteps(r);
    drawWindows(r);
    drawEvents(r);
  }
}

const sinceEnd = (r) => (r.events.length ? (Date.now() - new Date(r.events.at(-1).at)) / 1000 : Infinity);

function drawSteps(r) {
  const list = byId("rollout-steps");
  const state = (i) => {
    if (r.phase === "done" || i < r.step - 1) return "past";
    return i === r.step - 1 ? "current" : "next";
  };
  while (list.children.length > r.steps.length) list.lastChild.remove();
  r.steps.forEach((step, i) => {
    let item = list.children[i];
    if (!item) list.append((item = el("li", {}, el("span", { class: "bar" }), el("b"), " ", el("span", { class: "sub" }))));
    attribute(item, "class", state(i));
    attribute(item, "aria-current", state(i) === "current" ? "step" : null);
    text(item.children[1], step);
    text(item.children[2], state(i) === "past" ? "done" : state(i) === "current" ? doing(r) : "");
  });
}

// doing says what the current step waits for.
function doing(r) {
  if (r.bakeUntil && r.phase === "baking") return `baking, ${duration((new Date(r.bakeUntil) - Date.now()) / 1000)} left`;
  return r.phase === "applying" ? `${count(r.applied)} of ${count(r.chosen.length)} have applied it` : r.phase;
}

// drawWindows compares the data planes with it and those without.
function drawWindows(r) {
  const [fresh, old] = byId("rollout-windows").rows;
  fill(fresh, r.onNew, r.onOld);
  fill(old, r.onOld);
}

function fill(row, w, other) {
  const rate = (of, n) => (of.requests > 0 ? of[n] / of.requests : 0);
  const share = (n) => (w.requests ? `${percent(rate(w, n))} (${count(w[n])})` : "–");
  const [, planes, requests, errors, gateway, slowest] = row.cells;
  text(planes, count(w.dataplanes));
  text(requests, count(w.requests));
  text(errors, share("serverErrors"));
  attribute(errors, "class", other && rate(w, "serverErrors") > rate(other, "serverErrors") + 0.01 ? "bad" : null);
  text(gateway, share("gatewayErrors"));
  text(slowest, w.p99Seconds ? `${(w.p99Seconds * 1000).toFixed(w.p99Seconds < 0.01 ? 1 : 0)} ms` : "–");
}

function drawEvents(r) {
  facts(byId("rollout-events"), r.events.slice(-shownEvents).reverse().map((event) => [moment(event.at), event.text]));
}
