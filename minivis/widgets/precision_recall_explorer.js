// PrecisionRecallExplorer: thresholds, and the boxes, counts, curve and AP that follow from them. The mathematics is in
// average_precision.js, the picture in judged_boxes.js, the charts in precision_recall_chart.js.

const ALL_CLASSES = -1;
const NMS_IOU = 0.7;

export default {
  render({ model, el }) {
    const names = model.get("class_names"), truths = model.get("truths"), predictions = model.get("predictions");
    const redraw = oncePerFrame(draw);
    const changing = ["source", "suppress", "score", "iou", "label", "shown"];
    const { state, set, tell, leave } = sharedState(model, changing, redraw), start = { ...state };
    const has = (picture, label) => label === ALL_CLASSES || truths[picture].labels.includes(label);

    /** A class, with a picture that has it: the one that is shown, or the next one. */
    function choose(label) {
      const next = truths.map((_, i) => (state.shown + i) % truths.length).find((picture) => has(picture, label));
      if (next !== undefined && next !== state.shown) set("shown", next);
      set("label", label);
    }

    const picture = judgedBoxes({ pictures: model.get("pictures"), names });
    const controls = controlPanel({ names, sources: Object.keys(predictions), set, choose, start, reset() {
      for (const name of changing) set(name, start[name]);
    } });
    const turn = pageTurner({ count: truths.length, turn: (shown) => set("shown", shown) });
    const chart = curveChart(), bars = thresholdBars({ choose: (iou) => set("iou", iou) });
    const counted = h("p", { class: "counted" }), legend = h("p", { class: "mv-note" });
    const root = keepKeys(h("div", { class: "mv mv-precision-recall", "data-widget": "precision-recall-explorer" },
      h("div", { class: "panes" },
        h("div", { class: "seen" }, turn.element, picture.element),
        h("div", { class: "said" }, controls.element, counted,
          h("div", { class: "charts" }, h("div", { class: "field" }, chart.element, legend), bars.element)))));

    // What thresholds do not change is computed once for each choice of predictions, or of these and an IoU.
    const kept = new Map();
    const once = (key, compute) => { if (!kept.has(key)) kept.set(key, compute()); return kept.get(key); };
    function images({ source, suppress }) {
      return once(`${source}|${suppress}`, () => predictions[source].map((found, i) => ({
        found: suppress ? pick(found, nonMaximumSuppression(found, NMS_IOU)) : found, truth: truths[i],
      })));
    }

    function calculate() {
      const { source, suppress, score, iou, label, shown } = state, judgedImages = images(state);
      const chosen = `${source}|${suppress}|`, isWanted = (each) => label === ALL_CLASSES || each === label;
      const wanted = classesIn(judgedImages).filter(isWanted);
      const partners = once(`${chosen}partners ${iou}`, () => judgedImages.map((image) => matchDetections(image, iou)));
      const curve = (each) => once(`${chosen}curve ${each} ${iou}`, () => precisionRecall(judgedImages, each, iou));
      const pooled = once(`${chosen}pooled ${label} ${iou}`,
        () => pooledCurve(judgedImages, label === ALL_CLASSES ? names.map((_, i) => i) : [label], iou));
      const precisions = once(`${chosen}AP ${label}`,
        () => IOU_THRESHOLDS.map((each) => averagePrecision(judgedImages, [each], wanted)));
      const judged = judgedImages.map(({ found, truth }, i) => {
        const indices = [...found.scores.keys()].filter((n) => found.scores[n] >= score && isWanted(found.labels[n]));
        const reached = new Set(indices.map((n) => partners[i][n]));
        const objects = [...truth.labels.keys()].filter((n) => isWanted(truth.labels[n]));
        return {
          detections: indices.map((n) => ({
            box: found.boxes[n], label: found.labels[n], score: found.scores[n], isRight: partners[i][n] >= 0,
          })),
          missed: objects.filter((n) => !reached.has(n)).map((n) => ({ box: truth.boxes[n], label: truth.labels[n] })),
          objects: objects.length,
        };
      });
      const sum = (count) => judged.reduce((total, image) => total + count(image), 0);
      const found = sum(({ detections }) => detections.length), objects = sum((image) => image.objects);
      const right = sum(({ detections }) => detections.filter(({ isRight }) => isRight).length);
      return {
        ...state, judged: judged[shown], curves: wanted.map(curve), pooled, precisions, right, wrong: found - right,
        missed: objects - right, precision: right / found, recall: right / objects, pictures: truths.length,
      };
    }

    function draw() {
      const now = calculate();
      controls.show(now);
      turn.show(now.shown);
      picture.show(now.shown, now.judged);
      chart.show(now.curves, now.pooled, now);
      bars.show(now.precisions, now.iou);
      legend.textContent = now.label === ALL_CLASSES
        ? "Grey: each class. Blue: their mean; the area is AP. Orange: all classes in one list. Dot on it: this score."
        : "Orange: as it is. Blue: the best precision still to come; the area is AP. Dot: this score.";
      counted.replaceChildren(
        `In all ${now.pictures}: `, h("b", {}, `${now.right} right, ${now.wrong} wrong, ${now.missed} missed`),
        ` → precision ${percent(now.precision)}, recall ${percent(now.recall)}`);
      const data = {
        score: now.score, iou: now.iou, source: now.source, suppress: now.suppress, label: now.label, shown: now.shown,
        right: now.right, wrong: now.wrong, missed: now.missed,
        "ap-here": now.precisions[IOU_THRESHOLDS.indexOf(now.iou)].toFixed(6), ap: mean(now.precisions).toFixed(6),
      };
      change(root, Object.fromEntries(Object.entries(data).map(([name, value]) => [`data-${name}`, String(value)])));
      tell();
    }

    draw();
    el.replaceChildren(root);
    return () => {
      picture.free();
      leave();
    };
  },
};

