// From masks that overlap to one segment for each pixel, and panoptic quality: what minivis.detr.merge and
// minivis.evaluation.panoptic do in Python.

const SPECK = 4; // pixels; a segment of at most so many is not kept
const NOBODY = -1;

/** A picture as Python sends it (panoptic_answers.py): its masks stretched, its bytes as numbers, its truth as a map. */
export function unpackedScene(scene, classNames, isThing) {
  const [rows, columns] = scene.size, { factor } = scene, [height, width] = [rows * factor, columns * factor];
  const small = numbers(Int16Array, scene.masks), cells = rows * columns;
  const coarse = scene.queries.map((_, i) => small.subarray(i * cells, (i + 1) * cells));
  return {
    ...scene, coarse, height, width, pixels: height * width,
    masks: coarse.map((mask) => stretched(mask, scene.size, factor)),
    isThing: scene.labels.map((label) => isThing[label]),
    names: scene.labels.map((label) => classNames[label]),
    truth: scene.truth && unpackedTruth(scene.truth, height * width),
  };
}

function unpackedTruth({ segments, lengths, places }, pixels) {
  const ids = new Uint8Array(pixels), runs = numbers(Uint32Array, lengths), values = numbers(Uint8Array, places);
  let start = 0;
  runs.forEach((length, i) => { ids.fill(values[i], start, start + length); start += length; });
  return { ids, segments };
}

/**
 * A mask of cells in pixels, `factor` of them each way for a cell, as `F.interpolate(..., mode="bilinear")` has it: times
 * (2 · factor)², so that all are whole numbers and nothing is rounded.
 */
export function stretched(mask, [rows, columns], factor) {
  const whole = 2 * factor;
  const taps = (count) => Array.from({ length: count * factor }, (_, i) => {
    const place = Math.max(2 * i + 1 - factor, 0), low = Math.floor(place / whole); // in parts of a cell, from its middle
    return { low, high: Math.min(low + 1, count - 1), part: place - low * whole };
  });
  const across = taps(columns), down = taps(rows), result = new Int32Array(across.length * down.length);
  let p = 0;
  for (const { low, high, part } of down) {
    for (const x of across) {
      const above = mask[low * columns + x.low] * (whole - x.part) + mask[low * columns + x.high] * x.part;
      const below = mask[high * columns + x.low] * (whole - x.part) + mask[high * columns + x.high] * x.part;
      result[p++] = above * (whole - part) + below * part;
    }
  }
  return result;
}

/** Which of some masks is the surest of each pixel; of equals the first. */
function surest(masks, some, pixels) {
  if (!some.length) return new Int16Array(pixels).fill(NOBODY);
  const winner = new Int16Array(pixels).fill(some[0]), best = masks[some[0]].slice();
  for (const place of some.slice(1)) {
    const mask = masks[place];
    for (let p = 0; p < pixels; p++) if (mask[p] > best[p]) { best[p] = mask[p]; winner[p] = place; }
  }
  return winner;
}

/** In how many pixels one of some masks has a logit above 0. */
function claimed(masks, some, pixels) {
  const [first, ...rest] = some, mask = rest.length ? masks[first].slice() : masks[first];
  for (const place of rest) for (let p = 0; p < pixels; p++) if (masks[place][p] > 0) mask[p] = 1;
  let count = 0;
  for (let p = 0; p < pixels; p++) if (mask[p] > 0) count++;
  return count;
}

/**
 * The first decision among the masks that are sure enough: who wins each pixel, and of each segment how many pixels it
 * has (`area`), how many its masks say are its own (`own`), and how many of those it wins (`won`). `owner`: the first
 * mask of its segment; masks of one stuff class are one.
 */
export function firstDecision({ masks, labels, isThing, pixels }, sure) {
  const winner = surest(masks, sure, pixels), first = new Map(), owner = new Int16Array(masks.length).fill(NOBODY);
  const groups = new Map(), area = new Uint32Array(masks.length), won = new Uint32Array(masks.length);
  for (const place of sure) {
    if (!isThing[place] && !first.has(labels[place])) first.set(labels[place], place);
    owner[place] = isThing[place] ? place : first.get(labels[place]);
    groups.set(owner[place], [...(groups.get(owner[place]) ?? []), place]);
  }
  for (let p = 0; sure.length && p < pixels; p++) {
    const group = owner[winner[p]];
    area[group]++;
    if (masks[winner[p]][p] > 0) won[group]++; // if any mask of a segment claims the pixel, then the surest of all does
  }
  const sizes = new Map([...groups].map(([group, members]) => (
    [group, { area: area[group], won: won[group], own: claimed(masks, members, pixels) }])));
  return { sure, winner, owner, sizes };
}

/** The owners of segments that are removed, and why: specks, and those that win too little of their own. */
export function removed({ sizes }, { speck = SPECK, overlap = 0 } = {}) {
  const gone = new Map();
  for (const [group, { area, own, won }] of sizes) {
    if (area <= speck) gone.set(group, "speck");
    else if (overlap > 0 && won < overlap * own) gone.set(group, "overlap");
  }
  return gone;
}

/**
 * What is left when the `gone` are removed: their pixels are decided again among the rest.
 *
 * Returns `ids`, each pixel's segment, 0 for void; `segments` in the order of their ids, from 1 on; `winner`, each pixel's
 * mask; and what it was made from.
 */
