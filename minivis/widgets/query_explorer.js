// QueryExplorer: which scene, query, layer and head are looked at, and which queries are dropped. The picture is in
// query_picture.js, the dots in query_field.js, average precision in average_precision.js.

export default {
  render({ model, el }) {
    const classNames = model.get("class_names"), answers = model.get("answers");
    const scenes = model.get("scenes").map((scene) => unpackedScene(scene, classNames, answers.queries));
    const precisionOf = answers.ranked.map((layer) => precisionOfRanking(unpackedRanking(layer), answers.objects));
    const [layers, queries, heads] = [precisionOf.length, answers.queries, scenes[0].heads];
    const busiest = [...Array(queries).keys()].sort((a, b) => answers.sure.at(-1)[b] - answers.sure.at(-1)[a]);

    const redraw = oncePerFrame(draw);
    const { state, set, tell, leave } = sharedState(model, ["scene", "query", "layer", "head", "dropped"], redraw);
    const seen = { attention: true, truth: false };
    const within = (value, least, most) => Math.max(least, Math.min(most, value));
    const actions = {
      choose: (query) => set("query", query),
      chooseHead: (head) => set("head", head),
      chooseLayer: (layer) => set("layer", within(layer, 1, layers)),
      chooseScene: (scene) => set("scene", scene),
      step: (by) => set("query", (state.query + by + queries) % queries),
      stepHead: () => set("head", state.head + 1 < heads ? state.head + 1 : -1),
      toggle: (query) => set("dropped", state.dropped.includes(query)
        ? state.dropped.filter((q) => q !== query) : [...state.dropped, query].sort((a, b) => a - b)),
      keep: (count) => set("dropped", busiest.slice(count).sort((a, b) => a - b)),
      look: (what, on) => { seen[what] = on; redraw(); },
    };

    const picture = queryPicture(actions), strip = headStrip(heads, actions);
    const top = topBar(scenes, seen, actions), list = queryList(queries, actions), classes = classTable(classNames, layers, actions);
    const field = queryField(answers, classNames), sum = precisionPanel(layers, answers, busiest, actions);
    const parts = [picture, strip, top, list, classes, field, sum];
    const root = keepKeys(h("div", {
      class: "mv mv-query-explorer", "data-widget": "query-explorer", tabindex: 0, role: "group",
      "aria-label": "Object queries. Left and right choose a query, up and down a layer, h a head, x drops the query.",
      onkeydown: (event) => answerKey(event, actions, state),
    },
    h("div", { class: "panes" },
      h("div", { class: "left" }, top.element, picture.element, legend(), strip.element),
      h("div", { class: "right" }, list.element, classes.element, field.element, sum.element)),
    h("p", { class: "mv-note keys" }, "Keys (click the picture first): ← → query, ↑ ↓ layer, h the next head, Esc the mean of all, x drop or take back.")));

    let known = { dropped: null, precision: null };
    function precision(isKept) {
      if (known.dropped !== state.dropped) known = { dropped: state.dropped, precision: precisionOf.map((of) => of(isKept)) };
      return known.precision;
    }

    function draw() {
      const scene = scenes[state.scene], isKept = Array.from({ length: queries }, (_, q) => !state.dropped.includes(q));
      const weights = scene.weights(state.layer, state.query, state.head);
      const inside = shareInBox(weights, scene.box(state.layer, state.query), scene.grid);
      const view = {
        ...state, scene, isKept, weights, inside, hasAttention: seen.attention, hasTruth: seen.truth,
        precision: precision(isKept),
      };
      for (const part of parts) part.show(view);
      const best = scene.best(state.layer, state.query), now = view.precision[state.layer - 1];
      change(root, {
        "data-scene": state.scene, "data-query": state.query, "data-layer": state.layer, "data-head": state.head,
        "data-dropped": state.dropped.join(" "), "data-ap": now.ap.toFixed(6), "data-ap50": now.ap50.toFixed(6),
        "data-box": scene.box(state.layer, state.query).map((side) => side.toFixed(5)).join(" "),
        "data-class": best.name, "data-score": best.score.toFixed(4), "data-inside": inside.toFixed(4),
      });
      tell();
    }

    draw();
    el.replaceChildren(root);
    return () => {
      leave();
      for (const scene of scenes) URL.revokeObjectURL(scene.url);
    };
  },
};

