// Requests to the server: its answers, its problems, and what it says of its time.

const KEY = "vlrt-api-key";

// sessionStorage may be forbidden; then the key lives as long as the page.
let remembered = "";

export const key = {
  get() {
    try { return sessionStorage.getItem(KEY) ?? remembered; } catch { return remembered; }
  },
  set(value) {
    remembered = value;
    try { sessionStorage.setItem(KEY, value); } catch { /* kept in `remembered` */ }
  },
};

// What the server, or the way to it, has against a request.
export class Problem extends Error {
  constructor(status, name, detail, retryAfter = null) {
    super(detail);
    Object.assign(this, { status, name, retryAfter });
  }
}

// Relative to the page, so that it may live under any path.
export const address = (path) => new URL(path, document.baseURI).href;

const problem = async (response) => {
  const retry = Number.parseFloat(response.headers.get("Retry-After"));
  const retryAfter = Number.isFinite(retry) ? Math.max(0, retry) : null;
  let document = {};
  try { document = await response.json(); } catch { /* a proxy's page, which says nothing here */ }
  const detail = document.detail ?? `The server answered with status ${response.status}.`;
  return new Problem(response.status, document.error ?? "", String(detail), retryAfter);
};

const send = async (path, options) => {
  const headers = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
  let response;
  try {
    response = await fetch(address(path), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "", "The server cannot be reached. Is it still running?");
  }
  if (!response.ok) throw await problem(response);
  return response;
};

export const models = async () => (await (await send("v1/models")).json()).data;

// `Server-Timing: wait;dur=0.1, run;dur=20.5` as {wait: 0.1, run: 20.5}, in milliseconds.
export const serverTiming = (header) => Object.fromEntries(
  (header ?? "").split(",").map((part) => part.split(";").map((item) => item.trim()))
    .map(([name, ...items]) => [name, items.find((item) => item.startsWith("dur="))])
    .filter(([name, duration]) => name && duration)
    .map(([name, duration]) => [name, Number.parseFloat(duration.slice(4))]),
);

// Send a picture with fields of text; the answer, the server's stages and the whole, as seen here.
export const post = async (path, file, fields, signal) => {
  const body = new FormData();
  body.append("image", file, file.name || "picture");
  for (const [name, value] of Object.entries(fields)) body.append(name, value);
  const begun = performance.now();
  const response = await send(path, { method: "POST", body, signal });
  const data = await response.json();
  const total = performance.now() - begun;
  return { data, total, stages: serverTiming(response.headers.get("Server-Timing")) };
};

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// The same request as a command for a shell. The key itself is not part of it.
export const curl = (path, file, fields) => {
  const name = (file.name || "picture").replaceAll("\\", "\\\\").replaceAll('"', '\\"');
  const lines = [`curl ${quoted(address(path))}`];
  if (key.get()) lines.push('-H "Authorization: Bearer $VLRT_API_KEY"');
  lines.push(`-F ${quoted(`image=@"${name}"`)}`);
  for (const [field, value] of Object.entries(fields)) {
    lines.push(`--form-string ${quoted(`${field}=${value}`)}`);
  }
  return lines.join(" \\\n  ");
};
