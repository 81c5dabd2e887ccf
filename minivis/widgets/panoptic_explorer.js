// PanopticExplorer: which picture and query are looked at, and the two thresholds. Merging and PQ are in panoptic_merge.js,
// the picture in panoptic_picture.js, what is said of one query in panoptic_detail.js.

const SETTLED = 700; // milliseconds without a change, after which one who does not see is told

export default {
  render({ model, el }) {
    const classNames = model.get("class_names"), isThing = model.get("is_thing"), colours = classColours(isThing);
    const raw = model.get("scenes"), isKnown = raw[0].truth !== null;
    const once = (compute) => { let value; return () => (value ??= compute()); };
    const scenes = raw.map((scene) => once(() => unpackedScene(scene, classNames, isThing)));
    const mergers = scenes.map((scene) => once(() => mergerOf(scene())));
    const images = raw.map((scene) => once(() => pictureOf(scene, () => redraw())));

    const redraw = oncePerFrame(draw);
    const changing = ["scene", "query", "score", "overlap", "truth"];
    const { state, set, tell, leave } = sharedState(model, changing, redraw), start = { ...state };
    const seen = { opacity: 0.55, pointed: null }; // pointed: a place in the list of the picture's queries
    const actions = {
      point: (place) => { if (seen.pointed !== place) { seen.pointed = place; redraw(); } },
      choose: (place) => { seen.pointed = null; set("query", scenes[state.scene]().queries[place]); },
      step(by) {
        const order = bySureness(scenes[state.scene]()), at = order.indexOf(chosenPlace());
        if (order.length) actions.choose(order[(at + by + order.length) % order.length]);
      },
      turn(by) {
        seen.pointed = null;
        set("scene", (state.scene + by + raw.length) % raw.length);
        set("query", -1);
      },
      setTruth: (on) => set("truth", on),
      setScore: (to) => set("score", to),
      setOverlap: (to) => set("overlap", to),
      setOpacity: (to) => { seen.opacity = to; redraw(); },
      reset: () => { set("score", start.score); set("overlap", start.overlap); },
    };
    const chosenPlace = () => {
      const { queries, scores } = scenes[state.scene]();
      const place = queries.indexOf(state.query);
      return place >= 0 ? place : queries.length ? scores.indexOf(Math.max(...scores)) : null;
    };

    const top = topBar(raw, isKnown, actions), picture = panopticPicture({ colours, classNames, isThing }, actions);
    const thresholds = thresholdPanel(state, actions), sum = qualityPanel(isKnown, raw.length), list = queryList(colours, actions);
    const heads = raw.find(({ shares }) => shares.length)?.shares[0].length ?? 0, detail = queryDetail(heads, raw[0].cells);
    const parts = [top, picture, thresholds, sum, list, detail];
    const news = h("div", { class: "unseen", "aria-live": "polite" });
    const root = keepKeys(h("div", {
      class: "mv mv-panoptic-explorer", "data-widget": "panoptic-explorer", tabindex: 0, role: "group",
      "aria-label": "Panoptic segmentation. Left and right choose a query, up and down a picture, t shows what is true.",
      onkeydown: (event) => answerKey(event, actions, state, isKnown),
    },
    h("div", { class: "panes" },
      h("div", { class: "left" }, top.element, picture.element, lookBar(seen, actions)),
      h("div", { class: "right" }, thresholds.element, sum.element, list.element)),
    detail.element, news,
    h("p", { class: "mv-note keys" }, "Keys (click the picture first): ← → query",
      raw.length > 1 ? ", ↑ ↓ picture" : "", isKnown ? ", t what is true" : "", ".")));

    let waiting, before = null; // PQ of all pictures at the thresholds of the start
    function draw() {
      const scene = scenes[state.scene](), merged = mergers[state.scene]()(state.score, state.overlap);
      const place = seen.pointed ?? chosenPlace();
      const qualities = isKnown ? mergers.map((merger) => merger()(state.score, state.overlap).quality) : null;
      const quality = qualities && {
        here: panopticQuality([qualities[state.scene]], isThing).all, ...panopticQuality(qualities, isThing),
      };
      before ??= quality && { score: state.score, overlap: state.overlap, PQ: quality.all.PQ };
      const view = {
        ...state, ...seen, scene, merged, place, quality, before, hasTruth: isKnown && state.truth, image: images[state.scene]().ready,
      };
      for (const part of parts) part.show(view);
      change(root, {
        "data-scene": state.scene, "data-query": place === null ? "" : scene.queries[place], "data-score": state.score,
        "data-overlap": state.overlap, "data-truth": view.hasTruth, "data-pointed": seen.pointed !== null,
        "data-segments": JSON.stringify(merged.segments.map(({ label, places, pixels }) => (
          [label, places.map((at) => scene.queries[at]), pixels]))),
        "data-fate": place === null ? "" : fateOf(place, view).kind,
        ...(quality && {
          "data-pq": quality.all.PQ.toFixed(6), "data-pq-here": quality.here.PQ.toFixed(6), "data-pq-things": quality.things.PQ.toFixed(6),
          "data-pq-stuff": quality.stuff.PQ.toFixed(6), "data-sq": quality.all.SQ.toFixed(6), "data-rq": quality.all.RQ.toFixed(6),
          "data-counts": [quality.all.right, quality.all.wrong, quality.all.missed].join(" "),
        }),
      });
      tell();
      clearTimeout(waiting);
      waiting = setTimeout(() => { news.textContent = inWords(view); }, SETTLED);
    }

    draw();
    el.replaceChildren(root);
    return () => {
      clearTimeout(waiting);
      for (const image of images) URL.revokeObjectURL(image().url);
      leave();
    };
  },
};

