"""The whole discovery: odd images, the number of classes, interruption, other options."""

import csv
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.discover import DiscoveryInferencer, Options, OutFolder, Steps, steps
from mmkd_ext.discover.steps import Trial, best_trial, judge, search_number

# --------------------------------------------------------------------------------------------------
# The whole.


def _options(photos, **changes) -> Options:
    return Options(str(photos / 'known'), str(photos / 'other'), **{'epochs': 2, **changes})


def _rows(path):
    with path.open(newline='', encoding='utf-8', errors='surrogateescape') as file:
        return list(csv.DictReader(file))


def test_every_unlabelled_image_is_in_the_table_under_its_name(discovered, photos):
    rows = _rows(discovered / 'assignments.csv')
    images = OutFolder(discovered).read_images()
    assert [row['path'] for row in rows] == [
        p for p, label in zip(images.paths, images.labels, strict=True) if label < 0
    ]
    assert all(os.path.isfile(row['path']) for row in rows)
    assert str(photos / 'other' / os.fsdecode(b'bytes \xff.png')) in {row['path'] for row in rows}
    assert len(rows) == 30
    for row in rows:
        assert 0 <= float(row['confidence']) <= 1
        assert 0 <= float(row['distance']) <= 2
        assert row['cluster'] in images.classes or re.fullmatch(r'new \d+', row['cluster'])


def test_broken_files_are_in_the_report(discovered):
    broken = [os.path.basename(path) for path, _ in OutFolder(discovered).read_images().broken]
    assert sorted(map(os.fsencode, broken)) == [b'broken \xff.gif', b'cut.png', b'cut.tif', b'empty.png', b'text.jpg']
    page = (discovered / 'report.html').read_text(encoding='utf-8')
    for name in ('cut.png', 'cut.tif', 'empty.png', 'text.jpg', 'broken \\udcff.gif'):
        assert name in page
    assert '<img src=x' not in page


def test_the_configs_train_with_the_tools_unchanged(discovered):
    for stage in ('representation', 'stage_one', 'discovery'):
        text = OutFolder(discovered).config(stage).read_text()
        assert '_base_' not in text
        assert f"work_dir = '{discovered / stage}'" in text


def test_killed_anywhere_and_resumed_gives_the_same(discovered, photos, tmp_path, monkeypatch):
    """Stop after each step, then in the middle of each training, by an error, and go on."""
    from mmkd_ext.hooks import AtomicCheckpointHook

    class Killed(BaseException):
        pass

    saved = []
    save = AtomicCheckpointHook._save_checkpoint_with_step

    def save_and_die(hook, runner, step, meta):
        save(hook, runner, step, meta)
        if (runner.work_dir, step) not in saved:
            saved.append((runner.work_dir, step))
            raise Killed

    monkeypatch.setattr(AtomicCheckpointHook, '_save_checkpoint_with_step', save_and_die)
    out = tmp_path / 'out'
    for _ in range(40):
        try:
            Steps(_options(photos), out, say=lambda _: None, resume=True).run()
            break
        except Killed:
            pass
    num_trials = len(OutFolder(discovered).read_json('num_novel'))
    assert len(saved) == 2 + 1 + 2 * num_trials  # two epochs of the representation and of each trial, one of stage one
    for name in ('num_classes.json', 'num_novel.json', 'assignments.csv'):
        assert (out / name).read_bytes() == (discovered / name).read_bytes()
    ours, theirs = (load_checkpoint_safely(f / 'discovery' / 'epoch_2.pth')['state_dict'] for f in (out, discovered))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_another_discovery_in_the_folder_is_not_touched(discovered, photos):
    with pytest.raises(FileExistsError, match='add --resume'):
        Steps(_options(photos), discovered)
    with pytest.raises(ValueError, match=r"but \['seed'\] differ"):
        Steps(_options(photos, seed=1), discovered, resume=True)


