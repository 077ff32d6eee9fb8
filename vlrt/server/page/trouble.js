// What went wrong, in plain words, and what the reader can do about it.

import { Problem, key } from "./api.js";
import { byId, el, plural, show } from "./dom.js";

// Something that the reader has yet to give; `focus` brings them to it.
export class Wanting extends Error {
  constructor(message, focus) {
    super(message);
    this.focus = focus;
  }
}

const complain = (title, detail, ...actions) => {
  byId("alert").replaceChildren(el("strong", {}, title), detail, ...actions);
  show(byId("alert"), true);
};

// Ask once more, not before the server said it would have room.
const retry = (again, due) => {
  complain("Waiting for the server.", "");
  setTimeout(again, Math.max(0, due - performance.now()));
};

const askForKey = (note) => {
  complain("This server asks for an API key.", note);
  byId("key-note").textContent = note;
  show(byId("key-open"), true);
  if (!byId("key").open) byId("key").showModal();
};

// Tell of an error; `again` does what has failed once more.
export const fail = (error, again) => {
  if (error instanceof Wanting) {
    complain(error.message, "");
    error.focus();
  } else if (!(error instanceof Problem)) {
    complain("The page has failed.", String(error));
    throw error;
  } else if (error.status === 401) {
    askForKey(key.get() ? "The server did not accept that key." : "");
  } else if (error.status === 503) {
    const seconds = Math.ceil(error.retryAfter ?? 1);
    const due = performance.now() + seconds * 1000;
    const button = el("button", { type: "button", onclick: () => retry(again, due) }, "Try again");
    const title = `The server is busy. Try again in ${plural(seconds, "second")}.`;
    complain(title, error.message, el("br"), button);
  } else {
    complain("That did not work.", error.message);
  }
};

// The window for the key; `given` is called when there is one.
export const onKey = (given) => {
  byId("key-open").addEventListener("click", () => byId("key").showModal());
  byId("key-close").addEventListener("click", () => byId("key").close());
  byId("key-form").addEventListener("submit", () => {
    key.set(byId("key-value").value.trim());
    byId("key-value").value = "";
    given();
  });
};
