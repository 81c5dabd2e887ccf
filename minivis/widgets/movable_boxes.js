// The picture with predicted and true boxes, to be moved with mouse, finger or keyboard.

const NAMED_OBJECTS = 3; // up to so many objects, every box has its class written beside it
const SMALLEST_SIDE = 0.02; // of a box, as a fraction of the picture
const STEP = 0.01; // of one press of a key
const LEFT_OVER = "#5a5a5a";
const [LEFT, TOP, RIGHT, BOTTOM] = [0, 1, 2, 3]; // the edges of a box, as `corners` lists them
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * What belongs to a box lies in <svg>s of its own, placed in per cent: the browser does all scaling. From below: the
 * true boxes' ground (to be gripped), the hull, frames of predictions, frames of true boxes, lines, tags and grips.
 */
function movableBoxes({ source, names, guesses, point, boxOf, setBox }) {
  const predictions = guesses.map((guess, query) => boxView({ query }, query, guess));
  const truths = names.map(({ letter, text }, object) => boxView({ object }, letter, text));
  truths.forEach((view, object) => view.paint(object));
  const lines = names.map((_, object) => svg("g", { class: "join", style: `--pair: ${colour(object)}` },
    svg("line", { class: "halo" }), svg("line", {})));
  const hull = svg("g", { class: "dotted" }, svg("rect", { class: "halo" }), svg("rect", {}));
  const unmatched = svg("g", { class: "dotted" }, svg("line", { class: "halo" }), svg("line", {}));
  const handles = svg("g", {}, ...[...predictions, ...truths].map((view) => view.handles));
  const overlay = svg("svg", { class: "overlay", role: "group", "aria-label": "predicted and true boxes" },
    ...truths.map((view) => view.ground), hull, ...predictions.map((view) => view.frame),
    ...truths.map((view) => view.frame), unmatched, ...lines, handles);
  const image = h("img", { src: source, alt: "", draggable: "false" });
  const picture = h("div", { class: "picture" }, image, overlay);
  limitHeight(image, picture);
  const element = h("figure", { class: names.length <= NAMED_OBJECTS ? "named" : "" }, picture,
    h("figcaption", { class: "mv-note" },
      h("div", {}, key("truth", "true object"), key("prediction", "matched query"), key("left-over", "left over")),
      h("div", {}, "Drag a box to move it, its white corner to resize it. By keyboard: Tab to a box, arrows move it, Shift + arrows resize it.")));
  const viewOf = ({ query, object }) => (query === undefined ? truths[object] : predictions[query]);

  let drag = null;
  whileDragged(overlay, (event) => {
    const at = boxAt(event);
    if (!at) return false;
    const grip = event.target.closest(".grip") && viewOf(at).grip;
    drag = { at, grip, box: boxOf(at), x: event.clientX, y: event.clientY };
    viewOf(at).frame.focus({ preventScroll: true });
  }, (event) => {
    const { width, height } = overlay.getBoundingClientRect();
    const right = (event.clientX - drag.x) / width, down = (event.clientY - drag.y) / height;
    setBox(drag.at, moved(drag.box, right, down, drag.grip));
  }, () => { drag = null; });

  overlay.addEventListener("keydown", (event) => {
    const at = boxAt(event), arrow = ARROWS[event.key];
    if (!at || !arrow) return;
    event.preventDefault();
    setBox(at, moved(boxOf(at), STEP * arrow[0], STEP * arrow[1], event.shiftKey && [RIGHT, BOTTOM]));
  });
  for (const type of ["pointerover", "focusin"]) {
    overlay.addEventListener(type, (event) => { if (!drag) point(boxAt(event)); });
  }
  for (const type of ["pointerleave", "focusout"]) {
    overlay.addEventListener(type, () => { if (!drag) point(null); });
  }

  function show({ boxes, true_boxes, pairs, objectOf, active }, isShown) {
    const { query, object } = active ?? {}, isPair = query !== undefined && object !== undefined;
    element.classList.toggle("focused", active !== null);
    truths.forEach((view, i) => {
      view.place(true_boxes[i]);
      view.toggle("active", i === object);
    });
    predictions.forEach((view, i) => {
      const partner = objectOf.get(i), seen = isShown(i) || i === query;
      view.toggle("away", !seen);
      if (!seen) return;
      if (i === query && handles.lastChild !== view.handles) handles.append(view.handles); // above all others
      view.place(boxes[i]);
      view.paint(partner);
      view.toggle("active", i === query);
      change(view.frame, { "data-matched": partner });
    });

    const queryOf = new Map(pairs.map(([q, o]) => [o, q]));
    lines.forEach((line, i) => {
      const partner = queryOf.get(i);
      line.classList.toggle("away", partner === undefined);
      line.classList.toggle("active", i === object && partner === query);
      if (partner !== undefined) for (const each of line.children) join(each, boxes[partner], true_boxes[i]);
    });
    hull.classList.toggle("away", !isPair);
    unmatched.classList.toggle("away", !isPair || objectOf.get(query) === object);
    if (!isPair) return;
    for (const each of hull.children) span(each, hullOf(corners(boxes[query]), corners(true_boxes[object])));
    for (const each of unmatched.children) join(each, boxes[query], true_boxes[object]);
  }
  return { element, show };
}

