// Where one query answers on all evaluated scenes: a dot for each, at the middle of its box, and at its size.

const UNSURE = [112, 117, 135], CERTAIN = [255, 218, 68];
const FIELD = 300; // pixels of the canvas; it is shown at half of that, for sharp screens

function confidenceColour(score) {
  return `rgb(${UNSURE.map((x, i) => Math.round(x + score * (CERTAIN[i] - x)))})`;
}

/** The dots of one layer: boxes (images × queries × 4) and scores (images × queries) in steps of 1/255. */
function queryField(answers) {
  const layers = answers.spots.map(({ box, score }) => ({ box: numbers(Uint8Array, box), score: numbers(Uint8Array, score) }));
  const panels = [["centre x →", "centre y ↓", 0], ["width →", "height ↓", 2]].map(([across, down, from]) => ({
    from, canvas: h("canvas", { width: FIELD, height: FIELD }), across, down,
  }));
  const words = h("p", {});
  const element = h("div", { class: "field" }, ...panels.map(({ canvas, across, down }) =>
    h("figure", {}, h("figcaption", {}, down), canvas, h("figcaption", { class: "across" }, across))), words);

  function show({ layer, query, scene }) {
    const { box, score } = layers[layer - 1], count = answers.images, all = answers.queries;
    const order = [...Array(count).keys()].sort((a, b) => score[a * all + query] - score[b * all + query]);
    const here = scene.box(layer, query);
    for (const { from, canvas } of panels) {
      const context = canvas.getContext("2d");
      context.fillStyle = "#17181d";
      context.fillRect(0, 0, FIELD, FIELD);
      for (const image of order) {
        const at = image * all + query, value = score[at] / 255, radius = value >= SURE ? 4 : 2.5;
        context.fillStyle = confidenceColour(value);
        context.globalAlpha = 0.45 + 0.55 * value;
        context.beginPath();
        context.arc((box[4 * at + from] / 255) * FIELD, (box[4 * at + from + 1] / 255) * FIELD, radius, 0, 7);
        context.fill();
      }
      context.globalAlpha = 1;
      context.strokeStyle = "#fff";
      context.lineWidth = 2.5;
      context.beginPath();
      context.arc(here[from] * FIELD, here[from + 1] * FIELD, 8, 0, 7);
      context.stroke();
    }
    const sure = answers.sure[layer - 1][query];
    words.replaceChildren(h("b", {}, `Query ${query} on ${count} scenes. `),
      `It is sure of an object in ${sure} of them: yellow dots. Left the middles of its boxes, right their sizes. The ring: this scene.`);
  }
  return { element, show };
}