/** A scene's bytes as functions: box(layer, query), row(layer, query) of probabilities, weights(layer, query, head). */
function unpackedScene(scene, classNames, queries) {
  const boxes = numbers(Float32Array, scene.boxes), probabilities = numbers(Float32Array, scene.probabilities);
  const maps = numbers(Uint8Array, scene.maps), maxima = numbers(Float32Array, scene.maxima);
  const cells = scene.grid[0] * scene.grid[1], heads = maps.length / cells / (boxes.length / 4), kinds = classNames.length + 1;
  const at = (layer, query) => (layer - 1) * queries + query;
  const row = (layer, query) => [...probabilities.subarray(at(layer, query) * kinds, (at(layer, query) + 1) * kinds)];
  function ofHead(layer, query, head) {
    const map = at(layer, query) * heads + head, scale = maxima[map] / 255;
    return Float64Array.from(maps.subarray(map * cells, (map + 1) * cells), (byte) => byte * scale);
  }
  return {
    ...scene, heads, row,
    url: URL.createObjectURL(new Blob([scene.picture], { type: "image/png" })),
    box: (layer, query) => [...boxes.subarray(4 * at(layer, query), 4 * at(layer, query) + 4)],
    best(layer, query) { // the likeliest real class
      const real = row(layer, query).slice(0, -1), score = Math.max(...real);
      return { name: classNames[real.indexOf(score)], score };
    },
    weights(layer, query, head) {
      if (head >= 0) return ofHead(layer, query, head);
      const sum = new Float64Array(cells);
      for (let each = 0; each < heads; each++) ofHead(layer, query, each).forEach((w, cell) => { sum[cell] += w / heads; });
      return sum;
    },
  };
}

/** Python's ranking of one layer's answers (query_answers.py), its bytes as numbers. */
export function unpackedRanking({ query, label, start, object, iou }) {
  return {
    query: numbers(Uint8Array, query), label: numbers(Uint8Array, label), start: numbers(Uint32Array, start),
    object: numbers(Uint16Array, object), iou: numbers(Float64Array, iou),
  };
}

/** The share of weights on cells whose middle lies in a box (cx, cy, w, h). */
function shareInBox(weights, [cx, cy, w, h_], [rows, columns]) {
  return weights.reduce((sum, weight, cell) => {
    const x = ((cell % columns) + 0.5) / columns, y = (Math.floor(cell / columns) + 0.5) / rows;
    return sum + (Math.abs(x - cx) <= w / 2 && Math.abs(y - cy) <= h_ / 2 ? weight : 0);
  }, 0);
}

