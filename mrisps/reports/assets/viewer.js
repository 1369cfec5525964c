// The viewer of a page: linked panes of 16-bit pixels. It reads one JSON text and the planes beside it, and needs nothing else.
// Text from files only ever becomes textContent or an attribute, never HTML. The format is that of mrisps/reports/pixels.py.
"use strict";

const NOT_A_NUMBER = 65535;
const STOPS = {
  grey: ["000000", "ffffff"],
  signed: ["7fd0ff", "1f6fd0", "000000", "d0601f", "ffd07f"],
  heat: ["440154", "3b528b", "21918c", "5ec962", "fde725"],
  error: ["000004", "57106e", "bc3754", "f98e09", "fcffa4"],
  phase: ["3b6fd0", "8f5fc0", "d05f5f", "c0b050", "4fa870", "3b6fd0"],
};
const KEYS = [
  ["wheel, ↑ ↓, Page ↑ ↓, Home, End", "slices"],
  ["drag", "window: right is wider, down is darker"],
  ["Ctrl + wheel, + −, 0, 1", "zoom, all of it, pixel for pixel"],
  ["right or middle button", "pan"],
  ["Shift + drag, R", "region: mean and deviation"],
  ["Shift + arrows", "move the cross"],
  ["S, B, Esc", "swipe, blink, side by side"],
  ["A, I, double click", "automatic window, invert, one pane large"],
];

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function button(text, title, action) {
  return make("button", { type: "button", textContent: text, title, onclick: action });
}

function number(value) {
  if (!Number.isFinite(value)) return "not a number";
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(3) : String(Number(value.toPrecision(4)));
}

