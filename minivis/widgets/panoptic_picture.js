// The picture with its segments: coloured, outlined and named, and pointed at.

const PALE = ["#CCDDAA", "#FFCCCC", "#DDDDDD", "#BBCCEE", "#EEEEBB", "#CCEEFF"]; // Paul Tol's, for grounds
const TINT = { true: 1.15, false: 0.75 }; // of things and of stuff, beside the opacity that is chosen
const TALLEST = 520, WIDE = 768; // CSS pixels of the picture's height; its canvas pixels from left to right
const NAMED = 40; // pixels; smaller segments are named only when looked at

/** A colour for each class: strong ones for things, pale ones for stuff. */
function classColours(isThing) {
  let things = 0, stuff = 0;
  return isThing.map((thing) => (thing ? COLOURS[things++ % 7] : PALE[stuff++ % PALE.length]));
}

function channelsOf(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

/** For each segment of a map a place well inside of it, in fractions of the picture: as far from its edge as there is. */
function middlesOf(ids, count, width, height) {
  const far = new Uint16Array(ids.length), middles = new Int32Array(count + 1).fill(-1);
  for (let p = 0; p < ids.length; p++) {
    const above = p >= width && ids[p - width] === ids[p] ? far[p - width] : 0;
    far[p] = 1 + (p % width > 0 && ids[p - 1] === ids[p] ? Math.min(above, far[p - 1]) : 0);
  }
  for (let p = ids.length - 1; p >= 0; p--) {
    const below = p < ids.length - width && ids[p + width] === ids[p] ? far[p + width] : 0;
    far[p] = Math.min(far[p], 1 + (p % width < width - 1 && ids[p + 1] === ids[p] ? Math.min(below, far[p + 1]) : 0));
    const known = middles[ids[p]];
    if (known < 0 || far[p] > far[known]) middles[ids[p]] = p;
  }
  return Array.from(middles, (p) => [((p % width) + 0.5) / width, (Math.floor(p / width) + 0.5) / height]);
}

/** Lines between pixels that differ, isSame(p, q), as a path of a canvas that is that many times as large. */
function edgesOf(isSame, width, height, [across, down]) {
  const path = new Path2D();
  const lines = (count, length, differs, draw) => { // each as long as it goes on
    for (let i = 1; i < count; i++) {
      for (let start = 0; start < length; start++) {
        let end = start;
        while (end < length && differs(i, end)) end++;
        if (end > start) draw(i, start, end);
        start = end;
      }
    }
  };
  lines(width, height, (x, y) => !isSame(y * width + x - 1, y * width + x), (x, start, end) => {
    path.moveTo(x * across, start * down);
    path.lineTo(x * across, end * down);
  });
  lines(height, width, (y, x) => !isSame((y - 1) * width + x, y * width + x), (y, start, end) => {
    path.moveTo(start * across, y * down);
    path.lineTo(end * across, y * down);
  });
  return path;
}

function areasOf({ ids, segments }) {
  const areas = new Uint32Array(segments.length + 1);
  for (const id of ids) areas[id]++;
  return areas;
}

function strokes(context, path, ...looks) {
  for (const [colour, thickness] of looks) {
    context.strokeStyle = colour;
    context.lineWidth = thickness;
    context.stroke(path);
  }
}

/** actions: { point(place or null), choose(place) }. show(view) draws. */
function panopticPicture({ colours, classNames, isThing }, actions) {
  const canvas = h("canvas", { width: WIDE, height: WIDE }), tags = h("div", { class: "tags" });
  const element = h("div", { class: "picture" }, canvas, tags);
  let view = null;

  const placeAt = (event) => {
    const { left, top, width, height } = canvas.getBoundingClientRect(), { scene, merged } = view;
    const x = Math.floor(((event.clientX - left) / width) * scene.width), y = Math.floor(((event.clientY - top) / height) * scene.height);
    if (x < 0 || y < 0 || x >= scene.width || y >= scene.height) return null;
    const place = merged.winner[y * scene.width + x];
    return place === NOBODY ? null : place;
  };
  element.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") actions.point(placeAt(event)); });
  element.addEventListener("pointerleave", () => actions.point(null));
  element.addEventListener("click", (event) => { const place = placeAt(event); if (place !== null) actions.choose(place); });

  // What stays while one only points: the picture, its segments' colours and outlines.
  const ground = document.createElement("canvas"), overlay = document.createElement("canvas");
  let painted = {};
  function paintGround(map, { scene: { width, height }, image, opacity }, scale) {
    if (painted.map === map && painted.image === image && painted.opacity === opacity) return;
    painted = { map, image, opacity };
    Object.assign(ground, { width: canvas.width, height: canvas.height });
    Object.assign(overlay, { width, height });
    const context = ground.getContext("2d"), ink = new ImageData(width, height), paint = new Uint32Array(ink.data.buffer);
    const paints = map.segments.map(({ label }) => {
      const [r, g, b] = channelsOf(colours[label]), alpha = Math.min(255, Math.round(255 * opacity * TINT[isThing[label]]));
      return new Uint32Array(Uint8Array.of(r, g, b, alpha).buffer)[0];
    });
    for (let p = 0; p < paint.length; p++) if (map.ids[p]) paint[p] = paints[map.ids[p] - 1];
    overlay.getContext("2d").putImageData(ink, 0, 0);
    context.imageSmoothingQuality = "high";
    context.filter = `saturate(${Math.max(0, 1 - 1.7 * opacity)})`; // its own colours would change the segments'
    if (image) context.drawImage(image, 0, 0, ground.width, ground.height);
    context.filter = "none";
    context.imageSmoothingEnabled = false;
    context.drawImage(overlay, 0, 0, ground.width, ground.height);
    context.lineCap = "square";
    const { ids } = map, edges = edgesOf((p, q) => ids[p] === ids[q], width, height, scale);
    strokes(context, edges, ["rgba(20, 20, 30, 0.8)", 4], ["#fff", 2]);
  }

  function show(now) {
    view = now;
    const { scene, merged, hasTruth, place } = now, { width, height } = scene;
    const high = Math.round((WIDE * height) / width), map = hasTruth ? scene.truth : merged;
    if (canvas.height !== high) canvas.height = high;
    element.style.maxWidth = height > width ? `${Math.round((TALLEST * width) / height)}px` : "";
    const context = canvas.getContext("2d"), scale = [canvas.width / width, canvas.height / height];
    paintGround(map, now, scale);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(ground, 0, 0);
    context.lineCap = "square";
    const active = merged.segments.find(({ places }) => places.includes(place));
    if (active) {
      const isActive = (p) => merged.ids[p] === active.id;
      const edges = edgesOf((p, q) => isActive(p) === isActive(q), width, height, scale);
      strokes(context, edges, ["#000", 9], ["#fff", 5]);
    }
    if (place !== null) {
      const [cx, cy, w, h_] = scene.boxes[place], frame = new Path2D();
      frame.rect((cx - w / 2) * canvas.width, (cy - h_ / 2) * canvas.height, w * canvas.width, h_ * canvas.height);
      context.setLineDash([13, 9]);
      strokes(context, frame, ["rgba(0, 0, 0, 0.7)", 6], ["#56B4E9", 3.5]);
      context.setLineDash([]);
    }
    showTags(map, active);
  }

  function showTags(map, active) {
    const { scene, merged, hasTruth, place } = view, { width, height } = scene;
    map.middles ??= middlesOf(map.ids, map.segments.length, width, height);
    map.areas ??= areasOf(map);
    const { quality } = merged, { middles, areas } = map;
    tags.replaceChildren(...map.segments.map(({ label }, i) => {
      const id = i + 1, isActive = !hasTruth && active?.id === id;
      if (areas[id] < NAMED && !isActive) return "";
      const lost = hasTruth ? quality.missed.includes(id) : quality?.wrong.includes(id);
      const words = [classNames[label], isActive && `query ${scene.queries[place]}`, lost && (hasTruth ? "missed" : "wrong")];
      const [x, y] = middles[id];
      return h("span", {
        class: "tag", "data-active": isActive, "data-lost": Boolean(lost),
        style: `left: ${100 * x}%; top: ${100 * y}%; --class: ${colours[label]}`,
      }, words.filter(Boolean).join(" · "));
    }));
  }
  return { element, show };
}
