// Colours that stay apart for colour-blind readers (after Okabe and Ito). When all are used, the
// lines become dashed, then dotted; the label's own text is always there too.

const COLOURS = ["#e69f00", "#56b4e9", "#cc79a7", "#009e73", "#f0e442", "#d55e00", "#0072b2"];
const DASHES = ["none", "10 5", "2 4"];

const channel = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);

const luminance = (colour) => {
  const [red, green, blue] = [1, 3, 5]
    .map((at) => channel(Number.parseInt(colour.slice(at, at + 2), 16) / 255));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};

// How the label at a position is drawn: `colour`, `dash`, and the `ink` to write on the colour.
export const style = (position) => {
  const colour = COLOURS[position % COLOURS.length];
  const dash = DASHES[Math.floor(position / COLOURS.length) % DASHES.length];
  const light = luminance(colour);
  const ink = (light + 0.05) / 0.05 > 1.05 / (light + 0.05) ? "#000000" : "#ffffff";
  return { colour, dash, ink };
};
