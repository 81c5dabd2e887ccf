// MatchingExplorer: weights, boxes and the assignment that follows from them. The picture is in movable_boxes.js, the
// matrix in cost_matrix.js, the mathematics in assignment.js.

const SETTLED = 700; // milliseconds without a change, after which one who does not see is told
const PARTS = [
  { part: "class", name: "− p(class)", label: "weight of the class part" },
  { part: "L1", name: "L1 distance", label: "weight of the L1 part" },
  { part: "GIoU", name: "− GIoU", label: "weight of the GIoU part" },
];

export default {
  render({ model, el }) {
    const classNames = model.get("class_names"), labels = model.get("labels");
    const probabilities = model.get("probabilities");
    const names = labels.map((label, object) => ({ letter: letter(object), text: classNames[label] }));
    const guesses = probabilities.map((row) => bestGuess(row, classNames));
    const source = URL.createObjectURL(new Blob([model.get("picture")], { type: "image/png" }));

    // What can be changed, and what is looked at: { query, object } for a cell, one of them for a box.
    const redraw = oncePerFrame(draw);
    const changing = ["weights", "boxes", "true_boxes", "method"];
    const { state, set, tell, leave } = sharedState(model, changing, redraw), start = { ...state };
    const atStart = new Map(calculatePairs(start)); // query → object
    const pointed = { cell: null, box: null, kept: null };
    const point = (what, at) => { pointed[what] = at; redraw(); };
    const listOf = ({ query }) => (query === undefined ? "true_boxes" : "boxes");

    const panel = equationPanel({
      weights: state.weights, names,
      setWeight: (part, value) => set("weights", state.weights.with(part, value)),
      setMethod: (method) => set("method", method),
      letGo: () => point("kept", null),
      reset() {
        for (const name of changing) set(name, start[name]);
        Object.assign(pointed, { cell: null, box: null, kept: null });
        matrix.arrange(calculate());
      },
    });
    const picture = movableBoxes({
      source, names, guesses, point: (at) => point("box", at),
      boxOf: (at) => state[listOf(at)][at.query ?? at.object],
      setBox: (at, box) => set(listOf(at), state[listOf(at)].with(at.query ?? at.object, box)),
    });
    const matrix = costMatrix({
      names, guesses, redraw, point: (at) => point("cell", at), keep: (at) => point("kept", at),
    });
    const news = h("div", { class: "unseen", "aria-live": "polite" });
    const root = keepKeys(h("div", {
      class: "mv mv-matching-explorer", "data-widget": "matching-explorer",
      onkeydown: (event) => { if (event.key === "Escape") point("kept", null); },
    }, h("div", { class: "panes" }, panel.element, picture.element, matrix.element), news));

    function calculatePairs({ boxes, true_boxes, weights, method }) {
      const cost = weighted(costParts(probabilities, boxes, labels, true_boxes), weights);
      return method === "optimal" ? optimal(cost) : greedy(cost);
    }

    function calculate() {
      const parts = costParts(probabilities, state.boxes, labels, state.true_boxes);
      const cost = weighted(parts, state.weights), solved = { optimal: optimal(cost), greedy: greedy(cost) };
      const pairs = solved[state.method], objectOf = new Map(pairs); // of a query
      return {
        ...state, parts, cost, pairs, objectOf, atStart, kept: pointed.kept, active: lookedAt(pointed, pairs, cost),
        totals: { optimal: totalCost(cost, solved.optimal), greedy: totalCost(cost, solved.greedy) },
        changed: pairs.filter(([query, object]) => atStart.get(query) !== object).map(([, object]) => object),
      };
    }

    function draw() {
      const now = calculate();
      panel.show(now);
      matrix.show(now);
      picture.show(now, matrix.isShown);
      change(root, {
        "data-weights": JSON.stringify(now.weights), "data-method": now.method,
        "data-matching": JSON.stringify(now.pairs), "data-changed": now.changed.length,
        "data-optimal-cost": now.totals.optimal.toFixed(6), "data-greedy-cost": now.totals.greedy.toFixed(6),
        "data-active": now.active && JSON.stringify(now.active),
      });
      tellOnceSettled(now);
      tell();
    }

    let told = null, waiting;
    function tellOnceSettled({ pairs, objectOf, totals, method }) {
      told ??= objectOf;
      clearTimeout(waiting);
      waiting = setTimeout(() => {
        const fresh = pairs.filter(([query, object]) => told.get(query) !== object);
        told = objectOf;
        if (fresh.length === 0) return;
        const words = fresh.slice(0, 3).map(([query, object]) => `query ${query} with ${names[object].letter}`);
        if (fresh.length > 3) words.push(`and ${fresh.length - 3} more`);
        news.textContent = `Now ${words.join(", ")}. Total cost ${number(totals[method])}.`;
      }, SETTLED);
    }

    matrix.arrange(calculate());
    draw();
    el.replaceChildren(root);
    return () => {
      clearTimeout(waiting);
      URL.revokeObjectURL(source);
      leave();
    };
  },
};

