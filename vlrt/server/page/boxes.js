// Objects drawn over the picture, in the picture's own pixels.

import { byId, svg } from "./dom.js";
import { style } from "./colours.js";

const FONT = 13; // pixels of the screen, whatever the picture's size
const CROWDED = 0.15; // of the picture under tags: from there on they are numbers alone

const within = (value, most) => Math.min(Math.max(value, 0), most);
const shared = (a, b) => Math.max(0, Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x))
  * Math.max(0, Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y));

export class Boxes extends EventTarget {
  #overlay = byId("overlay");
  #frames = svg("g");
  #tags = svg("g"); // over all frames
  #layer = svg("g", {}, this.#frames, this.#tags);
  #objects = [];
  #size = { width: 1, height: 1 };

  constructor() {
    super();
    this.#overlay.append(this.#layer);
    new ResizeObserver(() => this.#placeTags()).observe(this.#overlay);
    this.#layer.addEventListener("pointerover", (event) => this.#tell("hover", event));
    this.#layer.addEventListener("pointerout", () => this.#tell("hover", null));
    this.#layer.addEventListener("click", (event) => this.#tell("pick", event));
  }

  // Pixels of the picture in one of the screen.
  get scale() {
    return this.#size.width / (this.#overlay.getBoundingClientRect().width || this.#size.width);
  }

  // Draw `objects`, the best first: {label, score, box, position}. Boxes are cut at the edges.
  draw(objects, size) {
    this.#size = size;
    this.#objects = objects.map((object, number) => this.#object(object, number));
    // The best is drawn last, over the others.
    this.#frames.replaceChildren(...this.#objects.map(({ frame }) => frame).reverse());
    this.#tags.replaceChildren(...this.#objects.map(({ name }) => name).reverse());
    this.#placeTags();
  }

  light(number) {
    this.#layer.classList.toggle("some-lit", number !== null);
    this.#objects.forEach(({ frame, name }, at) => {
      for (const node of [frame, name]) node.classList.toggle("lit", at === number);
    });
  }

  #object({ label, score, box, position }, number) {
    const { width, height } = this.#size;
    const [x, y] = [within(box.xmin, width), within(box.ymin, height)];
    const area = {
      x, y, width: within(box.xmax, width) - x, height: within(box.ymax, height) - y,
    };
    const { colour, dash, ink } = style(position);
    const text = svg("text", { fill: ink });
    const words = `${label}  ${score.toFixed(2)}`;
    const tag = svg("rect", { class: "tag", fill: colour });
    const about = { class: "object", "data-number": number, "data-label": label };
    const frame = svg(
      "g",
      about,
      svg("rect", { class: "halo", ...area }),
      svg("rect", { class: "box", ...area, stroke: colour, "stroke-dasharray": dash }),
    );
    return { frame, name: svg("g", about, tag, text), area, tag, text, words };
  }

  // A tag stands above its box, else in or below it, over as little of the others as it can. Where
  // they would hide too much of the picture, they are the numbers of the table's rows.
  #placeTags() {
    const { scale } = this;
    const { width, height } = this.#size;
    const [pad, font] = [5 * scale, FONT * scale];
    const placed = [];
    let lengths = this.#write(font, ({ words }) => words);
    const hidden = lengths.reduce((sum, length) => sum + (length + 2 * pad) * font * 1.55, 0);
    if (hidden > CROWDED * width * height) {
      lengths = this.#write(font, (_, number) => String(number + 1));
    }
    this.#objects.forEach(({ area, tag, text }, number) => {
      const size = { width: lengths[number] + 2 * pad, height: font * 1.55 };
      const columns = [area.x, area.x + area.width - size.width]
        .map((x) => within(x, Math.max(0, width - size.width)));
      const bottom = area.y + area.height;
      const rows = [area.y - size.height, area.y, bottom, bottom - size.height]
        .filter((y) => y >= 0 && y <= height - size.height);
      const choices = (rows.length ? rows : [0])
        .flatMap((y) => columns.map((x) => ({ x, y, ...size })));
      const costs = choices
        .map((one) => placed.reduce((sum, other) => sum + shared(one, other), 0));
      const best = choices[costs.indexOf(Math.min(...costs))];
      placed.push(best);
      for (const [name, value] of Object.entries(best)) tag.setAttribute(name, value);
      tag.setAttribute("rx", 3 * scale);
      text.setAttribute("x", best.x + pad);
      text.setAttribute("y", best.y + font * 1.12);
    });
  }

  // Write the tags; their lengths in the picture's pixels.
  #write(font, words) {
    this.#objects.forEach((object, number) => {
      object.text.setAttribute("font-size", font);
      object.text.textContent = words(object, number);
    });
    return this.#objects.map(({ text }) => text.getComputedTextLength());
  }

  #tell(what, event) {
    const node = event?.target.closest(".object");
    const detail = node ? Number(node.dataset.number) : null;
    this.dispatchEvent(new CustomEvent(what, { detail }));
  }
}
