import io
import json

import pytest
import torch

from mmkd_ext.visualization import CurveHistory


def history(until, offset=0.0):
    curves = CurveHistory()
    for epoch in range(1, until + 1):
        curves.add_losses(epoch, {'loss': epoch + offset})
        curves.add_metrics(epoch, {'test/v2_all': 10 * epoch + offset, 'test/v2_all_best': 1.0, 'other': 2.0})
    return curves


def test_losses_end_at_the_last_point():
    assert CurveHistory().losses_end == 0
    assert history(2).losses_end == 2


def test_only_main_metrics_are_followed():
    assert history(2).metrics == {'test/v2_all': [[1, 10.0], [2, 20.0]]}


def test_state_survives_a_weights_only_checkpoint():
    file = io.BytesIO()
    torch.save(history(3).state(), file)
    file.seek(0)
    assert CurveHistory(torch.load(file, weights_only=True)).state() == history(3).state()


def test_state_survives_a_file(tmp_path):
    path = tmp_path / 'curves.json'
    assert CurveHistory.load(path).state() == CurveHistory().state()
    history(3).save(path)
    assert CurveHistory.load(path).state() == history(3).state()
    assert [file.name for file in tmp_path.iterdir()] == ['curves.json']


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'curves.json'
    history(2).save(path)
    monkeypatch.setattr(json, 'dumps', lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        history(3).save(path)
    assert CurveHistory.load(path).state() == history(2).state()


def test_missing_points_are_filled_up_until_the_point_of_resumption():
    checkpoint, file = history(2), history(4, offset=0.5)
    checkpoint.metrics['test/v2_all'].pop()
    checkpoint.fill_up(file, until=2)
    assert checkpoint.losses == {'loss': [[1, 1.0], [2, 2.0]]}
    assert checkpoint.metrics == {'test/v2_all': [[1, 10.0], [2, 20.5]]}


def test_a_repeated_step_replaces_its_point():
    curves = history(2)
    curves.add_metrics(2, {'test/v2_all': 7.0})
    curves.add_losses(2, {'loss': 8.0})
    assert curves.metrics == {'test/v2_all': [[1, 10.0], [2, 7.0]]}
    assert curves.losses == {'loss': [[1, 1.0], [2, 8.0]]}


def test_a_checkpoint_of_before_has_sums_that_the_runner_keeps_too():
    state = {**history(2).state(), 'sums': {'loss': 3.0}, 'num_iters': 2}
    assert CurveHistory(state).state() == history(2).state()
