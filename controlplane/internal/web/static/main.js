// Puts the page together: what the control plane says, and where it is shown.

import { Chart } from "./chart.js";
import { attribute, byId, el, facts, text } from "./dom.js";
import { EndpointTable, share } from "./endpoints.js";
import { Feed } from "./feed.js";
import { FleetTable, states } from "./fleet.js";
import { HistoryTable } from "./history.js";
import { Mosaic } from "./mosaic.js";
import { Rates } from "./rates.js";
import { RolloutPanel } from "./rollout.js";
import { ago, count, duration, percent, plural, rate, short } from "./words.js";

const table = new FleetTable();
const mosaic = new Mosaic(byId("mosaic"), (d) => table.open(d));
const rates = new Rates();
const endpoints = new EndpointTable(() => traffic.wake());
const charts = { requests: new Chart(byId("requests-chart")), errors: new Chart(byId("errors-chart")) };
const history = new HistoryTable();
const rollout = new RolloutPanel();
const views = ["fleet", "endpoints", "history"];

let status = null;
let seen = 0; // when the status was true, in milliseconds
let lost = ""; // why there is no newer one

new Feed({
  url: () => "/api/v1/status",
  every: 1000,
  got(document) {
    status = document;
    showStatus();
  },
  outcome(reason, age) {
    lost = reason;
    if (!reason) seen = Date.now() - age * 1000;
    showNotices();
    showLive();
  },
});
setInterval(showLive, 1000);

new Feed({
  url: () => "/api/v1/rollout",
  every: 1000,
  got(document) {
    rollout.show(document);
    rollout.draw(status?.rollout);
  },
});

const traffic = new Feed({
  url() {
    const search = endpoints.search ? `&search=${encodeURIComponent(endpoints.search)}` : "";
    return view() === "endpoints" ? `/api/v1/endpoints?limit=100${search}` : "/api/v1/endpoints?limit=0";
  },
  every: 2000,
  got(document) {
    showTraffic(document);
    if (view() === "endpoints") endpoints.show(document);
  },
});

const past = new Feed({
  url: () => (view() === "history" ? "/api/v1/history" : null),
  every: 2000,
  got: (document) => history.show(document),
});

// view is the view that the address asks for.
function view() {
  const name = location.hash.slice(1);
  return views.includes(name) ? name : views[0];
}

function showView() {
  for (const name of views) {
    byId(`view-${name}`).hidden = name !== view();
    attribute(document.querySelector(`.views [href="#${name}"]`), "aria-current", name === view() ? "page" : null);
  }
  table.draw();
  endpoints.draw();
  history.draw();
  traffic.wake();
  past.wake();
}
addEventListener("hashchange", showView);
showView();

function showStatus() {
  const planes = status.dataplanes;
  // Two data planes may be connected with one id.
  const twins = new Map();
  for (const d of planes) {
    const n = twins.get(d.id) ?? 0;
    twins.set(d.id, n + 1);
    d.key = `${d.id} ${n}`;
    d.colour = rollout.waits(d) ? "waiting" : d.state;
  }
  rates.add(planes, Date.now() / 1000);
  showHead();
  showPlanes(planes);
  showBackends();
  rollout.draw(status.rollout);
  table.show(planes, status.version);
  history.run(status.revision);
}

function showHead() {
  const { config } = status;
  facts(byId("facts"), [
    ["Revision", count(status.revision)],
    ["Version", short(status.version)],
    ["File", config.file],
    ["Accepted", ago((Date.now() - new Date(config.loadedAt)) / 1000)],
  ]);
  attribute(byId("facts").children[1].lastChild, "title", status.version);
  attribute(byId("facts").children[2].lastChild, "title", config.file);
}

function showPlanes(planes) {
  const numbers = states.map((state) => [state, planes.filter((d) => d.state === state).length]).reverse();
  const words = numbers.filter(([, n]) => n).map(([state, n]) => `${count(n)} ${state}`);
  const applied = numbers[0][1];
  text(byId("planes-total"), count(planes.length));
  text(byId("planes-sub"), words.join(", ") || "none has connected yet");
  text(byId("count-fleet"), count(planes.length));
  mosaic.show(planes, words.join(", "));
  document.title = `${applied}/${planes.length} on r${status.revision} – Fleet`;
}

// span says how much time the charts have.
const span = (times) => (times.length > 1 ? duration((new Date(times.at(-1)) - new Date(times[0])) / 1000) : "");

function showTraffic(document) {
  const { requestsPerSecond, errorsPerSecond, requests, errors, configured } = document;
  const told = document.dataplanes > 0;
  text(byId("count-endpoints"), count(configured));
  text(byId("requests-total"), told ? rate(requestsPerSecond) : "–");
  text(byId("errors-total"), told ? percent(share(document)) : "–");
  text(byId("errors-sub"), told ? `${rate(errorsPerSecond)}/s with status 5xx` : "with status 5xx");
  attribute(byId("errors-total"), "class", share(document) >= 0.01 ? "big bad" : "big");
  const past = span(document.times);
  text(byId("requests-sub"), `over the fleet${past && `, last ${past}`}`);
  charts.requests.show({ requests }, `Requests per second in the last ${past}`);
  charts.errors.show({ requests: errors, errors }, `Errors per second in the last ${past}`);
}

function showBackends() {
  const bad = status.unhealthyBackends;
  text(byId("backends-total"), count(bad));
  attribute(byId("backends-total"), "class", bad ? "big bad" : "big");
  const drained = status.draining;
  text(byId("backends-sub"), bad ? "on some data plane" : drained.length ? "on any data plane; drained are:" : "on any data plane");
  byId("drained").replaceChildren(
    ...drained.map((d) => el("li", {}, el("code", {}, d.url), ` ${progress(d)}`)),
  );
}

function progress(d) {
  const parts = [d.inFlight ? `${plural(d.inFlight, "request")} in flight` : "", d.unsettled.length ? `${plural(d.unsettled.length, "data plane")} to go` : "drained", d.inFile ? "" : "not in the file"];
  return parts.filter(Boolean).join(", ");
}

// showLive says how old the data is.
function showLive() {
  if (document.hidden) return;
  const age = seen ? (Date.now() - seen) / 1000 : 0;
  const state = lost ? "lost" : !seen ? "waiting" : "ok";
  attribute(byId("live"), "class", `live ${state}`);
  const words = { ok: age < 3 ? "live" : `as of ${duration(age)} ago`, waiting: "connecting", lost: seen ? `not reached; as of ${duration(age)} ago` : "not reached" };
  text(byId("live-text"), words[state]);
  attribute(document.body, "class", lost ? "old" : "");
}

function showNotices() {
  const notices = [];
  if (lost) {
    notices.push(["lost", "The control plane cannot be reached.", `${lost}. ${status ? "What is shown is what it said last" : "There is nothing to show yet"}; it is asked again every second. Data planes go on serving without it.`]);
  }
  if (status && status.config.lastLoad !== "ok") {
    notices.push(["refused", `The newest content of ${status.config.file} was refused; revision ${status.revision} goes on.`, status.config.error]);
  }
  const place = byId("notices");
  const content = JSON.stringify(notices);
  if (place.dataset.content === content) return; // a screen reader says it once
  place.dataset.content = content;
  place.replaceChildren(...notices.map(([kind, title, more]) => el("section", { class: `notice ${kind}` }, el("h2", {}, title), el("pre", {}, more))));
}

// A slash leads to the search, as in many programs.
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, dialog *")) return;
  event.preventDefault();
  byId(`${view()}-search`)?.focus();
});
