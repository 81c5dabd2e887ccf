// COCO's average precision, as minivis/evaluation/precision_recall.py computes it, and non-maximum suppression.
//
// The rule stands here once: `bestFree` for the object that an answer finds, `atRecalls` for the curve. It serves two forms.
//   images    [{ found: { boxes, labels, scores }, truth: { boxes, labels } }], boxes as [left, top, right, bottom] in any
//             one unit, for what one looks at. An image is not changed once it was asked about: overlaps are computed once.
//   a ranking what Python has put in order, overlaps included (query_answers.py), for thousands of answers in a frame.

const IOU_THRESHOLDS = Array.from({ length: 10 }, (_, i) => (50 + 5 * i) / 100);
const RECALLS = Array.from({ length: 101 }, (_, i) => i * 0.01); // to the last bit NumPy's, which COCO's tools have
const MOST_DETECTIONS = 100; // of an image and class

// The rule

/**
 * Which object an answer finds: of those that nobody has found before the one that it overlaps most, if by `least` or more;
 * −1 if there is none. It meets objects[from] to objects[to − 1], all of its class, with these overlaps.
 */
function bestFree(objects, overlaps, from, to, least, isTaken) {
  let best = -1, most = least;
  for (let i = from; i < to; i++) {
    if (overlaps[i] < most || isTaken(objects[i])) continue;
    best = objects[i];
    most = overlaps[i];
  }
  return best;
}

/** The best precision still to be had at each of the 101 recalls or beyond it; 0 where none reaches so far. */
export function atRecalls({ precision, recall }) {
  const best = [...precision, 0];
  for (let i = precision.length - 2; i >= 0; i--) best[i] = Math.max(best[i], best[i + 1]);
  let place = 0;
  return RECALLS.map((wanted) => {
    while (place < recall.length && recall[place] < wanted) place += 1;
    return best[place];
  });
}

// Of images

export function boxIou(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const overlap = width * height, size = ([left, top, right, bottom]) => (right - left) * (bottom - top);
  return overlap / (size(a) + size(b) - overlap);
}

const meetingsOfImages = new WeakMap();

/** For each detection the objects of its class and the IoU with each. */
function meetingsOf(image) {
  if (!meetingsOfImages.has(image)) {
    const { found, truth } = image;
    meetingsOfImages.set(image, found.boxes.map((box, detection) => {
      const objects = [...truth.labels.keys()].filter((object) => truth.labels[object] === found.labels[detection]);
      return { objects, overlaps: objects.map((object) => boxIou(box, truth.boxes[object])) };
    }));
  }
  return meetingsOfImages.get(image);
}

/** Indices, the surest first; of equally sure ones the first. */
export function surestFirst(scores) {
  return [...scores.keys()].sort((a, b) => scores[b] - scores[a]);
}

/** For each detection the object that it has found at an IoU threshold, or −1. The surest chooses first. */
export function matchDetections(image, iou) {
  const { found, truth } = image, meetings = meetingsOf(image);
  const objectOf = found.scores.map(() => -1), taken = truth.labels.map(() => false);
  for (const detection of surestFirst(found.scores)) {
    const { objects, overlaps } = meetings[detection];
    const object = bestFree(objects, overlaps, 0, objects.length, iou, (each) => taken[each]);
    if (object >= 0) taken[object] = true;
    objectOf[detection] = object;
  }
  return objectOf;
}

/**
 * The curve of one class over all images, the surest detection first:
 * { scores, right, precision, recall, objects }, the first four of one entry a detection.
 */
export function precisionRecall(images, label, iou) {
  return curveOf(images, iou, (each) => each === label, MOST_DETECTIONS);
}

/** The same with the detections of some classes in one list, as a score threshold for all of them meets them. */
export function pooledCurve(images, labels, iou) {
  return curveOf(images, iou, (each) => labels.includes(each), Infinity);
}