function answerKey(event, actions, state) {
  const isNative = ["SELECT", "INPUT"].includes(event.target.tagName);
  const answer = {
    ArrowLeft: () => actions.step(-1), ArrowRight: () => actions.step(1),
    ArrowUp: () => actions.chooseLayer(state.layer - 1), ArrowDown: () => actions.chooseLayer(state.layer + 1),
    h: () => actions.stepHead(), x: () => actions.toggle(state.query), Delete: () => actions.toggle(state.query),
    Escape: () => actions.chooseHead(-1),
  }[event.key];
  if (!answer || isNative || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  answer();
}

// Above the picture: which scene, and what is laid over it

function topBar(scenes, seen, actions) {
  const select = h("select", { "aria-label": "scene", onchange: () => actions.chooseScene(Number(select.value)) },
    ...scenes.map(({ name }, i) => h("option", { value: i }, name)));
  const box = (what, text) => {
    const input = h("input", { type: "checkbox", onchange: () => actions.look(what, input.checked) });
    input.checked = seen[what];
    return h("label", {}, input, text);
  };
  return {
    element: h("div", { class: "top" }, select, box("attention", "attention"), box("truth", "true boxes (dotted)")),
    show: ({ scene }) => { select.value = scenes.indexOf(scene); },
  };
}

function legend() {
  const kinds = {
    "of-chosen": "the chosen query", "of-earlier": "the same, after earlier layers", "of-sure": "others that are sure",
    "of-unsure": "those that are not", light: "attention, from none to the most in this map",
  };
  return h("p", { class: "legend" }, ...Object.entries(kinds).map(([kind, text]) => h("span", {}, h("i", { class: kind }), text)));
}

// All queries: a button each, with what it says here

function queryList(queries, actions) {
  const title = h("b", {}), drop = h("button", { type: "button", class: "mv-button" });
  const chips = Array.from({ length: queries }, (_, query) => {
    const what = h("span", {}), percent = h("small", {}), button = h("button", {
      type: "button", class: "chip", "data-query": query, tabindex: -1, onclick: () => actions.choose(query),
    }, h("b", {}, query), what, percent);
    return { button, what, percent };
  });
  let chosen = 0;
  drop.addEventListener("click", () => actions.toggle(chosen));
  return {
    element: h("div", { class: "list" }, h("div", { class: "title" }, title, drop), h("div", { class: "chips" },
      ...chips.map(({ button }) => button))),
    show: ({ scene, layer, query, isKept }) => {
      chosen = query;
      title.textContent = `${queries} queries, after layer ${layer} (in %)`;
      drop.textContent = isKept[query] ? `drop query ${query}` : `take back query ${query}`;
      chips.forEach(({ button, what, percent }, q) => {
        const { name, score } = scene.best(layer, q);
        what.textContent = score >= SURE ? name : "–";
        percent.textContent = Math.round(100 * score);
        change(button, {
          "data-sure": score >= SURE, "data-dropped": !isKept[q], "aria-pressed": q === query,
          "aria-label": `query ${q}: ${score >= SURE ? name : "no object"}, ${Math.round(100 * score)} %${isKept[q] ? "" : ", dropped"}`,
        });
      });
    },
  };
}

// The chosen query's classes after each layer; a row is a layer, and chooses it

function classTable(classNames, layers, actions) {
  const names = [...classNames, "no object"], title = h("b", {});
  const rows = Array.from({ length: layers }, (_, i) => {
    const cells = names.map(() => h("td", {}));
    const button = h("button", { type: "button", class: "layer", "data-layer": i + 1, onclick: () => actions.chooseLayer(i + 1) },
      `layer ${i + 1}`);
    return { row: h("tr", { onclick: () => actions.chooseLayer(i + 1) }, h("th", {}, button), ...cells), cells, button };
  });
  return {
    element: h("div", { class: "classes" }, title, h("table", {},
      h("thead", {}, h("tr", {}, h("th", {}), ...names.map((name) => h("th", {}, name)))),
      h("tbody", {}, ...rows.map(({ row }) => row)))),
    show: ({ scene, layer, query }) => {
      title.textContent = `What query ${query} says after each layer, in %`;
      rows.forEach(({ row, cells, button }, i) => {
        change(row, { "data-chosen": i + 1 === layer });
        change(button, { "aria-pressed": i + 1 === layer });
        scene.row(i + 1, query).forEach((p, c) => {
          cells[c].textContent = Math.round(100 * p);
          change(cells[c], { style: `background: rgba(0, 114, 178, ${(0.75 * p).toFixed(3)})`, "data-high": p > 0.6 });
        });
      });
    },
  };
}

// AP over all scenes, of the queries that are kept, if the decoder ends after each layer

function precisionPanel(layers, answers, busiest, actions) {
  const queries = answers.queries, title = h("b", {}), rows = Array.from({ length: layers }, (_, i) => {
    const bar = h("i", {}), full = h("s", {}), value = h("span", { class: "value" });
    const row = h("button", { type: "button", class: "ap", "data-layer": i + 1, onclick: () => actions.chooseLayer(i + 1) },
      h("span", {}, `layer ${i + 1}`), h("span", { class: "meter" }, bar, full), value);
    return { row, bar, full, value };
  });
  const keep = slider({
    label: "keep the busiest", min: 0, max: queries, step: 1, value: queries, digits: 0, changed: actions.keep,
  });
  const shown = keep.querySelector("output"), words = h("p", { class: "mv-note" });
  words.textContent = "A row: the answers read off after that layer, as if the decoder ended there. To leave out the layers below a row, "
    + "press it. Orange: with all queries.";
  let whole = null;
  return {
    element: h("div", { class: "precision" }, title, ...rows.map(({ row }) => row), keep, words),
    show: ({ layer, isKept, precision }) => {
      const kept = isKept.filter(Boolean).length;
      if (kept === queries) whole = precision;
      title.textContent = `AP on ${answers.images} scenes with ${kept} of ${queries} queries`;
      keep.set(kept);
      if (!busiest.every((query, rank) => isKept[query] === rank < kept)) shown.textContent = "own choice";
      rows.forEach(({ row, bar, full, value }, i) => {
        const { ap } = precision[i], before = whole?.[i].ap ?? null;
        bar.style.width = `${100 * ap}%`;
        full.style.left = before === null ? "-9px" : `${100 * before}%`;
        const change_ = before !== null && kept < queries ? ` (${signedDigits(ap - before)})` : "";
        value.textContent = ap.toFixed(3) + change_;
        change(row, { "aria-pressed": i + 1 === layer, "data-ap": ap.toFixed(6) });
      });
    },
  };
}

function signedDigits(value) {
  return `${value < -0.0005 ? "−" : value > 0.0005 ? "+" : "±"}${Math.abs(value).toFixed(3)}`;
}
