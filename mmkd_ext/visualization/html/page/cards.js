// One card per class: its name, what it looks like, what it is related to, and how to correct it.

let lazyGalleries = null;

const meanConfidence = (images) => images.reduce((sum, image) => sum + confidence[image], 0) / images.length;

/** Mean similarity of the discovered classes in `cls` to each known class, or null. */
function relationOf(cls) {
  const rows = view.parts[cls].filter(isNovel).map((part) => data.relation[part - numKnown]);
  return rows.length
    ? data.known.map((_, known) => rows.reduce((sum, row) => sum + row[known], 0) / rows.length)
    : null;
}

/** An image that shows what a known class looks like: a labelled one if there is one. */
function exampleOf(known) {
  return data.labelled.find((image) => data.labels[image] === known) ?? view.members[known][0];
}

function relatedItem(known, similarity) {
  const example = exampleOf(known);
  const meter = element('meter', { min: '0', max: '1', value: similarity, 'aria-hidden': 'true' });
  const picture = element('span', { class: 'frame small' });
  if (example !== undefined) picture.append(thumbnail(example));
  return element('li', {}, picture, nameElement(data.known[known]), meter, similarity.toFixed(2));
}

function relatedPart(cls) {
  const relation = data.relation && numKnown && isNovel(cls) ? relationOf(cls) : null;
  if (!relation) return '';
  const best = relation
    .map((_, known) => known)
    .sort((a, b) => relation[b] - relation[a])
    .slice(0, 3);
  const items = best.map((known) => relatedItem(known, relation[known]));
  return element(
    'div',
    { class: 'related' },
    element('h4', {}, 'Most similar known classes'),
    element('ul', {}, ...items),
  );
}

function factsText(cls) {
  const images = view.members[cls];
  const merged = view.parts[cls]
    .filter((part) => part !== cls)
    .map((part) => visible([...data.known, ...data.novel][part]));
  const facts = [count(images.length, 'image')];
  if (images.length) facts.push(`${percent(meanConfidence(images))} certain on average`);
  if (merged.length) facts.push(`with ${merged.join(', ')}`);
  return facts.join(' · ');
}

function actionsPart(cls) {
  if (!isNovel(cls)) return element('span', { class: 'tag' }, 'known');
  const named = (verb) => ({ 'aria-label': `${verb} ${visible(view.names[cls])}` });
  return element(
    'div',
    { class: 'buttons' },
    button('Rename', () => openRename(cls), named('Rename')),
    button('Merge', () => openMerge(cls), named('Merge')),
  );
}

function card(cls) {
  const heading = element('h3', { id: `class-${cls}-name`, tabindex: '-1' }, swatch(cls), nameElement(view.names[cls]));
  const box = element('div', { class: 'gallery', 'data-class': cls });
  return element(
    'article',
    { class: 'card', id: `class-${cls}`, 'aria-labelledby': `class-${cls}-name` },
    element('header', {}, heading, element('p', { class: 'facts' }, factsText(cls)), actionsPart(cls)),
    relatedPart(cls),
    box,
  );
}

/** The mark that the class has on the map. */
function swatch(cls) {
  const drawing = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  drawing.setAttribute('viewBox', '-6 -6 12 12');
  drawing.setAttribute('class', `swatch ${isNovel(cls) ? `colour-${colourIndex(cls)}` : 'known'}`);
  drawing.setAttribute('aria-hidden', 'true');
  path.setAttribute('d', markPath(cls, 5));
  drawing.append(path);
  return drawing;
}

function shownClasses() {
  const wanted = byId('filter').value;
  const classes = liveClasses().filter(
    (cls) => wanted === 'all' || (isNovel(cls) ? wanted === 'novel' : wanted === 'known' && view.members[cls].length),
  );
  const keys = {
    order: (cls) => cls,
    size: (cls) => -view.members[cls].length,
    certainty: (cls) => (view.members[cls].length ? meanConfidence(view.members[cls]) : 2),
  };
  const byName = (a, b) => view.names[a].localeCompare(view.names[b], undefined, { numeric: true });
  const key = keys[byId('sort').value];
  return classes.sort(key ? (a, b) => key(a) - key(b) || a - b : byName);
}

function fillFilter() {
  const live = liveClasses();
  const known = live.filter((cls) => !isNovel(cls) && view.members[cls].length).length;
  const options = {
    novel: `new classes (${live.filter(isNovel).length})`,
    known: `known classes with images (${known})`,
    all: 'all classes',
  };
  const chosen = byId('filter').value || 'novel';
  byId('filter').replaceChildren(
    ...Object.entries(options).map(([value, text]) =>
      element('option', { value, selected: value === chosen ? '' : null }, text),
    ),
  );
}

/** Galleries are made when they come near the window: thousands of tiles at once would make the page slow. */
function renderCards() {
  lazyGalleries?.disconnect();
  lazyGalleries = new IntersectionObserver(
    (entries) => {
      for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
        lazyGalleries.unobserve(target);
        const cls = Number(target.dataset.class);
        target.replaceChildren(...gallery(`class ${cls}`, view.members[cls]));
      }
    },
    { rootMargin: '800px' },
  );
  const cards = shownClasses().map(card);
  byId('cards').replaceChildren(...(cards.length ? cards : [element('p', { class: 'prose' }, 'There are none.')]));
  for (const one of cards) lazyGalleries.observe(one.querySelector('.gallery'));
}

/** Go to a class; to the section if the filter hides the class. */
function focusClass(cls) {
  (byId(`class-${cls}-name`) ?? byId('classes')).focus();
}