function curveOf(images, iou, isWanted, most) {
  let objects = 0;
  const detections = images.flatMap((image) => {
    const objectOf = matchDetections(image, iou), { labels, scores } = image.found;
    objects += image.truth.labels.filter(isWanted).length;
    return surestFirst(scores).filter((i) => isWanted(labels[i])).slice(0, most)
      .map((i) => ({ score: scores[i], right: objectOf[i] >= 0 }));
  });
  const scores = detections.map(({ score }) => score), order = surestFirst(scores);
  const right = order.map((i) => detections[i].right), precision = [], recall = [];
  let hits = 0;
  right.forEach((isRight, i) => {
    hits += isRight;
    precision.push(hits / (i + 1));
    recall.push(hits / Math.max(objects, 1));
  });
  return { scores: order.map((i) => scores[i]), right, precision, recall, objects };
}

/** The classes that there are objects of, rising. */
export function classesIn(images) {
  return [...new Set(images.flatMap(({ truth }) => truth.labels))].sort((a, b) => a - b);
}

/** COCO's AP as a fraction: the mean over IoU thresholds and classes; NaN if there is no object. */
export function averagePrecision(images, ious = IOU_THRESHOLDS, labels = classesIn(images)) {
  const present = new Set(classesIn(images));
  const each = labels.filter((label) => present.has(label))
    .flatMap((label) => ious.map((iou) => mean(atRecalls(precisionRecall(images, label, iou)))));
  return mean(each);
}

// Of a ranking

/**
 * One decoder layer's answers to all images, in the order in which COCO goes through them: class by class, in each the
 * surest first. Answer i overlaps object[start[i]] to object[start[i + 1] − 1], numbered over all images, by iou[…].
 * There are objects[label] of each class. Gives a function from `isKept`, a boolean for each query, to { ap, ap50 }.
 */
export function precisionOfRanking({ query, label, start, object, iou }, objects) {
  const taken = new Uint16Array(objects.reduce((sum, count) => sum + count, 0)); // a bit for each threshold
  const isTaken = IOU_THRESHOLDS.map((_, t) => (each) => taken[each] & (1 << t));

  /** For each threshold the curve of one class, at its right answers only: between them precision just falls. */
  function curves(from, to, isKept) {
    const all = IOU_THRESHOLDS.map(() => ({ precision: [], recall: [] })), there = objects[label[from]];
    let place = 0;
    for (let i = from; i < to; i++) {
      if (!isKept[query[i]]) continue;
      place += 1;
      if (start[i] === start[i + 1]) continue; // it meets nothing
      IOU_THRESHOLDS.forEach((threshold, t) => {
        const found = bestFree(object, iou, start[i], start[i + 1], threshold, isTaken[t]);
        if (found < 0) return;
        taken[found] |= 1 << t; // the next answer to this object is a duplicate
        const right = all[t].recall.length + 1;
        all[t].precision.push(right / place);
        all[t].recall.push(right / there);
      });
    }
    return all;
  }

  return (isKept) => {
    taken.fill(0);
    const each = []; // of each class that there are objects of: AP at each threshold
    for (let from = 0, to; from < label.length; from = to) {
      for (to = from; to < label.length && label[to] === label[from]; to++);
      if (objects[label[from]]) each.push(curves(from, to, isKept).map((curve) => mean(atRecalls(curve))));
    }
    const classes = objects.filter((count) => count > 0).length; // one that nobody says has an AP of 0
    const at = IOU_THRESHOLDS.map((_, t) => each.reduce((sum, values) => sum + values[t], 0) / classes);
    return { ap: mean(at), ap50: at[0] };
  };
}

// Suppression

/**
 * Non-maximum suppression, each class by itself: the indices that are kept, the surest first. A box that overlaps with
 * a surer one that is kept by more than the threshold goes.
 */
export function nonMaximumSuppression({ boxes, labels, scores }, iou) {
  const kept = [];
  for (const i of surestFirst(scores)) {
    if (kept.every((k) => labels[k] !== labels[i] || boxIou(boxes[k], boxes[i]) <= iou)) kept.push(i);
  }
  return kept;
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
