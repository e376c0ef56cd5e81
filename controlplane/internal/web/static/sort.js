// The head of a table whose columns can be sorted by.

import { attribute, el } from "./dom.js";

// SortableHead fills a row of the head. A column is {id, title, by, first}: by(item) is
// what it sorts by, a number or a text, and missing where it cannot; first is -1 when
// the largest come first. changed is called when another order is wanted.
export class SortableHead {
  constructor(row, columns, changed) {
    this.columns = columns;
    this.by = columns.find((column) => column.by);
    this.direction = this.by.first ?? 1;
    for (const column of columns) {
      const title = column.by ? el("button", { type: "button", click: () => this.choose(column, changed) }, column.title) : column.title;
      column.cell = el("th", { scope: "col", class: column.id }, title);
      row.append(column.cell);
    }
    this.mark();
  }

  choose(column, changed) {
    this.direction = column === this.by ? -this.direction : (column.first ?? 1);
    this.by = column;
    this.mark();
    changed();
  }

  mark() {
    for (const column of this.columns) {
      attribute(column.cell, "aria-sort", column !== this.by ? null : this.direction > 0 ? "ascending" : "descending");
    }
  }

  // sort orders the items in place; those that are equal stay as they are.
  sort(items) {
    const { by } = this.by;
    return items.sort((a, b) => this.direction * compare(by(a), by(b)));
  }
}

const order = new Intl.Collator("en", { numeric: true });

function compare(a, b) {
  return typeof a === "number" ? a - b : order.compare(a, b);
}
