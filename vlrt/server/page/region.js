// The example's box: drawn, moved and resized by pointer, by keys, or by its numbers.

import { byId, say, svg } from "./dom.js";

const REACH = 18; // pixels of the screen around a corner that still take hold of it
const HELP = "Example's box. Arrow keys move it, with Shift they resize it, Delete removes it.";

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

export class Region extends EventTarget {
  box = null; // {x, y, w, h} in whole pixels of the picture
  #overlay = byId("overlay");
  #layer = svg("g", { class: "region" });
  #fields = Object.fromEntries(["x", "y", "w", "h"].map((side) => [side, byId(`region-${side}`)]));
  #size = { width: 0, height: 0 };
  #active = false;
  #grip = null;
  #later = 0;

  constructor() {
    super();
    this.#overlay.append(this.#layer);
    this.#overlay.addEventListener("pointerdown", (event) => this.#down(event));
    this.#overlay.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      this.#overlay.addEventListener(end, () => this.#up());
    }
    this.#overlay.addEventListener("keydown", (event) => this.#key(event));
    for (const field of Object.values(this.#fields)) {
      field.addEventListener("change", () => this.#typed());
    }
    new ResizeObserver(() => this.#draw()).observe(this.#overlay);
  }

  // Whether the box can be drawn; `width` and `height` are the picture's.
  set({ active, width, height }) {
    if (width !== this.#size.width || height !== this.#size.height) this.box = null;
    this.#size = { width, height };
    this.#active = active && width > 0;
    byId("frame").classList.toggle("drawing", this.#active);
    if (this.#active) {
      this.#overlay.setAttribute("tabindex", "0");
      this.#overlay.setAttribute("role", "application");
      this.#overlay.setAttribute("aria-label", HELP);
    } else {
      this.#overlay.removeAttribute("tabindex");
      this.#overlay.setAttribute("role", "img");
    }
    this.#draw();
  }

  clear() { this.#place(null); }

  // Pixels of the picture in one of the screen; the overlay has no size while it is hidden.
  #scale() { return this.#size.width / (this.#overlay.getBoundingClientRect().width || Infinity); }

  #point(event) {
    const frame = this.#overlay.getBoundingClientRect();
    const { width, height } = this.#size;
    return {
      x: clamp(((event.clientX - frame.left) / frame.width) * width, 0, width),
      y: clamp(((event.clientY - frame.top) / frame.height) * height, 0, height),
    };
  }

  #down(event) {
    if (!this.#active || event.button !== 0) return;
    const point = this.#point(event);
    const reach = REACH * this.#scale();
    const corner = this.#corners().find(
      (one) => Math.hypot(one.x - point.x, one.y - point.y) <= reach,
    );
    const { box } = this;
    const inside = box && point.x > box.x && point.x < box.x + box.w
      && point.y > box.y && point.y < box.y + box.h;
    if (corner) {
      this.#grip = { from: { x: corner.oppositeX, y: corner.oppositeY } };
    } else if (inside) {
      this.#grip = { shift: { x: point.x - box.x, y: point.y - box.y } };
    } else {
      this.#grip = { from: point };
    }
    this.#overlay.setPointerCapture(event.pointerId);
    this.#overlay.focus({ preventScroll: true });
    event.preventDefault();
  }

  #move(event) {
    if (!this.#grip) return;
    const point = this.#point(event);
    const { from, shift } = this.#grip;
    if (shift) {
      const { w, h } = this.box;
      this.#place({ x: point.x - shift.x, y: point.y - shift.y, w, h });
      return;
    }
    if (Math.hypot(point.x - from.x, point.y - from.y) < 3 * this.#scale()) return; // a click
    const [x, y] = [Math.min(from.x, point.x), Math.min(from.y, point.y)];
    this.#place({ x, y, w: Math.max(from.x, point.x) - x, h: Math.max(from.y, point.y) - y });
  }

  #up() { this.#grip = null; }

  #key(event) {
    if (!this.#active || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Delete" || event.key === "Escape") {
      event.preventDefault();
      this.clear();
      return;
    }
    const [across, down] = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    }[event.key] ?? [0, 0];
    if (!across && !down) return;
    event.preventDefault();
    const { width, height } = this.#size;
    if (!this.box) { // the first key puts one in the middle
      this.#place({ x: width / 3, y: height / 3, w: width / 3, h: height / 3 });
      return;
    }
    const step = Math.max(1, Math.round(Math.min(width, height) / 100));
    const { x, y, w, h } = this.box;
    if (event.shiftKey) {
      this.#place({
        x, y, w: clamp(w + across * step, 1, width - x), h: clamp(h + down * step, 1, height - y),
      });
    } else {
      this.#place({ x: x + across * step, y: y + down * step, w, h });
    }
  }

  #typed() {
    const { x, y, w, h } = Object.fromEntries(
      Object.entries(this.#fields).map(([side, field]) => [side, field.valueAsNumber]),
    );
    if (![x, y, w, h].every(Number.isFinite)) return;
    const { width, height } = this.#size; // a corner stays where it is typed; the size gives way
    const [left, top] = [clamp(Math.round(x), 0, width - 1), clamp(Math.round(y), 0, height - 1)];
    this.#place({ x: left, y: top, w: Math.min(w, width - left), h: Math.min(h, height - top) });
  }

  // Whole pixels, inside the picture, one by one at the least.
  #place(box) {
    const { width, height } = this.#size;
    if (box) {
      const w = clamp(Math.round(box.w), 1, width);
      const h = clamp(Math.round(box.h), 1, height);
      const x = clamp(Math.round(box.x), 0, width - w);
      this.box = { x, y: clamp(Math.round(box.y), 0, height - h), w, h };
    } else {
      this.box = null;
    }
    this.#draw();
    clearTimeout(this.#later); // one message for many keys
    this.#later = setTimeout(() => say(byId("announce"), this.#words()), 400);
    this.dispatchEvent(new Event("change"));
  }

  #words() {
    if (!this.box) return "No box";
    const { x, y, w, h } = this.box;
    return `Box: left ${x}, top ${y}, ${w} wide, ${h} high`;
  }

  #corners() {
    if (!this.box) return [];
    const { x, y, w, h } = this.box;
    return [[x, y], [x + w, y], [x, y + h], [x + w, y + h]].map(([across, down]) => ({
      x: across, y: down, oppositeX: 2 * x + w - across, oppositeY: 2 * y + h - down,
    }));
  }

  #draw() {
    for (const [side, field] of Object.entries(this.#fields)) field.value = this.box?.[side] ?? "";
    if (!this.box || !this.#active) {
      this.#layer.replaceChildren();
      return;
    }
    const { x, y, w, h } = this.box;
    const { width, height } = this.#size;
    const area = { x, y, width: w, height: h };
    const r = 6 * this.#scale();
    this.#layer.replaceChildren(
      svg("path", { class: "shade", d: `M0 0H${width}V${height}H0ZM${x} ${y}h${w}v${h}h${-w}Z` }),
      svg("rect", { class: "under", ...area }),
      svg("rect", { class: "edge", ...area }),
      ...this.#corners().map((corner) => svg("circle", { cx: corner.x, cy: corner.y, r })),
    );
  }
}
