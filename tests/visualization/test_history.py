import io
import json

import pytest
import torch

from mmkd_ext.visualization import CurveHistory


def history(until, offset=0.0):
    curves = CurveHistory()
    for epoch in range(1, until + 1):
        curves.observe({'loss': torch.tensor(epoch + offset), 'lr': 0.1})
        curves.add_losses(epoch)
        curves.add_metrics(epoch, {'test/v2_all': 10 * epoch + offset, 'test/v2_all_best': 1.0, 'other': 2.0})
    return curves


def test_losses_are_means_since_the_last_point():
    curves = CurveHistory()
    for value in (1.0, 2.0, 6.0):
        curves.observe({'loss_cluster': torch.tensor(value, requires_grad=True), 'confidence': torch.tensor(5.0)})
    curves.add_losses(1.0)
    curves.add_losses(1.0)
    curves.observe({'loss_cluster': 7.0})
    curves.add_losses(2.0)
    assert curves.losses == {'loss_cluster': [[1.0, 3.0], [2.0, 7.0]]}


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
    curves.observe({'loss': 8.0})
    curves.add_losses(2)
    assert curves.metrics == {'test/v2_all': [[1, 10.0], [2, 7.0]]}
    assert curves.losses == {'loss': [[1, 1.0], [2, 8.0]]}


def test_the_mean_of_an_epoch_goes_on_after_resuming():
    whole, first = CurveHistory(), CurveHistory()
    values = [torch.tensor(value) for value in (0.1, 0.2, 0.7)]
    for value in values:
        whole.observe({'loss': value})
    first.observe({'loss': values[0]})
    first.observe({'loss': values[1]})
    resumed = CurveHistory(json.loads(json.dumps(first.state())))
    resumed.observe({'loss': values[2]})
    for curves in (whole, resumed):
        curves.add_losses(1)
    assert resumed.losses == whole.losses
