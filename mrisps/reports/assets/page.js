// Tables that are sorted, searched and filtered, and distributions that point at their rows. Nothing here makes HTML of text.
"use strict";

const SVG = ["http", "//www.w3.org/2000/svg"].join(":"); // a name, no address: nothing is loaded

function node(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function drawn(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const shown = (value) => (Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-2) ? value.toExponential(1) : String(Number(value.toPrecision(3))));

function start(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows].map((row) => ({
    row,
    values: [...row.cells].map((cell) => (cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value))),
    text: row.textContent.toLowerCase(),
    level: row.dataset.level || "",
  }));
  const tests = new Map(); // what is asked for: name -> test of a row
  const count = node("output", { className: "count" });
  const everything = node("button", { type: "button", textContent: "Show all" });
  const update = () => {
    let n = 0;
    for (const entry of rows) {
      const keep = [...tests.values()].every((test) => test(entry));
      entry.row.hidden = !keep;
      n += keep;
    }
    count.textContent = `${n} of ${rows.length} rows`;
    everything.hidden = !tests.size;
  };
  const ask = (name, test) => {
    if (test) tests.set(name, test);
    else tests.delete(name);
    update();
  };

  heads.forEach((head, column) => {
    const sort = node("button", { type: "button", textContent: head.textContent, title: "Sort" });
    sort.onclick = () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = (one, other) => {
        const [a, b] = [one.values[column], other.values[column]];
        const numbers = [a, b].map((value) => typeof value === "number" && !Number.isNaN(value));
        if (numbers[0] !== numbers[1]) return numbers[0] ? -1 : 1; // what has no number comes last, either way
        const sign = numbers[0] ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
        return down ? -sign : sign;
      };
      body.append(...rows.sort(order).map((entry) => entry.row));
    };
    head.replaceChildren(sort);
  });

  const search = node("input", { type: "search", placeholder: "Search" });
  search.setAttribute("aria-label", "search in the table");
  search.oninput = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    ask("search", words.length ? (entry) => words.every((word) => entry.text.includes(word)) : null);
  };
  const controls = node("div", { className: "bar" }, search);
  const levels = [...new Set(rows.map((entry) => entry.level))].filter(Boolean);
  const wanted = new Set();
  const buttons = levels.map((level) => {
    const n = rows.filter((entry) => entry.level === level).length;
    const one = node("button", { type: "button", textContent: `${level} (${n})` });
    one.dataset.level = level;
    one.onclick = () => {
      if (!wanted.delete(level)) wanted.add(level);
      one.setAttribute("aria-pressed", wanted.has(level));
      ask("level", wanted.size ? (entry) => wanted.has(entry.level) : null);
    };
    one.setAttribute("aria-pressed", "false");
    return one;
  });
  if (levels.length > 1) controls.append(...buttons);
  const bars = [];
  const release = () => bars.forEach((bar) => bar.setAttribute("aria-pressed", "false"));
  everything.onclick = () => {
    tests.clear();
    wanted.clear();
    search.value = "";
    release();
    buttons.forEach((one) => one.setAttribute("aria-pressed", "false"));
    update();
  };
  controls.append(count, everything);

  const charts = node("div", { className: "charts" });
  heads.forEach((head, column) => {
    if (head.dataset.chart === undefined) return;
    const values = rows.map((entry) => entry.values[column]).filter((value) => typeof value === "number" && !Number.isNaN(value));
    if (values.length < 3) return;
    const [low, high] = [Math.min(...values), Math.max(...values)];
    if (low === high) return;
    const logarithmic = low > 0 && high / low > 50;
    const scale = logarithmic ? Math.log : (value) => value;
    const n = 40, width = 320, height = 70;
    const place = (value) => Math.min(Math.floor(((scale(value) - scale(low)) / (scale(high) - scale(low))) * n), n - 1);
    const bins = Array.from({ length: n }, () => ({ all: 0, bad: 0, ends: [Infinity, -Infinity] }));
    for (const entry of rows) {
      const value = entry.values[column];
      if (typeof value !== "number" || Number.isNaN(value)) continue;
      const bin = bins[place(value)];
      bin.all += 1;
      bin.bad += !["", "good"].includes(entry.level);
      bin.ends = [Math.min(bin.ends[0], value), Math.max(bin.ends[1], value)];
    }
    const most = Math.max(...bins.map((bin) => bin.all));
    const picture = drawn("svg", { viewBox: `0 0 ${width} ${height + 16}`, role: "group", "aria-label": `distribution: ${head.textContent}` });
    bins.forEach((bin, k) => {
      if (!bin.all) return;
      const size = (count) => Math.max((count / most) * height, 3);
      const [first, last] = bin.ends;
      const words = `${bin.all} of ${values.length}: ${shown(first)}${first === last ? "" : ` to ${shown(last)}`}`;
      const bar = drawn("g", { tabindex: 0, role: "button", "aria-pressed": "false", "aria-label": `${head.textContent} ${words}` });
      const box = (tall, kind) => drawn("rect", { x: (k * width) / n, y: height - tall, width: width / n - 1, height: tall, class: kind });
      bar.append(drawn("title", {}), box(height, "reach"), box(size(bin.all), "all"));
      bar.firstChild.textContent = words;
      if (bin.bad) bar.append(box(size(bin.bad), "bad"));
      const act = () => {
        const pressed = bar.getAttribute("aria-pressed") === "true";
        release();
        bar.setAttribute("aria-pressed", String(!pressed));
        ask("chart", pressed ? null : (entry) => entry.values[column] >= first && entry.values[column] <= last);
      };
      bar.onclick = act;
      bar.onkeydown = (event) => { if (event.key === "Enter" || event.key === " ") { act(); event.preventDefault(); } };
      bars.push(bar);
      picture.append(bar);
    });
    const label = (x, anchor, text) => { const one = drawn("text", { x, y: height + 12, "text-anchor": anchor }); one.textContent = text; return one; };
    picture.append(label(0, "start", shown(low)), label(width, "end", shown(high)));
    charts.append(node("figure", {}, node("figcaption", { textContent: `${head.textContent}${logarithmic ? " (logarithmic)" : ""}` }), picture));
  });
  table.parentElement.before(charts, controls);
  update();
  table.dataset.ready = "true";
}

document.querySelectorAll("table.interactive").forEach(start);
