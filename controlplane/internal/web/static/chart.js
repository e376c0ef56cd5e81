// Small charts: the last minutes as an area, errors in red in front of it.

import { attribute, svg } from "./dom.js";

const [width, height] = [120, 28]; // of the drawing; the style sheet stretches it
const fewest = 24; // points: what is not known yet of the last two minutes is empty

// Chart draws into an svg element.
export class Chart {
  constructor(element = svg("svg", { class: "spark" })) {
    this.element = element;
    attribute(element, "viewBox", `0 0 ${width} ${height}`);
    attribute(element, "preserveAspectRatio", "none");
    attribute(element, "role", "img");
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    this.errors = svg("path", { class: "errors" });
    element.append(this.area, this.line, this.errors);
  }

  // show draws rates; words say the same to those who do not see it.
  show({ requests = [], errors = [] }, words) {
    const top = Math.max(...requests, ...errors, 1e-9);
    const line = path(requests, top);
    attribute(this.line, "d", line);
    attribute(this.area, "d", closed(line));
    attribute(this.errors, "d", errors.some((e) => e > 0) ? closed(path(errors, top)) : "");
    attribute(this.element, "aria-label", words);
  }
}

// path is a line through the rates, the newest at the right edge.
function path(rates, top) {
  if (rates.length < 2) return "";
  const x = (i) => width - ((rates.length - 1 - i) * width) / (Math.max(rates.length, fewest) - 1);
  const y = (rate) => height - 1 - (rate / top) * (height - 3);
  return "M" + rates.map((rate, i) => `${x(i).toFixed(1)} ${y(rate).toFixed(1)}`).join("L");
}

// closed is the area below a line.
function closed(line) {
  return line && `${line}V${height}H${line.slice(1).split(" ", 1)[0]}Z`;
}
