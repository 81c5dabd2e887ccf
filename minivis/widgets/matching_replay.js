// Which query owns which object, step by step of a recorded training.
// Python has done the arithmetic (matching_recorder.py); this shows it.

export default { render };

const SPEEDS = { slow: 3, normal: 8, fast: 24 }; // records a second

function render({ model, el }) {
  const record = unpacked(model.get("record"));
  const last = record.steps.length - 1;
  const pointed = { object: null, query: null }; // what the pointer or the keys single out
  let width = el.clientWidth || 800; // not yet known before the widget is on its page
  let parts = []; // what shows the image that is seen: each is { element, show(view) }

  const set = (name, value) => { model.set(name, value); model.save_changes(); };
  const actions = {
    playing: () => model.get("playing"),
    go: (index) => set("step_index", Math.max(0, Math.min(last, index))),
    move: (by) => actions.go(model.get("step_index") + by),
    choose: (image) => set("image", image),
    setSpeed: (speed) => set("speed", speed),
    play: (on) => {
      if (on && model.get("step_index") === last) model.set("step_index", 0); // from the end: once more
      set("playing", on);
    },
    point: ({ object = null, query = null }) => {
      if (object === pointed.object && query === pointed.query) return;
      Object.assign(pointed, { object, query });
      show();
    },
    pointAtOwner: (object) => {
      const query = view().owners[object];
      actions.point(query === NOBODY ? { object } : { query });
    },
    pointAtNext: (by) => { // no object, the first, ..., the last, no object
      const count = view().image.names.length + 1;
      const next = ((pointed.object ?? -1) + 1 + by + count) % count;
      actions.point({ object: next === 0 ? null : next - 1 });
    },
  };

  const controls = controlBar(record, actions);
  const scene = h("div", { class: "mv-scene" });
  const time = h("div");
  const root = keepKeys(h("div", {
    class: "mv mv-matching-replay", "data-widget": "matching-replay", tabindex: 0, role: "group",
    "aria-label": "Replay of a matching. Space plays, left and right step, up and down choose an object.",
    onkeydown: (event) => answerKey(event, actions),
  }, controls.element, scene, time));
  el.append(root);

  function view() {
    const [index, number] = [model.get("step_index"), model.get("image")];
    const image = record.images[number];
    const [owners, playing, speed] = [image.owners[index], model.get("playing"), model.get("speed")];
    return { record, image, number, index, owners, playing, speed, ...pointed };
  }

  function build() {
    const { image } = view();
    const picture = pictureOf(image, width, actions);
    const side = sideOf(record, image, actions);
    const timeline = timelineOf(record, image, width, actions);
    parts = [controls, picture, side, timeline];
    scene.replaceChildren(picture.element, side.element);
    time.replaceChildren(timeline.element);
    showNow();
  }

  function showNow() {
    const seen = view();
    const { image, index } = seen;
    change(root, {
      "data-image": seen.number, "data-step-index": index, "data-step": record.steps[index],
      "data-owners": seen.owners.join(" "), "data-changed": image.changed[index],
      "data-cost": image.cost[index].toFixed(3), "data-playing": seen.playing,
      "data-object": seen.object, "data-query": seen.query,
    });
    for (const part of parts) part.show(seen);
  }

  const show = oncePerFrame(showNow);
  const start = () => play(model, last);
  const another = () => { Object.assign(pointed, { object: null, query: null }); build(); };
  const watched = [
    ["change:step_index", show], ["change:speed", show], ["change:playing", show],
    ["change:playing", start], ["change:image", another],
  ];
  for (const [event, f] of watched) model.on(event, f);
  const sizes = new ResizeObserver(([{ contentRect }]) => { // what is inside the padding
    const now = Math.floor(contentRect.width);
    if (now > 0 && now !== width) { width = now; build(); }
  });
  sizes.observe(root);
  build();
  start();
  return () => {
    sizes.disconnect();
    for (const [event, f] of watched) model.off(event, f);
  };
}

/** Boxes come as bytes, four floats each: boxes[record][query] = [left, top, right, bottom], fractions of the image. */
function unpacked(record) {
  const images = record.images.map((image) => {
    const { buffer, byteOffset, byteLength } = image.boxes;
    const floats = new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength)); // aligned, since copied
    const all = Array.from({ length: floats.length / 4 }, (_, i) => [...floats.subarray(4 * i, 4 * i + 4)]);
    const start = (index) => index * image.queries;
    return { ...image, boxes: record.steps.map((_, index) => all.slice(start(index), start(index + 1))) };
  });
  return { ...record, images };
}

// Time and keys

const played = new WeakSet(); // one clock for each model, however many views it has

