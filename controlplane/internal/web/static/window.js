// A table of any length, of which only the rows that can be seen are elements.

import { attribute, el } from "./dom.js";

const margin = 12; // rows above and below, for the keyboard and for fast scrolling

// WindowedRows shows items in the body of a table. key(item) tells items apart,
// create() makes a row, update(row, item) fills it. Every row is as high as the
// body's CSS property --row says. Rows and cells say their roles: on a phone they are
// laid out as something else, and would lose them.
export class WindowedRows {
  constructor(body, { key, create, update }) {
    Object.assign(this, { body, key, create, update, items: [], rows: new Map(), drawn: false });
    this.above = spacer();
    this.below = spacer();
    body.append(this.above, this.below);
    const later = () => this.later();
    addEventListener("scroll", later, { passive: true });
    addEventListener("resize", later);
  }

  // show replaces the items.
  show(items) {
    this.items = items;
    this.draw();
  }

  // later draws with the next picture, once.
  later() {
    if (this.drawn) return;
    this.drawn = true;
    requestAnimationFrame(() => {
      this.drawn = false;
      this.draw();
    });
  }

  draw() {
    if (!this.body.offsetParent) return; // another view is shown
    const height = parseFloat(getComputedStyle(this.body).getPropertyValue("--row"));
    const top = this.body.getBoundingClientRect().top;
    const limited = (i) => Math.min(Math.max(i, 0), this.items.length);
    const first = limited(Math.floor(-top / height) - margin);
    const end = limited(Math.ceil((innerHeight - top) / height) + margin);
    const wanted = this.items.slice(first, end);

    const keys = new Set(wanted.map(this.key));
    for (const [key, row] of this.rows) {
      if (keys.has(key)) continue;
      row.remove();
      this.rows.delete(key);
    }
    let at = this.above.nextSibling;
    wanted.forEach((item, i) => {
      const key = this.key(item);
      let row = this.rows.get(key);
      if (!row) this.rows.set(key, (row = this.create()));
      attribute(row, "aria-rowindex", first + i + 2); // the head is row 1
      this.update(row, item);
      if (row === at) at = at.nextSibling;
      else this.body.insertBefore(row, at);
    });
    stretch(this.above, first * height);
    stretch(this.below, (this.items.length - end) * height);
    attribute(this.body.parentNode, "aria-rowcount", this.items.length + 1);
  }
}

function spacer() {
  return el("tr", { class: "spacer", "aria-hidden": "true" }, el("td"));
}

function stretch(row, pixels) {
  row.hidden = pixels <= 0;
  row.firstChild.style.height = `${Math.max(pixels, 0)}px`;
}
