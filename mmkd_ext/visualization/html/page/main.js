// Start: draw everything once, and again after each correction.

function render() {
  fillFilter();
  renderCards();
  renderDoubtful();
  renderMap();
  renderRelation();
  renderToolbar();
}

function start() {
  if (!data.novel.length) byId('filter').append(element('option', { value: 'known', selected: '' }));
  render();
  renderNavigation();
  listenToDialogs();
  listenToToolbar();
  if (data.points?.length) listenToMap();
  for (const id of ['filter', 'sort']) byId(id).addEventListener('change', renderCards);
  changeListeners.push(render, () => {
    if (!keepCorrections() && done.length === 1)
      announce(`${byId('status').textContent} This browser forgets it with the page: save it under More.`);
  });
  announce('Corrections are kept in this browser. Download the CSV when you are done.');
  restoreKeptCorrections();
  document.documentElement.dataset.ready = '';
}

start();
