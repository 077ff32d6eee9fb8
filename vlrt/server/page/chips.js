// A field for several labels: text parted by commas or lines becomes chips.

import { byId, el, say } from "./dom.js";

export class Chips {
  #labels = [];
  #input = byId("labels");
  #list = byId("labels-list");
  #box = byId("labels-box");

  constructor() {
    this.#input.addEventListener("input", () => {
      if (/[,\n]/.test(this.#input.value)) this.#split();
    });
    this.#input.addEventListener("keydown", (event) => this.#keydown(event));
    this.#input.addEventListener("paste", (event) => {
      const text = event.clipboardData?.getData("text/plain") ?? "";
      if (!/[,\r\n]/.test(text)) return;
      event.preventDefault();
      this.add(text.split(/[,\r\n]+/));
    });
    this.#box.addEventListener("click", (event) => {
      if (event.target.id === "labels-box") this.#input.focus();
    });
  }

  // The labels, with what is still being typed. Not taken when the field is left: the chip would
  // push the button away from under the finger that presses it.
  take() {
    this.add([this.#input.value]);
    this.#input.value = "";
    return [...this.#labels];
  }

  add(texts) {
    for (const text of texts) {
      const label = text.trim().replace(/\s+/g, " ");
      if (label && !this.#labels.includes(label)) this.#labels.push(label);
    }
    this.#draw();
    this.#box.scrollTop = this.#box.scrollHeight; // to where the next is typed
  }

  focus() { this.#input.focus(); }

  #split() {
    const parts = this.#input.value.split(/[,\n]+/);
    this.#input.value = parts.pop().trimStart();
    this.add(parts);
  }

  #keydown(event) {
    if (event.isComposing) return;
    if (event.key === "Enter" && this.#input.value.trim()) {
      event.preventDefault();
      this.take();
    } else if (event.key === "Backspace" && !this.#input.value && this.#labels.length) {
      event.preventDefault();
      this.#remove(this.#labels.length - 1);
    }
  }

  #remove(position) {
    const [label] = this.#labels.splice(position, 1);
    this.#draw();
    say(byId("announce"), `Removed ${label}`);
    this.#input.focus();
  }

  #draw() {
    this.#list.replaceChildren(...this.#labels.map((label, position) => el(
      "li",
      { class: "chip" },
      el("span", { class: "name", dir: "auto" }, label),
      el("button", {
        type: "button", "aria-label": `Remove ${label}`, onclick: () => this.#remove(position),
      }, "\u00d7"),
    )));
    this.#input.placeholder = this.#labels.length ? "another" : "a cat, a bicycle, a red cup";
  }
}
