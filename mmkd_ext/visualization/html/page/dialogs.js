// The three dialogs: rename a class, merge it, look at one image. The browser keeps the focus inside and closes on Esc.

let dialogClass = null;
let openedImage = null;
let openedList = [];

const dialogs = { rename: byId('rename-dialog'), merge: byId('merge-dialog'), image: byId('image-dialog') };

function openRename(cls) {
  dialogClass = cls;
  byId('rename-title').replaceChildren('Rename ', nameElement(view.names[cls]));
  byId('rename-input').value = view.names[cls];
  showProblem(dialogs.rename, '');
  dialogs.rename.showModal();
  byId('rename-input').select();
}

function openMerge(cls) {
  dialogClass = cls;
  byId('merge-title').replaceChildren('Merge ', nameElement(view.names[cls]));
  byId('merge-select').replaceChildren(...classOptions((other) => other !== cls, likeliestPartner(cls)));
  showProblem(dialogs.merge, '');
  showMergePictures();
  dialogs.merge.showModal();
}

/** The class that is most probably the same: the one whose images lie nearest on the map, otherwise the next one. */
function likeliestPartner(cls) {
  const others = liveClasses().filter((other) => other !== cls && isNovel(other));
  if (!data.points || !view.members[cls].length) return others[0];
  const middle = (images) =>
    [0, 1].map((axis) => images.reduce((sum, image) => sum + data.points[image][axis], 0) / images.length);
  const [x, y] = middle(view.members[cls]);
  const square = (other) => {
    const [u, v] = middle(view.members[other]);
    return (u - x) ** 2 + (v - y) ** 2;
  };
  return others.filter((other) => view.members[other].length).sort((a, b) => square(a) - square(b))[0];
}

function classOptions(isWanted, chosen) {
  const group = (label, wanted) => {
    const classes = liveClasses().filter((cls) => isWanted(cls) && isNovel(cls) === wanted);
    const options = classes.map((cls) =>
      element('option', { value: cls, selected: cls === chosen ? '' : null }, visible(view.names[cls])),
    );
    return element('optgroup', { label }, ...options);
  };
  return [group('new classes', true), group('known classes', false)].filter((one) => one.children.length);
}

/** Both classes one above the other, so that a person sees whether they are the same. */
function showMergePictures() {
  const into = byId('merge-select').value;
  const row = (cls) =>
    element(
      'div',
      { class: 'row' },
      ...examples(Number(cls)).map((image) => element('span', { class: 'frame' }, thumbnail(image))),
    );
  byId('merge-pictures').replaceChildren(row(dialogClass), ...(into === '' ? [] : [row(into)]));
}

function examples(cls) {
  const images = view.members[cls].length
    ? view.members[cls]
    : data.labelled.filter((image) => data.labels[image] === cls);
  return images.slice(0, 6);
}

function showProblem(dialog, text) {
  dialog.querySelector('.problem').textContent = text;
}

/** Do the correction of a dialog; it stays open with the reason if that is impossible. */
function submit(dialog, operation, cls) {
  const problem = correct(operation);
  showProblem(dialog, problem ?? '');
  if (problem) return;
  dialog.close();
  focusClass(cls);
}

function submitRename() {
  submit(dialogs.rename, { kind: 'rename', from: dialogClass, name: byId('rename-input').value.trim() }, dialogClass);
}

function submitMerge() {
  const value = byId('merge-select').value;
  const into = value === '' ? null : Number(value);
  submit(dialogs.merge, { kind: 'merge', from: dialogClass, into }, into);
}

function openImage(image, images) {
  openedList = images;
  showImage(image);
  if (!dialogs.image.open) dialogs.image.showModal();
}

function showImage(image) {
  openedImage = image;
  const isGiven = labelled.has(image);
  const index = openedList.indexOf(image);
  byId('image-picture').replaceChildren(element('span', { class: 'frame' }, thumbnail(image)));
  byId('image-path').replaceChildren(nameElement(data.paths[image]));
  const facts = { Class: nameElement(view.names[view.classOf[image]]) };
  if (isGiven) facts.Label = 'given by you';
  else Object.assign(facts, { Certain: percent(confidence[image]), Distance: data.distance[image] });
  if (openedList.length > 1) facts.Image = `${index + 1} of ${openedList.length}`;
  byId('image-facts').replaceChildren(
    ...Object.entries(facts).map(([name, value]) =>
      element('div', {}, element('dt', {}, name), element('dd', {}, value)),
    ),
  );
  byId('image-move').hidden = isGiven;
  byId('move-select').replaceChildren(...classOptions(() => true, view.classOf[image]));
  byId('image-previous').hidden = byId('image-next').hidden = openedList.length < 2;
  byId('image-previous').disabled = index <= 0;
  byId('image-next').disabled = index === openedList.length - 1;
}

function stepImage(step) {
  const next = openedList[openedList.indexOf(openedImage) + step];
  if (next !== undefined) showImage(next);
}

function moveImage() {
  correct({ kind: 'move', image: openedImage, into: Number(byId('move-select').value) });
  showImage(openedImage);
}

function onImageKey(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step || event.target === byId('move-select')) return;
  event.preventDefault();
  stepImage(step);
}

/** After a correction the tile that opened the dialog is gone; do not leave the focus nowhere. */
function restoreFocus() {
  if (document.activeElement && document.activeElement !== document.body) return;
  const same = document.querySelector(`.tile[data-image="${openedImage}"]`);
  if (same) same.focus();
  else focusClass(view.classOf[openedImage]);
}

function listenToDialogs() {
  for (const dialog of Object.values(dialogs)) {
    dialog.querySelector('.cancel').addEventListener('click', () => dialog.close());
    dialog.addEventListener('click', (event) => {
      if (event.target === dialog) dialog.close();
    });
  }
  for (const [dialog, action] of [
    [dialogs.rename, submitRename],
    [dialogs.merge, submitMerge],
  ]) {
    dialog.querySelector('form').addEventListener('submit', (event) => {
      event.preventDefault();
      action();
    });
  }
  byId('merge-select').addEventListener('change', showMergePictures);
  byId('move-select').addEventListener('change', moveImage);
  byId('image-previous').addEventListener('click', () => stepImage(-1));
  byId('image-next').addEventListener('click', () => stepImage(1));
  dialogs.image.addEventListener('keydown', onImageKey);
  dialogs.image.addEventListener('close', restoreFocus);
}
