// Feature maps as numbers and as colours: what Python's `FeatureExplorer` computes, in the browser.

const SHOWN_CHANNELS = 8;
const DIMMED = 0.6; // how dark becomes what does not move the cell

// Nine of viridis's colours, from low to high; between them they are mixed.
const VIRIDIS = [
  [68, 1, 84], [71, 45, 123], [59, 82, 139], [44, 114, 142], [33, 145, 140],
  [40, 174, 128], [94, 201, 98], [173, 220, 48], [253, 231, 37],
];
const VIRIDIS_OF = Array.from({ length: 256 }, (_, byte) => {
  const at = (byte / 255) * (VIRIDIS.length - 1), low = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return VIRIDIS[low].map((value, i) => Math.round(value + (at - low) * (VIRIDIS[low + 1][i] - value)));
});

/** A stage as Python sends it, its bytes readable. Values are bytes / 255 · the channel's maximum. */
function unpackedStage(stage) {
  const bytes = (view) => view && new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  return { ...stage, values: bytes(stage.values), moved: bytes(stage.moved), cells: stage.height * stage.width };
}

function cellAt([x, y], { stride }) {
  return { row: Math.floor(y / stride), column: Math.floor(x / stride) };
}

/** The middle of a cell's patch, or what of it lies in the picture. */
function pointIn({ row, column }, { stride }, [width, height]) {
  const middle = (index, side) => Math.min(index * stride + Math.floor(stride / 2), side - 1);
  return [middle(column, width), middle(row, height)];
}

/** The receptive field: its edges in pixels, which may lie outside of the picture. */
function windowOf({ row, column }, { stride, field }) {
  const half = Math.floor(field / 2), x = column * stride, y = row * stride;
  return { left: x - half, top: y - half, right: x + half + 1, bottom: y + half + 1 };
}

/** How much each block of the picture moves the cell, bytes in rows; null where that was not measured. */
function fieldOf({ row, column }, stage) {
  if (!stage.moved) return null;
  const length = stage.blocks[0] * stage.blocks[1], start = (row * stage.width + column) * length;
  return stage.moved.subarray(start, start + length);
}

/** One channel's map, bytes in rows. */
function channelOf(channel, stage) {
  return stage.values.subarray(channel * stage.cells, (channel + 1) * stage.cells);
}

function valueAt(channel, { row, column }, stage) {
  return channelOf(channel, stage)[row * stage.width + column] / 255 * stage.maxima[channel];
}

/** What channels are ranked by at a cell: their value, or how many standard deviations it lies above their mean. */
function ranksAt(cell, stage, ranking) {
  const here = stage.maxima.map((_, channel) => valueAt(channel, cell, stage));
  if (ranking === "highest") return here;
  stage.moments ??= stage.maxima.map((maximum, channel) => {
    let sum = 0, squares = 0;
    for (const byte of channelOf(channel, stage)) sum += byte;
    const mean = sum / stage.cells;
    for (const byte of channelOf(channel, stage)) squares += (byte - mean) ** 2;
    return { mean: mean / 255 * maximum, spread: Math.sqrt(squares / stage.cells) / 255 * maximum };
  });
  return here.map((value, channel) => {
    const { mean, spread } = stage.moments[channel];
    return spread > 0 ? (value - mean) / spread : 0;
  });
}

function topChannels(ranks) {
  return [...ranks.keys()].sort((a, b) => ranks[b] - ranks[a]).slice(0, SHOWN_CHANNELS);
}

/** Bytes in rows as the pixels of a canvas, colour(byte) = [r, g, b, a]. */
function paint(canvas, bytes, [height, width], colour) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  bytes.forEach((byte, i) => image.data.set(colour(byte), 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const viridis = (byte) => [...VIRIDIS_OF[byte], 255];
const dimming = (byte) => [0, 0, 0, Math.round(255 * DIMMED * (1 - Math.sqrt(byte / 255)))];
