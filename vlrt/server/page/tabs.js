// Tabs as readers of screens know them: one stop for Tab, arrows between them.

import { byId, el } from "./dom.js";

export class Tabs {
  #root = byId("tabs");
  #panel = byId("task");
  #chosen;

  // `tabs` are pairs of a value and a title; `chosen` is called with the value.
  constructor(tabs, chosen) {
    this.#chosen = chosen;
    this.#root.replaceChildren(...tabs.map(([value, title]) => el("button", {
      type: "button", role: "tab", id: `tab-${value}`, "data-value": value, "aria-controls": "task",
      onclick: () => this.choose(value),
    }, title)));
    this.#root.addEventListener("keydown", (event) => this.#keydown(event));
  }

  choose(value) {
    for (const tab of this.#root.children) {
      const chosen = tab.dataset.value === value;
      tab.setAttribute("aria-selected", chosen);
      tab.tabIndex = chosen ? 0 : -1;
      if (chosen) this.#panel.setAttribute("aria-labelledby", tab.id);
    }
    this.#chosen(value);
  }

  #keydown(event) {
    const tabs = [...this.#root.children];
    const at = tabs.indexOf(document.activeElement);
    const last = tabs.length - 1;
    const next = {
      ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last,
    }[event.key];
    if (at < 0 || next === undefined) return;
    event.preventDefault();
    this.choose(tabs[next].dataset.value);
    tabs[next].focus();
  }
}
