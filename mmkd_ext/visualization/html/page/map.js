// The map as a person uses it: pointer, touch, keyboard, zoom and legend.

const canvas = byId('map-canvas');
const arrows = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
let mapScale = 1;
let current;
let highlighted = null;
let dragStart = null;

function renderMap() {
  if (!data.points || !data.points.length) return;
  byId('map').hidden = false;
  if (highlighted !== 'known' && !isLiveClass(highlighted)) highlighted = null;
  renderLegend();
  redrawMap();
}

function redrawMap() {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext('2d');
  context.scale(ratio, ratio);
  // A finger scrolls the page, unless there is a map to move.
  canvas.style.touchAction = camera.zoom > 1 ? 'none' : 'pan-y';
  mapScale = placeImages(width, height);
  drawMap(context, width, height, highlighted);
  point(current);
}

/** Show which image is meant: a ring around its mark, and its picture beside it. */
function point(image) {
  current = image;
  const [ring, tip] = [byId('map-ring'), byId('map-tip')];
  const place = image === undefined ? null : places[image];
  const isSeen =
    place && place[0] >= 0 && place[1] >= 0 && place[0] <= canvas.clientWidth && place[1] <= canvas.clientHeight;
  ring.hidden = tip.hidden = !isSeen;
  canvas.style.cursor = isSeen ? 'pointer' : '';
  if (!isSeen) return;
  ring.style.translate = `${place[0]}px ${place[1]}px`;
  const known = labelled.has(image) ? 'labelled' : `${percent(confidence[image])} certain`;
  tip.replaceChildren(
    element('span', { class: 'frame' }, thumbnail(image)),
    element('span', {}, nameElement(view.names[view.classOf[image]])),
    element('span', { class: 'facts' }, known),
  );
  const left = besides(place[0], tip.offsetWidth, canvas.clientWidth);
  const top = besides(place[1], tip.offsetHeight, canvas.clientHeight);
  tip.style.translate = `${left}px ${top}px`;
}

/** Where a box of some size starts so that it lies after a place, or before it if it would leave the canvas. */
function besides(place, size, end) {
  return place + size + 16 > end ? Math.max(0, place - size - 12) : place + 12;
}

function zoomTo(zoom) {
  const [x, y] = current === undefined ? [camera.x, camera.y] : data.points[current];
  moveCamera(zoom, x, y);
  redrawMap();
}

function onMapKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in arrows) {
    const next = current === undefined ? nearestToMiddle() : neighbourImage(current, arrows[event.key]);
    if (next !== undefined) goToImage(next);
  } else if (event.key === 'Enter' && current !== undefined) openImage(current, [current]);
  else if (event.key === '+') zoomTo(camera.zoom * 1.5);
  else if (event.key === '-') zoomTo(camera.zoom / 1.5);
  else if (event.key === '0') zoomTo(1);
  else return;
  event.preventDefault();
}

function nearestToMiddle() {
  const square = ([x, y]) => (x - camera.x) ** 2 + (y - camera.y) ** 2;
  return data.points.reduce((best, place, image) => (square(place) < square(data.points[best]) ? image : best), 0);
}

function goToImage(image) {
  current = image;
  const [x, y] = places[image];
  if (x < 0 || y < 0 || x > canvas.clientWidth || y > canvas.clientHeight) zoomTo(camera.zoom);
  else point(image);
  announce(
    labelled.has(image)
      ? `${visible(data.paths[image])}, labelled ${visible(view.names[view.classOf[image]])}`
      : tileLabel(image),
  );
}

function onMapPointer(event) {
  if (dragStart) dragStart.isMoved ||= Math.hypot(event.clientX - dragStart.left, event.clientY - dragStart.top) > 4;
  if (dragStart && camera.zoom > 1) {
    moveCamera(camera.zoom, dragStart.x - event.clientX / mapScale, dragStart.y - event.clientY / mapScale);
    redrawMap();
  } else point(nearestImage(event.offsetX, event.offsetY));
}

function startDrag(event) {
  dragStart = {
    x: camera.x + event.clientX / mapScale,
    y: camera.y + event.clientY / mapScale,
    left: event.clientX,
    top: event.clientY,
    // A finger has not hovered before it taps: its first tap shows, the second one opens.
    wasCurrent: event.pointerType === 'mouse' || nearestImage(event.offsetX, event.offsetY) === current,
  };
  if (camera.zoom > 1) canvas.setPointerCapture(event.pointerId);
}

function endDrag(event) {
  const wasTap = dragStart && !dragStart.isMoved;
  const opens = dragStart?.wasCurrent;
  dragStart = null;
  if (!wasTap) return;
  point(nearestImage(event.offsetX, event.offsetY));
  if (opens && current !== undefined) openImage(current, [current]);
}

/** A finger leaves with every tap; what it has shown stays. */
function onMapLeave(event) {
  if (event.pointerType === 'mouse' && !dragStart && document.activeElement !== canvas) point(undefined);
}

function highlight(value) {
  highlighted = highlighted === value ? null : value;
  for (const chip of byId('legend').children)
    chip.setAttribute('aria-pressed', String(chip.dataset.value === String(highlighted)));
  redrawMap();
}

function legendChip(value, ...content) {
  const pressed = { 'aria-pressed': String(highlighted === value), 'data-value': value };
  return element('button', { type: 'button', class: 'chip', onclick: () => highlight(value), ...pressed }, ...content);
}

function renderLegend() {
  const chips = liveClasses()
    .filter(isNovel)
    .map((cls) => legendChip(cls, swatch(cls), nameElement(view.names[cls])));
  if (numKnown) chips.push(legendChip('known', swatch(0), 'known classes'));
  byId('legend').replaceChildren(...chips);
}

function listenToMap() {
  canvas.addEventListener('keydown', onMapKey);
  canvas.addEventListener('pointermove', onMapPointer);
  canvas.addEventListener('pointerdown', startDrag);
  canvas.addEventListener('pointerup', endDrag);
  canvas.addEventListener('pointercancel', () => {
    dragStart = null;
  });
  canvas.addEventListener('pointerleave', onMapLeave);
  canvas.addEventListener('blur', () => point(undefined));
  byId('zoom-in').addEventListener('click', () => zoomTo(camera.zoom * 1.5));
  byId('zoom-out').addEventListener('click', () => zoomTo(camera.zoom / 1.5));
  byId('zoom-reset').addEventListener('click', () => zoomTo(1));
  new ResizeObserver(redrawMap).observe(canvas);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redrawMap);
}