def test_a_given_number_needs_no_estimate_and_a_config_takes_over(discovered, photos, tmp_path):
    text = OutFolder(discovered).config('discovery').read_text()
    config = tmp_path / 'own.py'
    config.write_text(
        text.replace("'loss_weight': 0.01", "'loss_weight': 0.5").replace('loss_weight=0.01', 'loss_weight=0.5')
    )
    out = tmp_path / 'out'
    shutil.copytree(
        discovered, out, ignore=shutil.ignore_patterns('discovery*', 'options.json', 'report*', 'repr*', 'num*')
    )
    options = _options(photos, num_novel=3, assign_to='novel', config=str(config))
    steps = Steps(options, out, say=lambda _: None, resume=True)
    trained = []
    steps.stages.train = lambda stage, settings, headline: trained.append((stage, settings))
    steps._scan()
    assert steps._choose_number()[1] is None
    steps._train_discovery(3)
    assert [stage for stage, _ in trained] == ['stage_one', 'discovery']
    assert trained[1][1]['custom_hooks'][-1]['terms']['crkd']['loss']['loss_weight'] == 0.5


def test_the_best_number_is_taken_over_and_the_others_stay(discovered):
    folder = OutFolder(discovered)
    trials = folder.read_json('num_novel')
    best = max(trials, key=lambda trial: trial['silhouette'])['num_novel']
    assert Config.fromfile(folder.config('discovery')).model.novel_head.num_classes == best
    left = sorted(path.name for path in discovered.glob('discovery_*'))
    assert left == sorted(f'discovery_{trial["num_novel"]}' for trial in trials if trial['num_novel'] != best)
    last = Path((discovered / 'discovery' / 'last_checkpoint').read_text())
    assert last == discovered / 'discovery' / 'epoch_2.pth'
    assert last.is_file()


def test_the_number_of_a_config_is_the_number(discovered, photos, tmp_path):
    config = tmp_path / 'own.py'
    config.write_text('model = dict(novel_head=dict(num_classes=7))')
    assert Steps(_options(photos, config=str(config)), tmp_path / 'out')._given_number() == 7


