"""benchmarks/benchmark.py on tiny sizes: that it runs, which paths it names, what it writes. No time is compared."""

import json
import math
import sys
from pathlib import Path

import pytest

import benchmark


def run(monkeypatch, *arguments):
    tiny = ['--sizes', 'tiny', '--seconds', '0', '--device', 'cpu']
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', *arguments, *tiny])
    benchmark.main()


def test_losses_and_discovery(monkeypatch, tmp_path, capsys):
    out, plot = tmp_path / 'figures' / 'performance.json', tmp_path / 'performance.png'
    run(monkeypatch, 'losses', 'discovery', '--no-memory', '--out', str(out), '--plot', str(plot))
    results = json.loads(out.read_text())
    printed = capsys.readouterr().out
    assert list(results) == ['losses', 'discovery']
    assert results['losses']['machine']['threads'] == 1
    assert {row['case'] for row in results['losses']['rows']} == set(benchmark.LOSSES)
    assert {row['case'] for row in results['discovery']['rows']} == set(benchmark.DISCOVERY)
    for group in results.values():
        for row in group['rows']:
            assert all(row[f'{side}_ms'] > 0 for side in ('published', 'ours'))
            assert row['path'] in {'torch', 'C kernel'}
            assert f'| {row["case"]} | ' in printed
    assert plot.read_bytes().startswith(b'\x89PNG')


def test_a_published_form_that_is_too_large_is_left_out(monkeypatch, tmp_path, capsys):
    out = tmp_path / 'performance.json'
    monkeypatch.setattr(benchmark, 'LOSSES', {'RKD angle': benchmark.LOSSES['RKD angle']})
    run(monkeypatch, 'losses', '--no-memory', '--memory-limit', '0', '--out', str(out))
    rows = json.loads(out.read_text())['losses']['rows']
    assert all(row['published_ms'] is None and row['ours_ms'] > 0 for row in rows)
    assert '| - |' in capsys.readouterr().out


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='memory of a process is measured on Linux')
def test_memory_of_a_fresh_process():
    """The published angle holds 6 N x N x D numbers at 64 x 64 x 256, and ours far less."""
    size = dict(name='RKD angle', device='cpu', batch=64, dims=256)
    cpu = benchmark.torch.device('cpu')
    published, ours = (
        benchmark.peak_mib(benchmark.build_call, dict(size, which=which), cpu) for which in ('published', 'ours')
    )
    assert published > 3 * 64 * 64 * 256 * 4 / 2**20
    assert ours < published / 4


def test_training_step(monkeypatch, tmp_path):
    out = tmp_path / 'performance.json'
    run(monkeypatch, 'step', '--out', str(out))
    (row,) = json.loads(out.read_text())['step']['rows']
    assert row['batch'] == 4
    assert row['share %'] == pytest.approx(100 * row['relations ms'] / row['teacher and student ms'])
    assert math.isfinite(row['difference %'])


def test_data_paths_and_groups_that_stay(monkeypatch, tmp_path):
    out = tmp_path / 'performance.json'
    out.write_text('{"step": "as it was"}')
    run(monkeypatch, 'data', '--out', str(out))
    results = json.loads(out.read_text())
    assert results['step'] == 'as it was'
    assert len(results['data']['rows']) == 2
    assert all(row['images per second'] > 0 for row in results['data']['rows'])


def test_cases_that_are_not_asked_for_stay(monkeypatch, tmp_path):
    out = tmp_path / 'performance.json'
    for case in ('swapped', 'Sinkhorn', 'swapped'):
        run(monkeypatch, 'discovery', '--cases', case, '--no-memory', '--out', str(out))
    rows = json.loads(out.read_text())['discovery']['rows']
    assert [row['case'] for row in rows] == ['Sinkhorn', 'swapped prediction']


def test_unknown_group(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, 'lossed')
    assert "expected groups of ['losses', 'discovery', 'step', 'data'] but got ['lossed']" in capsys.readouterr().err