/** The pair that is looked at, { query, object }: a cell's, or a box's own. One without a partner has its cheapest. */
function lookedAt({ cell, box, kept }, pairs, cost) {
  if (cell) return cell;
  if (!box) return kept;
  if (kept && (kept.query === box.query || kept.object === box.object)) return kept;
  const pair = pairs.find(([query, object]) => query === box.query || object === box.object);
  if (pair) return { query: pair[0], object: pair[1] };
  const costs = box.object === undefined ? cost[box.query] : cost.map((row) => row[box.object]);
  if (costs.length === 0) return box;
  const cheapest = costs.indexOf(Math.min(...costs));
  return box.object === undefined ? { ...box, object: cheapest } : { query: cheapest, ...box };
}

/** The three weights as sliders, each in its line: weight × value = part; and what the assignment costs. */
function equationPanel({ weights, names, setWeight, setMethod, letGo, reset }) {
  const title = h("b", {}), hint = h("span", { class: "mv-note" });
  const all = h("button", { class: "mv-button small", onclick: letGo }, "show all pairs");
  const lines = PARTS.map(({ part, name, label }, i) => {
    const changed = (value) => setWeight(i, value);
    const line = slider({ label, min: 0, max: 10, step: 0.1, value: weights[i], changed });
    line.querySelector("span").textContent = name;
    const value = h("span", { class: "value" }), product = h("span", { class: "value" });
    line.append(h("span", {}, "×"), value, h("span", {}, "="), product);
    return { line: change(line, { "data-part": part }), value, product };
  });
  const sum = h("span", { class: "value" }), more = h("span", { class: "mv-note" }), group = `method-${Math.random()}`;
  const methods = ["optimal", "greedy"].map((method) => ({
    method, total: h("span", { class: "value" }),
    radio: h("input", { type: "radio", name: group, value: method, onchange: () => setMethod(method) }),
  }));
  const changed = h("p", { class: "mv-note" });
  const element = h("div", { class: "panel" },
    h("div", { class: "title" }, title, hint, all),
    ...lines.map(({ line }) => line),
    h("div", { class: "sum" }, h("span", {}, "cost"), sum),
    h("div", { class: "methods", role: "radiogroup", "aria-label": "how the pairs are found" },
      ...methods.map(({ method, radio, total }) => h("label", {}, radio, method, total)), more,
      h("button", { class: "mv-button", onclick: reset }, "Reset")),
    changed);

  function show({ parts, cost, weights, method, pairs, totals, changed: objects, atStart, active, kept }) {
    const { query, object } = active ?? {}, isPair = query !== undefined && object !== undefined;
    const cells = isPair ? [[query, object]] : pairs;
    title.textContent = isPair
      ? `Query ${query} with ${names[object].letter} (${names[object].text})`
      : pairs.length === 1 ? "The one matched pair" : `All ${pairs.length} matched pairs, added up`;
    const isMatched = pairs.some(([q, o]) => q === query && o === object);
    hint.textContent = names.length === 0 ? "there is nothing to match" : !isPair ? "or point at a cell for one pair" : isMatched ? "matched" : "not matched";
    all.hidden = !kept;
    lines.forEach(({ line, value, product }, i) => {
      const whole = cells.reduce((sum, [q, o]) => sum + parts[q][o][i], 0);
      line.set(weights[i]);
      value.textContent = number(whole);
      product.textContent = number(weights[i] * whole);
      change(line, { "data-value": whole.toFixed(6), "data-product": (weights[i] * whole).toFixed(6) });
    });
    sum.textContent = number(totalCost(cost, cells));
    for (const { method: name, radio, total } of methods) {
      radio.checked = name === method;
      total.textContent = number(totals[name]);
    }
    const gap = totals.greedy - totals.optimal;
    more.textContent = gap > 0.005 ? `(${number(gap)} more)` : "(the same)";
    changed.textContent = weights.every((weight) => weight === 0)
      ? "All weights are 0: every assignment costs the same."
      : objects.length === 0 ? "Every object has the query that it had at the start."
      : `Other queries than at the start: ${exchanges(objects, pairs, atStart).join(", ")}.`;
  }
  /** What changed hands, in words. */
  function exchanges(objects, pairs, atStart) {
    const owner = (ofPairs, object) => [...ofPairs].find((pair) => pair[1] === object)?.[0] ?? "none";
    const all = objects.map((object) => `${names[object].letter} ${owner(atStart, object)} → ${owner(pairs, object)}`);
    return all.length > 4 ? [...all.slice(0, 4), `and ${all.length - 4} more`] : all;
  }
  return { element, show };
}

function bestGuess(row, classNames) {
  const best = row.indexOf(Math.max(...row));
  return `${classNames[best] ?? "no object"} ${Math.floor(100 * row[best])}%`;
}

/** A, B, ..., Z, AA, AB, ... */
function letter(index) {
  return (index >= 26 ? letter(Math.floor(index / 26) - 1) : "") + String.fromCharCode(65 + (index % 26));
}
