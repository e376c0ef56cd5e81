// Elements from values. Everything is set as text or as an attribute that runs
// nothing: ids, labels and errors come from whoever connects.

const svgSpace = "http://www.w3.org/2000/svg";

// el returns a new element with attributes and children; a child that is no element
// becomes text. Attributes that are null or false are left out; a function is a
// listener.
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

// svg is el for drawings.
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(svgSpace, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

// text changes the text of an element, if it is another: most of what is live does not
// change from one second to the next.
export function text(element, value) {
  const s = String(value);
  if (element.textContent !== s) element.textContent = s;
}

// attribute is the same for an attribute; null removes it.
export function attribute(element, name, value) {
  if (value === null || value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

// facts fills a description list with pairs of a term and a text or an element.
export function facts(list, pairs) {
  while (list.children.length > pairs.length) list.lastChild.remove();
  pairs.forEach(([term, value], i) => {
    let group = list.children[i];
    if (!group) list.append((group = el("div", {}, el("dt"), el("dd"))));
    text(group.firstChild, term);
    if (value instanceof Node) group.lastChild.replaceChildren(value);
    else text(group.lastChild, value);
  });
}
