// The picture with its segments: coloured, outlined and named, and pointed at.

const PALE = ["#CCDDAA", "#FFCCCC", "#DDDDDD", "#BBCCEE", "#EEEEBB", "#CCEEFF"]; // Paul Tol's, for grounds
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
  const far = new Uint16Array(ids.length), middles = Array.from({ length: count + 1 }, () => null);
  const beside = (p, step, there) => (there && ids[p + step] === ids[p] ? far[p + step] : 0);
  for (let p = 0; p < ids.length; p++) far[p] = 1 + Math.min(beside(p, -width, p >= width), beside(p, -1, p % width > 0));
  for (let p = ids.length - 1; p >= 0; p--) {
    far[p] = Math.min(far[p], 1 + Math.min(beside(p, width, p < ids.length - width), beside(p, 1, p % width < width - 1)));
    const known = middles[ids[p]];
    if (!known || far[p] > far[known]) middles[ids[p]] = p;
  }
  return middles.map((p) => p !== null && [((p % width) + 0.5) / width, (Math.floor(p / width) + 0.5) / height]);
}

/** Lines between pixels whose values differ, as a path of a canvas that is that many times as large. */
function edgesOf(values, width, height, [across, down]) {
  const path = new Path2D();
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const p = y * width + x;
      if (x + 1 < width && values[p] !== values[p + 1]) {
        path.moveTo((x + 1) * across, y * down);
        path.lineTo((x + 1) * across, (y + 1) * down);
      }
      if (y + 1 < height && values[p] !== values[p + width]) {
        path.moveTo(x * across, (y + 1) * down);
        path.lineTo((x + 1) * across, (y + 1) * down);
      }
    }
  }
  return path;
}

/** actions: { point(place or null), choose(place) }. show(view) draws. */
function panopticPicture(colours, classNames, actions) {
  const canvas = h("canvas", { width: 512, height: 512 }), tags = h("div", { class: "tags" }), overlay = document.createElement("canvas");
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

  function show(now) {
    view = now;
    const { scene, merged, hasTruth, image, opacity, place } = now, { width, height } = scene;
    const map = hasTruth ? scene.truth : merged, scale = [canvas.width / width, (canvas.height = Math.round((canvas.width * height) / width)) / height];
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (image) context.drawImage(image, 0, 0, canvas.width, canvas.height);

    Object.assign(overlay, { width, height });
    const ink = new ImageData(width, height), paints = map.segments.map(({ label }) => channelsOf(colours[label]));
    map.ids.forEach((id, p) => { if (id) ink.data.set([...paints[id - 1], 255 * opacity], 4 * p); });
    overlay.getContext("2d").putImageData(ink, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(overlay, 0, 0, canvas.width, canvas.height);

    const line = (path, ...strokes) => {
      for (const [colour, thickness] of strokes) {
        context.strokeStyle = colour;
        context.lineWidth = thickness;
        context.stroke(path);
      }
    };
    context.lineCap = "square";
    line(edgesOf(map.ids, width, height, scale), ["rgba(20, 20, 30, 0.85)", 3.5], ["#fff", 1.8]);
    const active = merged.segments.find(({ places }) => places.includes(place));
    if (active) {
      const own = merged.ids.map((id) => id === active.id);
      line(edgesOf(own, width, height, scale), ["#000", 8], ["#fff", 4.5]);
    }
    if (place !== null) {
      const [cx, cy, w, h_] = scene.boxes[place];
      context.setLineDash([9, 6]);
      const frame = new Path2D();
      frame.rect((cx - w / 2) * canvas.width, (cy - h_ / 2) * canvas.height, w * canvas.width, h_ * canvas.height);
      line(frame, ["rgba(0, 0, 0, 0.7)", 4.5], ["#56B4E9", 2.5]);
      context.setLineDash([]);
    }
    showTags(map, active);
  }

  function showTags(map, active) {
    const { scene, merged, hasTruth, place } = view, { width, height } = scene;
    const middles = middlesOf(map.ids, map.segments.length, width, height), area = new Uint32Array(map.segments.length + 1);
    for (const id of map.ids) area[id]++;
    const quality = merged.quality;
    tags.replaceChildren(...map.segments.map(({ label }, i) => {
      const id = i + 1, isActive = !hasTruth && active?.id === id;
      if (!middles[id] || (area[id] < NAMED && !isActive)) return "";
      const lost = hasTruth ? quality.missed.includes(id) : quality?.wrong.includes(id);
      const words = `${classNames[label]}${isActive ? ` · query ${scene.queries[place]}` : ""}${lost ? (hasTruth ? " · missed" : " · wrong") : ""}`;
      const [x, y] = middles[id];
      return h("span", {
        class: "tag", "data-active": isActive, "data-lost": Boolean(lost),
        style: `left: ${100 * x}%; top: ${100 * y}%; --class: ${colours[label]}`,
      }, words);
    }));
  }
  return { element, show };
}
