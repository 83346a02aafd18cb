// What was discovered, as written by html_report.py, and the small tools that all other files use.

const data = JSON.parse(document.getElementById('data').textContent);
const numKnown = data.known.length;
const numClasses = numKnown + data.novel.length;
const labelled = new Set(data.labelled);
const confidence = Float64Array.from(data.confidence, Number);
/** Images without label, in the order of the CSV. */
const unlabelled = data.paths.map((_, image) => image).filter((image) => !labelled.has(image));

const byId = (id) => document.getElementById(id);
const isNovel = (cls) => cls >= numKnown;
const percent = (value) => `${Math.round(value * 100)} %`;
const count = (number, noun) => `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`;

/** Text with visible signs in place of line breaks and other control characters. */
function visible(text) {
  // eslint-disable-next-line no-control-regex -- control characters are what it looks for
  return text.replace(/[\u0000-\u001f\u007f]/g, (sign) =>
    sign === '\u007f' ? '\u2421' : String.fromCharCode(0x2400 + sign.charCodeAt(0)),
  );
}

/** Make an element. Strings become text, never markup, so no name can do anything. */
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** A name, kept apart from the text around it: it may be written from right to left. */
function nameElement(name) {
  return element('bdi', {}, visible(name));
}

function button(text, onclick, attributes = {}) {
  return element('button', { type: 'button', onclick, ...attributes }, text);
}

/** Say in the toolbar, and to screen readers, what has happened. */
function announce(text) {
  byId('status').textContent = text;
}
