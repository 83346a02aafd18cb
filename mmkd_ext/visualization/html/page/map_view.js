// Geometry and drawing of the map: where each image lies on the canvas, what is near, and its mark.

const numColours = 8;
const cellSize = 24;
const margin = 14;

/** Colours repeat after eight classes, with another shape. */
const colourIndex = (cls) => (cls - numKnown) % numColours;
const shapeIndex = (cls) => (isNovel(cls) ? Math.floor((cls - numKnown) / numColours) % 3 : 0);

function markPath(cls, radius) {
  const r = radius.toFixed(2);
  if (shapeIndex(cls) === 1) return `M-${r} -${r}H${r}V${r}H-${r}Z`;
  if (shapeIndex(cls) === 2) return `M0 -${r}L${r} ${r}H-${r}Z`;
  return `M-${r} 0A${r} ${r} 0 1 1 ${r} 0A${r} ${r} 0 1 1 -${r} 0Z`;
}

/** What part of the map is seen: zoom >= 1, and the middle in the unit square. */
const camera = { zoom: 1, x: 0.5, y: 0.5 };
let grid = new Map();
let places = [];

function moveCamera(zoom, x, y) {
  camera.zoom = Math.min(40, Math.max(1, zoom));
  const half = 0.5 / camera.zoom;
  camera.x = Math.min(1 - half, Math.max(half, x));
  camera.y = Math.min(1 - half, Math.max(half, y));
}

/** Place the unit square in the middle of the canvas, as large as fits, and sort the images into a grid of cells. */
function placeImages(width, height) {
  const scale = (Math.min(width, height) - 2 * margin) * camera.zoom;
  places = data.points.map(([x, y]) => [width / 2 + (x - camera.x) * scale, height / 2 + (y - camera.y) * scale]);
  grid = new Map();
  places.forEach(([x, y], image) => {
    if (x < 0 || y < 0 || x > width || y > height) return;
    const key = cellKey(Math.floor(x / cellSize), Math.floor(y / cellSize));
    if (grid.has(key)) grid.get(key).push(image);
    else grid.set(key, [image]);
  });
  return scale;
}

const cellKey = (column, row) => row * 100000 + column;

/** The image nearest to a place on the canvas, at most one cell away; undefined if there is none. */
function nearestImage(x, y) {
  const [column, row] = [Math.floor(x / cellSize), Math.floor(y / cellSize)];
  let best;
  let bestSquare = cellSize * cellSize;
  for (let i = column - 1; i <= column + 1; i++) {
    for (let j = row - 1; j <= row + 1; j++) {
      for (const image of grid.get(cellKey(i, j)) ?? []) {
        const square = (places[image][0] - x) ** 2 + (places[image][1] - y) ** 2;
        if (square < bestSquare) [best, bestSquare] = [image, square];
      }
    }
  }
  return best;
}

/** The nearest image in a direction, within 45 degrees of it; undefined at the edge. */
function neighbourImage(image, [dx, dy]) {
  const [x, y] = places[image];
  let best;
  let bestSquare = Infinity;
  for (let other = 0; other < places.length; other++) {
    const [u, v] = [places[other][0] - x, places[other][1] - y];
    const along = u * dx + v * dy;
    const square = u * u + v * v;
    if (along > 0 && along * along * 2 >= square && square < bestSquare) [best, bestSquare] = [other, square];
  }
  return best;
}

function drawMap(context, width, height, highlighted) {
  const style = getComputedStyle(document.documentElement);
  const colours = Array.from({ length: numColours }, (_, index) => style.getPropertyValue(`--class-${index}`));
  const radius = Math.min(5, Math.max(2.2, 160 / Math.sqrt(places.length))) * Math.min(2, Math.sqrt(camera.zoom));
  context.clearRect(0, 0, width, height);
  const byClass = new Map(liveClasses().map((cls) => [cls, []]));
  view.classOf.forEach((cls, image) => byClass.get(cls).push(image));
  for (const [cls, images] of byClass) {
    const isFaint = highlighted !== null && highlighted !== cls && (highlighted !== 'known' || isNovel(cls));
    context.globalAlpha = isFaint ? 0.1 : 0.85;
    context.fillStyle = context.strokeStyle = isNovel(cls)
      ? colours[colourIndex(cls)]
      : style.getPropertyValue('--muted');
    drawMarks(
      context,
      images,
      new Path2D(markPath(cls, isNovel(cls) ? radius : radius * 0.7)),
      isNovel(cls),
      width,
      height,
    );
  }
}

function drawMarks(context, images, mark, isFilled, width, height) {
  for (const image of images) {
    const [x, y] = places[image];
    if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
    context.translate(x, y);
    if (isFilled) context.fill(mark);
    else context.stroke(mark);
    context.translate(-x, -y);
  }
}
