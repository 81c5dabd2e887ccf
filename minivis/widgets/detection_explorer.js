// DetectionExplorer: a threshold decides which of all answers are shown; pointing at one shows what it says.

const BELOW = "#bbb", NONE = -1;

export default {
  render({ model, el }) {
    const classNames = model.get("class_names"), hasTruth = model.get("has_truth");
    const sources = model.get("pictures").map((png) => URL.createObjectURL(new Blob([png], { type: "image/png" })));
    const answers = model.get("probabilities").map((rows) => rows.map(bestClass));
    const redraw = oncePerFrame(draw);
    const { state, set, tell, leave } = sharedState(model, ["threshold", "index", "query"], redraw);
    let pointed = NONE; // the query under the pointer; state.query is the one that was chosen
    const point = (query) => { pointed = query; redraw(); };
    const choose = (query) => set("query", state.query === query ? NONE : query);

    const image = h("img", { alt: "" }), overlay = svg("svg", { class: "overlay", "aria-hidden": "true" });
    const picture = h("div", { class: "picture" }, image, overlay);
    limitHeight(image, picture);
    const place = h("span", { class: "place" });
    const leaf = (step) => () => {
      set("index", (state.index + step + sources.length) % sources.length);
      set("query", NONE);
    };
    const pager = h("div", { class: "pager" },
      h("button", { class: "mv-button", onclick: leaf(-1), "aria-label": "previous picture" }, "◀"), place,
      h("button", { class: "mv-button", onclick: leaf(1), "aria-label": "next picture" }, "▶"));
    pager.hidden = sources.length < 2;
    const truth = h("input", { type: "checkbox", checked: "", onchange: () => redraw() });
    const truthLabel = h("label", { class: "truth" }, truth, "true objects (dashed)");
    truthLabel.hidden = !hasTruth;

    const threshold = slider({
      label: "show scores from", min: 0, max: 1, step: 0.01, value: state.threshold, digits: 2,
      changed: (value) => set("threshold", value),
    });
    const chart = scoreChart({ count: answers[0].length, point, choose });
    const summary = h("p", { class: "summary", "aria-live": "polite" });
    const details = classBars(classNames);
    const root = keepKeys(h("div", {
      class: "mv mv-detection-explorer", "data-widget": "detection-explorer",
      onkeydown: (event) => { if (event.key === "Escape") set("query", NONE); },
    },
      h("figure", {}, picture, h("div", { class: "below" }, pager, truthLabel)),
      h("div", { class: "panel" }, threshold, chart.element, summary, details.element)));

    function draw() {
      const { index, threshold: least } = state, all = answers[index], boxes = model.get("boxes")[index];
      const order = all.map((_, query) => query).sort((a, b) => all[b].score - all[a].score);
      const found = order.filter((query) => all[query].score >= least);
      const looked = pointed === NONE ? state.query : pointed;
      if (image.dataset.index !== String(index)) {
        change(image, { src: sources[index], "data-index": index });
        image.alt = `picture ${index + 1}`;
      }
      place.textContent = `picture ${index + 1} of ${sources.length}`;
      threshold.set(least);
      drawBoxes(boxes, all, found, looked);
      chart.show({ all, order, least, looked, chosen: state.query });
      summary.textContent = `${found.length} of ${all.length} queries are surer than ${least.toFixed(2)}.`
        + (hasTruth ? ` True objects: ${model.get("labels")[index].length}.` : "");
      details.show(looked, looked === NONE ? null : model.get("probabilities")[index][looked]);
      change(root, {
        "data-threshold": least.toFixed(2), "data-index": index, "data-query": looked,
        "data-found": JSON.stringify(found),
      });
      tell();
    }

    function drawBoxes(boxes, all, found, looked) {
      const shapes = [];
      if (truth.checked) for (const box of model.get("true_boxes")[state.index]) shapes.push(frame(box, "truth"));
      const shown = found.includes(looked) || looked === NONE ? found : [looked, ...found];
      for (const query of shown.toReversed()) { // the surest lies above the others
        const { score, label } = all[query], kind = looked === NONE || looked === query ? "answer" : "answer dim";
        const group = frame(boxes[query], kind, colourOf(label));
        change(group, {
          "data-query": query, "data-label": label, onpointerenter: () => point(query),
          onpointerleave: () => point(NONE), onclick: () => choose(query),
        });
        if (kind === "answer") group.append(tag(boxes[query], words(all[query], classNames), label));
        shapes.push(group);
      }
      overlay.replaceChildren(...shapes);
    }

    draw();
    el.replaceChildren(root);
    return () => {
      for (const source of sources) URL.revokeObjectURL(source);
      leave();
    };
  },
};