@pytest.mark.parametrize(
    ('changes', 'match'),
    [
        ({'num_novel': 31}, '--num-novel: expected at most 30 novel classes'),
        ({'checkpoint': 'other.pth'}, '--checkpoint: expected all'),
        ({'unlabelled': 'empty'}, 'expected unlabelled images in empty'),
        ({'epochs': 0}, '--epochs'),
    ],
)
def test_a_start_that_fails_leaves_nothing(photos, tmp_path, monkeypatch, changes, match):
    """So that the corrected command begins in the same folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    torch.save({'state_dict': {'conv1.weight': torch.zeros(2)}}, 'other.pth')
    with pytest.raises((ValueError, RuntimeError), match=match):
        Steps(replace(_options(photos), **changes), 'out', say=lambda _: None).start()
    assert sorted(os.listdir()) == ['empty', 'other.pth']
    for _ in range(2):
        steps = Steps(_options(photos), 'out', say=lambda _: None)
        (tmp_path / 'out').mkdir(exist_ok=True)
        (tmp_path / 'out' / 'options.json').write_text('{"epochs": 7}')  # what older versions left
    steps.start()
    assert OutFolder(tmp_path / 'out').read_json('options')['epochs'] == 2


def test_what_is_odd_is_said_with_counts(photos, tmp_path):
    said = []
    Steps(_options(photos), tmp_path / 'out', say=said.append).start()
    text = '\n'.join(said)
    assert 'Broken: ' in text
    assert '1 x an empty file (' in text
    assert '5 broken files, 0 ignored' in text
    assert re.search(r'This will take about \d+ seconds and \d\.\d GiB of memory', text)
    assert '--batch-size' not in text
    assert all(line.encode() for line in said)  # names that are no Unicode can be printed


def test_much_memory_and_time_are_said_with_what_makes_them_less(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(steps, '_LONG', 1e-9)
    monkeypatch.setattr(steps, '_MUCH', 1e-9)
    said = []
    Steps(_options(photos), tmp_path / 'out', say=said.append).start()
    line = next(line for line in said if line.startswith('This will take'))
    assert all(word in line for word in ('--num-novel N', '--epochs N', '--batch-size N'))


def test_nothing_new_is_an_answer(photos, tmp_path, monkeypatch):
    """Where the estimate is 0 and no number beats it, all images get known classes, and the rest works as ever."""
    monkeypatch.setattr(Steps, '_estimate', lambda _: SimpleNamespace(num_novel=0))
    monkeypatch.setattr(steps, 'judge', lambda number, *_: Trial(number, 0.3 + 0.01 * number, 0.02))
    said = []
    discovery = Steps(_options(photos, assign_to='all', epochs=1), tmp_path / 'out', say=said.append)
    discovery._features = np.zeros((60, 2))
    result = discovery.run()
    assert [trial['num_novel'] for trial in OutFolder(tmp_path / 'out').read_json('num_novel')] == [0, 1]
    assert list(result.novel_names) == []
    assert {row['cluster'] for row in _rows(tmp_path / 'out' / 'assignments.csv')} <= set(result.known_names)
    assert any('Nothing new was found' in line for line in said)
    found = DiscoveryInferencer(tmp_path / 'out')(result.pictures[-1])
    assert found[0]['is_known']


@pytest.mark.parametrize(('place', 'assign_to'), [(0, 'all'), (4, 'novel')])
def test_unlabelled_images_beside_known_ones_may_be_of_known_classes(photos, tmp_path, place, assign_to):
    """Half of the unlabelled images lie where known class 0 is, or at a place of their own (4)."""
    steps = Steps(_options(photos), tmp_path, say=lambda _: None)
    steps._scan()
    labels = np.array(steps.images.labels)
    features = np.eye(5)[np.where(labels >= 0, labels, 3)]
    features[np.flatnonzero(labels < 0)[::2]] = np.eye(5)[place]
    steps._features = features
    assert steps._assign_to(2) == assign_to
    steps._features = None  # the answer is kept
    assert steps._assign_to(2) == assign_to


# --------------------------------------------------------------------------------------------------
# Stages.


SETTINGS = {'train_cfg': {'max_epochs': 3}, 'work_dir': '/elsewhere'}


class FakeRunner:
    """Writes down what it would train, and leaves a checkpoint."""

    trained: list[Config]

    @classmethod
    def from_cfg(cls, cfg):
        cls.trained.append(cfg)
        return cls()

    def train(self):
        work_dir = Path(self.trained[-1].work_dir)
        work_dir.mkdir(exist_ok=True)
        (work_dir / 'epoch_3.pth').touch()
        (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_3.pth'))


@pytest.fixture
def stages(tmp_path, monkeypatch):
    FakeRunner.trained = []
    monkeypatch.setattr(steps, 'Runner', FakeRunner)
    return steps.Stages(OutFolder(tmp_path), lambda _: None, lambda cfg: cfg.update(prepared=True))


def test_a_stage_is_trained_once_in_its_own_folder(stages, tmp_path):
    stages.train('one', SETTINGS, 'go')
    stages.train('one', SETTINGS, 'go')
    assert [(cfg.work_dir, cfg.prepared, cfg.get('resume')) for cfg in FakeRunner.trained] == [
        (str(tmp_path / 'one'), True, None)
    ]


def test_an_interrupted_stage_goes_on(stages, tmp_path):
    (tmp_path / 'one').mkdir()
    (tmp_path / 'one' / 'last_checkpoint').write_text('/one/epoch_2.pth')
    stages.train('one', SETTINGS, 'go')
    assert (FakeRunner.trained[0].resume, FakeRunner.trained[0].load_from) == (True, '/one/epoch_2.pth')


def test_a_stage_is_taken_over_with_its_checkpoint(stages, tmp_path):
    stages.train('trial', SETTINGS, 'go')
    for _ in range(2):  # a second time there is nothing to do
        stages.take_over('trial', 'final', SETTINGS)
    stages.train('final', SETTINGS, 'go')
    assert len(FakeRunner.trained) == 1
    assert not (tmp_path / 'trial').exists()
    assert (tmp_path / 'final' / 'last_checkpoint').read_text() == str(tmp_path / 'final' / 'epoch_3.pth')
    assert stages.folder.checkpoint('final').is_file()


# --------------------------------------------------------------------------------------------------
# The number of novel classes.


def search(first, height):
    """Numbers that were tried, in this order, and the best, where ``height`` gives the silhouettes."""
    asked = []

    def discover(num_novel):
        asked.append(num_novel)
        return Trial(num_novel, height(num_novel), 0.01)

    trials = search_number(first, discover)
    assert [trial.num_novel for trial in trials] == sorted(asked)
    return asked, best_trial(trials).num_novel


@pytest.mark.parametrize(
    ('first', 'true', 'asked'),
    [
        (5, 5, [5, 4, 6]),
        (4, 5, [4, 3, 5, 6]),
        (7, 5, [7, 6, 8, 5, 4]),
        (1, 1, [1, 2]),
        (1, 3, [1, 2, 3, 4]),
        (40, 46, [40, 36, 44, 48]),
    ],
)
def test_goes_on_until_both_neighbours_are_worse(first, true, asked):
    tried, best = search(first, lambda num_novel: -abs(num_novel - true))
    assert tried == asked
    assert best == min(tried, key=lambda number: (abs(number - true), number))


@pytest.mark.parametrize(
    ('heights', 'first', 'best'),
    [
        ({0: 0.30, 1: 0.31, 2: 0.2}, 0, 0),  # not beyond the error of 0.014
        ({0: 0.30, 1: 0.29, 2: 0.2}, 1, 0),
        ({0: 0.30, 1: 0.33, 2: 0.2}, 0, 1),
        ({0: 0.30, 1: 0.31, 2: 0.4, 3: 0.3}, 1, 2),
    ],
)
def test_nothing_new_holds_until_it_is_clearly_beaten(heights, first, best):
    trials = search_number(first, lambda number: Trial(number, heights[number], 0.01), smallest=0)
    assert best_trial(trials).num_novel == best


def test_the_search_ends_at_the_largest_number():
    trials = search_number(3, lambda number: Trial(number, float(number), 0.01), largest=5)
    assert [trial.num_novel for trial in trials] == [2, 3, 4, 5]


def test_the_report_shows_all_trials_and_the_best_number():
    count = steps._class_count([Trial(1, 0.3, 0.01), Trial(2, 0.4, 0.02), Trial(3, 0.2, 0.01)])
    assert (list(count.candidates), count.chosen) == ([1, 2, 3], 2)
    assert list(count.scores) == [0.3, 0.4, 0.2]
    assert list(count.errors) == [0.01, 0.02, 0.01]


def test_of_equals_the_smallest_number_is_taken():
    assert search(3, lambda num_novel: 0.0) == ([3, 2, 4, 1], 1)


def formula(x, labels):
    """Rousseeuw's silhouettes, sample by sample."""
    distances = np.linalg.norm(x[:, None] - x[None], axis=2)
    values = []
    for i, label in enumerate(labels):
        own = distances[i, labels == label].sum() / ((labels == label).sum() - 1)
        other = min(distances[i, labels == c].mean() for c in set(labels.tolist()) - {label})
        values.append((other - own) / max(own, other))
    return np.array(values)


