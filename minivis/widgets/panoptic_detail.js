// Of one query: what became of its mask, its attention by head, and its mask drawn from coarse and from fine maps.

const MASK_LIGHT = [255, 218, 68];

/**
 * Shares of one for each cell, laid on the dimmed picture as light. `reach`: how far the cells go, in pictures down and
 * across; the last ones may stick out.
 */
function paintShares(canvas, picture, shares, [rows, columns], [down, across] = [1, 1]) {
  const context = canvas.getContext("2d"), small = document.createElement("canvas"), ink = new ImageData(columns, rows);
  Object.assign(small, { width: columns, height: rows });
  shares.forEach((share, cell) => ink.data.set([...MASK_LIGHT, 255 * DEEPEST * share], 4 * cell));
  small.getContext("2d").putImageData(ink, 0, 0);
  context.imageSmoothingEnabled = true;
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.filter = "grayscale(1)"; // no colour but the light's
  if (picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  context.filter = "none";
  context.fillStyle = DIM;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width * across, canvas.height * down);
}

/** A query's attention weights in one head, a value for each cell. */
export function attentionOf(scene, place, head) {
  const [rows, columns] = scene.grid, cells = rows * columns, heads = scene.shares[place].length, map = place * heads + head;
  scene.weights ??= numbers(Uint8Array, scene.attention);
  scene.largest ??= numbers(Float32Array, scene.maxima);
  return Float64Array.from(scene.weights.subarray(map * cells, (map + 1) * cells), (byte) => (byte / 255) * scene.largest[map]);
}

/** The probabilities of a query's mask, a value for each cell, drawn from maps of a stage; the last stage is the mask. */
export function draftOf(scene, place, stage) {
  if (stage === scene.cells.length - 1) {
    return Float64Array.from(scene.coarse[place], (steps) => 1 / (1 + Math.exp(-steps * scene.step)));
  }
  const cells = scene.size[0] * scene.size[1], start = (stage * scene.queries.length + place) * cells;
  scene.bytes ??= numbers(Uint8Array, scene.drafts);
  return Float64Array.from(scene.bytes.subarray(start, start + cells), (byte) => byte / 255);
}

/** How much of what two masks cover both cover; a cell is in a mask where its probability is above one half. */
export function coveredByBoth(a, b) {
  let both = 0, either = 0;
  a.forEach((share, cell) => {
    both += share > 0.5 && b[cell] > 0.5;
    either += share > 0.5 || b[cell] > 0.5;
  });
  return either ? both / either : 0;
}

/** Of all attention of a query, the share on cells of its mask: each cell of attention counts by how much of it is mask. */
export function attentionOnMask(scene, place) {
  const [rows, columns] = scene.grid, width = scene.size[1], last = scene.cells.length - 1;
  const mask = draftOf(scene, place, last), ratio = scene.cells[0] / scene.cells[last];
  const inside = new Float64Array(rows * columns), all = new Float64Array(rows * columns);
  mask.forEach((share, cell) => {
    const row = Math.floor(Math.floor(cell / width) / ratio), column = Math.floor((cell % width) / ratio);
    all[row * columns + column]++;
    inside[row * columns + column] += share > 0.5;
  });
  let sum = 0;
  for (let head = 0; head < scene.shares[place].length; head++) {
    attentionOf(scene, place, head).forEach((weight, cell) => { if (all[cell]) sum += (weight * inside[cell]) / all[cell]; });
  }
  return sum;
}

/** What became of a query's mask: { kind, short, long }, the latter in words. */
export function fateOf(place, { scene, merged, score }) {
  const { first, segments, gone, quality } = merged;
  if (!(scene.scores[place] > score)) {
    return { kind: "unsure", short: "below the score", long: `It takes no part: its score is not above ${score.toFixed(2)}.` };
  }
  const group = first.owner[place], { area, own, won } = first.sizes.get(group), share = own ? `${Math.round((100 * won) / own)} %` : "none";
  const others = first.sure.filter((other) => other !== place && first.owner[other] === group).map((other) => scene.queries[other]);
  const company = others.length ? `with quer${others.length > 1 ? "ies" : "y"} ${others.join(", ")}` : "";
  const it = company ? `its segment (${company})` : "it";
  if (gone.get(group) === "overlap") {
    return { kind: "overlap", short: `wins ${share}`, long: `Removed: ${it} wins ${share} of the ${own} pixels that it says are its own.` };
  }
  const segment = segments.find(({ owner }) => owner === group);
  if (gone.get(group) === "speck" && area) {
    return { kind: "speck", short: "a speck", long: `Removed: ${it} has ${pixelsInWords(area)}, and up to ${SPECK} are a speck.` };
  }
  if (!segment?.places.includes(place)) {
    const which = segment ? ", some of them of the same stuff" : "";
    return { kind: segment ? "beaten" : "speck", short: "wins nothing", long: `No pixel is left to it: others are surer everywhere${which}.` };
  }
  const pair = quality?.pairs.find(({ found }) => found === segment.id), isWrong = quality?.wrong.includes(segment.id);
  const words = [`${company ? `One segment ${company}` : "Its segment"}: ${pixelsInWords(segment.pixels)}`];
  words.push(own ? `; wins ${share} of the ${own} that it says are its own.` : "; none has a logit above 0.");
  if (pair) words.push(` Right, with an IoU of ${pair.iou.toFixed(2)}.`);
  if (isWrong) words.push(" Wrong: no true segment of its class overlaps it enough.");
  return { kind: "segment", short: "", long: words.join("") };
}

