// Attention weights as numbers: where a token looks, how widely, and how much of it lies in a box.

/**
 * The maps of all layers and heads. A row is what one token looks at: bytes from 0 to 255, to be multiplied by the row's
 * largest weight.
 */
function attentionMaps(weights, largest, [layers, heads, tokens]) {
  const bytes = new Uint8Array(weights.buffer, weights.byteOffset, weights.byteLength);
  const maxima = new Float32Array(largest.buffer.slice(largest.byteOffset, largest.byteOffset + largest.byteLength));

  /** A weight for each token, in one head. */
  function ofHead(layer, head, token) {
    const row = (layer * heads + head) * tokens + token, scale = maxima[row] / 255;
    return Float64Array.from(bytes.subarray(row * tokens, (row + 1) * tokens), (byte) => byte * scale);
  }

  /** The mean over all heads. */
  function mean(layer, token) {
    const sum = new Float64Array(tokens);
    for (let head = 0; head < heads; head++) {
      ofHead(layer, head, token).forEach((weight, key) => { sum[key] += weight / heads; });
    }
    return sum;
  }

  return { layers, heads, tokens, ofHead, mean };
}

/** Over how many tokens the weights are spread: e to the power of their entropy. n equal weights give n. */
function spread(weights) {
  const sum = weights.reduce((a, b) => a + b, 0);
  let entropy = 0;
  for (const weight of weights) if (weight > 0) entropy -= (weight / sum) * Math.log(weight / sum);
  return Math.exp(entropy);
}

/** How much of each cell's area lies in a box (left, top, right, bottom), all in pixels. */
function coverage(box, { rows, columns, stride }) {
  const [left, top, right, bottom] = box, part = new Float64Array(rows * columns);
  for (let cell = 0; cell < part.length; cell++) {
    const x = (cell % columns) * stride, y = Math.floor(cell / columns) * stride;
    const width = Math.min(right, x + stride) - Math.max(left, x), height = Math.min(bottom, y + stride) - Math.max(top, y);
    part[cell] = (Math.max(width, 0) * Math.max(height, 0)) / stride ** 2;
  }
  return part;
}

/** The share of the weight on cells, those after `extra` tokens, that lies in a box which covers parts of them. */
function shareInside(weights, covered, extra) {
  let inside = 0, all = 0;
  covered.forEach((part, cell) => {
    inside += part * weights[extra + cell];
    all += weights[extra + cell];
  });
  return all ? inside / all : 0;
}

/** The smallest box that a cell's middle lies in: its index, or −1. */
function boxAround(cell, boxes, { columns, stride }) {
  const x = ((cell % columns) + 0.5) * stride, y = (Math.floor(cell / columns) + 0.5) * stride;
  const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);
  let found = -1;
  boxes.forEach((box, index) => {
    const holds = box[0] <= x && x < box[2] && box[1] <= y && y < box[3];
    if (holds && (found < 0 || area(box) < area(boxes[found]))) found = index;
  });
  return found;
}
