// FeatureExplorer: point at a cell of a feature map. The mathematics is in feature_maps.js.

const SETTLED = 700; // milliseconds without a change, after which one who does not see is told
const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }; // rows, columns

export { cellAt, windowOf, ranksAt, topChannels, unpackedStage };

export default {
  render({ model, el }) {
    const stages = model.get("stages").map(unpackedStage);
    const source = URL.createObjectURL(new Blob([model.get("picture")], { type: "image/png" }));
    const [height, width] = model.get("size"), size = [width, height]; // in the model's own pixels

    // `point` is what was chosen; `hovered`, while the pointer is there, is what is looked at. Channels likewise.
    const redraw = oncePerFrame(draw);
    const { state, set, tell, leave } = sharedState(model, ["level", "point", "ranking"], redraw);
    // `before` is the point that was chosen before this one: what channels are compared with, see `comparedAt`.
    const looked = { hovered: null, channel: null, kept: null, before: null };
    const look = (name, value) => { looked[name] = value; redraw(); };
    const choose = (point) => {
      if (String(point) !== String(state.point)) looked.before = state.point;
      looked.hovered = null;
      set("point", point);
    };
    const release = () => { looked.channel = null; look("kept", null); };

    const controls = controlBar(stages, {
      setLevel: (level) => { Object.assign(looked, { channel: null, kept: null, before: null }); set("level", level); },
      setRanking: (ranking) => set("ranking", ranking),
    });
    const picture = pictureView(source, size, {
      hover: (point) => look("hovered", point),
      choose,
      move([rows, columns]) {
        const stage = stages[state.level], { row, column } = cellAt(state.point, stage);
        const within = (index, count) => Math.max(0, Math.min(count - 1, index));
        const cell = { row: within(row + rows, stage.height), column: within(column + columns, stage.width) };
        choose(pointIn(cell, stage, size));
      },
    });
    const tiles = tileGrid({
      hover: (channel) => look("channel", channel),
      keep: (channel) => look("kept", looked.kept === channel ? null : channel),
      release,
    });
    const facts = factSheet();
    const news = h("div", { class: "unseen", "aria-live": "polite" });
    const root = keepKeys(h("div", {
      class: "mv mv-feature-explorer", "data-widget": "feature-explorer",
      onkeydown: (event) => { if (event.key === "Escape") release(); },
    }, controls.element,
    h("div", { class: "panes" }, picture.element, h("div", {}, facts.element, tiles.element)), news));

    function view() {
      const stage = stages[state.level], cell = cellAt(looked.hovered ?? state.point, stage);
      const ranks = ranksAt(cell, stage, state.ranking);
      const channel = looked.channel ?? looked.kept;
      const channels = topChannels(ranks), compared = comparedAt(cell, stage);
      const fresh = compared ? channels.filter((one) => !compared.includes(one)) : [];
      return { ...state, stage, size, cell, ranks, channels, compared, fresh, channel, kept: looked.kept };
    }

    /** The highest channels of the cell one compares with: the chosen one while another is pointed at, else the one before. */
    function comparedAt(cell, stage) {
      const [here, before] = [state.point, looked.before].map((point) => point && cellAt(point, stage));
      const other = here.row === cell.row && here.column === cell.column ? before : here;
      return other && topChannels(ranksAt(other, stage, state.ranking));
    }

    function draw() {
      const now = view(), index = now.cell.row * now.stage.width + now.cell.column;
      for (const part of [controls, picture, facts, tiles]) part.show(now);
      change(root, {
        "data-level": now.level, "data-ranking": now.ranking, "data-cell": `${now.cell.row},${now.cell.column}`,
        "data-point": state.point.join(","), "data-channels": JSON.stringify(now.channels),
        "data-channel": now.channel, "data-kept": now.kept, "data-fresh": JSON.stringify(now.fresh), "data-half": now.stage.half?.[index], "data-outside": now.stage.outside?.[index],
        "data-window": Object.values(windowOf(now.cell, now.stage)).join(" "),
      });
      tellOnceSettled(now);
      tell();
    }

    let told = null, waiting;
    function tellOnceSettled({ cell, stage, channels }) {
      const words = `Stride ${stage.stride}, row ${cell.row}, column ${cell.column}: channels ${channels.slice(0, 3).join(", ")}.`;
      told ??= words; // nothing at the beginning
      clearTimeout(waiting);
      waiting = setTimeout(() => { if (words !== told) news.textContent = told = words; }, SETTLED);
    }

    draw();
    el.replaceChildren(root);
    return () => {
      clearTimeout(waiting);
      URL.revokeObjectURL(source);
      leave();
    };
  },
};

