"use strict";
// Draws the chosen trial: its pods and its rates over one span of time. All text goes in as text.
(() => {
  document.documentElement.classList.add("script");
  const data = JSON.parse(document.getElementById("traces").textContent);
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 1000, LEFT = 96, RIGHT = 14, AXIS = 24;
  const STAGES = [
    "waiting for a node", "sandbox until the pull is asked for", "waiting for its turn to pull, or to try again",
    "pulling", "container starts", "until ready",
  ];
  const NAME = 0, NODE = 1, CREATED = 2, READY = 8, HOW = 9;
  const WAITED = 1, FAILED = 3, CENSORED = 4;
  let trial = null, rows = [], span = [0, 1], view = [0, 1], picked = -1;

  function draw(parent, name, attributes, text) {
    const node = document.createElementNS(SVG, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    if (parent) parent.appendChild(node);
    return node;
  }
  const canvas = (height, label) =>
    draw(null, "svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label });
  const x = (s) => LEFT + ((WIDTH - LEFT - RIGHT) * (s - view[0])) / (view[1] - view[0]);
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const figures = (value) => String(Number(value.toPrecision(3)));

  function step(reach, most) {
    const power = 10 ** Math.floor(Math.log10(reach / most));
    return [1, 2, 5, 10].map((one) => one * power).find((one) => reach / one <= most * 1.001);
  }

  function timeAxis(svg, top, bottom, named) {
    const each = step(view[1] - view[0], 8);
    for (let s = Math.ceil(view[0] / each) * each; s <= view[1] + 1e-9; s += each) {
      draw(svg, "line", { class: "grid", x1: x(s), x2: x(s), y1: top, y2: bottom });
      if (named) draw(svg, "text", { x: x(s), y: bottom + 15, "text-anchor": "middle" }, figures(s) + " s");
    }
  }

  // ---- Pods ----
  function patterns(svg) {
    const defs = draw(svg, "defs", {});
    const hatch = draw(defs, "pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    draw(hatch, "line", { x1: 0, x2: 0, y1: 0, y2: 6, style: "stroke:var(--wait);stroke-width:3" });
    const dots = draw(defs, "pattern", { id: "dots", width: 5, height: 5, patternUnits: "userSpaceOnUse" });
    draw(dots, "rect", { width: 5, height: 5, style: "fill:var(--shared);fill-opacity:.35" });
    draw(dots, "circle", { cx: 2.5, cy: 2.5, r: 1.3, style: "fill:var(--shared)" });
  }

  // [stage, from, to] of a pod, ms; a stage whose end is not known reaches to the next known moment.
  function stages(pod) {
    const marks = pod.slice(CREATED, READY + 1);
    const found = [];
    let from = marks[0], stage = 0;
    for (let place = 1; place < marks.length; place++) {
      if (marks[place] === null) continue;
      if (marks[place] > from) found.push([stage, from, marks[place]]);
      from = Math.max(from, marks[place]);
      stage = place;
    }
    if (marks[6] === null) found.push([stage, from, span[1] * 1000, true]);
    return found;
  }

  function drawPods() {
    const box = byId("pods");
    const height = rows.length > 60 ? 9 : 14, bottom = rows.length * height + 4;
    const svg = canvas(bottom + AXIS, `${rows.length} of ${trial.of} pods over time`);
    patterns(svg);
    timeAxis(svg, 0, bottom, true);
    let node = -1;
    rows.forEach((pod, place) => {
      const y = place * height + 4;
      const byNode = byId("order").value === "node";
      if (byNode && pod[NODE] !== node) {
        node = pod[NODE];
        draw(svg, "line", { class: "grid", x1: 0, x2: WIDTH, y1: y - 1, y2: y - 1 });
        draw(svg, "text", { x: LEFT - 6, y: y + 9, "text-anchor": "end" }, ending(trial.nodes[node] || "no node"));
      } else if (!byNode && (place % 5 === 0) && height * 5 > 12) {
        draw(svg, "text", { x: LEFT - 6, y: y + 9, "text-anchor": "end" }, `pod ${place + 1}`);
      }
      for (const [stage, from, to, open] of stages(pod)) {
        const a = clamp(x(from / 1000), LEFT, WIDTH - RIGHT), b = clamp(x(to / 1000), LEFT, WIDTH - RIGHT);
        if (b <= a) continue;
        const shared = stage === 3 && pod[HOW] === WAITED ? " shared" : "";
        const thin = stage === 0 || stage === 1 || stage === 5;
        draw(svg, "rect", { class: `k${stage}${shared}`, x: a.toFixed(1), width: (b - a).toFixed(1), y: y + (thin ? 3 : 0), height: height - (thin ? 8 : 2) });
        if (open && pod[HOW] === CENSORED) draw(svg, "text", { class: "ill", x: b - 9, y: y + height - 3 }, "▷");
        if (open && pod[HOW] === FAILED) draw(svg, "text", { class: "ill", x: b - 9, y: y + height - 3 }, "✖");
      }
    });
    if (picked >= 0) draw(svg, "rect", { class: "pick", x: LEFT - 2, width: WIDTH - LEFT - RIGHT + 4, y: picked * height + 2, height: height + 2 });
    box.replaceChildren(svg);
    svg.addEventListener("pointermove", (event) => {
      const place = Math.floor((at(svg, event)[1] - 4) / height);
      if (place >= 0 && place < rows.length && dragged === null) say(place);
    });
    let dragged = null, shade = null;
    svg.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch") return;
      dragged = at(svg, event)[0];
      shade = draw(svg, "rect", { class: "drag", x: dragged, width: 0, y: 0, height: bottom });
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener("pointermove", (event) => {
      if (dragged === null) return;
      const now = clamp(at(svg, event)[0], LEFT, WIDTH - RIGHT);
      shade.setAttribute("x", Math.min(now, dragged));
      shade.setAttribute("width", Math.abs(now - dragged));
    });
    svg.addEventListener("pointerup", (event) => {
      if (dragged === null) return;
      const now = clamp(at(svg, event)[0], LEFT, WIDTH - RIGHT), start = clamp(dragged, LEFT, WIDTH - RIGHT);
      dragged = null;
      shade.remove();
      if (Math.abs(now - start) < 8) return;
      const time = (place) => view[0] + ((place - LEFT) / (WIDTH - LEFT - RIGHT)) * (view[1] - view[0]);
      show(time(Math.min(now, start)), time(Math.max(now, start)));
    });
  }
  function at(svg, event) {
    const box = svg.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * WIDTH, ((event.clientY - box.top) / box.height) * svg.viewBox.baseVal.height];
  }
  const ending = (name) => (name.length > 14 ? "…" + name.slice(-13) : name);

  function say(place) {
    const pod = rows[place];
    const told = stages(pod).map(([stage, from, to, open]) => `${STAGES[stage]} ${figures((to - from) / 1000)} s${open ? " and on" : ""}`);
    byId("readout").textContent =
      `Pod ${pod[NAME]} on ${trial.nodes[pod[NODE]] || "no node"}, ${data.how[pod[HOW]]}, created at ${figures(pod[CREATED] / 1000 )} s: ${told.join(", ")}.`;
  }

  function key() {
    const parent = byId("pod-key");
    const entries = STAGES.map((text, stage) => [text, `k${stage}`]);
    entries.splice(4, 0, ["while another pod pulls the same image", "k3 shared"]);
    parent.replaceChildren(
      ...entries.map(([text, style]) => {
        const span = document.createElement("span");
        span.className = "key";
        const svg = draw(null, "svg", { viewBox: "0 0 38 12", "aria-hidden": "true" });
        const thin = /k[015]/.test(style);
        draw(svg, "rect", { class: style, x: 0, width: 38, y: thin ? 3 : 0, height: thin ? 6 : 12 });
        span.append(svg, text);
        return span;
      }),
    );
  }

  // ---- Rates ----
  const HEIGHT = 150, TOP = 14;
  function drawRates() {
    const box = byId("rates"), rates = trial.rates, limits = trial.limits;
    if (!rates) {
      box.replaceChildren(paragraph("No source had rates in this trial (series.csv is absent or empty)."));
      return;
    }
    const count = rates.nodes.length;
    const registry = limits.registry === null ? [] : [["registry egress", limits.registry]];
    const nic = limits.nic === null ? [] : [["NIC", limits.nic]];
    const disk = limits.disk === null ? [] : [["disk", limits.disk]];
    const all = (one, seen) => one.map(([name, value]) => [`${seen} × ${name}`, value * seen]);
    const parts = [
      rate("Received by each node", rates.receive, true, nic),
      rate("Written by each node", rates.write, true, disk),
      rate("Received by all nodes together", rates.receive, false, [...registry, ...all(nic, rates.receive.seen)]),
      rate("Written by all nodes together", rates.write, false, all(disk, rates.write.seen)),
    ];
    const absent = ["nic", "disk", "registry"].filter((name) => limits[name] === null);
    if (absent.length) parts.push(paragraph(`Not described, so not drawn: the limit of ${absent.join(", ")}.`));
    box.replaceChildren(...parts);
  }
  function paragraph(text) {
    const node = document.createElement("p");
    node.textContent = text;
    return node;
  }
  function rate(title, found, single, limits) {
    const figure = document.createElement("figure");
    const heading = document.createElement("h3");
    figure.append(heading);
    if (!found.seen) {
      heading.textContent = title;
      figure.append(paragraph("Not seen in this trial."));
      return figure;
    }
    const lines = single ? found.lines.filter((line) => line.length) : [found.total];
    const mean = found.total.map((value) => (value === null ? null : value / found.seen));
    const peak = Math.max(...lines.flat().map((value) => value ?? 0), 1e-9);
    heading.textContent = `${title}, MiB/s; ` + (single ? `thin: ${lines.length} of ${found.seen} nodes, thick: mean of all ${found.seen}` : `sum of ${found.seen} nodes`) + `; highest ${figures(peak)}`;
    const near = limits.filter(([, value]) => value <= peak * 3);
    const top = Math.max(peak, ...near.map(([, value]) => value)) * 1.08;
    const svg = canvas(HEIGHT + AXIS, heading.textContent);
    const y = (value) => TOP + (HEIGHT - TOP) * (1 - value / top);
    const each = step(top, 4);
    for (let value = 0; value <= top; value += each) {
      draw(svg, "line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) });
      draw(svg, "text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, figures(value));
    }
    timeAxis(svg, TOP, HEIGHT, true);
    for (const line of lines) draw(svg, "path", { class: single ? "node" : "mean", d: stairs(line, y) });
    if (single) draw(svg, "path", { class: "mean", d: stairs(mean, y) });
    near.forEach(([name, value]) => {
      draw(svg, "line", { class: "limit", x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) });
      draw(svg, "text", { class: "limit-name", x: WIDTH - RIGHT, y: y(value) - 4, "text-anchor": "end" }, `limit: ${name} ${figures(value)}`);
    });
    figure.append(svg);
    const far = limits.filter((one) => !near.includes(one));
    if (far.length) {
      const words = far.map(([name, value]) => `${name} ${figures(value)} MiB/s, ${figures(value / peak)} times the highest here`);
      const note = paragraph(`Limit above this scale: ${words.join("; ")}.`);
      note.className = "quiet";
      figure.append(note);
    }
    return figure;
  }
  function stairs(line, y) {
    const { begin_s: begin, step_s: width } = trial.rates;
    let path = "", open = false;
    line.forEach((value, place) => {
      const from = begin + place * width, to = from + width;
      if (value === null || to <= view[0] || from >= view[1]) { open = false; return; }
      const a = x(Math.max(from, view[0])).toFixed(1), b = x(Math.min(to, view[1])).toFixed(1), h = y(value).toFixed(1);
      path += open ? `V${h}H${b}` : `M${a} ${h}H${b}`;
      open = true;
    });
    return path;
  }

  // ---- Choosing and zooming ----
  function redraw() { drawPods(); drawRates(); }
  function show(from, to) {
    const least = (span[1] - span[0]) / 200, size = clamp(to - from, least, span[1] - span[0]);
    const start = clamp(from, span[0], span[1] - size);
    view = [start, start + size];
    redraw();
  }
  function zoom(factor) {
    const middle = (view[0] + view[1]) / 2, half = ((view[1] - view[0]) * factor) / 2;
    show(middle - half, middle + half);
  }
  function move(share) {
    const by = (view[1] - view[0]) * share;
    show(view[0] + by, view[1] + by);
  }
  function sort() {
    const order = byId("order").value;
    const toReady = (pod) => (pod[READY] === null ? Infinity : pod[READY] - pod[CREATED]);
    const by = {
      created: (a, b) => a[CREATED] - b[CREATED],
      node: (a, b) => a[NODE] - b[NODE] || a[CREATED] - b[CREATED],
      ready: (a, b) => (toReady(a) < toReady(b) ? -1 : toReady(a) > toReady(b) ? 1 : 0),
    };
    rows = [...trial.pods].sort(by[order]);
    picked = -1;
  }
  function choose(place) {
    trial = data.trials[place];
    byId("trial-choice").value = String(place);
    const engine = trial.engine === "sim" ? " · SIMULATED" : "";
    byId("trial-name").textContent = `${trial.label}${engine} · ${trial.pods.length} of ${trial.of} pods drawn; seconds since the trial began`;
    const moments = trial.pods.flatMap((pod) => pod.slice(CREATED, READY + 1)).filter((value) => value !== null).map((value) => value / 1000);
    const first = moments.length ? moments.reduce((a, b) => Math.min(a, b)) : trial.rates ? trial.rates.begin_s : 0;
    const last = moments.length ? moments.reduce((a, b) => Math.max(a, b)) : trial.rates ? first + trial.rates.step_s * trial.rates.receive.total.length : 1;
    const room = Math.max((last - first) * 0.02, 0.01);
    span = [first - room, last + room];
    view = [...span];
    sort();
    redraw();
    byId("readout").textContent = trial.pods.length ? "Point at a pod, or choose one with the arrow keys, to read its times. Drag to zoom." : "No pod of this trial was seen (pods.csv is absent or empty).";
  }

  const measure = byId("measure"), maps = [...document.querySelectorAll(".heat-map")];
  if (measure) measure.addEventListener("change", () => maps.forEach((map, place) => { map.hidden = String(place) !== measure.value; }));
  if (!data.trials.length) {
    byId("trial-name").textContent = "No trial has finished.";
    return;
  }
  const choice = byId("trial-choice");
  data.trials.forEach((one, place) => choice.append(new Option(one.label, String(place))));
  choice.addEventListener("change", () => choose(Number(choice.value)));
  const beside = (by) => choose(clamp(Number(choice.value) + by, 0, data.trials.length - 1));
  const press = { before: () => beside(-1), next: () => beside(1), closer: () => zoom(0.5), wider: () => zoom(2), left: () => move(-0.25), right: () => move(0.25), whole: () => show(...span) };
  for (const id in press) byId(id).addEventListener("click", press[id]);
  byId("order").addEventListener("change", () => { sort(); redraw(); });
  const keys = { "+": press.closer, "=": press.closer, "-": press.wider, ArrowLeft: press.left, ArrowRight: press.right, 0: press.whole };
  byId("pods").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (!rows.length) return;
      picked = clamp(picked + (event.key === "ArrowDown" ? 1 : -1), 0, rows.length - 1);
      drawPods();
      byId("pods").querySelector(".pick").scrollIntoView({ block: "nearest" });
      say(picked);
    } else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  });
  key();
  choose(0);
})();
