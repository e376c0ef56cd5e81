// The endpoints with their rates, and the backends of one.

import { Chart } from "./chart.js";
import * as details from "./details.js";
import { attribute, byId, el, text } from "./dom.js";
import { Feed } from "./feed.js";
import { SortableHead } from "./sort.js";
import { WindowedRows } from "./window.js";
import { count, percent, plural, rate } from "./words.js";

const columns = [
  { id: "name", title: "Endpoint", by: (e) => e.name },
  { id: "takes", title: "Takes", by: (e) => e.takes },
  { id: "rate", title: "Req/s", by: (e) => e.requestsPerSecond, first: -1 },
  { id: "chart", title: "Recently" },
  { id: "failing", title: "Errors", by: (e) => share(e), first: -1 },
  { id: "planes", title: "Data planes", by: (e) => e.dataplanes, first: -1 },
  { id: "pool", title: "Backends", by: (e) => e.poolSize, first: -1 },
];

// share is how many of the requests are answered with a status of 500 or more.
export const share = (e) => (e.requestsPerSecond > 0 ? e.errorsPerSecond / e.requestsPerSecond : 0);

export class EndpointTable {
  // changed is called when others are looked for.
  constructor(changed) {
    Object.assign(this, { document: null, search: "", name: "" });
    this.head = new SortableHead(byId("endpoints-head"), columns, () => this.draw());
    this.head.choose(columns.find((c) => c.id === "rate"), () => {});
    this.rows = new WindowedRows(byId("endpoints-rows"), { key: (e) => e.name, create: () => this.create(), update: (row, e) => this.update(row, e) });
    const input = byId("endpoints-search");
    input.addEventListener("input", () => {
      this.search = input.value.trim();
      changed();
    });
    this.one = new Feed({
      url: () => (details.isOpen(this) ? `/api/v1/endpoints?endpoint=${encodeURIComponent(this.name)}` : null),
      every: 2000,
      got: (document) => details.isOpen(this) && document.endpoints[0] && this.describe(document.endpoints[0]),
    });
  }

  show(document) {
    this.document = document;
    this.draw();
  }

  draw() {
    if (!this.document) return;
    const { endpoints, matching, configured } = this.document;
    const listed = endpoints.length < matching ? `the busiest ${count(endpoints.length)} of ${count(matching)}` : "";
    text(byId("endpoints-shown"), listed || (this.search ? `${count(matching)} of ${plural(configured, "endpoint")}` : ""));
    byId("endpoints-table").hidden = endpoints.length === 0;
    byId("endpoints-empty").hidden = endpoints.length > 0;
    text(byId("endpoints-empty"), this.search ? "No endpoint matches." : "The file has no endpoints.");
    this.rows.show(this.head.sort(endpoints.slice()));
  }

  create() {
    const row = el("tr", { role: "row" });
    for (const { id, title } of columns) {
      const cell = el(id === "name" ? "th" : "td", { class: id, scope: id === "name" ? "row" : null, role: id === "name" ? "rowheader" : "cell" });
      if (id === "name") cell.append(el("button", { type: "button", class: "open", click: () => this.open(row.endpoint) }));
      if (id === "chart") cell.append((row.chart = new Chart()).element);
      row.append(cell);
    }
    return row;
  }

  update(row, e) {
    row.endpoint = e;
    const [name, takes, requests, , failing, planes, pool] = row.children;
    text(name.firstChild, e.name);
    attribute(name, "title", e.name);
    text(takes, e.takes || "what no endpoint takes");
    attribute(takes, "title", e.takes || null);
    text(requests, rate(e.requestsPerSecond));
    row.chart.show(e, `${rate(e.requestsPerSecond)} requests per second, ${percent(share(e))} errors`);
    text(failing, e.requestsPerSecond > 0 ? percent(share(e)) : "–");
    attribute(failing, "class", share(e) >= 0.01 ? "failing bad" : "failing");
    text(planes, e.dataplanes ? count(e.dataplanes) : "–");
    text(pool, e.takes ? count(e.poolSize) : "–");
  }

  open(e) {
    this.name = e.name;
    details.open(this);
    this.describe(e);
    this.one.wake();
  }

  describe(e) {
    const more = e.backends ? [backendsOf(e)] : [];
    details.describe(e.name, [
      ["Takes", e.takes || "what no endpoint takes"],
      ["Requests", `${rate(e.requestsPerSecond)} per second on ${plural(e.dataplanes, "data plane")}`],
      ["Errors", `${rate(e.errorsPerSecond)} per second, ${percent(share(e))}`],
    ], ...more);
  }
}

function backendsOf(e) {
  const titles = ["Backend", "Weight", "Req/s", "Err/s", "In flight", "Healthy on"];
  return el("table", { class: "plain" },
    el("caption", { class: "hidden" }, `Backends of ${e.name}`),
    el("thead", {}, el("tr", {}, ...titles.map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, ...e.backends.map((b) => el("tr", {},
      el("th", { scope: "row" }, b.url, b.draining ? el("span", { class: "note" }, " drained") : null,
        ...b.troubles.map((t) => el("p", { class: "trouble" }, `${t.reason} (on ${count(t.dataplanes)})`))),
      el("td", {}, count(b.weight)),
      el("td", {}, rate(b.requestsPerSecond)),
      el("td", { class: b.errorsPerSecond > 0 ? "bad" : null }, rate(b.errorsPerSecond)),
      el("td", {}, count(b.inFlight)),
      el("td", { class: b.healthy < b.dataplanes ? "bad" : null }, b.dataplanes ? `${count(b.healthy)}/${count(b.dataplanes)}` : "–"),
    ))));
}
