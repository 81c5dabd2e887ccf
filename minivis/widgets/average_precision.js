// COCO's average precision, as minivis/evaluation/precision_recall.py computes it, and non-maximum suppression.
//
// An image is { found: { boxes, labels, scores }, truth: { boxes, labels } }; boxes are [left, top, right, bottom] in
// any one unit. What is inside an image is not changed once it was asked about: overlaps are computed once.

const IOU_THRESHOLDS = Array.from({ length: 10 }, (_, i) => (50 + 5 * i) / 100);
const RECALLS = Array.from({ length: 101 }, (_, i) => i * 0.01); // to the last bit NumPy's, which COCO's tools have
const MOST_DETECTIONS = 100; // of an image and class

export function boxIou(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const overlap = width * height, size = ([left, top, right, bottom]) => (right - left) * (bottom - top);
  return overlap / (size(a) + size(b) - overlap);
}

const overlapsOfImages = new WeakMap();

/** overlaps[detection][object], the IoU of each pair. */
function overlapsOf(image) {
  if (!overlapsOfImages.has(image)) {
    const { found, truth } = image;
    overlapsOfImages.set(image, found.boxes.map((box) => truth.boxes.map((object) => boxIou(box, object))));
  }
  return overlapsOfImages.get(image);
}

/** Indices, the surest first; of equally sure ones the first. */
export function surestFirst(scores) {
  return [...scores.keys()].sort((a, b) => scores[b] - scores[a]);
}

/**
 * For each detection the object that it has found, or −1. The surest chooses first: of its class the object that it
 * overlaps most, of those that nobody has found before and whose IoU is at least the threshold.
 */
export function matchDetections(image, iou) {
  const { found, truth } = image, overlaps = overlapsOf(image);
  const objectOf = found.scores.map(() => -1), taken = truth.labels.map(() => false);
  for (const detection of surestFirst(found.scores)) {
    let best = -1;
    truth.labels.forEach((label, object) => {
      const overlap = overlaps[detection][object];
      if (taken[object] || label !== found.labels[detection] || overlap < iou) return;
      if (best < 0 || overlap >= overlaps[detection][best]) best = object;
    });
    if (best >= 0) taken[best] = true;
    objectOf[detection] = best;
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