/** Colours of `n` steps as 0xAABBGGRR, what a canvas holds. */
function palette(name, n) {
  const stops = STOPS[name].map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  return Uint32Array.from({ length: n }, (_, i) => {
    const place = (i / (n - 1)) * (stops.length - 1);
    const k = Math.min(Math.floor(place), stops.length - 2);
    const [r, g, b] = [0, 1, 2].map((c) => Math.round(stops[k][c] + (place - k) * (stops[k + 1][c] - stops[k][c])));
    return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
}
const PALETTES = Object.fromEntries(Object.keys(STOPS).map((name) => [name, palette(name, 256)]));

/** The codes of one plane: inflate, join the two bytes of each residual, add the prediction from three neighbours. */
async function decode(text, ny, nx) {
  const letters = atob(text);
  const packed = new Uint8Array(letters.length);
  for (let i = 0; i < packed.length; i++) packed[i] = letters.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const n = ny * nx;
  const codes = new Uint16Array(n);
  for (let i = 0, y = 0; y < ny; y++) {
    for (let x = 0; x < nx; x++, i++) {
      const zigzag = (bytes[i] << 8) | bytes[n + i];
      const left = x ? codes[i - 1] : 0;
      const up = y ? codes[i - nx] : 0;
      const corner = x && y ? codes[i - nx - 1] : 0;
      const low = Math.min(left, up), high = Math.max(left, up);
      codes[i] = Math.min(Math.max(left + up - corner, low), high) + ((zigzag >> 1) ^ -(zigzag & 1));
    }
  }
  return codes;
}

class Viewer {
  constructor(root) {
    this.root = root;
    this.facts = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    this.planes = root.querySelectorAll("script[type='text/plain']");
    this.cache = new Map();
    this.panes = this.facts.panes.map((pane) => ({ ...pane, auto: pane.window, window: [...pane.window] }));
    this.byName = new Map(this.panes.map((pane) => [pane.name, pane]));
    this.tool = "window";
    this.mode = "side";
    this.zoom = 1;
    this.centre = [0.5, 0.5];
    this.split = 0.5;
    this.inverted = false;
    this.active = this.panes.find((pane) => pane.shown) || this.panes[0];
    [this.a, this.b] = this.facts.pair.map((name) => this.byName.get(name));
    this.build();
    window.addEventListener("hashchange", () => this.go(this.linked() ?? this.index));
    this.go(this.linked() ?? this.facts.first).then(() => { root.dataset.ready = String(Math.round(performance.now())); });
  }

  // ------------------------------------------------------------------------------------------------------------- controls

  build() {
    const n = this.facts.slices.length;
    const bar = make("div", { className: "bar slices" });
    this.slider = make("input", { type: "range", min: 0, max: n - 1, value: 0, "aria-label": "slice" });
    this.slider.oninput = () => this.go(Number(this.slider.value));
    this.place = make("output", { className: "place" });
    this.verdict = make("span", { className: "verdict" });
    const label = make("label", {}, `${this.facts.item} `, this.slider);
    bar.append(label, this.place, this.verdict);
    label.hidden = this.verdict.hidden = n === 1; // the page says it already

    const tools = make("div", { className: "bar" });
    const choice = (label, entries, act) => {
      const group = make("span", { className: "choice", role: "group", "aria-label": label });
      const buttons = entries.map(([key, text, title]) => {
        const one = button(text, title, () => act(key));
        one.dataset.key = key;
        return one;
      });
      group.append(...buttons);
      return { group, press: (key) => buttons.forEach((b) => b.setAttribute("aria-pressed", b.dataset.key === key)) };
    };
    this.tools = choice("mouse", [
      ["window", "Window", "Drag: window and level"],
      ["pan", "Pan", "Drag: move"],
      ["region", "Region", "Drag: mean and deviation of a region (R)"],
    ], (key) => this.use(key));
    this.modes = choice("view", [
      ["side", "Side by side", "Esc"],
      ["swipe", "Swipe", "Two panes in one place, the pointer divides (S)"],
      ["blink", "Blink", "Two panes in one place, in turn (B)"],
    ], (key) => this.show(key));
    const select = (label, which) => {
      const list = make("select", { "aria-label": label });
      this.panes.forEach((pane) => list.append(make("option", { value: pane.name, textContent: pane.title })));
      list.value = this[which].name;
      list.onchange = () => { this[which] = this.byName.get(list.value); this.refresh(); };
      return list;
    };
    this.pair = make("span", { className: "pair" }, select("first of two", "a"), select("second of two", "b"));
    this.black = make("input", { type: "text", inputMode: "decimal", size: 8, "aria-label": "value shown black" });
    this.white = make("input", { type: "text", inputMode: "decimal", size: 8, "aria-label": "value shown white" });
    for (const [field, index] of [[this.black, 0], [this.white, 1]]) {
      field.onchange = () => {
        const typed = Number(field.value);
        const range = [...this.active.window];
        range[index] = typed;
        if (Number.isFinite(typed) && field.value.trim() && range[1] > range[0]) this.setWindow(this.active, range);
        else this.draw();
      };
    }
    tools.append(
      this.tools.group, this.modes.group, this.pair,
      make("span", { className: "choice", role: "group", "aria-label": "zoom" },
        button("−", "Smaller (−)", () => this.setZoom(this.zoom / 1.25)), button("+", "Larger (+)", () => this.setZoom(this.zoom * 1.25)),
        button("Fit", "All of it (0)", () => this.fit()), button("1:1", "Pixel for pixel (1)", () => this.oneToOne())),
      make("span", { className: "levels" }, make("label", {}, "black ", this.black), make("label", {}, "white ", this.white)),
      button("Auto", "Automatic windows (A)", () => this.autoWindow()),
      button("Invert", "Exchange black and white (I)", () => { this.inverted = !this.inverted; this.draw(); }),
    );

    this.chips = make("div", { className: "bar chips", role: "group", "aria-label": "panes" });
    this.grid = make("div", { className: "panes" });
    for (const pane of this.panes) {
      pane.chip = button(pane.title, pane.about, () => { pane.shown = !pane.shown; this.refresh(); });
      this.chips.append(pane.chip);
      pane.canvas = make("canvas", { role: "img" });
      pane.value = make("output", { className: "value" });
      pane.heading = make("span", { className: "title", textContent: pane.title, title: pane.about });
      pane.figure = make("figure", { className: "pane" }, pane.canvas, make("figcaption", {}, pane.heading, pane.value));
      pane.figure.dataset.pane = pane.name;
      pane.bitmap = document.createElement("canvas");
      this.listen(pane);
      this.grid.append(pane.figure);
    }
    this.status = make("p", { className: "status", "aria-live": "polite" });
    const help = make("details", { className: "keys" }, make("summary", { textContent: "Mouse and keys" }));
    const list = make("dl");
    KEYS.forEach(([keys, words]) => list.append(make("dt", { textContent: keys }), make("dd", { textContent: words })));
    help.append(list);
    const pages = make("nav", { className: "bar", "aria-label": "pages of slices" });
    const choice_of_pages = make("select", { "aria-label": "page" });
    this.facts.pages.forEach(([href, label], index) => {
      choice_of_pages.append(make("option", { value: href, textContent: label, selected: index === this.facts.page }));
      if (index === this.facts.page - 1) pages.prepend(make("a", { href, textContent: `← ${label}` }));
      if (index === this.facts.page + 1) pages.append(make("a", { href, textContent: `${label} →` }));
    });
    choice_of_pages.onchange = () => { location.href = choice_of_pages.value; };
    pages.prepend(choice_of_pages);
    this.root.tabIndex = 0;
    this.root.append(...(this.facts.pages.length > 1 ? [pages] : []), bar, tools, this.chips, this.grid, this.status, help);
    this.use("window");
    document.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.layout()).observe(this.root);
    window.addEventListener("beforeprint", () => this.layout(700));
    window.addEventListener("afterprint", () => this.layout());
  }

  use(tool) {
    this.tool = tool;
    this.tools.press(tool);
    this.root.dataset.tool = tool;
  }

  show(mode) {
    clearInterval(this.timer);
    this.mode = mode;
    if (mode === "blink") this.timer = setInterval(() => { this.split = this.split ? 0 : 1; this.draw(); }, 600);
    this.split = mode === "swipe" ? 0.5 : 1;
    return this.refresh();
  }

  listen(pane) {
    const { canvas } = pane;
    let drag = null;
    let travelled = 0;
    canvas.addEventListener("wheel", (event) => {
      if (event.ctrlKey) this.setZoom(this.zoom * Math.exp(-event.deltaY / 300), this.at(pane, event));
      else if (this.facts.slices.length > 1) {
        travelled += event.deltaMode ? event.deltaY * 40 : event.deltaY;
        const steps = Math.trunc(travelled / 40);
        if (steps) this.go(this.index + Math.sign(steps));
        if (steps) travelled = 0;
      } else return;
      event.preventDefault();
    }, { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => {
      this.root.focus({ preventScroll: true });
      const tool = event.button ? "pan" : event.shiftKey ? "region" : this.tool;
      this.active = pane;
      drag = { tool, x: event.clientX, y: event.clientY, window: [...pane.window], centre: [...this.centre], from: this.at(pane, event) };
      canvas.setPointerCapture(event.pointerId);
      if (tool === "region") this.region = null;
      event.preventDefault();
      this.draw();
    });
    canvas.addEventListener("pointermove", (event) => {
      const place = this.at(pane, event);
      if (!drag) {
        this.cross = place;
        if (this.mode === "swipe") this.split = Math.min(Math.max(event.offsetX / canvas.clientWidth, 0), 1);
      } else {
        const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
        const [low, high] = drag.window;
        if (drag.tool === "window") {
          const width = (high - low) * Math.exp(dx / 200);
          const level = (low + high) / 2 + ((high - low) * dy) / 300;
          this.setWindow(pane, pane.colours === "signed" ? [-width / 2, width / 2] : [level - width / 2, level + width / 2]);
        } else if (drag.tool === "pan") {
          const scale = this.scale(pane);
          this.centre = [drag.centre[0] - dx / scale / pane.nx, drag.centre[1] - dy / scale / pane.ny].map((c) => Math.min(Math.max(c, 0), 1));
        } else this.region = [drag.from, place];
      }
      this.draw();
    });
    const end = () => { drag = null; };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", () => { this.cross = null; this.draw(); });
    canvas.addEventListener("dblclick", () => {
      this.alone = this.alone === pane ? null : pane;
      this.refresh();
    });
  }

  key(event) {
    if (event.target.matches?.("input:not([type=range]), select, textarea") || event.altKey || event.metaKey || event.ctrlKey) return;
    if (!this.root.contains(document.activeElement) && !this.root.matches(":hover")) return;
    const last = this.facts.slices.length - 1;
    const arrows = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
    if (event.shiftKey && event.key in arrows) {
      const [dx, dy] = arrows[event.key];
      const [u, v] = this.cross || this.centre;
      this.cross = [u + dx / this.active.nx, v + dy / this.active.ny].map((c) => Math.min(Math.max(c, 0), 0.9999));
      this.draw();
      event.preventDefault();
      return;
    }
    const swipe = (step) => { this.split = Math.min(Math.max(this.split + step, 0), 1); this.draw(); };
    const actions = {
      ArrowUp: () => this.go(this.index - 1), ArrowDown: () => this.go(this.index + 1),
      ArrowLeft: () => (this.mode === "swipe" ? swipe(-0.05) : this.go(this.index - 1)),
      ArrowRight: () => (this.mode === "swipe" ? swipe(0.05) : this.go(this.index + 1)),
      PageUp: () => this.go(this.index - 10), PageDown: () => this.go(this.index + 10), Home: () => this.go(0), End: () => this.go(last),
      "+": () => this.setZoom(this.zoom * 1.25), "-": () => this.setZoom(this.zoom / 1.25), 0: () => this.fit(), 1: () => this.oneToOne(),
      a: () => this.autoWindow(), i: () => { this.inverted = !this.inverted; this.draw(); },
      s: () => this.show(this.mode === "swipe" ? "side" : "swipe"), b: () => this.show(this.mode === "blink" ? "side" : "blink"),
      Escape: () => { this.region = null; this.alone = null; this.show("side"); }, w: () => this.use("window"), p: () => this.use("pan"),
      r: () => {
        const [u, v] = this.cross || this.centre;
        const [ru, rv] = [10 / this.active.nx, 10 / this.active.ny];
        this.region = [[u - ru, v - rv], [u + ru, v + rv]];
        this.draw();
      },
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    action();
    event.preventDefault();
  }

  // ---------------------------------------------------------------------------------------------------------------- state

  /** The slice that the address names: page.html#slice=12. */
  linked() {
    const wanted = /#slice=(.+)/.exec(location.hash);
    const at = wanted ? this.facts.slices.findIndex((slice) => slice.number === decodeURIComponent(wanted[1])) : -1;
    return at < 0 ? null : at;
  }

  async go(index) {
    this.index = Math.min(Math.max(index, 0), this.facts.slices.length - 1);
    const slice = this.facts.slices[this.index];
    this.slider.value = this.index;
    this.slider.setAttribute("aria-valuetext", slice.label);
    this.place.textContent = `${slice.label}${this.facts.slices.length > 1 ? ` (${this.index + 1} of ${this.facts.slices.length})` : ""}`;
    this.verdict.textContent = [slice.level.toUpperCase(), slice.reasons].filter(Boolean).join(": ");
    this.verdict.dataset.level = slice.level;
    this.verdict.title = this.verdict.textContent;
    this.root.dataset.slice = String(this.index);
    return this.refresh();
  }

  /** Which panes are seen: the chosen ones, one alone, or the place where two are swiped. */
  visible() {
    if (this.mode !== "side") return [this.a];
    return this.alone ? [this.alone] : this.panes.filter((pane) => pane.shown);
  }

  async refresh() {
    const wanted = new Set([...this.visible(), ...(this.mode === "side" ? [] : [this.b])]);
    const index = this.index;
    const planes = await Promise.allSettled([...wanted].map((pane) => this.plane(pane, index)));
    const wrong = planes.find((each) => each.reason);
    if (wrong) failed(this.root, wrong.reason);
    if (index !== this.index) return; // a later slice is under way
    [...wanted].forEach((pane, k) => { pane.plane = planes[k].value ?? null; });
    for (const pane of wanted) [pane.ny, pane.nx] = pane.plane ? [pane.plane.ny, pane.plane.nx] : [1, 1];
    for (const pane of this.panes) {
      pane.figure.hidden = !this.visible().includes(pane);
      pane.chip.setAttribute("aria-pressed", pane.shown);
    }
    this.modes.press(this.mode);
    this.root.dataset.mode = this.mode;
    this.pair.hidden = this.mode === "side";
    this.layout();
    const next = index + 1 < this.facts.slices.length ? index + 1 : 0;
    setTimeout(() => wanted.forEach((pane) => this.plane(pane, next).catch(() => null)), 50);
  }

  /** {codes, ny, nx, offset, step} of a pane in a slice, or null where the slice does not have it. */
  plane(pane, index) {
    const key = `${pane.name}/${index}`;
    if (!this.cache.has(key)) {
      if (this.cache.size > 120) this.cache.delete(this.cache.keys().next().value);
      this.cache.set(key, pane.of ? this.difference(pane, index) : this.read(pane, index));
    }
    return this.cache.get(key);
  }

  async read(pane, index) {
    const entry = this.facts.slices[index].planes[pane.name];
    if (!entry) return null;
    const [where, ny, nx, offset, step] = entry;
    return { codes: await decode(this.planes[where].textContent, ny, nx), ny, nx, offset, step };
  }

  async difference(pane, index) {
    const [one, other] = await Promise.all(pane.of.map((name) => this.plane(this.byName.get(name), index)));
    if (!one || !other || one.ny !== other.ny || one.nx !== other.nx) return null;
    const values = new Float64Array(one.codes.length);
    let largest = 0;
    for (let i = 0; i < values.length; i++) {
      values[i] = this.value(one, i) - this.value(other, i);
      if (Math.abs(values[i]) > largest) largest = Math.abs(values[i]);
    }
    const step = largest / 32767 || 1;
    const sign = pane.colours === "signed";
    const codes = new Uint16Array(values.length);
    for (let i = 0; i < codes.length; i++) {
      const v = values[i] / step;
      codes[i] = Number.isNaN(v) ? NOT_A_NUMBER : Math.round(sign ? v + 32767 : 2 * Math.abs(v));
    }
    return { codes, ny: one.ny, nx: one.nx, offset: sign ? -largest : 0, step: sign ? step : step / 2 };
  }

  value(plane, i) {
    return plane.codes[i] === NOT_A_NUMBER ? NaN : plane.offset + plane.step * plane.codes[i];
  }

  setWindow(pane, range) {
    this.active = pane;
    for (const other of this.panes) if (other.group === pane.group) other.window = [...range];
    this.draw();
  }

  autoWindow() {
    this.panes.forEach((pane) => { pane.window = [...pane.auto]; });
    this.inverted = false;
    this.draw();
  }

  setZoom(zoom, around = this.cross || this.centre) {
    const next = Math.min(Math.max(zoom, 0.2), 60);
    this.centre = this.centre.map((c, k) => Math.min(Math.max(around[k] + ((c - around[k]) * this.zoom) / next, 0), 1));
    this.zoom = next;
    this.draw();
  }

  fit() {
    [this.zoom, this.centre] = [1, [0.5, 0.5]];
    this.draw();
  }

  oneToOne() {
    const pane = this.visible()[0];
    this.setZoom(this.zoom / this.scale(pane) / (window.devicePixelRatio || 1), this.centre);
  }

  // -------------------------------------------------------------------------------------------------------------- drawing

  /** As many columns as make the panes largest without making them higher than the window. */
  layout(width = this.grid.clientWidth) {
    const panes = this.visible();
    if (!panes.length || !width) return this.draw();
    const gap = 6, caption = 26;
    const [ny, nx] = [Math.max(...panes.map((p) => p.ny)), Math.max(...panes.map((p) => p.nx))];
    const room = Math.max(window.innerHeight * 0.8, 300);
    let best = [0, 1];
    for (let columns = 1; columns <= panes.length; columns++) {
      const rows = Math.ceil(panes.length / columns);
      const side = Math.min(width / columns - gap, ((room / rows - caption) * nx) / ny);
      const fewer = rows < Math.ceil(panes.length / best[1]); // rows, if the panes are nearly as large
      if (side > best[0] || (fewer && side > best[0] * 0.88)) best = [side, columns];
    }
    const side = Math.floor(Math.max(best[0], Math.min(200, width - gap)));
    this.grid.style.gridTemplateColumns = `repeat(${best[1]}, ${side}px)`;
    for (const pane of panes) {
      pane.canvas.style.width = `${side}px`;
      pane.canvas.style.height = `${Math.round((side * ny) / nx)}px`;
    }
    return this.draw(true);
  }

  /** Screen pixels for a pixel of the image. */
  scale(pane) {
    const { clientWidth, clientHeight } = pane.canvas;
    return this.zoom * Math.min(clientWidth / pane.nx, clientHeight / pane.ny);
  }

  /** Where in the image an event is, from 0 to 1 along x and y. */
  at(pane, event) {
    const scale = this.scale(pane);
    const u = this.centre[0] + (event.offsetX - pane.canvas.clientWidth / 2) / scale / pane.nx;
    const v = this.centre[1] + (event.offsetY - pane.canvas.clientHeight / 2) / scale / pane.ny;
    return [u, v];
  }

  draw(now = false) {
    if (now === true) return this.paint();
    if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.paint(); });
    return undefined;
  }

  paint() {
    for (const pane of this.visible()) {
      const ratio = window.devicePixelRatio || 1;
      const [width, height] = [Math.round(pane.canvas.clientWidth * ratio), Math.round(pane.canvas.clientHeight * ratio)];
      if (!width || !height) continue;
      const shown = this.mode === "side" ? [pane] : [pane, this.b, this.split];
      const now = [width, height, this.zoom, ...this.centre, this.inverted, this.cross, this.region, this.mode, this.place.textContent];
      for (const each of shown) now.push(each, each.plane, ...(each.window || []));
      if (pane.painted && now.every((each, k) => each === pane.painted[k])) continue; // nothing has changed here
      pane.painted = now;
      if (pane.canvas.width !== width || pane.canvas.height !== height) Object.assign(pane.canvas, { width, height });
      const context = pane.canvas.getContext("2d");
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      this.paintImage(context, pane, pane, 0, 1);
      if (this.mode !== "side") this.paintImage(context, this.b, pane, this.split, 1);
      this.paintMarks(context, pane);
      this.describe(pane);
    }
    const [low, high] = this.active.window;
    if (document.activeElement !== this.black) this.black.value = number(low);
    if (document.activeElement !== this.white) this.white.value = number(high);
    this.root.dataset.window = `${low} ${high}`;
    this.root.dataset.frames = String(Number(this.root.dataset.frames || 0) + 1);
  }

  /** The part of an image between two fractions of the width of the place where it is shown. */
  paintImage(context, pane, place, from, to) {
    const { clientWidth: width, clientHeight: height } = place.canvas;
    if (from >= to) return;
    context.save();
    context.beginPath();
    context.rect(from * width, 0, (to - from) * width, height);
    context.clip();
    context.clearRect(0, 0, width, height);
    if (pane.plane) {
      this.colour(pane);
      const scale = this.zoom * Math.min(width / pane.nx, height / pane.ny);
      context.imageSmoothingEnabled = scale * (window.devicePixelRatio || 1) < 1;
      const x = width / 2 - this.centre[0] * pane.nx * scale, y = height / 2 - this.centre[1] * pane.ny * scale;
      context.drawImage(pane.bitmap, x, y, pane.nx * scale, pane.ny * scale);
    } else {
      context.fillStyle = "#999";
      context.fillText("not there in this slice", 10, 20);
    }
    context.restore();
  }

  /** Colours of all pixels, in the pane's own bitmap; only if plane or window have changed. */
  colour(pane) {
    const { codes, ny, nx, offset, step } = pane.plane;
    const [low, high] = pane.window;
    const done = [pane.plane, low, high, this.inverted];
    if (pane.done && done.every((each, k) => each === pane.done[k])) return;
    pane.done = done;
    const colours = PALETTES[pane.colours];
    const table = (pane.table ||= new Uint32Array(65536));
    const slope = (255 * step) / (high - low), shift = (255 * (offset - low)) / (high - low);
    for (let code = 0; code < NOT_A_NUMBER; code++) {
      const shade = Math.min(Math.max(Math.round(shift + slope * code), 0), 255);
      table[code] = colours[this.inverted ? 255 - shade : shade];
    }
    table[NOT_A_NUMBER] = 0xffff00ff; // magenta: no number
    if (pane.bitmap.width !== nx || pane.bitmap.height !== ny) Object.assign(pane.bitmap, { width: nx, height: ny });
    const context = pane.bitmap.getContext("2d");
    const image = context.createImageData(nx, ny);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = table[codes[i]];
    context.putImageData(image, 0, 0);
  }

  paintMarks(context, pane) {
    const { clientWidth: width, clientHeight: height } = pane.canvas;
    const scale = this.scale(pane);
    const screen = ([u, v]) => [width / 2 + (u - this.centre[0]) * pane.nx * scale, height / 2 + (v - this.centre[1]) * pane.ny * scale];
    context.lineWidth = 1;
    if (this.cross) {
      const [x, y] = screen(this.cross);
      context.strokeStyle = "#39d353";
      context.beginPath();
      for (const [dx, dy] of [[-1, 0], [1, 0], [0, -1], [0, 1]]) {
        context.moveTo(x + 4 * dx, y + 4 * dy);
        context.lineTo(x + 12 * dx, y + 12 * dy);
      }
      context.stroke();
    }
    if (this.region) {
      const [x0, y0] = screen(this.region[0]), [x1, y1] = screen(this.region[1]);
      context.strokeStyle = "#ffd33d";
      context.strokeRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
    }
    if (this.mode === "swipe") {
      context.fillStyle = "#ffd33d";
      context.fillRect(this.split * width - 0.5, 0, 1, height);
    }
  }

  /** Value at the cross or statistics of the region, beside the name; and all of it for those who cannot see. */
  describe(pane) {
    const both = this.mode === "side" ? [pane] : [this.a, this.b];
    const names = { side: pane.title, swipe: `${this.a.title} | ${this.b.title}`, blink: (this.split ? this.a : this.b).title };
    pane.heading.textContent = names[this.mode];
    const words = both.map((each) => (each.plane ? this.region ? this.statistics(each) : this.reading(each) : ""));
    pane.value.textContent = words.filter(Boolean).join(" | ");
    pane.canvas.setAttribute("aria-label", `${pane.heading.textContent}, ${this.place.textContent}. ${pane.value.textContent}`);
    if (pane !== this.visible()[0]) return;
    const at = this.cross && pane.plane ? `row ${Math.floor(this.cross[1] * pane.ny)}, column ${Math.floor(this.cross[0] * pane.nx)}` : "";
    const box = this.region && pane.plane ? this.box(pane) : null;
    const size = box ? `region of ${box[2] - box[0]} x ${box[3] - box[1]} pixels from column ${box[0]}, row ${box[1]}` : "";
    this.status.textContent = [at, size].filter(Boolean).join("; ") || " ";
  }

  reading(pane) {
    if (!this.cross) return "";
    const x = Math.floor(this.cross[0] * pane.nx), y = Math.floor(this.cross[1] * pane.ny);
    return x < 0 || y < 0 || x >= pane.nx || y >= pane.ny ? "" : number(this.value(pane.plane, y * pane.nx + x));
  }

  box(pane) {
    const [[u0, v0], [u1, v1]] = this.region;
    const inside = (value, n) => Math.min(Math.max(value, 0), n);
    return [
      inside(Math.floor(Math.min(u0, u1) * pane.nx), pane.nx), inside(Math.floor(Math.min(v0, v1) * pane.ny), pane.ny),
      inside(Math.ceil(Math.max(u0, u1) * pane.nx), pane.nx), inside(Math.ceil(Math.max(v0, v1) * pane.ny), pane.ny),
    ];
  }

  statistics(pane) {
    const [x0, y0, x1, y1] = this.box(pane);
    let n = 0, sum = 0, squares = 0;
    const first = this.value(pane.plane, y0 * pane.nx + x0) || 0; // subtracted, so that the squares do not cancel
    for (let y = y0; y < y1; y++) {
      for (let x = x0; x < x1; x++) {
        const value = this.value(pane.plane, y * pane.nx + x) - first;
        if (Number.isNaN(value)) continue;
        n += 1;
        sum += value;
        squares += value * value;
      }
    }
    if (!n) return "";
    const mean = sum / n;
    return `${number(mean + first)} ± ${number(n > 1 ? Math.sqrt(Math.max(squares - n * mean * mean, 0) / (n - 1)) : 0)}`;
  }
}

/** Say that something is wrong with the data, or with the browser: it may be too old. */
function failed(root, error) {
  root.querySelector(".failed")?.remove();
  root.prepend(make("p", { className: "failed", role: "alert", textContent: `These images cannot be shown: ${error}` }));
}

document.querySelectorAll(".viewer").forEach((root) => {
  try {
    new Viewer(root);
  } catch (error) {
    failed(root, error);
  }
});
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
