// Which query owns which object, step by step of a recorded training. Python has done the arithmetic; this only shows it.

export default { render };

const GREY = "#9A9A9A"; // of queries that have no colour of their own
const NOBODY = -1; // owns what no query was left for
const SPEEDS = { slow: 3, normal: 8, fast: 24 }; // records a second

function render({ model, el }) {
  const record = unpacked(model.get("record"));
  const pointed = { object: null, query: null }; // what the pointer or the keys single out
  let width = 0;
  let parts = []; // of the image that is seen; each is { element, show(view) }

  const last = record.steps.length - 1;
  const set = (name, value) => { model.set(name, value); model.save_changes(); };
  const actions = {
    last,
    go: (index) => set("step_index", Math.max(0, Math.min(last, index))),
    choose: (image) => set("image", image),
    setSpeed: (speed) => set("speed", speed),
    playing: () => model.get("playing"),
    play: (on) => {
      if (on && model.get("step_index") === last) model.set("step_index", 0); // from the end: once more
      set("playing", on);
    },
    point,
    pointAtOwner: (object) => {
      const query = view().owners[object];
      point(query === NOBODY ? { object } : { query });
    },
  };
  const controls = controlBar(record, actions);
  const scene = h("div", { class: "mv-scene" });
  const time = h("div", {});
  const root = h("div", {
    class: "mv mv-matching-replay", "data-widget": "matching-replay", tabindex: 0, role: "group",
    "aria-label": "Replay of a matching. Space plays, left and right step, up and down choose an object.",
    "data-lm-suppress-shortcuts": "true", // JupyterLab leaves the keys to us
    onkeydown: (event) => answerKey(event, actions, model, pointed, record.images[model.get("image")].names.length),
  }, controls.element, scene, time);
  el.append(root);

  function view() {
    const index = model.get("step_index");
    const image = record.images[model.get("image")];
    return { record, image, index, owners: image.owners[index], last, ...pointed };
  }

  function point({ object = null, query = null }) {
    if (object === pointed.object && query === pointed.query) return;
    Object.assign(pointed, { object, query });
    show();
  }

  function build() {
    const { image } = view();
    const picture = pictureOf(image, width, actions);
    const side = sideOf(image, actions);
    const timeline = timelineOf(record, image, width, actions);
    parts = [controls, picture, side, timeline];
    scene.replaceChildren(picture.element, side.element);
    time.replaceChildren(timeline.element);
    showNow();
  }

  function showNow() {
    const seen = view();
    const { image, index, owners } = seen;
    change(root, {
      "data-image": model.get("image"), "data-step-index": index, "data-step": record.steps[index],
      "data-owners": owners.join(" "), "data-changed": image.changed[index], "data-cost": image.cost[index].toFixed(3),
      "data-playing": model.get("playing"), "data-object": pointed.object, "data-query": pointed.query,
    });
    const state = { ...seen, playing: model.get("playing"), speed: model.get("speed"), number: model.get("image") };
    for (const part of parts) part.show(state);
  }
  const show = oncePerFrame(showNow);
  const start = () => { if (model.get("playing")) play(model, last); };

  const watched = [
    ["change:step_index", show], ["change:speed", show], ["change:playing", show], ["change:playing", start],
    ["change:image", () => { Object.assign(pointed, { object: null, query: null }); build(); }],
  ];
  for (const [event, f] of watched) model.on(event, f);
  const sizes = new ResizeObserver(([{ contentRect }]) => { // what is inside the padding
    const now = Math.floor(contentRect.width);
    if (now > 0 && now !== width) { width = now; build(); }
  });
  sizes.observe(root);
  width = el.clientWidth || 800; // before it is on the page
  build();
  start();
  return () => {
    sizes.disconnect();
    for (const [event, f] of watched) model.off(event, f);
  };
}

// Time

const played = new WeakSet(); // one clock for each model, however many views it has

