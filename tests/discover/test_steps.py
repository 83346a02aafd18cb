"""The whole discovery: odd images, interruption, other options."""

import csv
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmkd_ext.checkpoint import load_checkpoint_safely
from mmkd_ext.discover import Options, OutFolder, Steps


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
    assert steps._choose_number() is None
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