function play(model, last) {
  if (played.has(model) || !model.get("playing")) return;
  played.add(model);
  let due = performance.now() + 1000 / model.get("speed");
  const tick = (now) => {
    if (!model.get("playing")) { played.delete(model); return; }
    if (now >= due) {
      due = Math.max(due, now - 20) + 1000 / model.get("speed"); // keeps the beat, but leaves no record out
      const next = Math.min(last, model.get("step_index") + 1);
      model.set("step_index", next);
      if (next === last) model.set("playing", false);
      model.save_changes();
    }
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

function answerKey(event, actions) {
  const { tagName } = event.target;
  const native = tagName === "SELECT" || (tagName === "BUTTON" && event.key === " ");
  const answer = {
    " ": () => actions.play(!actions.playing()),
    ArrowLeft: () => actions.move(-1),
    ArrowRight: () => actions.move(1),
    Home: () => actions.move(-Infinity),
    End: () => actions.move(Infinity),
    ArrowUp: () => actions.pointAtNext(-1),
    ArrowDown: () => actions.pointAtNext(1),
    Escape: () => actions.point({}),
  }[event.key];
  if (!answer || native || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (event.key !== " ") actions.play(false); // who takes hold of it wants it to stand still
  answer();
}

// The controls

function controlBar(record, actions) {
  const button = h("button", { class: "mv-play", type: "button", onclick: () => actions.play(!actions.playing()) });
  const range = h("input", {
    type: "range", min: 0, max: record.steps.length - 1, value: 0, "aria-label": "recorded step",
    oninput: () => { actions.play(false); actions.go(Number(range.value)); },
  });
  const step = h("output", { class: "mv-step" });
  const choice = (label, options, changed) => {
    const select = h("select", { "aria-label": label, onchange: () => changed(Number(select.value)) });
    for (const [name, value] of options) select.append(h("option", { value }, name));
    return select;
  };
  const speed = choice("speed", Object.entries(SPEEDS), actions.setSpeed);
  const image = choice("image", record.images.map((_, i) => [`image ${i + 1}`, i]), actions.choose);
  return {
    element: h("div", { class: "mv-controls" }, button, range, step, speed, record.images.length > 1 ? image : null),
    show: (view) => {
      button.textContent = view.playing ? "❚❚ Pause" : "▶ Play";
      step.textContent = `step ${record.steps[view.index]}`;
      range.value = view.index;
      change(range, { "aria-valuetext": step.textContent });
      speed.value = view.speed;
      image.value = view.number;
    },
  };
}

// Beside the picture: the same as a table, what has changed in words, and what the lines mean

function sideOf(record, image, actions) {
  const rows = image.names.map((name, object) => {
    const chip = h("button", {
      class: "mv-chip", type: "button",
      onpointerenter: () => actions.pointAtOwner(object), onpointerleave: () => actions.point({ object }),
      onfocus: () => actions.pointAtOwner(object), onblur: () => actions.point({}),
    });
    const bar = h("span", { class: "mv-bar" });
    const number = h("span", { class: "mv-number" });
    const since = h("td");
    const element = h("tr", {
      "data-row": object, onpointerenter: () => actions.point({ object }), onpointerleave: () => actions.point({}),
    },
    h("td", {}, h("b", {}, object + 1), ` ${name}`), h("td", {}, chip),
    h("td", {}, h("span", { class: "mv-p" }, h("span", { class: "mv-meter" }, bar), number)), since);
    return { element, chip, bar, number, since };
  });
  const heads = ["object", "owned by", "p(class)", "since step"].map((text) => h("th", {}, text));
  const [changes, price] = [h("p", { class: "mv-sentence" }), h("p", { class: "mv-sentence" })];
  const readout = h("p", { class: "mv-readout mv-note" });
  const meanings = { "mv-truth": "true box", "mv-owner": "box of its owner", "mv-other": "other queries" };
  const key = Object.entries(meanings).map(([kind, text]) => h("span", {}, sample(kind), text));
  return {
    element: h("div", { class: "mv-side" },
      h("table", {}, h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...rows.map((row) => row.element))),
      changes, price, readout, h("p", { class: "mv-key mv-note" }, ...key)),
    show: (view) => {
      rows.forEach(({ element, chip, bar, number, since }, object) => {
        const query = view.owners[object];
        const colour = colourOf(image, query);
        const p = image.probability[view.index][object];
        const from = ownedSince(image.owners, object, view.index);
        const isNew = from === view.index && from > 0;
        change(element, { "data-pointed": view.object === object || view.query === query });
        change(chip, { style: `background: ${colour}; color: ${inkOn(colour)}` });
        chip.textContent = query === NOBODY ? "no query" : `query ${query}`;
        bar.style.width = `${100 * p}%`;
        number.textContent = p.toFixed(2);
        since.textContent = isNew ? "now" : record.steps[from];
        change(since, { "data-new": isNew });
      });
      changes.textContent = saidOfChanges(view);
      price.textContent = saidOfCost(view);
      readout.textContent = saidOfPointed(view);
    },
  };
}

function sample(kind) {
  return svg("svg", { width: 26, height: 14 }, svg("rect", { class: "mv-ground", width: 26, height: 14 }),
    svg("rect", { class: kind, x: 3, y: 3, width: 20, height: 8, stroke: kind === "mv-owner" ? COLOURS[4] : null }));
}

function saidOfChanges({ record, image, index }) {
  if (index === 0) return "The first record.";
  const count = image.changed[index];
  const who = count === 0 ? "No object" : `${count} of ${image.names.length} objects`;
  return `${who} changed owner since step ${record.steps[index - 1]}.`;
}

function saidOfCost({ record, image, index }) {
  const loss = record.losses[index];
  const cost = `The matching costs ${signed(image.cost[index])}`;
  return loss === null ? `${cost}.` : `${cost}, the loss is ${loss.toFixed(2)}.`;
}

function saidOfPointed({ image, index, owners, object, query }) {
  if (object !== null) {
    const count = stretches(image.owners.slice(0, index + 1), object).length - 1;
    const often = count === 1 ? "once" : `${count} times`;
    return `Object ${object + 1}, ${image.names[object]}: changed owner ${often} up to here.`;
  }
  if (query === null) return "Point at an object or at a box.";
  const owned = owners.indexOf(query);
  if (owned < 0) return `Query ${query} owns no object now.`;
  return `Query ${query} owns object ${owned + 1}, ${image.names[owned]}.`;
}
