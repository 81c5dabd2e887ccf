// AttentionExplorer: point at a place of the picture, and see where each head of a layer looks from there. The numbers
// come from attention_maps.js, the places from token_grid.js.

const MEAN = -1; // in place of a head's number
const SETTLED = 700; // milliseconds without a change, after which one who does not see is told
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

export default {
  render({ model, el }) {
    const [rows, columns] = model.get("grid"), extras = model.get("extra_tokens"), extra = extras.length;
    const grid = { rows, columns, stride: model.get("stride"), size: model.get("size"), padding: model.get("padding") };
    const boxes = model.get("boxes"), names = model.get("names"), layerNames = model.get("layer_names");
    const maps = attentionMaps(model.get("weights"), model.get("largest"), model.get("shape"));

    // What is chosen, which Python hears of, and the cell under the pointer, which it does not.
    const redraw = oncePerFrame(draw);
    const { state: chosen, set, tell, leave } = sharedState(model, ["token", "layer", "head", "one_scale"], redraw);
    let pointed = null;

    const picture = picturePane({
      grid, extras,
      point: (cell) => { pointed = cell; redraw(); },
      keep: (cell) => { pointed = null; set("token", extra + cell); },
      keepExtra: (token) => set("token", token),
      move: (by) => set("token", chosen.token < extra ? firstCell() : extra + nextCell(chosen.token - extra, by, grid)),
    });
    const heads = headsPane({
      heads: maps.heads, layerNames, grid,
      setLayer: (layer) => set("layer", layer),
      setHead: (head) => set("head", chosen.head === head ? MEAN : head),
      setScale: (value) => set("one_scale", value),
    });
    const news = h("div", { class: "unseen", "aria-live": "polite" });
    const root = keepKeys(h("div", { class: "mv mv-attention-explorer", "data-widget": "attention-explorer" },
      h("div", { class: "panes" }, picture.element, heads.element), news));

    function firstCell() { return extra + grid.padding.findIndex((isPadding) => !isPadding); }

    function look() {
      const token = pointed === null ? chosen.token : extra + pointed, cell = token - extra;
      const isPadding = cell >= 0 && Boolean(grid.padding[cell]);
      const own = cell < 0 || isPadding ? -1 : boxAround(cell, boxes, grid);
      const covered = own < 0 ? null : coverage(boxes[own], grid);
      const seen = (weights) => ({
        weights, cells: weights.subarray(extra), spread: spread(weights),
        share: covered && shareInside(weights, covered, extra), largest: Math.max(...weights.subarray(extra)),
      });
      const each = Array.from({ length: maps.heads }, (_, head) => seen(maps.ofHead(chosen.layer, head, token)));
      const mean = seen(maps.mean(chosen.layer, token));
      const even = covered && shareInside(
        Float64Array.from({ length: maps.tokens }, (_, t) => (t < extra || grid.padding[t - extra] ? 0 : 1)), covered, extra,
      );
      return {
        ...chosen, token, cell, isPadding, own, even, each, mean,
        laid: chosen.head === MEAN ? mean : each[chosen.head],
        common: Math.max(...each.map(({ largest }) => largest)),
      };
    }

    function draw() {
      const now = look();
      const words = inWords(now, { extras, layerNames, grid, names });
      picture.show(now, words, boxes);
      heads.show(now);
      change(root, {
        "data-token": now.token, "data-row": now.cell < 0 ? null : Math.floor(now.cell / columns),
        "data-column": now.cell < 0 ? null : now.cell % columns, "data-layer": now.layer, "data-head": now.head,
        "data-padding": now.isPadding, "data-own": now.own < 0 ? null : names[now.own],
        "data-largest": now.laid.largest.toFixed(6), "data-spread": now.laid.spread.toFixed(4),
        "data-share": now.laid.share === null ? null : now.laid.share.toFixed(6),
        "data-even": now.even === null ? null : now.even.toFixed(6),
      });
      tellOnceSettled(words);
      tell();
    }

    let told = null, waiting;
    function tellOnceSettled(words) {
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        if (told !== null && told !== words.join(" ")) news.textContent = words.join(" ");
        told = words.join(" ");
      }, SETTLED);
    }


    const source = URL.createObjectURL(new Blob([model.get("picture")], { type: "image/png" }));
    const loaded = picture.load(source).then(redraw);
    const resized = new ResizeObserver(redraw);
    resized.observe(root);
    draw();
    el.replaceChildren(root);
    loaded.then(() => requestAnimationFrame(() => change(root, { "data-ready": "" })));
    return () => {
      clearTimeout(waiting);
      resized.disconnect();
      URL.revokeObjectURL(source);
      leave();
    };
  },
};

