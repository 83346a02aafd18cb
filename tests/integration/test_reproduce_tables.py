"""The tables of reproduce/reproduce.py: what they say, and what becomes of their configs."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

import reproduce
import reproduce_report
import tables
from reproduce_recipe import Settings, make_runs, shorten
from tables import TABLES, find_table

ROOT = Path(__file__).parents[2]
ALL = pytest.mark.parametrize('name', TABLES)


@ALL
def test_configs_of_a_table_exist_and_say_its_numbers(name):
    for row in TABLES[name].rows:
        header = (ROOT / 'configs' / row.config).read_text().split('"""')[1]
        for value, source in row.published:
            if source not in ('UNO v2 README',) and row.remark != tables.OTHER_LOSS:
                assert f'{value:.2f}' in header or f'{value:.1f}' in header


@ALL
def test_every_stage_is_trained_with_the_seed_before_what_builds_on_it(name, tmp_path):
    runs = make_runs(TABLES[name], [3], Settings(epochs=50, stage_epochs=20), tmp_path, '/somewhere')
    built_on = {stage for run in runs for stage in run.stages}
    assert built_on == {runs[0]}
    assert [run.epochs for run in runs] == [20] + [50] * (len(runs) - 1)
    for run in runs:
        text = run.config.read_text()
        assert "data_root': '/somewhere'" in text
        assert 'data/cifar100' not in text
        assert ('epoch_20.pth' in text) == bool(run.stages)
        if run.stages:
            cfg = Config.fromfile(run.config)
            assert str(runs[0].config) in text
            assert str(tmp_path / 'runs') in text
            assert cfg.randomness.seed == 3
            assert cfg.train_cfg == dict(by_epoch=True, max_epochs=50, val_interval=5)


@ALL
def test_the_page_shows_what_was_measured(name, tmp_path):
    """The numbers of docs/benchmarks.md are those of the JSON file, and there are none without."""
    page = (ROOT / 'docs' / 'benchmarks.md').read_text()
    measured = ROOT / 'docs' / 'results' / 'benchmarks' / f'{name}.json'
    if measured.is_file():
        summary = json.loads(measured.read_text())
    else:
        runs = make_runs(TABLES[name], [0], Settings(), tmp_path, 'data')
        summary = reproduce_report.summarise(name, TABLES[name], runs, Settings())
    assert not summary['settings']['smoke']
    for line in reproduce_report.markdown(summary).splitlines()[1:]:
        assert line in page.splitlines()


@pytest.mark.parametrize(('wrong', 'near'), [('ncd-cifar100-5', 'ncd-cifar100-50'), ('kd-resnet20', 'kd-resnet56')])
def test_an_unknown_table_has_near_misses(wrong, near, capsys):
    with pytest.raises(KeyError, match=rf'got {wrong!r}.*{near}'):
        find_table(wrong)
    with pytest.raises(SystemExit):
        reproduce.parse_args([wrong])
    assert near in capsys.readouterr().err.rpartition('choose')[2]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['ncd-cifar100-50', '--epochs', '0'], '--epochs: expected a positive number but got 0'),
        (['kd-wrn40-2-wrn16-2', '--channels-last'], '--channels-last: expected a table of discovery but got kd-wrn40'),
    ],
)
def test_options_that_make_no_sense(options, message, capsys):
    with pytest.raises(SystemExit):
        reproduce.parse_args(options)
    assert message in capsys.readouterr().err


# --- recipes of another length


def _shortened(schedule, epochs):
    content = Config.fromfile(ROOT / 'configs' / '_base_' / 'schedules' / f'{schedule}.py').to_dict()
    shorten(content, epochs)
    return content


def _spans(content):
    return [(scheduler['type'], scheduler['begin'], scheduler['end']) for scheduler in content['param_scheduler']]


@pytest.mark.parametrize(
    ('epochs', 'expected'),
    [
        (500, [('LinearLR', 0, 10), ('CosineAnnealingLR', 10, 500)]),
        (100, [('LinearLR', 0, 2), ('CosineAnnealingLR', 2, 100)]),
        (250, [('LinearLR', 0, 5), ('CosineAnnealingLR', 5, 250)]),
        (20, [('LinearLR', 0, 2), ('CosineAnnealingLR', 2, 20)]),
        (2, [('LinearLR', 0, 2)]),
        (1, []),
    ],
)
def test_warm_up_and_cosine_shrink_in_proportion(epochs, expected):
    assert _spans(_shortened('cifar_discovery', epochs)) == expected


@pytest.mark.parametrize(('epochs', 'milestones'), [(240, [150, 180, 210]), (120, [75, 90, 105]), (80, [50, 60, 70])])
def test_steps_shrink_in_proportion(epochs, milestones):
    content = _shortened('cifar_240e', epochs)
    assert [scheduler['milestones'] for scheduler in content['param_scheduler']] == [milestones]
    assert content['train_cfg']['max_epochs'] == epochs


@pytest.mark.parametrize(('epochs', 'interval'), [(500, 10), (100, 10), (60, 6), (5, 1)])
def test_a_short_run_is_validated_ten_times_too(epochs, interval):
    assert _shortened('cifar_discovery', epochs)['train_cfg']['val_interval'] == interval
