// The bar at the bottom: what was done last, undo, and everything that leaves the page.

function renderToolbar() {
  byId('undo').disabled = !done.length;
  byId('redo').disabled = !undone.length;
  byId('undo').textContent = done.length ? `Undo (${done.length})` : 'Undo';
  byId('save-corrections').disabled = !done.length;
}

function onShortcut(event) {
  const isTyping = event.target.closest?.('input, select, dialog');
  if (!(event.ctrlKey || event.metaKey) || event.altKey || isTyping) return;
  const key = event.key.toLowerCase();
  if (key === 'z' && !event.shiftKey) undo();
  else if (key === 'y' || (key === 'z' && event.shiftKey)) redo();
  else return;
  event.preventDefault();
}

function closeMenu(event) {
  const menu = byId('more');
  if (!menu.open) return;
  if (event.type === 'click' ? !menu.contains(event.target) : event.key === 'Escape') {
    menu.open = false;
    if (event.type === 'keydown') menu.querySelector('summary').focus();
  }
}

function listenToToolbar() {
  const actions = {
    undo,
    redo,
    'download-csv': downloadCsv,
    'download-spreadsheet': downloadSpreadsheet,
    'save-corrections': saveCorrections,
    'load-corrections': () => byId('corrections-file').click(),
  };
  for (const [id, action] of Object.entries(actions)) byId(id).addEventListener('click', () => action());
  byId('corrections-file').addEventListener('change', async ({ target }) => {
    if (target.files.length) await loadCorrections(target.files[0]);
    target.value = '';
  });
  document.addEventListener('keydown', onShortcut);
  document.addEventListener('keydown', closeMenu);
  document.addEventListener('click', closeMenu);
}
