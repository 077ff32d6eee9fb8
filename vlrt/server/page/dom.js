// Small helpers around the document.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

const append = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};

// An element with attributes (`onclick` and the like are listeners) and children. Text stays text:
// nothing that a server or a reader wrote ever becomes markup.
export const el = (tag, attributes = {}, ...children) =>
  append(document.createElement(tag), attributes, children);

export const svg = (tag, attributes = {}, ...children) =>
  append(document.createElementNS(SVG, tag), attributes, children);

export const show = (node, shown) => { node.hidden = !shown; };

export const plural = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

export const milliseconds = (value) => `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ms`;

// For readers of screens. The same words twice are two messages.
export const say = (node, text) => {
  node.textContent = "";
  requestAnimationFrame(() => { node.textContent = text; });
};
