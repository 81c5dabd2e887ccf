// The picture with every query's box, and the attention of the chosen one on the pixels that its cells stand for.

const DIM = "rgba(12, 14, 28, 0.5)", LIT = [255, 218, 68], DEEPEST = 0.9; // as in the other attention widgets
const SURE = 0.5;

/** A map of weights painted into a canvas, one cell on its own pixels; `dim` darkens what is below it. */
function paintWeights(canvas, weights, [rows, columns], dim) {
  const context = canvas.getContext("2d"), largest = Math.max(...weights);
  const x = (column) => Math.round((column * canvas.width) / columns), y = (row) => Math.round((row * canvas.height) / rows);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = dim;
  context.fillRect(0, 0, canvas.width, canvas.height);
  weights.forEach((weight, cell) => {
    const row = Math.floor(cell / columns), column = cell % columns;
    context.fillStyle = `rgba(${LIT}, ${(DEEPEST * weight) / largest})`;
    context.fillRect(x(column), y(row), x(column + 1) - x(column), y(row + 1) - y(row));
  });
}

/** actions: { choose(query) }. show(view) draws. */
function queryPicture(actions) {
  const image = h("img", { alt: "" }), overlay = h("canvas", { width: 512, height: 512 });
  const boxes = svg("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none" });
  const tags = h("div", { class: "tags" });
  const element = h("div", { class: "picture" }, image, overlay, boxes, tags);
  let source = null;

  const place = ([cx, cy, w, h]) => ({ x: cx - w / 2, y: cy - h / 2, width: w, height: h });
  const rect = (box, kind, more = {}) => svg("rect", { class: kind, ...place(box), ...more });

  function show(view) {
    const { scene, layer, query, weights, isKept, hasAttention, hasTruth } = view;
    if (source !== scene.url) { source = scene.url; image.src = source; }
    change(overlay, { hidden: hasAttention ? null : "" });
    if (hasAttention) paintWeights(overlay, weights, scene.grid, DIM);
    else overlay.getContext("2d").clearRect(0, 0, overlay.width, overlay.height);

    const sure = [], unsure = [];
    isKept.forEach((kept, q) => { if (kept && q !== query) (scene.best(layer, q).score >= SURE ? sure : unsure).push(q); });
    const area = (q) => { const [, , w, h] = scene.box(layer, q); return w * h; };
    const earlier = Array.from({ length: layer - 1 }, (_, l) => scene.box(l + 1, query));
    const chosen = scene.box(layer, query), choosing = (q) => ({ "data-query": q, onclick: () => actions.choose(q) });
    boxes.replaceChildren(
      ...(hasTruth ? scene.true_boxes.map((box) => rect(box, "truth")) : []),
      ...unsure.map((q) => rect(scene.box(layer, q), "unsure")),
      ...sure.flatMap((q) => [rect(scene.box(layer, q), "halo"), rect(scene.box(layer, q), "sure")]),
      ...earlier.flatMap((box) => [rect(box, "halo thin"), rect(box, "earlier")]),
      rect(chosen, "halo"), rect(chosen, "chosen", { "data-dropped": isKept[query] ? null : "" }),
      ...sure.sort((a, b) => area(b) - area(a)).map((q) => rect(scene.box(layer, q), "catch", choosing(q))));
    const taken = [];
    tags.replaceChildren(...[query, ...sure].map((q) => tag(view, q, taken)));
  }

  function tag({ scene, layer, query }, q, taken) {
    const { name, score } = scene.best(layer, q), words = q === query ? `${q} ${score >= SURE ? name : "–"}` : String(q);
    const { left, top } = freeCorner(scene.box(layer, q), 0.02 + 0.017 * words.length, 0.045, taken);
    return h("button", {
      type: "button", tabindex: -1, class: q === query ? "tag chosen" : "tag", "data-query": q,
      style: `left: ${100 * left}%; top: ${100 * top}%`, onclick: () => actions.choose(q),
    }, words);
  }
  return { element, show };
}

/** Where a tag of a size lies at one of a box's corners, or beside it, in the picture, and clear of those that are there already. */
function freeCorner([cx, cy, w, h_], width, height, taken) {
  const [left, right, above, below] = [cx - w / 2, cx + w / 2 - width, cy - h_ / 2 - height, cy + h_ / 2];
  const [before, behind, top, bottom] = [left - width, right + width, above + height, below - height];
  const corners = [[left, above], [right, above], [left, below], [right, below], [left, top], [right, top], [left, bottom],
    [right, bottom], [behind, top], [before, top], [behind, bottom], [before, bottom]];
  const spots = corners
    .map(([x, y]) => ({ left: Math.max(0, Math.min(x, 1 - width)), top: Math.max(0, Math.min(y, 1 - height)), width }));
  const meet = (a, b) => a.left < b.left + b.width && b.left < a.left + a.width && Math.abs(a.top - b.top) < height;
  const spot = spots.find((one) => taken.every((other) => !meet(one, other))) ?? spots[0];
  taken.push(spot);
  return spot;
}

/** Small maps of all heads, and their mean: buttons. actions: { chooseHead(head) }, −1 for the mean. */
function headStrip(heads, actions) {
  const tiles = [-1, ...Array(heads).keys()].map((head) => {
    const canvas = h("canvas", { width: 64, height: 64 });
    const name = head < 0 ? "mean of all heads" : `head ${head}`;
    const button = h("button", {
      type: "button", class: "tile", "data-head": head, "aria-label": name, title: name, onclick: () => actions.chooseHead(head),
    }, canvas, h("span", {}, head < 0 ? "mean" : head));
    return { head, canvas, button };
  });
  const words = h("p", { class: "mv-note" });
  return {
    element: h("div", {}, h("div", { class: "heads", role: "group", "aria-label": "attention of one head, or of all" },
      ...tiles.map(({ button }) => button)), words),
    show: ({ scene, layer, query, head: chosen, inside }) => {
      const [, , w, h_] = scene.box(layer, query), whose = chosen < 0 ? "mean of all heads" : `head ${chosen}`;
      words.textContent = `Cross-attention of layer ${layer}, ${whose}: ${Math.round(100 * inside)} % lies in the query's box, `
        + `which covers ${Math.round(100 * w * h_)} % of the picture.`;
      for (const { head, canvas, button } of tiles) {
        paintWeights(canvas, scene.weights(layer, query, head), scene.grid, "#23262f");
        change(button, { "aria-pressed": head === chosen });
      }
    },
  };
}
