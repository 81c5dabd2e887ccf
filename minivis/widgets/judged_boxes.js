// A picture with its detections judged: right, wrong, and objects that were missed.

const RIGHT = "#0072B2", WRONG = "#D55E00", MISSED = "#E69F00"; // Okabe and Ito's; a mark and dashes say it as well

const NAMED = 0.05; // a box with a lower score says its name only under the pointer: hundreds of names cover each other

function judgedBoxes({ pictures, names }) {
  const sources = pictures.map((picture) => URL.createObjectURL(new Blob([picture])));
  const image = h("img", { alt: "", draggable: "false" });
  const overlay = svg("svg", { class: "overlay", role: "img" });
  const caption = h("figcaption", {});
  const element = h("figure", {}, h("div", { class: "picture" }, image, overlay), caption);

  /** judged: { detections: [{ box, label, score, isRight }], missed: [{ box, label }] }, the surest first. */
  function show(index, { detections, missed }) {
    if (image.getAttribute("src") !== sources[index]) image.src = sources[index];
    const boxes = [
      ...missed.map(({ box, label }) => judgedBox(box, MISSED, `missed ${names[label]}`, "missed")),
      ...[...detections].reverse().map(({ box, label, score, isRight }) => judgedBox(
        box, isRight ? RIGHT : WRONG, `${isRight ? "✓" : "✗"} ${names[label]} ${score.toFixed(2)}`,
        `${isRight ? "right" : "wrong"}${score < NAMED ? " hesitant" : ""}`)),
    ];
    overlay.replaceChildren(...boxes);
    const right = detections.filter(({ isRight }) => isRight).length;
    const words = `${right} right, ${detections.length - right} wrong, ${missed.length} missed`;
    change(overlay, { "aria-label": words });
    caption.replaceChildren(
      h("span", { class: "key right" }, `✓ ${right} right`), h("span", { class: "key wrong" },
        `✗ ${detections.length - right} wrong`), h("span", { class: "key missed" }, `${missed.length} missed`),
      h("span", { class: "mv-note" }, "in this picture"));
  }
  return { element, show, free: () => sources.forEach((source) => URL.revokeObjectURL(source)) };
}

function judgedBox([left, top, right, bottom], colour, text, kind) {
  const place = {
    x: `${100 * left}%`, y: `${100 * top}%`,
    width: `${100 * Math.max(0, right - left)}%`, height: `${100 * Math.max(0, bottom - top)}%`,
  };
  const tagWidth = 9 + 5.8 * text.length;
  const isMissed = kind === "missed"; // its name stands below, where that of a wrong box beside it does not hide it
  const above = isMissed ? bottom > 0.94 : top >= 0.06;
  const tag = svg("svg", { class: "tag", x: place.x, y: `${100 * (isMissed ? bottom : top)}%` },
    svg("rect", { x: 0, y: above ? -15 : 0, width: tagWidth, height: 15, fill: colour }),
    svg("text", { x: 4, y: above ? -3.5 : 11.5, fill: isMissed ? "#000" : "#fff" }, text));
  return svg("g", { class: `judged ${kind}` }, svg("rect", { class: "halo", ...place }),
    svg("rect", { class: "frame", stroke: colour, ...place }), tag);
}