function pick({ boxes, labels, scores }, indices) {
  const of = (values) => indices.map((i) => values[i]);
  return { boxes: of(boxes), labels: of(labels), scores: of(scores) };
}

/** Two sliders, two lists and a switch. */
function controlPanel({ names, sources, set, choose, start, reset }) {
  const score = slider({
    label: "score at least", min: 0, max: 1, step: 0.01, value: start.score, digits: 2,
    changed: (to) => set("score", to),
  });
  const iou = slider({
    label: "IoU at least", min: 0.5, max: 0.95, step: 0.05, value: start.iou, digits: 2,
    changed: (to) => set("iou", IOU_THRESHOLDS[Math.round((to - 0.5) / 0.05)]),
  });
  const list = (name, options, changed) => {
    const select = h("select", { "aria-label": name, onchange: () => changed(select.selectedIndex) },
      ...options.map((option) => h("option", {}, option)));
    return select;
  };
  const source = list("predictions", sources, (i) => set("source", sources[i]));
  const label = list("classes", ["all classes", ...names], (i) => choose(i - 1));
  const suppress = h("input", { type: "checkbox", onchange: () => set("suppress", suppress.checked) });
  const element = h("div", { class: "controls" },
    h("div", { class: "row" }, h("label", {}, "predictions ", source), h("label", {}, label),
      h("label", {}, suppress, " NMS"), h("button", { class: "mv-button", onclick: reset }, "Reset")),
    score, iou);
  function show(now) {
    score.set(now.score);
    iou.set(now.iou);
    source.selectedIndex = sources.indexOf(now.source);
    label.selectedIndex = now.label + 1;
    suppress.checked = now.suppress;
  }
  return { element, show };
}

/** ‹ picture 3 of 40 › */
function pageTurner({ count, turn }) {
  let at = 0;
  const by = (step) => () => turn((at + step + count) % count);
  const number = h("span", {});
  const element = h("div", { class: "turner" },
    h("button", { class: "mv-button", "aria-label": "previous picture", onclick: by(-1) }, "‹"), number,
    h("button", { class: "mv-button", "aria-label": "next picture", onclick: by(1) }, "›"));
  function show(shown) {
    at = shown;
    number.textContent = `picture ${shown + 1} of ${count}`;
  }
  return { element, show };
}
