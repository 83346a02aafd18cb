// The corrected table: the same bytes as assignments_csv.py writes, as long as nothing is corrected.

/** A cell that begins so is computed by spreadsheets, quoted or not. */
const formulaStart = /^[=+\-@\t\r]/;

const quote = (text) => `"${text.replaceAll('"', '""')}"`;

/** A relative path that looks like a formula gets './' in front: the same file, and no formula. */
const csvPath = (path) => (formulaStart.test(path) ? `./${path}` : path);

/** An apostrophe tells spreadsheets that text follows. It changes the name, so only their file has it. */
const spreadsheetText = (text) => (formulaStart.test(text) ? `'${text}` : text);

function csvText(className) {
  const lines = ['"path","cluster","confidence","distance"'];
  for (const image of unlabelled) {
    const name = className(view.names[view.classOf[image]]);
    lines.push([csvPath(data.paths[image]), name, data.confidence[image], data.distance[image]].map(quote).join(','));
  }
  return `${lines.join('\r\n')}\r\n`;
}

/** File names that are no Unicode come as lone surrogates, one per byte (Python's surrogateescape); give bytes back. */
function bytesOf(text) {
  return text
    .split(/([\udc80-\udcff])/u)
    .map((part, index) => (index % 2 ? Uint8Array.of(part.charCodeAt(0) - 0xdc00) : part));
}

function downloadCsv() {
  download(bytesOf(csvText((name) => name)), 'assignments.csv', 'text/csv');
  announce(`Downloaded assignments.csv with ${count(done.length, 'correction')}.`);
}

/** The same for Excel, which reads UTF-8 only behind a byte order mark. */
function downloadSpreadsheet() {
  download(['\ufeff', ...bytesOf(csvText(spreadsheetText))], 'assignments_spreadsheet.csv', 'text/csv');
  announce(`Downloaded assignments_spreadsheet.csv with ${count(done.length, 'correction')}.`);
}