function controlBar(stages, { setLevel, setRanking }) {
  const group = (name, label, options, changed) => {
    const inputs = options.map(([value, text]) => ({
      value, text, radio: h("input", { type: "radio", name, value, onchange: () => changed(value) }),
    }));
    const element = h("div", { class: "choice", role: "radiogroup", "aria-label": label }, h("b", {}, label),
      ...inputs.map(({ radio, text }) => h("label", {}, radio, text)));
    return { element, select: (value) => inputs.forEach((input) => { input.radio.checked = input.value === value; }) };
  };
  const unique = Math.random();
  const sizes = stages.map(({ stride, height, width }, i) => [i, `${stride} (${height}×${width} cells)`]);
  const level = group(`level-${unique}`, "stride", sizes, setLevel);
  const words = { highest: "highest value", "stands out": "how far they stand out" };
  const ranking = group(`ranking-${unique}`, "channels by", Object.entries(words), setRanking);
  return {
    element: h("div", { class: "controls" }, level.element, ranking.element),
    show: (now) => { level.select(now.level); ranking.select(now.ranking); },
  };
}

/** The picture, what is dimmed in it or which channel lies over it, the grid and the frames. */
function pictureView(source, [width, height], { hover, choose, move }) {
  const dim = h("canvas", { class: "dim" }), map = h("canvas", { class: "map" });
  const frame = (kind) => svg("g", { class: kind }, svg("rect", { class: "halo" }), svg("rect", {}));
  const grid = svg("path", { class: "grid" }), beyond = svg("path", { class: "beyond", "fill-rule": "evenodd" });
  const [field, patch] = [frame("field"), frame("patch")];
  const overlay = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" },
    beyond, grid, field, patch);
  const stack = h("div", {
    class: "picture", tabindex: 0, role: "application", style: `aspect-ratio: ${width} / ${height}`,
    onkeydown(event) {
      if (!MOVES[event.key]) return;
      event.preventDefault();
      move(MOVES[event.key]);
    },
  }, h("img", { src: source, alt: "", draggable: "false" }), dim, map, overlay);
  const pointAt = (event) => {
    const box = stack.getBoundingClientRect();
    const within = (part, side) => Math.max(0, Math.min(side - 1, Math.floor(part * side)));
    return [within((event.clientX - box.left) / box.width, width), within((event.clientY - box.top) / box.height, height)];
  };
  stack.addEventListener("pointermove", (event) => hover(pointAt(event)));
  stack.addEventListener("pointerleave", () => hover(null));
  stack.addEventListener("pointerdown", (event) => choose(pointAt(event)));
  const key = (kind, text) => h("span", { class: `key ${kind}` }, text), dark = key("dark", "");
  const element = h("figure", {}, stack, h("figcaption", { class: "mv-note" },
    key("patch", "the cell's patch"), key("field", "receptive field"), dark,
    h("div", {}, "Point at a cell; click to stay with it. By keyboard: Tab, arrows.")));

  function show({ stage, cell, channel }) {
    const edges = windowOf(cell, stage), bytes = fieldOf(cell, stage);
    const seen = {
      left: Math.max(edges.left, 0), top: Math.max(edges.top, 0),
      right: Math.min(edges.right, width), bottom: Math.min(edges.bottom, height),
    };
    const { stride } = stage, [x, y] = [cell.column * stride, cell.row * stride];
    put(field, seen);
    put(patch, { left: x, top: y, right: Math.min(x + stride, width), bottom: Math.min(y + stride, height) });
    const hasMap = channel !== null;
    dim.hidden = hasMap || !bytes;
    map.hidden = !hasMap;
    beyond.style.display = hasMap || bytes ? "none" : "";
    dark.hidden = hasMap;
    dark.textContent = bytes ? "moves it less" : "out of its reach";
    if (hasMap) {
      paint(map, channelOf(channel, stage), [stage.height, stage.width], viridis);
      // The last cells of a map may reach beyond the picture.
      Object.assign(map.style, {
        width: `${(100 * stride * stage.width) / width}%`, height: `${(100 * stride * stage.height) / height}%`,
      });
    } else if (bytes) {
      paint(dim, bytes, stage.blocks, dimming);
    } else {
      const { left, top, right, bottom } = seen;
      change(beyond, { d: `M0 0H${width}V${height}H0Z M${left} ${top}H${right}V${bottom}H${left}Z` });
    }
    const lines = (count, line) => Array.from({ length: count - 1 }, (_, i) => line((i + 1) * stride)).join("");
    const d = lines(stage.width, (at) => `M${at} 0V${height}`) + lines(stage.height, (at) => `M0 ${at}H${width}`);
    if (grid.getAttribute("d") !== d) change(grid, { d });
    stack.classList.toggle("fine", stage.cells > 32 * 32);
    change(stack, {
      "aria-label": `feature map of stride ${stride}, row ${cell.row}, column ${cell.column}; arrows move to another cell`,
    });
  }
  return { element, show };
}

