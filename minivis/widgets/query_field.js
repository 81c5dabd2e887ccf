// What one query answers on all evaluated scenes. A dot for each, at the middle of its box, and how large the sure ones
// are; a colour is a class.

const UNSURE = "#b9bcc6", GROUND = "#f6f6f6";
const FIELD = 300, STRIP = 120; // pixels of the canvases; they are shown at half of that, for sharp screens
const LARGEST = 0.6, BINS = 24; // sizes: √(width · height) in fractions of the picture

/** One layer's dots: boxes (images × queries × 4) and scores (images × queries) in steps of 1/255, and classes. */
function queryField(answers, classNames) {
  const layers = answers.spots.map(({ box, score, label }) => ({
    box: numbers(Uint8Array, box), score: numbers(Uint8Array, score), label: numbers(Uint8Array, label),
  }));
  const places = h("canvas", { width: FIELD, height: FIELD }), sizes = h("canvas", { width: FIELD, height: STRIP });
  const words = h("p", {});
  const element = h("div", { class: "field" },
    h("figure", {}, h("figcaption", {}, "middles of its boxes"), places),
    h("div", {}, words, h("p", { class: "kinds" }, ...classNames.map((name, kind) =>
      h("span", {}, h("i", { style: `background: ${COLOURS[kind % COLOURS.length]}` }), name)),
    h("span", {}, h("i", { style: `background: ${UNSURE}` }), "not sure")),
    h("figure", {}, sizes, h("figcaption", {}, `side of its sure boxes, 0 to ${100 * LARGEST} % of the picture`))));

  function empty(canvas) {
    const context = canvas.getContext("2d");
    context.globalAlpha = 1;
    context.fillStyle = GROUND;
    context.fillRect(0, 0, canvas.width, canvas.height);
    return context;
  }

  function drawPlaces({ box, score, label }, query, here) {
    const context = empty(places), all = answers.queries;
    const order = [...Array(answers.images).keys()].sort((a, b) => score[a * all + query] - score[b * all + query]);
    for (const image of order) {
      const at = image * all + query, isSure = score[at] / 255 >= SURE;
      context.fillStyle = isSure ? COLOURS[label[at] % COLOURS.length] : UNSURE;
      context.globalAlpha = isSure ? 0.85 : 0.5;
      context.beginPath();
      context.arc((box[4 * at] / 255) * FIELD, (box[4 * at + 1] / 255) * FIELD, isSure ? 4.5 : 2.5, 0, 7);
      context.fill();
    }
    context.globalAlpha = 1;
    context.strokeStyle = "#000";
    context.lineWidth = 2.5;
    context.beginPath();
    context.arc(here[0] * FIELD, here[1] * FIELD, 9, 0, 7);
    context.stroke();
  }

  function drawSizes({ box, score, label }, query) {
    const context = empty(sizes), all = answers.queries, counts = Array.from({ length: BINS }, () => classNames.map(() => 0));
    for (let image = 0; image < answers.images; image++) {
      const at = image * all + query;
      if (score[at] / 255 < SURE) continue;
      const side = Math.sqrt(box[4 * at + 2] * box[4 * at + 3]) / 255;
      counts[Math.min(BINS - 1, Math.floor((BINS * side) / LARGEST))][label[at]] += 1;
    }
    const highest = Math.max(1, ...counts.map((kinds) => kinds.reduce((a, b) => a + b, 0))), wide = FIELD / BINS;
    counts.forEach((kinds, bin) => {
      let floor = STRIP;
      kinds.forEach((count, kind) => {
        const high = (count / highest) * (STRIP - 8);
        context.fillStyle = COLOURS[kind % COLOURS.length];
        context.fillRect(bin * wide + 1, floor - high, wide - 2, high);
        floor -= high;
      });
    });
  }

  function show({ layer, query, scene }) {
    const dots = layers[layer - 1], sure = answers.sure[layer - 1][query];
    drawPlaces(dots, query, scene.box(layer, query));
    drawSizes(dots, query);
    words.replaceChildren(h("b", {}, `Query ${query} on ${answers.images} scenes. `),
      `It is sure of an object in ${sure} of them: coloured dots. The ring: this scene.`);
  }
  return { element, show };
}
