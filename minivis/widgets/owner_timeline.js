// Time to the right: a row of owners for each object, then how many objects changed owner, and the cost.

function timelineOf(record, image, width, actions) {
  const rows = image.names.length;
  const left = Math.round(Math.max(92, Math.min(width * 0.18, 110)));
  const plot = width - left - 10;
  const column = plot / record.steps.length;
  const row = rows > 10 ? 16 : 22;
  const rowTop = (object) => 26 + object * row;
  const bars = { top: rowTop(rows) + 10, height: 38 };
  const cost = { top: bars.top + bars.height + 14, height: 46 };
  const axis = cost.top + cost.height + 20;
  const x = (index) => left + index * column;

  const word = (kind, text, at, y) => svg("text", { class: kind, x: at, y }, text);
  const scale = (lane, high, low) => [[high, lane.top], [low, lane.top + lane.height]].flatMap(([text, y]) => [
    svg("line", { class: "mv-grid", x1: left, x2: left + plot, y1: y, y2: y }), word("mv-scale", text, left - 6, y + 4),
  ]);
  const title = (text, lane) => word("mv-label", text, 0, lane.top + lane.height / 2 + 4);

  const bands = image.names.map((_, object) => svg("rect", {
    class: "mv-band", x: 0, y: rowTop(object) - 2, width: left + plot, height: row + 1,
  }));
  const middle = (object) => rowTop(object) + row / 2 + 3; // of a row's letters
  const names = image.names.map((name, object) => svg("text", { class: "mv-name", x: 0, y: middle(object) },
    svg("tspan", { "font-weight": "bold" }, object + 1), ` ${shortened(name, (left - 24) / 6.5)}`));
  const cells = image.names.flatMap((_, object) => stretches(image.owners, object).map(({ query, from, to }) => {
    const colour = colourOf(image, query);
    const text = query === NOBODY ? "–" : String(query);
    const room = Math.max(0.2, (to - from) * column - (column > 2.5 ? 1 : 0.5));
    return svg("g", { class: "mv-cell", "data-query": query, "data-object": object, "data-from": from },
      svg("rect", { x: x(from), y: rowTop(object), width: room, height: row - 3, fill: colour }),
      room > 7 * text.length + 5 // there is room for a number
        ? svg("text", { x: x(from) + room / 2, y: middle(object), fill: inkOn(colour) }, text) : null);
  }));

  const changes = image.changed.map((count, index) => svg("rect", {
    class: "mv-change", "data-changed": count, x: x(index), width: Math.max(1, column - 1),
    y: bars.top + bars.height * (1 - count / rows), height: (bars.height * count) / rows,
  }));
  const [least, most] = [Math.min(...image.cost), Math.max(...image.cost)];
  const costY = (value) => cost.top + (cost.height * (most - value)) / (most - least || 1);
  const points = image.cost.map((value, index) => `${x(index) + column / 2},${costY(value)}`);
  const ticks = ticksOf(record, column).map((i) => word("mv-tick", record.steps[i], x(i) + column / 2, axis));

  const dot = svg("circle", { class: "mv-costdot", r: 3.5 });
  const hand = svg("g", { class: "mv-hand" }, svg("line", { class: "mv-stem", y1: 20, y2: axis - 14 }),
    svg("path", { class: "mv-head", d: "M-5 18 H5 L0 24 Z" }));

  const scrub = (event) => {
    const frame = element.getBoundingClientRect();
    const object = Math.floor((event.clientY - frame.top - rowTop(0)) / row);
    actions.point({ object: object >= 0 && object < rows ? object : null });
    const index = Math.floor((event.clientX - frame.left - left) / column);
    if (event.type === "pointerdown") actions.play(false);
    if (index >= 0 && !actions.playing()) actions.go(index);
  };
  const element = svg("svg", {
    class: "mv-timeline", width, height: axis + 6, role: "img",
    "aria-label": "over time: the owner of each object, how many objects changed owner, and the cost of the matching",
    onpointermove: scrub, onpointerdown: scrub, onpointerleave: () => actions.point({}),
  },
  word("mv-label", "Who owns each object, record by record (the number is the query).", 0, 10),
  ...bands, ...names, ...cells,
  title("changed owner", bars), ...scale(bars, rows, 0), ...changes,
  title("total cost", cost), ...scale(cost, signed(most), signed(least)),
  svg("polyline", { class: "mv-cost", points: points.join(" ") }), dot,
  word("mv-label", "training step", 0, axis), ...ticks, hand);

  return {
    element,
    show: (view) => {
      const now = x(view.index) + column / 2;
      change(hand, { transform: `translate(${now} 0)` });
      change(dot, { cx: now, cy: costY(image.cost[view.index]) });
      for (const cell of cells) {
        change(cell, { "data-faded": view.query !== null && view.query !== Number(cell.dataset.query) });
      }
      for (const all of [names, bands]) all.forEach((one, i) => change(one, { "data-pointed": view.object === i }));
    },
  };
}

/** Stretches of records over which an object keeps its owner; `to` is the record after the last. */
function stretches(owners, object) {
  const found = [];
  owners.forEach((row, index) => {
    if (index && row[object] === owners[index - 1][object]) found.at(-1).to = index + 1;
    else found.push({ query: row[object], from: index, to: index + 1 });
  });
  return found;
}

/** The record from which on an object has had the owner it has at `index`. */
function ownedSince(owners, object, index) {
  let from = index;
  while (from > 0 && owners[from - 1][object] === owners[index][object]) from -= 1;
  return from;
}

/** Records whose step is written below: the first, the last, and round numbers as far as there is room. */
function ticksOf(record, column) {
  const room = 12 + 7 * String(record.steps.at(-1)).length;
  const chosen = [];
  for (const i of record.tick_order) if (chosen.every((j) => Math.abs(i - j) * column >= room)) chosen.push(i);
  return chosen;
}

function signed(value) {
  return value.toFixed(1).replace("-", "−");
}

function shortened(text, letters) {
  return text.length > letters ? `${text.slice(0, Math.floor(letters) - 1)}…` : text;
}