function put(frame, { left, top, right, bottom }) {
  for (const rect of frame.children) {
    change(rect, { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) });
  }
}

/** What is known of the cell, in words. */
function factSheet() {
  const title = h("b", {}), reach = h("p", {}), moved = h("p", { class: "mv-note" });
  const element = h("div", { class: "facts" }, title, reach, moved);
  function show({ stage, cell, size }) {
    const { field, stride } = stage, index = cell.row * stage.width + cell.column;
    title.textContent = `Row ${cell.row}, column ${cell.column}: ${stage.maxima.length} numbers`;
    const { left, top, right, bottom } = windowOf(cell, stage), [width, height] = size;
    const [down, along] = [Math.min(bottom, height) - Math.max(top, 0), Math.min(right, width) - Math.max(left, 0)];
    const coversAll = down === height && along === width;
    const inPicture = coversAll ? ": all of the picture" : `, ${down} × ${along} of it in the picture`;
    reach.textContent = `Patch ${stride} × ${stride} pixels, receptive field ${field} × ${field}`
      + (down < field || along < field ? `${inPicture}.` : ".");
    const outside = coversAll ? "" : `; ${percent(stage.outside?.[index])} lies outside of the field`;
    moved.textContent = stage.moved
      ? `Half of what moves it lies in ${stage.half[index]} of the picture's ${width * height} pixels${outside}.`
      : `Not measured: what moves a cell, since this map has ${stage.cells} of them. The light square is what the convolutions reach.`;
  }
  return { element, show };
}

function percent(share) {
  return share > 0 && share < 0.01 ? "under 1 %" : `${Math.round(100 * share)} %`;
}

/** The channels that rank highest, each as a small map with the cell marked. */
function tileGrid({ hover, keep, release }) {
  const tiles = Array.from({ length: SHOWN_CHANNELS }, () => {
    const canvas = h("canvas", {}), mark = h("i", {}), name = h("span", {});
    const badge = h("em", {}, "new");
    const channel = () => Number(element.dataset.channel);
    const element = h("button", {
      class: "tile", type: "button",
      onpointerenter: () => hover(channel()), onpointerleave: () => hover(null),
      onfocus: () => hover(channel()), onblur: () => hover(null), onclick: () => keep(channel()),
    }, h("span", { class: "thumb" }, canvas, mark), badge, name);
    return { element, canvas, mark, name, badge };
  });
  const scale = h("p", { class: "scale mv-note" }, "0", h("i", {}), "the channel's largest value in this picture");
  const unit = h("p", { class: "mv-note" }, "σ: standard deviations above the channel's mean over this picture.");
  const hint = h("p", { class: "mv-note" }, "Point at a channel to lay it over the picture; click to keep it there.");
  const letGo = h("button", { class: "release", type: "button", onclick: release });
  const news = h("p", { class: "mv-note" });
  const element = h("div", {}, h("div", { class: "tiles" }, ...tiles.map((tile) => tile.element)), scale, unit, news,
    hint, letGo);

  function show({ stage, cell, channels, compared, fresh, ranks, ranking, channel: over, kept }) {
    unit.hidden = ranking === "highest";
    news.textContent = compared
      ? `${fresh.length} of these ${channels.length} were not among the highest of the cell you came from.`
      : "Click on a cell, then point at another: channels that are new are marked.";
    hint.hidden = kept !== null;
    letGo.hidden = kept === null;
    if (kept !== null) {
      letGo.textContent = `Kept: channel ${kept}, here ${valueAt(kept, cell, stage).toFixed(1)}. Esc or click here to let go.`;
    }
    tiles.forEach(({ element: tile, canvas, mark, name, badge }, i) => {
      const channel = channels[i];
      tile.hidden = channel === undefined; // of a map with fewer channels
      if (tile.hidden) return;
      paint(canvas, channelOf(channel, stage), [stage.height, stage.width], viridis);
      const value = valueAt(channel, cell, stage);
      name.textContent = ranking === "highest" ? `${channel}: ${value.toFixed(1)}` : `${channel}: +${ranks[channel].toFixed(1)}σ`;
      change(tile, {
        "data-channel": channel, "data-value": value.toFixed(6), "aria-pressed": channel === kept,
        "aria-label": `channel ${channel}, value ${value.toFixed(1)}${fresh.includes(channel) ? ", new" : ""}`,
      });
      badge.hidden = !fresh.includes(channel);
      tile.classList.toggle("over", channel === over);
      Object.assign(mark.style, {
        left: `${(100 * cell.column) / stage.width}%`, top: `${(100 * cell.row) / stage.height}%`,
        width: `${100 / stage.width}%`, height: `${100 / stage.height}%`,
      });
    });
  }
  return { element, show };
}
