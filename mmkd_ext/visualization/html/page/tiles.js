// Galleries: a page of tiles, more on demand, one tab stop for all of them and arrow keys within.

const firstPage = 20;
const nextPages = 60;
/** Number of tiles shown by the name of the gallery; outlives a new rendering. */
const shownTiles = new Map();

function tileLabel(image) {
  const doubt = confidence[image] < data.doubtful ? ', doubtful' : '';
  const name = visible(view.names[view.classOf[image]]);
  return `${visible(data.paths[image])}, ${name}, ${percent(confidence[image])} certain${doubt}`;
}

function tile(image, images, withClass) {
  const captions = [element('span', { class: 'caption' }, percent(confidence[image]))];
  if (withClass) captions.unshift(element('span', { class: 'caption' }, nameElement(view.names[view.classOf[image]])));
  const open = button('', () => openImage(image, images), {
    class: confidence[image] < data.doubtful ? 'tile doubtful' : 'tile',
    'aria-label': tileLabel(image),
    title: visible(data.paths[image]),
    tabindex: '-1',
    'data-image': image,
  });
  open.append(element('span', { class: 'frame' }, thumbnail(image)), ...captions);
  return element('li', {}, open);
}

/** A gallery of images, to be put into an empty box. */
function gallery(name, images, { withClass = false } = {}) {
  const list = element('ul', { class: 'tiles', onkeydown: walkTiles, onfocusin: keepTabStop });
  const more = button(
    '',
    () => {
      const first = list.children.length;
      shownTiles.set(name, first + nextPages);
      fill();
      list.children[first].firstChild.focus();
    },
    { class: 'more' },
  );

  function fill() {
    const end = Math.min(shownTiles.get(name) ?? firstPage, images.length);
    for (const image of images.slice(list.children.length, end)) list.append(tile(image, images, withClass));
    if (!list.querySelector('.tile[tabindex="0"]')) list.querySelector('.tile')?.setAttribute('tabindex', '0');
    more.hidden = end === images.length;
    more.textContent = `Show ${Math.min(nextPages, images.length - end)} more of ${count(images.length, 'image')}`;
  }

  fill();
  return [list, more];
}

/** The tile that had the focus last is the one that Tab comes back to. */
function keepTabStop(event) {
  for (const other of event.currentTarget.querySelectorAll('.tile[tabindex="0"]')) other.setAttribute('tabindex', '-1');
  event.target.setAttribute('tabindex', '0');
}

function walkTiles(event) {
  const tiles = [...event.currentTarget.querySelectorAll('.tile')];
  const now = tiles.indexOf(document.activeElement);
  const perRow = tiles.filter((one) => one.offsetTop === tiles[0].offsetTop).length;
  const steps = {
    ArrowRight: 1,
    ArrowLeft: -1,
    ArrowDown: perRow,
    ArrowUp: -perRow,
    Home: -now,
    End: tiles.length - 1 - now,
  };
  if (now < 0 || !(event.key in steps)) return;
  event.preventDefault();
  tiles[now + steps[event.key]]?.focus();
}
