// What DETR's matching computes: the cost of every query with every object, and who goes with whom.
// Boxes are [centre x, centre y, width, height] in fractions of the picture.

/** parts[query][object] = [−p(class of the object), ‖box − true box‖₁, −GIoU], not yet weighted. */
export function costParts(probabilities, boxes, labels, trueBoxes) {
  return boxes.map((box, query) => trueBoxes.map((trueBox, object) => [
    -probabilities[query][labels[object]],
    box.reduce((sum, value, i) => sum + Math.abs(value - trueBox[i]), 0),
    -generalisedIou(box, trueBox),
  ]));
}

/** The cost matrix: queries × objects. */
export function weighted(parts, weights) {
  return parts.map((row) => row.map((cell) => dot(weights, cell)));
}

export function dot(a, b) {
  return a.reduce((sum, value, i) => sum + value * b[i], 0);
}

/** GIoU = overlap / union − (hull − union) / hull, the hull being the smallest box around both. In −1..1. */
export function generalisedIou(a, b) {
  const overlap = area(overlapOf(corners(a), corners(b))), hull = area(hullOf(corners(a), corners(b)));
  const union = a[2] * a[3] + b[2] * b[3] - overlap;
  const tiny = 1e-14; // in place of an area of zero
  return overlap / Math.max(union, tiny) - (hull - union) / Math.max(hull, tiny);
}

/** [left, top, right, bottom] */
export function corners([x, y, width, height]) {
  return [x - width / 2, y - height / 2, x + width / 2, y + height / 2];
}

/** The smallest box around both, and what both cover; all with their edges. */
export function hullOf(a, b) {
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];
}

function overlapOf(a, b) {
  return [Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])];
}

function area([left, top, right, bottom]) {
  return Math.max(0, right - left) * Math.max(0, bottom - top);
}

export function centred([left, top, right, bottom]) {
  return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top];
}

/**
 * The assignment that costs least: [query, object] pairs, query rising, as many as the shorter side has.
 *
 * Objects come one by one. A new one may push others to another query: the cheapest such chain of moves is a shortest
 * path, found as Dijkstra finds it, since the prices keep every step's cost at 0 or above (Jonker and Volgenant 1987).
 * O(n³).
 */
export function optimal(cost) {
  const queries = cost.length, objects = cost[0]?.length ?? 0;
  if (objects > queries) { // the shorter side comes one by one
    const turned = Array.from({ length: objects }, (_, object) => cost.map((row) => row[object]));
    return optimal(turned).map(([object, query]) => [query, object]).sort(byQuery);
  }
  const owner = new Int32Array(queries).fill(-1); // the object that a query has
  const queryPrice = new Float64Array(queries), objectPrice = new Float64Array(objects);
  for (let arriving = 0; arriving < objects; arriving++) {
    const distance = new Float64Array(queries).fill(Infinity); // of the shortest path to a query
    const before = new Int32Array(queries).fill(-1); // the query before it on that path
    const settled = new Uint8Array(queries);
    let object = arriving, last = -1, soFar = 0;
    do { // one step of Dijkstra: from the object that the query settled last would have to give up
      let nearest = -1;
      for (let query = 0; query < queries; query++) {
        if (settled[query]) continue;
        const length = soFar + cost[query][object] - objectPrice[object] - queryPrice[query];
        if (length < distance[query]) { distance[query] = length; before[query] = last; }
        if (nearest < 0 || distance[query] < distance[nearest]) nearest = query;
      }
      last = nearest;
      settled[last] = 1;
      soFar = distance[last];
      object = owner[last];
    } while (object >= 0); // until a query is free
    objectPrice[arriving] += soFar;
    for (let query = 0; query < queries; query++) {
      if (!settled[query] || query === last) continue;
      objectPrice[owner[query]] += soFar - distance[query];
      queryPrice[query] -= soFar - distance[query];
    }
    while (last >= 0) { // along the path everyone moves on by one
      owner[last] = before[last] >= 0 ? owner[before[last]] : arriving;
      last = before[last];
    }
  }
  return [...owner.keys()].filter((query) => owner[query] >= 0).map((query) => [query, owner[query]]);
}

/** Again and again the cheapest pair that is left; of equally cheap ones the first. Same form as `optimal`. */
export function greedy(cost) {
  const cells = cost.flatMap((row, query) => row.map((value, object) => [value, query, object]));
  cells.sort((a, b) => a[0] - b[0]); // stable: of equals the first stays first
  const queries = new Set(), objects = new Set(), pairs = [];
  for (const [, query, object] of cells) {
    if (queries.has(query) || objects.has(object)) continue;
    queries.add(query);
    objects.add(object);
    pairs.push([query, object]);
  }
  return pairs.sort(byQuery);
}

export function totalCost(cost, pairs) {
  return pairs.reduce((sum, [query, object]) => sum + cost[query][object], 0);
}

function byQuery(a, b) {
  return a[0] - b[0];
}
