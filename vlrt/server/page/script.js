// The page: a picture, a task, and what the server makes of them.

import { curl, models, post } from "./api.js";
import { Boxes } from "./boxes.js";
import { Camera } from "./camera.js";
import { Chips } from "./chips.js";
import { byId, el, milliseconds, plural, say, show } from "./dom.js";
import { Picture } from "./picture.js";
import { Region } from "./region.js";
import * as results from "./results.js";
import { Tabs } from "./tabs.js";
import { Wanting, fail, onKey } from "./trouble.js";

// What is asked for below any score that the slider can be set to, so that it needs no new request.
const FLOOR = "0.01";
const TASKS = [["detect", "Find"], ["classify", "Classify"], ["ask", "Ask"], ["match", "Match"]];
const ACTIONS = {
  words: "Find",
  example: "Find what looks like this",
  classify: "Classify",
  ask: "Ask",
  match: "Match",
};
const READERS = {
  classify: results.classification, ask: results.answers, match: results.matches,
};

const picture = new Picture();
const boxes = new Boxes();
const region = new Region();
const chips = new Chips();
const camera = new Camera((file) => picture.show(file));

let served = [];
let task = "";
let running = null; // the AbortController of the request under way
let kept = {}; // kind -> what the server answered about this picture
const thresholds = { words: 0.1, example: 0.5 };

// "words" and "example" are two kinds of one task.
const kind = () => (task === "detect" ? new FormData(byId("form")).get("by") : task);
const able = () => served.filter((model) => model.methods.includes(task));

const fieldsOf = {
  words() {
    return {
      labels: JSON.stringify(labels()),
      threshold: FLOOR,
      ...(byId("merge").checked ? { iou_threshold: "0.5", class_agnostic: "true" } : {}),
      ...template(),
    };
  },
  example() {
    if (!region.box) {
      throw new Wanting("Draw a box around one object first.", () => byId("overlay").focus());
    }
    const { x, y, w, h } = region.box;
    const example = { box: [x, y, x + w, y + h], name: "like the example" };
    return { examples: JSON.stringify([example]), threshold: FLOOR };
  },
  classify() { return { labels: JSON.stringify(labels()), ...template() }; },
  ask() { return { question: typed("question", "Type a question first.") }; },
  match() {
    const lines = typed("texts", "Type a text first.").split("\n").map((line) => line.trim());
    return { texts: JSON.stringify(lines.filter(Boolean)) };
  },
};

function labels() {
  const given = chips.take();
  if (!given.length) throw new Wanting("Type a label first.", () => chips.focus());
  return given;
}

function template() {
  const text = byId("template").value.trim();
  return text ? { templates: JSON.stringify([text]) } : {};
}

function typed(id, message) {
  const text = byId(id).value.trim();
  if (!text) throw new Wanting(message, () => byId(id).focus());
  return text;
}

function fields() {
  const chosen = able().length > 1 ? { model: byId("model").value } : {};
  return { ...chosen, ...fieldsOf[kind()]() };
}

function busy(controller) {
  running = controller;
  byId("run").textContent = controller ? "Stop" : ACTIONS[kind()];
  show(byId("progress"), Boolean(controller));
  byId("results").setAttribute("aria-busy", Boolean(controller));
}

async function run() {
  show(byId("alert"), false);
  if (running) {
    running.abort();
    return;
  }
  const asked = kind();
  const about = picture.file;
  const controller = new AbortController();
  try {
    if (!about) {
      const choose = byId("empty").querySelector("button");
      throw new Wanting("Choose a picture first.", () => choose.focus());
    }
    const given = fields();
    const path = `v1/${task}`;
    busy(controller);
    say(byId("status"), "Looking");
    const { data, total, stages } = await post(path, about, given, controller.signal);
    if (about !== picture.file) return;
    const order = given.labels ? JSON.parse(given.labels) : [];
    kept[asked] = { result: data.results[0], total, stages, path, given, order };
    busy(null);
    results.fold();
    if (asked === kind()) {
      draw();
      bringNear();
      say(byId("status"), `${byId("summary").textContent}, ${milliseconds(total)}`);
    }
  } catch (error) {
    if (error.name === "AbortError") {
      if (running === controller) say(byId("status"), "Stopped");
    } else {
      fail(error, () => { if (!running) run(); });
    }
  } finally {
    if (running === controller) busy(null);
  }
}

// Where the form is below the picture, what was found may be out of sight.
function bringNear() {
  if (!matchMedia("(max-width: 56rem)").matches) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const place = task === "detect" ? byId("picture") : byId("summary");
  place.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
}