/** Two sentences: where one stands, and where one looks. */
function inWords({ token, cell, isPadding, own, even, layer, head, laid }, { extras, layerNames, grid, names }) {
  const place = cell < 0
    ? `From the ${extras[token]}`
    : `From row ${Math.floor(cell / grid.columns) + 1}, column ${(cell % grid.columns) + 1}`;
  if (isPadding) return [`${place}: padding.`, "No cell looks here: its weight is 0 everywhere."];
  const who = head === MEAN ? "all heads, mean" : `head ${head + 1}`;
  const said = [`${place}, layer ${layerNames[layer]}, ${who}:`];
  let where = `the largest weight is ${percent(laid.largest)}, spread as over ${laid.spread.toFixed(1)} cells`;
  if (own >= 0) where += `; ${percent(laid.share)} lies in the box of its ${names[own]} (evenly spread: ${percent(even)})`;
  extras.forEach((name, index) => { where += `; ${percent(laid.weights[index])} on the ${name}`; });
  return [...said, `${where}.`];
}

/** The picture with weights laid over it. The cell one looks from has a frame. */
function picturePane({ grid, extras, point, keep, keepExtra, move }) {
  const image = new Image(), canvas = h("canvas", {
    tabindex: 0, role: "application", "aria-label": "picture with attention: arrow keys choose the cell to look from",
  });
  const holder = h("div", { class: "holder" }, canvas);
  const place = h("b", {}), where = h("p", {}), scale = h("span", { class: "scale-largest" });
  const buttons = extras.map((name, token) =>
    h("button", { class: "mv-button", type: "button", "data-extra": token, onclick: () => keepExtra(token) }, name));
  const under = (event) => {
    const area = canvas.getBoundingClientRect();
    return cellAt((event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height, grid);
  };
  const hold = (event) => {
    const cell = under(event);
    if (cell !== null && !grid.padding[cell]) keep(cell);
  };
  let down = false;
  canvas.addEventListener("pointermove", (event) => {
    if (down) hold(event); else if (event.pointerType === "mouse") point(under(event));
  });
  canvas.addEventListener("pointerleave", () => point(null));
  whileDragged(canvas, (event) => { down = true; canvas.focus(); hold(event); }, () => {}, () => { down = false; });
  canvas.addEventListener("keydown", (event) => {
    if (!ARROWS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    move(ARROWS[event.key]);
  });

  function show({ cell, isPadding, own, laid, one_scale: oneScale, common, token }, words, boxes) {
    fitCanvas(canvas, holder.clientWidth || 400, grid.size);
    const largest = oneScale ? common : laid.largest;
    const weights = isPadding ? laid.cells.map(() => 0) : laid.cells;
    paintOverlay(canvas, image.complete && image.naturalWidth ? image : null, weights, largest || 1, grid);
    const density = window.devicePixelRatio || 1;
    boxes.forEach((box, index) => {
      const look = index === own ? { colour: "#fff", line: 2 * density } : { colour: "rgba(255, 255, 255, 0.65)", line: density };
      frameOnCanvas(canvas, box, grid, { ...look, dash: [5 * density, 4 * density] });
    });
    if (cell >= 0) frameOnCanvas(canvas, pixelsOf(cell, grid), grid, { colour: "#56B4E9", line: 2.5 * density });
    [place.textContent, where.textContent] = words;
    scale.textContent = percent(largest);
    buttons.forEach((button, index) => change(button, { "aria-pressed": token === index }));
  }
  const meanings = [
    ["from", "where one looks from"], ...(grid.padding.some(Boolean) ? [["pad", "padding"]] : []),
  ].map(([kind, text]) => h("span", {}, h("i", { class: kind }), text));
  return {
    element: h("figure", {}, holder,
      h("div", { class: "scale mv-note" }, h("span", {}, "0"), h("i", { class: "ramp" }), scale, ...meanings),
      buttons.length ? h("div", { class: "extras" }, h("span", { class: "mv-note" }, "look from:"), ...buttons) : null,
      h("figcaption", {}, place, where)),
    load: (source) => new Promise((done) => { image.onload = done; image.src = source; }),
    show,
  };
}

/** The layer to look at, and a small map for each of its heads; pressing one lays it over the picture. */
function headsPane({ heads, layerNames, grid, setLayer, setHead, setScale }) {
  const group = `layer-${Math.random()}`;
  const radios = layerNames.map((name, layer) =>
    h("input", { type: "radio", name: group, value: layer, onchange: () => setLayer(layer) }));
  const tiles = Array.from({ length: heads + 1 }, (_, index) => {
    const head = index - 1, map = h("canvas", {}), name = head === MEAN ? "mean" : `head ${head + 1}`;
    const width = h("span", { class: "spread" }), share = h("span", { class: "share" });
    const button = h("button", { class: "tile", type: "button", "data-head": head, onclick: () => setHead(head) },
      h("b", {}, name), map, h("span", { class: "numbers" }, width, share));
    return { head, button, map, width, share };
  });
  const own = h("span", { class: "mv-note" });
  const scale = h("input", { type: "checkbox", onchange: () => setScale(scale.checked) });
  const tilesElement = h("div", { class: "tiles" }, ...tiles.map(({ button }) => button));

  function show({ each, mean, layer, head: chosen, one_scale: oneScale, common, isPadding, cell, own: box }) {
    radios.forEach((radio, index) => { radio.checked = index === layer; });
    scale.checked = oneScale;
    const density = window.devicePixelRatio || 1;
    tiles.forEach(({ head, button, map, width, share }) => {
      const seen = head === MEAN ? mean : each[head];
      fitCanvas(map, Math.max(30, button.clientWidth - 10), grid.size);
      paintMap(map, isPadding ? seen.cells.map(() => 0) : seen.cells, (oneScale ? common : seen.largest) || 1, grid);
      if (cell >= 0) frameOnCanvas(map, pixelsOf(cell, grid), grid, { colour: "#fff", line: density });
      width.textContent = isPadding ? "" : `${seen.spread.toFixed(1)} cells`;
      share.textContent = isPadding || seen.share === null ? "" : percent(seen.share);
      change(button, {
        "aria-pressed": head === chosen, "data-spread": seen.spread.toFixed(4),
        "data-share": seen.share === null ? null : seen.share.toFixed(6), "data-largest": seen.largest.toFixed(6),
      });
    });
    own.textContent = box < 0
      ? "Below each map: over how many cells it is spread."
      : "Below each map: over how many cells it is spread, and how much lies in its object's box.";
  }
  return {
    element: h("div", { class: "heads" },
      h("div", { class: "controls" },
        h("div", { class: "layers", role: "radiogroup", "aria-label": "layer" },
          ...radios.map((radio, index) => h("label", {}, radio, `layer ${layerNames[index]}`))),
        h("label", {}, scale, "one scale for all maps")),
      tilesElement, own),
    show,
  };
}