/** The best class of a query that is not "no object", and its probability: the query's score. */
function bestClass(row) {
  const real = row.slice(0, -1), score = Math.max(...real);
  return { score, label: real.lastIndexOf(score), nothing: row.at(-1) };
}

/** What a query says: its class, or that there is no object, where that is likelier. */
function words({ score, label, nothing }, classNames) {
  return nothing > score
    ? `no object ${nothing.toFixed(2)}, or ${classNames[label]} ${score.toFixed(2)}`
    : `${classNames[label]} ${score.toFixed(2)}`;
}

function colourOf(label) {
  return COLOURS[label % 7];
}

const percent = (value) => `${100 * value}%`;

/** A box on the picture: one line on white. */
function frame([cx, cy, w, h_], kind, colour = "#000") {
  const at = { x: percent(cx - w / 2), y: percent(cy - h_ / 2), width: percent(w), height: percent(h_) };
  return svg("g", { class: kind, style: `--colour: ${colour}` },
    svg("rect", { ...at, class: "halo" }), svg("rect", { ...at, class: "frame" }));
}

function tag([cx, cy, w, h_], text, label) {
  const width = 6.4 * text.length + 8, nearTop = cy - h_ / 2 < 0.06;
  const place = { x: percent(Math.max(0, cx - w / 2)), y: percent(Math.max(0, cy - h_ / 2)), class: "tag" };
  const top = nearTop ? 0 : -17;
  return svg("svg", { ...place, overflow: "visible" },
    svg("rect", { x: 0, y: top, width, height: 17 }),
    svg("text", { x: 4, y: top + 13, fill: label % 7 === 0 ? "#fff" : "#000" }, text));
}

/** A bar for each query, the surest first; each can be pointed at, chosen, and reached by arrow keys. */
function scoreChart({ count, point, choose }) {
  let order = [];
  const bars = Array.from({ length: count }, (_, place) => h("button", {
    class: "bar", tabindex: place === 0 ? 0 : -1,
    onpointerenter: () => point(order[place]), onpointerleave: () => point(NONE),
    onfocus: () => point(order[place]), onblur: () => point(NONE), onclick: () => choose(order[place]),
    onkeydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -count, End: count }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      bars[Math.min(count - 1, Math.max(0, place + step))].focus();
    },
  }, h("span", {})));
  const line = h("div", { class: "threshold" });
  const element = h("div", { class: "chart" },
    h("div", { class: "bars", role: "group", "aria-label": "scores of all queries" }, ...bars, line),
    h("div", { class: "mv-note" }, `${count} queries, the surest first`));
  function show({ all, order: now, least, looked, chosen }) {
    order = now;
    line.style.bottom = percent(least);
    bars.forEach((bar, place) => {
      const query = order[place], { score, label } = all[query];
      change(bar, {
        "data-query": query, "data-score": score.toFixed(4), "aria-label": `query ${query}: score ${score.toFixed(2)}`,
        "aria-pressed": query === chosen, class: query === looked ? "bar looked" : "bar",
      });
      bar.firstChild.style.height = percent(score);
      bar.firstChild.style.background = score >= least ? colourOf(label) : BELOW;
    });
  }
  return { element, show };
}

/** What one query says of every class. */
function classBars(classNames) {
  const title = h("b", {}), rows = [...classNames, "no object"].map((name) => {
    const bar = h("span", {}), value = h("output", {});
    return { bar, value, row: h("div", { class: "class" }, h("span", {}, name), h("div", {}, bar), value) };
  });
  const list = h("div", {}, ...rows.map(({ row }) => row));
  const element = h("div", { class: "details" }, title, list);
  function show(query, probabilities) {
    title.textContent = probabilities ? `Query ${query} says` : "Point at a bar or a box: what does that query say?";
    list.style.visibility = probabilities ? "visible" : "hidden";
    rows.forEach(({ bar, value }, label) => {
      const p = probabilities?.[label] ?? 0;
      bar.style.width = percent(p);
      bar.style.background = label < classNames.length ? colourOf(label) : "#777";
      value.textContent = p.toFixed(2);
    });
  }
  return { element, show };
}
