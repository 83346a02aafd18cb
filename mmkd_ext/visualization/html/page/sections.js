// Doubtful images, the table of relations, and the navigation.

function renderDoubtful() {
  const images = unlabelled.filter((image) => confidence[image] < data.doubtful);
  images.sort((a, b) => confidence[a] - confidence[b] || a - b);
  const box = byId('doubtful-tiles');
  if (images.length) box.replaceChildren(...gallery('doubtful', images, { withClass: true }));
  else
    box.replaceChildren(element('p', { class: 'prose' }, `No image is less than ${percent(data.doubtful)} certain.`));
}

function relationRow(cls) {
  const cells = relationOf(cls).map((similarity) => {
    const cell = element('td', {}, similarity.toFixed(2));
    cell.style.setProperty('--share', Math.max(0, Math.min(1, similarity)));
    return cell;
  });
  return element('tr', {}, element('th', { scope: 'row' }, nameElement(view.names[cls])), ...cells);
}

function renderRelation() {
  if (!data.relation || !numKnown || !data.novel.length) return;
  byId('relation').hidden = false;
  const names = data.known.map((name) => element('th', { scope: 'col' }, nameElement(name)));
  byId('relation-table').replaceChildren(
    element('thead', {}, element('tr', {}, element('td'), ...names)),
    element('tbody', {}, ...liveClasses().filter(isNovel).map(relationRow)),
  );
}

function renderNavigation() {
  const sections = [...document.querySelectorAll('main > section:not([hidden])')];
  byId('navigation').replaceChildren(
    ...sections.map((section) => element('a', { href: `#${section.id}` }, section.querySelector('h2').textContent)),
  );
}
