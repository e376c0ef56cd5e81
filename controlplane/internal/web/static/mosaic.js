// The whole fleet at a glance: a small square for each data plane, in its colour.

import { attribute } from "./dom.js";

const most = 120; // pixels of height, as long as squares can be made smaller

export class Mosaic {
  // picked is called with the data plane that was clicked.
  constructor(canvas, picked) {
    Object.assign(this, { canvas, planes: [], columns: 1, step: 1 });
    new ResizeObserver(() => this.draw()).observe(canvas.parentNode);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("click", (event) => {
      const plane = this.at(event);
      if (plane) picked(plane);
    });
    canvas.addEventListener("pointermove", (event) => {
      const plane = this.at(event);
      canvas.title = plane ? `${plane.id}: ${plane.state}` : "";
    });
  }

  show(planes, summary) {
    this.planes = planes;
    attribute(this.canvas, "aria-label", summary);
    this.draw();
  }

  draw() {
    const { canvas, planes } = this;
    const width = Math.floor(canvas.parentNode.clientWidth - padding(canvas.parentNode));
    const sizes = [18, 14, 11, 9, 7, 5, 4, 3];
    const rows = (step) => Math.ceil(planes.length / Math.max(1, Math.floor(width / step)));
    this.step = sizes.find((step) => rows(step) * step <= most) ?? sizes.at(-1);
    this.columns = Math.max(1, Math.floor(width / this.step));
    const height = rows(this.step) * this.step;
    const ratio = devicePixelRatio || 1;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    [canvas.width, canvas.height] = [width * ratio, height * ratio];
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const colour = colours(canvas);
    const gap = this.step > 5 ? 2 : this.step > 3 ? 1 : 0.5;
    planes.forEach((plane, i) => {
      pen.fillStyle = colour(plane.colour);
      const x = (i % this.columns) * this.step;
      const y = Math.floor(i / this.columns) * this.step;
      pen.beginPath();
      pen.roundRect(x, y, this.step - gap, this.step - gap, this.step > 8 ? 2 : 0);
      pen.fill();
    });
  }

  at(event) {
    const column = Math.floor(event.offsetX / this.step);
    return column < this.columns ? this.planes[Math.floor(event.offsetY / this.step) * this.columns + column] : undefined;
  }
}

function padding(element) {
  const style = getComputedStyle(element);
  return parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
}

// colours returns the colour of a state, as the style sheet has it.
function colours(element) {
  const style = getComputedStyle(element);
  const known = new Map();
  return (state) => {
    if (!known.has(state)) known.set(state, style.getPropertyValue(`--${state}`) || style.color);
    return known.get(state);
  };
}