export function mergedFrom(scene, first, gone) {
  const { pixels } = scene;
  const left = first.sure.filter((place) => !gone.has(first.owner[place]));
  const winner = gone.size ? surest(scene.masks, left, pixels) : first.winner;
  const count = new Uint32Array(scene.masks.length), members = new Map();
  if (left.length) for (let p = 0; p < pixels; p++) count[winner[p]]++;
  for (const place of left) {
    const group = first.owner[place];
    if (count[place]) members.set(group, [...(members.get(group) ?? []), place]);
  }
  const idOf = new Uint8Array(scene.masks.length), ids = new Uint8Array(pixels);
  const segments = [...members].sort(([a], [b]) => a - b).map(([group, places], i) => {
    for (const place of left) if (first.owner[place] === group) idOf[place] = i + 1;
    return {
      id: i + 1, label: scene.labels[group], isThing: scene.isThing[group], places, owner: group,
      score: Math.max(...places.map((place) => scene.scores[place])),
      pixels: places.reduce((sum, place) => sum + count[place], 0),
    };
  });
  if (left.length) for (let p = 0; p < pixels; p++) ids[p] = idOf[winner[p]];
  return { ids, segments, winner, first, gone };
}

/** A picture's segments for any thresholds. What a threshold does not change is kept from the last time. */
export function mergerOf(scene) {
  let first = null, key = null, result = null;
  return (score, overlap) => {
    const sure = [...scene.scores.keys()].filter((place) => scene.scores[place] > score);
    if (String(first?.sure) !== String(sure)) {
      first = firstDecision(scene, sure);
      key = null;
    }
    const gone = removed(first, { overlap });
    if (key !== String([...gone.keys()])) {
      key = String([...gone.keys()]);
      result = mergedFrom(scene, first, gone);
      if (scene.truth) result.quality = qualityOf(result, scene.truth);
    }
    return result;
  };
}

// Panoptic quality

/**
 * What matches in one picture: `pairs` of a found and a true segment of one class with an IoU above ½, the ids of the
 * found ones that are `wrong` and of the true ones that were `missed`.
 */
export function qualityOf(found, truth) {
  const [m, n] = [found.segments.length + 1, truth.segments.length + 1], overlap = new Uint32Array(m * n);
  for (let p = 0; p < found.ids.length; p++) overlap[truth.ids[p] * m + found.ids[p]]++;
  const both = (t, f) => overlap[t * m + f], range = (count) => [...Array(count).keys()];
  const foundArea = range(m).map((f) => range(n).reduce((sum, t) => sum + both(t, f), 0));
  const trueArea = range(n).map((t) => range(m).reduce((sum, f) => sum + both(t, f), 0));
  const pairs = [], partner = new Set(), reached = new Set();
  truth.segments.forEach((target, i) => found.segments.forEach(({ label }, j) => {
    const [t, f] = [i + 1, j + 1];
    if (target.crowd || target.label !== label || !both(t, f)) return;
    const union = trueArea[t] + foundArea[f] - both(t, f) - both(0, f); // what is void may be called what one likes
    if (both(t, f) > 0.5 * union) {
      pairs.push({ found: f, true: t, label, iou: both(t, f) / union });
      partner.add(f);
      reached.add(t);
    }
  }));
  const wrong = range(m).slice(1).filter((f) => {
    const { label } = found.segments[f - 1];
    const crowds = truth.segments.reduce((sum, s, i) => sum + (s.crowd && s.label === label ? both(i + 1, f) : 0), 0);
    return !partner.has(f) && both(0, f) + crowds <= 0.5 * foundArea[f];
  });
  const missed = range(n).slice(1).filter((t) => !reached.has(t) && !truth.segments[t - 1].crowd);
  return {
    pairs, wrong, missed,
    wrongLabels: wrong.map((f) => found.segments[f - 1].label), missedLabels: missed.map((t) => truth.segments[t - 1].label),
  };
}

/** PQ, SQ and RQ over pictures: of all classes that occur, of things and of stuff; and how many are `right` and so on. */
export function panopticQuality(pictures, isThing) {
  const counts = isThing.map(() => ({ iou: 0, tp: 0, fp: 0, fn: 0 }));
  for (const { pairs, wrongLabels, missedLabels } of pictures) {
    for (const { label, iou } of pairs) { counts[label].iou += iou; counts[label].tp++; }
    for (const label of wrongLabels) counts[label].fp++;
    for (const label of missedLabels) counts[label].fn++;
  }
  const of = (belongs) => {
    const own = counts.filter(({ tp, fp, fn }, label) => tp + fp + fn > 0 && belongs(label));
    const mean = (value) => own.reduce((sum, one) => sum + value(one), 0) / own.length; // NaN where there is none
    const sum = (key) => own.reduce((all, one) => all + one[key], 0);
    const sq = ({ iou, tp }) => (tp ? iou / tp : 0), rq = ({ tp, fp, fn }) => tp / (tp + fp / 2 + fn / 2);
    return {
      PQ: mean((one) => sq(one) * rq(one)), SQ: mean(sq), RQ: mean(rq), right: sum("tp"), wrong: sum("fp"), missed: sum("fn"),
    };
  };
  return { all: of(() => true), things: of((label) => isThing[label]), stuff: of((label) => !isThing[label]) };
}
