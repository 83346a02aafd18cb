// Thumbnails lie in sheets of many, which are decoded when the first of them is shown.

const { side, columns, cells, sizes } = data.thumbnails;
const perSheet = columns * columns;
const sheetUrls = [];

function sheetUrl(index) {
  if (!sheetUrls[index]) {
    const binary = atob(byId(`sheet-${index}`).textContent);
    const bytes = Uint8Array.from(binary, (sign) => sign.charCodeAt(0));
    sheetUrls[index] = URL.createObjectURL(new Blob([bytes], { type: 'image/webp' }));
  }
  return sheetUrls[index];
}

/** The picture of an image, as large as its parent allows. Decorative: the text beside it says what it is. */
function thumbnail(image) {
  const [width, height] = sizes[image];
  if (!width) return element('span', { class: 'thumbnail missing', title: 'This picture could not be read' }, '?');
  const picture = element('span', { class: `thumbnail ${width >= height ? 'wide' : 'tall'}` });
  const cell = cells[image] % perSheet;
  const sheet = Math.floor(cells[image] / perSheet);
  const rows = Math.ceil(Math.min(perSheet, cells.length - sheet * perSheet) / columns);
  // Percentages follow the size of the element. Half a pixel less on each edge keeps the neighbours out.
  const [x, y] = [(cell % columns) * side + 0.5, Math.floor(cell / columns) * side + 0.5];
  const [shownWidth, shownHeight] = [Math.max(width - 1, 0.5), Math.max(height - 1, 0.5)];
  const [sheetWidth, sheetHeight] = [columns * side, rows * side];
  Object.assign(picture.style, {
    aspectRatio: `${width} / ${height}`,
    backgroundImage: `url(${sheetUrl(sheet)})`,
    backgroundSize: `${(sheetWidth / shownWidth) * 100}% ${(sheetHeight / shownHeight) * 100}%`,
    backgroundPosition: `${(x / (sheetWidth - shownWidth)) * 100}% ${(y / (sheetHeight - shownHeight)) * 100}%`,
  });
  return picture;
}
