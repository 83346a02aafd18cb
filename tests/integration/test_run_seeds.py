"""reproduce/run_seeds.py: where metrics come from, and what the table says."""

import json
import sys
from pathlib import Path

import pytest

import run_seeds

ROOT = Path(__file__).parents[2]
CONFIG = """
_base_ = '{root}/configs/supervised/supervised_convnet-small_100e_digits-200.py'
train_cfg = dict(max_epochs=2, val_interval=1)
"""


def _write_log(work_dir, name, lines):
    log = work_dir / name / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def test_reads_the_last_validation(tmp_path):
    validations = [
        {'accuracy/top1': value, 'data_time': 0.1, 'time': 0.2, 'step': i} for i, value in ((1, 30), (2, 50))
    ]
    training = {'lr': 0.1, 'loss': 1.0, 'epoch': 1, 'iter': 2, 'step': 2}  # second iteration, not second epoch
    _write_log(tmp_path, '20260101_000000', [validations[0], validations[1], training])
    assert run_seeds.read_metrics(tmp_path, end=2) == {'accuracy/top1': 50}
    assert run_seeds.read_metrics(tmp_path, end=3) is None


def test_reads_the_newest_log_of_a_resumed_run(tmp_path):
    for day, value in (('02', 40), ('01', 30), ('03', 50)):
        _write_log(tmp_path, f'202601{day}_000000', [{'accuracy/top1': value, 'step': 2}])
    assert run_seeds.read_metrics(tmp_path, end=2) == {'accuracy/top1': 50}


def test_a_report_goes_first(tmp_path):
    _write_log(tmp_path, '20260101_000000', [{'accuracy/top1': 1, 'step': 2}])
    (tmp_path / 'report').mkdir()
    (tmp_path / 'report' / 'metrics.json').write_text(json.dumps({'metrics': {'test/v2_all': 60.0}}))
    assert run_seeds.read_metrics(tmp_path, end=2) == {'test/v2_all': 60.0}


def test_nothing_is_read_where_nothing_ran(tmp_path):
    assert run_seeds.read_metrics(tmp_path / 'missing', end=2) is None


def test_table():
    """Mean 82 and standard error 2 / sqrt(3) of 80, 82, 84; differences by seed 1, 2, 3."""
    results = {
        'configs/a.py': {seed: {'top1': value} for seed, value in enumerate((79.0, 80.0, 81.0))},
        'configs/b.py': {seed: {'top1': value} for seed, value in enumerate((80.0, 82.0, 84.0))},
    }
    head, _, first, second = run_seeds.table(results, ['top1'], ['configs/a.py']).splitlines()
    assert head == '| config | top1 | - a |'
    assert first == '| a | 80.00 ± 0.58 (79.0, 80.0, 81.0) |  |'
    assert second == '| b | 82.00 ± 1.15 (80.0, 82.0, 84.0) | +2.00 ± 0.58 |'


def test_a_baseline_must_be_run(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['run_seeds.py', 'a.py', '--metrics', 'top1', '--baselines', 'b.py'])
    with pytest.raises(SystemExit):
        run_seeds.parse_args()
    assert "expected some of the configs to run but got ['b.py']" in capsys.readouterr().err


@pytest.mark.usefixtures('one_thread')
def test_trains_what_is_not_there_and_keeps_what_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'small.py').write_text(CONFIG.format(root=ROOT))
    metrics = run_seeds.final_metrics('small.py', seed=3)
    assert 0 <= metrics['accuracy/top1'] <= 100
    monkeypatch.setattr(run_seeds, 'train_in_child', lambda *_: pytest.fail('trained again'))
    assert run_seeds.final_metrics('small.py', seed=3) == metrics


def test_a_failed_training_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'broken.py').write_text('train_cfg = dict(max_epochs=1)\n')
    with pytest.raises(RuntimeError, match=r'broken\.py, seed 0: .*got code 1'):
        run_seeds.final_metrics('broken.py', seed=0)
