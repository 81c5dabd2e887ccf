// A picture with its true boxes, dashed, each joined to the box of the query that owns it.

const GREY = "#9A9A9A"; // of queries that have no colour of their own
const NOBODY = -1; // owns an object that no query was left for

/** True boxes, dashed; the boxes of their owners, joined to them; and faintly the boxes of all other queries. */
function pictureOf(image, room, actions) {
  const shape = image.size[1] / image.size[0];
  const width = Math.round(Math.min(room < 520 ? room : room * 0.44, 400, 400 / shape));
  const height = Math.round(width * shape);
  const place = ([left, top, right, bottom]) => ({
    x: left * width, y: top * height, width: (right - left) * width, height: (bottom - top) * height,
  });
  const centre = ([left, top, right, bottom]) => [((left + right) / 2) * width, ((top + bottom) / 2) * height];
  const pointing = (at) => ({ onpointerenter: () => actions.point(at), onpointerleave: () => actions.point({}) });

  const others = image.boxes[0].map((_, query) => svg("rect", { class: "mv-other", "data-query": query }));
  const truths = image.true_boxes.map((box, object) => svg("g", { "data-object": object },
    svg("rect", { class: "mv-shade", ...place(box) }), svg("rect", { class: "mv-truth", ...place(box) })));
  const owned = image.true_boxes.map((box, object) => ownerOf(object, centre(box), place, centre));
  const tags = tagsOf(image, width, height, place);

  // What the pointer finds: an area is an object, the smallest on top; an outline is a query's box.
  const size = ([left, top, right, bottom]) => (right - left) * (bottom - top);
  const areas = image.true_boxes.map((box, object) => ({ box, object })).sort((a, b) => size(b.box) - size(a.box))
    .map(({ box, object }) => svg("rect", {
      class: "mv-area", "data-object": object, ...place(box), ...pointing({ object }),
    }));
  const outlines = others.map((_, query) => svg("rect", { class: "mv-outline", ...pointing({ query }) }));

  const element = svg("svg", {
    class: "mv-picture", width, height, role: "img", "aria-label": "the picture with true and predicted boxes",
  }, svg("image", { href: image.picture, width, height, preserveAspectRatio: "none" }),
  ...others, ...truths, ...owned.map((one) => one.element), ...tags.map((tag) => tag.element), ...areas, ...outlines);

  return {
    element,
    show: (view) => {
      const boxes = image.boxes[view.index];
      boxes.forEach((box, query) => {
        const owns = view.owners.includes(query);
        change(others[query], { ...place(box), "data-owns": owns, "data-pointed": query === view.query });
        change(outlines[query], place(box));
      });
      view.owners.forEach((query, object) => {
        const look = { query, colour: colourOf(image, query), faded: isFaded(view, object, query) };
        owned[object].show(look, boxes[query]);
        tags[object].show(look);
        change(truths[object], { "data-faded": look.faded });
      });
    },
  };
}

/** The box of the query that owns an object, and a line from the object's centre to its own. */
function ownerOf(object, [x1, y1], place, centre) {
  const boxShade = svg("rect", { class: "mv-shade" });
  const box = svg("rect", { class: "mv-owner", "data-object": object });
  const lineShade = svg("line", { class: "mv-shade", x1, y1 });
  const line = svg("line", { class: "mv-link", x1, y1 });
  const dot = svg("circle", { class: "mv-dot", cx: x1, cy: y1, r: 3.5 });
  const element = svg("g", {}, boxShade, box, lineShade, line, dot);
  return {
    element,
    show: ({ query, colour, faded }, corners) => {
      change(element, { display: query === NOBODY ? "none" : null, "data-faded": faded });
      if (query === NOBODY) return;
      const [x2, y2] = centre(corners);
      for (const rect of [boxShade, box]) change(rect, place(corners));
      for (const one of [lineShade, line]) change(one, { x2, y2 });
      const exact = corners.map((value) => value.toFixed(4)).join(" ");
      change(box, { stroke: colour, "data-query": query, "data-box": exact });
      change(line, { stroke: colour });
      change(dot, { fill: colour });
    },
  };
}

/** At each true box a tag that stays in its place: the object's number, and that of its owner on the owner's colour. */
function tagsOf(image, width, height, place) {
  const taken = [];
  const left = 9 + 7 * String(image.names.length).length;
  const right = 16 + 7 * String(image.queries - 1).length;
  return image.true_boxes.map((box, object) => {
    const { x, y } = freeSpot(place(box), { width: left + right, height: 18 }, { width, height }, taken);
    const chip = svg("rect", { x: x + left, y, width: right, height: 18 });
    const text = svg("text", { x: x + left + right / 2, y: y + 13 });
    const element = svg("g", { class: "mv-tag" },
      svg("rect", { class: "mv-tag-object", x, y, width: left, height: 18 }),
      svg("text", { class: "mv-tag-number", x: x + left / 2, y: y + 13 }, object + 1), chip, text);
    return {
      element,
      show: ({ query, colour, faded }) => {
        change(element, { "data-faded": faded });
        change(chip, { fill: colour });
        change(text, { fill: inkOn(colour) });
        text.textContent = query === NOBODY ? "–" : `q${query}`;
      },
    };
  });
}

/** Above a box, below it, or inside: where a tag of a size lies in the picture and covers earlier tags least. */
function freeSpot(box, { width, height }, picture, taken) {
  const [left, right] = [box.x, box.x + box.width - width];
  const [above, below] = [box.y - height, box.y + box.height];
  const wishes = [[left, above], [left, below], [right, above], [right, below], [left, box.y], [left, below - height]];
  const spots = wishes.map(([x, y]) => ({
    x: Math.max(0, Math.min(x, picture.width - width)), y: Math.max(0, Math.min(y, picture.height - height)),
  }));
  const overlap = (a, b) => Math.max(0, width - Math.abs(a.x - b.x)) * Math.max(0, height - Math.abs(a.y - b.y));
  const covered = (spot) => taken.reduce((sum, other) => sum + overlap(spot, other), 0);
  const best = spots.reduce((a, b) => (covered(b) < covered(a) ? b : a));
  taken.push(best);
  return best;
}

/** Whether something is singled out, and it is not this. */
function isFaded(view, object, query) {
  return (view.object !== null && view.object !== object) || (view.query !== null && view.query !== query);
}

function colourOf(image, query) {
  return query === NOBODY ? "transparent" : image.colours[query] ?? GREY;
}

/** Black or white, whichever is easier to read on a colour. */
function inkOn(colour) {
  if (colour === "transparent") return "currentColor";
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  return 0.299 * r + 0.587 * g + 0.114 * b > 100 ? "#000" : "#fff";
}
