// Two charts: precision over recall, and AP at each of the ten IoU thresholds.

const CHART = { left: 52, top: 12, width: 278, height: 200 }; // of the curve's field, in units of its viewBox

function curveChart() {
  const x = (recall) => CHART.left + CHART.width * recall;
  const y = (precision) => CHART.top + CHART.height * (1 - precision);
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  const grid = ticks.flatMap((at) => [
    svg("line", { class: "grid", x1: x(at), x2: x(at), y1: y(0), y2: y(1) }),
    svg("line", { class: "grid", x1: x(0), x2: x(1), y1: y(at), y2: y(at) }),
    svg("text", { x: x(at), y: y(0) + 15, "text-anchor": "middle" }, String(at)),
    svg("text", { x: x(0) - 6, y: y(at) + 4, "text-anchor": "end" }, String(at)),
  ]);
  const [area, line, zigzag] = ["area", "curve", "zigzag"].map((name) => svg("path", { class: name }));
  const classes = svg("g", {}), point = svg("circle", { class: "point", r: 6 });
  const element = svg("svg", { class: "chart", viewBox: "0 0 340 250", role: "img" },
    ...grid, svg("text", { x: x(0.5), y: y(0) + 32, "text-anchor": "middle" }, "recall: right / objects there"),
    svg("text", { x: 0, y: 0, transform: `translate(11 ${y(0.5)}) rotate(-90)`, "text-anchor": "middle" },
      "precision: right / found"),
    classes, area, zigzag, line, point);
  const path = (points) => points.map(([recall, precision], i) =>
    `${i ? "L" : "M"}${x(recall).toFixed(1)} ${y(precision).toFixed(1)}`).join("");
  const sampled = (values) => values.map((value, i) => [i / (values.length - 1), value]);

  /**
   * curves: of the wanted classes; pooled: all their detections in one list; at: { precision, recall } of the score
   * threshold, a point of that list, NaN where there is none.
   */
  function show(curves, pooled, at) {
    const each = curves.map(atRecalls), average = RECALLS.map((_, i) => mean(each.map((values) => values[i])));
    classes.replaceChildren(...(each.length > 1
      ? each.map((values) => svg("path", { class: "one-class", d: path(sampled(values)) })) : []));
    const isThere = each.length > 0;
    line.setAttribute("d", isThere ? path(sampled(average)) : "");
    area.setAttribute("d", isThere ? `${path(sampled(average))}L${x(1)} ${y(0)}L${x(0)} ${y(0)}Z` : "");
    zigzag.setAttribute("d", path(pooled.objects ? pooled.recall.map((r, i) => [r, pooled.precision[i]]) : []));
    const isDefined = Number.isFinite(at.precision) && Number.isFinite(at.recall);
    point.style.display = isDefined ? "" : "none";
    if (isDefined) change(point, { cx: x(at.recall), cy: y(at.precision) });
    const here = `precision ${percent(at.precision)}, recall ${percent(at.recall)}`;
    change(element, { "aria-label": `precision over recall; at this score ${here}` });
  }
  return { element, show };
}

/** A bar for each IoU threshold; pressing one chooses it. */
function thresholdBars({ choose }) {
  const bars = IOU_THRESHOLDS.map((iou) => {
    const fill = h("i", {}), number = h("span", {});
    const bar = h("button", { class: "bar", tabindex: -1, onclick: () => choose(iou) },
      h("b", {}, iou.toFixed(2)), h("span", { class: "rail" }, fill), number);
    return { iou, bar, fill, number };
  });
  const whole = h("div", { class: "whole" });
  const element = h("div", { class: "bars" }, h("div", { class: "mv-note" }, "AP at each IoU threshold"),
    ...bars.map(({ bar }) => bar), whole);
  function show(values, chosen) {
    bars.forEach(({ iou, bar, fill, number }, i) => {
      bar.classList.toggle("chosen", iou === chosen);
      fill.style.width = `${100 * (values[i] || 0)}%`;
      number.textContent = percent(values[i]);
      change(bar, { "aria-label": `IoU ${iou.toFixed(2)}: AP ${percent(values[i])}` });
    });
    whole.textContent = `AP, their mean: ${percent(mean(values))}`;
  }
  return { element, show };
}

function percent(value) {
  return Number.isFinite(value) ? value.toFixed(2) : "–";
}
