// The data planes: a windowed table with filters, and the details of one.

import * as details from "./details.js";
import { attribute, byId, el, text } from "./dom.js";
import { SortableHead } from "./sort.js";
import { WindowedRows } from "./window.js";
import { ago, count, plural, rate, short } from "./words.js";

// states, the worst first: that is also how the state column sorts.
export const states = ["rejected", "stale", "disconnected", "pending", "applied"];

const columns = [
  { id: "id", title: "Data plane", by: (d) => d.id },
  { id: "state", title: "State", by: (d) => states.indexOf(d.state) },
  { id: "revision", title: "Revision", by: (d) => d.revision, first: -1 },
  { id: "version", title: "Version", by: (d) => d.version },
  { id: "contact", title: "Last contact", by: (d) => d.lastContactSeconds, first: -1 },
  { id: "rate", title: "Req/s", by: (d) => d.rate ?? -1, first: -1 },
  { id: "address", title: "Admin address", by: (d) => d.address },
  { id: "labels", title: "Labels", by: (d) => labels(d) },
  { id: "error", title: "Error", by: (d) => d.error },
];

export const labels = (d) => Object.entries(d.labels).map(([name, value]) => `${name}=${value}`).sort().join(" ");

export class FleetTable {
  constructor() {
    Object.assign(this, { planes: [], version: "", state: "", search: "", opened: "" });
    this.head = new SortableHead(byId("fleet-head"), columns, () => this.draw());
    this.rows = new WindowedRows(byId("fleet-rows"), { key: (d) => d.key, create: () => this.create(), update: (row, d) => this.update(row, d) });
    this.chips = new Map(["", ...states].map((state) => [state, this.chip(state)]));
    const input = byId("fleet-search");
    input.addEventListener("input", () => {
      this.search = input.value.trim().toLowerCase();
      this.draw();
    });
  }

  chip(state) {
    const button = el("button", { type: "button", click: () => this.only(this.state === state ? "" : state) });
    byId("states").append(button);
    return button;
  }

  // only shows the data planes of one state; empty: all.
  only(state) {
    this.state = state;
    this.draw();
  }

  show(planes, version) {
    Object.assign(this, { planes, version });
    this.draw();
    const same = details.isOpen(this) && planes.find((d) => d.key === this.opened);
    if (same) this.describe(same);
  }

  draw() {
    const numbers = new Map(states.map((state) => [state, 0]));
    for (const d of this.planes) numbers.set(d.state, (numbers.get(d.state) ?? 0) + 1);
    for (const [state, button] of this.chips) {
      const n = state ? numbers.get(state) : this.planes.length;
      text(button, `${state || "all"} ${count(n)}`);
      attribute(button, "aria-pressed", this.state === state);
      attribute(button, "class", `chip ${this.colourOf(state)}`);
      button.hidden = n === 0 && state !== this.state;
    }
    const found = this.planes.filter((d) => (!this.state || d.state === this.state) && this.matches(d));
    text(byId("fleet-shown"), found.length === this.planes.length ? "" : `${count(found.length)} of ${plural(this.planes.length, "data plane")}`);
    const empty = byId("fleet-empty");
    empty.hidden = found.length > 0;
    byId("fleet-table").hidden = found.length === 0;
    text(empty, this.planes.length ? "No data plane matches." : "No data plane has connected yet.");
    this.rows.show(this.head.sort(found));
  }

  // colourOf is the colour that all data planes of a state have, or else the state's.
  colourOf(state) {
    const colours = new Set(this.planes.filter((d) => d.state === state).map((d) => d.colour));
    return colours.size === 1 ? [...colours][0] : state || "all";
  }

  matches(d) {
    if (!this.search) return true;
    return [d.id, d.address, d.version, d.error, d.build, labels(d), `r${d.revision}`].some((s) => s.toLowerCase().includes(this.search));
  }

  create() {
    const row = el("tr", { role: "row" });
    for (const { id, title } of columns) {
      const content = id === "id" ? el("button", { type: "button", class: "open", click: () => this.open(row.plane) }) : id === "state" ? el("span", { class: "is" }) : null;
      row.append(el(id === "id" ? "th" : "td", { class: id, scope: id === "id" ? "row" : null, role: id === "id" ? "rowheader" : "cell" }, content));
    }
    return row;
  }

  update(row, d) {
    row.plane = d;
    const [id, state, revision, version, contact, requests, address, tags, error] = row.children;
    text(id.firstChild, d.id);
    attribute(id, "title", d.id);
    text(state.firstChild, d.state);
    attribute(state.firstChild, "class", `is ${d.colour}`);
    attribute(state, "title", d.colour === "waiting" ? "its step of the roll-out is still to come" : null);
    text(revision, d.revision || "–");
    text(version, short(d.version) + (d.source === "disk" ? " (disk)" : ""));
    attribute(version, "class", d.version === this.version || d.colour === "waiting" ? "version" : "version other");
    text(contact, ago(d.lastContactSeconds));
    text(requests, d.rate === undefined ? "–" : rate(d.rate));
    text(address, d.address);
    text(tags, labels(d));
    attribute(tags, "title", labels(d) || null);
    text(error, d.error);
    attribute(error, "title", d.error || null);
  }

  open(d) {
    this.opened = d.key;
    details.open(this);
    this.describe(d);
  }

  describe(d) {
    details.describe(d.id, [
      ["State", d.state],
      ["Revision", d.revision || "–"],
      ["Version", d.version || "–"],
      ["Table from", d.source || "–"],
      ["Last contact", ago(d.lastContactSeconds)],
      ["Admin address", d.address],
      ["Labels", labels(d) || "–"],
      ["Requests", `${count(d.requestsTotal)} since it started${d.rate === undefined ? "" : `, ${rate(d.rate)} per second`}`],
      ["Failed by itself", count(d.failuresTotal)],
      ["Build", d.build || "–"],
    ], d.error ? el("pre", { class: "error" }, d.error) : "");
  }
}
