// The picture: where it comes from, and how large it is.

import { byId, say, show } from "./dom.js";

const sizeOf = (bytes) => {
  if (bytes < 1e3) return `${bytes} bytes`;
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
};

export class Picture extends EventTarget {
  file = null;
  width = 0;
  height = 0;
  #image = byId("image");
  #url = "";

  constructor() {
    super();
    for (const id of ["file", "capture"]) {
      byId(id).addEventListener("change", (event) => {
        this.show(event.target.files[0]);
        event.target.value = ""; // so that the same file can be chosen again
      });
    }
    document.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      const file = files.find((one) => one.type.startsWith("image/"));
      if (file) { event.preventDefault(); this.show(file); }
    });
    this.#listenForDrops();
  }

  // Show a file, whatever it is: the server reads kinds that a browser does not.
  async show(file) {
    if (!file) return;
    const url = URL.createObjectURL(file);
    this.#image.src = url;
    let seen = true;
    try { await this.#image.decode(); } catch { seen = false; }
    if (this.#image.src !== url) { URL.revokeObjectURL(url); return; } // another came meanwhile
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = url;
    this.file = file;
    show(this.#image, seen);
    show(byId("unseen"), !seen);
    show(byId("empty"), false);
    show(byId("stage"), true);
    this.#image.alt = `The picture ${file.name}`;
    this.resize(seen ? this.#image.naturalWidth : 0, seen ? this.#image.naturalHeight : 0);
    say(byId("announce"), `${file.name || "A picture"} is ready`);
    this.dispatchEvent(new Event("change"));
  }

  // Set the size in pixels: upright, as the browser and the server both show it; 0 if not known.
  resize(width, height) {
    Object.assign(this, { width, height });
    byId("frame").style.setProperty("--ratio", width ? width / height : 1.5);
    byId("overlay").setAttribute("viewBox", `0 0 ${width || 3} ${height || 2}`);
    const size = width ? `${width} \u00d7 ${height}, ` : "";
    const name = this.file.name || "picture";
    byId("file-about").textContent = `${name}, ${size}${sizeOf(this.file.size)}`;
  }

  #listenForDrops() {
    const veil = byId("drop");
    const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    let depth = 0;
    const leave = () => { depth = 0; show(veil, false); };
    addEventListener("dragenter", (event) => {
      if (carriesFiles(event)) { depth += 1; show(veil, true); }
    });
    addEventListener("dragleave", () => { depth -= 1; if (depth <= 0) leave(); });
    addEventListener("dragover", (event) => { if (carriesFiles(event)) event.preventDefault(); });
    addEventListener("drop", (event) => {
      leave();
      if (!carriesFiles(event)) return;
      event.preventDefault();
      this.show(event.dataTransfer.files[0]);
    });
  }
}
