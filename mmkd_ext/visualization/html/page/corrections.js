// Corrections are a list of operations on what was discovered. The present state is always a replay of that list, so
// undo is to drop the last one, and a saved list restores everything.
//
//   {kind: 'rename', from: class, name}
//   {kind: 'merge', from: class, into: class}
//   {kind: 'move', image, into: class}

let done = [];
let undone = [];
let view = replay([]);
const changeListeners = [];

/** Names, live classes, the original classes that each one holds, and the class of each image. */
function replay(operations) {
  const names = [...data.known, ...data.novel];
  const state = {
    names,
    isLive: names.map(() => true),
    parts: names.map((_, cls) => [cls]),
    classOf: Int32Array.from(data.labels),
  };
  for (const operation of operations) perform(operation, state);
  state.members = sortedMembers(state.classOf);
  return state;
}

function perform(operation, state) {
  const { kind, from, into } = operation;
  if (kind === 'rename') state.names[from] = operation.name;
  if (kind === 'move') state.classOf[operation.image] = into;
  if (kind === 'merge') {
    state.isLive[from] = false;
    state.parts[into].push(...state.parts[from]);
    state.classOf.forEach((cls, image) => {
      if (cls === from) state.classOf[image] = into;
    });
  }
}

/** Images without label of each class, the most certain first. */
function sortedMembers(classOf) {
  const members = Array.from({ length: numClasses }, () => []);
  for (const image of unlabelled) members[classOf[image]].push(image);
  for (const images of members) images.sort((a, b) => confidence[b] - confidence[a] || a - b);
  return members;
}

const liveClasses = () => view.names.map((_, cls) => cls).filter((cls) => view.isLive[cls]);
const isLiveClass = (cls) => Number.isInteger(cls) && cls >= 0 && cls < numClasses && view.isLive[cls];
const canChange = (cls) => isLiveClass(cls) && isNovel(cls);

/** Why an operation cannot be done, or null. It may come from a file, so nothing about it is taken for granted. */
function problemOf(operation) {
  const { kind, from, into, image, name } = operation ?? {};
  if (kind === 'rename') return canChange(from) ? nameProblem(from, name) : 'Only a new class can be renamed.';
  if (!isLiveClass(into)) return 'There is no such class.';
  if (kind === 'merge') return canChange(from) && from !== into ? null : 'Only a new class can be merged into another.';
  if (kind === 'move')
    return Number.isInteger(image) && image in data.paths && !labelled.has(image) ? null : 'There is no such image.';
  return 'This is not a correction.';
}

function nameProblem(cls, name) {
  if (typeof name !== 'string' || !name.trim()) return 'Please type a name.';
  const other = liveClasses().find((candidate) => candidate !== cls && view.names[candidate] === name);
  return other === undefined ? null : 'Another class has this name. To put both together, use Merge.';
}

function describe({ kind, from, into, image, name }, before) {
  const old = visible(before.names[from] ?? '');
  if (kind === 'rename') return `Renamed “${old}” to “${visible(name)}”.`;
  if (kind === 'merge') return `Merged “${old}” into “${visible(before.names[into])}”.`;
  return `Moved ${visible(data.paths[image])} to “${visible(before.names[into])}”.`;
}

/** Do one correction; the problem if it cannot be done, otherwise null. */
function correct(operation) {
  const problem = problemOf(operation);
  if (problem) return problem;
  const text = describe(operation, view);
  setOperations([...done, operation], [], text);
  return null;
}

function undo() {
  const last = done.at(-1);
  if (!last) return;
  const before = replay(done.slice(0, -1));
  setOperations(done.slice(0, -1), [...undone, last], `Undone: ${describe(last, before)}`);
}

function redo() {
  const next = undone.at(-1);
  if (next) setOperations([...done, next], undone.slice(0, -1), describe(next, view));
}

function setOperations(operations, droppedOperations, text) {
  done = operations;
  undone = droppedOperations;
  view = replay(done);
  announce(text);
  for (const listener of changeListeners) listener();
}

/** Take over a list from a file or an earlier visit; false, and nothing changes, if one of them is impossible. */
function restore(operations, text) {
  const before = view;
  view = replay([]);
  for (const operation of operations) {
    if (problemOf(operation)) {
      view = before;
      return false;
    }
    perform(operation, view);
  }
  setOperations(operations, [], text);
  return true;
}
