// Corrections outlive the page: in the browser where it allows that for files, and in a file of the user's own.

const storageKey = `mmkd_ext-report-${data.id}`;
const format = 'mmkd_ext corrections 1';

/** Keep the corrections in the browser; a browser may refuse that, above all for pages from the disk. */
function keepCorrections() {
  try {
    if (done.length) localStorage.setItem(storageKey, JSON.stringify(done));
    else localStorage.removeItem(storageKey);
    return true;
  } catch {
    return false;
  }
}

function restoreKeptCorrections() {
  try {
    const operations = JSON.parse(localStorage.getItem(storageKey));
    if (Array.isArray(operations) && operations.length) {
      restore(operations, `Your ${count(operations.length, 'correction')} from last time are here again.`);
    }
  } catch {
    // Nothing kept, or not readable: the page starts without corrections.
  }
}

function download(parts, name, type) {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  element('a', { href: url, download: name }).click();
  // The browser reads the blob after click() has returned.
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

function saveCorrections() {
  const content = { format, report: data.id, operations: done };
  download([JSON.stringify(content, null, 1)], 'corrections.json', 'application/json');
  announce(`Saved ${count(done.length, 'correction')} to corrections.json.`);
}

async function loadCorrections(file) {
  let content = null;
  try {
    content = JSON.parse(await file.text());
  } catch {
    // Not JSON: refused below with all other wrong files.
  }
  if (content?.format !== format || !Array.isArray(content.operations)) announce('This file holds no corrections.');
  else if (content.report !== data.id) announce('These corrections belong to another report.');
  else if (!restore(content.operations, `Loaded ${count(content.operations.length, 'correction')}.`)) {
    announce('These corrections do not fit this report. Nothing was changed.');
  }
}