function pixelsInWords(count) {
  return `${count} pixel${count === 1 ? "" : "s"}`;
}

/** A canvas with a line or two below it. */
function tile(name) {
  const canvas = h("canvas", { width: 160, height: 160 }), title = h("b", {}), words = h("span", {});
  const element = h("figure", { class: "tile", "data-tile": name }, canvas, h("figcaption", {}, title, words));
  return { canvas, title, words, element };
}

function queryDetail(heads, cells) {
  const title = h("b", {}), fate = h("span", {}), maps = Array.from({ length: heads }, (_, head) => tile(`head ${head + 1}`));
  const coarse = tile("attention"), stages = cells.map((cell) => tile(`${cell} px`));
  const own = h("input", { type: "checkbox" }), spread = h("p", { class: "mv-note" });
  let last = null, painted = {};
  own.addEventListener("change", () => show(last));
  const element = h("div", { class: "detail" },
    h("div", { class: "about" }, title, " ", fate),
    h("div", { class: "columns" },
      h("section", { "aria-label": "attention by head" },
        h("div", { class: "title" }, h("b", {}, "Attention by head"), h("label", {}, own, "each head by its own peak")),
        h("div", { class: "heads" }, ...maps.map(({ element: one }) => one)), spread),
      h("section", { "aria-label": "its mask at each resolution" },
        h("div", { class: "title" }, h("b", {}, "From attention to the mask")),
        h("div", { class: "stages", style: `--stages: ${stages.length + 1}` }, ...[coarse, ...stages].map(({ element: one }) => one)),
        h("p", { class: "mv-note" }, "Inside of the head there is no mask but the last, only maps of many channels. So the head runs again, "
          + `with the backbone's finer maps averaged over cells of ${cells.slice(0, -1).join(" and of ")} pixels; IoU is that with the mask.`))));

  function show(view) {
    last = view;
    const { scene, place, image } = view;
    change(element, { hidden: place === null ? "" : null });
    if (place === null) return;
    title.textContent = `Query ${scene.queries[place]}: ${scene.names[place]}, score ${scene.scores[place].toFixed(2)}.`;
    fate.textContent = fateOf(place, view).long;
    if (painted.scene === scene && painted.place === place && painted.image === image && painted.own === own.checked) return;
    painted = { scene, place, image, own: own.checked }; // thresholds change no map
    paint(scene, place, image);
  }

  function paint(scene, place, image) {
    const shape = (canvas) => { canvas.height = Math.round((canvas.width * scene.height) / scene.width); };

    const weights = maps.map((_, head) => attentionOf(scene, place, head)), peaks = weights.map((map) => Math.max(...map));
    const peak = Math.max(...peaks), [rows, columns] = scene.grid, ratio = cells[0] / cells.at(-1);
    const reach = [(rows * ratio) / scene.size[0], (columns * ratio) / scene.size[1]];
    maps.forEach(({ canvas, title: name, words, element: one }, head) => {
      const share = scene.shares[place][head], scale = own.checked ? peaks[head] : peak;
      shape(canvas);
      paintShares(canvas, image, weights[head].map((weight) => weight / (scale || 1)), scene.grid, reach);
      name.textContent = `${head + 1}`;
      words.textContent = percentOf(share);
      change(one, { "data-share": share });
    });
    const busiest = scene.shares[place].indexOf(Math.max(...scene.shares[place]));
    spread.textContent = `A query's weights sum to one over all ${heads} heads and ${rows * columns} cells together: below each head, `
      + `its share. Head ${busiest + 1} has ${percentOf(scene.shares[place][busiest])}. `
      + `Brightest: ${own.checked ? "each head's own peak" : "the peak of all heads"}.`;

    const sum = new Float64Array(rows * columns);
    weights.forEach((map) => map.forEach((weight, cell) => { sum[cell] += weight; }));
    const most = Math.max(...sum), onMask = attentionOnMask(scene, place);
    shape(coarse.canvas);
    paintShares(coarse.canvas, image, sum.map((weight) => weight / (most || 1)), scene.grid, reach);
    coarse.title.textContent = "attention";
    coarse.words.textContent = `${percentOf(onMask)} on the mask`;
    change(coarse.element, { "data-share": onMask.toFixed(4) });
    const mask = draftOf(scene, place, cells.length - 1);
    stages.forEach(({ canvas, title: name, words, element: one }, stage) => {
      const draft = draftOf(scene, place, stage), iou = coveredByBoth(draft, mask), isLast = stage === cells.length - 1;
      shape(canvas);
      paintShares(canvas, image, draft, scene.size);
      name.textContent = `${cells[stage]} px`;
      words.textContent = isLast ? "the mask" : `IoU ${iou.toFixed(2)}`;
      change(one, { "data-iou": iou.toFixed(4) });
    });
  }
  return { element, show };
}

function percentOf(share) {
  return share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`;
}
