// COCO's average precision of the answers that are left when some queries are dropped. Python has put them in the order
// in which COCO goes through them, class by class, and has computed the overlaps (query_answers.py).

const THRESHOLDS = Array.from({ length: 10 }, (_, i) => 0.5 + i * 0.05);
const RECALLS = Array.from({ length: 101 }, (_, i) => i * 0.01);

/** Bytes as numbers: `numbers(Float32Array, view)`. They are copied, since views need not be aligned. */
function numbers(Kind, { buffer, byteOffset, byteLength }) {
  return new Kind(buffer.slice(byteOffset, byteOffset + byteLength));
}

/** One layer's answers: a function from `isKept` (a boolean for each query) to { ap, ap50 }, fractions. */
export function rankedAnswers({ query, label, start, object, iou }, objects) {
  const queries = numbers(Uint8Array, query), labels = numbers(Uint8Array, label), starts = numbers(Uint32Array, start);
  const things = numbers(Uint16Array, object), overlaps = numbers(Float64Array, iou);
  const taken = new Uint16Array(objects.reduce((sum, count) => sum + count, 0)); // a bit for each threshold
  const end = labels.length;

  /** For each threshold, at which place among the kept answers of a class the right ones come, from 1. */
  function rightOnes(from, to, isKept) {
    const places = THRESHOLDS.map(() => []);
    let place = 0;
    for (let i = from; i < to; i++) {
      if (!isKept[queries[i]]) continue;
      place += 1;
      for (let t = 0; t < THRESHOLDS.length; t++) {
        let best = -1, most = THRESHOLDS[t] - 1e-10;
        for (let j = starts[i]; j < starts[i + 1]; j++) {
          if (overlaps[j] < most || taken[things[j]] & (1 << t)) continue;
          best = things[j];
          most = overlaps[j];
        }
        if (best < 0) continue;
        taken[best] |= 1 << t; // the next answer to this object is a duplicate
        places[t].push(place);
      }
    }
    return places;
  }

  return (isKept) => {
    taken.fill(0);
    const sums = THRESHOLDS.map(() => 0);
    for (let from = 0, to; from < end; from = to) {
      for (to = from; to < end && labels[to] === labels[from]; to++);
      if (objects[labels[from]] === 0) continue;
      rightOnes(from, to, isKept).forEach((places, t) => { sums[t] += areaUnder(places, objects[labels[from]]); });
    }
    const classes = objects.filter((count) => count > 0).length;
    return { ap: sums.reduce((a, b) => a + b, 0) / (classes * THRESHOLDS.length), ap50: sums[0] / classes };
  };
}

/** The mean over 101 recalls of the best precision still to be had. The k-th right answer came at places[k − 1]. */
function areaUnder(places, objects) {
  const best = places.map((place, k) => (k + 1) / place);
  for (let k = best.length - 2; k >= 0; k--) best[k] = Math.max(best[k], best[k + 1]);
  let k = 0, sum = 0;
  for (const recall of RECALLS) {
    while (k < best.length && (k + 1) / objects < recall) k += 1;
    sum += best[k] ?? 0;
  }
  return sum / RECALLS.length;
}
