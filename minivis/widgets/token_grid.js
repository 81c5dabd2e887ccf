// A grid of tokens on the pixels that it belongs to: cell (row, column) covers `stride` pixels each way, from row · stride
// and column · stride on, and no more than there is of the picture.

const OVERLAY = "255, 218, 68", DEEPEST = 0.9; // the colour of weights, and how opaque the largest is
const DIM = "rgba(12, 14, 28, 0.5)"; // laid over the picture, so that weights stand out
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"]
  .map((colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));

/** A colour for a share of the largest weight, 0 to 1. */
function viridis(share) {
  const place = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1), low = Math.min(Math.floor(place), VIRIDIS.length - 2);
  const mixed = VIRIDIS[low].map((value, i) => Math.round(value + (place - low) * (VIRIDIS[low + 1][i] - value)));
  return `rgb(${mixed.join(", ")})`;
}

/** Makes a canvas as wide as that many CSS pixels, a canvas pixel for each of the screen's. */
function fitCanvas(canvas, width, [pictureHeight, pictureWidth]) {
  const density = window.devicePixelRatio || 1, wide = Math.max(1, Math.floor(width * density));
  const high = Math.max(1, Math.round((wide * pictureHeight) / pictureWidth));
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  Object.assign(canvas.style, { width: `${wide / density}px`, height: `${high / density}px` });
}

/** Where a cell lies on the canvas, in whole canvas pixels: each belongs to the cell that its middle lies in. */
function cellOnCanvas(canvas, cell, { columns, stride, size: [height, width] }) {
  const edge = (place, pixels, length) => Math.ceil((Math.min(place * stride, pixels) / pixels) * length - 0.5);
  const row = Math.floor(cell / columns), column = cell % columns;
  const x = edge(column, width, canvas.width), y = edge(row, height, canvas.height);
  return {
    x, y, width: edge(column + 1, width, canvas.width) - x, height: edge(row + 1, height, canvas.height) - y,
  };
}

/** The cell at a place of the canvas given in fractions of its width and height, or null beside the grid. */
function cellAt(x, y, { rows, columns, stride, size: [height, width] }) {
  const row = Math.floor((y * height) / stride), column = Math.floor((x * width) / stride);
  return row >= 0 && row < rows && column >= 0 && column < columns ? row * columns + column : null;
}

/** The next cell from `cell` on in a direction that is not padding; the cell itself where there is none. */
function nextCell(cell, [down, right], { rows, columns, padding }) {
  let row = Math.floor(cell / columns) + down, column = (cell % columns) + right;
  for (; row >= 0 && row < rows && column >= 0 && column < columns; row += down, column += right) {
    if (!padding[row * columns + column]) return row * columns + column;
  }
  return cell;
}

/** The picture, dimmed, and on it each cell's weight; the more opaque, the larger. */
function paintOverlay(canvas, picture, weights, largest, grid) {
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (picture) context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  context.fillStyle = DIM;
  context.fillRect(0, 0, canvas.width, canvas.height);
  weights.forEach((weight, cell) => {
    if (weight <= 0 || grid.padding[cell]) return;
    const at = cellOnCanvas(canvas, cell, grid);
    context.fillStyle = `rgba(${OVERLAY}, ${DEEPEST * Math.min(weight / largest, 1)})`;
    context.fillRect(at.x, at.y, at.width, at.height);
  });
  hatchPadding(canvas, grid);
}

/** The weights alone, as a small map. */
function paintMap(canvas, weights, largest, grid) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  weights.forEach((weight, cell) => {
    const at = cellOnCanvas(canvas, cell, grid);
    context.fillStyle = viridis(weight / largest);
    context.fillRect(at.x, at.y, at.width, at.height);
  });
  hatchPadding(canvas, grid);
}

/** Cells that are padding: grey, with slanting lines. Nothing is drawn beside them. */
function hatchPadding(canvas, grid) {
  const context = canvas.getContext("2d"), step = Math.max(4, Math.round(canvas.width / 50));
  context.save();
  context.beginPath();
  grid.padding.forEach((isPadding, cell) => {
    if (!isPadding) return;
    const at = cellOnCanvas(canvas, cell, grid);
    context.rect(at.x, at.y, at.width, at.height);
  });
  context.clip();
  context.fillStyle = "#bdbdbd";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.strokeStyle = "#6b6b6b";
  context.beginPath();
  for (let start = -canvas.height; start < canvas.width; start += step) {
    context.moveTo(start, canvas.height);
    context.lineTo(start + canvas.height, 0);
  }
  context.stroke();
  context.restore();
}

/** A frame around pixels (left, top, right, bottom) of the picture. */
function frameOnCanvas(canvas, [left, top, right, bottom], { size: [height, width] }, { colour, line, dash = [] }) {
  const context = canvas.getContext("2d"), wide = canvas.width / width, high = canvas.height / height;
  context.save();
  context.setLineDash(dash);
  for (const [ink, thickness] of [["rgba(0, 0, 0, 0.45)", line + 2], [colour, line]]) {
    context.strokeStyle = ink;
    context.lineWidth = thickness;
    context.strokeRect(left * wide, top * high, (right - left) * wide, (bottom - top) * high);
  }
  context.restore();
}

/** A cell's pixels (left, top, right, bottom), as far as the picture goes. */
function pixelsOf(cell, { columns, stride, size: [height, width] }) {
  const row = Math.floor(cell / columns), column = cell % columns;
  return [
    column * stride, row * stride, Math.min((column + 1) * stride, width), Math.min((row + 1) * stride, height),
  ];
}