/** Which box an event is about: { query } or { object }. */
function boxAt(event) {
  const { query, object } = event.target.closest?.("[data-query], [data-object]")?.dataset ?? {};
  if (query !== undefined) return { query: Number(query) };
  return object === undefined ? null : { object: Number(object) };
}

/** The box after a move; with a grip, which names the two edges that it moves, after a change of size. */
function moved(box, right, down, grip) {
  const edges = corners(box), step = [right, down];
  if (!grip) { // a prediction may reach beyond the picture: it is not pulled back, but goes no further
    const [x, y] = step.map((by, i) => clamp(by, Math.min(0, -edges[i]), Math.max(0, 1 - edges[i + 2])));
    return [box[0] + x, box[1] + y, box[2], box[3]].map(rounded);
  }
  for (const edge of grip) {
    const isFirst = edge === LEFT || edge === TOP;
    const [low, high] = isFirst ? [0, edges[edge + 2] - SMALLEST_SIDE] : [edges[edge - 2] + SMALLEST_SIDE, 1];
    edges[edge] = clamp(edges[edge] + step[edge % 2], low, high);
  }
  return centred(edges).map(rounded);
}

/** One box: its frame; above all frames a tag at one corner, and at another a grip to resize it. */
function boxView(at, tag, text) {
  const isTruth = at.query === undefined, kind = isTruth ? "truth" : "prediction";
  const data = { "data-query": at.query, "data-object": at.object }, full = { width: "100%", height: "100%" };
  const ground = isTruth ? svg("svg", { class: "ground", ...data }, svg("rect", full)) : null;
  const frame = svg("svg", {
    class: `box ${kind}`, ...data, tabindex: 0, role: "button", "aria-roledescription": "movable box",
    "aria-label": `${isTruth ? "object" : "query"} ${tag}, ${text}`,
  }, ...["halo", "frame", "catch"].map((name) => svg("rect", { class: name, ...full })));

  // A matched pair often lies edge on edge: the corners are shared out, so that nothing lies on anything.
  const [tagAt, grip] = isTruth ? [[LEFT, TOP], [LEFT, BOTTOM]] : [[RIGHT, BOTTOM], [RIGHT, TOP]];
  const corner = ([x, y]) => ({ x: x === RIGHT ? "100%" : 0, y: y === BOTTOM ? "100%" : 0 });
  const width = 7 + 8 * String(tag).length; // a name stands beside its tag, outside the box
  const beside = isTruth
    ? { x: width / 2 + 3, y: -5, "text-anchor": "start" }
    : { x: -width / 2 - 3, y: 13, "text-anchor": "end" };
  const handles = svg("svg", { class: `box handles ${kind}`, ...data, "aria-hidden": "true" },
    svg("svg", { class: "tag", ...corner(tagAt) },
      svg("rect", { x: -width / 2, y: -9, width, height: 18, rx: isTruth ? 9 : 3 }),
      svg("text", { y: 4.5, "text-anchor": "middle" }, String(tag)),
      svg("text", { class: "name", ...beside }, text)),
    svg("svg", { class: "grip", ...corner(grip) }, svg("rect", { x: -4.5, y: -4.5, width: 9, height: 9 })));

  const all = [ground, frame, handles].filter(Boolean);
  let painted;
  return {
    ground, frame, handles, grip,
    place(box) {
      for (const element of all) span(element, corners(box));
      change(frame, { "data-box": box.join(" ") });
    },
    /** In the colour of an object; without one, as left over. */
    paint(object) {
      if (painted === (object ?? LEFT_OVER)) return;
      painted = object ?? LEFT_OVER;
      const isSpare = object === undefined;
      for (const element of all) {
        element.style.setProperty("--pair", isSpare ? LEFT_OVER : colour(object));
        element.style.setProperty("--ink", isSpare ? "#333" : ink(object));
        element.classList.toggle("left-over", isSpare);
      }
    },
    toggle(name, on) { for (const element of all) element.classList.toggle(name, on); },
  };
}

function span(element, [left, top, right, bottom]) {
  place(element, { x: left, y: top, width: right - left, height: bottom - top });
}

function join(line, a, b) {
  place(line, { x1: a[0], y1: a[1], x2: b[0], y2: b[1] });
}

/** Fractions of the picture as per cent. What did not change is not written: the browser would lay it out again. */
function place(element, fractions) {
  for (const [name, value] of Object.entries(fractions)) {
    const text = `${100 * value}%`;
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

/** How a kind of box looks, for the caption. */
function key(kind, text) {
  const box = svg("svg", { width: 20, height: 12 }, svg("rect", { x: 2, y: 2, width: 16, height: 8 }));
  return h("span", { class: `key ${kind}` }, box, text);
}

/** Of an object and of the query that is matched to it. */
function colour(object) {
  return COLOURS[object % 7];
}

/** What is readable on the colour of an object: of the seven, only blue is dark. */
function ink(object) {
  return object % 7 === 0 ? "#fff" : "#000";
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function rounded(value) {
  return Math.round(value * 1e4) / 1e4;
}
