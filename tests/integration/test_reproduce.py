"""reproduce/reproduce.py: how it goes on in pieces, and what it reports."""

import json
import os
import signal
from pathlib import Path

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

import reproduce
import reproduce_recipe
import reproduce_report
from reproduce_log import is_finished, result
from reproduce_recipe import Run, Settings, make_runs
from reproduce_runs import Deadline, work
from tables import TABLES, Row, Table

ROOT = Path(__file__).parents[2]


@HOOKS.register_module()
class EndOnce(Hook):
    """Asks its own process to end in the second epoch, if and as long as a file is there."""

    def __init__(self, file):
        self.file = Path(file)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.epoch == 1 and batch_idx == 1 and self.file.exists():
            self.file.unlink()
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working directory, with a table of a teacher and a student on digits, whose configs lie there."""
    monkeypatch.chdir(tmp_path)
    shipped = ROOT / 'configs'
    hook = f"custom_hooks = [*_base_.custom_hooks, dict(type='EndOnce', file='{tmp_path}/end')]\n"
    for method in ('supervised/supervised_convnet-large', 'kd/kd_convnet-small'):
        config = tmp_path / 'configs' / f'{method}_100e_digits-200.py'
        config.parent.mkdir(parents=True)
        config.write_text(f"_base_ = '{shipped}/{method}_100e_digits-200.py'\n{hook if 'kd' in method else ''}")
    rows = (
        Row('teacher', 'supervised/supervised_convnet-large_100e_digits-200.py'),
        Row('KD', 'kd/kd_convnet-small_100e_digits-200.py', ((90.5, 'a paper'),), 'a remark'),
    )
    monkeypatch.setitem(TABLES, 'digits', Table('Digits', 'accuracy/top1', 'top-1 (%)', rows))
    monkeypatch.setattr(reproduce_recipe, 'CONFIGS', tmp_path / 'configs')
    handler = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, handler)


def _run(*options, out='out'):
    reproduce.main(['digits', '--seeds', '3', '--epochs', '2', '--stage-epochs', '2', '--out', out, *options])


def _numbers(out):
    """The report without what depends on the clock."""
    report = json.loads(Path(out, 'digits.json').read_text())
    for row in report['rows']:
        for one in row['runs'].values():
            del one['seconds'], one['images_per_second']
    return report


@pytest.mark.usefixtures('one_thread')
def test_a_run_in_pieces_gives_the_report_of_one_in_one_piece(folder):
    _run(out='whole')
    (folder / 'end').touch()
    with pytest.raises(SystemExit) as ended:
        _run(out='pieces')
    assert ended.value.code == reproduce.NOT_FINISHED
    assert [row['mean'] is None for row in _numbers('pieces')['rows']] == [False, True]
    os.rename('pieces', 'moved')
    teacher = Path('moved/runs/supervised_convnet-large_100e_digits-200-seed3/epoch_2.pth')
    written = teacher.stat().st_mtime_ns
    _run(out='moved')
    assert teacher.stat().st_mtime_ns == written
    assert _numbers('moved') == _numbers('whole')
    assert len(list(Path('moved/runs/kd_convnet-small_100e_digits-200-seed3').glob('2*'))) == 2
    assert (folder / 'moved' / 'digits.png').stat().st_size > 10_000


@pytest.mark.usefixtures('one_thread')
def test_a_failed_training_is_an_error_and_leaves_a_report(folder):
    (folder / 'configs/supervised/supervised_convnet-large_100e_digits-200.py').write_text(
        f"_base_ = '{ROOT}/configs/supervised/supervised_convnet-large_100e_digits-200.py'\nmodel = dict(type='X')\n"
    )
    with pytest.raises(RuntimeError, match=r'teacher, seed 3: .*got code 1'):
        _run()
    assert 'not run yet' in (folder / 'out' / 'digits.md').read_text()


def test_nothing_begins_when_time_is_over(folder):
    runs = make_runs(TABLES['digits'], [0], Settings(), folder, 'data')
    assert not work(runs, jobs=1, deadline=Deadline(minutes=0))
    assert not (folder / 'runs').exists()


def test_ten_minutes_leave_one_to_stop_and_report(monkeypatch):
    monkeypatch.setattr('time.monotonic', lambda: 100.0)
    deadline = Deadline(minutes=10)
    for now, is_near in ((639.9, False), (640.0, True)):
        monkeypatch.setattr('time.monotonic', lambda now=now: now)
        assert deadline.is_near is is_near
    assert deadline.grace == 30
    assert not Deadline(minutes=None).is_near


def test_a_folder_keeps_its_settings(tmp_path):
    reproduce.check_settings(Settings(epochs=2), tmp_path)
    reproduce.check_settings(Settings(epochs=2), tmp_path)
    with pytest.raises(ValueError, match=r"settings .*\{'epochs': 2\}.*got others"):
        reproduce.check_settings(Settings(epochs=3), tmp_path)


# --- the report


def _summary(values, smoke=False):
    runs = {
        str(seed): {
            'value': value,
            'curve': {'10': value - 10, '20': value},
            'losses': {'10': 2.0, '20': float(seed)},
            'seconds': 1000.0 + seed,
            'images_per_second': 2000.0,
            'device': 'GPU',
            'torch': '2.0',
            'jobs': 2,
        }
        for seed, value in enumerate(values)
    }
    mean, error = reproduce_report.mean_and_error(values)
    row = {
        'name': 'UNO',
        'metric': 'novel',
        'epochs': 100,
        'recipe_epochs': 500,
        'is_stage': False,
        'published': [[60.4, 'one paper'], [60.8, 'another']],
        'remark': 'other heads',
        'mean': mean,
        'standard_error': error,
        'runs': runs,
    }
    settings = Settings(bf16=True, smoke=smoke)._asdict()
    return {
        'table': 't',
        'title': 'Table',
        'metric': 'novel',
        'metric_name': 'ACC',
        'settings': settings,
        'rows': [row],
    }


@pytest.mark.parametrize(
    ('values', 'ours'),
    [
        ([60.0, 62.0, 64.0], '62.00 ± 1.15 (seed 0: 60.0, seed 1: 62.0, seed 2: 64.0)'),  # 2 / sqrt(3)
        ([60.0], '60.00 (seed 0: 60.0)'),
    ],
)
def test_a_row_has_mean_error_length_and_published_numbers(values, ours):
    lines = reproduce_report.markdown(_summary(values)).splitlines()
    seconds = '1,001' if len(values) == 3 else '1,000'
    assert f'| UNO | {ours} | 100 of 500 | 60.4 (one paper), 60.8 (another) | {seconds} | 2,000 |' in lines
    assert '- UNO: other heads.' in lines
    assert 'GPU, torch 2.0, runs at a time: 2; bf16' in lines


def test_a_run_is_read_from_its_log(tmp_path):
    """Losses are means since the validation before; what was repeated counts once; the clock is that of training."""
    epochs = [
        dict(lr=0.1, epoch=epoch, step=4 * epoch, loss=loss, time=0.5) for epoch, loss in enumerate((4, 3, 2, 1), 1)
    ]
    pieces = [
        [*epochs[:2], dict(top1=10.0, time=1.0, data_time=0.1, step=2), dict(epochs[2], loss=9)],
        [*epochs[2:], dict(top1=30.0, time=1.0, data_time=0.1, step=4)],
    ]
    for number, lines in enumerate(pieces):
        log = tmp_path / str(number) / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True)
        log.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    piece = dict(seconds=20.0, device='GPU', torch='2.0', jobs=2)
    (tmp_path / 'pieces.jsonl').write_text(f'{json.dumps(piece)}\n{json.dumps(piece)}\n')
    config = tmp_path / 'config.py'
    config.write_text('train_dataloader = dict(batch_size=64)\n')
    run = Run(Row('UNO', 'uno.py'), 0, config, tmp_path, epochs=4, recipe_epochs=4, stages=())
    assert not is_finished(run)
    run.checkpoint.touch()
    assert is_finished(run)
    found = result(run, 'top1')
    assert found['curve'] == {'2': 10.0, '4': 30.0}
    assert found['losses'] == {'2': 3.5, '4': 1.5}
    assert (found['value'], found['metrics']) == (30.0, {'top1': 30.0})
    assert (found['seconds'], found['images_per_second']) == (40.0, 128.0)
    with pytest.raises(KeyError, match=r"UNO, seed 0: .*'top5' .*got \['top1'\]"):
        result(run, 'top5')


def test_a_row_without_runs_says_so():
    lines = reproduce_report.markdown(_summary([])).splitlines()
    assert '| UNO | not run yet | 100 of 500 | 60.4 (one paper), 60.8 (another) | - | - |' in lines


@pytest.mark.parametrize('smoke', [True, False])
def test_a_smoke_report_says_so(smoke):
    assert (reproduce_report.SMOKE in reproduce_report.markdown(_summary([60.0], smoke))) == smoke


def test_curves_are_means_over_seeds():
    summary = _summary([60.0, 64.0])
    assert reproduce_report.curves(summary, 'curve') == {'UNO': [(10, 52.0), (20, 62.0)]}
    assert reproduce_report.curves(summary, 'losses') == {'UNO': [(10, 2.0), (20, 0.5)]}
    summary['rows'][0]['is_stage'] = True
    assert reproduce_report.curves(summary, 'curve') == {}