function play(model, last) {
  if (played.has(model)) return;
  played.add(model);
  let due = performance.now() + 1000 / model.get("speed");
  const tick = (now) => {
    if (!model.get("playing")) { played.delete(model); return; }
    if (now >= due) {
      due = Math.max(due, now - 20) + 1000 / model.get("speed"); // keeps the beat, but never skips a record
      const index = model.get("step_index");
      if (index < last) model.set("step_index", index + 1);
      if (index + 1 >= last) model.set("playing", false);
      model.save_changes();
    }
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

function answerKey(event, actions, model, pointed, objects) {
  const own = event.target.tagName; // of these elements the browser's own keys stay
  if (event.ctrlKey || event.metaKey || event.altKey || own === "SELECT") return;
  const index = model.get("step_index");
  const next = (by) => { // no object, the first, ..., the last, no object
    const at = ((pointed.object ?? -1) + 1 + by + objects + 1) % (objects + 1) - 1;
    actions.point({ object: at < 0 ? null : at });
  };
  const answers = {
    " ": () => actions.play(!actions.playing()),
    ArrowLeft: () => actions.go(index - 1),
    ArrowRight: () => actions.go(index + 1),
    Home: () => actions.go(0),
    End: () => actions.go(actions.last),
    ArrowUp: () => next(-1),
    ArrowDown: () => next(1),
    Escape: () => actions.point({}),
  };
  const answer = answers[event.key];
  if (!answer || (own === "BUTTON" && event.key === " ")) return;
  event.preventDefault();
  event.stopPropagation();
  if (event.key !== " " && actions.playing()) actions.play(false);
  answer();
}

// Parts

function controlBar(record, actions) {
  const button = h("button", {
    class: "mv-play", type: "button", onclick: () => actions.play(!actions.playing()),
  });
  const range = h("input", {
    type: "range", min: 0, max: actions.last, step: 1, value: 0, "aria-label": "recorded step",
    oninput: () => { if (actions.playing()) actions.play(false); actions.go(Number(range.value)); },
  });
  const step = h("output", { class: "mv-step" });
  const speed = h("select", { "aria-label": "speed", onchange: () => actions.setSpeed(Number(speed.value)) },
    ...Object.entries(SPEEDS).map(([name, value]) => h("option", { value }, name)));
  const image = h("select", { "aria-label": "image", onchange: () => actions.choose(Number(image.value)) },
    ...record.images.map((_, i) => h("option", { value: i }, `image ${i + 1}`)));
  const element = h("div", { class: "mv-controls" }, button, range, step, speed, record.images.length > 1 ? image : null);
  return {
    element,
    show: (view) => {
      button.textContent = view.playing ? "❚❚ Pause" : "▶ Play";
      range.value = view.index;
      range.setAttribute("aria-valuetext", `step ${record.steps[view.index]}`);
      step.textContent = `step ${record.steps[view.index]}`;
      speed.value = view.speed;
      image.value = view.number;
    },
  };
}

/** The picture: true boxes, the boxes of their owners joined to them, and faintly all other queries' boxes. */
function pictureOf(image, room, actions) {
  const [w, h_] = image.size;
  const width = Math.round(Math.min(room < 520 ? room : room * 0.44, 400, (400 * w) / h_));
  const height = Math.round((width * h_) / w);
  const place = ([left, top, right, bottom]) => ({
    x: left * width, y: top * height, width: (right - left) * width, height: (bottom - top) * height,
  });
  const centre = ([left, top, right, bottom]) => [((left + right) / 2) * width, ((top + bottom) / 2) * height];

  const others = image.boxes[0].map((_, query) => svg("rect", { class: "mv-other", "data-query": query }));
  const owned = image.names.map((_, object) => {
    const shade = svg("rect", { class: "mv-shade" });
    const box = svg("rect", { class: "mv-owner", "data-object": object });
    const shadeLine = svg("line", { class: "mv-shade" });
    const line = svg("line", { class: "mv-link" });
    const dot = svg("circle", { r: 3.5, class: "mv-dot" });
    return { group: svg("g", {}, shade, box, shadeLine, line, dot), boxes: [shade, box], lines: [shadeLine, line], box, line, dot };
  });
  const truths = image.true_boxes.map((box, object) => svg("g", { "data-object": object },
    svg("rect", { class: "mv-shade", ...place(box) }), svg("rect", { class: "mv-truth", ...place(box) })));
  const tags = tagsOf(image, width, height, place);

  // What the pointer finds: an outline is a query's box, an area an object (the smallest on top).
  const areas = image.true_boxes.map((box, object) => svg("rect", {
    class: "mv-area", "data-object": object, ...place(box),
    onpointerenter: () => actions.point({ object }), onpointerleave: () => actions.point({}),
  }));
  const size = (rect) => rect.getAttribute("width") * rect.getAttribute("height");
  const outlines = others.map((_, query) => svg("rect", {
    class: "mv-outline", onpointerenter: () => actions.point({ query }), onpointerleave: () => actions.point({}),
  }));

  const element = svg("svg", { class: "mv-picture", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": "the picture with true boxes and predicted boxes" },
    svg("image", { href: image.picture, width, height, preserveAspectRatio: "none" }),
    ...others, ...truths, ...owned.map((o) => o.group), ...tags.map((t) => t.element),
    ...areas.sort((a, b) => size(b) - size(a)), ...outlines);

  return {
    element,
    show: (view) => {
      const boxes = image.boxes[view.index];
      const isOwner = new Set(view.owners);
      boxes.forEach((box, query) => {
        change(others[query], { ...place(box), "data-owns": isOwner.has(query), "data-pointed": query === view.query });
        change(outlines[query], place(box));
      });
      owned.forEach(({ group, boxes: rects, lines, box, line, dot }, object) => {
        const query = view.owners[object];
        const shown = query !== NOBODY;
        change(group, { display: shown ? null : "none", "data-faded": faded(view, object, query) });
        if (!shown) return;
        const colour = colourOf(image, query);
        const [x1, y1] = centre(image.true_boxes[object]);
        const [x2, y2] = centre(boxes[query]);
        for (const rect of rects) change(rect, place(boxes[query]));
        for (const l of lines) change(l, { x1, y1, x2, y2 });
        change(box, { stroke: colour, "data-query": query, "data-box": boxes[query].map((v) => v.toFixed(4)).join(" ") });
        change(line, { stroke: colour });
        change(dot, { cx: x1, cy: y1, fill: colour });
      });
      truths.forEach((truth, object) => change(truth, { "data-faded": faded(view, object, view.owners[object]) }));
      tags.forEach((tag, object) => tag.show(view, view.owners[object]));
    },
  };
}

/** At each true box a tag: the object's number, and the number of the query that owns it, in its colour. */
function tagsOf(image, width, height, place) {
  const taken = [];
  const digits = String(image.boxes[0].length - 1).length;
  const left = 9 + 7 * String(image.names.length).length;
  const right = 9 + 7 * (digits + 1);
  return image.true_boxes.map((box, object) => {
    const at = place(box);
    const spot = freeSpot(at, left + right, 18, width, height, taken);
    taken.push(spot);
    const chip = svg("rect", { x: spot.x + left, y: spot.y, width: right, height: 18 });
    const text = svg("text", { x: spot.x + left + right / 2, y: spot.y + 13 });
    const element = svg("g", { class: "mv-tag" },
      svg("rect", { x: spot.x, y: spot.y, width: left, height: 18, class: "mv-tag-object" }),
      svg("text", { x: spot.x + left / 2, y: spot.y + 13, class: "mv-tag-number" }, object + 1), chip, text);
    return {
      element,
      show: (view, query) => {
        const colour = colourOf(image, query);
        change(element, { "data-faded": faded(view, object, query) });
        change(chip, { fill: colour });
        change(text, { fill: inkOn(colour) });
        text.textContent = query === NOBODY ? "–" : `q${query}`;
      },
    };
  });
}

/** Above the box, below it, or inside: where a tag lies in the picture and covers earlier tags least. */
function freeSpot(box, width, height, right, bottom, taken) {
  const wishes = [[box.x, box.y - height], [box.x, box.y + box.height], [box.x + box.width - width, box.y - height],
    [box.x + box.width - width, box.y + box.height], [box.x, box.y], [box.x, box.y + box.height - height]];
  const spots = wishes.map(([x, y]) => ({
    x: Math.max(0, Math.min(x, right - width)), y: Math.max(0, Math.min(y, bottom - height)), width, height,
  }));
  const overlap = (a, b) => Math.max(0, Math.min(a.x + a.width, b.x + b.width) - Math.max(a.x, b.x))
    * Math.max(0, Math.min(a.y + a.height, b.y + b.height) - Math.max(a.y, b.y));
  const covered = (spot) => taken.reduce((sum, other) => sum + overlap(spot, other), 0);
  return spots.reduce((best, spot) => (covered(spot) < covered(best) ? spot : best));
}

/** Beside the picture: the same as a table, what changed in a sentence, and what the lines mean. */
function sideOf(image, actions) {
  const rows = image.names.map((name, object) => {
    const chip = h("button", {
      class: "mv-chip", type: "button",
      onpointerenter: () => actions.pointAtOwner(object), onpointerleave: () => actions.point({ object }),
      onfocus: () => actions.pointAtOwner(object), onblur: () => actions.point({}),
    });
    const bar = h("span", { class: "mv-bar" });
    const number = h("span", { class: "mv-number" });
    const since = h("td", {});
    const element = h("tr", {
      "data-row": object, onpointerenter: () => actions.point({ object }), onpointerleave: () => actions.point({}),
    }, h("td", {}, h("b", {}, object + 1), ` ${name}`), h("td", {}, chip),
    h("td", {}, h("span", { class: "mv-p" }, h("span", { class: "mv-meter" }, bar), number)), since);
    return { element, chip, bar, number, since };
  });
  const sentence = h("p", { class: "mv-sentence" });
  const price = h("p", { class: "mv-sentence" });
  const readout = h("p", { class: "mv-readout mv-note" });
  const key = h("p", { class: "mv-key mv-note" },
    h("span", {}, keyLine("mv-truth"), "true box"), h("span", {}, keyLine("mv-owner"), "box of its owner"),
    h("span", {}, keyLine("mv-other"), "other queries"));
  const element = h("div", { class: "mv-side" },
    h("table", {}, h("thead", {}, h("tr", {}, ...["object", "owned by", "p(class)", "since step"].map((t) => h("th", {}, t)))),
      h("tbody", {}, ...rows.map((row) => row.element))),
    sentence, price, readout, key);
  return {
    element,
    show: (view) => {
      const { record, index } = view;
      rows.forEach((row, object) => {
        const query = view.owners[object];
        const p = image.probability[index][object];
        const from = ownedSince(image.owners, object, index);
        const colour = colourOf(image, query);
        change(row.element, { "data-pointed": view.object === object || (view.query !== null && view.query === query) });
        change(row.chip, { style: `background: ${colour}; color: ${inkOn(colour)}` });
        row.chip.textContent = query === NOBODY ? "no query" : `query ${query}`;
        row.bar.style.width = `${100 * p}%`;
        row.number.textContent = p.toFixed(2);
        const isNew = from === index && index > 0;
        row.since.textContent = isNew ? "now" : record.steps[from];
        change(row.since, { "data-new": isNew });
      });
      sentence.textContent = saidOfChanges(view);
      price.textContent = saidOfCost(view);
      readout.textContent = saidOfPointed(view);
    },
  };
}

function keyLine(kind) {
  return svg("svg", { width: 26, height: 14, class: "mv-key-line" }, svg("rect", { width: 26, height: 14, class: "mv-ground" }),
    svg("rect", { x: 3, y: 3, width: 20, height: 8, class: kind, stroke: kind === "mv-owner" ? "#E69F00" : null }));
}

/** Below: a row of owners for each object, the objects that changed owner, and the cost, over the same records. */
function timelineOf(record, image, width, actions) {
  const rows = image.names.length;
  const left = Math.round(Math.max(92, Math.min(width * 0.18, 110)));
  const plot = width - left - 10;
  const column = plot / record.steps.length;
  const row = rows > 10 ? 16 : 22;
  const x = (index) => left + index * column;
  const rowTop = (object) => 26 + object * row;
  const bars = { top: rowTop(rows) + 10, height: 38 };
  const cost = { top: bars.top + bars.height + 14, height: 46 };
  const bottom = cost.top + cost.height + 6;
  const height = bottom + 20;

  const cells = image.names.flatMap((_, object) => stretches(image.owners, object).map(({ query, from, to }) => {
    const w = (to - from) * column - (column > 2.5 ? 1 : 0.5);
    const colour = colourOf(image, query);
    const text = query === NOBODY ? "–" : String(query);
    const wide = w > 7 * text.length + 5;
    return { query, object, element: svg("g", { class: "mv-cell", "data-query": query, "data-object": object, "data-from": from, "data-to": to },
      svg("rect", { x: x(from), y: rowTop(object), width: w, height: row - 3, fill: colour }),
      wide ? svg("text", { x: x(from) + w / 2, y: rowTop(object) + row / 2 + 3, fill: inkOn(colour) }, text) : null) };
  }));
  const bands = image.names.map((_, object) => svg("rect", {
    class: "mv-band", x: 0, y: rowTop(object) - 2, width: left + plot, height: row + 1,
  }));
  const names = image.names.map((name, object) => svg("text", { class: "mv-name", x: 0, y: rowTop(object) + row / 2 + 3 },
    svg("tspan", { "font-weight": "bold" }, object + 1), ` ${shortened(name, (left - 24) / 6.5)}`));

  const changes = image.changed.map((count, i) => svg("rect", {
    class: "mv-change", "data-changed": count, x: x(i), width: Math.max(1, column - 1),
    y: bars.top + bars.height * (1 - count / rows), height: (bars.height * count) / rows,
  }));
  const least = Math.min(...image.cost);
  const span = Math.max(...image.cost) - least || 1;
  const costY = (value) => cost.top + cost.height * (1 - (value - least) / span);
  const path = image.cost.map((value, i) => `${i ? "L" : "M"}${(x(i) + column / 2).toFixed(1)} ${costY(value).toFixed(1)}`);
  const label = (text, y) => svg("text", { class: "mv-label", x: 0, y }, text);
  const scale = (text, y) => svg("text", { class: "mv-scale", x: left - 6, y }, text);
  const grid = (y) => svg("line", { class: "mv-grid", x1: left, x2: left + plot, y1: y, y2: y });

  const head = svg("path", { class: "mv-head", d: "M-5 0 H5 L0 6 Z" });
  const stem = svg("line", { class: "mv-stem", x1: 0, x2: 0, y1: 6, y2: bottom - 18 });
  const hand = svg("g", { class: "mv-hand" }, stem, head);
  const dot = svg("circle", { class: "mv-costdot", r: 3.5 });

  const indexAt = (event) => {
    const at = event.clientX - element.getBoundingClientRect().left;
    return at < left ? null : Math.min(actions.last, Math.floor((at - left) / column));
  };
  const scrub = (event) => {
    const at = event.clientY - element.getBoundingClientRect().top;
    const object = Math.floor((at - rowTop(0)) / row);
    actions.point({ object: object >= 0 && object < rows ? object : null });
    const index = indexAt(event);
    if (index !== null && !actions.playing()) actions.go(index);
  };
  const element = svg("svg", {
    class: "mv-timeline", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": "for each object, the query that owns it over time; below, owners that changed, and the cost",
    onpointermove: scrub,
    onpointerdown: (event) => { if (indexAt(event) !== null) { if (actions.playing()) actions.play(false); scrub(event); } },
    onpointerleave: () => actions.point({}),
  },
  label("Who owns each object, record by record: one colour is one query.", 10),
  ...bands, ...names, ...cells.map((cell) => cell.element),
  label("changed owner", bars.top + bars.height / 2 + 4),
  grid(bars.top), grid(bars.top + bars.height), scale(rows, bars.top + 4), scale(0, bars.top + bars.height + 4), ...changes,
  label("total cost", cost.top + cost.height / 2 + 4),
  grid(cost.top), grid(cost.top + cost.height), scale(signed(least + span), cost.top + 4), scale(signed(least), cost.top + cost.height + 4),
  svg("path", { class: "mv-cost", d: path.join("") }), dot,
  label("training step", bottom + 14), ...ticksOf(record, column).map((i) => svg("text", { class: "mv-tick", x: x(i) + column / 2, y: bottom + 14 }, record.steps[i])),
  hand);

  return {
    element,
    show: (view) => {
      const at = x(view.index) + column / 2;
      change(hand, { transform: `translate(${at} 18)` });
      change(dot, { cx: at, cy: costY(image.cost[view.index]) });
      for (const cell of cells) change(cell.element, { "data-faded": view.query !== null && view.query !== cell.query });
      [names, bands].forEach((all) => all.forEach((one, object) => change(one, { "data-pointed": view.object === object })));
    },
  };
}

// Words and small things

/** Boxes come as bytes, four floats each: boxes[record][query] = [left, top, right, bottom], fractions of the image. */
function unpacked(record) {
  const images = record.images.map((image) => {
    const { buffer, byteOffset, byteLength } = image.boxes;
    const floats = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength)); // at an offset of its own: copied
    const box = (index, query) => Array.from(floats.subarray(4 * (index * image.queries + query)).slice(0, 4));
    const queries = Array.from({ length: image.queries }, (_, query) => query);
    return { ...image, boxes: record.steps.map((_, index) => queries.map((query) => box(index, query))) };
  });
  return { ...record, images };
}

function saidOfChanges({ record, image, index }) {
  if (index === 0) return "The first record.";
  const count = image.changed[index];
  const who = count === 0 ? "No object" : `${count} of ${image.names.length} objects`;
  return `${who} changed owner since step ${record.steps[index - 1]}.`;
}

function saidOfCost({ record, image, index }) {
  const loss = record.losses[index];
  return `The matching costs ${signed(image.cost[index])}${loss === null ? "." : `, the loss is ${loss.toFixed(2)}.`}`;
}

function saidOfPointed({ record, image, index, owners, object, query }) {
  if (object !== null) {
    const changes = stretches(image.owners.slice(0, index + 1), object).length - 1;
    const times = changes === 1 ? "once" : `${changes} times`;
    return `Object ${object + 1}, ${image.names[object]}: changed owner ${times} up to here.`;
  }
  if (query !== null) {
    const owned = owners.indexOf(query);
    return owned < 0 ? `Query ${query} owns no object now.` : `Query ${query} owns object ${owned + 1}, ${image.names[owned]}.`;
  }
  return "Point at an object or at a box.";
}

/** Stretches of records over which an object keeps its owner; `to` is the record after the last. */
export function stretches(owners, object) {
  const found = [];
  owners.forEach((row, index) => {
    if (index && row[object] === owners[index - 1][object]) found.at(-1).to = index + 1;
    else found.push({ query: row[object], from: index, to: index + 1 });
  });
  return found;
}

function ownedSince(owners, object, index) {
  let from = index;
  while (from > 0 && owners[from - 1][object] === owners[index][object]) from -= 1;
  return from;
}

/** Records whose step is written below: the first, the last, and round numbers as far as there is room. */
function ticksOf(record, column) {
  const room = 12 + 7 * String(record.steps.at(-1)).length;
  const chosen = [];
  for (const i of record.tick_order) if (chosen.every((j) => Math.abs(i - j) * column >= room)) chosen.push(i);
  return chosen;
}

/** Whether something is singled out, and this is not it. */
function faded(view, object, query) {
  return (view.object !== null && view.object !== object) || (view.query !== null && view.query !== query);
}

function colourOf(image, query) {
  return query === NOBODY ? "transparent" : image.colours[query] ?? GREY;
}

/** Black or white, whichever is easier to read on a colour. */
function inkOn(colour) {
  if (colour === "transparent") return "currentColor";
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  return 0.299 * r + 0.587 * g + 0.114 * b > 100 ? "#000" : "#fff";
}

const signed = (value) => value.toFixed(1).replace("-", "−");
const shortened = (text, letters) => (text.length > letters ? `${text.slice(0, Math.floor(letters) - 1)}…` : text);
