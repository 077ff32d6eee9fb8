// What was found, in words and numbers.

import { byId, el, milliseconds, plural, show, svg } from "./dom.js";
import { style } from "./colours.js";

const STAGES = [
  ["wait", "waiting"], ["prepare", "preparing"], ["queue", "in the queue"],
  ["run", "running"], ["finish", "finishing"], ["way", "on the way"],
];

const bar = (share) => {
  const filled = el("i");
  filled.style.width = `${Math.min(Math.max(share, 0), 1) * 100}%`;
  return el("div", { class: "bar", "aria-hidden": "true" }, filled);
};

const percent = (score) => `${(score * 100).toFixed(1)} %`;

const badge = (number, position) => {
  const { colour, ink } = style(position);
  const words = svg("text", { x: 13, y: 14.5, "text-anchor": "middle", fill: ink }, number + 1);
  const plate = svg("rect", { width: 26, height: 20, rx: 5, fill: colour });
  return svg("svg", { class: "badge", viewBox: "0 0 26 20", "aria-hidden": "true" }, plate, words);
};

// Bars with numbers, best first; `rows` are {name, share, number}.
const bars = (rows, label) => el("ol", { class: "bars", "aria-label": label }, ...rows.map(
  ({ name, share, number }) => el(
    "li",
    {},
    el("div", { class: "line" }, el("b", {}, el("bdi", {}, name)), el("span", { class: "score" }, number)),
    bar(share),
  ),
));

const corners = ({ xmin, ymin, xmax, ymax }) => {
  const [x, y, right, bottom] = [xmin, ymin, xmax, ymax].map(Math.round);
  return `${x}, ${y} to ${right}, ${bottom}`;
};

const FEW = 8; // rows to begin with
let all = false;

const rows = () => [...byId("found").querySelectorAll("tbody tr")];

const showAll = () => {
  all = true;
  for (const row of rows()) show(row, true);
  byId("found").querySelector(".rest")?.remove();
};

// The objects as a table; `lit` is called with the number of the row in hand, or null.
export const objects = (found, lit) => {
  const body = el("tbody", {}, ...found.map((object, number) => el(
    "tr",
    {
      hidden: !all && number >= FEW,
      onpointerenter: () => lit(number),
      onpointerleave: () => lit(null),
      onfocusin: () => lit(number),
      onfocusout: () => lit(null),
    },
    el("td", {}, el(
      "button",
      { type: "button", class: "row", onclick: () => lit(number) },
      badge(number, object.position),
      el("span", {}, el("bdi", {}, object.label), " ", el("small", {}, corners(object.box))),
    )),
    el("td", {}, el(
      "div",
      { class: "meter" },
      bar(object.score),
      el("span", { class: "score" }, object.score.toFixed(2)),
    )),
  )));
  const titles = el(
    "tr",
    {},
    el("th", { scope: "col" }, "Object, and its pixels"),
    el("th", { scope: "col" }, "Score"),
  );
  const rest = el("button", {
    type: "button",
    class: "rest wide",
    onclick: () => { showAll(); focusRow(FEW); },
  }, `Show all ${found.length}`);
  return [
    el("table", { "aria-label": "Objects found" }, el("thead", {}, titles), body),
    ...(!all && found.length > FEW ? [rest] : []),
  ];
};

export const fold = () => { all = false; };

export const lightRow = (number) => {
  rows().forEach((row, at) => row.classList.toggle("lit", at === number));
};

export const focusRow = (number) => {
  if (rows()[number]?.hidden) showAll();
  rows()[number]?.querySelector(".row").focus();
};

// What each task says: `node` to show, `lead` in a few words, and `more` beside it.
export const classification = ({ labels }) => ({
  node: bars(labels.map(({ label, score }) => ({
    name: label, share: score, number: percent(score),
  })), "Labels, best first"),
  lead: labels[0].label,
  more: percent(labels[0].score),
});

export const answers = ([{ answers: given }]) => ({
  node: bars(given.map(({ answer, score }) => ({
    name: answer, share: score, number: percent(score),
  })), "Answers, likeliest first"),
  lead: given[0].answer,
  more: percent(given[0].score),
});

export const matches = ({ texts }) => {
  const logits = texts.map(({ logit }) => logit);
  const [least, most] = [Math.min(...logits), Math.max(...logits)];
  const share = (logit) => (most > least ? 0.05 + (0.95 * (logit - least)) / (most - least) : 1);
  return {
    node: bars(texts.map(({ text, logit }) => ({
      name: text, share: share(logit), number: logit.toFixed(2),
    })), "Texts, the best match first"),
    lead: texts.length > 1 ? `Best match: ${texts[0].text}` : texts[0].text,
    more: `${logits[0].toFixed(2)}, higher fits better`,
  };
};

// The whole as the page measured it, and the server's stages of it; the rest was the way there
// and back.
export const timing = (total, stages) => {
  const inside = stages.total
    ?? STAGES.reduce((sum, [name]) => sum + (stages[name] ?? 0), 0);
  const parts = STAGES
    .map(([name, title]) => (
      [name, title, name === "way" ? Math.max(0, total - inside) : stages[name]]))
    .filter(([, , duration]) => duration !== undefined);
  byId("total").textContent = milliseconds(total);
  byId("timing-bar").replaceChildren(...parts.filter(([, , duration]) => duration > 0).map(
    ([name, , duration]) => {
      const part = el("i", { class: `stage-${name}` });
      part.style.flexGrow = duration;
      return part;
    },
  ));
  byId("timing-parts").replaceChildren(...parts.map(([name, title, duration]) => el(
    "div",
    {},
    el("dt", {}, title),
    el("dd", {}, milliseconds(duration)),
  )));
  [...byId("timing-parts").children].forEach((row, at) => {
    row.prepend(el("i", { class: `dot stage-${parts[at][0]}`, "aria-hidden": "true" }));
  });
};

export const summary = (lead, more) => {
  byId("summary").replaceChildren(el("bdi", {}, lead), " ", el("span", {}, more));
  show(byId("results"), true);
};

export const counted = (number, hidden) => [
  number ? plural(number, "object") : "Nothing found",
  hidden ? `${hidden} more below the lowest score` : "",
];