/** A picture that is there a moment later: { url, ready }, ready the image or null. */
function pictureOf({ picture }, loaded) {
  const url = URL.createObjectURL(new Blob([picture], { type: "image/png" })), image = new Image(), held = { url, ready: null };
  image.onload = () => { held.ready = image; loaded(); };
  image.src = url;
  return held;
}

function inWords({ scene, merged, place, quality, hasTruth, ...view }) {
  const count = merged.segments.length, query = place === null ? "" : ` Query ${scene.queries[place]}: ${scene.names[place]}. `
    + fateOf(place, { scene, merged, ...view }).long;
  const found = `${count} segment${count === 1 ? "" : "s"} found${quality ? `, PQ of all ${quality.all.PQ.toFixed(3)}` : ""}.`;
  return `${hasTruth ? "What is true is seen. " : ""}${found}${query}`;
}

/** Places of a picture's queries, the surest first. */
function bySureness({ scores }) {
  return [...scores.keys()].sort((a, b) => scores[b] - scores[a] || a - b);
}

function answerKey(event, actions, state, isKnown) {
  if (["SELECT", "INPUT"].includes(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  const answer = {
    ArrowLeft: () => actions.step(-1), ArrowRight: () => actions.step(1),
    ArrowUp: () => actions.turn(-1), ArrowDown: () => actions.turn(1),
    t: () => isKnown && actions.setTruth(!state.truth),
  }[event.key];
  if (!answer) return;
  event.preventDefault();
  answer();
}

/** Which picture, and whether what is found or what is true. */
function topBar(scenes, isKnown, actions) {
  const select = h("select", { "aria-label": "picture" }, ...scenes.map(({ name }, i) => h("option", { value: i }, name)));
  let at = 0;
  select.addEventListener("change", () => actions.turn(Number(select.value) - at));
  const side = (text, on) => h("button", { type: "button", class: "side", onclick: () => actions.setTruth(on) }, text);
  const found = side("found", false), truth = side("true", true);
  const arrow = (text, label, by) => (
    h("button", { type: "button", class: "mv-button", "aria-label": label, onclick: () => actions.turn(by) }, text));
  const element = h("div", { class: "top" }, scenes.length > 1
    ? h("div", { class: "turner" }, arrow("‹", "previous picture", -1), select, arrow("›", "next picture", 1))
    : h("b", {}, scenes[0].name),
    isKnown ? h("div", { class: "sides", role: "group", "aria-label": "segments" }, found, truth) : null);
  return {
    element,
    show: ({ scene: now, hasTruth }) => {
      at = scenes.findIndex(({ name }) => name === now.name);
      select.value = at;
      change(found, { "aria-pressed": !hasTruth });
      change(truth, { "aria-pressed": hasTruth });
    },
  };
}

function lookBar(seen, actions) {
  const opacity = slider({ label: "colours", min: 0, max: 1, step: 0.05, value: seen.opacity, digits: 2, changed: actions.setOpacity });
  const kinds = { "of-chosen": "the segment that is looked at", "of-box": "its query's box" };
  return h("div", { class: "look" }, opacity,
    h("p", { class: "legend" }, ...Object.entries(kinds).map(([kind, text]) => h("span", {}, h("i", { class: kind }), text))));
}

function thresholdPanel(state, actions) {
  const line = (label, value, changed) => slider({ label, min: 0, max: 1, step: 0.01, value, digits: 2, changed });
  const score = line("score above", state.score, actions.setScore), overlap = line("overlap at least", state.overlap, actions.setOverlap);
  const element = h("div", { class: "thresholds" },
    h("div", { class: "title" }, h("b", {}, "Thresholds"), h("button", { type: "button", class: "mv-button", onclick: actions.reset }, "Reset")),
    score, overlap,
    h("p", { class: "mv-note" }, "Score: of a query, to take part. Overlap: the share of its own mask that a segment must win to stay; "
      + "DETR asks for 0."));
  return { element, show: ({ score: now, overlap: part }) => { score.set(now); overlap.set(part); } };
}

/** PQ = SQ · RQ of this picture, and of all that are shown. */
function qualityPanel(isKnown, count) {
  const rows = { here: "this picture", ...(count > 1 && { all: `all ${count} pictures`, things: "– things", stuff: "– stuff" }) };
  const columns = ["PQ", "SQ", "RQ", "right", "wrong", "missed"], moved = h("span", { class: "mv-note" });
  const cells = Object.fromEntries(Object.keys(rows).map((row) => [row, columns.map(() => h("td", {}))]));
  const element = h("div", { class: "quality" }, !isKnown
    ? h("p", { class: "mv-note" }, "What is true is not known of this picture, so there is no PQ.")
    : h("div", {}, h("div", { class: "title" }, h("b", {}, "Panoptic quality"), moved),
      h("table", {}, h("thead", {}, h("tr", {}, h("th", {}), ...columns.map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, ...Object.entries(rows).map(([row, name]) => (
          h("tr", { "data-row": row }, h("th", { scope: "row" }, name), ...cells[row])))))));
  function show({ quality, before, score, overlap }) {
    if (!quality) return;
    for (const [row, own] of Object.entries(cells)) {
      columns.forEach((name, i) => {
        const value = quality[row][name];
        own[i].textContent = i >= 3 ? value : Number.isNaN(value) ? "–" : value.toFixed(3);
        if (name === "PQ") own[i].style.setProperty("--part", Number.isNaN(value) ? 0 : value);
      });
    }
    const gain = quality.all.PQ - before.PQ, isStart = score === before.score && overlap === before.overlap;
    const sign = gain < -0.0005 ? "−" : gain > 0.0005 ? "+" : "±";
    moved.textContent = isStart || count === 1 ? "" : `PQ ${sign}${Math.abs(gain).toFixed(3)} since the start`;
  }
  return { element, show };
}

/** The queries that have a mask, a button each: what they say, and what became of it. */
function queryList(colours, actions) {
  const title = h("b", {}), note = h("span", { class: "mv-note" }), chips = h("div", { class: "chips" });
  let shown = null, buttons = [];
  function fill(scene) {
    shown = scene;
    buttons = bySureness(scene).map((place) => {
      const words = h("small", {}), button = h("button", {
        type: "button", class: "chip", tabindex: -1, "data-query": scene.queries[place],
        style: `--class: ${colours[scene.labels[place]]}`, onclick: () => actions.choose(place),
        onpointerenter: () => actions.point(place), onpointerleave: () => actions.point(null),
      }, h("i", {}), h("b", {}, scene.queries[place]), h("span", {}, scene.names[place]), words);
      return { place, button, words };
    });
    chips.replaceChildren(...buttons.map(({ button }) => button));
  }
  return {
    element: h("div", { class: "list" }, h("div", { class: "title" }, title, note), chips),
    show: (view) => {
      const { scene, merged, place: chosen } = view;
      if (shown !== scene) fill(scene);
      const count = merged.segments.length;
      title.textContent = `${count} segment${count === 1 ? "" : "s"} from ${scene.queries.length} queries`;
      note.textContent = scene.queries.length ? "the surest first" : "no query is sure of an object";
      for (const { place, button, words } of buttons) {
        const { kind, short, long } = fateOf(place, view), percent = Math.round(100 * scene.scores[place]);
        words.textContent = kind === "segment" || kind === "unsure" ? percent : short;
        change(button, {
          "data-fate": kind, "aria-pressed": place === chosen, title: long,
          "aria-label": `query ${scene.queries[place]}: ${scene.names[place]}, ${percent} %${short ? `, ${short}` : ""}`,
        });
      }
    },
  };
}