def test_a_trial_is_judged_by_its_mean_silhouette():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 4
    directions = np.eye(6)[labels] + 0.3 * rng.normal(size=(60, 6))
    values = formula(directions / np.linalg.norm(directions, axis=1, keepdims=True), labels)
    trial = judge(2, directions * rng.uniform(0.5, 5, size=(60, 1)), labels)
    assert trial.num_novel == 2
    assert trial.silhouette == pytest.approx(values.mean())
    assert trial.silhouette_se == pytest.approx(values.std() / 60**0.5)


def test_merged_and_split_classes_score_below_true_ones():
    rng = np.random.default_rng(0)
    true = np.repeat(np.arange(5), 20)
    x = np.eye(8)[true] + 0.1 * rng.normal(size=(100, 8))
    merged, split = np.minimum(true, 3), np.where((true == 4) & (np.arange(100) % 2 == 0), 5, true)
    best, *worse = (judge(0, x, labels).silhouette for labels in (true, merged, split))
    assert max(worse) < best - 0.1


def test_of_many_images_a_part_is_judged(monkeypatch):
    monkeypatch.setattr(steps, '_MAX_SAMPLES', 30)
    labels = np.arange(90) % 3
    trial = judge(1, np.eye(3)[labels], labels)
    assert trial == Trial(1, 1.0, 0.0)


def test_collapsed_features_give_a_number():
    assert judge(1, np.zeros((6, 2)), np.arange(6) % 2) == Trial(1, 0.0, 0.0)
