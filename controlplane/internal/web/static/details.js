// What is known about one thing: a dialog with a title, facts and more.

import { byId, facts, text } from "./dom.js";

const dialog = byId("details");

// opened is who fills the dialog while it is open.
let opened = null;

dialog.addEventListener("close", () => {
  opened = null;
  byId("details-more").replaceChildren();
});
// A click beside it closes it.
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});

// open shows the dialog for an owner, which is to call describe.
export function open(owner) {
  opened = owner;
  byId("details-more").replaceChildren();
  if (!dialog.open) dialog.showModal();
}

export const isOpen = (owner) => opened === owner;

// describe says what is known; more are elements, which are kept where none are given.
export function describe(title, pairs, ...more) {
  text(byId("details-title"), title);
  facts(byId("details-facts"), pairs);
  if (more.length) byId("details-more").replaceChildren(...more);
}
