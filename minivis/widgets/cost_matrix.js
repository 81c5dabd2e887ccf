// The cost matrix as a table. Darker is cheaper; matched cells have a frame in their object's colour.

const NUMBERED_OBJECTS = 9; // up to so many columns, the cells show their cost
const FURTHER_QUERIES = 4; // shown beside the matched ones, the cheapest first

// From nearly white (dear) to nearly black (cheap): lightness alone tells it, whatever colours one sees.
const SHADES = Array.from({ length: 64 }, (_, i) => {
  const depth = (i / 63) ** 1.5, mixed = (from, to) => Math.round(from + depth * (to - from));
  return { fill: `rgb(${mixed(246, 40)}, ${mixed(247, 52)}, ${mixed(249, 72)})`, isDark: depth > 0.6 };
});

function costMatrix({ names, guesses, point, keep, redraw }) {
  const hasNumbers = names.length <= NUMBERED_OBJECTS;
  const rows = guesses.map((guess, query) => {
    const cells = names.map((_, object) => cellView(query, object, hasNumbers));
    const header = h("th", { scope: "row" }, h("b", {}, String(query)), h("span", {}, guess));
    return { element: h("tr", { role: "row" }, header, ...cells.map((cell) => cell.element)), cells };
  });
  const columns = names.map(({ letter, text }, object) => h("th", {
    scope: "col", style: `--pair: ${colour(object)}; --ink: ${ink(object)}`, title: text,
  }, h("b", {}, letter), hasNumbers ? h("span", {}, text) : null));
  const corner = h("th", { class: "mv-note" }, h("span", {}, "query"));
  const body = h("tbody", {});
  const table = h("table", { role: "grid", "aria-label": "cost of each query with each object" },
    h("thead", {}, h("tr", { role: "row" }, corner, ...columns)), body);
  const cheap = h("span", {}), dear = h("span", {});
  const everything = h("button", {
    class: "mv-button small",
    onclick: () => { showsAll = !showsAll; list(); redraw(); },
  });
  const element = h("div", { class: hasNumbers ? "matrix" : "matrix dense" },
    h("div", { class: "scroll" }, table),
    h("div", { class: "below mv-note" }, h("span", { class: "scale" }, cheap, h("i", {}), dear),
      h("span", { class: "sample matched" }, "matched"),
      h("span", { class: "sample before" }, "at the start"), everything));

  let order = [], shown = new Set(), showsAll = false; // queries
  let current = null, again = false, latest = null;

  /** Matched queries in the order of their objects, then the others, the cheapest first. */
  function arrange({ cost, pairs }) {
    const matched = [...pairs].sort((a, b) => a[1] - b[1]).map(([query]) => query);
    const cheapest = cost.map((row) => Math.min(...row));
    const others = [...cost.keys()].filter((query) => !matched.includes(query));
    order = [...matched, ...others.sort((a, b) => cheapest[a] - cheapest[b])];
    shown = new Set(order.slice(0, matched.length + FURTHER_QUERIES));
    list();
  }
  function isShown(query) {
    return showsAll || shown.has(query);
  }
  function list() {
    body.replaceChildren(...order.filter(isShown).map((query) => rows[query].element));
    everything.hidden = shown.size === rows.length;
    everything.textContent = showsAll ? "show fewer" : `show all ${rows.length} queries`;
  }

  function cellAt(event) {
    const { query, object } = event.target.closest?.("td")?.dataset ?? {};
    return query === undefined ? null : { query: Number(query), object: Number(object) };
  }
  body.addEventListener("pointerover", (event) => point(cellAt(event)));
  body.addEventListener("pointerleave", () => point(null));
  body.addEventListener("pointerdown", (event) => { again = event.target === current && latest.kept !== null; });
  body.addEventListener("click", (event) => keep(again ? null : cellAt(event))); // a second click lets go of it
  body.addEventListener("focusin", (event) => {
    const at = cellAt(event);
    current.setAttribute("tabindex", -1);
    current = event.target;
    const { letter, text } = names[at.object], cost = number(latest.cost[at.query][at.object]);
    change(current, { tabindex: 0, "aria-label": `query ${at.query} with ${letter}, ${text}: cost ${cost}` });
    keep(at);
  });
  body.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    if (!arrow) return;
    event.preventDefault();
    const cell = event.target, row = cell.parentElement.sectionRowIndex + arrow[1];
    const column = Math.max(1, cell.cellIndex + arrow[0]); // 0 is the row's header
    body.rows[row]?.cells[column]?.focus();
  });

  function show(now) {
    latest = now;
    for (const [query] of now.pairs) {
      if (isShown(query)) continue;
      shown.add(query);
      body.append(rows[query].element);
    }
    const values = now.cost.flat(), low = Math.min(...values), high = Math.max(...values);
    for (const query of order.filter(isShown)) {
      const cost = now.cost[query], object = now.objectOf.get(query), before = now.atStart.get(query);
      rows[query].element.classList.toggle("left-over", object === undefined);
      rows[query].cells.forEach((cell, i) => {
        const { fill, isDark } = SHADES[Math.round((SHADES.length - 1) * (high - cost[i]) / (high - low || 1))];
        const isActive = now.active?.query === query && now.active?.object === i;
        const states = { dark: isDark, matched: i === object, before: i === before && i !== object, active: isActive };
        cell.look({
          fill, cost: cost[i], states: Object.keys(states).filter((state) => states[state]).join(" "),
        });
      });
    }
    cheap.textContent = names.length ? `cheap ${number(low)}` : "no objects: no costs";
    dear.textContent = names.length ? `${number(high)} dear` : "";
    element.classList.toggle("changed", now.changed > 0);
    if (!current?.isConnected) {
      current = body.querySelector("td");
      current?.setAttribute("tabindex", 0);
    }
  }
  return { element, show, arrange, isShown };
}

/** One cell. There may be thousands: it writes only what is new. */
function cellView(query, object, hasNumber) {
  const element = h("td", {
    role: "gridcell", tabindex: -1, "data-query": query, "data-object": object, style: `--pair: ${colour(object)}`,
  });
  let was = {};
  function look(is) {
    if (is.fill !== was.fill) element.style.backgroundColor = is.fill;
    if (is.states !== was.states) element.className = is.states;
    if (is.cost !== was.cost) {
      element.dataset.cost = is.cost.toFixed(6);
      if (hasNumber) element.textContent = number(is.cost);
    }
    was = is;
  }
  return { element, look };
}

function number(value) {
  return value.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "−");
}