// Show what is known about this picture and this kind of question.
function draw() {
  const found = kept[kind()];
  show(byId("results"), Boolean(found));
  byId("frame").classList.toggle("answered", Boolean(found));
  const detects = task === "detect";
  show(byId("threshold-field"), detects);
  if (!found) {
    markBoxes([]);
    return;
  }
  const { result, total, stages, path } = found;
  results.timing(total, stages);
  if (detects) {
    drawObjects(found);
  } else {
    markBoxes([]);
    const { node, lead, more } = READERS[task](result);
    byId("found").replaceChildren(node);
    results.summary(lead, more);
  }
  const given = detects ? { ...found.given, threshold: String(thresholds[kind()]) } : found.given;
  byId("curl").textContent = curl(path, picture.file, given);
  byId("copy").textContent = "Copy";
}

function drawObjects({ result, order }) {
  const { width, height, detections } = result;
  if (!picture.width) picture.resize(width, height); // the browser cannot show it
  const by = kind();
  // Scores are of single precision, and so is the server's threshold.
  const limit = Math.fround(thresholds[by]);
  const enough = ({ score }) => (by === "words" ? score > limit : score >= limit);
  const objects = detections.filter(enough)
    .map((object) => ({ ...object, position: Math.max(0, order.indexOf(object.label)) }));
  byId("threshold").value = thresholds[by];
  byId("threshold-shown").value = thresholds[by].toFixed(2);
  byId("found").replaceChildren(...(objects.length ? results.objects(objects, light) : []));
  results.summary(...results.counted(objects.length, detections.length - objects.length));
  markBoxes(objects, { width, height });
}

function markBoxes(objects, size = { width: picture.width || 1, height: picture.height || 1 }) {
  boxes.draw(objects, size);
  light(null);
  if (byId("overlay").getAttribute("role") === "img") {
    const words = objects.map(({ label }) => label).join(", ");
    const label = objects.length ? `Marked: ${words}` : "No objects are marked";
    byId("overlay").setAttribute("aria-label", label);
  }
}

function light(number) {
  boxes.light(number);
  results.lightRow(number);
}

// What the task and its kind need of the form.
function arrange() {
  const shown = kind();
  for (const part of document.querySelectorAll("[data-for]")) {
    const kinds = part.dataset.for.split(" ");
    show(part, kinds.includes(shown) || kinds.includes(task));
  }
  const choices = able();
  byId("model").replaceChildren(...choices.map(({ id }) => el("option", { value: id }, id)));
  show(byId("model-field"), choices.length > 1);
  byId("labels-name").textContent = task === "detect" ? "What to look for" : "What it may be";
  show(byId("alert"), false);
  const { width, height } = picture;
  region.set({ active: shown === "example", width, height });
  if (!running) byId("run").textContent = ACTIONS[shown];
  draw();
}

async function begin() {
  try {
    served = await models();
  } catch (error) {
    show(byId("waiting"), false);
    fail(error, begin);
    return;
  }
  show(byId("alert"), false);
  const tabs = TASKS.filter(([name]) => served.some(({ methods }) => methods.includes(name)));
  byId("served").textContent = `${plural(served.length, "model")} on this server`;
  byId("about").replaceChildren(...served.map(({ id, precision, provider }) => {
    const where = provider?.replace("ExecutionProvider", "");
    return el("li", {}, el("b", {}, id), " ", [precision, where].filter(Boolean).join(", "));
  }));
  byId("waiting").textContent = "No model on this server has a task that this page can show.";
  show(byId("waiting"), !tabs.length);
  show(byId("form"), tabs.length > 0);
  if (tabs.length) new Tabs(tabs, (chosen) => { task = chosen; arrange(); }).choose(tabs[0][0]);
}

byId("form").addEventListener("submit", (event) => { event.preventDefault(); run(); });
byId("form").addEventListener("change", (event) => { if (event.target.name === "by") arrange(); });
byId("threshold").addEventListener("input", (event) => {
  thresholds[kind()] = event.target.valueAsNumber;
  requestAnimationFrame(draw);
});
picture.addEventListener("change", () => {
  running?.abort();
  kept = {};
  region.clear();
  arrange();
});
// What was found, or is being looked for, is like another example.
region.addEventListener("change", () => {
  if (kind() === "example") running?.abort();
  if (!kept.example) return;
  delete kept.example;
  draw();
});
boxes.addEventListener("hover", ({ detail }) => light(detail));
boxes.addEventListener("pick", ({ detail }) => results.focusRow(detail));
for (const button of document.querySelectorAll("[data-open]")) {
  button.addEventListener("click", () => {
    if (button.dataset.open === "camera") camera.open(); else byId("file").click();
  });
}
byId("copy").addEventListener("click", async () => {
  getSelection().selectAllChildren(byId("curl"));
  try {
    await navigator.clipboard.writeText(byId("curl").textContent);
    say(byId("status"), "Copied");
    byId("copy").textContent = "Copied";
  } catch { // pages that are not secure have no clipboard; the text is selected
    byId("copy").textContent = "Selected: copy it with Ctrl+C";
  }
});
onKey(() => (served.length ? run() : begin()));

begin();
